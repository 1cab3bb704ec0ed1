"""Fetching against a real server on this machine that goes wrong in every way that servers do."""

import hashlib
import json
import logging
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import files
from engine.errors import Misconfigured
from engine.files import File, fetch, file_name, read_digest
from tests.engine.fileserver import Shelf, damaged, serving

ROOT = Path(__file__).parents[2]
WEIGHTS = os.urandom(3_000_000)
DAMAGED = damaged(WEIGHTS)
SHA = hashlib.sha256(WEIGHTS).hexdigest()
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{SHA}\nsize {len(WEIGHTS)}\n".encode()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(files, "WAIT_S", 0.0)


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    shelf = Shelf({"/w.pth": WEIGHTS, "/w.pth.sha256": f"{SHA}  w.pth\n".encode(), "/pointer": POINTER})
    with serving(shelf):
        yield shelf


def url(shelf: Shelf, path: str = "/w.pth", **options: Any) -> File:
    return File(load_type="url", path=shelf.address + path, cache_dir="models", **options)


def refusal(file: File, folder: Path) -> str:
    with pytest.raises(Misconfigured) as refused:
        fetch(file, folder)
    message = str(refused.value)
    assert "\n" not in message and len(message) < 500
    return message


def test_a_local_path_is_relative_to_the_config(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"x")
    assert fetch(File(load_type="local", path="w.pth"), tmp_path) == tmp_path / "w.pth"
    assert "nowhere.pth is missing" in refusal(File(load_type="local", path="nowhere.pth"), tmp_path)


def test_a_file_is_fetched_once_and_found_again_without_the_server(tmp_path: Path) -> None:
    shelf = Shelf({"/w.pth": WEIGHTS})
    with serving(shelf):
        path = fetch(url(shelf, filename_override="new.pth"), tmp_path)
        assert path == tmp_path / "models" / "new.pth" and path.read_bytes() == WEIGHTS
        fetch(url(shelf, filename_override="new.pth"), tmp_path)
        assert len(shelf.asked) == 1
    assert fetch(url(shelf, filename_override="new.pth"), tmp_path).read_bytes() == WEIGHTS
    assert sorted(entry.name for entry in (tmp_path / "models").iterdir() if not entry.name.endswith(".lock")) == ["new.pth"]


def test_without_a_folder_equal_names_of_two_addresses_do_not_collide(shelf: Shelf, tmp_path: Path) -> None:
    shelf.files["/other/w.pth"] = b"other"
    paths = [fetch(File(load_type="url", path=shelf.address + path), tmp_path) for path in ("/w.pth", "/other/w.pth")]
    assert [path.read_bytes() for path in paths] == [WEIGHTS, b"other"]


def test_a_cut_connection_is_taken_up_where_it_ended(shelf: Shelf, tmp_path: Path) -> None:
    shelf.cut_after = [1_000_000, 500_000]
    assert fetch(url(shelf), tmp_path).read_bytes() == WEIGHTS
    assert [asked for _, asked in shelf.asked] == [None, "bytes=1000000-", "bytes=1500000-"]


def test_a_half_file_of_an_earlier_run_is_taken_up(shelf: Shelf, tmp_path: Path) -> None:
    shelf.cut_after = [1_000_000, 0, 0, 0, 0, 0]
    assert "cannot be fetched" in refusal(url(shelf), tmp_path)
    assert not (tmp_path / "models" / "w.pth").exists()
    shelf.cut_after = []
    assert fetch(url(shelf), tmp_path).read_bytes() == WEIGHTS
    assert shelf.asked[-1][1] == "bytes=1000000-"


@pytest.mark.parametrize("change", [{"with_ranges": False}, {"with_etag": False}])
def test_a_server_that_cannot_go_on_is_asked_from_the_start(shelf: Shelf, tmp_path: Path, change: dict[str, bool]) -> None:
    for key, value in change.items():
        setattr(shelf, key, value)
    shelf.cut_after = [1_000_000]
    assert fetch(url(shelf), tmp_path).read_bytes() == WEIGHTS


def test_a_file_that_changes_meanwhile_is_not_glued_together(shelf: Shelf, tmp_path: Path) -> None:
    shelf.cut_after = [1_000_000, 0, 0, 0, 0, 0]
    refusal(url(shelf), tmp_path)
    shelf.cut_after, shelf.files["/w.pth"] = [], b"new" * 1000
    assert fetch(url(shelf), tmp_path).read_bytes() == b"new" * 1000


def test_a_server_that_says_too_much_is_given_up_on(shelf: Shelf, tmp_path: Path) -> None:
    shelf.length = len(WEIGHTS) + 1
    assert "cannot be fetched" in refusal(url(shelf), tmp_path)
    assert len(shelf.asked) <= 2 * files.TRIES and not (tmp_path / "models" / "w.pth").exists()


