"""Getting progress and results to people, come what may: tokens expire, channels close, messages vanish, processes die."""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Protocol, TypeVar

import discord

from cogs import _cards as cards
from cogs._address import Address, Post, Upload, passing, too_large
from cogs._house import Verdict
from cogs._language import language
from cogs._replies import FAILURES, Undeliverable, Withheld, sentence
from engine import pictures
from engine.errors import Broken, EngineError
from engine.jobs import Job, Kind, Painting, Request, State
from engine.worker import aside

log = logging.getLogger(__name__)

T = TypeVar("T")

PATIENCE_S = (2, 5, 15, 45, 120, *(300,) * 288)
"""Waits between tries while Discord is not there: a day in all."""
ETA_SLACK_S = 10
"""An estimate that moved by less is left as it stands."""
NEAR, SELDOM = 5, 30
"""Whoever is not among the next few hears of it less often, the tenth half as often as the fifth, and at the latest after so many times as long:
a thousand who wait must not keep Discord busy."""
GRACE_S = 5.0
"""How long a stop waits for those who are just being told how their job ended."""
ON_THE_WAY = (State.WAITING, State.PAINTING)


class Jobs(Protocol):
    """What delivery needs of the queue."""

    def position(self, job: Job) -> int: ...

    def eta_s(self, job: Job) -> float | None: ...

    async def show(self, job: Job, message_id: int) -> None: ...

    async def delivered(self, job: Job, message_id: int) -> None: ...

    async def kept(self, job: Job) -> None: ...

    async def failed(self, job: Job, error: EngineError) -> None: ...


class Judge(Protocol):
    """What delivery needs of the rules of a place."""

    def previews(self, job: Job) -> bool: ...

    async def judge(self, painting: Painting, guild_id: int | None, is_adult: bool) -> Verdict: ...


class Memory(Protocol):
    """What delivery needs of the history."""

    async def hidden(self, job: Job) -> None: ...

    async def withheld(self, job: Job) -> None: ...


class Model(Protocol):
    """What people are to know of the model. While it is being loaded, its words are None, and it may be able to do anything."""

    @property
    def name(self) -> str: ...

    @property
    def known_words(self) -> Sequence[str] | None: ...

    @property
    def kinds(self) -> frozenset[Kind]: ...

    def kinds_of(self, model: str) -> frozenset[Kind]: ...

    def can_be_seamless(self, model: str) -> bool: ...


class Courier:
    """Follows every unfinished job from its progress message to its result; one task per job, one way for live and for restored ones.

    Acknowledged is promised: a job ends in a posted picture, or in a message that says why not.
    """

    def __init__(self, bot: discord.Client, jobs: Jobs, model: Model, house: Judge, memory: Memory, every_s: float) -> None:
        self._bot = bot
        self.jobs = jobs
        self.model = model
        self.house = house
        self.memory = memory
        self.every_s = every_s
        self._tasks: dict[asyncio.Task[None], Errand] = {}
        self.followers: list[Callable[[Job], Awaitable[None]]] = []
        """Told of every job that was delivered."""

    def follow(self, job: Job, *, restored: bool = False) -> None:
        """Take care of a job until it has ended. `restored` jobs may have been posted by the run before."""
        errand = Errand(self, Address(self._bot, job), job, restored)
        task = asyncio.create_task(errand.run(), name=f"job {job.id}")
        self._tasks[task] = errand
        task.add_done_callback(self._ended)

    async def tell_followers(self, job: Job) -> None:
        """Tell whoever wants to know that a job was delivered; what goes wrong with that is no fault of the job's."""
        for follower in self.followers:
            try:
                await follower(job)
            except Exception:
                log.exception("job %d: a follower failed", job.id)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        if not task.cancelled() and (error := task.exception()):
            log.error("%s: its end could not be noted, so the next start looks at it again", task.get_name(), exc_info=error)

    async def close(self) -> None:
        """Stop following; what is unfinished is taken up by the next start."""
        ending = [task for task, errand in self._tasks.items() if errand.ending]
        if ending:
            await asyncio.wait(ending, timeout=GRACE_S)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def text(self, job: Job) -> str:
        """Say how far a job is."""
        return cards.progress(job, self.jobs.position(job), done_at(self.jobs, job), language(job.origin.locale))


