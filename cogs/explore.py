"""/explore and /draws: what lies around a picture, and what the prior makes of a prompt, to choose from by buttons."""

import secrets

import discord
from discord import app_commands
from discord.ext import commands

from cogs import _cards as cards
from cogs._client import Reverie
from cogs._desk import check_place
from cogs._options import OF_FIXED_COUNT, PRESETS, Guidance, Prompt, Seed, Share, Steps
from cogs._replies import Forgotten
from engine.jobs import SEED_LIMIT, USUAL_DRAWS, WHEEL, Kind

Number = app_commands.Range[int, 1, cards.DRAWS_SHOWN]


class Explore(commands.Cog):
    """Shows ways to go on, and goes them."""

    def __init__(self, bot: Reverie) -> None:
        self._desk = bot.desk
        bot.presses |= {cards.Act.EXPLORE: self.explore_from, cards.Act.DRAW: self.paint_draw}

    @app_commands.command()
    @app_commands.describe(
        image="The picture in the middle",
        step="How far to go: 1 is a right angle",
        **OF_FIXED_COUNT,
    )
    @app_commands.choices(preset=PRESETS)
    async def explore(
        self,
        interaction: discord.Interaction,
        image: discord.Attachment,
        step: Share | None = None,
        seed: Seed | None = None,
        steps: Steps | None = None,
        guidance: Guidance | None = None,
        preset: str | None = None,
        spoiler: bool | None = None,
    ) -> None:
        """Paint what lies around a picture, to go on from there."""
        check_place(interaction)
        await interaction.response.defer(thinking=True)
        picture = await self._desk.picture(image)
        usual = self._desk.defaults(interaction).with_options(steps=steps, guidance=guidance, preset=preset, spoiler=spoiler)
        request = usual.request("", seed, Kind.EXPLORE, picture, step=step, count=WHEEL)
        await self._desk.accept(interaction, request, spoiler=usual.spoiler)

    async def explore_from(self, interaction: discord.Interaction, number: int, index: int) -> None:
        """Paint what lies around one picture of an earlier job; from wheel to wheel with the same noise."""
        job = await self._desk.remembered(number)
        alone = await self._desk.painted_alone(job, index)
        request = job.request.turned_into(Kind.EXPLORE, prompt="", image=alone.pictures[0].png, count=WHEEL, step=job.request.step)
        parent = await self._desk.history.picture_id(job, index)
        await self._desk.accept(interaction, request, spoiler=job.origin.spoiler, parent=parent)

    @app_commands.command()
    @app_commands.describe(prompt="What to paint", number="How many draws to choose between", seed="The seed of the first draw; the others count on")
    async def draws(self, interaction: discord.Interaction, prompt: Prompt, number: Number = USUAL_DRAWS, seed: Seed | None = None) -> None:
        """See how near the prior's draws come to a prompt, and choose which to paint."""
        usual = self._desk.defaults(interaction)
        await self._desk.accept(interaction, usual.request(prompt, seed, Kind.DRAWS, count=number), spoiler=usual.spoiler)

    async def paint_draw(self, interaction: discord.Interaction, number: int, index: int) -> None:
        """Paint one of the draws."""
        job = await self._desk.remembered(number)
        drawn = (await self._desk.painted(job)).draws
        if index >= len(drawn):
            raise Forgotten
        usual = self._desk.defaults(interaction)
        chosen = {"prior_seed": drawn[index].seed, "candidates": 1, "count": usual.count}
        request = job.request.turned_into(Kind.DREAM, seed=secrets.randbelow(SEED_LIMIT), **chosen)
        await self._desk.accept(interaction, request, spoiler=job.origin.spoiler, source=job.id)


async def setup(bot: Reverie) -> None:
    """Add the feature to the bot."""
    await bot.add_cog(Explore(bot))
