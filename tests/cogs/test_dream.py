import asyncio
import contextlib
import re
from collections.abc import Callable
from pathlib import Path

import discord
import pytest

from cogs._client import Reverie
from engine.history import History
from engine.jobs import Origin, Painting, Picture, Request, State
from engine.queue import Limits
from loopback import Loopback
from tests.cogs.conftest import EVERY_S
from tests.conftest import ScriptedPainter, png

Start = Callable[..., contextlib.AbstractAsyncContextManager[Reverie]]


def results(server: Loopback, channel: object = None) -> list:
    """Return the messages with a finished grid, those of the general channel where no other is given."""
    return [message for message in (channel or server.general).messages if any("reverie-" in file.filename for file in message.attachments)]


async def result(server: Loopback) -> object:
    await server.wait_for(lambda: results(server))
    return results(server)[0]


async def states(bot: Reverie) -> list[str]:
    return [row["state"] for row in await bot._history._rows("SELECT state FROM job ORDER BY id")]


async def settled(server: Loopback, bot: Reverie, *expected: str) -> None:
    """Wait until all jobs in the memory are in these states."""
    for _ in range(200):
        if await states(bot) == list(expected):
            return
        await asyncio.sleep(0.05)
    pytest.fail(f"{await states(bot)} instead of {expected}")


async def test_a_prompt_is_acknowledged_and_its_grid_is_posted_as_a_message_of_the_channel(discord_: Loopback, bot: Reverie) -> None:
    interaction = await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a cat on red", "count": 3, "seed": 7})
    await asyncio.wait_for(interaction.acknowledged.wait(), 1)
    assert interaction.acknowledged_after_s < 1
    message = await result(discord_)
    assert message is not interaction.message
    assert f"<@{discord_.ann.id}>" in message.content
    [embed] = message.embeds
    assert embed["description"] == "a cat on red"
    fields = {field["name"]: field["value"] for field in embed["fields"]}
    assert (fields["Seed"], fields["Model"], fields["Steps"], fields["Guidance"], fields["Seconds"]) == ("7", "scripted", "30", "1.5", "0.5")
    [file] = message.attachments
    assert file.filename == "reverie-1.png" and file.data.startswith(b"\x89PNG")
    assert (file.width, file.height) == (512, 512)
    assert "a cat on red" in file.description
    await settled(discord_, bot, "delivered")
    await discord_.wait_for(lambda: len(discord_.general.messages) == 1)


async def test_the_requester_and_nobody_else_is_pinged(discord_: Loopback, bot: Reverie) -> None:
    prompt = f"@everyone @here <@{discord_.ben.id}> <@&1> **bold** `code`"
    await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": prompt})
    message = await result(discord_)
    posts = [request.payload for request in discord_.requests if request.method in ("POST", "PATCH") and "messages" in request.path]
    assert all(post["allowed_mentions"].get("users", []) in ([], [str(discord_.ann.id)], [discord_.ann.id]) for post in posts)
    assert all(set(post["allowed_mentions"].get("parse", [])) == set() for post in posts)
    assert r"\*\*bold\*\*" in message.embeds[0]["description"]


async def test_words_never_seen_are_named_beside_those_that_are_known(discord_: Loopback, bot: Reverie) -> None:
    await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a cat dragon"})
    message = await result(discord_)
    fields = {field["name"]: field["value"] for field in message.embeds[0]["fields"]}
    assert (fields["Words I was never shown"], fields["Words I know"]) == ("dragon", "cat, on, a, red")


async def test_words_lists_what_the_model_knows_to_the_asker_alone(discord_: Loopback, bot: Reverie) -> None:
    await asyncio.wait_for(bot.worker.ready.wait(), 5)
    interaction = await discord_.command(discord_.ann, discord_.general, "words")
    await discord_.wait_for(lambda: interaction.message)
    assert "cat, on, a, red" in interaction.message.content
    assert interaction.message.flags & 64


async def test_words_says_so_while_the_model_is_being_loaded(discord_: Loopback, start: Start) -> None:
    async with start(working=False):
        interaction = await discord_.command(discord_.ann, discord_.general, "words")
        await discord_.wait_for(lambda: interaction.message)
        assert "still being loaded" in interaction.message.content


async def test_a_spoiler_is_hidden(discord_: Loopback, bot: Reverie) -> None:
    await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a cat", "spoiler": True})
    message = await result(discord_)
    assert message.attachments[0].filename == "SPOILER_reverie-1.png"


