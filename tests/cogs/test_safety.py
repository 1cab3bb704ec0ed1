import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from cogs import _cards as cards
from cogs._client import Reverie
from cogs._house import DAY_S
from engine.jobs import Painting, Progress, Request
from engine.pictures import read_receipt, write_receipt
from loopback import Channel, Loopback, Message, User
from tests.cogs.browsing import button
from tests.cogs.conftest import FORGOTTEN, Start, answered, choose, dreamt, results, settled, states
from tests.conftest import ScriptedPainter, png

NOT_POSTED = "The result seems to show what this server does not allow: ||snake||. It is not posted."
UNDER_SPOILER = "Under a spoiler by the rules of this server."
TAKEN_OUT = "Words that are not allowed here were taken out."
REFUSED = "This server does not allow this in a prompt: ||zonk||. Say it otherwise."
SENTINEL = "quagmirequux"
HOSTILE = "a cat @everyone @here <@1000000000000000005> <@!1000000000000000005> <@&{role}> <#1000000000000000002>"


class Scrutinised(ScriptedPainter):
    """Writes receipts as a real painter does; `shows` says of single pictures what they show, `blind` takes its CLIP away."""

    def __init__(self) -> None:
        super().__init__()
        self.shows: dict[int, str] = {}
        self.blind = False

    def paint(self, request: Request, report: Callable[[Progress], None]) -> Painting:
        painting = super().paint(request, report)
        pictures = tuple(
            replace(
                picture,
                png=write_receipt(picture.png, {"prompt": request.prompt, "Description": request.prompt}),
                embedding=None if self.blind else self.seen(self.shows.get(index, request.prompt)),
            )
            for index, picture in enumerate(painting.pictures)
        )
        return replace(painting, pictures=pictures, space="" if self.blind else self.space)


@pytest.fixture
def painter() -> Scrutinised:
    return Scrutinised()


async def dream(server: Loopback, prompt: str, user: User | None = None, channel: Channel | None = None, **options: Any) -> Message:
    """Ask for pictures and return what that is answered with."""
    return await answered(server, await server.command(user or server.ann, channel or server.general, "dream", {"prompt": prompt} | options))


async def reply(server: Loopback, words: str, to: Message, user: User | None = None) -> Message:
    """Reply to a message of the bot, and return what it says to that."""
    said = await server.say(user or server.ann, to.channel, f"<@{server.bot.id}> {words}", reply_to=to)

    def answer() -> Message | None:
        after = [message for message in to.channel.messages if message.id > said.id and message.author is server.bot]
        return after[0] if after else None

    return await server.wait_for(answer)


async def press(server: Loopback, message: Message, act: cards.Act, job: int = 1, index: int = 0, user: User | None = None) -> Message:
    """Press a button and return the answer, once it is there."""
    return await answered(server, await server.press(user or server.ann, message, button(act, job, index)))


def said(server: Loopback) -> Iterator[str]:
    """Yield everything that the bot shows anywhere: texts, embeds, labels, descriptions and receipts of files."""
    for channel in server.world.channels.values():
        for message in channel.messages:
            if message.author is server.bot:
                yield f"{message.content} {message.embeds} {message.components}"
                for file in message.attachments:
                    yield f"{file.filename} {file.description} {read_receipt(file.data) if file.filename.endswith('.png') else ''}"


# Words.


