import asyncio
import io
import re
import time

import discord
import pytest
from PIL import Image

from cogs import _board as board
from cogs import _cards as cards
from cogs._client import Reverie
from loopback import Loopback, Message, User, permissions
from tests.cogs.boarding import (
    STAR,
    becomes,
    chosen,
    dreamt,
    entries,
    named,
    opened,
    pressed,
    shared,
    shows,
    told,
)
from tests.cogs.conftest import Start, answered, choose
from tests.conftest import ScriptedPainter

DAY_S = 24 * 3600


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board, "RETRY_S", 0.1)


async def share_alone(server: Loopback, user: User, card: Message) -> Message:
    """Share the picture of a message that shows it alone."""
    return await answered(server, await server.press(user, card, named(card, cards.Act.SHARE, cards.Act.SHARE_ONE)))


def add_bot(server: Loopback) -> User:
    """Return a bot of somebody else's."""
    other = User(server.world.snowflake(), "another", bot=True)
    server.world.take_user(other)
    return other


def entry(channel) -> Message:  # type: ignore[no-untyped-def]
    [message] = channel.messages
    return message


# Sharing.


async def test_who_shares_from_a_grid_is_asked_which_and_everybody_sees_it(discord_: Loopback, bot: Reverie) -> None:
    gallery = await opened(discord_, bot, stars=2)
    card = await dreamt(discord_, count=3)
    which = await answered(discord_, await discord_.press(discord_.ann, card, named(card, cards.Act.SHARE)))
    assert which.ephemeral and which.content == "Share which picture?"
    assert [part["label"] for row in which.components for part in row["components"]] == ["1", "2", "3"]
    use = await discord_.press(discord_.ann, which, "reverie:share1:1:1")
    message = await answered(discord_, use)
    assert not message.ephemeral and message.channel is discord_.general and message.mentions == []
    assert message.content == f"⭐ **0** · #1 by <@{discord_.ann.id}>\na cat\nStars that bring it to <#{gallery.id}>: 2."
    assert (await bot.history.painting_of(await bot.history.find(1))).pictures[1].png == message.attachments[0].data
    assert [part["label"] for row in message.components for part in row["components"]] == ["⭐ Star", "Info", "Withdraw"]
    info = await answered(discord_, await discord_.press(discord_.ben, message, named(message, cards.Act.INFO)))
    assert "seed: 8 count: 1" in info.content
    assert gallery.messages == []


async def test_a_message_that_shows_one_picture_is_shared_without_another_and_its_stars_count(discord_: Loopback, bot: Reverie) -> None:
    gallery = await opened(discord_, bot)
    grid, one = await dreamt(discord_, count=2), await dreamt(discord_)
    alone = await answered(discord_, await discord_.press(discord_.ben, grid, named(grid, cards.Act.ENLARGE)))
    for card in (alone, one):
        assert "Shared. Stars that bring it to" in (await share_alone(discord_, discord_.ann, card)).content
    assert sum(not message.ephemeral for message in discord_.general.messages) == 3
    for card in (alone, one):
        await discord_.react(discord_.ben, card, STAR)
    await shows(discord_, bot, gallery, p1=1, p3=1)


async def test_pictures_are_shared_from_the_menu_too(discord_: Loopback, bot: Reverie) -> None:
    gallery = await opened(discord_, bot, stars=0)
    grid, one = await dreamt(discord_, count=2), await dreamt(discord_)
    which = await answered(discord_, await discord_.context_menu(discord_.ann, discord_.general, grid, "Share"))
    assert which.content == "Share which picture?"
    assert "Shared." in (await answered(discord_, await discord_.context_menu(discord_.ann, discord_.general, one, "Share"))).content
    plain = await discord_.say(discord_.ann, discord_.general, "hello")
    refused = await told(discord_, await discord_.context_menu(discord_.ann, discord_.general, plain, "Share"))
    assert refused.startswith("I find no picture there.")
    await shows(discord_, bot, gallery, p3=0)


async def test_only_who_asked_for_a_picture_shares_it(discord_: Loopback, bot: Reverie) -> None:
    await opened(discord_, bot)
    grid, one = await dreamt(discord_, count=2), await dreamt(discord_)
    for card in (grid, one):
        for person in (discord_.ben, discord_.olga):
            assert f"Only <@{discord_.ann.id}>" in await told(discord_, await discord_.press(person, card, named(card, cards.Act.SHARE)))
    assert f"Only <@{discord_.ann.id}>" in await told(discord_, await discord_.context_menu(discord_.ben, discord_.general, one, "Share"))
    assert await bot.gallery.of_server(discord_.guild.id) == []


async def test_pictures_are_shared_in_servers_of_the_bot_only(discord_: Loopback, bot: Reverie) -> None:
    await opened(discord_, bot)
    elsewhere = [discord_.dm(discord_.ann), discord_.add_foreign_channel("away"), discord_.add_foreign_channel("group", guild=False)]
    for place in elsewhere:
        card = await dreamt(discord_, channel=place)
        assert all(part["label"] != "Share" for row in card.components for part in row["components"])
        refused = await told(discord_, await discord_.context_menu(discord_.ann, place, card, "Share"))
        assert refused == "That is only there in servers that I am a member of."
    away = elsewhere[1]
    for command in ("vote", "leaderboard"):
        refusal = await answered(discord_, await discord_.command(discord_.ann, away, command, {}))
        assert refusal.content == "That is only there in servers that I am a member of."
    use = await discord_.command(discord_.ann, away, "stats", {"whose": "server"})
    assert await told(discord_, use) == "That is only there in servers that I am a member of."


async def test_without_a_gallery_nothing_can_be_shared(discord_: Loopback, bot: Reverie) -> None:
    card = await dreamt(discord_)
    none = "This server has no gallery yet. Who runs it can choose a channel in `/settings`."
    assert await told(discord_, await discord_.press(discord_.ann, card, named(card, cards.Act.SHARE))) == none
    gallery = await opened(discord_, bot)
    discord_.remove_channel(gallery)
    await discord_.wait_for(lambda: bot.get_channel(gallery.id) is None)
    assert await told(discord_, await discord_.press(discord_.ann, card, named(card, cards.Act.SHARE))) == none


