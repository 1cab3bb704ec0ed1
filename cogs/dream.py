"""/dream and /words: from a prompt to a job, and what the model was shown."""

import secrets

import discord
from discord import app_commands
from discord.ext import commands

from cogs._cards import CONTENT_LIMIT, shorten
from cogs._client import Reverie
from cogs._desk import Desk
from cogs._language import language_of
from engine.jobs import COUNT_LIMIT, GUIDANCE_LIMIT, PROMPT_LIMIT, SEED_LIMIT, STEPS_LIMIT, Request


class Dream(commands.Cog):
    """Paints what people describe."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @app_commands.command()
    @app_commands.describe(
        prompt="What to paint",
        count="How many pictures",
        seed="Paint an earlier picture again: equal seeds give equal pictures",
        steps="Denoising steps: more take longer and are finer",
        guidance="How strictly to follow the prompt; 1 is not at all strict",
        spoiler="Hide the pictures until somebody clicks on them",
    )
    async def dream(
        self,
        interaction: discord.Interaction,
        prompt: app_commands.Range[str, 1, PROMPT_LIMIT],
        count: app_commands.Range[int, 1, COUNT_LIMIT] = 4,
        seed: app_commands.Range[int, 0, SEED_LIMIT - 1] | None = None,
        steps: app_commands.Range[int, 1, STEPS_LIMIT] | None = None,
        guidance: app_commands.Range[float, 0.0, GUIDANCE_LIMIT] | None = None,
        spoiler: bool = False,
    ) -> None:
        """Paint what a prompt describes."""
        request = Request(prompt, secrets.randbelow(SEED_LIMIT) if seed is None else seed, count, steps, guidance)
        await self._desk.accept(interaction, request, spoiler=spoiler)

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