async def test_blocked_words_are_refused_wherever_a_prompt_comes_from(discord_: Loopback, bot: Reverie, painter: Scrutinised) -> None:
    old, plain = await dreamt(discord_, prompt="a zonk"), await dreamt(discord_, prompt="a cat")
    await choose(bot, discord_, blocked_words="zonk")
    for prompt in ("a zonk", "a Z0NK!", "a z.o.n.k", "zo\u200bnk"):
        told = await dream(discord_, prompt)
        assert told.content == REFUSED and told.ephemeral
    form = await discord_.press(discord_.ben, plain, button(cards.Act.EDIT, 2))
    await discord_.wait_for(lambda: form.modal)
    told = await answered(discord_, await discord_.submit_modal(discord_.ben, form, {"prompt": "a zonk"}))
    assert told.content == REFUSED and told.ephemeral
    # What was painted before the rule is not painted again.
    for act in (cards.Act.AGAIN, cards.Act.VARY):
        assert (await press(discord_, old, act)).content == REFUSED
    for words, card in (("with a zonk", plain), ("again", old), ("v1", old)):
        assert (await reply(discord_, words, card)).content == f"<@{discord_.ann.id}> {REFUSED}"
    use = await discord_.command(discord_.ann, discord_.general, "variations", {"image": png((1, 2, 3)), "prompt": "zonk"})
    await discord_.wait_for(lambda: use.message and use.message.content == REFUSED)
    options = {"image": png((9, 9, 9), 16), "prompt": "a zonk", "region": "left"}
    use = await discord_.command(discord_.ann, discord_.general, "inpaint", options)
    await discord_.wait_for(lambda: use.message and use.message.content == REFUSED)
    assert len(painter.painted) == 2 and await states(bot) == ["delivered", "delivered"]
    # Between one person and the bot there are no rules of a server.
    await dream(discord_, "a zonk", channel=discord_.dm(discord_.ann))
    await settled(bot, *["delivered"] * 3)


async def repaint(server: Loopback, prompt: str) -> Any:
    """Let the left half of a picture be repainted; return the press that confirmed it, once it is answered."""
    use = await server.command(server.ann, server.general, "inpaint", {"image": png((9, 9, 9), 16), "prompt": prompt, "region": "left"})
    await server.wait_for(lambda: use.message and use.message.components)
    confirmed = await server.press(server.ann, use.message, button(cards.Act.CONFIRM, 1))
    await server.wait_for(lambda: confirmed.followups)
    return confirmed


async def test_words_that_are_taken_out_are_nowhere(discord_: Loopback, bot: Reverie, painter: Scrutinised) -> None:
    await choose(bot, discord_, blocked_words="zonk", word_policy="remove")
    first = await dreamt(discord_, prompt="a zonk cat")
    assert first.embeds[0]["description"] == "a cat"
    assert {"name": "Note", "value": TAKEN_OUT, "inline": False} in first.embeds[0]["fields"]
    form = await discord_.press(discord_.ben, first, button(cards.Act.EDIT))
    await discord_.wait_for(lambda: form.modal)
    assert TAKEN_OUT in (await answered(discord_, await discord_.submit_modal(discord_.ben, form, {"prompt": "a Z0NK dog"}))).content
    await settled(bot, "delivered", "delivered")
    await reply(discord_, "on a zonk house", first)
    await settled(bot, *["delivered"] * 3)
    # The overlay, which nobody else sees, repeats what was typed until it is confirmed.
    confirmed = await repaint(discord_, "a zonk tree")
    await settled(bot, *["delivered"] * 4)
    confirmed.message.content = ""
    use = await discord_.command(discord_.ann, discord_.general, "variations", {"image": png((1, 2, 3)), "prompt": "zonk red"})
    await settled(bot, *["delivered"] * 5)
    assert use.message
    assert [request.prompt for request in painter.painted] == ["a cat", "a dog", "a cat on a house", "a tree", "red"]
    for card in (first, results(discord_)[1]):
        await press(discord_, card, cards.Act.ENLARGE, 1 if card is first else 2)
        await press(discord_, card, cards.Act.INFO, 1 if card is first else 2)
    shown = await discord_.command(discord_.ann, discord_.general, "show", {"number": 1})
    await discord_.wait_for(lambda: shown.message and shown.message.attachments)
    receipts = [read_receipt(file.data) for message in discord_.general.messages for file in message.attachments if "-1." in file.filename]
    assert any(receipt.get("prompt") == "a cat" for receipt in receipts)
    for words, found in (("zonk", "Nothing found."), ("cat", "Page 1")):
        looked = await discord_.command(discord_.ann, discord_.general, "history", {"words": words})
        await discord_.wait_for(lambda looked=looked, found=found: looked.message and looked.message.content == found)
    assert [text for text in said(discord_) if "zonk" in text.lower().replace("0", "o")] == []
    rows = await bot.history.database.rows("SELECT prompt, notes FROM job")
    assert not any("zonk" in f"{tuple(row)}".lower().replace("0", "o") for row in rows)


