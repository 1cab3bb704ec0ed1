from typing import Any

import discord
import pytest

from cogs import _sight as sight
from cogs._client import Reverie
from cogs._replies import OnlyInServers
from engine.album import Scope
from engine.jobs import Job, Origin, Request
from loopback import Channel, Loopback, User
from loopback.permissions import READ_MESSAGE_HISTORY, VIEW_CHANNEL

THREADS = {"thread", "private"}


async def seen_by(server: Loopback, bot: Reverie, user: User, channel: Channel) -> discord.Interaction:
    """Return an interaction as the bot gets it in a place."""
    uses: list[discord.Interaction] = []

    async def keep(use: discord.Interaction) -> bool:
        uses.append(use)
        return True

    bot.tree.interaction_check = keep  # type: ignore[method-assign,assignment]
    await server.command(user, channel, "words")
    await server.wait_for(lambda: uses)
    return uses[0]


def places(server: Loopback) -> dict[str, Channel]:
    adult = server.add_channel("adult", nsfw=True)
    away = server.add_foreign_channel("away")
    return {
        "general": server.general,
        "thread": server.add_thread(server.general, "side"),
        "adult": adult,
        "adult thread": server.add_thread(adult, "below"),
        "dm": server.dm(server.ann),
        "away": away,
        "thread away": server.add_thread(away, "side"),
        "group": server.add_foreign_channel("group", guild=False),
    }


async def test_what_kind_of_place_it_is(discord_: Loopback, bot: Reverie) -> None:
    found = {name: await seen_by(discord_, bot, discord_.ann, place) for name, place in places(discord_).items()}
    abroad = {"away", "thread away", "group"}
    assert {name for name, use in found.items() if sight.is_foreign(use)} == abroad
    assert {name for name, use in found.items() if sight.in_direct_messages(use)} == {"dm"}
    assert {name for name, use in found.items() if sight.may_show_adult(use)} == {"adult", "adult thread", "dm"}
    assert {name for name, use in found.items() if sight.is_age_restricted(use.channel)} == {"adult", "adult thread"}
    parents = {name: sight.above(use.channel) for name, use in found.items()}
    assert {name for name, parent in parents.items() if parent} == {"thread", "adult thread", "thread away"}
    assert parents["thread"] == (discord_.general.id,)


async def test_an_age_restricted_place_abroad_is_one(discord_: Loopback, bot: Reverie) -> None:
    away = discord_.add_foreign_channel("away")
    away.nsfw = True
    assert sight.may_show_adult(await seen_by(discord_, bot, discord_.ann, away))


def test_what_says_nothing_of_itself_is_not_age_restricted() -> None:
    assert not sight.is_age_restricted(None) and not sight.is_age_restricted(object()) and sight.above(None) == ()


@pytest.mark.parametrize(("granted", "may"), [(VIEW_CHANNEL, False), (READ_MESSAGE_HISTORY, False), (VIEW_CHANNEL | READ_MESSAGE_HISTORY, True)])
def test_who_reads_a_channel_sees_it_and_what_was_before(granted: int, may: bool) -> None:
    assert sight.may_read(discord.Permissions(granted)) is may


async def test_whose_results_are_looked_through(discord_: Loopback, bot: Reverie) -> None:
    for name, place in places(discord_).items():
        use = await seen_by(discord_, bot, discord_.ann, place)
        adult = name in ("adult", "adult thread", "dm")
        assert sight.scope_of(use, "mine") == Scope(user_id=discord_.ann.id, adult=adult)
        if name in ("dm", "away", "thread away", "group"):
            with pytest.raises(OnlyInServers):
                sight.scope_of(use, "server")
        else:
            scope = sight.scope_of(use, "server")
            assert (scope.user_id, scope.guild_id, scope.adult) == (None, discord_.guild.id, adult)
            assert scope.channels == sight.visible_channels(use)


async def test_channels_are_visible_to_who_may_read_them_with_the_public_threads_below(discord_: Loopback, bot: Reverie) -> None:
    hidden = discord_.add_channel("hidden")
    below = discord_.add_thread(hidden, "below")
    thread, private = (discord_.add_thread(discord_.general, name) for name in ("thread", "private"))
    hidden.hide_from(discord_.ben)
    known: Any = await discord_.wait_for(lambda: bot.get_channel(private.id))
    known._type = discord.ChannelType.private_thread  # the small Discord has none
    await discord_.wait_for(lambda: bot.get_channel(hidden.id).overwrites)  # type: ignore[union-attr]
    everybody = {discord_.general.id, thread.id}
    for user, place, visible in (
        (discord_.ann, discord_.general, {*everybody, hidden.id, below.id}),
        (discord_.ben, discord_.general, everybody),
        (discord_.ben, private, {*everybody, private.id}),
        (discord_.olga, discord_.general, {*everybody, hidden.id, below.id}),
    ):
        assert sight.visible_channels(await seen_by(discord_, bot, user, place)) == visible
    # Roles count too: without a right that everybody has there is nothing to be seen.
    discord_.guild.everyone &= ~READ_MESSAGE_HISTORY
    discord_.world.emit("role", discord_.add_role("reader", READ_MESSAGE_HISTORY))
    discord_.guild.owner_id = discord_.guild.owner_id
    await discord_.wait_for(lambda: not bot.guilds[0].default_role.permissions.read_message_history)
    use = await seen_by(discord_, bot, discord_.ann, discord_.general)
    assert sight.visible_channels(use) == {discord_.general.id}
    [reader] = discord_.world.roles.values()
    discord_.ann.roles.add(reader.id)
    use = await seen_by(discord_, bot, discord_.ann, discord_.general)
    assert sight.visible_channels(use) == {*everybody, hidden.id, below.id}


async def test_a_result_is_shown_to_who_asked_for_it_here_or_to_who_may_read_where_it_is(discord_: Loopback, bot: Reverie) -> None:
    here, quiet = discord_.general, discord_.add_channel("quiet")
    quiet.hide_from(discord_.ben)
    await discord_.wait_for(lambda: (known := bot.get_channel(quiet.id)) and known.overwrites)
    away, ann, ben = discord_.add_foreign_channel("away"), discord_.ann, discord_.ben
    uses = {(user, place): await seen_by(discord_, bot, user, place) for user in (ann, ben) for place in (here, away)}

    def may(user: User, place: Channel, owner: User, channel: Channel, **more: Any) -> bool:
        origin = Origin(**{"user_id": owner.id, "channel_id": channel.id, "guild_id": channel.guild_id} | more)
        return sight.may_see(uses[user, place], Job(1, Request("a cat", 1), origin, 0.0))

    assert may(ben, here, ann, here) and may(ben, away, ann, away)
    assert may(ann, here, ben, quiet) and not may(ben, here, ann, quiet)
    assert may(ben, here, ben, quiet) and may(ben, away, ben, quiet)
    assert not may(ben, here, ann, away) and not may(ben, away, ann, here) and not may(ann, here, ben, discord_.dm(ben))
    # What another server says of one of its channels is not believed of ours.
    assert not may(ann, here, ben, quiet, guild_id=77)
    for owner in (ann, ben):
        assert not may(ben, here, owner, here, is_adult=True) and not may(ben, away, owner, away, is_adult=True)
