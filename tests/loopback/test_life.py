"""discord.py, unmodified, through its whole life."""

import discord
import pytest
from discord import app_commands

from loopback import Loopback
from tests.loopback.conftest import Bot, running


def painter() -> Bot:
    """Return a bot with the commands that the tests use."""
    bot = Bot()

    @bot.tree.command()
    @app_commands.describe(prompt="What to draw", count="How many")
    async def dream(interaction: discord.Interaction, prompt: str, count: app_commands.Range[int, 1, 9] = 4) -> None:
        """Draw a picture."""
        await interaction.response.defer(thinking=True)
        await interaction.edit_original_response(content=f"{count} of {prompt}")
        await interaction.followup.send("more", ephemeral=True)

    return bot


async def test_a_bot_logs_in_and_sees_its_guild(discord_: Loopback, bot: Bot) -> None:
    assert [guild.name for guild in bot.guilds] == ["Loopback"]
    assert bot.user and bot.user.id == discord_.bot.id
    assert len(discord_.sessions) == 1


async def test_a_wrong_token_is_refused(discord_: Loopback) -> None:
    async with Bot() as bot:
        with pytest.raises(discord.LoginFailure):
            await bot.login("wrong")


async def test_a_deferred_command_is_edited_and_followed_up(discord_: Loopback) -> None:
    async with running(painter()):
        use = await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a fox", "count": 2})
        await discord_.wait_for(lambda: use.followups)
        assert use.acknowledged.is_set() and use.response_type == 5
        assert use.message in discord_.general.messages
        assert use.message.content == "2 of a fox" and not use.message.thinking
        assert use.followups[0].ephemeral
    assert discord_.violations == []