async def test_progress_is_edited_with_a_preview_and_not_too_often(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    painter.steps, painter.pause_s = 60, 0.03
    interaction = await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a cat"})
    await discord_.wait_for(lambda: interaction.message and interaction.message.attachments)
    assert "%" in interaction.message.content and interaction.message.attachments[0].filename == "preview-1.png"
    await result(discord_)
    edits = [request for request in discord_.requests if request.method == "PATCH"]
    assert len(edits) > 2
    assert all(later.at - earlier.at >= EVERY_S * 0.9 for earlier, later in zip(edits, edits[1:], strict=False))


async def test_those_who_wait_see_their_place(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    painter.hold.clear()
    await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "first"})
    await asyncio.to_thread(painter.started.wait)
    waiting = [await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": f"number {n}"}) for n in range(2)]
    await discord_.wait_for(lambda: all(interaction.message for interaction in waiting))
    assert "You are next" in waiting[0].message.content
    assert "number 2 in the queue" in waiting[1].message.content
    painter.hold.set()
    await discord_.wait_for(lambda: len(results(discord_)) == 3)


async def test_one_person_with_many_jobs_does_not_delay_another(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    painter.hold.clear()
    for n in range(4):
        await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": f"ann {n}"})
    await discord_.command(discord_.ben, discord_.general, "dream", {"prompt": "ben"})
    await discord_.wait_for(lambda: bot.queue.waiting == 4)
    painter.hold.set()
    await discord_.wait_for(lambda: len(results(discord_)) == 5)
    assert [request.prompt for request in painter.painted][:2] == ["ann 0", "ben"]


@pytest.mark.parametrize(
    ("permission", "name"),
    [("attach_files", "Attach Files"), ("send_messages", "Send Messages"), ("embed_links", "Embed Links")],
)
async def test_a_missing_permission_is_named_before_anything_is_queued(discord_: Loopback, bot: Reverie, permission: str, name: str) -> None:
    discord_.general.deny(discord.Permissions(**{permission: True}).value)
    interaction = await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a cat"})
    await discord_.wait_for(lambda: interaction.message)
    assert name in interaction.message.content and interaction.message.flags & 64
    assert await states(bot) == []


async def test_an_empty_prompt_is_refused_in_one_sentence(discord_: Loopback, bot: Reverie) -> None:
    interaction = await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "   "})
    await discord_.wait_for(lambda: interaction.message)
    assert interaction.message.content == "The prompt must hold at least one word."
    assert interaction.message.flags & 64 and await states(bot) == []


async def test_too_many_jobs_of_one_person_are_refused(discord_: Loopback, start: Start, painter: ScriptedPainter) -> None:
    painter.hold.clear()
    async with start(limits=Limits(waiting=9, per_user=1)):
        await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a cat"})
        await discord_.wait_for(lambda: discord_.general.messages)
        refused = await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "another"})
        await discord_.wait_for(lambda: refused.message)
        assert "already have 1" in refused.message.content
        painter.hold.set()
        await result(discord_)