@pytest.mark.parametrize("prompt", ["zonk", "(zonk), Zonk!", "z o n k"])
async def test_a_prompt_of_nothing_but_blocked_words_is_refused_also_where_they_are_taken_out(discord_: Loopback, bot: Reverie, prompt: str) -> None:
    await choose(bot, discord_, blocked_words="zonk", word_policy="remove")
    assert (await dream(discord_, prompt)).content == REFUSED
    assert await states(bot) == []


# Concepts.


async def test_what_shows_a_blocked_concept_is_never_shown(discord_: Loopback, bot: Reverie, painter: Scrutinised) -> None:
    await choose(bot, discord_, blocked_concepts="snake\nfire")
    painter.steps, painter.pause_s = 20, 0.03
    message = await dream(discord_, "a snake")
    await settled(bot, "failed")
    await discord_.wait_for(lambda: message.content == f"**a snake**\n{NOT_POSTED}")
    assert message.mentions == [] and not message.components and not message.ephemeral
    # Not half painted, not in parts, not by its number.
    assert not any(request.files for request in discord_.requests)
    for name, options, told in (("show", {"number": 1}, FORGOTTEN), ("download", {"number": 1}, "Nothing found."), ("history", {}, "Nothing found.")):
        use = await discord_.command(discord_.ann, discord_.general, name, options)
        await discord_.wait_for(lambda use=use, told=told: use.message and use.message.content == told)
        assert use.message.ephemeral and not use.message.attachments
    # One of a grid is enough; what shows nothing of it is posted, but nobody sees it grow.
    painter.shows = {3: "a snake"}
    await dream(discord_, "a cat")
    await settled(bot, "failed", "failed")
    painter.shows = {}
    await dream(discord_, "a cat")
    await settled(bot, "failed", "failed", "delivered")
    [card] = results(discord_)
    assert card.attachments[0].filename == "reverie-3.png"
    assert [name for request in discord_.requests for name, _ in request.files] == ["reverie-3.png"]


async def test_what_shows_a_blocked_concept_goes_under_a_spoiler_where_the_server_wants_that(
    discord_: Loopback, bot: Reverie, painter: Scrutinised
) -> None:
    await choose(bot, discord_, blocked_concepts="snake", concept_policy="spoiler")
    painter.steps, painter.pause_s = 20, 0.03
    await dream(discord_, "a snake", count=2)
    await settled(bot, "delivered")
    [card] = results(discord_)
    assert card.attachments[0].filename == "SPOILER_reverie-1.png"
    assert {"name": "Note", "value": UNDER_SPOILER, "inline": False} in card.embeds[0]["fields"]
    assert [name for request in discord_.requests for name, _ in request.files] == ["SPOILER_reverie-1.png"]
    single = await press(discord_, card, cards.Act.ENLARGE)
    assert single.attachments[0].filename == "SPOILER_1-1.png"
    await press(discord_, card, cards.Act.AGAIN)
    await settled(bot, "delivered", "delivered")
    assert results(discord_)[-1].attachments[0].filename == "SPOILER_reverie-2.png"
    assert (await dreamt(discord_)).attachments[0].filename == "reverie-3.png"


@pytest.mark.parametrize(("policy", "posted"), [(None, True), ("free", True), ("same", False)])
async def test_in_age_restricted_channels_concepts_are_free_unless_the_server_says_otherwise(
    discord_: Loopback, bot: Reverie, painter: Scrutinised, policy: str | None, posted: bool
) -> None:
    adults = discord_.add_channel("adults", nsfw=True)
    thread = discord_.add_thread(adults, "side")
    await choose(bot, discord_, blocked_concepts="snake", adult_channels=policy)
    await discord_.wait_for(lambda: bot.get_channel(thread.id))
    for channel in (adults, thread):
        await dream(discord_, "a snake", channel=channel)
    end = "delivered" if posted else "failed"
    await settled(bot, end, end)
    assert [len(results(discord_, channel)) for channel in (adults, thread)] == [int(posted)] * 2
    await dream(discord_, "a snake")
    await settled(bot, end, end, "failed")
    # The channel is one for all again: what was painted there before is looked at now.
    discord_.restrict(adults, False)
    await discord_.wait_for(lambda: not bot.get_channel(adults.id).is_nsfw())
    if posted:
        assert (await press(discord_, results(discord_, adults)[0], cards.Act.ENLARGE)).content == NOT_POSTED


