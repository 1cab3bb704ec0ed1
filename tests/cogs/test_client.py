import asyncio
import logging

import discord
import pytest

from cogs import _client as client
from cogs._client import Reverie
from loopback import Interaction, Loopback
from tests.cogs.conftest import Start, settled


def registrations(server: Loopback) -> int:
    return sum(request.method == "PUT" and request.path.endswith("/commands") for request in server.requests)


async def test_commands_are_registered_once_and_again_only_when_they_changed(discord_: Loopback, start: Start) -> None:
    for _ in range(3):
        async with start() as bot:
            assert registrations(discord_) == 1
    async with start() as bot:
        await bot.history.remember(f"commands of {bot.application_id}", "of another version")
    async with start():
        assert registrations(discord_) == 2


async def test_commands_are_registered_again_when_discord_has_lost_them(discord_: Loopback, start: Start) -> None:
    async with start():
        pass
    discord_.world.commands[None].clear()
    async with start():
        assert registrations(discord_) == 2
    assert {command["name"] for command in discord_.world.commands[None]} == {
        *(
            "dream",
            "words",
            "variations",
            "inpaint",
            "blend",
            "morph",
            "edit",
            "explore",
            "draws",
            "verify",
            "queue",
            "show",
            "history",
            "similar",
            "download",
        ),
        *("vote", "leaderboard", "stats", "settings", "moderate", "mydata"),
        *("Variations", "Inpaint…", "Paint the mask", "Picture info", "Share", "Report"),
    }


async def test_a_refused_registration_stops_nobody_and_is_tried_again(discord_: Loopback, start: Start, caplog: pytest.LogCaptureFixture) -> None:
    async with start():
        interaction = await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a cat"})
        await discord_.wait_for(lambda: interaction.message)
    discord_.fail_next(1, status=400, path=r"/applications/\d+/commands$")
    async with start() as bot:
        assert "could not be registered" in caplog.text
        await settled(bot, "delivered")


async def test_the_presence_shows_the_model(discord_: Loopback, bot: Reverie) -> None:
    await discord_.wait_for(lambda: any("scripted" in str(session.presence) for session in discord_.sessions))


async def test_the_presence_outlives_its_session(discord_: Loopback, bot: Reverie, monkeypatch: pytest.MonkeyPatch) -> None:
    # Five seconds of courtesy towards Discord before a new session.
    monkeypatch.setattr(bot, "before_identify_hook", lambda shard_id, *, initial=False: asyncio.sleep(0))
    await discord_.wait_for(lambda: any("scripted" in str(session.presence) for session in discord_.sessions))
    [old] = discord_.sessions
    discord_.invalidate()
    await discord_.wait_for(lambda: any(session is not old for session in discord_.sessions))
    assert "scripted" in str(discord_.sessions[0].presence)


async def test_a_presence_that_fell_into_a_broken_connection_is_shown_later(
    discord_: Loopback, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "PRESENCE_EVERY_S", 0.05)
    monkeypatch.setattr(discord.gateway.DiscordWebSocket, "change_presence", failing_once(discord.gateway.DiscordWebSocket.change_presence))
    async with start():
        await discord_.wait_for(lambda: any("scripted" in str(session.presence) for session in discord_.sessions))


def failing_once(function):
    """Let a coroutine function fail at its first call as it does where the connection is closed."""
    calls = []

    async def failing(*args, **kwargs):
        calls.append(args)
        if len(calls) == 1:
            raise ConnectionResetError("Cannot write to closing transport")
        return await function(*args, **kwargs)

    return failing


async def test_a_fault_in_a_command_is_told_with_a_reference_that_stands_in_the_log(
    discord_: Loopback, bot: Reverie, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        @property
        def known_words(self) -> None:
            raise RuntimeError("secret inner thing")

    monkeypatch.setattr(bot.desk, "model", Broken())
    with caplog.at_level(logging.ERROR):
        interaction = await discord_.command(discord_.ann, discord_.general, "words")
        await discord_.wait_for(lambda: interaction.message)
    assert interaction.message.flags & 64 and "secret" not in interaction.message.content
    reference = interaction.message.content.split("`")[1]
    [record] = [record for record in caplog.records if reference in record.getMessage()]
    assert record.exc_info


async def test_a_command_that_is_no_more_is_explained(discord_: Loopback, bot: Reverie) -> None:
    bot.tree.remove_command("words", type=discord.AppCommandType.chat_input)
    interaction = await discord_.command(discord_.ann, discord_.general, "words")
    await discord_.wait_for(lambda: interaction.message)
    assert interaction.message.content.startswith("This command has changed.") and interaction.message.flags & 64


async def test_commands_are_offered_everywhere(discord_: Loopback, bot: Reverie) -> None:
    for command in discord_.world.commands[None]:
        assert (command["contexts"], command["integration_types"]) == ([0, 1, 2], [0, 1])


async def test_a_stop_waits_for_those_who_are_just_being_answered(
    discord_: Loopback, start: Start, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start(working=False) as bot:
        add = bot.history.add

        async def slow(*args, **kwargs):
            await asyncio.sleep(1)
            return await add(*args, **kwargs)

        monkeypatch.setattr(bot.history, "add", slow)
        interaction = await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a cat"})
        await asyncio.sleep(0.1)

        async def ask_again() -> list[Interaction]:
            await asyncio.sleep(0.1)
            await discord_.say(discord_.ann, discord_.dm(discord_.ann), "hello")
            return [await discord_.command(discord_.ben, discord_.general, name) for name in ("words", "queue")]

        late = asyncio.create_task(ask_again())
    assert interaction.acknowledged.is_set()
    # Whoever comes while the bot stops is not begun with.
    assert [use.acknowledged.is_set() for use in await late] == [False, False] and len(discord_.dm(discord_.ann).messages) == 1
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
