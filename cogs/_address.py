"""Where the answers to a job may go: the interaction while its token lives, its channel, the person's direct messages."""

import datetime
import io
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import discord

from cogs._replies import FAILURES, Undeliverable
from engine.jobs import Job

log = logging.getLogger(__name__)

UNKNOWN_MESSAGE = 10008
TOO_LARGE = 40005
CLOSED = (401, 403, 404)
"""Answers of a way that will not open by trying again: a dead token, no permission, nothing there any more."""
LOOK_THROUGH = 1000
"""Messages searched for a result that may have been posted just before a crash: ten requests at most."""
CLOCKS_DIFFER_S = 60.0
"""How far this machine's clock may be ahead of Discord's."""
NOBODY = discord.AllowedMentions.none()

Place = discord.PartialMessageable | discord.DMChannel


@dataclass(frozen=True, slots=True)
class Upload:
    """A file to post. Made into discord.py's anew for every attempt, because a sent one has been read to its end."""

    data: bytes
    name: str
    alt_text: str
    spoiler: bool

    def file(self) -> discord.File:
        """Return it, to be read from its beginning."""
        return discord.File(io.BytesIO(self.data), self.name, spoiler=self.spoiler, description=self.alt_text)


@dataclass(frozen=True, slots=True)
class Post:
    """A message to the person who asked: a result with its files, or a text."""

    text: str
    embed: discord.Embed | None = None
    uploads: tuple[Upload, ...] = ()
    buttons: Callable[[], discord.ui.View] | None = None

    def content(self, user_id: int) -> dict[str, Any]:
        """Return it in discord.py's words. It pings that person and nobody else, and unfolds no link of a prompt."""
        pings = discord.AllowedMentions(everyone=False, roles=False, users=[discord.Object(user_id)], replied_user=False)
        content: dict[str, Any] = {"content": self.text, "allowed_mentions": pings}
        if self.buttons is not None:
            content |= {"view": self.buttons()}
        if self.uploads:
            return content | {"embed": self.embed, "files": [upload.file() for upload in self.uploads]}
        return content | {"suppress_embeds": True}


def passing(error: Exception) -> bool:
    """Tell whether an error may be over in a while: Discord is not there, takes nothing more just now, or waits for a new bot token."""
    return not isinstance(error, discord.HTTPException) or error.status >= 500 or error.status in (401, 429)


def too_large(error: discord.HTTPException) -> bool:
    """Tell whether an upload was larger than the place takes."""
    return error.status == 413 or error.code == TOO_LARGE


