import asyncio
import re
from typing import Any

import pytest

from cogs import _cards as cards
from cogs._client import Reverie
from engine.preferences import Level
from loopback import Channel, Interaction, Loopback, Message, User
from loopback.permissions import ADMINISTRATOR, MANAGE_MESSAGES
from tests.cogs.browsing import button
from tests.cogs.conftest import FORGOTTEN, Start, answered, asked, choose, dreamt, results, settled, states
from tests.cogs.test_settings import MANAGE_GUILD, MAY_NOT
from tests.conftest import ScriptedPainter

THANKS = "Thank you. The moderators will look at it."
ONLY_HERE = "That is only there in servers that I am a member of."
NO_PICTURE = "I find no picture there. Use a message that a PNG, JPEG, WebP, GIF, BMP or TIFF file was uploaded to."
DECIDED_ALREADY = "Somebody has decided on this already."
NOTHING = "Nothing is waiting for a decision."
BANNED = "The moderators of this server have banned you from using me here."
DECISIONS = (cards.Act.DISMISS, cards.Act.REMOVE, cards.Act.BAN)


async def moderators_channel(server: Loopback, bot: Reverie) -> Channel:
    channel = server.add_channel("reports")
    await server.wait_for(lambda: bot.get_channel(channel.id))
    await choose(bot, server, reports=channel.id)
    return channel


def moderator(server: Loopback, name: str = "mona") -> User:
    """Return somebody who may manage messages in the whole server."""
    person = server.add_user(name)
    person.roles.add(server.add_role("moderators", MANAGE_MESSAGES).id)
    return person


async def menu(server: Loopback, user: User, message: Message) -> Interaction:
    """Open the form of a report."""
    use = await server.context_menu(user, message.channel, message, "Report")
    await server.wait_for(lambda: use.modal or use.message)
    return use


async def report(server: Loopback, user: User, message: Message, reason: str = "ugly") -> Message:
    """Report a message, and return the answer."""
    form = await menu(server, user, message)
    return await answered(server, await server.submit_modal(user, form, {"reason": reason}))


async def command(server: Loopback, who: User, name: str, /, **options: Any) -> Message:
    """Use a command of /moderate and return the answer."""
    use = await server.command(who, server.general, f"moderate {name}", options)
    answer = await answered(server, use)
    assert answer.ephemeral
    return answer


async def press(server: Loopback, user: User, message: Message, act: cards.Act, number: int = 1, index: int = 0) -> Message:
    return await answered(server, await server.press(user, message, button(act, number, index)))


async def acts(bot: Reverie, server: Loopback) -> list[tuple[int | None, str, int | None]]:
    """Return the log, the oldest first."""
    return [(entry.user_id, entry.act, entry.subject_id) for entry in reversed(await bot.moderation.log(server.guild.id, 500))]


def reported(channel: Channel) -> list[Message]:
    """Return the reports in the moderators' channel."""
    return [message for message in channel.messages if message.content.startswith("**Report ")]


# Reporting.


async def test_a_report_reaches_the_queue_and_the_moderators_channel(discord_: Loopback, bot: Reverie) -> None:
    channel = await moderators_channel(discord_, bot)
    card = await dreamt(discord_, count=2)
    assert (await report(discord_, discord_.ben, card, " it *is*\nugly @everyone ")).content == THANKS
    await discord_.wait_for(lambda: reported(channel))
    [told] = reported(channel)
    link = f"https://discord.com/channels/{discord_.guild.id}/{discord_.general.id}/{card.id}"
    assert told.content.splitlines() == [
        f"**Report 1** by <@{discord_.ben.id}>: [the message]({link})",
        r"it \*is\* ugly @everyone",
        f"Asked for by <@{discord_.ann.id}>: a cat",
    ]
    assert not told.mentions and not told.mention_everyone
    assert [file.filename for file in told.attachments] == ["SPOILER_report-1.png"] and told.attachments[0].description
    assert [part["label"] for row in told.components for part in row["components"]] == ["Dismiss", "Remove", "Remove and ban"]
    queued = await command(discord_, discord_.olga, "reports")
    assert queued.content == f"Waiting for a decision: 1\n{told.content}" and not queued.mentions and queued.attachments
    [row] = await bot.history.database.rows("SELECT * FROM report")
    assert (row["user_id"], row["job"], row["message_id"], row["reason"]) == (discord_.ben.id, 1, card.id, "it *is* ugly @everyone")