async def test_what_breaks_is_told_with_a_reference_and_no_traceback(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    painter.failures = [RuntimeError("secret inner thing")]
    interaction = await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a cat"})
    await discord_.wait_for(lambda: interaction.message and "reference" in interaction.message.content)
    assert re.search(r"`1-[0-9a-f]{4}`", interaction.message.content) and "secret" not in interaction.message.content
    assert await states(bot) == ["failed"]


async def test_an_expired_token_does_not_keep_the_result(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    painter.hold.clear()
    interaction = await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a cat"})
    await discord_.wait_for(lambda: interaction.message)
    interaction.expire()
    painter.hold.set()
    await result(discord_)
    await discord_.wait_for(lambda: len(discord_.general.messages) == 1)


async def test_a_deleted_progress_message_does_not_keep_the_result(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    painter.hold.clear()
    interaction = await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a cat"})
    await discord_.wait_for(lambda: interaction.message)
    discord_.world.delete_message(interaction.message)
    await asyncio.sleep(2 * EVERY_S)
    painter.hold.set()
    await result(discord_)
    await settled(discord_, bot, "delivered")


async def test_a_channel_that_closed_meanwhile_is_got_round(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    painter.hold.clear()
    interaction = await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a cat"})
    await discord_.wait_for(lambda: interaction.message)
    interaction.expire()
    discord_.general.deny(discord.Permissions(send_messages=True).value)
    painter.hold.set()
    await settled(discord_, bot, "delivered")
    direct = [channel for channel in discord_.world.channels.values() if channel is not discord_.general and results(discord_, channel)]
    assert len(direct) == 1


async def test_where_no_way_is_open_the_job_is_failed_and_said_so(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    cara = discord_.add_user("cara", dms_open=False)
    painter.hold.clear()
    interaction = await discord_.command(cara, discord_.general, "dream", {"prompt": "a cat"})
    await discord_.wait_for(lambda: interaction.message)
    interaction.expire()
    discord_.general.deny(discord.Permissions(send_messages=True).value)
    painter.hold.set()
    await settled(discord_, bot, "failed")
    await discord_.wait_for(lambda: "may post neither" in interaction.message.content)


async def test_a_result_that_discord_refuses_is_told_with_a_reference(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    painter.hold.clear()
    interaction = await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a cat"})
    await discord_.wait_for(lambda: interaction.message)
    discord_.fail_next(1, status=400, path=r"/channels/\d+/messages$")
    painter.hold.set()
    await settled(discord_, bot, "failed")
    await discord_.wait_for(lambda: "`1-400-" in interaction.message.content)


async def test_a_server_error_of_discord_is_waited_out(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    painter.hold.clear()
    await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a cat"})
    await discord_.wait_for(lambda: discord_.general.messages)
    discord_.fail_next(1, status=500, path=r"/channels/\d+/messages$")
    painter.hold.set()
    await result(discord_)
    await settled(discord_, bot, "delivered")
    assert len(results(discord_)) == 1


@pytest.mark.parametrize("when", ["waiting", "painting"])
async def test_a_restart_finishes_what_was_asked_and_posts_it_once(discord_: Loopback, start: Start, painter: ScriptedPainter, when: str) -> None:
    painter.hold.clear()
    async with start(working=when == "painting") as bot:
        interaction = await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a cat"})
        await discord_.wait_for(lambda: bot.queue.find(1) and bot.queue.find(1).message_id == interaction.message.id)
        if when == "painting":
            await asyncio.to_thread(painter.started.wait)
    assert results(discord_) == []
    painter.hold.set()
    async with start() as bot:
        await result(discord_)
        await settled(discord_, bot, "delivered")
    async with start():
        await asyncio.sleep(2 * EVERY_S)
    assert len(results(discord_)) == 1 and len(discord_.general.messages) == 1


async def test_an_acknowledgement_that_was_not_noted_is_found_and_removed(discord_: Loopback, start: Start, tmp_path: Path) -> None:
    async with start(working=False) as bot:
        interaction = await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a cat"})
        await discord_.wait_for(lambda: bot.queue.find(1) and bot.queue.find(1).message_id)
        await bot._history._update(bot.queue.find(1), message_id=None)
    assert discord_.general.messages == [interaction.message]
    async with start() as bot:
        await settled(discord_, bot, "delivered")
        await discord_.wait_for(lambda: discord_.general.messages == results(discord_))


@pytest.mark.parametrize("posted", [False, True])
async def test_a_crash_around_posting_posts_once(discord_: Loopback, start: Start, tmp_path: Path, posted: bool) -> None:
    history = await History.open(tmp_path / "data")
    job = await history.add(Request("a cat", seed=1, count=1), Origin(discord_.ann.id, discord_.general.id, discord_.guild.id))
    painting = Painting((Picture(png((1, 2, 3)), 1, 8, 8),), "scripted", 30, 1.0, 1.0)
    history.store(job, painting)
    await history.painted(job, painting)
    await history.close()
    if posted:
        async with start() as bot:
            await result(discord_)
            await settled(discord_, bot, "delivered")
            await bot._history._update(job, state=State.PAINTED)
        # Long after: Discord has forgotten the nonce, so only a look into the channel can tell.
        discord_.clock.advance(3600)
    async with start() as bot:
        await settled(discord_, bot, "delivered")
    assert len(results(discord_)) == 1


async def test_commands_are_registered_once_and_again_when_discord_lost_them(discord_: Loopback, start: Start) -> None:
    def registrations() -> int:
        return sum(request.method == "PUT" and request.path.endswith("/commands") for request in discord_.requests)

    async with start():
        assert registrations() == 1
    async with start():
        assert registrations() == 1
    async with start() as bot:
        await bot._history.remember(f"commands of {bot.application_id}", "of another version")
    async with start():
        assert registrations() == 2


async def test_the_presence_shows_the_model(discord_: Loopback, bot: Reverie) -> None:
    await discord_.wait_for(lambda: any("scripted" in str(session.presence) for session in discord_.sessions))


async def test_dm_works_too(discord_: Loopback, bot: Reverie) -> None:
    channel = discord_.world.dm(discord_.ann)
    await discord_.command(discord_.ann, channel, "dream", {"prompt": "a cat"})
    await discord_.wait_for(lambda: results(discord_, channel))


async def test_every_request_keeps_to_discords_own_document(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    if discord_.contract is None:
        pytest.skip("Discord's OpenAPI document is not here: put its path into DISCORD_OPENAPI")
    painter.hold.clear()
    interaction = await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a cat", "spoiler": True})
    await discord_.wait_for(lambda: interaction.message and interaction.message.attachments)
    painter.hold.set()
    await result(discord_)
    assert {request.method for request in discord_.requests} >= {"GET", "PUT", "POST", "PATCH"}
    assert discord_.violations == []