def shown(request: Request, painting: Painting) -> tuple[bytes, dict[str, bytes]]:
    """Return a picture of all that a request came to, as PNG, and what moves, by the endings of its files."""
    files = [picture.png for picture in painting.pictures]
    match request.kind:
        case Kind.MORPH:
            return pictures.strip(files), {"gif": pictures.gif(files), "mp4": pictures.film(files)}
        case Kind.DRAWS:
            return pictures.bars([(str(number), draw.score) for number, draw in enumerate(painting.draws, start=1)]), {}
        case Kind.VERIFY:
            return pictures.comparison(request.image or b"", files[0] if files else None), {}
        case _:
            return pictures.grid(files), {}


def done_at(jobs: Jobs, job: Job) -> int | None:
    """Estimate when a job will be done, in Unix seconds; None where nothing is known, or the estimate is used up."""
    eta_s = jobs.eta_s(job)
    return round(time.time() + eta_s) if eta_s else None


class Errand:
    """One job on its way to the person who asked for it. `ending` tells that nothing more is painted and only the result is told."""

    def __init__(self, courier: Courier, address: Address, job: Job, restored: bool) -> None:
        self._courier = courier
        self._address = address
        self._jobs = courier.jobs
        self._job = job
        self._model = courier.model
        self._every_s = courier.every_s
        self._restored = restored
        self._say = language(job.origin.locale)
        self.ending = False

    async def run(self) -> None:
        """Show progress until the job is painted or has failed; then deliver it, or tell why not."""
        job = self._job
        if job.message_id is None and (message_id := await self._address.find_progress()):
            await self._jobs.show(job, message_id)
        await self._show_progress()
        self.ending = True
        if job.painting is not None and job.state is State.PAINTED:
            await self._deliver(job.painting)
        elif job.error is not None:
            await self._tell(job.error)

    # Progress.

    async def _show_progress(self) -> None:
        job = self._job
        estimate = done_at(self._jobs, job)
        # What the run before showed last is not known, and is out of date.
        shown: tuple[str | None, bytes | None] = (None if self._restored else self._text(estimate), None)
        # The message was posted just now, not edited: the first look may come sooner, so that short jobs are seen to move as well.
        wait_s = self._every_s / 3
        async with ended(job) as end:
            while not end.done():
                await asyncio.wait({end}, timeout=wait_s)
                if end.done():
                    return
                wait_s = self._every_s * min(max(self._jobs.position(job) // NEAR, 1), SELDOM)
                latest = done_at(self._jobs, job)
                if latest is None or estimate is None or abs(latest - estimate) > ETA_SLACK_S:
                    estimate = latest
                now = (self._text(estimate), job.preview)
                if now != shown:
                    await self._show(*now, new_preview=now[1] != shown[1] or shown[0] is None)
                    shown = now

    def _text(self, estimate: int | None) -> str:
        return cards.progress(self._job, self._jobs.position(self._job), estimate, self._say)

    async def _show(self, text: str, preview: bytes | None, new_preview: bool) -> None:
        shown = preview if self._courier.house.previews(self._job) else None
        uploads = [self._upload(shown, f"preview-{self._job.id}.png")] if shown else []
        try:
            await self._address.edit(text, uploads if new_preview else None)
        except FAILURES as error:
            log.info("job %d: its progress cannot be shown: %s", self._job.id, error)

    def _upload(self, data: bytes, name: str) -> Upload:
        return Upload(data, name, cards.alt_text(self._job.request, self._say), self._job.origin.spoiler)

    # The end.

    async def _deliver(self, painting: Painting) -> None:
        try:
            await self._look_at(painting)
            message_id = await self._post_result(painting)
        except Withheld as verdict:
            log.info("job %d: withheld", self._job.id)
            await self._courier.memory.withheld(self._job)
            await self._jobs.failed(self._job, verdict)
            await self._tell(verdict)
        except (Undeliverable, discord.HTTPException) as refusal:
            log.warning("job %d: no place takes its result, it is kept: %s", self._job.id, refusal)
            await self._jobs.kept(self._job)
            await self._tell(Undeliverable(self._job.id))
        except Exception as error:
            # Whatever it is, nobody is to wait for ever.
            await self._give_up(Broken(f"{self._job.id}-{secrets.token_hex(2)}"), error)
        else:
            await self._jobs.delivered(self._job, message_id)
            log.info("job %d: delivered", self._job.id)
            await self._address.remove_progress()
            await self._courier.tell_followers(self._job)

    async def _look_at(self, painting: Painting) -> None:
        """Put pictures under a spoiler where their place wants that.

        Raises:
            Withheld: they must not be posted there.
        """
        origin = self._job.origin
        verdict = await self._courier.house.judge(painting, origin.guild_id, origin.is_adult)
        if verdict.withhold:
            raise Withheld(verdict.concepts)
        if verdict.spoiler and not origin.spoiler:
            note = self._say("Under a spoiler by the rules of this server.")
            self._job.origin = replace(origin, spoiler=True, notes=(*origin.notes, note))
            await self._courier.memory.hidden(self._job)

    async def _give_up(self, error: Broken, cause: Exception) -> None:
        log.error("job %d: its result cannot be posted: %s", self._job.id, error, exc_info=cause)
        await self._jobs.failed(self._job, error)
        await self._tell(error)

    async def _post_result(self, painting: Painting) -> int:
        sheet, films = await aside(shown, self._job.request, painting)
        try:
            return await self._post_sheet(painting, sheet, films, self._job.origin.file_limit)
        except discord.HTTPException as refusal:
            if not too_large(refusal):
                raise
            log.info("job %d: its grid of %d bytes is too large for its place", self._job.id, len(sheet))
            return await self._post_sheet(painting, sheet, {}, min(len(sheet), self._job.origin.file_limit) // 4)

    async def _post_sheet(self, painting: Painting, sheet: bytes, films: Mapping[str, bytes], limit_bytes: int) -> int:
        # What moves cannot be made smaller: where there is no room for all, it stays away.
        films = films if sum(map(len, films.values())) <= limit_bytes // 2 else {}
        data, ending = await aside(pictures.fit, sheet, limit_bytes - sum(map(len, films.values())))
        job = self._job
        files = [*films.items(), (ending, data)]
        post = Post(
            cards.headline(job, time.time() - job.created_at, self._say),
            cards.result(job, painting, self._model.known_words or (), self._say),
            tuple(self._upload(data, cards.file_name(job, ending)) for ending, data in files),
            lambda: cards.card_buttons(job, painting, self._model.kinds_of(job.request.model), self._say),
        )
        return await self._patiently(lambda again: self._address.post(post, look_first=self._restored or again))

    async def _tell(self, error: EngineError) -> None:
        """Say why there is no result, where progress was shown, else in a message."""
        text = cards.ending(self._job, sentence(error, self._say), self._say)

        async def tell(again: bool) -> None:
            if not await self._address.edit(text, [], ended=True):
                await self._address.post(Post(f"<@{self._job.origin.user_id}> {text}"), look_first=again)

        try:
            await self._patiently(tell)
        except (Undeliverable, discord.HTTPException) as refusal:
            log.warning("job %d: nobody could be told how it ended: %s", self._job.id, refusal)

    async def _patiently(self, attempt: Callable[[bool], Awaitable[T]]) -> T:
        """Try until Discord is there. The attempt hears whether there was one before, which may have come through without an answer."""
        again = False
        for wait_s in PATIENCE_S:
            try:
                return await attempt(again)
            except FAILURES as error:
                if not passing(error):
                    raise
                log.warning("job %d: Discord does not answer (%s), trying again in %d s", self._job.id, error, wait_s)
            await asyncio.sleep(wait_s)
            again = True
        return await attempt(again)


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
