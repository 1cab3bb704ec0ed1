"""What the doctor finds: over Discord on this machine, with real files and real SQLite."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import discord
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

import bot
from cogs import _doctor as module
from cogs._client import Endpoint
from cogs._doctor import Doctor, Finding, Grade, Looks
from engine.database import NAME
from engine.errors import Misconfigured
from engine.history import History
from engine.settings import Settings, load
from loopback import Loopback, permissions
from loopback.rest import Rest
from tests.test_bot import PATIENCE_S, local_bot, program
from tests.test_bot import settings as settings_file
from tests.test_docs import INVITED

Answers = dict[str, dict[str, object]]
"""What handlers of Discord say otherwise than usual, by their names."""
NOWHERE = Endpoint("http://127.0.0.1:9/api/v10", "ws://127.0.0.1:9/")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """Return what a test may fill in to let Discord answer otherwise than usual."""
    changes: Answers = {"application": {}, "gateway": {}}
    for name, more in changes.items():
        usual = getattr(Rest, name)
        monkeypatch.setattr(Rest, name, lambda self, call, usual=usual, more=more: usual(self, call) | more)
    return changes


@pytest.fixture
async def server(told: Answers, addresses: None) -> AsyncIterator[Loopback]:
    async with Loopback() as running:
        yield running


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load(settings_file(tmp_path))


async def examine(settings: Settings, server: Loopback | None, token: str | None = Loopback.token) -> dict[str, Finding]:
    """Return what the doctor finds, by what it is about; of several findings about one thing, the worst."""
    looks = Looks(lambda: bot.missing_files(settings), lambda: "a device", bot.remedy)
    endpoint = Endpoint(server.api, server.gateway) if server else NOWHERE
    found: dict[str, Finding] = {}
    async for finding in Doctor(settings, token, endpoint, looks).examine():
        assert "\n" not in str(finding)
        if finding.about not in found or list(Grade).index(finding.grade) > list(Grade).index(found[finding.about].grade):
            found[finding.about] = finding
    return found


def others(found: dict[str, Finding], *about: str) -> set[Grade]:
    """Return how everything else is."""
    return {finding.grade for finding in found.values() if finding.about not in about}


async def test_where_all_is_well_the_doctor_says_so_and_changes_nothing(settings: Settings, server: Loopback) -> None:
    await (await History.open(settings.data)).close()
    before = hashlib.sha256((settings.data / NAME).read_bytes()).digest()
    found = await examine(settings, server)
    assert others(found) == {Grade.OK}
    assert f"client_id={server.bot.id}&scope=bot+applications.commands&permissions={INVITED.value}" in found["invite"].text
    assert hashlib.sha256((settings.data / NAME).read_bytes()).digest() == before
    assert {request.method for request in server.requests} == {"GET"} and not server.sessions


async def test_a_missing_permission_is_named_with_its_channel(settings: Settings, server: Loopback) -> None:
    server.add_channel("paintings").deny(permissions.ATTACH_FILES | permissions.ADD_REACTIONS)
    server.add_channel("secrets").deny(permissions.VIEW_CHANNEL)
    found = await examine(settings, server)
    assert found["server Loopback"].grade is Grade.WARNING and others(found, "server Loopback") == {Grade.OK}
    assert "in 2 of 3 text channel(s): #paintings (Attach Files, Add Reactions); #secrets (View Channel)." in found["server Loopback"].text


async def test_a_server_where_the_bot_may_post_nowhere_is_a_problem(settings: Settings, server: Loopback) -> None:
    server.general.deny(permissions.EMBED_LINKS)
    found = await examine(settings, server)
    assert found["server Loopback"].grade is Grade.PROBLEM and "#general (Embed Links)" in found["server Loopback"].text


async def test_of_many_channels_only_some_are_listed(settings: Settings, server: Loopback) -> None:
    for number in range(module.CHANNELS_SHOWN + 5):
        server.add_channel(f"quiet-{number}").deny(permissions.ATTACH_FILES)
    text = (await examine(settings, server))["server Loopback"].text
    assert text.count("#quiet-") == module.CHANNELS_SHOWN and "and 5 more." in text


async def test_a_token_that_discord_does_not_accept_is_a_problem_and_not_shown(settings: Settings, server: Loopback) -> None:
    found = await examine(settings, server, token="very-secret")
    assert found["token"].grade is Grade.PROBLEM and "does not accept DISCORD_TOKEN" in found["token"].text
    assert others(found, "token") == {Grade.OK} and "very-secret" not in str(found)


async def test_without_a_token_everything_here_is_looked_at_all_the_same(settings: Settings) -> None:
    found = await examine(settings, None, token=None)
    assert found["token"].grade is Grade.PROBLEM and "DISCORD_TOKEN=" in found["token"].text
    assert others(found, "token") == {Grade.OK} and {"data", "database", "disk", "model", "device", "versions"} < set(found)


async def test_a_discord_that_cannot_be_reached_is_a_plain_problem(settings: Settings, server: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    found = await examine(settings, None)
    assert found["token"].grade is Grade.PROBLEM and "Discord cannot be reached" in found["token"].text


@pytest.mark.parametrize(
    ("handler", "change", "about", "grade", "says"),
    [
        ("application", {"interactions_endpoint_url": "https://example.org"}, "application", Grade.PROBLEM, "Interactions Endpoint URL is set"),
        ("application", {"bot_require_code_grant": True}, "application", Grade.PROBLEM, "code grant"),
        ("application", {"integration_types_config": {"1": {}}}, "application", Grade.PROBLEM, "Guild Install"),
        ("gateway", {"session_start_limit": {"total": 1000, "remaining": 0, "reset_after": 7_200_000}}, "gateway", Grade.PROBLEM, "2.0 hours"),
        ("gateway", {"session_start_limit": {"total": 1000, "remaining": 7, "reset_after": 0}}, "gateway", Grade.WARNING, "so often"),
        ("gateway", {"url": "ws://127.0.0.1:9/"}, "gateway", Grade.PROBLEM, "cannot be reached"),
    ],
)
async def test_what_is_wrong_at_discord_is_named(
    settings: Settings, server: Loopback, told: Answers, handler: str, change: dict[str, object], about: str, grade: Grade, says: str
) -> None:
    told[handler] |= change
    found = await examine(settings, server)
    assert found[about].grade is grade and says in found[about].text
    assert others(found, about) == {Grade.OK}


@pytest.mark.parametrize("answer", ["hello", "[]", '{"op": 9}', None])
async def test_something_else_in_the_place_of_the_gateway_is_a_problem(
    settings: Settings, server: Loopback, told: Answers, answer: str | None
) -> None:
    async def serve(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        if answer is not None:
            await socket.send_str(answer)
        return socket

    app = web.Application()
    app.router.add_get("/", serve)
    async with TestServer(app) as other:
        told["gateway"]["url"] = str(other.make_url("/")).replace("http", "ws")
        found = await examine(settings, server)
    assert found["gateway"].grade is Grade.PROBLEM and "not Discord's gateway" in found["gateway"].text


async def test_an_intent_that_the_portal_does_not_allow_is_a_problem(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discord.http.Route, "BASE", discord.http.Route.BASE)
    monkeypatch.setattr(module, "INTENTS", discord.Intents(guilds=True, message_content=True))
    for is_on, grade in ((False, Grade.PROBLEM), (True, Grade.OK)):
        async with Loopback(message_content=is_on) as server:
            found = await examine(settings, server)
        assert found["intents"].grade is grade and "message" in found["intents"].text


async def test_a_refusal_in_between_is_told_and_the_rest_is_looked_at(settings: Settings, server: Loopback) -> None:
    server.fail_next(1, status=403, path=r"/guilds/\d+/channels")
    found = await examine(settings, server)
    assert found["servers"].grade is Grade.PROBLEM and "403" in found["servers"].text
    assert others(found, "servers") == {Grade.OK} and "invite" in found


async def test_stale_commands_are_told_and_left_to_the_bot(settings: Settings, server: Loopback) -> None:
    server.world.commands[None] = [{"id": "1", "application_id": str(server.bot.id), "version": "1", "type": 1, "name": "old", "description": "x"}]
    found = await examine(settings, server)
    assert found["commands"].grade is Grade.WARNING and "no longer there: old" in found["commands"].text and "dream" in found["commands"].text
    assert {request.method for request in server.requests} == {"GET"}


async def test_commands_that_are_described_otherwise_are_stale_too(settings: Settings, server: Loopback) -> None:
    async with module.Doctor(settings, None, Endpoint(server.api, server.gateway), None)._visiting() as visitor:
        await visitor.login(server.token)
        await visitor.tree.sync()
        key = visitor.commands_key
        digest = await visitor._digest()
    for remembered, grade in (("of another version", Grade.WARNING), (digest, Grade.OK)):
        history = await History.open(settings.data)
        await history.remember(key, remembered)
        await history.close()
        assert (await examine(settings, server))["commands"].grade is grade


async def test_a_damaged_database_is_a_problem(settings: Settings, server: Loopback) -> None:
    settings.data.mkdir()
    (settings.data / NAME).write_bytes(b"nonsense" * 1000)
    found = await examine(settings, server)
    assert found["data"].grade is Grade.PROBLEM and "is not a database that Reverie can read" in found["data"].text
    assert others(found, "data") == {Grade.OK}


async def test_a_database_with_a_damaged_page_is_a_problem(settings: Settings, server: Loopback) -> None:
    await (await History.open(settings.data)).close()
    path = settings.data / NAME
    content = path.read_bytes()
    path.write_bytes(content[:-4096] + bytes(4096))
    found = await examine(settings, server)
    assert found["data"].grade is Grade.PROBLEM and "is not a database that Reverie can read" in found["data"].text


async def test_the_database_of_a_newer_reverie_is_a_problem(settings: Settings, server: Loopback) -> None:
    await (await History.open(settings.data)).close()
    path = settings.data / NAME
    content = bytearray(path.read_bytes())
    # Where SQLite's file format keeps user_version.
    content[60:64] = (99).to_bytes(4, "big")
    path.write_bytes(content)
    assert "newer Reverie (schema 99" in (await examine(settings, server))["data"].text


async def test_a_data_folder_that_cannot_be_written_is_a_problem(settings: Settings, server: Loopback) -> None:
    settings.data.write_text("a file stands in the way")
    found = await examine(settings, server)
    assert found["data"].grade is Grade.PROBLEM and "cannot be written" in found["data"].text
    assert others(found, "data") == {Grade.OK}


@pytest.mark.parametrize(("free", "grade"), [(10**8, Grade.PROBLEM), (10**9, Grade.WARNING), (10**10, Grade.OK)])
async def test_little_room_on_the_disk_is_told(settings: Settings, monkeypatch: pytest.MonkeyPatch, free: int, grade: Grade) -> None:
    monkeypatch.setattr(module.shutil, "disk_usage", lambda place: type("", (), {"free": free}))
    assert (await examine(settings, None, token=None))["disk"].grade is grade


async def test_a_bot_that_runs_on_the_same_data_is_no_problem(settings: Settings, server: Loopback) -> None:
    history = await History.open(settings.data)
    try:
        await history.remember("something", "not in the file yet, only in its journal")
        found = await examine(settings, server)
        await history.remember("something", "the bot still writes")
    finally:
        await history.close()
    assert others(found) == {Grade.OK} and "a bot is running on it" in found["data"].text
    assert "running" not in (await examine(settings, server))["data"].text


def model(tmp_path: Path, **files: dict[str, str]) -> Settings:
    """Return settings with a model config that names these files as its prior's weights and train config."""
    path = tmp_path / "model.json"
    clip = {"make": "openai", "model": "ViT-L/14"}
    path.write_text(json.dumps({"prior": files, "clip": clip}))
    return load(settings_file(tmp_path, model=str(path)))