async def test_what_was_painted_for_adults_is_shared_only_where_the_gallery_is_for_adults(discord_: Loopback, bot: Reverie) -> None:
    hidden = discord_.add_channel("hidden", nsfw=True)
    gallery = await opened(discord_, bot, stars=0)
    card = await dreamt(discord_, channel=hidden)
    refused = await told(discord_, await discord_.press(discord_.ann, card, named(card, cards.Act.SHARE)))
    assert refused == "This was painted in an age-restricted channel, and the gallery is not one."
    discord_.restrict(gallery, nsfw=True)
    await discord_.wait_for(lambda: bot.get_channel(gallery.id).is_nsfw())
    assert "Shared." in (await share_alone(discord_, discord_.ann, card)).content
    tame = await dreamt(discord_)
    await share_alone(discord_, discord_.ann, tame)
    await shows(discord_, bot, gallery, p1=0, p2=0)
    discord_.restrict(gallery, nsfw=False)
    await shows(discord_, bot, gallery, p2=0)
    discord_.restrict(gallery, nsfw=True)
    await shows(discord_, bot, gallery, p1=0, p2=0)


async def test_a_concept_that_the_server_does_not_want_is_neither_shared_nor_shown(discord_: Loopback, bot: Reverie) -> None:
    hidden = discord_.add_channel("hidden", nsfw=True)
    gallery = await opened(discord_, bot, stars=1)
    snake = await dreamt(discord_, prompt="a snake")
    await discord_.wait_for(lambda: bot.worker.ready.is_set())
    await choose(bot, discord_, blocked_concepts="snake")
    refused = await told(discord_, await discord_.press(discord_.ann, snake, named(snake, cards.Act.SHARE)))
    assert refused == "The result seems to show what this server does not allow: ||snake||. It is not posted."
    await choose(bot, discord_, blocked_concepts=None)
    await share_alone(discord_, discord_.ann, snake)
    await choose(bot, discord_, blocked_concepts="snake")
    await discord_.react(discord_.ben, snake, STAR)
    cat = await dreamt(discord_)
    await share_alone(discord_, discord_.ann, cat)
    await discord_.react(discord_.ben, cat, STAR)
    await shows(discord_, bot, gallery, p2=1)
    await choose(bot, discord_, concept_policy="spoiler")
    free = await dreamt(discord_, prompt="a snake", count=2, channel=hidden)
    assert free.attachments[0].filename == "reverie-3.png"
    discord_.restrict(gallery, nsfw=True)
    await choose(bot, discord_, adult_channels="same")
    await discord_.wait_for(lambda: bot.get_channel(gallery.id).is_nsfw())
    message = await shared(discord_, free)
    assert message.attachments[0].filename == "SPOILER_3-1.png"
    await pressed(discord_, discord_.ben, message, cards.Act.STAR)
    await shows(discord_, bot, gallery, p1=1, p2=1, p3=1)
    names = {file.filename for message in gallery.messages for file in message.attachments}
    assert names == {"SPOILER_gallery-1.png", "gallery-2.png", "SPOILER_gallery-3.png"}


async def test_spoilers_stay_spoilers(discord_: Loopback, bot: Reverie) -> None:
    gallery = await opened(discord_, bot, stars=0)
    message = await shared(discord_, await dreamt(discord_, count=2, spoiler=True))
    assert message.attachments[0].filename == "SPOILER_1-1.png"
    await shows(discord_, bot, gallery, p1=0)
    assert entry(gallery).attachments[0].filename == "SPOILER_gallery-1.png"


async def test_who_shares_twice_can_withdraw(discord_: Loopback, bot: Reverie) -> None:
    gallery = await opened(discord_, bot)
    card = await dreamt(discord_)
    await share_alone(discord_, discord_.ann, card)
    await discord_.react(discord_.ben, card, STAR)
    await shows(discord_, bot, gallery, p1=1)
    again = await share_alone(discord_, discord_.ann, card)
    assert again.ephemeral and again.content.startswith("This picture is shared already.")
    use = await discord_.press(discord_.ann, again, "reverie:withdraw:1:0")
    assert await told(discord_, use) == "It is shared no longer, and its stars and votes are forgotten."
    await shows(discord_, bot, gallery)
    assert (
        await told(discord_, await discord_.press(discord_.ann, again, "reverie:withdraw:1:0"))
        == "I don't remember this any longer. Ask for it anew."
    )
    await share_alone(discord_, discord_.ann, card)
    # The reaction still stands under the card.
    await shows(discord_, bot, gallery, p1=1)


async def test_a_moderator_withdraws_and_that_is_in_the_log_and_others_do_not(discord_: Loopback, bot: Reverie) -> None:
    mona = discord_.add_user("mona")
    mona.roles.add(discord_.add_role("moderators", permissions.MANAGE_MESSAGES).id)
    gallery = await opened(discord_, bot, stars=0)
    await share_alone(discord_, discord_.ann, await dreamt(discord_))
    await shows(discord_, bot, gallery, p1=0)
    shown = entry(gallery)
    assert f"Only <@{discord_.ann.id}>" in await told(discord_, await discord_.press(discord_.ben, shown, "reverie:withdraw:1:0"))
    assert await bot.moderation.log(discord_.guild.id, 9) == []
    assert "no longer" in await told(discord_, await discord_.press(mona, shown, "reverie:withdraw:1:0"))
    await shows(discord_, bot, gallery)
    [line] = await bot.moderation.log(discord_.guild.id, 9)
    assert (line.user_id, line.act, line.subject_id, line.details) == (mona.id, "withdraw", discord_.ann.id, {"job": 1})
    second = await shared(discord_, await dreamt(discord_, count=2))
    assert "no longer" in await told(discord_, await discord_.press(discord_.ann, second, "reverie:withdraw:2:0"))
    assert len(await bot.moderation.log(discord_.guild.id, 9)) == 1


