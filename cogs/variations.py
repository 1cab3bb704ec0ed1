"""/variations and the menu *Variations*: other pictures with the meaning of a given one."""

import secrets

import discord
from discord import app_commands
from discord.ext import commands

from cogs import _cards as cards
from cogs._client import Reverie
from cogs._desk import Desk, check_place, uploaded_picture
from cogs._language import language_of
from cogs._options import DESCRIPTIONS, PRESETS, Count, Guidance, Prompt, Seed, Share, Steps
from cogs._replies import CannotDo, NoPicture
from engine.jobs import SEED_LIMIT, Job, Kind, Request


class Variations(commands.Cog):
    """Paints variations of pictures that people hand in."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.menu = app_commands.ContextMenu(name="Variations", callback=self.from_message)

    @app_commands.command()
    @app_commands.describe(
        image="The picture to vary",
        prompt="Words for models that read text beside the picture",
        strength="How far from the picture: 0 is nearly the picture itself, 1 nothing but its meaning",
        drift="How far to turn its meaning aside, each picture another way",
        **DESCRIPTIONS | {"guidance": "How strictly to follow the picture; 1 is not at all strict"},
    )
    @app_commands.choices(preset=PRESETS)
    async def variations(
        self,
        interaction: discord.Interaction,
        image: discord.Attachment,
        prompt: Prompt | None = None,
        count: Count | None = None,
        seed: Seed | None = None,
        steps: Steps | None = None,
        guidance: Guidance | None = None,
        preset: str | None = None,
        spoiler: bool | None = None,
        strength: Share | None = None,
        drift: Share | None = None,
    ) -> None:
        """Paint variations of a picture."""
        check_place(interaction)
        # Fetching the picture may take longer than Discord waits for a first answer.
        await interaction.response.defer(thinking=True)
        picture = await self._desk.picture(image)
        asked = {"count": count, "steps": steps, "guidance": guidance, "preset": preset, "spoiler": spoiler}
        usual = self._desk.defaults(interaction).with_options(**asked)
        request = usual.request(prompt or "", seed, Kind.VARIATION, picture, strength=strength, drift=drift or 0.0)
        await self._desk.accept(interaction, request, spoiler=usual.spoiler)

    async def from_message(self, interaction: discord.Interaction, message: discord.Message) -> None:
        """Paint variations of the picture in a message; of one of our grids, ask which."""
        shown = await self._desk.shown(message)
        if shown is None:
            attachment = uploaded_picture(message.attachments)
            check_place(interaction)
            await interaction.response.defer(thinking=True)
            picture = await self._desk.picture(attachment)
            usual = self._desk.defaults(interaction)
            request = usual.request("", kind=Kind.VARIATION, image=picture)
            await self._desk.accept(interaction, request, spoiler=usual.spoiler or attachment.is_spoiler())
        elif shown.index is not None:
            await vary(self._desk, interaction, shown.job, shown.index)
        else:
            choices = cards.variation_buttons(shown.job, self._desk.model.kinds_of(shown.job.request.model))
            if not cards.choosable(shown.job):
                raise NoPicture
            if not choices:
                raise CannotDo(shown.job.request.model or self._desk.model.name)
            say = language_of(interaction)
            await interaction.response.send_message(say("Variations of which picture?"), view=cards.buttons(choices), ephemeral=True)


async def vary(desk: Desk, interaction: discord.Interaction, job: Job, index: int) -> None:
    """Paint variations of one picture of an earlier job.

    Raises:
        Refused: the picture is gone, or this cannot be done here.
    """
    await desk.accept(interaction, await variation_of(desk, job, index), spoiler=job.origin.spoiler, parent=await desk.history.picture_id(job, index))


async def variation_of(desk: Desk, job: Job, index: int) -> Request:
    """Return the request for variations of one picture of an earlier job.

    Raises:
        Forgotten: the picture is gone.
    """
    pictures = (await desk.painted(job)).pictures
    png = pictures[min(index, len(pictures) - 1)].png
    return job.request.turned_into(Kind.VARIATION, seed=secrets.randbelow(SEED_LIMIT), image=png)


async def setup(bot: Reverie) -> None:
    """Add the feature to the bot."""
    cog = Variations(bot.desk)
    await bot.add_cog(cog)
    bot.tree.add_command(cog.menu)
