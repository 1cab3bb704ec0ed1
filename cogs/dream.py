"""/dream and /words: from a prompt to a job, and what the model was shown."""

from typing import Any

import discord
from discord import app_commands
from discord.ext import commands

from cogs._cards import CONTENT_LIMIT, shorten
from cogs._client import Reverie
from cogs._desk import Desk
from cogs._language import language_of
from cogs._options import DESCRIPTIONS, PRESETS, Count, Guidance, Prompt, Seed, Steps
from cogs._replies import StillLoading
from engine.errors import InvalidRequest
from engine.worker import Worker

CHOICES_LIMIT = 25
"""What Discord shows while an option is typed."""
NAMES_SHOWN = 1500
"""Characters of the names of all models in one sentence."""


class Dream(commands.Cog):
    """Paints what people describe."""

    def __init__(self, desk: Desk, worker: Worker) -> None:
        self._desk = desk
        self._worker = worker

    @app_commands.command()
    @app_commands.describe(
        prompt="What to paint",
        model="Which model paints, if not the usual one",
        seamless="Let every picture go on in its neighbours; not all models can",
        prior_seed="Paint all pictures from one draw of the prior, which /draws shows",
        **DESCRIPTIONS,
    )
    @app_commands.choices(preset=PRESETS)
    async def dream(
        self,
        interaction: discord.Interaction,
        prompt: Prompt,
        count: Count | None = None,
        seed: Seed | None = None,
        steps: Steps | None = None,
        guidance: Guidance | None = None,
        preset: str | None = None,
        spoiler: bool | None = None,
        model: str | None = None,
        seamless: bool = False,
        prior_seed: Seed | None = None,
    ) -> None:
        """Paint what a prompt describes."""
        if model is not None:
            self.check_model(model)
        asked = {"count": count, "steps": steps, "guidance": guidance, "preset": preset, "spoiler": spoiler, "model": model}
        usual = self._desk.defaults(interaction).with_options(**asked)
        await self._desk.accept(interaction, usual.request(prompt, seed, seamless=seamless, **of_draw(prior_seed)), spoiler=usual.spoiler)

    @dream.autocomplete("model")
    async def offered(self, interaction: discord.Interaction, typed: str) -> list[app_commands.Choice[str]]:
        """Return the models in whose names is what somebody has typed so far."""
        names = [name for name in self._worker.models if typed.lower() in name.lower()]
        return [app_commands.Choice(name=name, value=name) for name in names[:CHOICES_LIMIT]]

    def check_model(self, model: str) -> None:
        """Make sure that there is a model of this name.

        Raises:
            StillLoading: it may be the usual one's, which is not known yet.
            InvalidRequest: there is none.
        """
        names = self._worker.models
        if model in names:
            return
        if not self._worker.ready.is_set():
            raise StillLoading
        raise InvalidRequest("model", "be one of these: {choices}", choices=shorten(", ".join(names), NAMES_SHOWN))

    @app_commands.command()
    async def words(self, interaction: discord.Interaction) -> None:
        """Show the words that the loaded model was trained on."""
        say, words = language_of(interaction), self._desk.model.known_words
        if words is None:
            raise StillLoading
        if words:
            text = say("I was shown these words: {words}.", words=", ".join(words))
        else:
            text = say("I know more words than a list can hold. Just try.")
        await interaction.response.send_message(shorten(text, CONTENT_LIMIT), ephemeral=True)


def of_draw(prior_seed: int | None) -> dict[str, Any]:
    """Return the fields of a request for pictures of one draw of the prior, of no further ones that may be nearer to the prompt."""
    return {} if prior_seed is None else {"prior_seed": prior_seed, "candidates": 1}


async def setup(bot: Reverie) -> None:
    """Add the feature to the bot."""
    await bot.add_cog(Dream(bot.desk, bot.worker))