class Address:
    """Where one job's progress is shown and where its result is posted."""

    def __init__(self, bot: discord.Client, job: Job) -> None:
        self._bot = bot
        self._job = job
        self._token = job.origin.token
        self._left = False

    def _webhook(self) -> discord.Webhook | None:
        """Return the interaction's webhook while its token lives."""
        application_id = self._bot.application_id
        if self._token is None or application_id is None or self._job.origin.token_expires_at <= time.time():
            return None
        return discord.Webhook.partial(application_id, self._token, client=self._bot)

    def _channel(self) -> discord.PartialMessageable:
        return self._bot.get_partial_messageable(self._job.origin.channel_id, guild_id=self._job.origin.guild_id)

    # The progress message.

    async def find_progress(self) -> int | None:
        """Return the id of the message that acknowledged the job, where it was posted and its id could not be noted."""
        webhook = self._webhook()
        if webhook is not None:
            with suppress(*FAILURES):
                # Discord's name for the first answer to an interaction; discord.py passes it on.
                message = await webhook.fetch_message("@original")  # type: ignore[arg-type] # annotated as a number
                return message.id
        return None

    async def edit(self, text: str, uploads: Sequence[Upload] | None = None, *, ended: bool = False) -> bool:
        """Change the progress message and, unless None, its files; tell whether there still is one that can be changed.

        A job that has `ended` cannot be cancelled any longer.

        Raises:
            discord.HTTPException, aiohttp.ClientError, OSError: Discord is not there; see `passing`.
        """
        if self._job.message_id is None or self._left:
            return False

        def changes() -> dict[str, Any]:
            told = {"content": text, "allowed_mentions": NOBODY} | ({"view": None} if ended else {})
            return told if uploads is None else told | {"attachments": [upload.file() for upload in uploads]}

        webhook = self._webhook()
        if webhook is not None:
            try:
                await webhook.edit_message(self._job.message_id, **changes())
                return True
            except discord.HTTPException as refusal:
                if refusal.code == UNKNOWN_MESSAGE:
                    return self._leave(refusal)
                if refusal.status != 401 and passing(refusal):
                    raise
                self._token = None
        if self._job.origin.is_foreign:
            return False
        try:
            await self._channel().get_partial_message(self._job.message_id).edit(**changes())
        except discord.HTTPException as refusal:
            if passing(refusal):
                raise
            return self._leave(refusal)
        return True

    def _leave(self, refusal: discord.HTTPException) -> bool:
        """Leave the progress message alone from now on: Discord bans machines that it has to refuse thousands of times."""
        log.info("job %d: its progress is shown no longer: %s", self._job.id, refusal)
        self._left = True
        return False

    async def remove_progress(self) -> None:
        """Delete the progress message, if it is there."""
        if self._job.message_id is None:
            return
        webhook = self._webhook()
        with suppress(*FAILURES):
            if webhook is not None:
                await webhook.delete_message(self._job.message_id)
                return
        if self._job.origin.is_foreign:
            return
        with suppress(*FAILURES):
            await self._channel().get_partial_message(self._job.message_id).delete()

    # New messages.

    async def post(self, post: Post, look_first: bool) -> int:
        """Post a message to the channel, else as an answer to the interaction, else to the person; return its id.

        With `look_first`, a result that an earlier attempt may have left is looked for before, and taken for the posted one.

        Raises:
            Undeliverable: every way is closed.
            discord.HTTPException, aiohttp.ClientError, OSError: Discord is not there, or refuses this very message; see `passing`, `too_large`.
        """
        refused: discord.HTTPException | None = None
        ways: tuple[Callable[[Post, bool], Awaitable[int | None]], ...] = (self._post_to_channel, self._post_by_token, self._post_to_person)
        for way in ways:
            try:
                message_id = await way(post, look_first)
            except discord.HTTPException as refusal:
                if passing(refusal) or too_large(refusal):
                    raise
                log.info("job %d: refused by %s: %s", self._job.id, way.__name__, refusal)
                if refusal.status not in CLOSED:
                    refused = refusal
            else:
                if message_id is not None:
                    return message_id
        raise refused or Undeliverable(self._job.id)

    async def _post_to_channel(self, post: Post, look_first: bool) -> int | None:
        """Post where it was asked for; None in a place that the bot itself is not in."""
        return None if self._job.origin.is_foreign else await self._post_in(self._channel(), post, look_first)

    async def _post_to_person(self, post: Post, look_first: bool) -> int:
        return await self._post_in(await self._bot.create_dm(discord.Object(self._job.origin.user_id)), post, look_first)

    async def _post_in(self, place: Place, post: Post, look_first: bool) -> int:
        if look_first and post.uploads and (found := await self._posted_before(place)):
            return found
        # Within some minutes Discord posts a nonce once only, should an answer have been lost on its way.
        message = await place.send(**post.content(self._job.origin.user_id), **self._reference(place), nonce=f"reverie-{self._job.id}")
        return message.id

    def _reference(self, place: Place) -> dict[str, Any]:
        """Let a job that was asked for by a message be answered as a reply to it, where it still stands."""
        origin = self._job.origin
        if origin.asked_in is None or origin.token is not None or place.id != origin.channel_id:
            return {}
        return {"reference": discord.MessageReference(message_id=origin.asked_in, channel_id=origin.channel_id, fail_if_not_exists=False)}

    async def _post_by_token(self, post: Post, look_first: bool) -> int | None:
        """Answer the interaction once more; None where its token is dead."""
        webhook = self._webhook()
        if webhook is None:
            return None
        try:
            message = await webhook.send(**post.content(self._job.origin.user_id), wait=True)
        except discord.HTTPException as refusal:
            if refusal.status != 401:
                raise
            self._token = None
            return None
        return message.id

    async def _posted_before(self, place: Place) -> int | None:
        """Find the job's result: whoever posted it may have died, or lost Discord's answer, before noting so."""
        asked = datetime.datetime.fromtimestamp(self._job.created_at - CLOCKS_DIFFER_S, datetime.UTC)
        after = discord.Object(self._job.message_id or discord.utils.time_snowflake(asked))
        with suppress(discord.Forbidden, discord.NotFound):
            async for message in place.history(limit=LOOK_THROUGH, after=after):
                mine = self._bot.user is not None and message.author.id == self._bot.user.id
                if mine and any(f"reverie-{self._job.id}." in attachment.filename for attachment in message.attachments):
                    return message.id
        return None
