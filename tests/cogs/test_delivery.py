import asyncio
import re
from pathlib import Path

import aiohttp
import discord
import pytest

from cogs import _delivery as delivery
from cogs._client import Reverie
from engine.history import History
from engine.jobs import Origin, Painting, Picture, Request, State
from loopback import Loopback
from tests.cogs.conftest import EVERY_S, Start, asked, direct_results, result, results, settled, states
from tests.conftest import ScriptedPainter, png

MESSAGES = r"/channels/\d+/messages$"
SEND_MESSAGES = discord.Permissions(send_messages=True).value


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once where a day's patience would do so after seconds and minutes."""
    monkeypatch.setattr(delivery, "PATIENCE_S", (0.05,) * 20)


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


async def test_an_estimate_that_is_used_up_is_not_shown(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    bot.queue._seconds_per_cost = 0.0001
    interaction = await asked(discord_, painter)
    await discord_.wait_for(lambda: "Painting" in interaction.message.content or "%" in interaction.message.content)
    await discord_.wait_for(lambda: "<t:" not in interaction.message.content)
    painter.hold.set()
    await result(discord_)


async def test_what_breaks_is_told_with_a_reference_and_no_traceback(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    painter.failures = [RuntimeError("secret inner thing")]
    interaction = await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a cat"})
    await discord_.wait_for(lambda: interaction.message and "reference" in interaction.message.content)
    assert re.search(r"`1-[0-9a-f]{4}`", interaction.message.content) and "secret" not in interaction.message.content
    assert interaction.message.content.startswith("**a cat**") and not interaction.message.mentions
    assert await states(bot) == ["failed"]


async def test_a_failure_takes_its_half_painted_preview_away(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    interaction = await asked(discord_, painter)
    await discord_.wait_for(lambda: interaction.message.attachments)
    await bot.queue.cancel(bot.queue.find(1))
    await discord_.wait_for(lambda: interaction.message.content.endswith("Cancelled."))
    assert interaction.message.attachments == []


async def test_an_expired_token_does_not_keep_the_result(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    painter.steps, painter.pause_s = 80, 0.03
    interaction = await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a cat"})
    await discord_.wait_for(lambda: interaction.message and interaction.message.attachments)
    interaction.expire()
    await result(discord_)
    await discord_.wait_for(lambda: len(discord_.general.messages) == 1)
    # Progress went on by the bot's own token; Discord bans machines that keep asking with a dead one.
    assert sum(request.method == "PATCH" and request.path.startswith("/channels") for request in discord_.requests) > 1
    assert sum(request.status == 401 for request in discord_.requests) == 1


async def test_a_deleted_progress_message_does_not_keep_the_result(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    painter.steps, painter.pause_s = 80, 0.03
    interaction = await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a cat"})
    await discord_.wait_for(lambda: interaction.message and interaction.message.attachments)
    discord_.world.delete_message(interaction.message)
    await settled(bot, "delivered")
    assert len(results(discord_)) == 1
    assert sum(request.method == "PATCH" and request.status == 404 for request in discord_.requests) == 1


async def test_a_failure_whose_progress_message_was_deleted_is_told_in_a_message(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    interaction = await asked(discord_, painter)
    discord_.world.delete_message(interaction.message)
    await bot.queue.cancel(bot.queue.find(1))
    await discord_.wait_for(lambda: discord_.general.messages)
    [told] = discord_.general.messages
    assert told.content == f"<@{discord_.ann.id}> **a cat**\nCancelled." and told.mentions == [discord_.ann]


async def test_a_channel_that_closed_meanwhile_gets_the_result_as_an_answer(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    interaction = await asked(discord_, painter)
    discord_.general.deny(SEND_MESSAGES)
    painter.hold.set()
    await settled(bot, "delivered")
    assert interaction.followups == results(discord_) and direct_results(discord_) == []


async def test_a_channel_that_closed_with_its_token_expired_is_got_round_by_a_direct_message(
    discord_: Loopback, bot: Reverie, painter: ScriptedPainter
) -> None:
    interaction = await asked(discord_, painter)
    interaction.expire()
    discord_.general.deny(SEND_MESSAGES)
    painter.hold.set()
    await settled(bot, "delivered")
    assert results(discord_) == [] and len(direct_results(discord_)) == 1


async def test_where_no_way_is_open_the_result_is_kept_and_said_so(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    interaction = await asked(discord_, painter, discord_.add_user("cara", dms_open=False))
    interaction.expire()
    discord_.general.deny(SEND_MESSAGES)
    painter.hold.set()
    await settled(bot, "kept")
    await discord_.wait_for(lambda: "`/show 1`" in interaction.message.content)
    assert interaction.message.components == []


async def test_a_result_that_is_refused_everywhere_is_kept(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    interaction = await asked(discord_, painter)
    discord_.fail_next(3, status=400, path=r"/messages$|/webhooks/\d+/[^/]+$")
    painter.hold.set()
    await settled(bot, "kept")
    await discord_.wait_for(lambda: "`/show 1`" in interaction.message.content)


async def test_what_is_kept_is_told_at_the_next_occasion_once_and_brought_by_show(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    cara = discord_.add_user("cara", dms_open=False)
    interaction = await asked(discord_, painter, cara, count=2)
    interaction.expire()
    discord_.general.deny(SEND_MESSAGES)
    painter.hold.set()
    await settled(bot, "kept")
    for person, notices in ((discord_.ben, 0), (cara, 1), (cara, 0)):
        use = await discord_.command(person, discord_.general, "words")
        await discord_.wait_for(lambda use=use: use.message)
        await asyncio.sleep(0.1)
        assert [message.content for message in use.followups] == ["Painted, and kept for you: `/show 1`"] * notices
    other = await discord_.command(discord_.ben, discord_.dm(discord_.ben), "show", {"number": 1})
    await discord_.wait_for(lambda: other.message)
    assert "don't remember" in other.message.content
    shown = await discord_.command(cara, discord_.general, "show", {"number": 1})
    await discord_.wait_for(lambda: shown.message and shown.message.attachments)
    assert [file.filename for file in shown.message.attachments] == ["1-1.png", "1-2.png"] and shown.message.ephemeral
    await settled(bot, "delivered")


async def test_a_place_that_refuses_a_result_is_got_round(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    # As an archived thread does that is locked as well.
    interaction = await asked(discord_, painter)
    discord_.fail_next(1, status=400, path=MESSAGES)
    painter.hold.set()
    await settled(bot, "delivered")
    assert interaction.followups == results(discord_)


async def test_a_grid_that_cannot_be_made_is_told_with_a_reference(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    interaction = await asked(discord_, painter)
    painting = Painting((Picture(b"no picture", 1, 8, 8),), "scripted", 30, 1.0, 1.0)
    painter.paint = lambda request, report: painting
    await bot.queue.cancel(bot.queue.find(1))
    painter.hold.set()
    interaction = await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a cat"})
    await discord_.wait_for(lambda: interaction.message and "reference" in interaction.message.content)
    assert await states(bot) == ["cancelled", "failed"]


async def test_a_server_error_of_discord_is_waited_out(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    await asked(discord_, painter)
    discord_.fail_next(1, status=500, path=MESSAGES)
    painter.hold.set()
    await settled(bot, "delivered")
    assert len(results(discord_)) == 1


@pytest.mark.parametrize("status", [401, 503])
async def test_a_longer_absence_of_discord_is_waited_out(
    discord_: Loopback, bot: Reverie, painter: ScriptedPainter, impatient: None, status: int
) -> None:
    await asked(discord_, painter)
    # Each attempt is one request: discord.py gives up at these two at once.
    discord_.fail_next(4, status=status, path=MESSAGES)
    painter.hold.set()
    await settled(bot, "delivered")
    assert len(results(discord_)) == 1 and direct_results(discord_) == []


async def test_a_failure_is_told_when_discord_is_back(discord_: Loopback, bot: Reverie, painter: ScriptedPainter, impatient: None) -> None:
    interaction = await asked(discord_, painter)
    interaction.expire()
    await bot.queue.cancel(bot.queue.find(1))
    discord_.fail_next(4, status=503, path=r"/channels/\d+/messages/\d+$")
    await discord_.wait_for(lambda: interaction.message.content.endswith("Cancelled."))
    assert len(discord_.general.messages) == 1


async def test_a_post_whose_answer_was_lost_is_not_posted_again(
    discord_: Loopback, bot: Reverie, painter: ScriptedPainter, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asked(discord_, painter)
    send = discord.PartialMessageable.send
    lost = []

    async def send_and_lose_the_answer(*args: object, **kwargs: object) -> discord.Message:
        message = await send(*args, **kwargs)
        if not lost:
            lost.append(message.id)
            # Longer than Discord remembers a nonce.
            discord_.clock.advance(600)
            raise aiohttp.ServerDisconnectedError
        return message

    monkeypatch.setattr(discord.PartialMessageable, "send", send_and_lose_the_answer)
    painter.hold.set()
    await settled(bot, "delivered")
    assert [message.id for message in results(discord_)] == lost


async def test_an_upload_that_is_too_large_all_the_same_becomes_smaller(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    await asked(discord_, painter, count=9)
    discord_.fail_next(1, status=413, path=MESSAGES)
    painter.hold.set()
    await settled(bot, "delivered")
    [message] = results(discord_)
    [refused] = [request for request in discord_.requests if request.status == 413]
    assert message.attachments[0].filename == "reverie-1.webp"
    assert len(message.attachments[0].data) < refused.files[0][1] / 2


async def test_a_place_that_takes_little_gets_a_smaller_file_and_show_brings_the_originals(discord_: Loopback, bot: Reverie) -> None:
    discord_.limits.reported_file_bytes = discord_.limits.file_bytes = 2_000
    await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a cat", "count": 9})
    message = await result(discord_)
    assert len(message.attachments[0].data) <= 2_000


async def test_a_stop_still_tells_who_is_just_being_told(discord_: Loopback, start: Start, painter: ScriptedPainter, impatient: None) -> None:
    async with start() as bot:
        interaction = await asked(discord_, painter)
        discord_.fail_next(2, status=503, path=r"/webhooks/.*/messages/\d+$")
        await bot.queue.cancel(bot.queue.find(1))
        await settled(bot, "cancelled")
    assert interaction.message.content.endswith("Cancelled.")


@pytest.mark.parametrize("when", ["waiting", "painting"])
async def test_a_restart_finishes_what_was_asked_and_posts_it_once(discord_: Loopback, start: Start, painter: ScriptedPainter, when: str) -> None:
    painter.hold.clear()
    async with start(working=when == "painting") as bot:
        interaction = await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a cat"})
        await discord_.wait_for(lambda: interaction.message and bot.queue.find(1) and bot.queue.find(1).message_id == interaction.message.id)
        if when == "painting":
            await asyncio.to_thread(painter.started.wait)
    assert results(discord_) == []
    painter.hold.set()
    async with start() as bot:
        await result(discord_)
        await settled(bot, "delivered")
    async with start():
        await asyncio.sleep(2 * EVERY_S)
    assert len(results(discord_)) == 1 and len(discord_.general.messages) == 1


async def test_an_acknowledgement_that_was_not_noted_is_found_and_removed(discord_: Loopback, start: Start, tmp_path: Path) -> None:
    async with start(working=False) as bot:
        interaction = await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a cat"})
        await discord_.wait_for(lambda: bot.queue.find(1) and bot.queue.find(1).message_id)
        await bot.history._update(bot.queue.find(1), message_id=None)
    assert discord_.general.messages == [interaction.message]
    async with start() as bot:
        await settled(bot, "delivered")
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
            await settled(bot, "delivered")
            await bot.history._update(job, state=State.PAINTED)
        # Long after: Discord has forgotten the nonce, so only a look into the channel can tell.
        discord_.clock.advance(3600)
    async with start() as bot:
        await settled(bot, "delivered")
    assert len(results(discord_)) == 1


@pytest.mark.parametrize("trouble", ["drop", "drop for good", "reconnect", "invalidate", "429"])
async def test_trouble_with_the_connection_loses_nothing_and_doubles_nothing(
    discord_: Loopback, bot: Reverie, painter: ScriptedPainter, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    # Five seconds of courtesy towards Discord before a new session.
    monkeypatch.setattr(bot, "before_identify_hook", lambda shard_id, *, initial=False: asyncio.sleep(0))
    interaction = await asked(discord_, painter)
    match trouble:
        case "drop":
            discord_.drop_gateway()
        case "drop for good":
            discord_.drop_gateway(resumable=False)
        case "reconnect":
            discord_.reconnect()
        case "invalidate":
            discord_.invalidate()
        case _:
            discord_.fail_next(2, status=429, path=MESSAGES)
    painter.hold.set()
    await settled(bot, "delivered")
    if trouble == "429":
        assert [request.status for request in discord_.requests if re.search(MESSAGES, request.path)][:3] == [429, 429, 200]
    await discord_.wait_for(lambda: interaction.message.deleted)
    assert len(results(discord_)) == 1
    await discord_.command(discord_.ben, discord_.general, "dream", {"prompt": "a dog"})
    await settled(bot, "delivered", "delivered")
    assert len(results(discord_)) == 2