async def test_deleting_a_result_withdraws_its_pictures(discord_: Loopback, bot: Reverie) -> None:
    gallery = await opened(discord_, bot, stars=0)
    card = await dreamt(discord_, count=2)
    first, second = await shared(discord_, card), await shared(discord_, card, 1)
    await shows(discord_, bot, gallery, p1=0, p2=0)
    await discord_.press(discord_.ann, card, named(card, cards.Act.DELETE))
    await shows(discord_, bot, gallery)
    assert (
        await told(discord_, await discord_.press(discord_.ben, first, named(first, cards.Act.STAR)))
        == "I don't remember this any longer. Ask for it anew."
    )
    await discord_.react(discord_.ben, second, STAR)
    await shows(discord_, bot, gallery)


# Stars.


async def test_the_button_gives_and_takes_a_star_and_says_how_many_there_are(discord_: Loopback, bot: Reverie) -> None:
    gallery = await opened(discord_, bot, stars=2)
    message = await shared(discord_, await dreamt(discord_, count=2))
    for person, count in ((discord_.ben, 1), (discord_.olga, 2), (discord_.ben, 1), (discord_.ben, 2)):
        await pressed(discord_, person, message, cards.Act.STAR)
        assert message.content.startswith(f"⭐ **{count}** · #1") and f"<#{gallery.id}>: 2." in message.content
    await shows(discord_, bot, gallery, p1=2)
    shown = entry(gallery)
    assert shown.content == f"⭐ **2** · #1 by <@{discord_.ann.id}>\na cat"
    mona = discord_.add_user("mona")
    await pressed(discord_, mona, shown, cards.Act.STAR)
    await shows(discord_, bot, gallery, p1=3)
    assert gallery.messages == [shown]
    await pressed(discord_, discord_.ben, shown, cards.Act.STAR)
    await pressed(discord_, mona, shown, cards.Act.STAR)
    await shows(discord_, bot, gallery)


async def test_one_person_counts_once_wherever_they_star(discord_: Loopback, bot: Reverie) -> None:
    gallery = await opened(discord_, bot)
    grid = await dreamt(discord_, count=2)
    alone = await answered(discord_, await discord_.press(discord_.ben, grid, named(grid, cards.Act.ENLARGE)))
    message = await shared(discord_, grid)
    await discord_.react(discord_.ben, alone, STAR)
    await shows(discord_, bot, gallery, p1=1)
    shown = entry(gallery)
    for one in (shown, message):
        await discord_.react(discord_.ben, one, STAR)
    await pressed(discord_, discord_.ben, message, cards.Act.STAR)
    await discord_.react(discord_.olga, message, STAR)
    await shows(discord_, bot, gallery, p1=2)
    for one in (alone, message, shown):
        await discord_.unreact(discord_.ben, one, STAR)
    await pressed(discord_, discord_.ben, message, cards.Act.STAR)
    await shows(discord_, bot, gallery, p1=1)
    assert entry(gallery) is shown
    # The grid shows other pictures too, and other emoji are no stars.
    await discord_.react(discord_.ben, grid, STAR)
    await discord_.react(discord_.ben, message, "👍")
    await discord_.unreact(discord_.olga, message, STAR)
    await shows(discord_, bot, gallery)


async def test_neither_bots_nor_creators_count(discord_: Loopback, bot: Reverie) -> None:
    gallery = await opened(discord_, bot)
    message = await shared(discord_, await dreamt(discord_, count=2))
    assert (
        await told(discord_, await discord_.press(discord_.ann, message, named(message, cards.Act.STAR)))
        == "Stars for your own pictures do not count."
    )
    await bot.board.settled()
    for person in (add_bot(discord_), discord_.bot, discord_.ann):
        await discord_.react(person, message, STAR)
    await discord_.react(discord_.ben, message, "👍")
    await asyncio.sleep(0.2)
    await shows(discord_, bot, gallery)
    await discord_.react(discord_.ben, message, STAR)
    await shows(discord_, bot, gallery, p1=1)


async def test_who_is_banned_or_too_new_neither_shares_nor_stars_nor_votes(discord_: Loopback, bot: Reverie) -> None:
    await opened(discord_, bot)
    message, card = await shared(discord_, await dreamt(discord_, count=2)), await dreamt(discord_, user=discord_.ben)
    pairs = await shared(discord_, await dreamt(discord_, count=2), 0)
    assert pairs.content
    vote = await answered(discord_, await discord_.command(discord_.ben, discord_.general, "vote", {}))
    assert vote.content == "Which is better?"
    await choose(bot, discord_, min_days="3")
    discord_.ben.joined_at = time.time() - DAY_S

    async def refusals() -> list[str]:
        uses = [
            await discord_.press(discord_.ben, message, named(message, cards.Act.STAR)),
            await discord_.press(discord_.ben, card, named(card, cards.Act.SHARE)),
            await discord_.context_menu(discord_.ben, discord_.general, card, "Share"),
            await discord_.command(discord_.ben, discord_.general, "vote", {}),
        ]
        return [await told(discord_, use) for use in uses]

    assert {text.split(".")[0] for text in await refusals()} == {"This server wants people to have been here for a while first"}
    await choose(bot, discord_, min_days=None)
    await bot.moderation.ban(discord_.guild.id, discord_.ben.id, discord_.olga.id, "")
    assert set(await refusals()) == {"The moderators of this server have banned you from using me here."}
    decided = await told(discord_, await discord_.press(discord_.ben, vote, named(vote, cards.Act.FIRST)))
    assert decided == "The moderators of this server have banned you from using me here."
    assert [share.stars for share in await bot.gallery.of_server(discord_.guild.id)] == [0, 0]
    assert {share.votes for share in await bot.gallery.of_server(discord_.guild.id)} == {0}


async def test_nobody_is_pinged(discord_: Loopback, bot: Reverie) -> None:
    gallery = await opened(discord_, bot)
    message = await shared(discord_, await dreamt(discord_, count=2, prompt="@everyone a cat"))
    await pressed(discord_, discord_.ben, message, cards.Act.STAR)
    await shows(discord_, bot, gallery, p1=1)
    await pressed(discord_, discord_.olga, entry(gallery), cards.Act.STAR)
    await shows(discord_, bot, gallery, p1=2)
    await answered(discord_, await discord_.command(discord_.ben, discord_.general, "leaderboard", {}))
    named_ = [request for request in discord_.requests if f"<@{discord_.ann.id}>" in str(request.payload) and "by <@" in str(request.payload)]
    bodies = [request.payload.get("data") or request.payload for request in named_]
    assert len(bodies) >= 4 and all(body["allowed_mentions"] == {"parse": []} for body in bodies)
    assert all(one.mentions == [] and not one.mention_everyone for one in (message, *gallery.messages))