async def test_missing_weights_are_a_problem(tmp_path: Path) -> None:
    settings = model(tmp_path, load_model_from={"load_type": "local", "path": "prior.pth"})
    found = await examine(settings, None, token=None)
    assert found["model"].grade is Grade.PROBLEM and "prior.pth is missing" in found["model"].text


async def test_a_clip_whose_folder_is_not_there_is_a_problem(tmp_path: Path) -> None:
    settings = model(tmp_path, load_model_from={"load_type": "local", "path": "model.json"})
    content = json.loads(settings.model.read_text())
    settings.model.write_text(json.dumps(content | {"clip": {"make": "open_clip", "model": "local-dir:nowhere"}}))
    found = await examine(settings, None, token=None)
    assert found["model"].grade is Grade.PROBLEM and "nowhere/open_clip_config.json is missing" in found["model"].text


async def test_a_model_config_that_is_missing_is_a_problem(tmp_path: Path) -> None:
    settings = load(settings_file(tmp_path, model=str(tmp_path / "none.json")))
    assert "none.json is missing" in (await examine(settings, None, token=None))["model"].text


async def test_a_broken_model_in_a_folder_of_models_is_a_problem(settings: Settings) -> None:
    config = settings.data / "models" / "foxes" / "foxes.json"
    config.parent.mkdir(parents=True)
    config.write_text("{}")
    found = (await examine(settings, None, token=None))["model"]
    assert found.grade is Grade.PROBLEM and str(config) in found.text


