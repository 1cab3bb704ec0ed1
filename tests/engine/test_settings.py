from pathlib import Path

import pytest

from engine import settings
from engine.errors import Misconfigured

BUNDLED = Path(__file__).parents[2] / "configs" / "bot.toml"


@pytest.fixture(autouse=True)
def no_token_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("DISCORD_TOKEN", "STUDIO_KEYS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(settings, "ROOT", tmp_path)


def changed(tmp_path: Path, old: str, new: str) -> Path:
    text = BUNDLED.read_text()
    assert old in text
    path = tmp_path / "bot.toml"
    path.write_text(text.replace(old, new))
    return path


def test_the_bundled_file_loads_and_its_paths_are_the_repositorys(tmp_path: Path) -> None:
    loaded = settings.load(BUNDLED)
    assert loaded.data == tmp_path / "data"
    assert loaded.model == tmp_path / "configs/picturebook/picturebook.json"
    assert loaded.token is None


OFFERED = 'more_models = ["data/models"]'


def put(folder: Path, name: str, *, config: str | None = None) -> Path:
    """Put a model into a folder, with a config of its own name or another one."""
    path = folder / name / f"{config or name}.json"
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    return path


def test_other_models_are_configs_too(tmp_path: Path) -> None:
    loaded = settings.load(changed(tmp_path, OFFERED, 'more_models = ["configs/laion.json", "/models/own.json"]'))
    assert loaded.more_models == (tmp_path / "configs/laion.json", Path("/models/own.json"))
    # Also where they are not there: what is missing is said when somebody asks for it, or by the doctor.
    assert loaded.other_models() == {"laion": tmp_path / "configs/laion.json", "own": Path("/models/own.json")}


def test_a_folder_stands_for_every_model_that_is_in_it_just_now(tmp_path: Path) -> None:
    loaded = settings.load(BUNDLED)
    folder = tmp_path / "data" / "models"
    assert loaded.more_models == (folder,) and loaded.other_models() == {}
    later = put(folder, "foxes")
    assert loaded.other_models() == {"foxes": later}
    sooner = put(folder, "cats-2")
    assert list(loaded.other_models().items()) == [("cats-2", sooner), ("foxes", later)]
    later.unlink()
    assert loaded.other_models() == {"cats-2": sooner}


def test_what_is_no_whole_model_is_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "models"
    put(folder, ".foxes.part", config="foxes")
    put(folder, ".hidden")
    put(folder, "half", config="decoder")
    (folder / "folder" / "folder.json").mkdir(parents=True)
    (folder / "notes.json").write_text("{}")
    # Neither can be said to Discord: it takes names of 100 characters, and this byte is no letter.
    put(folder, "x" * 101)
    put(folder, "caf\udce9")
    whole = put(folder, "x" * 100)
    assert settings.load(BUNDLED).other_models() == {"x" * 100: whole}


def test_of_two_models_of_one_name_the_first_counts_and_none_has_that_of_the_usual_one(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    put(one, "picturebook")
    configs = [put(one, "foxes"), put(two, "cats")]
    put(two, "foxes")
    loaded = settings.load(changed(tmp_path, OFFERED, 'more_models = ["one", "two", "one/picturebook/picturebook.json", "three/cats.json"]'))
    assert [*loaded.other_models().values()] == configs


def test_an_absolute_path_stays_where_it_is(tmp_path: Path) -> None:
    assert settings.load(changed(tmp_path, '"data"', '"/var/lib/reverie"')).data == Path("/var/lib/reverie")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("waiting = 100", "watiing = 100", "unknown key 'watiing'; did you mean 'waiting'?"),
        ("waiting = 100", "waiting = 100\ntoken_ = 3", "unknown key 'token_'"),
        ("progress_every_s = 2.0", "progress_every_s = inf", "'progress_every_s' is inf"),
        ("waiting = 100", "", "'waiting' is missing"),
        ("waiting = 100", "waiting = 0", "'waiting' is 0"),
        ("waiting = 100", 'waiting = "100"', "'waiting' is '100'"),
        ("page_port = 8420", "page_port = 84200", "'page_port' is 84200"),
        ("metrics_port = 9420", "metrics_port = -1", "'metrics_port' is -1"),
        ('log_format = "text"', 'log_format = "xml"', "'log_format' is 'xml'"),
        ('studio_address = "127.0.0.1"', 'studio_address = "here"', "'studio_address' is 'here'"),
        ("studio_names = []", 'studio_names = ["a/b"]', "'studio_names.0' is 'a/b'"),
        ("webhook_hosts = []", 'webhook_hosts = ["hooks.example"]', "'webhook_hosts.0' is 'hooks.example'"),
        ("webhook_hosts = []", 'webhook_hosts = ["https://ann@hooks.example"]', "'webhook_hosts.0' is"),
        ('studio_url = ""', 'studio_url = "studio.example.com"', "'studio_url' is 'studio.example.com'"),
        ('studio_url = ""', 'studio_url = "https://studio.example.com/paint"', "'studio_url' is 'https://studio.example.com/paint'"),
        ("studio_channels = []", 'studio_channels = ["general"]', "'studio_channels.0' is 'general'"),
        ("studio_per_minute = 60", "studio_per_minute = 0", "'studio_per_minute' is 0"),
        ("waiting = 100", 'waiting = 100\nkeys = "abc"', "STUDIO_KEYS"),
        ('"auto"', '"tpu"', "'device' is 'tpu'"),
        ("progress_every_s = 2.0", "progress_every_s = 0.1", "'progress_every_s' is 0.1"),
        ("waiting = 100", "waiting = 100\nmodle = 3", "unknown key 'modle'; did you mean 'model'?"),
        ("waiting = 100", "waiting = ", "not valid TOML"),
        ("waiting = 100", 'waiting = 100\ntoken = "abc"', "DISCORD_TOKEN"),
    ],
)
def test_a_wrong_setting_is_named_in_one_sentence(tmp_path: Path, old: str, new: str, says: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        settings.load(changed(tmp_path, old, new))
    assert says in str(refused.value) and "bot.toml" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"nowhere\.toml is missing"):
        settings.load(tmp_path / "nowhere.toml")