async def test_without_a_moderators_channel_or_where_it_is_gone_reports_wait_all_the_same(discord_: Loopback, bot: Reverie) -> None:
    card = await dreamt(discord_)
    assert (await report(discord_, discord_.ben, card)).content == THANKS
    channel = await moderators_channel(discord_, bot)
    channel.deny(1 << 11)
    await discord_.wait_for(lambda: not bot.get_channel(channel.id).permissions_for(bot.guilds[0].me).send_messages)
    assert (await report(discord_, discord_.ann, card)).content == THANKS
    discord_.remove_channel(channel)
    assert (await report(discord_, discord_.olga, card)).content == THANKS
    assert "Waiting for a decision: 3" in (await command(discord_, discord_.olga, "reports")).content


async def test_one_person_reports_a_result_once_until_it_is_decided(discord_: Loopback, bot: Reverie) -> None:
    channel = await moderators_channel(discord_, bot)
    card = await dreamt(discord_)
    first, second = await menu(discord_, discord_.ben, card), await menu(discord_, discord_.ben, card)
    for form in (first, second):
        assert (await answered(discord_, await discord_.submit_modal(discord_.ben, form, {"reason": "ugly"}))).content == THANKS
    # A form is good for one report.
    assert (await answered(discord_, await discord_.submit_modal(discord_.ben, first, {"reason": "ugly"}))).content == FORGOTTEN
    assert (await report(discord_, discord_.ann, card)).content == THANKS
    await discord_.wait_for(lambda: len(reported(channel)) == 2)
    assert await bot.moderation.count_open(discord_.guild.id) == 2
    # A decision is one on every report of the same result.
    await press(discord_, discord_.olga, reported(channel)[0], cards.Act.DISMISS)
    assert (await command(discord_, discord_.olga, "reports")).content == NOTHING
    await report(discord_, discord_.ben, card)
    await discord_.wait_for(lambda: is_told(channel, "**Report 3**"))


def is_told(channel: Channel, start: str) -> bool:
    return any(message.content.startswith(start) for message in channel.messages)


async def test_what_is_not_a_result_of_this_server_cannot_be_reported(discord_: Loopback, bot: Reverie) -> None:
    card = await dreamt(discord_)
    forged = Message(card.id, discord_.general, discord_.ann, components=card.components, render=card.render)
    said = await discord_.say(discord_.ann, discord_.general, "look at this")
    channel = await moderators_channel(discord_, bot)
    await report(discord_, discord_.ben, card)
    await discord_.wait_for(lambda: reported(channel))
    for message in (forged, said, reported(channel)[0]):
        use = await menu(discord_, discord_.ben, message)
        assert use.message is not None and (use.message.content, use.message.ephemeral) == (NO_PICTURE, True)
    for place in (discord_.dm(discord_.ann), discord_.add_foreign_channel("away"), discord_.add_foreign_channel("group", guild=False)):
        await discord_.command(discord_.ann, place, "dream", {"prompt": "a cat"})
        await discord_.wait_for(lambda place=place: results(discord_, place))
        use = await menu(discord_, discord_.ann, results(discord_, place)[0])
        assert use.message is not None and use.message.content == ONLY_HERE
        # Nor here, should its message come here somehow.
        moved = results(discord_, place)[0]
        there = Message(moved.id, discord_.general, discord_.bot, components=moved.components, render=moved.render)
        assert (await menu(discord_, discord_.ann, there)).message.content == ONLY_HERE  # type: ignore[union-attr]


async def test_a_form_of_a_report_outlives_a_restart_and_nobody_else_can_send_it(discord_: Loopback, start: Start) -> None:
    async with start():
        card = await dreamt(discord_)
        form, other = await menu(discord_, discord_.ben, card), await menu(discord_, discord_.ann, card)
    async with start() as bot:
        assert form.modal is not None and other.modal is not None
        mine, other.modal["custom_id"] = other.modal["custom_id"], form.modal["custom_id"]
        assert (await answered(discord_, await discord_.submit_modal(discord_.ann, other, {"reason": "ugly"}))).content == FORGOTTEN
        assert (await answered(discord_, await discord_.submit_modal(discord_.ben, form, {"reason": "ugly"}))).content == THANKS
        # Who was banned meanwhile sends none.
        await bot.moderation.ban(discord_.guild.id, discord_.ann.id, discord_.olga.id, "")
        other.modal["custom_id"] = mine
        assert (await answered(discord_, await discord_.submit_modal(discord_.ann, other, {"reason": "ugly"}))).content == BANNED
        assert await bot.moderation.count_open(discord_.guild.id) == 1