# The gallery.


async def test_a_threshold_of_none_shows_everything_that_is_shared(discord_: Loopback, bot: Reverie) -> None:
    gallery = await opened(discord_, bot, stars=0)
    await shared(discord_, await dreamt(discord_, count=2), 1)
    await shows(discord_, bot, gallery, p2=0)


async def test_where_nothing_is_chosen_three_stars_bring_a_picture_to_the_gallery(discord_: Loopback, bot: Reverie) -> None:
    gallery = await opened(discord_, bot, stars=0)
    message = await shared(discord_, await dreamt(discord_, count=2))
    await shows(discord_, bot, gallery, p1=0)
    await chosen(discord_, discord_.olga, "gallery_stars", "")
    await shows(discord_, bot, gallery)
    for person in (discord_.ben, discord_.olga):
        await discord_.react(person, message, STAR)
    await asyncio.sleep(0.1)
    await shows(discord_, bot, gallery)
    await discord_.react(discord_.add_user("mona"), message, STAR)
    await shows(discord_, bot, gallery, p1=3)


async def test_another_threshold_counts_for_what_is_shared_already(discord_: Loopback, bot: Reverie) -> None:
    gallery = await opened(discord_, bot, stars=1)
    card = await dreamt(discord_, count=2)
    first, second = await shared(discord_, card), await shared(discord_, card, 1)
    for person, message in ((discord_.ben, first), (discord_.ben, second), (discord_.olga, second)):
        await discord_.react(person, message, STAR)
    await shows(discord_, bot, gallery, p1=1, p2=2)
    kept = next(message for message in gallery.messages if "gallery-2" in message.attachments[0].filename)
    await chosen(discord_, discord_.olga, "gallery_stars", "2")
    await shows(discord_, bot, gallery, p2=2)
    assert gallery.messages == [kept]
    await chosen(discord_, discord_.olga, "gallery_stars", "1")
    await shows(discord_, bot, gallery, p1=1, p2=2)
    assert gallery.messages[0] is kept


async def test_the_gallery_moves_with_everything_in_it(discord_: Loopback, bot: Reverie) -> None:
    gallery = await opened(discord_, bot, stars=1)
    first, second = await dreamt(discord_), await dreamt(discord_)
    for card in (first, second):
        await share_alone(discord_, discord_.ann, card)
        await discord_.react(discord_.ben, card, STAR)
    await shows(discord_, bot, gallery, p1=1, p2=1)
    # A star on an entry goes with it.
    await discord_.react(discord_.olga, gallery.messages[0], STAR)
    await shows(discord_, bot, gallery, p1=2, p2=1)
    hall = discord_.add_channel("hall")
    thread = discord_.add_thread(hall, "of fame")
    for place in (hall, thread, gallery):
        await chosen(discord_, discord_.olga, "gallery", [place])
        await shows(discord_, bot, place, p1=1, p2=1)
        assert sum(len(entries(one)) for one in (gallery, hall, thread)) == 2
    await chosen(discord_, discord_.olga, "gallery", [])
    await shows(discord_, bot, gallery)


async def test_an_entry_that_was_only_starred_itself_does_not_come_again_elsewhere(discord_: Loopback, bot: Reverie) -> None:
    gallery = await opened(discord_, bot, stars=1)
    card = await dreamt(discord_)
    await share_alone(discord_, discord_.ann, card)
    await discord_.react(discord_.ben, card, STAR)
    await shows(discord_, bot, gallery, p1=1)
    await discord_.react(discord_.ben, entry(gallery), STAR)
    await discord_.unreact(discord_.ben, card, STAR)
    for _ in range(100):
        if await starred_in(bot) == {entry(gallery).id}:
            break
        await asyncio.sleep(0.05)
    hall = await opened(discord_, bot, channel=discord_.add_channel("hall"))
    await shows(discord_, bot, gallery)
    assert [request for request in discord_.requests if request.path == f"/channels/{hall.id}/messages"] == []


async def starred_in(bot: Reverie) -> set[int]:
    """Return the messages that stars are on."""
    return {row["message_id"] for row in await bot.history.database.rows("SELECT message_id FROM star")}


@pytest.mark.parametrize("how", ["one", "bulk", "channel above"])
async def test_what_vanished_from_the_gallery_comes_again_as_long_as_it_has_stars(discord_: Loopback, bot: Reverie, how: str) -> None:
    hall = discord_.add_channel("hall")
    gallery = await opened(discord_, bot, channel=discord_.add_thread(hall, "fame") if how == "channel above" else None)
    first, second = await dreamt(discord_), await dreamt(discord_)
    for card in (first, second):
        await share_alone(discord_, discord_.ann, card)
        await discord_.react(discord_.ben, card, STAR)
    await shows(discord_, bot, gallery, p1=1, p2=1)
    for message in gallery.messages:
        await discord_.react(discord_.olga, message, STAR)
    await shows(discord_, bot, gallery, p1=2, p2=2)
    if how == "channel above":
        discord_.remove_channel(hall)
        await discord_.wait_for(lambda: bot.get_channel(gallery.id) is None)
        await opened(discord_, bot, channel=(gallery := discord_.add_channel("hall")))
    elif how == "bulk":
        await discord_.delete_many([*gallery.messages, first])
    else:
        for message in [*gallery.messages]:
            await discord_.delete(message)
    if how == "bulk":
        await shows(discord_, bot, gallery, p2=1)
    else:
        await shows(discord_, bot, gallery, p1=1, p2=1)
    # Discord posts a nonce once only, perhaps also when what was posted is gone.
    nonces = [request.payload["nonce"] for request in discord_.requests if request.payload and "nonce" in request.payload and request.files]
    assert len(nonces) == len(set(nonces))


