"""/verify and the button *Verify*: whether a picture is what its receipt says, by painting it again."""

from collections.abc import Sequence

import discord
from discord import app_commands
from discord.ext import commands

from cogs import _cards as cards
from cogs._client import Reverie
from cogs._desk import check_place
from cogs._replies import NoPicture
from engine import uploads
from engine.jobs import SOURCES_LIMIT, Ingredient, Kind


class Verify(commands.Cog):
    """Paints pictures again and compares."""

    def __init__(self, bot: Reverie) -> None:
        self._desk = bot.desk
        self._worker = bot.worker
        bot.presses |= {cards.Act.VERIFY: self.verify_painted}

    @app_commands.command()
    @app_commands.describe(
        image="The picture, as the file that was sent",
        source="The picture that it was made from, where you did not hand that in yourself",
        second_source="A second one",
    )
    async def verify(
        self,
        interaction: discord.Interaction,
        image: discord.Attachment,
        source: discord.Attachment | None = None,
        second_source: discord.Attachment | None = None,
    ) -> None:
        """Paint a picture again from its receipt, and see whether it is the same."""
        check_place(interaction)
        await interaction.response.defer(thinking=True)
        picture = await self._desk.read(image)
        receipt = await self._desk.decoded(uploads.receipt_of, picture)
        if "seed" not in receipt:
            raise NoPicture
        wanted = uploads.sources_in(receipt)
        files = [await self._desk.read(one) for one in (source, second_source) if one is not None]
        known = await self._desk.history.handed_in(interaction.user.id, wanted) | await self._desk.decoded(uploads.by_hash, files)
        model = receipt.get("model", "")
        await self._verify(interaction, picture, [known[name] for name in wanted if name in known], model if model in self._worker.models else "")

    async def verify_painted(self, interaction: discord.Interaction, number: int, index: int) -> None:
        """Verify one picture of an earlier job, with what was handed in for it."""
        job = await self._desk.remembered(number)
        alone = await self._desk.painted_alone(job, index)
        await self._verify(interaction, alone.pictures[0].png, job.request.files, job.request.model, job.origin.spoiler, job.id)

    async def _verify(
        self, interaction: discord.Interaction, picture: bytes, sources: Sequence[bytes], model: str, spoiler: bool = False, source: int | None = None
    ) -> None:
        usual = self._desk.defaults(interaction)
        ingredients = tuple(Ingredient(one) for one in sources[:SOURCES_LIMIT])
        request = usual.request("", 0, Kind.VERIFY, picture, count=1, ingredients=ingredients, model=model)
        await self._desk.accept(interaction, request, spoiler=spoiler or usual.spoiler, source=source)


async def setup(bot: Reverie) -> None:
    """Add the feature to the bot."""
    await bot.add_cog(Verify(bot))