def test_a_server_that_says_too_little_is_found_out_by_the_checksum(shelf: Shelf, tmp_path: Path) -> None:
    checksum = tmp_path / "sum"
    checksum.write_bytes(POINTER)
    shelf.length = 1000
    assert "is not what" in refusal(url(shelf, checksum_file_path="sum"), tmp_path)
    assert not (tmp_path / "models" / "w.pth").exists()


@pytest.mark.parametrize("checksum", ["/pointer", "/w.pth.sha256"])
def test_a_good_file_is_never_replaced_by_a_bad_one(shelf: Shelf, tmp_path: Path, checksum: str) -> None:
    file = url(shelf, checksum_file_path=shelf.address + checksum)
    path = fetch(file, tmp_path)
    shelf.files["/w.pth"] = b"bad"
    assert fetch(file, tmp_path).read_bytes() == WEIGHTS
    shelf.files[checksum] = hashlib.sha256(b"newer").hexdigest().encode()
    assert "is not what" in refusal(file, tmp_path)
    assert path.read_bytes() == WEIGHTS
    shelf.files["/w.pth"] = b"newer"
    assert fetch(file, tmp_path).read_bytes() == b"newer"


def test_a_file_that_is_damaged_here_is_fetched_again(shelf: Shelf, tmp_path: Path) -> None:
    file = url(shelf, checksum_file_path=shelf.address + "/pointer")
    path = fetch(file, tmp_path)
    path.write_bytes(DAMAGED)
    assert fetch(file, tmp_path).read_bytes() == WEIGHTS


def test_what_was_verified_is_not_read_again(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = url(shelf, checksum_file_path=shelf.address + "/pointer")
    fetch(file, tmp_path)
    fetch(file, tmp_path)
    monkeypatch.setattr(files, "hash_file", lambda *ignored: pytest.fail("read again"))
    fetch(file, tmp_path)


def test_a_small_file_may_be_its_own_checksum(shelf: Shelf, tmp_path: Path) -> None:
    shelf.files["/config.json"] = b'{"a": 1}'
    file = url(shelf, "/config.json", checksum_file_path=shelf.address + "/config.json")
    assert fetch(file, tmp_path).read_bytes() == b'{"a": 1}'
    shelf.files["/config.json"] = b'{"a": 2}'
    assert fetch(file, tmp_path).read_bytes() == b'{"a": 2}'


def test_a_kept_file_serves_while_the_checksum_cannot_be_reached(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shelf = Shelf({"/w.pth": WEIGHTS, "/pointer": POINTER})
    with serving(shelf):
        file = url(shelf, checksum_file_path=shelf.address + "/pointer")
        fetch(file, tmp_path)
    with caplog.at_level(logging.WARNING):
        assert fetch(file, tmp_path).read_bytes() == WEIGHTS
    assert "here already" in caplog.text


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"status": 403}, "may be private"),
        ({"status": 500}, "answers 500"),
        ({"status": 418}, "answers 418"),
        ({"kind": "text/html; charset=utf-8"}, "web page"),
        ({"redirect": "/again"}, "redirect"),
        ({"redirect": "file:///etc/passwd"}, "redirect"),
    ],
)
def test_a_refusal_is_one_sentence(shelf: Shelf, tmp_path: Path, change: dict[str, Any], says: str) -> None:
    for key, value in change.items():
        setattr(shelf, key, value)
    assert says in refusal(url(shelf), tmp_path)


def test_a_page_in_place_of_weights_is_refused_even_if_it_is_called_weights(shelf: Shelf, tmp_path: Path) -> None:
    shelf.files["/w.pth"] = b"\n<!DOCTYPE html><title>Sign in</title>"
    assert "web page" in refusal(url(shelf), tmp_path)


def test_an_address_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    gone = Shelf({})
    with serving(gone):
        assert "there is no such file (404)" in refusal(url(gone), tmp_path)
    assert gone.address in refusal(url(gone), tmp_path)
    assert "must begin with https" in refusal(File(load_type="url", path="ftp://example.org/w.pth"), tmp_path)
    assert "no.such.host.invalid" in refusal(File(load_type="url", path="http://no.such.host.invalid/w.pth"), tmp_path)


def test_room_is_looked_for_before_the_first_byte(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**9, 10**9, files.DISK_RESERVE_BYTES + len(WEIGHTS) - 1))
    assert "Make room" in refusal(url(shelf), tmp_path)
    assert not (tmp_path / "models" / "w.pth.part").exists()


