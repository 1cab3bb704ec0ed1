"""Where requests are taken in, whatever they come from: checked, put on disk, acknowledged, followed to their end."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import discord

from cogs import _cards as cards
from cogs._answers import answer
from cogs._delivery import Courier, Model
from cogs._house import House, Place, place_of, place_of_message
from cogs._language import language
from cogs._replies import FAILURES, CannotDo, Forgotten, NoPicture, PermissionsMissing
from cogs._sight import is_age_restricted, is_foreign, may_see
from engine import uploads
from engine.errors import InvalidRequest, Repeated
from engine.history import GONE, History
from engine.jobs import UPLOAD_LIMIT, Job, Kind, Origin, Painting, Request
from engine.preferences import Defaults
from engine.worker import aside

log = logging.getLogger(__name__)

T = TypeVar("T")

TOKEN_MARGIN_S = 30.0
"""An interaction's token is not used in its last seconds: an upload may take longer."""
DOWNLOAD_S = 30.0
REQUEST_LIMIT = 24 * 2**20
"""Bytes of a file where a server's boosts allow much: Discord takes 25 MiB in one request, whatever the server."""
DECODING = 2
"""Pictures that are decoded at once: each may take hundreds of megabytes for a moment."""

Acknowledge = Callable[[str, discord.ui.View], Awaitable[int | None]]
"""Post the first progress message, and return its id where it is known."""


