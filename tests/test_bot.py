"""The program itself, as a person starts it: a process of its own, the bundled model, Discord on this machine, a real browser."""

import asyncio
import contextlib
import json
import os
import re
import signal
import sqlite3
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from io import BytesIO
from pathlib import Path

import aiohttp
import discord
import numpy as np
import pytest
from PIL import Image
from playwright.async_api import async_playwright, expect

from bot import PORTAL, Others, devices_of, remedy
from engine.settings import load
from loopback import Loopback
from tests.loopback.test_page import CHROMIUM, QUIET, in_chromium

ROOT = Path(__file__).parents[1]
ANN, GENERAL = "1000000000000000004", "1000000000000000002"
PATIENCE_S = 120.0


def settings(tmp_path: Path, **changes: object) -> Path:
    """Write the bundled settings with folders and ports of this test's own."""
    own: dict[str, object] = {"data": str(tmp_path / "data"), "more_models": [str(tmp_path / "data" / "models")]}
    values = own | {"page_port": 0, "metrics_port": 0} | changes
    text = (ROOT / "configs" / "bot.toml").read_text()
    for key, value in values.items():
        text, count = re.subn(rf"^{key} = .*$", lambda _, key=key, value=value: f"{key} = {json.dumps(value)}", text, flags=re.MULTILINE)
        assert count == 1
    path = tmp_path / "bot.toml"
    path.write_text(text)
    return path