async def test_weights_that_are_still_to_be_fetched_are_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    hub, elsewhere = "https://huggingface.co/laion/prior/resolve/main/latest.pth", "https://example.org/prior.json"
    settings = model(
        tmp_path,
        load_model_from={"load_type": "url", "path": hub, "cache_dir": "cache"},
        load_config_from={"load_type": "url", "path": elsewhere, "cache_dir": "cache"},
    )
    found = await examine(settings, None, token=None)
    assert found["model"].grade is Grade.WARNING and hub in found["model"].text and elsewhere in found["model"].text
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "prior.json").write_text("{}")
    assert elsewhere not in (await examine(settings, None, token=None))["model"].text
    # As the Hub's client keeps files.
    place = tmp_path / "cache" / "hub" / "models--laion--prior"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("abc")
    (place / "snapshots" / "abc").mkdir(parents=True)
    (place / "snapshots" / "abc" / "latest.pth").write_bytes(b"")
    assert (await examine(settings, None, token=None))["model"].grade is Grade.OK


async def test_a_device_that_is_not_there_is_a_problem(settings: Settings) -> None:
    with pytest.raises(Misconfigured, match="no such GPU"):
        bot.device_of(settings.model_copy(update={"device": "cuda:7"}))
    assert bot.device_of(settings).startswith(("CPU", "NVIDIA"))