class Jobs(Protocol):
    """What taking requests in needs of the queue."""

    async def submit(self, request: Request, origin: Origin, parent: int | None = None, source: int | None = None) -> Job: ...

    async def show(self, job: Job, message_id: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Shown:
    """A job, and which of its pictures a message shows alone; None where it shows the grid."""

    job: Job
    index: int | None


class Desk:
    """Takes requests in. They are checked before anything is queued, and on disk before they are acknowledged."""

    def __init__(self, bot: discord.Client, jobs: Jobs, history: History, courier: Courier, model: Model, house: House) -> None:
        self._bot = bot
        self.jobs = jobs
        self.history = history
        self.courier = courier
        self.model = model
        self.house = house
        self._decoding = asyncio.Semaphore(DECODING)

    def place(self, interaction: discord.Interaction) -> Place:
        """Return who uses a command or a button, and where."""
        return place_of(interaction)

    def locale(self, interaction: discord.Interaction) -> str:
        """Return one of Discord's locales, to answer in."""
        return self.house.locale(self.place(interaction), str(interaction.locale))

    def defaults(self, interaction: discord.Interaction) -> Defaults:
        """Return what a request is here that says nothing else."""
        return self.house.defaults(self.place(interaction))

    async def accept(
        self,
        interaction: discord.Interaction,
        request: Request,
        *,
        spoiler: bool = False,
        parent: int | None = None,
        source: int | None = None,
    ) -> None:
        """Take in a request that came by a command, a button or a form, and answer it. For `parent` and `source` see `History.add`.

        Raises:
            Refused: it cannot be served, or not here.
        """

        async def acknowledge(text: str, view: discord.ui.View) -> int | None:
            if interaction.response.type is discord.InteractionResponseType.deferred_channel_message:
                message = await interaction.edit_original_response(content=text, view=view)
                return message.id
            return await answer(interaction, text, view=view)

        check_place(interaction)
        place, locale = self.place(interaction), self.locale(interaction)
        request, notes = await self.house.admit(place, request, language(locale))
        origin = replace(origin_of(interaction, spoiler), locale=locale, notes=notes)
        await self._take(request, origin, parent, source, acknowledge)

    def check(self, interaction: discord.Interaction, kind: Kind, model: str | None = None) -> None:
        """Make sure that a result can be painted, by a model or else by the one that is usual here, and posted, before anybody chooses anything.

        Raises:
            Refused: it cannot.
        """
        check_place(interaction)
        if model is None:
            model = self.defaults(interaction).model
        if kind not in self.model.kinds_of(model):
            raise CannotDo(model or self.model.name)

    async def accept_link(self, origin: Origin, place: Place, request: Request, parent: int | None) -> None:
        """Take in a request that somebody made in the studio, by a link that was shown in a place of Discord, and answer it there.

        `origin` is that of the interaction that asked for the link, with its token only where nothing else can answer.

        Raises:
            Refused: it cannot be served, or not there.
        """

        async def acknowledge(text: str, view: discord.ui.View) -> int | None:
            if not origin.is_foreign:
                there = self._bot.get_partial_messageable(origin.channel_id, guild_id=origin.guild_id)
                return (await there.send(text, view=view, suppress_embeds=True)).id
            if origin.token is None or self._bot.application_id is None or origin.token_expires_at <= time.time():
                return None
            webhook = discord.Webhook.partial(self._bot.application_id, origin.token, client=self._bot)
            return (await webhook.send(text, view=view, suppress_embeds=True, wait=True)).id

        if not origin.is_foreign:
            channel = self._bot.get_channel(origin.channel_id)
            if isinstance(channel, (discord.abc.GuildChannel, discord.Thread)):
                granted = channel.permissions_for(channel.guild.me)
                check_permissions(granted, in_thread=isinstance(channel, discord.Thread))
                is_adult = is_age_restricted(channel)
                # What is a reply must be able to see what it replies to.
                asked_in = origin.asked_in if granted.read_message_history else None
                origin, place = replace(origin, is_adult=is_adult, asked_in=asked_in), replace(place, is_adult=is_adult)
        request, notes = await self.house.admit(place, request, language(origin.locale))
        await self._take(request, replace(origin, notes=notes), parent, None, acknowledge)

    async def accept_message(
        self, message: discord.Message, request: Request, *, spoiler: bool = False, parent: int | None = None, source: int | None = None
    ) -> None:
        """Take in a request that somebody made by writing a message, and answer with a reply. For `parent` and `source` see `History.add`.

        Raises:
            Refused: it cannot be served, or not here.
        """

        async def acknowledge(text: str, view: discord.ui.View) -> int | None:
            return (await message.reply(text, view=view, mention_author=False, suppress_embeds=True)).id

        if message.guild is not None:
            granted = message.channel.permissions_for(message.guild.me)
            # What is a reply must be able to see what it replies to.
            check_permissions(granted, "read_message_history", in_thread=isinstance(message.channel, discord.Thread))
        place, locale = place_of_message(message), self.locale_of_message(message)
        request, notes = await self.house.admit(place, request, language(locale))
        await self._take(request, replace(origin_of_message(message, spoiler), locale=locale, notes=notes), parent, source, acknowledge)

    def defaults_of_message(self, message: discord.Message) -> Defaults:
        """Return what a request is that a message makes and that says nothing else."""
        return self.house.defaults(place_of_message(message))

    def locale_of_message(self, message: discord.Message) -> str:
        """Return one of Discord's locales, to answer a message in: Discord does not tell the writer's."""
        return self.house.locale(place_of_message(message), str(message.guild.preferred_locale) if message.guild else "en-US")

    async def _take(self, request: Request, origin: Origin, parent: int | None, source: int | None, acknowledge: Acknowledge) -> None:
        if request.kind not in self.model.kinds_of(request.model) or (request.seamless and not self.model.can_be_seamless(request.model)):
            raise CannotDo(request.model or self.model.name)
        if GONE in request.files:
            raise Forgotten
        try:
            job = await self.jobs.submit(request, origin, parent, source)
        except Repeated:
            log.info("an event that Discord told of twice is left alone")
            return
        try:
            message_id = await acknowledge(self.courier.text(job), cards.cancel_button(job, language(origin.locale)))
            if message_id is not None:
                await self.jobs.show(job, message_id)
        except FAILURES as error:
            # Too late, or Discord is not there: the job is accepted all the same and its result is posted.
            log.warning("job %d: could not be acknowledged: %s", job.id, error)
        finally:
            self.courier.follow(job)

    # Pictures that come in.

    async def read(self, attachment: discord.Attachment) -> bytes:
        """Fetch a file that somebody uploaded.

        Raises:
            InvalidRequest: it is too large, or Discord no longer has it.
        """
        if attachment.size > uploads.LIMIT_BYTES:
            most, have = uploads.LIMIT_BYTES // 2**20, attachment.size / 2**20
            raise InvalidRequest("picture", "be at most {most} MB large; this one has {have:.0f}", most=most, have=have)
        try:
            async with asyncio.timeout(DOWNLOAD_S):
                return await attachment.read()
        except (*FAILURES, TimeoutError) as error:
            log.info("a picture cannot be fetched: %s", error)
            raise InvalidRequest("picture", "still be there; Discord doesn't give me this file") from None

    async def decoded(self, function: Callable[..., T], *args: object) -> T:
        """Run something that decodes pictures beside the loop, only so many at once.

        Raises:
            InvalidRequest: a picture cannot be used.
        """
        async with self._decoding:
            return await aside(function, *args)

    async def picture(self, attachment: discord.Attachment) -> bytes:
        """Fetch a picture that somebody uploaded, as PNG of a size that is worked on.

        Raises:
            InvalidRequest: it is no picture, too large, or damaged.
        """
        return await self.decoded(uploads.take_in, await self.read(attachment))

    # Jobs of the past.

    async def remembered(self, number: int) -> Job:
        """Return a job that was asked for at any time.

        Raises:
            Forgotten: there is none of this number.
        """
        job = await self.history.find(number)
        if job is None:
            raise Forgotten
        return job

    async def visible(self, interaction: discord.Interaction, number: int) -> Job:
        """Return a job of any time whose result may be shown to whoever asks.

        Raises:
            Forgotten: there is none of this number that they may see; which of the two it is, they are not told.
        """
        job = await self.remembered(number)
        if not may_see(interaction, job):
            raise Forgotten
        return job

    async def shown(self, message: discord.Message) -> Shown | None:
        """Return what a message of ours shows, None for every other message."""
        if self._bot.user is None or message.author.id != self._bot.user.id:
            return None
        items = [item for row in message.components for item in getattr(row, "children", ())]
        found = [found for item in items if (found := cards.button_of(item)) and found["act"] in cards.OF_JOBS]
        job = await self.history.find(int(found[0]["number"])) if found else None
        if job is None:
            return None
        is_grid = any(match["act"] == cards.Act.DELETE for match in found) and job.request.count > 1
        return Shown(job, None if is_grid else int(found[0]["index"]))

    async def painted(self, job: Job) -> Painting:
        """Return what a job came to.

        Raises:
            Forgotten: it came to nothing, or its pictures are gone.
        """
        painting = await self.history.painting_of(job)
        if painting is None:
            raise Forgotten
        return painting

    async def painted_alone(self, job: Job, index: int) -> Painting:
        """Return what a job came to, with one of its pictures alone.

        Raises:
            Forgotten: there is no such picture, or it is gone.
        """
        alone = (await self.painted(job)).only(index)
        if alone is None:
            raise Forgotten
        return alone


def uploaded_picture(attachments: Sequence[discord.Attachment]) -> discord.Attachment:
    """Return the first picture among files.

    Raises:
        NoPicture: there is none.
    """
    for attachment in attachments:
        if (attachment.content_type or "").startswith("image/") or attachment.filename.lower().endswith((".png", ".jpg", ".jpeg", ".webp")):
            return attachment
    raise NoPicture


def check_place(interaction: discord.Interaction) -> None:
    """Make sure that the result can be posted where it was asked for, before anything is painted.

    Raises:
        PermissionsMissing: the bot may not post pictures here.
    """
    # In direct messages nobody can take a permission away, and Discord names only some of them; elsewhere only the interaction answers.
    if interaction.guild_id is not None and not is_foreign(interaction):
        check_permissions(interaction.app_permissions, in_thread=isinstance(interaction.channel, discord.Thread))


def check_permissions(granted: discord.Permissions, *more: str, in_thread: bool) -> None:
    """Make sure that the bot may post pictures, and `more`.

    Raises:
        PermissionsMissing: it may not.
    """
    needed = ("view_channel", "send_messages_in_threads" if in_thread else "send_messages", "embed_links", "attach_files", *more)
    missing = [name for name in needed if not getattr(granted, name)]
    if missing:
        raise PermissionsMissing(missing)


def origin_of(interaction: discord.Interaction, spoiler: bool) -> Origin:
    """Note who asked by an interaction, and where the answer goes."""
    assert interaction.channel_id is not None, "commands, buttons and forms come from channels"
    return Origin(
        user_id=interaction.user.id,
        channel_id=interaction.channel_id,
        guild_id=interaction.guild_id,
        token=interaction.token,
        token_expires_at=interaction.expires_at.timestamp() - TOKEN_MARGIN_S,
        spoiler=spoiler,
        event_id=interaction.id,
        file_limit=file_limit(interaction),
        is_foreign=is_foreign(interaction),
        asked_in=pointed_at(interaction),
        is_adult=is_age_restricted(interaction.channel),
    )


def file_limit(interaction: discord.Interaction) -> int:
    """Return how many bytes a file may have in the place where an interaction is answered."""
    limits = [interaction.filesize_limit, REQUEST_LIMIT]
    if interaction.guild is not None and not is_foreign(interaction):
        # What Discord says of the place has been wrong by much; the server's boosts are not.
        limits.append(interaction.guild.filesize_limit)
    return min(limits)


def pointed_at(interaction: discord.Interaction) -> int | None:
    """Return the message that a request came from: the card whose button was pressed, or the message whose menu was opened."""
    if interaction.message is not None and not interaction.message.flags.ephemeral:
        return interaction.message.id
    data: Any = interaction.data or {}
    target = data.get("target_id")
    return int(str(target)) if target is not None else None


def origin_of_message(message: discord.Message, spoiler: bool) -> Origin:
    """Note who asked by a message, and where the answer goes."""
    guild = message.guild
    return Origin(
        user_id=message.author.id,
        channel_id=message.channel.id,
        guild_id=guild.id if guild else None,
        spoiler=spoiler,
        event_id=message.id,
        file_limit=min(guild.filesize_limit, REQUEST_LIMIT) if guild else UPLOAD_LIMIT,
        asked_in=message.id,
        is_adult=is_age_restricted(message.channel),
    )