@contextlib.asynccontextmanager
async def program(*arguments: str, program_file: str = "bot.py", **environment: str) -> AsyncIterator[Process]:
    """Run bot.py; it is killed where the block leaves it running."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        program_file,
        *arguments,
        cwd=ROOT,
        stdout=PIPE,
        stderr=PIPE,
        env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"} | environment,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


class Bot:
    """A running bot on the local page."""

    def __init__(self, process: Process, page: str, log: list[str]) -> None:
        self.process = process
        self.page = page
        self.log = log

    async def dream(self, session: aiohttp.ClientSession, **options: object) -> None:
        """Type /dream on the page."""
        payload = {"user": ANN, "channel": GENERAL, "do": "command", "name": "dream", "options": options}
        async with asyncio.timeout(PATIENCE_S):
            while True:
                form = aiohttp.FormData(default_to_multipart=True)
                form.add_field("payload", json.dumps(payload))
                async with session.post(self.page + "page/act", data=form) as answer:
                    if answer.status == 200:
                        return
                await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def local_bot(config: Path, script: str | None = None) -> AsyncIterator[Bot]:
    """Start bot.py, or a script that runs it, on the local page and read its address off what it prints."""
    command = ("--local", "--config", str(config))
    async with program(script, *command, program_file="-c") if script else program(*command) as process:
        assert process.stdout and process.stderr
        log: list[str] = []

        async def keep_reading() -> None:
            async for line in process.stderr:  # type: ignore[union-attr] # a pipe, see above
                log.append(line.decode())

        reader = asyncio.create_task(keep_reading())
        page = None
        async for line in process.stdout:
            if found := re.search(r"http://127\.0\.0\.1:\d+/", line.decode()):
                page = found[0]
                break
        assert page, "".join(log)
        try:
            yield Bot(process, page, log)
        finally:
            reader.cancel()


def jobs(tmp_path: Path) -> list[str]:
    """Return the state of every job on disk."""
    with contextlib.closing(sqlite3.connect(tmp_path / "data" / "reverie.db")) as database:
        return [state for (state,) in database.execute("SELECT state FROM job ORDER BY id")]


async def until_half_painted(session: aiohttp.ClientSession, bot: "Bot") -> None:
    """Wait until the progress message shows a bar."""
    async with asyncio.timeout(PATIENCE_S):
        while not any("%" in message["content"] for message in await messages(session, bot.page)):  # noqa: ASYNC110 - see below
            await asyncio.sleep(0.1)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - another process sets no event here
            await asyncio.sleep(0.05)


async def messages(session: aiohttp.ClientSession, page: str) -> list[dict]:
    async with session.ws_connect(page + "page/socket") as socket:
        return (await socket.receive_json())["messages"]


def test_other_models_are_looked_for_whenever_somebody_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[tuple[Path, str]] = []
    monkeypatch.setattr("engine.models.load_painter", lambda config, device, dtype: loaded.append((config, device)))
    single, folder = tmp_path / "laion.json", tmp_path / "models"
    others = Others(load(settings(tmp_path, more_models=[str(single), str(folder)])), "cuda:1")
    # What is missing is said when it is loaded.
    assert [*others] == ["laion"] and others["laion"] == others["laion"]
    config = folder / "foxes" / "foxes.json"
    config.parent.mkdir(parents=True)
    config.write_text("{}")
    assert [*others] == ["laion", "foxes"] and len(others) == 2 and "cats" not in others
    before = others["foxes"]
    assert before == others["foxes"]
    os.utime(config, ns=(1, 1))
    assert before != others["foxes"]
    others["foxes"]()
    assert loaded == [(config, "cuda:1")]
    config.unlink()
    assert [*others] == ["laion"] and others.get("foxes") is None


@pytest.mark.parametrize(
    ("content", "device", "expected"),
    [
        ('{"devices": ["cuda:0", "cuda:1"]}', "auto", ["cuda:0", "cuda:1"]),
        ('{"devices": ["cuda:0", "cuda:1"]}', "cuda:1", ["cuda:1"]),
        ('{"devices": ["cuda:1"]}', "auto", ["auto"]),
        ('{"devices": "cuda:0"}', "auto", ["auto"]),
        ('{"devices": [1, 2]}', "auto", ["auto"]),
        ("[]", "auto", ["auto"]),
        ("{", "cpu", ["cpu"]),
        (None, "auto", ["auto"]),
    ],
)
def test_the_model_config_lists_devices_and_the_settings_may_name_one(tmp_path: Path, content: str | None, device: str, expected: list[str]) -> None:
    model = tmp_path / "model.json"
    if content is not None:
        model.write_text(content)
    assert devices_of(load(settings(tmp_path, model=str(model), device=device))) == expected


async def test_a_job_outlives_the_kill_of_its_process_and_is_posted_once(tmp_path: Path) -> None:
    config = settings(tmp_path)
    async with aiohttp.ClientSession() as session:
        async with local_bot(config) as bot:
            await bot.dream(session, prompt="a fox on a blue background", seed=7, count=2, steps=100)
            await until_half_painted(session, bot)
            bot.process.send_signal(signal.SIGKILL)
            await bot.process.wait()
        assert jobs(tmp_path) == ["painting"]
        async with local_bot(config) as bot:
            await until(lambda: jobs(tmp_path) == ["delivered"])
        async with local_bot(config) as bot:
            await bot.dream(session, prompt="a cat", count=1, steps=1)
            await until(lambda: jobs(tmp_path) == ["delivered", "delivered"])
            posted = [message for message in await messages(session, bot.page) if "reverie-1.png" in json.dumps(message)]
    assert len(posted) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_in_order_and_keeps_the_job(tmp_path: Path, number: signal.Signals) -> None:
    async with aiohttp.ClientSession() as session, local_bot(settings(tmp_path)) as bot:
        await bot.dream(session, prompt="a fox", steps=250)
        await until_half_painted(session, bot)
        bot.process.send_signal(number)
        assert await asyncio.wait_for(bot.process.wait(), 20) == 0
        assert not any("Traceback" in line for line in bot.log), "".join(bot.log)
    assert jobs(tmp_path) == ["painting"]


@in_chromium
async def test_a_person_types_dream_on_the_page_and_sees_the_picture(tmp_path: Path) -> None:
    async with local_bot(settings(tmp_path)) as bot, async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET.split())
        page = await browser.new_page()
        await page.goto(bot.page)
        await expect(page.locator("#bot-status")).to_contain_text("/dream", timeout=PATIENCE_S * 1000)
        await page.fill("#command-box", "/dream prompt: a cat on a red background seed: 7")
        await page.press("#command-box", "Enter")
        if await page.locator("#option-send").is_visible():
            await page.press("#option-send", "Enter")
        picture = page.locator(".message .picture img[src*='reverie-1']")
        await expect(picture).to_be_visible(timeout=PATIENCE_S * 1000)
        assert "a cat on a red background" in (await picture.get_attribute("alt") or "")
        seen = np.asarray(Image.open(BytesIO(await picture.screenshot())).convert("RGB")).reshape(-1, 3)
        await browser.close()
    red, green, blue = np.median(seen, axis=0)
    assert red > green + 60 and red > blue + 60


@pytest.mark.parametrize(
    ("arrange", "says"),
    [
        (lambda tmp_path: settings(tmp_path, model=str(tmp_path / "none.json")), r"none\.json is missing"),
        (lambda tmp_path: tmp_path / "none.toml", r"none\.toml is missing"),
        (lambda tmp_path: broken_database(tmp_path), r"reverie\.db is not a database"),
    ],
    ids=["model", "settings", "database"],
)
async def test_what_the_operator_can_mend_is_one_sentence_and_no_traceback(tmp_path: Path, arrange: Callable[[Path], Path], says: str) -> None:
    async with program("--local", "--config", str(arrange(tmp_path))) as process:
        _, errors = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    last = errors.decode().strip().splitlines()[-1]
    assert process.returncode == 1
    assert re.search(says, last), errors.decode()
    assert "Traceback" not in errors.decode()


def broken_database(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "reverie.db").write_bytes(b"nonsense" * 1000)
    return settings(tmp_path)


AT_DISCORD = "import sys, bot; bot.Endpoint(sys.argv.pop(1), sys.argv.pop(1)).use(); sys.exit(bot.main())"
"""The program with a token, but with Discord elsewhere than in the internet."""


async def refusal_of(*command: str, **environment: str) -> tuple[int, str]:
    """Run Python in the repository and return its exit code and what it said last."""
    async with program(*command, program_file="-c", **environment) as process:
        _, errors = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    assert b"Traceback" not in errors, errors.decode()
    assert process.returncode is not None
    return process.returncode, errors.decode().strip().splitlines()[-1]


async def test_a_token_that_discord_does_not_accept_is_one_sentence(tmp_path: Path) -> None:
    async with Loopback() as server:
        command = (AT_DISCORD, server.api, server.gateway, "--config", str(settings(tmp_path)))
        code, said = await refusal_of(*command, DISCORD_TOKEN="wrong")
        assert code == 1 and "does not accept DISCORD_TOKEN" in said and "wrong" not in said
        code, said = await refusal_of(*command, DISCORD_TOKEN="two\nlines")
        assert code == 1 and "DISCORD_TOKEN" in said and "lines" not in said


async def test_a_token_that_is_reset_while_the_bot_runs_ends_it_with_one_sentence(tmp_path: Path) -> None:
    class Elsewhere(Loopback):
        token = "another one by now"

    class Here(Loopback):
        @property
        def gateway(self) -> str:
            return later.gateway

    async with Elsewhere() as later, Here() as server:
        code, said = await refusal_of(AT_DISCORD, server.api, server.gateway, "--config", str(settings(tmp_path)), DISCORD_TOKEN=server.token)
    assert code == 1 and "does not accept DISCORD_TOKEN" in said


async def test_a_discord_that_is_out_of_order_is_one_sentence(tmp_path: Path) -> None:
    async with Loopback() as server:
        server.fail_next(1, status=503, path="/users/@me")
        code, said = await refusal_of(AT_DISCORD, server.api, server.gateway, "--config", str(settings(tmp_path)), DISCORD_TOKEN=server.token)
    assert code == 1 and "out of order just now (503)" in said


def test_what_discord_must_be_asked_for_is_named_with_the_place_to_ask() -> None:
    assert f"Bot page of {PORTAL}" in remedy(discord.PrivilegedIntentsRequired(None))


def test_what_nobody_but_us_can_mend_keeps_its_traceback() -> None:
    assert remedy(discord.ClientException("a fault of ours")) is None


async def test_a_discord_that_cannot_be_reached_is_one_sentence(tmp_path: Path) -> None:
    nowhere = ("http://127.0.0.1:9/api/v10", "ws://127.0.0.1:9/")
    code, said = await refusal_of(AT_DISCORD, *nowhere, "--config", str(settings(tmp_path)), DISCORD_TOKEN="a.b.c")
    assert code == 1 and "cannot be reached" in said


async def test_a_second_bot_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    config = settings(tmp_path)
    async with local_bot(config), program("--local", "--config", str(config)) as second:
        _, errors = await asyncio.wait_for(second.communicate(), PATIENCE_S)
    assert second.returncode == 1 and b"Another Reverie" in errors


async def test_a_taken_port_is_named(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    async with local_bot(settings(tmp_path / "first")) as bot:
        port = int(bot.page.rstrip("/").rsplit(":", 1)[1])
        async with program("--local", "--config", str(settings(tmp_path, page_port=port))) as second:
            _, errors = await asyncio.wait_for(second.communicate(), PATIENCE_S)
    assert second.returncode == 1 and f"Port {port}".encode() in errors


async def test_help_is_there_at_once_and_without_torch() -> None:
    async with program("--help") as process:
        output, _ = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 0 and b"--local" in output
