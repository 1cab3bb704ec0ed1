"""The buttons under a card, the menu *Picture info*, and /show: everything that can be done with what was painted."""

import logging
import re
import secrets
from dataclasses import replace
from typing import Self

import discord
from discord import app_commands
from discord.ext import commands

from cogs import _cards as cards
from cogs._address import NOBODY, Upload
from cogs._answers import answer
from cogs._client import Reverie
from cogs._desk import Desk, file_limit, uploaded_picture
from cogs._forms import Form, open_form, sent, values
from cogs._house import Place
from cogs._language import Language, language_of
from cogs._replies import FAILURES, AlreadyDone, NoPicture, NotYours, Withheld, refuse
from cogs.variations import vary
from engine import pictures, uploads
from engine.gallery import Gallery
from engine.jobs import PROMPT_LIMIT, SEED_LIMIT, Job, Kind, Painting, Request
from engine.worker import aside

log = logging.getLogger(__name__)

ORIGINALS = 9
"""Files beside the grid: Discord takes ten in a message."""
UNTOLD = ("Software", "Description", "tokens")
"""Of a receipt: not how a picture was painted, or nothing that anybody could read."""


class CardButton(discord.ui.DynamicItem[discord.ui.Button[discord.ui.View]], template=cards.BUTTON_ID):
    """Any button of ours, under any message, however old."""

    def __init__(self, item: discord.ui.Button[discord.ui.View], act: cards.Act, number: int, index: int) -> None:
        super().__init__(item)
        self.act, self.number, self.index = act, number, index

    @classmethod
    async def from_custom_id(cls, interaction: discord.Interaction, item: discord.ui.Item, match: re.Match[str], /) -> Self:  # type: ignore[type-arg]
        """Rebuild a button from what its id says."""
        return cls(item, cards.Act(match["act"]), int(match["number"]), int(match["index"]))  # type: ignore[arg-type]

    async def interaction_check(self, interaction: discord.Interaction[Reverie], /) -> bool:  # type: ignore[override]
        """Begin nothing new while the bot stops."""
        return not interaction.client.stopping

    async def callback(self, interaction: discord.Interaction[Reverie]) -> None:  # type: ignore[override]
        """Do what the button says, or say why not."""
        try:
            await interaction.client.presses[self.act](interaction, self.number, self.index)
        except Exception as error:
            await refuse(interaction, error)


