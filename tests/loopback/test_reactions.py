"""Reactions of people and of the bot, as unmodified discord.py hears of them and asks for them."""

from typing import Any

import discord
import pytest

from loopback import Loopback, Message, permissions
from tests.loopback.conftest import Bot, running


class Listener(Bot):
    """Keeps what it hears of reactions."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self.events: list[tuple[str, Any]] = []

    async def on_raw_reaction_add(self, event: discord.RawReactionActionEvent) -> None:
        self.events.append(("add", event))

    async def on_raw_reaction_remove(self, event: discord.RawReactionActionEvent) -> None:
        self.events.append(("remove", event))

    async def on_raw_reaction_clear(self, event: discord.RawReactionClearEvent) -> None:
        self.events.append(("clear", event))

    async def on_raw_reaction_clear_emoji(self, event: discord.RawReactionClearEmojiEvent) -> None:
        self.events.append(("clear emoji", event))


async def posted(discord_: Loopback, bot: Bot) -> tuple[discord.Message, Message]:
    """Return a message of the bot as both sides know it."""
    sent = await bot.get_channel(discord_.general.id).send("a grid")
    message = discord_.general.find(sent.id)
    assert message is not None
    return sent, message


async def test_events_say_who_reacted_with_what_and_to_whose_message(discord_: Loopback) -> None:
    async with running(Listener()) as bot:
        _, message = await posted(discord_, bot)
        await discord_.react(discord_.ann, message, "⭐")
        await discord_.unreact(discord_.ann, message, "⭐")
        private = await discord_.say(discord_.bot, discord_.dm(discord_.ben), "in private")
        await discord_.react(discord_.ben, private, "👍")
        await discord_.wait_for(lambda: len(bot.events) == 3)
        (_, added), (_, removed), (_, direct) = bot.events
        for event in (added, removed):
            assert (event.user_id, event.channel_id, event.message_id) == (discord_.ann.id, discord_.general.id, message.id)
            assert (event.guild_id, str(event.emoji)) == (discord_.guild.id, "⭐")
        assert added.member is not None and added.member.name == "ann" and added.message_author_id == discord_.bot.id
        assert removed.member is None and removed.message_author_id is None
        assert (direct.user_id, direct.guild_id, direct.member, direct.message_author_id) == (discord_.ben.id, None, None, discord_.bot.id)


@pytest.mark.parametrize(("intents", "heard"), [({"guild_reactions": True}, [True]), ({"dm_reactions": True}, [False]), ({}, [])])
async def test_only_who_wants_to_hear_of_reactions_does(discord_: Loopback, intents: dict[str, bool], heard: list[bool]) -> None:
    async with running(Listener(intents=discord.Intents(guilds=True, **intents))) as bot:
        said = [await discord_.say(discord_.ann, place, "hi") for place in (discord_.general, discord_.dm(discord_.ann))]
        for message in said:
            await discord_.react(discord_.ann, message, "⭐")
        for message in said:
            await discord_.clear_reactions(message)
        await discord_.wait_for(lambda: len(bot.events) >= 2 * len(heard))
        # What is told of a channel comes after all that was told of reactions.
        discord_.add_channel("later")
        await discord_.wait_for(lambda: any(channel.name == "later" for channel in bot.get_all_channels()))
        assert [(name, event.guild_id is not None) for name, event in bot.events] == [(name, here) for name in ("add", "clear") for here in heard]


async def test_reactions_are_listed_page_by_page(discord_: Loopback, bot: Bot) -> None:
    sent, message = await posted(discord_, bot)
    crowd = [discord_.add_user(f"person{number}") for number in range(103)]
    for person in reversed(crowd):
        await discord_.react(person, message, "⭐")
    await discord_.react(discord_.ann, message, "👍")
    fresh = await bot.get_channel(discord_.general.id).fetch_message(sent.id)
    [stars, _] = fresh.reactions
    # discord.py turns every page round.
    everybody = [person.id for person in crowd]
    assert [user.id async for user in stars.users()] == everybody[99::-1] + everybody[:99:-1]
    assert [user.id async for user in stars.users(limit=2, after=crowd[4])] == [crowd[6].id, crowd[5].id]
    assert sum(request.path.endswith("/reactions/⭐") for request in discord_.requests) == 3
    for limit in (0, 101):
        with pytest.raises(discord.HTTPException) as refused:
            await bot.http.get_reaction_users(discord_.general.id, sent.id, "⭐", limit)
        assert refused.value.code == 50035
    assert len(await bot.http.request(discord.http.Route("GET", f"/channels/{discord_.general.id}/messages/{sent.id}/reactions/%E2%AD%90"))) == 25
    assert await bot.http.get_reaction_users(discord_.general.id, sent.id, "🍕", 100) == []
    assert discord_.violations == []


async def test_a_bot_takes_away_reactions_of_others_only_where_it_moderates(discord_: Loopback) -> None:
    async with running(Listener()) as bot:
        sent, message = await posted(discord_, bot)
        for person, emoji in ((discord_.ann, "⭐"), (discord_.ben, "⭐"), (discord_.ann, "👍"), (discord_.ben, "🎉"), (discord_.bot, "⭐")):
            await discord_.react(person, message, emoji)
        ann = discord.Object(discord_.ann.id)
        for attempt in (sent.remove_reaction("⭐", ann), sent.clear_reaction("⭐"), sent.clear_reactions()):
            with pytest.raises(discord.Forbidden) as refused:
                await attempt
            assert refused.value.code == 50013
        await sent.remove_reaction("⭐", bot.user)
        discord_.general.allow(permissions.MANAGE_MESSAGES)
        await sent.remove_reaction("⭐", ann)
        assert message.reactions == {"⭐": [discord_.ben.id], "👍": [discord_.ann.id], "🎉": [discord_.ben.id]}
        await sent.clear_reaction("⭐")
        assert [*message.reactions] == ["👍", "🎉"]
        await sent.clear_reactions()
        assert message.reactions == {}
        await sent.clear_reactions()
        await discord_.wait_for(lambda: len(bot.events) == 9)
        assert [name for name, _ in bot.events] == ["add"] * 5 + ["remove"] * 2 + ["clear emoji", "clear"]
        assert bot.events[6][1].user_id == discord_.ann.id
        assert str(bot.events[7][1].emoji) == "⭐" and bot.events[7][1].message_id == message.id
        with pytest.raises(discord.NotFound) as unknown:
            await sent.remove_reaction("⭐", discord.Object(1))
        assert unknown.value.code == 10013


async def test_nobody_moderates_direct_messages(discord_: Loopback, bot: Bot) -> None:
    place = discord_.dm(discord_.ann)
    message = await discord_.say(discord_.ann, place, "hello")
    await discord_.react(discord_.ann, message, "⭐")
    theirs = bot.get_partial_messageable(place.id).get_partial_message(message.id)
    for attempt in (theirs.clear_reactions(), theirs.clear_reaction("⭐"), theirs.remove_reaction("⭐", discord.Object(discord_.ann.id))):
        with pytest.raises(discord.Forbidden) as refused:
            await attempt
        assert refused.value.code == 50003


async def test_people_clear_reactions_too(discord_: Loopback) -> None:
    async with running(Listener()) as bot:
        _, message = await posted(discord_, bot)
        for emoji in ("⭐", "👍", "🎉"):
            await discord_.react(discord_.ann, message, emoji)
        await discord_.clear_reactions(message, "👍")
        assert [*message.reactions] == ["⭐", "🎉"]
        await discord_.clear_reactions(message)
        assert message.reactions == {}
        await discord_.wait_for(lambda: len(bot.events) == 5)
        assert [name for name, _ in bot.events[3:]] == ["clear emoji", "clear"]


async def test_reactions_in_a_thread_name_the_thread(discord_: Loopback) -> None:
    async with running(Listener()) as bot:
        thread = discord_.add_thread(discord_.general, "side")
        message = await discord_.say(discord_.ann, thread, "hi")
        await discord_.react(discord_.ben, message, "⭐")
        await discord_.wait_for(lambda: bot.events)
        assert (bot.events[0][1].channel_id, bot.events[0][1].guild_id) == (thread.id, discord_.guild.id)
