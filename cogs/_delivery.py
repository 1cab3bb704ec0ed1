"""Getting progress and results to people, come what may: tokens expire, channels close, messages vanish, processes die."""

import asyncio
import datetime
import io
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol

import aiohttp
import discord

from cogs import _cards as cards
from cogs._replies import sentence
from engine import pictures
from engine.errors import Broken, EngineError
from engine.jobs import Job, Painting, State
from engine.worker import aside

log = logging.getLogger(__name__)

UPLOAD_LIMIT = 10 * 1024 * 1024
"""Bytes of a file that Discord takes everywhere, whatever boosts a server has."""
SMALLER_LIMIT = UPLOAD_LIMIT // 4
"""Tried once where Discord finds a file too large all the same."""
TOO_LARGE = 40005
UNKNOWN_MESSAGE = 10008
PATIENCE_S = (2, 5, 15, 45, 120, 240)
"""Waits between tries while Discord is not there."""
CLOSED = (401, 403, 404)
"""Answers of a way that will not open by trying again: a dead token, no permission, nothing there any more."""
ETA_SLACK_S = 10
"""An estimate that moved by less is left as it stands."""
LOOK_BACK = 50
"""Messages searched for a result that may have been posted just before a crash."""
ON_THE_WAY = (State.WAITING, State.PAINTING)


class Jobs(Protocol):
    """What delivery needs of the queue."""

    def position(self, job: Job) -> int: ...

    def eta_s(self, job: Job) -> float | None: ...

    async def show(self, job: Job, message_id: int) -> None: ...

    async def delivered(self, job: Job, message_id: int) -> None: ...

    async def failed(self, job: Job, error: EngineError) -> None: ...