class Card(commands.Cog):
    """What can be done with pictures after they were painted."""

    def __init__(self, bot: Reverie) -> None:
        self._desk: Desk = bot.desk
        self._queue = bot.queue
        self._gallery = bot.gallery
        self._bot = bot
        self.menu = app_commands.ContextMenu(name="Picture info", callback=self.info_of_message)
        bot.presses |= {
            cards.Act.ENLARGE: self.enlarge,
            cards.Act.VARY: self.vary,
            cards.Act.AGAIN: self.again,
            cards.Act.EDIT: self.edit,
            cards.Act.INFO: self.info,
            cards.Act.DELETE: self.delete,
            cards.Act.CANCEL: self.cancel,
            cards.Act.SHOW: self.bring,
        }

    # Buttons.

    async def enlarge(self, interaction: discord.Interaction, number: int, index: int) -> None:
        """Post one picture of a grid alone, in its full size."""
        job, place = await self._desk.remembered(number), self._desk.place(interaction)
        await self._desk.painted(job)
        if self._desk.house.looks_at(place.guild_id, place.is_adult):
            # Looking may have to wait for what is being painted, longer than Discord waits for a first answer.
            await interaction.response.defer(thinking=True)
        file, text, view = await single(self._desk, job, index, place, language_of(interaction), file_limit(interaction))
        message_id = await answer(interaction, text, file=file, view=view, allowed_mentions=NOBODY)
        await note_single(self._desk, self._gallery, job, index, interaction.channel_id, message_id)

    async def vary(self, interaction: discord.Interaction, number: int, index: int) -> None:
        """Paint variations of one picture of a grid."""
        await vary(self._desk, interaction, await self._desk.remembered(number), index)

    async def again(self, interaction: discord.Interaction, number: int, index: int) -> None:
        """Paint the same once more, with another seed."""
        job = await self._desk.remembered(number)
        parent = await self._desk.history.parent_of(job)
        await self._desk.accept(interaction, rerolled(job.request), spoiler=job.origin.spoiler, parent=parent, source=job.id)

    async def edit(self, interaction: discord.Interaction, number: int, index: int) -> None:
        """Let the presser write another prompt."""
        job, say = await self._desk.remembered(number), language_of(interaction)
        style = discord.TextStyle.paragraph
        written = discord.ui.TextInput[discord.ui.Modal](
            custom_id="prompt", style=style, default=job.request.prompt[:PROMPT_LIMIT] or None, max_length=PROMPT_LIMIT
        )
        await open_form(interaction, Form.EDIT, number, say("Edit prompt"), discord.ui.Label(text=say("What to paint"), component=written))

    @commands.Cog.listener("on_interaction")
    async def edited(self, interaction: discord.Interaction) -> None:
        """Paint what was written into the form; it may have been opened before a restart."""
        number = sent(interaction, Form.EDIT)
        if number is None:
            return
        try:
            job = await self._desk.remembered(number)
            prompt = str(values(interaction).get("prompt") or "")
            await self._desk.accept(interaction, reworded(job.request, prompt), spoiler=job.origin.spoiler, source=job.id)
        except Exception as error:
            await refuse(interaction, error)

    async def info(self, interaction: discord.Interaction, number: int, index: int) -> None:
        """Tell the presser how to paint this again."""
        job = await self._desk.remembered(number)
        shown = await self._desk.shown(interaction.message) if interaction.message else None
        await self.tell(interaction, job, shown.index if shown else None)

    async def tell(self, interaction: discord.Interaction, job: Job, index: int | None) -> None:
        """Show seed and settings to one person."""
        say = language_of(interaction)
        text = cards.info(job, await self._desk.painted(job), index, say)
        await interaction.response.send_message(text, view=cards.info_buttons(job, index, say), ephemeral=True, allowed_mentions=NOBODY)

    async def delete(self, interaction: discord.Interaction, number: int, index: int) -> None:
        """Delete a result, for the person who asked for it or a moderator."""
        job = await self._desk.remembered(number)
        check_owner(interaction, job)
        await interaction.response.defer()
        # The answer to a button stands for the button's message, which can be deleted like this in every place.
        await interaction.delete_original_response()
        await self._bot.remove(job, interaction.user.id)
        if interaction.user.id != job.origin.user_id:
            say = language_of(interaction)
            text = say("Deleted. {owner} had asked for it.", owner=f"<@{job.origin.user_id}>")
            await interaction.followup.send(text, ephemeral=True, allowed_mentions=NOBODY)

    async def cancel(self, interaction: discord.Interaction, number: int, index: int) -> None:
        """Call off a job that waits or is being painted."""
        job = self._queue.find(number)
        if job is None:
            raise AlreadyDone
        check_owner(interaction, job)
        if not await self._queue.cancel(job):
            raise AlreadyDone
        await interaction.response.defer()

    # What was painted earlier.

    async def info_of_message(self, interaction: discord.Interaction, message: discord.Message) -> None:
        """Tell how the picture in a message was painted: one of ours, or any file that still carries our receipt."""
        if (shown := await self._desk.shown(message)) is not None:
            await self.tell(interaction, shown.job, shown.index)
            return
        attachment = uploaded_picture(message.attachments)
        await interaction.response.defer(ephemeral=True, thinking=True)
        receipt = await self._desk.decoded(uploads.receipt_of, await self._desk.read(attachment))
        if "Software" not in receipt:
            raise NoPicture
        facts = "\n".join(f"{key}: {value}" for key, value in receipt.items() if key not in UNTOLD)
        await interaction.edit_original_response(content=f"```\n{cards.shorten(facts.replace('`', chr(39)), cards.CONTENT_LIMIT - 20)}\n```")

    @app_commands.command()
    @app_commands.describe(number="The number on the card, without #")
    async def show(self, interaction: discord.Interaction, number: app_commands.Range[int, 1, 2**53 - 1]) -> None:
        """Bring an earlier result, with every picture as it was painted."""
        await self.bring(interaction, number, 0)

    async def bring(self, interaction: discord.Interaction, number: int, index: int) -> None:
        """Bring an earlier result to whoever asks for it."""
        # Nobody is told of what others asked for where one cannot read.
        job = await self._desk.visible(interaction, number)
        say, painting = language_of(interaction), await self._desk.painted(job)
        await interaction.response.defer(ephemeral=True, thinking=True)
        limit, spoiler = file_limit(interaction), await is_hidden(self._desk, job, painting, self._desk.place(interaction))
        files = []
        for index, picture in enumerate(painting.pictures[:ORIGINALS]):
            data, ending = await aside(pictures.fit, picture.png, limit // max(len(painting.pictures), 1))
            files.append(Upload(data, f"{job.id}-{index + 1}.{ending}", cards.alt_text(job.request, say, 1), spoiler).file())
        embed = cards.result(job, painting, self._desk.model.known_words or (), say)
        view = cards.card_buttons(job, painting, self._desk.model.kinds_of(job.request.model), say)
        await interaction.edit_original_response(embed=embed, attachments=files, view=view)
        await self._desk.history.collected(job)

    @commands.Cog.listener("on_app_command_completion")
    async def remind(self, interaction: discord.Interaction, command: object) -> None:
        """Tell a person of results that could be posted nowhere, once, at the next occasion."""
        numbers = await self._desk.history.untold(interaction.user.id)
        if not numbers or command is self.show or not interaction.response.is_done():
            return
        listed = ", ".join(f"`/show {number}`" for number in numbers[:20])
        say = language_of(interaction)
        try:
            await interaction.followup.send(say("Painted, and kept for you: {numbers}", numbers=listed), ephemeral=True)
            await self._desk.history.told(numbers)
        except FAILURES as error:
            log.info("a person could not be told of what is kept: %s", error)


async def is_hidden(desk: Desk, job: Job, painting: Painting, place: Place) -> bool:
    """Look at pictures once more that are brought to a place, which may have got other rules, and tell whether they go under a spoiler there.

    Raises:
        Withheld: they must not be posted there.
    """
    verdict = await desk.house.judge(painting, place.guild_id, place.is_adult)
    if verdict.withhold:
        raise Withheld(verdict.concepts)
    return job.origin.spoiler or verdict.spoiler


async def single(desk: Desk, job: Job, index: int, place: Place, say: Language, limit_bytes: int) -> tuple[discord.File, str, discord.ui.View]:
    """Return one picture of a job as a file, with a text and buttons.

    Raises:
        Forgotten: there is no such picture.
        Withheld: it must not be posted there.
    """
    alone = await desk.painted_alone(job, index)
    [picture] = alone.pictures
    spoiler = await is_hidden(desk, job, alone, place)
    data, ending = await aside(pictures.fit, picture.png, limit_bytes)
    upload = Upload(data, f"{job.id}-{index + 1}.{ending}", cards.alt_text(job.request, say, 1), spoiler)
    text = say(
        "**{what}** · picture {index} of {count} · seed {seed}",
        what=cards.title(job.request, say),
        index=index + 1,
        count=job.request.count,
        seed=picture.seed,
    )
    return upload.file(), text, cards.single_buttons(job, index, desk.model.kinds_of(job.request.model), say)


async def note_single(desk: Desk, gallery: Gallery, job: Job, index: int, channel_id: int | None, message_id: int | None) -> None:
    """Remember that a message shows one picture of a job alone: stars on it are for that picture, and it goes when the result goes."""
    picture = await desk.history.picture_id(job, index)
    if message_id is not None and picture is not None:
        await gallery.shown(message_id, channel_id or 0, picture)


def rerolled(request: Request) -> Request:
    """Return the same request with another seed."""
    return replace(request, seed=secrets.randbelow(SEED_LIMIT))


def reworded(request: Request, prompt: str) -> Request:
    """Return a request with another prompt and seed; what was made of pictures becomes a dream, for these know nothing of the words."""
    if request.kind not in (Kind.DREAM, Kind.INPAINT, Kind.EDIT):
        request = request.turned_into(Kind.DREAM, prompt=prompt)
    return replace(rerolled(request), prompt=prompt, prior_seed=None)


def check_owner(interaction: discord.Interaction, job: Job) -> None:
    """Make sure that somebody may decide over a job: who asked for it, or a moderator of the place.

    Raises:
        NotYours: they may not.
    """
    if interaction.user.id != job.origin.user_id and not (interaction.guild_id is not None and interaction.permissions.manage_messages):
        raise NotYours(job.origin.user_id)


async def setup(bot: Reverie) -> None:
    """Add the feature to the bot."""
    cog = Card(bot)
    bot.add_dynamic_items(CardButton)
    await bot.add_cog(cog)
    bot.tree.add_command(cog.menu)
