"""The menu *Paint the mask*: a link to the studio's brush for a picture; what is painted over there is repainted here."""

import time
from dataclasses import asdict
from typing import Any

import discord
from discord import app_commands
from discord.ext import commands

from cogs import _cards as cards
from cogs._answers import tell
from cogs._client import Reverie
from cogs._desk import uploaded_picture
from cogs._language import language_of
from cogs._next_door import LINK_S
from cogs._replies import Forgotten, NoStudio
from engine.jobs import Kind


class Paint(commands.Cog):
    """Gives whoever asks, and nobody else, links that work once and for a quarter of an hour, one for each picture of a grid.

    The result comes to the channel where the link was asked for, as that person's, by the same limits and rules as every other.
    """

    def __init__(self, bot: Reverie) -> None:
        self._desk = bot.desk
        self._next_door = bot.next_door
        self.menu = app_commands.ContextMenu(name="Paint the mask", callback=self.from_message)
        bot.presses |= {cards.Act.PAINT: self.from_draft}

    async def from_message(self, interaction: discord.Interaction, message: discord.Message) -> None:
        """Give links to the brush for the pictures of a message."""
        self.check(interaction)
        found = await self._desk.shown(message)
        attachment = uploaded_picture(message.attachments) if found is None else None
        # Fetching the picture may take longer than Discord waits for a first answer.
        await interaction.response.defer(ephemeral=True, thinking=True)
        usual = asdict(self._desk.defaults(interaction))
        if attachment is not None:
            wanted = usual | {"spoiler": usual["spoiler"] or attachment.is_spoiler()}
            await self.show(interaction, [(await self._desk.picture(attachment), wanted)])
            return
        assert found is not None
        job, painting = found.job, await self._desk.painted(found.job)
        indices = range(len(painting.pictures)) if found.index is None else [found.index]
        wanted = usual | {"spoiler": usual["spoiler"] or job.origin.spoiler}
        await self.show(
            interaction,
            [(painting.pictures[index].png, wanted | {"parent": await self._desk.history.picture_id(job, index)}) for index in indices],
        )

    async def from_draft(self, interaction: discord.Interaction, number: int, index: int) -> None:
        """Give a link to the brush for a picture whose part to repaint is just being chosen."""
        self.check(interaction)
        draft = await self._desk.history.find_draft(number, interaction.user.id)
        if draft is None or not draft.image:
            raise Forgotten
        await self.show(interaction, [(draft.image, draft.content)])

    def check(self, interaction: discord.Interaction) -> None:
        """Make sure that there is a brush, and that the result can be painted and posted.

        Raises:
            Refused: it is not so.
        """
        if not self._next_door.is_open:
            raise NoStudio
        self._desk.check(interaction, Kind.INPAINT)

    async def show(self, interaction: discord.Interaction, wanted: list[tuple[bytes, dict[str, Any]]]) -> None:
        """Show links for pictures, each with what is wanted of it."""
        say = language_of(interaction)
        links = [await self._next_door.link(interaction, picture, asked) for picture, asked in wanted]
        labels = [say("Open the brush")] if len(links) == 1 else [say("Picture {number}", number=place) for place in range(1, len(links) + 1)]
        view = cards.buttons([cards.link(label, link) for label, link in zip(labels, links, strict=True)])
        when = f"<t:{int(time.time() + LINK_S)}:t>"
        await tell(interaction, say("Paint over what is to be repainted. Each link works once, until {when}.", when=when), view=view)


async def setup(bot: Reverie) -> None:
    """Add the feature to the bot."""
    cog = Paint(bot)
    await bot.add_cog(cog)
    bot.tree.add_command(cog.menu)
