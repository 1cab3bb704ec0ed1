"""Threads, moderators, languages, and places that the bot is only brought to."""

import discord
import pytest
from discord import app_commands

from loopback import Loopback
from loopback.options import NotSent
from tests.loopback.conftest import Bot, running


def traveller() -> Bot:
    """Return a bot that answers anywhere, with as many messages as it is asked for."""
    bot = Bot()
    # discord.py keeps the first tree of a client.
    bot._connection._command_tree = None
    installs = app_commands.AppInstallationType(guild=True, user=True)
    contexts = app_commands.AppCommandContext(guild=True, dm_channel=True, private_channel=True)
    bot.tree = app_commands.CommandTree(bot, allowed_installs=installs, allowed_contexts=contexts)

    @bot.tree.command()
    async def talk(interaction: discord.Interaction, more: int = 0) -> None:
        """Talk."""
        place = type(interaction.channel).__name__
        await interaction.response.send_message(f"{place} {interaction.locale} {interaction.permissions.manage_messages}")
        for _ in range(more):
            try:
                await interaction.followup.send("more")
            except discord.HTTPException as refusal:
                await interaction.edit_original_response(content=str(refusal.code))

    return bot


async def said(server: Loopback, user: object, channel: object, **options: object) -> str:
    use = await server.command(user, channel, "talk", options)  # type: ignore[arg-type]  # any person and place
    message = await server.wait_for(lambda: use.message)
    return message.content


async def test_people_speak_languages_and_some_may_manage_messages(discord_: Loopback) -> None:
    async with running(traveller()):
        discord_.ben.locale = "ja"
        mona = discord_.add_user("mona", moderator=True)
        assert await said(discord_, discord_.ben, discord_.general) == "TextChannel ja False"
        assert await said(discord_, mona, discord_.general) == "TextChannel en-US True"


@pytest.mark.parametrize("connected", [True, False])
async def test_a_thread_is_a_place_below_a_channel_with_a_permission_of_its_own(discord_: Loopback, connected: bool) -> None:
    thread = None if connected else discord_.add_thread(discord_.general, "side")
    async with running(traveller()) as bot:
        thread = thread or discord_.add_thread(discord_.general, "side")
        known = await discord_.wait_for(lambda: bot.guilds[0].get_thread(thread.id))
        assert known.parent is not None and known.parent.id == discord_.general.id
        assert await said(discord_, discord_.ann, thread) == "Thread en-US False"
        await discord_.say(discord_.ann, thread, f"<@{discord_.bot.id}> hello")
        await discord_.wait_for(lambda: bot.heard)
        await known.send("hi")
        discord_.general.deny(discord.Permissions(send_messages_in_threads=True).value)
        with pytest.raises(discord.Forbidden):
            await known.send("hi")
        assert isinstance(await bot.fetch_channel(thread.id), discord.Thread)


@pytest.mark.parametrize(("guild", "place"), [(True, "PartialMessageable"), (False, "GroupChannel")])
async def test_where_the_bot_is_only_brought_along_it_may_answer_and_nothing_else(discord_: Loopback, guild: bool, place: str) -> None:
    async with running(traveller()) as bot:
        away = discord_.add_foreign_channel("away", guild)
        assert (await said(discord_, discord_.ann, away, more=6)).split()[1:] == ["en-US", "False"]
        await discord_.wait_for(lambda: away.messages[0].content == "40094")
        assert [message.content for message in away.messages] == ["40094", *["more"] * 5]
        with pytest.raises(discord.Forbidden) as refused:
            await bot.get_partial_messageable(away.id).send("hello")
        assert refused.value.code == 50001
        await discord_.say(discord_.ann, away, f"<@{discord_.bot.id}> hello")
        await discord_.say(discord_.ann, discord_.general, f"<@{discord_.bot.id}> hello")
        await discord_.wait_for(lambda: bot.heard)
        assert [message.channel.id for message in bot.heard] == [discord_.general.id]
        assert away.id not in {channel.id for channel in bot.get_all_channels()}


async def test_a_command_that_nobody_installed_for_themselves_is_not_offered_abroad(discord_: Loopback) -> None:
    bot = Bot()

    @bot.tree.command()
    async def talk(interaction: discord.Interaction) -> None:
        """Talk."""

    async with running(bot):
        with pytest.raises(NotSent, match="not installed"):
            await discord_.command(discord_.ann, discord_.add_foreign_channel("away"), "talk")