def test_the_environment_wins_over_the_env_file_and_empty_counts_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("DISCORD_TOKEN=from-file\n")
    assert settings.load(BUNDLED).token.get_secret_value() == "from-file"
    monkeypatch.setenv("DISCORD_TOKEN", "from-environment")
    assert settings.load(BUNDLED).token.get_secret_value() == "from-environment"
    (tmp_path / ".env").unlink()
    monkeypatch.setenv("DISCORD_TOKEN", "  ")
    assert settings.load(BUNDLED).token is None


@pytest.mark.parametrize("content", [b"DISCORD_TOKEN=\xff\xfe", None])
def test_an_env_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / ".env"
    if content is not None:
        path.write_bytes(content)
    else:
        path.write_text("")

        def refused(*_: object) -> None:
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(settings, "dotenv_values", refused)
    with pytest.raises(Misconfigured, match=r"\.env cannot be read"):
        settings.load(BUNDLED)


@pytest.mark.parametrize("token", ["two\nlines", "two words", "t\u00f6ken"])
def test_a_token_that_could_not_be_sent_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv("DISCORD_TOKEN", token)
    with pytest.raises(Misconfigured, match="DISCORD_TOKEN") as refusal:
        settings.load(BUNDLED)
    assert token not in str(refusal.value)


ANN, BOB = "ann-has-this-key-alone", "bob-has-this-key:with-a-colon"


def test_everybody_has_a_key_by_their_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.load(BUNDLED).keys == {}
    monkeypatch.setenv("STUDIO_KEYS", f" ann:{ANN}\n  bob:{BOB} ")
    loaded = settings.load(BUNDLED)
    assert {name: key.get_secret_value() for name, key in loaded.keys.items()} == {"ann": ANN, "bob": BOB}
    assert ANN not in repr(loaded) + str(loaded)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        (ANN, "is not understood at entry 1"),
        (f"ann:{ANN} b/b:{BOB}", "is not understood at entry 2"),
        (f"ann:{ANN}é", "is not understood at entry 1"),
        ("ann:too-short", "for ann that is too short"),
        ("ann:", "for ann that is too short"),
        (f"ann:{ANN} ann:{BOB}", "of ann twice"),
        (f"ann:{ANN} bob:{ANN}", "of bob twice"),
    ],
)
def test_keys_that_cannot_be_used_are_refused_without_showing_them(monkeypatch: pytest.MonkeyPatch, keys: str, says: str) -> None:
    monkeypatch.setenv("STUDIO_KEYS", keys)
    with pytest.raises(Misconfigured, match="STUDIO_KEYS") as refusal:
        settings.load(BUNDLED)
    assert says in str(refusal.value) and ANN not in str(refusal.value) and "\n" not in str(refusal.value)


def test_the_token_shows_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISCORD_TOKEN", "very-secret")
    assert "very-secret" not in repr(settings.load(BUNDLED)) + str(settings.load(BUNDLED))