async def test_stars_go_with_the_message_or_channel_that_they_are_on(discord_: Loopback, bot: Reverie) -> None:
    gallery = await opened(discord_, bot)
    side = discord_.add_channel("side")
    below = discord_.add_thread(side, "below")
    for place in (discord_.general, side, below):
        card = await dreamt(discord_, channel=place)
        await share_alone(discord_, discord_.ann, card)
        await discord_.react(discord_.ben, card, STAR)
    await shows(discord_, bot, gallery, p1=1, p2=1, p3=1)
    await discord_.delete(next(message for message in discord_.general.messages if message.reactions))
    await shows(discord_, bot, gallery, p2=1, p3=1)
    discord_.remove_channel(side)
    await shows(discord_, bot, gallery)


async def test_reactions_that_are_cleared_count_no_longer(discord_: Loopback, bot: Reverie) -> None:
    gallery = await opened(discord_, bot)
    card = await dreamt(discord_)
    await share_alone(discord_, discord_.ann, card)
    for emoji in (None, STAR):
        await discord_.react(discord_.ben, card, STAR)
        await shows(discord_, bot, gallery, p1=1)
        await discord_.clear_reactions(card, emoji)
        await shows(discord_, bot, gallery)
    for emoji in (STAR, "👍"):
        await discord_.react(discord_.ben, card, emoji)
    await shows(discord_, bot, gallery, p1=1)
    await discord_.clear_reactions(card, "👍")
    await asyncio.sleep(0.1)
    await shows(discord_, bot, gallery, p1=1)


@pytest.mark.parametrize("missing", [permissions.SEND_MESSAGES, permissions.ATTACH_FILES, permissions.VIEW_CHANNEL])
async def test_where_the_bot_may_not_post_nothing_breaks_and_entries_come_when_it_may(discord_: Loopback, bot: Reverie, missing: int) -> None:
    gallery = await opened(discord_, bot)
    gallery.deny(missing)
    card = await dreamt(discord_)
    await discord_.wait_for(
        lambda: not bot.get_channel(gallery.id).permissions_for(bot.get_guild(discord_.guild.id).me).is_superset(discord.Permissions(missing))
    )
    await share_alone(discord_, discord_.ann, card)
    await discord_.react(discord_.ben, card, STAR)
    await discord_.wait_for(lambda: any(request.status == 403 for request in discord_.requests))
    await shows(discord_, bot, gallery)
    gallery.allow(missing)
    await shows(discord_, bot, gallery, p1=1)
    gallery.deny(permissions.VIEW_CHANNEL)
    await asyncio.sleep(0.1)
    await discord_.react(discord_.olga, card, STAR)
    await discord_.react(discord_.ben, entry(gallery), STAR)
    await discord_.unreact(discord_.ben, card, STAR)
    await asyncio.sleep(0.2)
    assert entries(gallery) == {1: [1]}
    gallery.allow(permissions.VIEW_CHANNEL)
    await shows(discord_, bot, gallery, p1=2)


async def test_what_cannot_be_taken_away_now_goes_when_it_can(discord_: Loopback, bot: Reverie) -> None:
    gallery = await opened(discord_, bot)
    card = await dreamt(discord_)
    await share_alone(discord_, discord_.ann, card)
    await discord_.react(discord_.ben, card, STAR)
    await shows(discord_, bot, gallery, p1=1)
    gallery.deny(permissions.VIEW_CHANNEL)
    await discord_.unreact(discord_.ben, card, STAR)
    await discord_.wait_for(lambda: any(request.status == 403 and request.method == "DELETE" for request in discord_.requests))
    assert entries(gallery) == {1: [1]}
    gallery.allow(permissions.VIEW_CHANNEL)
    await shows(discord_, bot, gallery)
    gallery.deny(permissions.VIEW_CHANNEL)
    await discord_.react(discord_.ben, card, STAR)
    await asyncio.sleep(0.1)
    gallery.allow(permissions.VIEW_CHANNEL)
    await shows(discord_, bot, gallery, p1=1)


@pytest.mark.parametrize("path", ["/channels/{gallery}/messages$", "/channels/{gallery}/messages"])
async def test_while_discord_fails_entries_wait(discord_: Loopback, bot: Reverie, path: str) -> None:
    gallery = await opened(discord_, bot)
    card = await dreamt(discord_)
    await share_alone(discord_, discord_.ann, card)
    discord_.fail_next(2, 503, path.format(gallery=gallery.id))
    await discord_.react(discord_.ben, card, STAR)
    await shows(discord_, bot, gallery, p1=1)
    discord_.fail_next(2, 503, path.format(gallery=gallery.id))
    await discord_.react(discord_.olga, card, STAR)
    await shows(discord_, bot, gallery, p1=2)
    discord_.fail_next(2, 503, path.format(gallery=gallery.id))
    await discord_.unreact(discord_.ben, card, STAR)
    await discord_.unreact(discord_.olga, card, STAR)
    await shows(discord_, bot, gallery)