async def test_pictures_that_no_clip_has_looked_at_go_under_a_spoiler(discord_: Loopback, bot: Reverie, painter: Scrutinised) -> None:
    painter.blind = True
    await choose(bot, discord_, blocked_concepts="snake")
    assert (await dreamt(discord_)).attachments[0].filename == "SPOILER_reverie-1.png"
    single = await press(discord_, results(discord_)[0], cards.Act.ENLARGE)
    assert single.attachments[0].filename == "SPOILER_1-1.png"
    await choose(bot, discord_, blocked_concepts=None)
    assert (await dreamt(discord_)).attachments[0].filename == "reverie-2.png"


@pytest.mark.parametrize("policy", ["withhold", "spoiler"])
async def test_what_was_painted_before_a_rule_is_looked_at_when_it_is_brought_again(
    discord_: Loopback, bot: Reverie, painter: Scrutinised, policy: str
) -> None:
    painter.shows = {1: "a snake"}
    card = await dreamt(discord_, count=2)
    await choose(bot, discord_, blocked_concepts="snake", concept_policy=policy)
    shown = [await press(discord_, card, cards.Act.ENLARGE, index=index) for index in (0, 1)]
    shown += [await reply(discord_, f"u{number}", card) for number in (1, 2)]
    brought = await discord_.command(discord_.ann, discord_.general, "show", {"number": 1})
    await discord_.wait_for(lambda: brought.message and not brought.message.thinking)
    shown.append(brought.message)
    names = [[file.filename for file in message.attachments] for message in shown]
    if policy == "withhold":
        assert names == [["1-1.png"], [], ["1-1.png"], [], []]
        assert [message.content.removeprefix(f"<@{discord_.ann.id}> ") for message in (shown[1], *shown[3:])] == [NOT_POSTED] * 3
    else:
        assert names == [["1-1.png"], ["SPOILER_1-2.png"], ["1-1.png"], ["SPOILER_1-2.png"], ["SPOILER_1-1.png", "SPOILER_1-2.png"]]
    # Elsewhere the server's rules are none.
    alone = await discord_.command(discord_.ann, discord_.dm(discord_.ann), "show", {"number": 1})
    await discord_.wait_for(lambda: alone.message and alone.message.attachments)
    assert [file.filename for file in alone.message.attachments] == ["1-1.png", "1-2.png"]


async def test_a_picture_alone_is_known_to_the_gallery_and_to_moderators_however_it_was_asked_for(discord_: Loopback, bot: Reverie) -> None:
    card = await dreamt(discord_, count=2)
    pictures = await bot.history.picture_ids(await bot.history.find(1))
    plain = await press(discord_, card, cards.Act.ENLARGE, index=1)
    replied = await reply(discord_, "u1", card)
    await choose(bot, discord_, blocked_concepts="snake")
    deferred = await press(discord_, card, cards.Act.ENLARGE)
    assert deferred.attachments and not deferred.ephemeral and deferred.flags & 1 << 2, "links in it stay folded"
    for message, picture in ((plain, pictures[1]), (replied, pictures[0]), (deferred, pictures[0])):
        for _ in range(100):
            if await bot.gallery.picture_in(message.id) == picture:
                break
            await asyncio.sleep(0.02)
        assert await bot.gallery.picture_in(message.id) == picture


