"""What people do to messages and places, and what they may do: deleted messages, removed channels, roles, the owner."""

import asyncio
from typing import Any

import discord
import pytest
from discord import ui

from loopback import Loopback, permissions, wire
from loopback.options import NotSent
from loopback.permissions import ADMINISTRATOR, MANAGE_MESSAGES, MENTION_EVERYONE
from loopback.world import OWNER_ID
from tests.loopback.conftest import Bot, running
from tests.loopback.test_life import PICTURE, file


class Listener(Bot):
    """Keeps what it hears of, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[tuple[str, Any]] = []

    def dispatch(self, event: str, /, *arguments: Any) -> None:
        self.events.append((event, arguments))
        super().dispatch(event, *arguments)

    def of(self, name: str) -> list[Any]:
        return [arguments[-1] for event, arguments in self.events if event == name]


def asking() -> Bot:
    """Return a bot that says what somebody may do, and one that waits before it answers."""
    bot = Listener()

    @bot.tree.command()
    async def rights(interaction: discord.Interaction) -> None:
        """Tell what you may do."""
        user = interaction.user
        assert isinstance(user, discord.Member)
        await interaction.response.send_message(f"{interaction.permissions.value} {[role.name for role in user.roles]} {user.joined_at:%Y-%m-%d}")

    @bot.tree.command()
    async def hold(interaction: discord.Interaction) -> None:
        """Keep the interaction."""
        await interaction.response.defer()
        bot.held = interaction

    return bot


async def rights(server: Loopback, user: object, channel: object | None = None) -> tuple[int, str]:
    use = await server.command(user, channel or server.general, "rights")  # type: ignore[arg-type]  # any person and place
    message = await server.wait_for(lambda: use.message)
    granted, _, more = message.content.partition(" ")
    return int(granted), more


# Messages and places vanish.


async def test_a_deleted_message_is_told_and_gone(discord_: Loopback) -> None:
    async with running(Listener()) as bot:
        sent = await bot.get_channel(discord_.general.id).send(file=file())
        message = discord_.general.find(sent.id)
        await discord_.delete(message)
        [event] = await discord_.wait_for(lambda: bot.of("raw_message_delete"))
        assert (event.message_id, event.channel_id, event.guild_id) == (sent.id, discord_.general.id, discord_.guild.id)
        with pytest.raises(discord.NotFound) as unknown:
            await sent.edit(content="still here?")
        assert unknown.value.code == 10008 and message.deleted
        with pytest.raises(discord.NotFound):
            await sent.attachments[0].read()


async def test_messages_of_a_channel_are_deleted_together(discord_: Loopback) -> None:
    async with running(Listener()) as bot:
        attic = discord_.add_channel("attic")
        here = [await discord_.say(discord_.ann, discord_.general, str(number)) for number in range(4)]
        there = await discord_.say(discord_.ann, attic, "there")
        await discord_.delete_many([here[0], there, here[2]])
        await discord_.wait_for(lambda: len(bot.of("raw_bulk_message_delete")) == 2)
        told = [(event.channel_id, event.message_ids) for event in bot.of("raw_bulk_message_delete")]
        assert told == [(discord_.general.id, {here[0].id, here[2].id}), (attic.id, {there.id})]
        assert discord_.general.messages == [here[1], here[3]] and attic.messages == []
        assert bot.of("raw_message_delete") == []
        with pytest.raises(NotSent):
            await discord_.delete_many([await discord_.say(discord_.ann, discord_.dm(discord_.ann), "private")])


async def test_a_removed_channel_takes_everything_along(discord_: Loopback) -> None:
    async with running(asking()) as bot:
        attic = discord_.add_channel("attic")
        side = discord_.add_thread(attic, "side")
        message = await discord_.say(discord_.ann, attic, "x", files=[("a.png", PICTURE)])
        known = await discord_.wait_for(lambda: bot.get_channel(attic.id))
        await discord_.wait_for(lambda: bot.guilds[0].get_thread(side.id))
        use = await discord_.command(discord_.ann, attic, "hold")
        await discord_.wait_for(lambda: use.message)
        discord_.remove_channel(attic)
        await discord_.wait_for(lambda: bot.of("guild_channel_delete"))
        assert bot.get_channel(attic.id) is None and bot.guilds[0].get_thread(side.id) is None
        assert message.deleted and message.attachments[0].id not in discord_.world.attachments
        later = (known.send("x"), known.fetch_message(message.id), bot.fetch_channel(side.id), bot.held.followup.send("x"))
        for attempt in (*later, bot.held.edit_original_response(content="x")):
            with pytest.raises(discord.NotFound) as unknown:
                await attempt
            assert unknown.value.code == 10003
        for act in (
            discord_.command(discord_.ann, attic, "hold"),
            discord_.say(discord_.ann, side, "x"),
            discord_.command(discord_.ann, side, "hold"),
        ):
            with pytest.raises(NotSent, match="gone"):
                await act
        with pytest.raises(ValueError, match="direct messages"):
            discord_.remove_channel(discord_.dm(discord_.ann))


async def test_an_answer_to_a_channel_that_is_gone_meanwhile_is_refused(discord_: Loopback) -> None:
    bot = Bot()
    refused = asyncio.get_running_loop().create_future()

    @bot.tree.command()
    async def slow(interaction: discord.Interaction) -> None:
        """Answer when the channel is gone."""
        discord_.remove_channel(attic)
        try:
            await interaction.response.send_message("too late")
        except discord.NotFound as error:
            refused.set_result(error.code)

    async with running(bot):
        attic = discord_.add_channel("attic")
        await discord_.command(discord_.ann, attic, "slow")
        assert await asyncio.wait_for(refused, 5) == 10003


async def test_a_removed_thread_leaves_its_channel(discord_: Loopback) -> None:
    async with running(Listener()) as bot:
        side, other = discord_.add_thread(discord_.general, "side"), discord_.add_thread(discord_.general, "other")
        await discord_.wait_for(lambda: bot.guilds[0].get_thread(other.id))
        discord_.remove_channel(side)
        [event] = await discord_.wait_for(lambda: bot.of("raw_thread_delete"))
        assert (event.thread_id, event.parent_id) == (side.id, discord_.general.id)
        assert bot.guilds[0].get_thread(side.id) is None and bot.guilds[0].get_thread(other.id) is not None
        assert bot.get_channel(discord_.general.id) is not None


async def test_a_button_in_a_removed_channel_cannot_be_pressed(discord_: Loopback, bot: Bot) -> None:
    attic = discord_.add_channel("attic")
    channel = await discord_.wait_for(lambda: bot.get_channel(attic.id))
    view = ui.View(timeout=None)
    view.add_item(ui.Button(label="Go", custom_id="go"))
    await channel.send("press me", view=view)
    [message] = attic.messages
    discord_.remove_channel(attic)
    with pytest.raises(NotSent):
        await discord_.press(discord_.ann, message, "go")


# Rights.


async def test_roles_grant_what_they_say(discord_: Loopback) -> None:
    early = discord_.add_role("early", MENTION_EVERYONE)
    async with running(asking()) as bot:
        helpers, admins = discord_.add_role("helpers", MANAGE_MESSAGES), discord_.add_role("admins", ADMINISTRATOR)
        await discord_.wait_for(lambda: len(bot.of("guild_role_create")) == 2)
        assert [role.name for role in bot.guilds[0].roles] == ["@everyone", "Reverie", "early", "helpers", "admins"]
        assert [role.id for role in await bot.guilds[0].fetch_roles()] == [role.id for role in bot.guilds[0].roles]
        assert bot.guilds[0].get_role(helpers.id).permissions.manage_messages and helpers.mention == f"<@&{helpers.id}>"
        assert await rights(discord_, discord_.ann) == (permissions.EVERYONE, "['@everyone'] 2026-01-01")
        discord_.ann.roles |= {early.id, helpers.id}
        discord_.ann.joined_at += 40 * 24 * 3600
        granted = permissions.EVERYONE | MANAGE_MESSAGES | MENTION_EVERYONE
        assert await rights(discord_, discord_.ann) == (granted, "['@everyone', 'early', 'helpers'] 2026-02-10")
        assert (await rights(discord_, discord_.ann, discord_.add_thread(discord_.general, "side")))[0] == granted
        discord_.ben.roles.add(admins.id)
        assert (await rights(discord_, discord_.ben))[0] == permissions.ALL == discord_.ben.permissions
        discord_.ben.roles.clear()
        discord_.ben.moderator = True
        assert (await rights(discord_, discord_.ben))[0] == permissions.EVERYONE | MANAGE_MESSAGES
        fetched = await bot.guilds[0].fetch_member(discord_.ann.id)
        assert [role.name for role in fetched.roles] == ["@everyone", "early", "helpers"] and fetched.joined_at.month == 2


async def test_the_owner_may_do_everything_and_can_be_another(discord_: Loopback) -> None:
    assert discord_.guild.owner_id == discord_.olga.id == OWNER_ID and discord_.olga.name == "olga"
    assert [user.name for user in discord_.world.people()] == ["ann", "ben", "olga"]
    async with running(asking()) as bot:
        assert bot.guilds[0].owner_id == discord_.olga.id
        assert (await rights(discord_, discord_.olga))[0] == permissions.ALL
        assert (await rights(discord_, discord_.ben))[0] == permissions.EVERYONE
        channels = [channel.id for channel in bot.get_all_channels()]
        discord_.guild.owner_id = discord_.ben.id
        await discord_.wait_for(lambda: bot.of("guild_update"))
        assert bot.guilds[0].owner_id == discord_.ben.id and [channel.id for channel in bot.get_all_channels()] == channels
        assert (await rights(discord_, discord_.ben))[0] == permissions.ALL
        assert (await rights(discord_, discord_.olga))[0] == permissions.EVERYONE
    async with running(Bot()) as bot:
        assert bot.guilds[0].owner_id == discord_.ben.id
        assert (await bot.fetch_guild(discord_.guild.id)).owner_id == discord_.ben.id
        assert [channel.name for channel in await bot.guilds[0].fetch_channels()] == ["general"]


async def test_neither_roles_nor_ownership_count_elsewhere(discord_: Loopback) -> None:
    admins, away = discord_.add_role("admins", ADMINISTRATOR), discord_.add_foreign_channel("away")
    discord_.ann.roles.add(admins.id)
    for person in (discord_.ann, discord_.olga):
        assert discord_.world.rights_in(away, person) == permissions.EVERYONE
        assert discord_.world.rights_in(discord_.general, person) == permissions.ALL
        assert wire.member(discord_.world, person, away)["roles"] == []
    assert wire.member(discord_.world, discord_.ann)["roles"] == [str(admins.id)]


# Age.


async def test_every_place_tells_whether_it_is_age_restricted(discord_: Loopback) -> None:
    attic = discord_.add_channel("attic", nsfw=True)
    side = discord_.add_thread(attic, "side")
    async with running(Listener()) as bot:
        thread, channel = bot.guilds[0].get_thread(side.id), bot.get_channel(attic.id)
        assert thread.is_nsfw() and channel.is_nsfw() and not bot.get_channel(discord_.general.id).is_nsfw()
        assert [wire.channel(discord_.world, place)["nsfw"] for place in (attic, side, discord_.general)] == [True, True, False]
        discord_.restrict(attic, False)
        await discord_.wait_for(lambda: len(bot.of("guild_channel_update")) == 1)
        assert not thread.is_nsfw() and not channel.is_nsfw() and not side.age_restricted
        discord_.restrict(side, True)
        await discord_.wait_for(lambda: len(bot.of("guild_channel_update")) == 2)
        assert attic.nsfw and thread.is_nsfw() and (await bot.fetch_channel(attic.id)).is_nsfw()