async def test_an_entry_whose_posting_was_not_confirmed_is_not_posted_twice(
    discord_: Loopback, bot: Reverie, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = await opened(discord_, bot)
    card = await dreamt(discord_)
    await share_alone(discord_, discord_.ann, card)
    send, lost = discord.TextChannel.send, []

    async def losing(self: discord.TextChannel, *args: object, **kwargs: object) -> discord.Message:
        message = await send(self, *args, **kwargs)
        if not lost:
            lost.append(message)
            raise OSError("the answer is lost")
        return message

    monkeypatch.setattr(discord.TextChannel, "send", losing)
    await discord_.react(discord_.ben, card, STAR)
    await discord_.wait_for(lambda: lost)
    await discord_.react(discord_.olga, entry(gallery), STAR)
    await shows(discord_, bot, gallery, p1=2)
    assert entry(gallery).id == lost[0].id
    # What was posted once and deleted is posted again, although Discord posts a nonce once only.
    await discord_.delete(entry(gallery))
    await shows(discord_, bot, gallery, p1=1)
    nonces = [request.payload["nonce"] for request in discord_.requests if request.path == f"/channels/{gallery.id}/messages" and request.payload]
    assert len(nonces) == len(set(nonces)) == 2


async def test_stars_that_come_while_they_are_counted_are_not_lost(discord_: Loopback, bot: Reverie, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = await opened(discord_, bot)
    card = await dreamt(discord_)
    await share_alone(discord_, discord_.ann, card)
    await bot.board.settled()
    fetch, fetched = discord.PartialMessageable.fetch_message, []

    async def slowly(self: discord.PartialMessageable, message_id: int) -> discord.Message:
        message = await fetch(self, message_id)
        if message_id == card.id:
            fetched.append(message)
            if len(fetched) == 1:
                await discord_.react(discord_.ben, card, STAR)
                await discord_.wait_for(lambda: 1 in entries(gallery) or bot.board._compared is None)
        return message

    monkeypatch.setattr(discord.PartialMessageable, "fetch_message", slowly)
    bot.board.look_at(1)
    await shows(discord_, bot, gallery, p1=1)
    assert len(fetched) >= 2


async def test_stars_take_effect_in_the_order_in_which_they_were_given(discord_: Loopback, bot: Reverie, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = await opened(discord_, bot)
    card = await dreamt(discord_)
    await share_alone(discord_, discord_.ann, card)
    await bot.board.settled()
    star = bot.gallery.star

    async def slowly(*what: int) -> bool:
        await asyncio.sleep(0.1)
        return await star(*what)

    monkeypatch.setattr(bot.gallery, "star", slowly)
    await discord_.react(discord_.ben, card, STAR)
    await discord_.unreact(discord_.ben, card, STAR)
    await discord_.react(discord_.olga, card, STAR)
    await shows(discord_, bot, gallery, p1=1)
    [row] = await bot.history.database.rows("SELECT user_id FROM star")
    assert row["user_id"] == discord_.olga.id


async def test_a_star_that_comes_when_its_message_is_just_being_taken_away_goes_with_it(
    discord_: Loopback, bot: Reverie, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = await opened(discord_, bot, stars=0)
    await share_alone(discord_, discord_.ann, await dreamt(discord_))
    await shows(discord_, bot, gallery, p1=0)
    star, given = bot.gallery.star, []

    async def too_late(*what: int) -> bool:
        await bot.gallery.vanished(1)
        given.append(await star(*what))
        return given[-1]

    monkeypatch.setattr(bot.gallery, "star", too_late)
    await discord_.react(discord_.ben, entry(gallery), STAR)
    await discord_.wait_for(lambda: given)
    await becomes(discord_, lambda: entries(gallery), {1: [0, 0]})
    await bot.board.settled()
    assert await starred_in(bot) == set()


async def test_stars_are_caught_up_with_after_the_connection_was_lost(discord_: Loopback, bot: Reverie) -> None:
    gallery = await opened(discord_, bot)
    first, second = await dreamt(discord_), await dreamt(discord_)
    for card in (first, second):
        await share_alone(discord_, discord_.ann, card)
    await discord_.react(discord_.ben, second, STAR)
    await shows(discord_, bot, gallery, p2=1)
    discord_.invalidate()
    await discord_.react(discord_.ben, first, STAR)
    await discord_.delete(second)
    await shows(discord_, bot, gallery, p1=1)


async def test_while_discord_does_not_tell_of_a_server_its_gallery_stays_as_it_is(discord_: Loopback, bot: Reverie) -> None:
    gallery = await opened(discord_, bot)
    card = await dreamt(discord_)
    await share_alone(discord_, discord_.ann, card)
    await discord_.react(discord_.ben, card, STAR)
    await shows(discord_, bot, gallery, p1=1)
    shown = entry(gallery)
    guild = bot.get_guild(discord_.guild.id)
    home = str(discord_.guild.id)
    for session in discord_.sessions:
        session.dispatch("GUILD_DELETE", {"id": home, "unavailable": True})
    await discord_.wait_for(lambda: guild.unavailable)
    known = dict(guild._channels)
    guild._channels.clear()
    bot.board.touch(1)
    await discord_.react(discord_.olga, card, STAR)
    for _ in range(100):
        if (await bot.gallery.of_server(discord_.guild.id))[0].stars == 2:
            break
        await asyncio.sleep(0.05)
    await bot.board.settled()
    assert entry(gallery) is shown and await bot.gallery.doomed() == []
    assert not [request for request in discord_.requests if request.path == f"/channels/{gallery.id}"]
    guild._channels.update(known)
    guild.unavailable = False
    bot.dispatch("guild_available", guild)
    await shows(discord_, bot, gallery, p1=2)
    assert entry(gallery) is shown


async def test_an_archived_thread_is_a_gallery_too(discord_: Loopback, bot: Reverie) -> None:
    thread = discord_.add_thread(discord_.general, "fame")
    gallery = await opened(discord_, bot, channel=thread)
    cards_ = [await dreamt(discord_), await dreamt(discord_)]
    for card in cards_:
        await share_alone(discord_, discord_.ann, card)
    await discord_.react(discord_.ben, cards_[0], STAR)
    await shows(discord_, bot, gallery, p1=1)
    # Discord does not tell of archived threads when it tells of a server.
    guild = bot.get_guild(discord_.guild.id)
    guild._remove_thread(guild.get_thread(thread.id))
    await discord_.react(discord_.ben, cards_[1], STAR)
    await shows(discord_, bot, gallery, p1=1, p2=1)


# Votes.


async def rated(bot: Reverie, server: Loopback) -> dict[int, float]:
    return {share.picture: share.rating for share in await bot.gallery.of_server(server.guild.id)}


async def test_people_vote_until_there_are_no_two_pictures_left(discord_: Loopback, bot: Reverie) -> None:
    await opened(discord_, bot, stars=9)
    card, own = await dreamt(discord_, count=2, spoiler=True), await dreamt(discord_, user=discord_.ben)
    for index in (0, 1):
        await shared(discord_, card, index)
    await share_alone(discord_, discord_.ben, own)
    use = await discord_.command(discord_.ben, discord_.general, "vote", {})
    ballot = await answered(discord_, use)
    assert ballot.ephemeral and ballot.content == "Which is better?"
    assert [file.filename for file in ballot.attachments] == ["SPOILER_vote-1.png", "SPOILER_vote-2.png"]
    assert [part["label"] for row in ballot.components for part in row["components"]] == ["Picture 1", "Picture 2", "Skip"]
    painted = [picture.png for picture in (await bot.history.painting_of(await bot.history.find(1))).pictures]
    winner = painted.index(ballot.attachments[1].data) + 1
    # What was skipped may come again.
    await discord_.press(discord_.ben, ballot, named(ballot, cards.Act.SKIP))
    before = named(ballot, cards.Act.SECOND)
    await discord_.wait_for(lambda: ballot.components and named(ballot, cards.Act.SECOND) != before)
    assert set((await rated(bot, discord_)).values()) == {1500.0}
    winner = painted.index(ballot.attachments[1].data) + 1
    await discord_.press(discord_.ben, ballot, named(ballot, cards.Act.SECOND))
    await discord_.wait_for(lambda: ballot.content == "There are no two pictures left for you to compare.")
    assert ballot.components == [] and ballot.attachments == []
    assert await rated(bot, discord_) == {winner: 1516.0, 3 - winner: 1484.0, 3: 1500.0}
    # Ann cannot vote for her own, and Ben's is one alone.
    use = await discord_.command(discord_.ann, discord_.general, "vote", {})
    assert (await answered(discord_, use)).content == "There are no two pictures left for you to compare."


async def test_a_vote_counts_once_and_for_who_was_asked(discord_: Loopback, bot: Reverie) -> None:
    await opened(discord_, bot, stars=9)
    card = await dreamt(discord_, count=2)
    for index in (0, 1):
        await shared(discord_, card, index)
    ballot = await answered(discord_, await discord_.command(discord_.ben, discord_.general, "vote", {}))
    forged = Message(ballot.id, discord_.general, discord_.bot, components=ballot.components, render=ballot.render)
    stolen = await told(discord_, await discord_.press(discord_.olga, forged, named(ballot, cards.Act.FIRST)))
    assert stolen == "I don't remember this any longer. Ask for it anew."
    assert set((await rated(bot, discord_)).values()) == {1500.0}
    first = named(ballot, cards.Act.FIRST)
    uses = [await discord_.press(discord_.ben, ballot, first), await discord_.press(discord_.ben, ballot, first)]
    await discord_.wait_for(lambda: all(use.acknowledged.is_set() for use in uses) and ballot.content.startswith("There are no two"))
    refused = [use for use in uses if use.message is not ballot]
    assert [await told(discord_, use) for use in refused] == ["I don't remember this any longer. Ask for it anew."]
    assert sorted((await rated(bot, discord_)).values()) == [1484.0, 1516.0]
    assert {share.votes for share in await bot.gallery.of_server(discord_.guild.id)} == {1}


async def test_a_picture_that_was_withdrawn_meanwhile_is_not_voted_for(discord_: Loopback, bot: Reverie) -> None:
    await opened(discord_, bot, stars=9)
    card = await dreamt(discord_, count=2)
    for index in (0, 1):
        await shared(discord_, card, index)
    ballot = await answered(discord_, await discord_.command(discord_.ben, discord_.general, "vote", {}))
    await bot.gallery.withdraw(1)
    await discord_.press(discord_.ben, ballot, named(ballot, cards.Act.FIRST))
    await discord_.wait_for(lambda: ballot.content.startswith("There are no two"))
    assert await rated(bot, discord_) == {2: 1500.0}


# Rankings.


async def test_the_leaderboard_ranks_pictures_and_their_creators(discord_: Loopback, bot: Reverie) -> None:
    await opened(discord_, bot, stars=9)
    none = await answered(discord_, await discord_.command(discord_.ben, discord_.general, "leaderboard", {}))
    assert none.content == "Nobody has shared a picture yet."
    hidden = discord_.add_channel("hidden", nsfw=True)
    discord_.restrict(discord_.world.channels[await gallery_of(bot, discord_)], nsfw=True)
    await discord_.wait_for(lambda: bot.get_channel(bot.preferences.server(discord_.guild.id, "gallery")).is_nsfw())
    messages = [await dreamt(discord_), await dreamt(discord_, user=discord_.ben, spoiler=True), await dreamt(discord_, channel=hidden)]
    for user, message in zip((discord_.ann, discord_.ben, discord_.ann), messages, strict=True):
        await share_alone(discord_, user, message)
    crowd = [discord_.olga, discord_.add_user("mona")]
    for message, stars in zip(messages, (0, 1, 2), strict=True):
        for person in crowd[:stars]:
            await discord_.react(person, message, STAR)
    # A won vote is worth less than one star.
    await bot.gallery.vote(discord_.olga.id, 1, 2)
    await becomes(discord_, lambda: [len(message.reactions.get(STAR, [])) for message in messages], [0, 1, 2])
    await asyncio.sleep(0.1)
    await bot.board.settled()
    ann, ben = discord_.ann.id, discord_.ben.id
    for place, lines in (
        (discord_.general, [f"⭐ 0 · rating 1516 · #1 <@{ann}>", f"⭐ 1 · rating 1484 · #2 <@{ben}>"]),
        (hidden, [f"⭐ 2 · rating 1500 · #3 <@{ann}>", f"⭐ 0 · rating 1516 · #1 <@{ann}>", f"⭐ 1 · rating 1484 · #2 <@{ben}>"]),
    ):
        shown = await answered(discord_, await discord_.command(discord_.ben, place, "leaderboard", {}))
        [embed] = shown.embeds
        assert embed["description"].split("\n") == [f"**{rank}.** {line}" for rank, line in enumerate(lines, start=1)]
        [creators] = embed["fields"]
        assert creators["value"].split("\n") == [f"**1.** <@{ann}> ⭐ 2 · 2 shared", f"**2.** <@{ben}> ⭐ 1 · 1 shared"]
        assert embed["image"]["url"] == "attachment://leaderboard.png" and shown.ephemeral
        [sheet] = shown.attachments
        assert sheet.filename == "leaderboard.png" and Image.open(io.BytesIO(sheet.data)).width > 100


async def gallery_of(bot: Reverie, server: Loopback) -> int:
    chosen_: int = bot.preferences.server(server.guild.id, "gallery")
    return chosen_


async def test_stats_count_what_was_painted_and_shared(discord_: Loopback, bot: Reverie) -> None:
    await opened(discord_, bot, stars=9)
    message = await shared(discord_, await dreamt(discord_, count=3))
    await dreamt(discord_, user=discord_.ben, count=2)
    await pressed(discord_, discord_.ben, message, cards.Act.STAR)
    for options, title, numbers in (
        ({}, "Your numbers", ["1", "3", "0.0", "1", "1"]),
        ({"whose": "server"}, "Numbers of this server", ["2", "5", "0.0", "1", "1", "2"]),
    ):
        shown = await answered(discord_, await discord_.command(discord_.ann, discord_.general, "stats", options))
        [embed] = shown.embeds
        assert shown.ephemeral and embed["title"] == title and [field["value"] for field in embed["fields"]] == numbers


# Restarts.


async def test_what_happened_while_the_bot_was_away_is_caught_up_with(discord_: Loopback, start: Start) -> None:
    async with start() as bot:
        gallery = await opened(discord_, bot)
        made = [await dreamt(discord_) for _ in range(4)]
        for card in made:
            await share_alone(discord_, discord_.ann, card)
        for card in made[:3]:
            await discord_.react(discord_.ben, card, STAR)
        await shows(discord_, bot, gallery, p1=1, p2=1, p3=1)
    untouched, deleted, _ = gallery.messages
    await discord_.react(discord_.olga, untouched, STAR)
    await discord_.delete(deleted)
    await discord_.unreact(discord_.ben, made[2], STAR)
    for person in (discord_.ben, discord_.ann, add_bot(discord_), discord_.bot):
        await discord_.react(person, made[3], STAR)
    async with start() as bot:
        await shows(discord_, bot, gallery, p1=2, p2=1, p4=1)
        assert gallery.messages[0] is untouched
    edits = len([request for request in discord_.requests if request.method in ("PATCH", "POST") and f"/{gallery.id}/" in request.path])
    async with start() as bot:
        await discord_.wait_for(lambda: len(bot.board._texts) == 7)
        await shows(discord_, bot, gallery, p1=2, p2=1, p4=1)
    # Where nothing happened, nothing is written.
    assert edits == len([request for request in discord_.requests if request.method in ("PATCH", "POST") and f"/{gallery.id}/" in request.path])


async def test_a_gallery_that_was_removed_while_the_bot_was_away_is_believed_to_be_gone(discord_: Loopback, start: Start) -> None:
    async with start() as bot:
        gallery = await opened(discord_, bot)
        card = await dreamt(discord_)
        await share_alone(discord_, discord_.ann, card)
        await discord_.react(discord_.ben, card, STAR)
        await shows(discord_, bot, gallery, p1=1)
        await discord_.react(discord_.olga, entry(gallery), STAR)
        await shows(discord_, bot, gallery, p1=2)
    discord_.remove_channel(gallery)
    async with start() as bot:
        await discord_.wait_for(lambda: bot.board.is_in_sight(discord_.guild.id))
        for _ in range(3):
            await bot.board.settled()
            bot.board.touch(1)
        await bot.board.settled()
        assert sum(request.path == f"/channels/{gallery.id}" for request in discord_.requests) == 1
        again = await opened(discord_, bot)
        await shows(discord_, bot, again, p1=1)


async def test_catching_up_waits_for_discord(discord_: Loopback, start: Start) -> None:
    async with start() as bot:
        gallery = await opened(discord_, bot)
        cards_ = [await dreamt(discord_), await dreamt(discord_)]
        for card in cards_:
            await share_alone(discord_, discord_.ann, card)
    for card in cards_:
        await discord_.react(discord_.ben, card, STAR)
    discord_.fail_next(3, 503, f"/channels/{discord_.general.id}/messages/")
    async with start() as bot:
        await shows(discord_, bot, gallery, p1=1, p2=1)
        assert any(request.status == 503 for request in discord_.requests)


@pytest.mark.parametrize("still", [True, False])
async def test_an_entry_that_was_posted_just_before_a_crash_is_found(discord_: Loopback, start: Start, still: bool) -> None:
    async with start() as bot:
        gallery = await opened(discord_, bot)
        first, second = await dreamt(discord_, spoiler=True), await dreamt(discord_)
        for card in (first, second):
            await share_alone(discord_, discord_.ann, card)
            await discord_.react(discord_.ben, card, STAR)
        await shows(discord_, bot, gallery, p1=1, p2=1)
        async with bot.history.database.transaction():
            await bot.history.database.write("UPDATE share SET message_id = NULL WHERE picture = 1")
            await bot.history.database.write("DELETE FROM showing WHERE message_id = ?", gallery.messages[0].id)
    shown = [*gallery.messages]
    if still:
        await discord_.react(discord_.olga, shown[0], STAR)
    else:
        await discord_.unreact(discord_.ben, first, STAR)
    async with start() as bot:
        if still:
            await shows(discord_, bot, gallery, p1=2, p2=1)
            assert gallery.messages == shown
            await pressed(discord_, discord_.olga, shown[0], cards.Act.STAR)
            await discord_.unreact(discord_.olga, shown[0], STAR)
            await shows(discord_, bot, gallery, p1=2, p2=1)
        else:
            await shows(discord_, bot, gallery, p2=1)


async def test_buttons_and_reactions_work_after_a_restart(discord_: Loopback, start: Start, painter: ScriptedPainter) -> None:
    async with start() as bot:
        gallery = await opened(discord_, bot, stars=1)
        message = await shared(discord_, await dreamt(discord_, count=2))
    async with start() as bot:
        await pressed(discord_, discord_.ben, message, cards.Act.STAR)
        await discord_.react(discord_.olga, message, STAR)
        await shows(discord_, bot, gallery, p1=2)
        ballots = await discord_.command(discord_.ben, discord_.general, "vote", {})
        assert re.match("There are no two", (await answered(discord_, ballots)).content)
        assert "no longer" in await told(discord_, await discord_.press(discord_.ann, entry(gallery), "reverie:withdraw:1:0"))
        await shows(discord_, bot, gallery)
    async with start() as bot:
        await bot.board.settled()
        assert entries(gallery) == {}