async def doctor(*arguments: str) -> tuple[int | None, list[str]]:
    """Run the program's doctor, and return its exit code and lines."""
    async with program("--doctor", *arguments) as process:
        output, errors = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    assert errors == b"", errors.decode()
    return process.returncode, output.decode().splitlines()


async def test_the_program_looks_at_a_bot_that_runs_on_this_machine_and_leaves_it_alone(tmp_path: Path) -> None:
    config = settings_file(tmp_path)
    async with local_bot(config) as running, aiohttp.ClientSession() as session:
        await running.dream(session, prompt="a cat", count=1, steps=1)
        # The page writes to disk what it was told, a moment later.
        await asyncio.sleep(1)
        code, lines = await doctor("--local", "--config", str(config))
        assert running.process.returncode is None
    assert code == 0 and all(line.startswith("ok ") for line in lines), lines
    assert any("a bot is running on it" in line for line in lines) and any("are registered as they are in the code" in line for line in lines)


async def test_the_exit_code_tells_of_a_problem(tmp_path: Path) -> None:
    code, lines = await doctor("--config", str(settings_file(tmp_path)))
    assert code == 1 and lines[-1].startswith("problem  token: ") and sum(line.startswith("problem") for line in lines) == 1
    code, lines = await doctor("--config", str(tmp_path / "nowhere.toml"))
    assert code == 1 and lines == [
        f"problem  settings: Settings file {tmp_path}/nowhere.toml is missing. Name another one with --config, or restore it from the repository."
    ]