def test_a_disk_that_fills_up_meanwhile_is_named_and_cleared(shelf: Shelf, tmp_path: Path) -> None:
    script = (
        "import resource, signal, sys\nfrom pathlib import Path\nfrom engine.errors import Misconfigured\nfrom engine.files import File, fetch\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nresource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))\n"
        "try:\n    fetch(File.model_validate_json(sys.argv[1]), Path(sys.argv[2]))\nexcept Misconfigured as error:\n    print(error)\n"
    )
    command = [sys.executable, "-c", script, url(shelf).model_dump_json(), str(tmp_path)]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60).stdout
    assert "does not fit on the disk" in told
    assert not (tmp_path / "models" / "w.pth").exists() and not (tmp_path / "models" / "w.pth.part").exists()
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1_000_000


@given(st.text(max_size=30))
def test_no_name_leaves_its_folder(name: str) -> None:
    try:
        path = Path("/cache/folder") / file_name(name, "http://x")
    except Misconfigured:
        return
    assert path.parent == Path("/cache/folder") and path.name == name


@given(st.text(max_size=200))
def test_any_text_is_a_checksum_or_none(text: str) -> None:
    digest = read_digest(text)
    assert digest is None or len(digest.value) == 64


def test_checksums_are_read_as_the_hub_and_sha256sum_write_them() -> None:
    assert read_digest(POINTER.decode()) == files.Digest("sha256", SHA, len(WEIGHTS))
    assert read_digest(f"{SHA.upper()} *w.pth") == read_digest(SHA) == files.Digest("sha256", SHA)
    assert read_digest(json.dumps({"a": SHA})) is None


# --- the Hub ---

HUB = """
import sys
from pathlib import Path
from engine.errors import Misconfigured
from engine.files import File, fetch
try:
    path = fetch(File.model_validate_json(sys.argv[1]), Path(sys.argv[2]))
    print(path, path.read_bytes().hex()[:20], path.stat().st_size)
except Misconfigured as error:
    print("refused:", error)
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Shelf]:
    from tests.engine.hubserver import serving_hub

    shelf = Shelf({"latest.pth": WEIGHTS, "config.json": b'{"prior": 1}'})
    with serving_hub(shelf):
        yield shelf


def from_hub(hub: Shelf, tmp_path: Path, name: str = "latest.pth", kind: str = "resolve", offline: bool = False, **options: Any) -> str:
    file = File(load_type="url", path=f"https://huggingface.co/laion/model/{kind}/main/{name}", **options)
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path / "home"),
        "HF_HOME": str(tmp_path / "hf"),
        "HF_ENDPOINT": hub.address,
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": str(int(offline)),
    }
    command = [sys.executable, "-c", HUB, file.model_dump_json(), str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


@pytest.mark.parametrize("options", [{}, {"cache_dir": "./models", "filename_override": "new.pth"}])
def test_the_hubs_files_come_through_its_cache_and_serve_offline(hub: Shelf, tmp_path: Path, options: dict[str, Any]) -> None:
    told = from_hub(hub, tmp_path, **options)
    assert told.endswith(f"{WEIGHTS.hex()[:20]} {len(WEIGHTS)}")
    if options:
        assert told.startswith(str(tmp_path / "models" / "new.pth"))
    asked = len(hub.asked)
    assert from_hub(hub, tmp_path, offline=True, **options) == told
    assert len(hub.asked) == asked


def test_a_hub_file_that_is_not_its_checksum_is_refused(hub: Shelf, tmp_path: Path) -> None:
    hub.kind = "lying"
    assert "not what its checksum says" in from_hub(hub, tmp_path)


def test_a_hub_file_damaged_in_the_cache_is_fetched_again(hub: Shelf, tmp_path: Path) -> None:
    path = Path(from_hub(hub, tmp_path).split()[0]).resolve()
    path.chmod(0o644)
    path.write_bytes(DAMAGED)
    assert from_hub(hub, tmp_path).endswith(f"{WEIGHTS.hex()[:20]} {len(WEIGHTS)}")


def test_small_files_of_the_hub_are_verified_too(hub: Shelf, tmp_path: Path) -> None:
    assert from_hub(hub, tmp_path, "config.json", "raw", cache_dir="models").startswith(str(tmp_path / "models" / "config.json"))


def test_what_the_hub_has_not_and_what_is_not_cached_is_named(hub: Shelf, tmp_path: Path) -> None:
    assert "does not exist" in from_hub(hub, tmp_path, "nothing.pth")
    assert "HF_HUB_OFFLINE" in from_hub(hub, tmp_path, "config.json", offline=True)


def test_a_file_that_dalle2_laion_kept_is_used(hub: Shelf, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "new.pth").write_bytes(WEIGHTS)
    (tmp_path / "models" / "new.pth.checksum").write_bytes(POINTER)
    told = from_hub(hub, tmp_path, cache_dir="models", filename_override="new.pth")
    assert told.startswith(str(tmp_path / "models" / "new.pth")) and hub.asked == []