async def test_looking_may_wait_for_what_is_being_painted(discord_: Loopback, bot: Reverie, painter: Scrutinised) -> None:
    card = await dreamt(discord_)
    await choose(bot, discord_, blocked_concepts="snake")
    painter.hold.clear()
    painter.started.clear()
    await dream(discord_, "a dog")
    await asyncio.to_thread(painter.started.wait)
    use = await discord_.press(discord_.ben, card, button(cards.Act.ENLARGE))
    answer = await discord_.wait_for(lambda: use.message)
    assert answer.thinking and not use.missed
    painter.hold.set()
    await discord_.wait_for(lambda: answer.attachments)


async def test_what_was_painted_just_before_a_kill_is_looked_at_before_it_is_posted(
    discord_: Loopback, start: Start, painter: Scrutinised, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cogs._delivery.GRACE_S", 0.05)
    async with start() as bot:
        discord_.fail_next(10_000, path=r"/channels/\d+/messages$")
        await dream(discord_, "a snake")
        await settled(bot, "painted")
        await choose(bot, discord_, blocked_concepts="snake")
    discord_._api._failures.clear()
    async with start(working=False) as bot:
        # Discord is there, but nobody can look yet.
        await asyncio.sleep(0.3)
        assert await states(bot) == ["painted"] and results(discord_) == []
        worker = asyncio.create_task(bot.worker.run())
        await settled(bot, "failed")
        await discord_.wait_for(lambda: any(NOT_POSTED in message.content for message in discord_.general.messages))
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
    assert results(discord_) == [] and not any(
        "reverie-" in name for request in discord_.requests if request.status < 400 for name, _ in request.files
    )


# People.


async def test_the_new_and_the_banned_may_not_paint_here(discord_: Loopback, bot: Reverie, painter: Scrutinised) -> None:
    card = await dreamt(discord_)
    await choose(bot, discord_, min_days=7)
    discord_.ben.joined_at = time.time() - 7 * DAY_S + 60
    ready = round(discord_.ben.joined_at + 7 * DAY_S)
    too_new = f"This server wants people to have been here for a while first. You can use me <t:{ready}:R>."
    for refusal in (too_new, "The moderators of this server have banned you from using me here."):
        for told in (
            await dream(discord_, "a dog", discord_.ben),
            await press(discord_, card, cards.Act.AGAIN, user=discord_.ben),
            await press(discord_, card, cards.Act.VARY, user=discord_.ben),
        ):
            assert told.content == refusal and told.ephemeral
        assert (await reply(discord_, "again", card, discord_.ben)).content == f"<@{discord_.ben.id}> {refusal}"
        use = await discord_.context_menu(discord_.ben, discord_.general, card, "Report")
        assert (await answered(discord_, use)).content == refusal
        await bot.moderation.ban(discord_.guild.id, discord_.ben.id, discord_.olga.id, "")
        discord_.ben.joined_at = time.time() - 7 * DAY_S - 1
    assert len(painter.painted) == 1
    # Elsewhere, and for others, nothing is different.
    await dream(discord_, "a dog", discord_.ben, discord_.dm(discord_.ben))
    await dream(discord_, "a dog", discord_.ann)
    await settled(bot, *["delivered"] * 3)
    await bot.moderation.unban(discord_.guild.id, discord_.ben.id, discord_.olga.id)
    await dream(discord_, "a dog", discord_.ben)
    await settled(bot, *["delivered"] * 4)


# What is said where.


async def everything(server: Loopback, bot: Reverie, painter: Scrutinised, prompt: str) -> None:
    """Let a prompt through everything that repeats it: cards, singles, shares, the gallery, refusals, reports, lists."""
    gallery, reports = server.add_channel("gallery"), server.add_channel("reports")
    await server.wait_for(lambda: bot.get_channel(reports.id))
    await choose(bot, server, gallery=gallery.id, gallery_stars=0, reports=reports.id, blocked_words="zonk", word_policy="remove")
    card = await dreamt(server, prompt=prompt + " zonk")
    single = await press(server, card, cards.Act.ENLARGE)
    shared = await press(server, single, cards.Act.SHARE_ONE)
    assert "Shared." in shared.content
    await server.wait_for(lambda: gallery.messages)
    await press(server, card, cards.Act.AGAIN, user=server.ben)
    await settled(bot, "delivered", "delivered")
    await reply(server, "in red", card)
    await settled(bot, *["delivered"] * 3)
    await reply(server, "u2", card)
    await press(server, card, cards.Act.INFO)
    await choose(bot, server, word_policy="refuse")
    await dream(server, prompt + " zonk")
    await reply(server, "zonk", card)
    await choose(bot, server, blocked_concepts=prompt[:80])
    await press(server, card, cards.Act.ENLARGE)
    painter.shows = {0: prompt[:80]}
    await dream(server, prompt)
    await settled(bot, *["delivered"] * 3, "failed")
    painter.failures = [RuntimeError("on purpose")]
    await dream(server, prompt)
    await settled(bot, *["delivered"] * 3, "failed", "failed")
    painter.hold.clear()
    waiting = await dream(server, prompt)
    await press(server, waiting, cards.Act.CANCEL, 6)
    await settled(bot, *["delivered"] * 3, "failed", "failed", "cancelled")
    painter.hold.set()
    form = await server.context_menu(server.ben, server.general, card, "Report")
    await server.wait_for(lambda: form.modal)
    await answered(server, await server.submit_modal(server.ben, form, {"reason": prompt[:200]}))
    await server.wait_for(lambda: reports.messages)
    for name, options in (("leaderboard", {}), ("queue", {}), ("history", {}), ("moderate reports", {}), ("similar", {"number": 1})):
        use = await server.command(server.olga, server.general, name, options)
        await server.wait_for(lambda use=use: use.message and not use.message.thinking)
    await press(server, reports.messages[0], cards.Act.BAN, user=server.olga)
    await server.wait_for(lambda: not gallery.messages)
    for name in ("moderate log", "moderate bans"):
        await answered(server, await server.command(server.olga, server.general, name))


async def test_the_log_holds_no_prompt(discord_: Loopback, bot: Reverie, painter: Scrutinised, caplog: pytest.LogCaptureFixture) -> None:
    painter.known_words = ()
    with caplog.at_level(logging.INFO):
        await everything(discord_, bot, painter, f"a cat {SENTINEL}")
    assert any(SENTINEL in text for text in said(discord_))
    assert len(caplog.records) > 15
    assert [record.getMessage() for record in caplog.records if SENTINEL in record.getMessage() or "zonk" in record.getMessage()] == []
    # Of a job that fails for an unknown reason the traceback is logged; that is what failed, not what was asked.
    assert SENTINEL not in caplog.text


def bodies(server: Loopback) -> Iterator[dict[str, Any]]:
    """Yield every message that the bot sent or changed, as it was sent."""
    for request in server.requests:
        payload = request.payload if isinstance(request.payload, dict) else {}
        data = payload.get("data") or payload
        if request.method in ("POST", "PATCH") and isinstance(data, dict) and ("content" in data or "embeds" in data):
            yield data


async def test_nothing_that_is_said_pings_anybody_but_who_asked(discord_: Loopback, bot: Reverie, painter: Scrutinised) -> None:
    role = discord_.add_role("everybody")
    prompt = HOSTILE.format(role=role.id)
    await everything(discord_, bot, painter, prompt)
    asked = {str(discord_.ann.id), str(discord_.ben.id)}
    seen = list(bodies(discord_))
    assert sum("@everyone" in str(body) for body in seen) > 15
    pings = 0
    for body in seen:
        allowed = body["allowed_mentions"]
        assert allowed["parse"] == [] and not allowed.get("roles") and not allowed.get("replied_user"), body
        users = allowed.get("users", [])
        assert len(users) <= 1 and set(map(str, users)) <= asked, body
        # Who is pinged is who the message begins with.
        assert all(str(body["content"]).startswith(f"<@{user}>") for user in users), body
        pings += len(users)
    assert pings == 3, "one for each result that was posted"
    for channel in discord_.world.channels.values():
        for message in channel.messages:
            if message.author is discord_.bot:
                assert not message.mention_everyone and len(message.mentions) <= 1