# Deciding.


@pytest.mark.parametrize("act", DECISIONS)
@pytest.mark.parametrize("where", ["channel", "queue"])
async def test_each_decision_does_what_it_says_and_is_in_the_log(discord_: Loopback, bot: Reverie, act: cards.Act, where: str) -> None:
    channel, mona = await moderators_channel(discord_, bot), moderator(discord_)
    card = await dreamt(discord_)
    await report(discord_, discord_.ben, card, "spam")
    await discord_.wait_for(lambda: reported(channel))
    posted = reported(channel)[0]
    message = posted if where == "channel" else await command(discord_, mona, "reports")
    told = await press(discord_, mona, message, act)
    who = f"<@{mona.id}>"
    assert (
        told.content
        == {
            cards.Act.DISMISS: f"Report 1: dismissed by {who}.",
            cards.Act.REMOVE: f"Report 1: the result was removed by {who}.",
            cards.Act.BAN: f"Report 1: the result was removed and who asked for it banned by {who}.",
        }[act]
    )
    assert told.id == message.id and not told.attachments and not told.components and not told.mentions
    await bot.board.settled()
    assert card.deleted == (act is not cards.Act.DISMISS)
    assert await bot.moderation.is_banned(discord_.guild.id, discord_.ann.id) == (act is cards.Act.BAN)
    name = {cards.Act.DISMISS: "dismissed", cards.Act.REMOVE: "removed", cards.Act.BAN: "banned"}[act]
    log = [(mona.id, f"report {name}", discord_.ann.id)] + [(mona.id, "ban", discord_.ann.id)] * (act is cards.Act.BAN)
    assert await acts(bot, discord_) == log
    if where == "queue":
        # What stands in the channel is decided with it.
        assert (await press(discord_, mona, posted, act)).content == DECIDED_ALREADY
    assert (await command(discord_, mona, "reports")).content == NOTHING
    again = await answered(discord_, await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a dog"}))
    assert (again.content == BANNED) == (act is cards.Act.BAN)


async def test_of_two_moderators_at_once_one_decides(discord_: Loopback, bot: Reverie) -> None:
    channel, mona = await moderators_channel(discord_, bot), moderator(discord_)
    card = await dreamt(discord_)
    await report(discord_, discord_.ben, card)
    await discord_.wait_for(lambda: reported(channel))
    posted = reported(channel)[0]
    stale = Message(posted.id, channel, discord_.bot, components=posted.components, render=posted.render)
    both = await asyncio.gather(
        discord_.press(mona, posted, button(cards.Act.REMOVE, 1)), discord_.press(discord_.olga, stale, button(cards.Act.DISMISS, 1))
    )
    told = [(await answered(discord_, use)).content for use in both]
    assert told.count(DECIDED_ALREADY) == 1 and len(await acts(bot, discord_)) == 1
    await bot.board.settled()
    assert card.deleted == (told[1] == DECIDED_ALREADY)


async def test_removing_takes_every_message_of_the_result_away(discord_: Loopback, bot: Reverie) -> None:
    gallery = discord_.add_channel("gallery")
    channel = await moderators_channel(discord_, bot)
    await choose(bot, discord_, gallery=gallery.id, gallery_stars=0)
    card, untouched = await dreamt(discord_, count=2), await dreamt(discord_)
    # Alone by a button and by a reply, shared from the grid and from a single, and in the gallery.
    single = await press(discord_, discord_.ben, card, cards.Act.ENLARGE)
    before = len(discord_.general.messages)
    await discord_.say(discord_.ben, discord_.general, f"<@{discord_.bot.id}> u2", reply_to=card)
    await discord_.wait_for(lambda: len(discord_.general.messages) == before + 2)
    replied = discord_.general.messages[-1]
    await press(discord_, discord_.ann, single, cards.Act.SHARE_ONE)
    which = await press(discord_, discord_.ann, card, cards.Act.SHARE)
    shared = await press(discord_, discord_.ann, which, cards.Act.SHARE_ONE, index=1)
    await bot.board.settled()
    await discord_.wait_for(lambda: len(gallery.messages) == 2)
    for number, message in enumerate((gallery.messages[0], shared, single, card), start=1):
        reporter = discord_.add_user(f"reporter {number}")
        assert (await report(discord_, reporter, message)).content == THANKS
    await discord_.wait_for(lambda: len(reported(channel)) == 4)
    await press(discord_, discord_.olga, reported(channel)[2], cards.Act.REMOVE, 3)
    await bot.board.settled()
    assert [message.deleted for message in (card, single, replied, shared)] == [True] * 4
    assert [message for message in gallery.messages if not message.ephemeral] == []
    assert not untouched.deleted
    # Nothing brings it back.
    for name, options in (("show", {"number": 1}), ("download", {"number": 1})):
        use = await discord_.command(discord_.ann, discord_.general, name, options)
        answer = await answered(discord_, use)
        await discord_.wait_for(lambda answer=answer: not answer.thinking)
        assert not answer.attachments
    board = await discord_.command(discord_.ann, discord_.general, "leaderboard")
    await discord_.wait_for(lambda: board.message and not board.message.thinking)
    assert board.message is not None and board.message.content == "Nobody has shared a picture yet."


async def test_what_is_reported_before_it_is_painted_is_called_off(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    use = await asked(discord_, painter, prompt="something awful")
    assert use.message is not None
    await report(discord_, discord_.ben, use.message)
    queued = await command(discord_, discord_.olga, "reports")
    assert "something awful" in queued.content and not queued.attachments
    await press(discord_, discord_.olga, queued, cards.Act.REMOVE)
    await settled(bot, "cancelled")
    painter.hold.set()
    await bot.board.settled()
    await discord_.wait_for(lambda: use.message.deleted)  # type: ignore[union-attr]
    assert results(discord_) == [] and painter.painted == []


async def test_a_report_of_a_result_that_is_gone_can_be_decided(discord_: Loopback, bot: Reverie) -> None:
    channel = await moderators_channel(discord_, bot)
    card = await dreamt(discord_)
    form = await menu(discord_, discord_.olga, card)
    await report(discord_, discord_.ben, card)
    await discord_.wait_for(lambda: reported(channel))
    await discord_.press(discord_.ann, card, button(cards.Act.DELETE))
    await discord_.wait_for(lambda: card.deleted)
    # The form was open already; what its author deleted is no secret from the moderators, but for the picture.
    assert (await answered(discord_, await discord_.submit_modal(discord_.olga, form, {"reason": "ugly"}))).content == THANKS
    await discord_.wait_for(lambda: len(reported(channel)) == 2)
    assert reported(channel)[0].attachments and not reported(channel)[1].attachments
    queued = await command(discord_, discord_.olga, "reports")
    assert "a cat" in queued.content and not queued.attachments
    assert "removed by" in (await press(discord_, discord_.olga, queued, cards.Act.REMOVE)).content
    await bot.board.settled()
    assert (await command(discord_, discord_.olga, "reports")).content == NOTHING


async def test_reports_of_erased_people_stay_without_their_names_and_those_of_erased_results_go(discord_: Loopback, bot: Reverie) -> None:
    first, second = await dreamt(discord_), await dreamt(discord_, user=discord_.olga)
    await report(discord_, discord_.ben, first)
    await report(discord_, discord_.ben, second)
    form = await menu(discord_, discord_.ben, first)
    await bot.rights.erase_user(discord_.ben.id)
    queued = await command(discord_, discord_.olga, "reports")
    assert queued.content.splitlines()[:2][1].startswith("**Report 1** by somebody: ") and str(discord_.ben.id) not in queued.content
    assert (await answered(discord_, await discord_.submit_modal(discord_.ben, form, {"reason": "ugly"}))).content == FORGOTTEN
    await bot.rights.erase_user(discord_.ann.id)
    assert (await press(discord_, discord_.olga, queued, cards.Act.REMOVE)).content == FORGOTTEN
    assert "**Report 2** by somebody: " in (await command(discord_, discord_.olga, "reports")).content
    # A moderator who asks to be forgotten is somebody in the log too.
    await command(discord_, discord_.olga, "ban", user=discord_.ben)
    await bot.rights.erase_user(discord_.olga.id)
    await bot.rights.erase_user(discord_.ben.id)
    assert re.fullmatch(r"<t:\d+:f> somebody \*\*ban\*\*", (await command(discord_, discord_.olga, "log")).content)
    assert (await command(discord_, discord_.olga, "bans")).content.startswith("somebody · <t:")
    assert await bot.moderation.is_banned(discord_.guild.id, discord_.ben.id)


# Bans and the log.


async def test_bans_are_made_shown_and_lifted(discord_: Loopback, bot: Reverie) -> None:
    mona, ben = moderator(discord_), discord_.ben.mention
    assert (await command(discord_, mona, "bans")).content == "Nobody is banned."
    assert (await command(discord_, mona, "unban", user=discord_.ben)).content == f"{ben} is not banned."
    assert (await command(discord_, mona, "ban", user=discord_.ben, reason="spam *all* day")).content == f"{ben} may no longer use me here."
    assert (await command(discord_, mona, "ban", user=discord_.ben)).content == f"{ben} is banned already."
    assert re.fullmatch(rf"{ben} · <t:\d+:R> · spam \\\*all\\\* day", (await command(discord_, mona, "bans")).content)
    refused = await answered(discord_, await discord_.command(discord_.ben, discord_.general, "dream", {"prompt": "a cat"}))
    assert refused.content == BANNED
    assert (await command(discord_, mona, "unban", user=discord_.ben)).content == f"{ben} may use me again."
    await dreamt(discord_, user=discord_.ben)
    assert (await command(discord_, mona, "ban", user=mona)).content == MAY_NOT
    assert await acts(bot, discord_) == [(mona.id, "ban", discord_.ben.id), (mona.id, "unban", discord_.ben.id)]
    shown = (await command(discord_, mona, "log")).content
    assert re.fullmatch(
        rf"<t:\d+:f> <@{mona.id}> \*\*unban\*\* → {ben}\n<t:\d+:f> <@{mona.id}> \*\*ban\*\* → {ben} reason spam \\\*all\\\* day", shown
    )
    for request in discord_.requests:
        data = (request.payload or {}).get("data") if isinstance(request.payload, dict) else None
        assert not data or "content" not in data or data["allowed_mentions"]["parse"] == []


async def test_who_asked_is_not_banned_by_themselves(discord_: Loopback, bot: Reverie) -> None:
    mona = moderator(discord_)
    card = await dreamt(discord_, user=mona)
    await report(discord_, discord_.ben, card)
    queued = await command(discord_, mona, "reports")
    assert (await press(discord_, mona, queued, cards.Act.BAN)).content == MAY_NOT
    await bot.board.settled()
    assert not card.deleted and await bot.moderation.count_open(discord_.guild.id) == 1
    assert "removed by" in (await press(discord_, mona, queued, cards.Act.REMOVE)).content


@pytest.mark.parametrize("which", ["log", "bans"])
async def test_lists_are_turned_page_by_page_and_hold_everything(discord_: Loopback, bot: Reverie, which: str) -> None:
    people = [1_234_567_890_123_456_700 + number for number in range(23)]
    for person in people:
        await bot.moderation.ban(discord_.guild.id, person, discord_.olga.id, "*" * 300)
    await bot.moderation.ban(404, 99, discord_.olga.id, "elsewhere")
    message = await command(discord_, discord_.olga, which)
    number = 0 if which == "log" else 1
    seen: list[list[int]] = []

    def look() -> list[bool]:
        pages = [int(found) for found in re.findall(r"<@(123456789\d+)>", message.content)]
        seen.append(pages)
        assert len(message.content) <= 2000 and not message.mentions
        return [part.get("disabled", False) for row in message.components for part in row["components"]]

    assert look() == [True, False]
    await press(discord_, discord_.olga, message, cards.Act.LOG, number, 1)
    assert look() == [False, False]
    await press(discord_, discord_.olga, message, cards.Act.LOG, number, 2)
    assert look() == [False, True]
    assert [person for page in seen for person in page] == people[::-1] and [len(page) for page in seen] == [10, 10, 3]
    await press(discord_, discord_.olga, message, cards.Act.LOG, number, 1)
    look()
    assert seen[3] == seen[1]


async def test_a_page_that_is_just_full_is_the_last(discord_: Loopback, bot: Reverie) -> None:
    for person in range(1, 11):
        await bot.moderation.ban(discord_.guild.id, person, discord_.olga.id, "")
    for which in ("log", "bans"):
        message = await command(discord_, discord_.olga, which)
        assert [part.get("disabled", False) for row in message.components for part in row["components"]] == [True, True]
    await bot.moderation.ban(discord_.guild.id, 11, discord_.olga.id, "")
    for which in ("log", "bans"):
        message = await command(discord_, discord_.olga, which)
        assert [part.get("disabled", False) for row in message.components for part in row["components"]] == [True, False]


# Who may.


@pytest.mark.parametrize(
    ("who", "may", "may_once_roles_are_chosen"),
    [
        ("owner", True, True),
        ("administrator", True, True),
        ("manages messages", True, False),
        ("manages the server", False, False),
        ("manages messages in this channel alone", False, False),
        ("has the role", False, True),
        ("has another role", False, False),
        ("nobody", False, False),
    ],
)
async def test_who_may_moderate(discord_: Loopback, bot: Reverie, who: str, may: bool, may_once_roles_are_chosen: bool) -> None:
    person = discord_.olga if who == "owner" else discord_.add_user("mona", moderator=who.endswith("alone"))
    chosen = discord_.add_role("chosen")
    granted = {"administrator": ADMINISTRATOR, "manages messages": MANAGE_MESSAGES, "manages the server": MANAGE_GUILD}.get(who, 0)
    if who == "has the role":
        person.roles.add(chosen.id)
    elif who != "owner":
        person.roles.add(discord_.add_role("other", granted).id)
    channel, somebody = await moderators_channel(discord_, bot), discord_.add_user("sam")
    # Somebody else may, and has lists on the screen that are pressed by the person in question.
    for once, allowed in enumerate((may, may_once_roles_are_chosen)):
        if once:
            await choose(bot, discord_, may_moderation=[chosen.id])
        for name, options in (("reports", {}), ("bans", {}), ("log", {}), ("ban", {"user": somebody}), ("unban", {"user": somebody})):
            told = await command(discord_, person, name, **options)
            assert (told.content != MAY_NOT) == allowed, (name, once)
        for act in DECISIONS:
            card = await dreamt(discord_)
            await report(discord_, discord_.ben, card)
            number = await bot.moderation.count_open(discord_.guild.id) and (await bot.moderation.open_reports(discord_.guild.id, 99))[-1].id
            await discord_.wait_for(lambda number=number: is_told(channel, f"**Report {number}**"))
            [posted] = [message for message in channel.messages if message.content.startswith(f"**Report {number}**")]
            told = await press(discord_, person, posted, act, number)
            assert (told.content != MAY_NOT) == allowed, (act, once)
            [row] = await bot.history.database.rows("SELECT decided_by FROM report WHERE id = ?", number)
            assert row["decided_by"] == (person.id if allowed else None)
            assert await bot.moderation.is_banned(discord_.guild.id, discord_.ann.id) == (allowed and act is cards.Act.BAN)
            await bot.moderation.unban(discord_.guild.id, discord_.ann.id, discord_.olga.id)
            await bot.board.settled()
        theirs = await command(discord_, discord_.olga, "log")
        forged = Message(theirs.id, discord_.general, discord_.bot, components=theirs.components, render=theirs.render)
        for part in forged.components[0]["components"]:
            part.pop("disabled", None)
        use = await discord_.press(person, forged, button(cards.Act.LOG, 0, 1))
        await discord_.wait_for(lambda use=use: use.acknowledged.is_set())
        assert use.message is not None and (use.message.content != MAY_NOT) == allowed


async def test_a_right_that_is_taken_away_ends_at_once(discord_: Loopback, bot: Reverie) -> None:
    channel, mona = await moderators_channel(discord_, bot), moderator(discord_)
    card = await dreamt(discord_)
    await report(discord_, discord_.ben, card)
    await discord_.wait_for(lambda: reported(channel))
    queued = await command(discord_, mona, "reports")
    mona.roles.clear()
    for message in (queued, reported(channel)[0]):
        assert (await press(discord_, mona, message, cards.Act.REMOVE)).content == MAY_NOT
    assert await bot.moderation.count_open(discord_.guild.id) == 1 and not card.deleted


async def test_decisions_are_those_of_their_own_server(discord_: Loopback, bot: Reverie) -> None:
    channel = await moderators_channel(discord_, bot)
    card = await dreamt(discord_)
    await report(discord_, discord_.ben, card)
    await discord_.wait_for(lambda: reported(channel))
    posted = reported(channel)[0]
    async with bot.history.database.transaction():
        await bot.history.database.write("UPDATE report SET guild_id = 404")
    for act in DECISIONS:
        assert (await press(discord_, discord_.olga, posted, act)).content == FORGOTTEN
    for place in (discord_.dm(discord_.olga), discord_.add_foreign_channel("away")):
        moved = Message(posted.id, place, discord_.bot, components=posted.components, render=posted.render)
        assert (await press(discord_, discord_.olga, moved, cards.Act.REMOVE)).content == ONLY_HERE
    assert not card.deleted and await states(bot) == ["delivered"]
    assert bot.preferences.get(Level.SERVER, discord_.guild.id, "reports") == channel.id
