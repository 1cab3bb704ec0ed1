"""/dream and /words: from a prompt to a job, and what the model was shown."""

import secrets

import discord
from discord import app_commands
from discord.ext import commands

from cogs._cards import CONTENT_LIMIT, shorten
from cogs._client import Reverie
from cogs._desk import Desk
from cogs._language import language_of
from cogs._options import DESCRIPTIONS, Count, Guidance, Prompt, Seed, Steps
from engine.jobs import SEED_LIMIT, Request


class Dream(commands.Cog):
    """Paints what people describe."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @app_commands.command()
    @app_commands.describe(
        prompt="What to paint",
        **DESCRIPTIONS,
    )
    async def dream(
        self,
        interaction: discord.Interaction,
        prompt: Prompt,
        count: Count | None = None,
        seed: Seed | None = None,
        steps: Steps | None = None,
        guidance: Guidance | None = None,
        spoiler: bool | None = None,
    ) -> None:
        """Paint what a prompt describes."""
        usual = self._desk.defaults(interaction).with_options(count=count, steps=steps, guidance=guidance, spoiler=spoiler)
        request = Request(
            prompt, secrets.randbelow(SEED_LIMIT) if seed is None else seed, usual.count, usual.steps, usual.guidance, model=usual.model
        )
        await self._desk.accept(interaction, request, spoiler=usual.spoiler)

    @app_commands.command()
    async def words(self, interaction: discord.Interaction) -> None:
        """Show the words that the loaded model was trained on."""
        say, words = language_of(interaction), self._desk.model.known_words
        if words is None:
            text = say("My model is still being loaded. Ask again in a moment.")
        elif words:
            text = say("I was shown these words: {words}.", words=", ".join(words))
        else:
            text = say("I know more words than a list can hold. Just try.")
        await interaction.response.send_message(shorten(text, CONTENT_LIMIT), ephemeral=True)


async def setup(bot: Reverie) -> None:
    """Add the feature to the bot."""
    await bot.add_cog(Dream(bot.desk))