class Courier:
    """Follows every unfinished job from its progress message to its result; one task per job, one way for live and for restored ones.

    Acknowledged is promised: a job ends in a posted picture, or in a message that says why not.
    """

    def __init__(self, bot: discord.Client, jobs: Jobs, known_words: Callable[[], Sequence[str] | None], every_s: float) -> None:
        self._bot = bot
        self._jobs = jobs
        self._known_words = known_words
        self._every_s = every_s
        self._tasks: set[asyncio.Task[None]] = set()

    def follow(self, job: Job, *, restored: bool = False) -> None:
        """Take care of a job until it has ended. `restored` jobs may have been posted by the run before."""
        task = asyncio.create_task(self._follow(job, restored), name=f"job {job.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Stop following; what is unfinished is taken up by the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def text(self, job: Job, done_at: int | None = None) -> str:
        """Say how far a job is."""
        return cards.progress(job, self._jobs.position(job), done_at if done_at is not None else self.done_at(job))

    def done_at(self, job: Job) -> int | None:
        """Estimate when a job will be done, in Unix seconds."""
        eta_s = self._jobs.eta_s(job)
        return None if eta_s is None else round(time.time() + eta_s)

    async def _follow(self, job: Job, restored: bool) -> None:
        try:
            if restored and job.message_id is None:
                await self._find_progress(job)
            await self._show_progress(job)
            if job.painting is not None and job.state is State.PAINTED:
                await self._deliver(job, job.painting, restored)
            elif job.error is not None:
                await self._tell(job, sentence(job.error))
        except Exception:
            log.exception("job %d: delivery failed", job.id)

    # Progress.

    async def _find_progress(self, job: Job) -> None:
        """Find the message that acknowledged a job, where the run before ended before it could note its id."""
        webhook = self._webhook(job)
        if webhook is not None:
            with suppress(discord.HTTPException, aiohttp.ClientError):
                # Discord's name for the first answer to an interaction; discord.py passes it on.
                message = await webhook.fetch_message("@original")  # type: ignore[arg-type] # annotated as a number
                await self._jobs.show(job, message.id)

    async def _show_progress(self, job: Job) -> None:
        shown: tuple[str, bytes | None] = (self.text(job), None)
        done_at = self.done_at(job)
        # The message was posted just now, not edited: the first look may come sooner, so that short jobs are seen to move as well.
        wait_s = self._every_s / 3
        async with ended(job) as end:
            while not end.done():
                await asyncio.wait({end}, timeout=wait_s)
                if end.done():
                    return
                wait_s = self._every_s
                estimate = self.done_at(job)
                if estimate is None or done_at is None or abs(estimate - done_at) > ETA_SLACK_S:
                    done_at = estimate
                now = (self.text(job, done_at), job.preview)
                if now != shown:
                    await self._edit(job, now[0], now[1] if now[1] != shown[1] else None)
                    shown = now

    async def _edit(self, job: Job, text: str, preview: bytes | None) -> bool:
        """Edit the progress message, through the interaction while its token lives; tell whether there still is one."""
        if job.message_id is None:
            return False
        changes: dict[str, Any] = {"content": text, "allowed_mentions": discord.AllowedMentions.none()}
        if preview is not None:
            changes["attachments"] = [self._file(preview, f"preview-{job.id}.png", job)]
        for edit in self._ways_to_edit(job, job.message_id):
            try:
                await edit(**changes)
                return True
            except discord.NotFound as error:
                if error.code == UNKNOWN_MESSAGE:
                    # Somebody deleted it; there is nothing left to edit.
                    job.message_id = None
                    return False
            except (discord.HTTPException, aiohttp.ClientError) as error:
                log.info("job %d: its message cannot be edited: %s", job.id, type(error).__name__)
            # A file is read when it is sent; another way needs it from the start.
            for file in changes.get("attachments", ()):
                file.reset()
        return False

    def _ways_to_edit(self, job: Job, message_id: int) -> list[Callable[..., Coroutine[Any, Any, Any]]]:
        ways: list[Callable[..., Coroutine[Any, Any, Any]]] = []
        webhook = self._webhook(job)
        if webhook is not None:
            ways.append(lambda **changes: webhook.edit_message(message_id, **changes))
        ways.append(self._channel(job).get_partial_message(message_id).edit)
        return ways

    def _webhook(self, job: Job) -> discord.Webhook | None:
        """Return the interaction's webhook while its token lives."""
        application_id = self._bot.application_id
        if job.origin.token is None or application_id is None or job.origin.token_expires_at <= time.time():
            return None
        return discord.Webhook.partial(application_id, job.origin.token, client=self._bot)

    def _channel(self, job: Job) -> discord.PartialMessageable:
        return self._bot.get_partial_messageable(job.origin.channel_id, guild_id=job.origin.guild_id)

    def _file(self, data: bytes, name: str, job: Job) -> discord.File:
        return discord.File(io.BytesIO(data), name, spoiler=job.origin.spoiler, description=cards.alt_text(job))

    # Results.

    async def _deliver(self, job: Job, painting: Painting, restored: bool) -> None:
        message_id = await self._posted_before(job) if restored else None
        if message_id is None:
            try:
                message_id = await self._post_patiently(job, painting)
            except discord.DiscordServerError:
                # Not there for minutes: the next start tries again.
                raise
            except discord.HTTPException as refusal:
                error = Broken(f"{job.id}-{refusal.status}-{refusal.code}")
                log.exception("job %d: Discord refuses its result, reference %s", job.id, error.reference)
                await self._give_up(job, error, sentence(error))
                return
        if message_id is None:
            text = "Your pictures are painted, but I may post neither here nor to you directly. Ask a moderator, then try again."
            await self._give_up(job, Broken(f"{job.id}-undeliverable"), text)
            return
        await self._jobs.delivered(job, message_id)
        log.info("job %d: delivered", job.id)
        await self._remove_progress(job)

    async def _give_up(self, job: Job, error: EngineError, text: str) -> None:
        await self._jobs.failed(job, error)
        await self._tell(job, text)

    async def _posted_before(self, job: Job) -> int | None:
        """Find the result of a job in its channel: the run before may have died between posting it and noting so."""
        asked = datetime.datetime.fromtimestamp(job.created_at, datetime.UTC)
        after = discord.Object(discord.utils.time_snowflake(asked))
        with suppress(discord.HTTPException):
            async for message in self._channel(job).history(limit=LOOK_BACK, after=after, oldest_first=False):
                mine = self._bot.user is not None and message.author.id == self._bot.user.id
                if mine and any(f"reverie-{job.id}." in attachment.filename for attachment in message.attachments):
                    return message.id
        return None

    async def _post_patiently(self, job: Job, painting: Painting) -> int | None:
        """Post the result; where Discord is not there at all, wait and try again. None where no way is open."""
        grid = await aside(pictures.grid, [picture.png for picture in painting.pictures])
        for wait_s in (*PATIENCE_S, None):
            try:
                return await self._post(job, painting, grid)
            except (discord.DiscordServerError, aiohttp.ClientError, OSError) as error:
                if wait_s is None:
                    raise
                log.warning("job %d: Discord does not answer (%s), trying again in %d s", job.id, type(error).__name__, wait_s)
                await asyncio.sleep(wait_s)
        return None

    async def _post(self, job: Job, painting: Painting, grid: bytes) -> int | None:
        for limit in (UPLOAD_LIMIT, SMALLER_LIMIT):
            data, ending = await aside(pictures.fit, grid, limit)
            try:
                return await self._post_anywhere(job, painting, data, ending)
            except discord.HTTPException as error:
                if error.status != 413 and error.code != TOO_LARGE:
                    raise
        return None

    async def _post_anywhere(self, job: Job, painting: Painting, data: bytes, ending: str) -> int | None:
        """Try the channel, then the interaction's own answer, then a direct message."""
        for way in (self._post_to_channel, self._post_by_token, self._post_to_user):
            content: dict[str, Any] = {
                "content": f"<@{job.origin.user_id}>",
                "embed": cards.result(job, painting, self._known_words() or ()),
                "file": self._file(data, cards.file_name(job, ending), job),
                "allowed_mentions": discord.AllowedMentions(everyone=False, roles=False, users=[discord.Object(job.origin.user_id)]),
            }
            try:
                message = await way(job, content)
            except discord.HTTPException as error:
                if error.status not in CLOSED:
                    raise
                log.info("job %d: %s is closed: %s", job.id, way.__name__, error)
            else:
                if message is not None:
                    return message.id
        return None

    async def _post_to_channel(self, job: Job, content: dict[str, Any]) -> discord.Message:
        # Discord posts a nonce once only, should this be tried again after a crash or a lost answer.
        return await self._channel(job).send(**content, nonce=f"reverie-{job.id}")

    async def _post_by_token(self, job: Job, content: dict[str, Any]) -> discord.Message | None:
        webhook = self._webhook(job)
        return None if webhook is None else await webhook.send(**content, wait=True)

    async def _post_to_user(self, job: Job, content: dict[str, Any]) -> discord.Message:
        channel = await self._bot.create_dm(discord.Object(job.origin.user_id))
        return await channel.send(**content, nonce=f"reverie-{job.id}")

    async def _remove_progress(self, job: Job) -> None:
        if job.message_id is None:
            return
        webhook = self._webhook(job)
        with suppress(discord.HTTPException, aiohttp.ClientError):
            if webhook is not None:
                await webhook.delete_message(job.message_id)
                return
        with suppress(discord.HTTPException, aiohttp.ClientError):
            await self._channel(job).get_partial_message(job.message_id).delete()

    async def _tell(self, job: Job, text: str) -> None:
        """Say how a job ended where its progress was shown, else in the channel, else to the person."""
        if await self._edit(job, text, None):
            return
        content: dict[str, Any] = {
            "content": f"<@{job.origin.user_id}> {text}",
            "allowed_mentions": discord.AllowedMentions(everyone=False, roles=False, users=[discord.Object(job.origin.user_id)]),
        }
        for way in (self._post_to_channel, self._post_to_user):
            with suppress(discord.HTTPException, aiohttp.ClientError):
                await way(job, content)
                return
        log.warning("job %d: nobody could be told how it ended", job.id)


@asynccontextmanager
async def ended(job: Job) -> AsyncIterator[asyncio.Task[None]]:
    """Give a task that is done as soon as nothing more is to be painted for a job."""

    async def wait() -> None:
        while job.state in ON_THE_WAY:
            await job.change()

    task = asyncio.create_task(wait())
    try:
        yield task
    finally:
        task.cancel()
