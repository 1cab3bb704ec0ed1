"""Where requests over HTTP are taken in: checked, put on disk, followed to their end. The queue, its order and its limits are those of Discord's."""

import asyncio
import json
import logging
import re
import secrets
from base64 import b32encode
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from engine import uploads
from engine.errors import EngineError, Repeated
from engine.jobs import SOURCES_LIMIT, Ingredient, Job, Kind, Origin, Painter, Prediction, Request, State
from engine.predictions import Predictions, Record
from engine.studio.bodies import Asked
from engine.studio.fetching import Fetcher
from engine.studio.films import FILMS
from engine.studio.inputs import BlendInput, MorphInput, Part, PromptPart, VerifyInput, request_of
from engine.studio.keys import Person
from engine.studio.refusals import BadPicture, Refusal, refusal_of, sentence
from engine.studio.views import Line, PredictionView, view_of
from engine.studio.webhooks import Webhooks
from engine.worker import aside

log = logging.getLogger(__name__)

T = TypeVar("T")

DECODING = 2
"""Pictures that are decoded at once: each may take hundreds of megabytes for a moment."""
ON_THE_WAY = (State.WAITING, State.PAINTING)
OWN_PICTURE = re.compile(r"/pictures/([A-Za-z0-9_-]{1,64})/([0-9]{1,2})\.png")


class Jobs(Line, Protocol):
    """What taking requests in needs of the queue. `restored` is set once it holds what an earlier run left."""

    restored: asyncio.Event

    @property
    def unfinished(self) -> list[Job]: ...

    async def submit(self, request: Request, origin: Origin, parent: int | None = None, source: int | None = None) -> Job: ...

    async def cancel(self, job: Job) -> bool: ...

    async def delivered(self, job: Job, message_id: int) -> None: ...

    def find(self, job_id: int) -> Job | None: ...


class Models(Protocol):
    """What is to be known of the worker."""

    @property
    def painter(self) -> Painter | None: ...

    @property
    def models(self) -> tuple[str, ...]: ...

    def painter_of(self, model: str) -> Painter | None: ...


@dataclass(slots=True)
class Errand:
    """A job that is being followed. `ended` is set once everything about its end is written down."""

    job: Job
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Desk:
    """Takes requests in and knows what has become of them. `stopping` is set when nobody is to wait here any longer."""

    def __init__(self, jobs: Jobs, predictions: Predictions, models: Models, webhooks: Webhooks, fetcher: Fetcher) -> None:
        self._jobs = jobs
        self._predictions = predictions
        self._webhooks = webhooks
        self._fetcher = fetcher
        self._errands: dict[int, Errand] = {}
        self._telling: set[asyncio.Task[None]] = set()
        self._decoding = asyncio.Semaphore(DECODING)
        self.models = models
        self.stopping = asyncio.Event()

    # What an earlier run left, and a stop.

    async def open(self) -> None:
        """Take up what an earlier run promised: jobs that are unfinished, and ends that nobody was told of."""
        await self._jobs.restored.wait()
        for job in self._jobs.unfinished:
            if job.origin.prediction is not None:
                self._follow(job, is_new=False)
        for record in await self._predictions.open_ends():
            self._spawn(self._close(record))

    async def close(self) -> None:
        """Stop following; the next start goes on."""
        self.stopping.set()
        tasks = [*self._telling]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # Taking in.

    async def take(self, person: Person, kind: Kind, asked: Asked, name: str | None = None) -> Record:
        """Take a request in; where a name is given that is known already, the same request is not made twice.

        Raises:
            Refusal: it cannot be taken in.
        """
        self._check_model(kind, asked.input.model)
        webhook = asked.envelope.webhook
        if webhook is not None and not self._webhooks.may_go_to(webhook):
            raise Refusal(422, "webhook must be at one of the addresses that the operator allows.")
        words = asked.input.model_dump(mode="json", exclude_unset=True)
        prediction = Prediction(name or new_name(), json.dumps(words), webhook, tuple(dict.fromkeys(asked.envelope.webhook_events_filter)))
        if name is not None and (known := await self._same(person, kind, prediction)) is not None:
            return known
        try:
            made_of, parent = await self._pictures(person, kind, asked)
            request = request_of(kind, asked.input, made_of)
            job = await self._jobs.submit(request, Origin(person.id, 0, prediction=prediction), parent)
        except Repeated as error:
            # Two who ask at once: the other one was sooner.
            if (known := await self._same(person, kind, prediction)) is None:
                raise refusal_of(error) from None
            return known
        except EngineError as error:
            raise refusal_of(error) from None
        self._follow(job, is_new=True)
        return await self._predictions.of_job(job.id)

    async def _same(self, person: Person, kind: Kind, prediction: Prediction) -> Record | None:
        """Return what a person asked for under a name before.

        Raises:
            Refusal: it was something else.
        """
        known = await self._predictions.find(person.id, prediction.name)
        if known is not None and (known.kind, known.words) != (kind, json.loads(prediction.words)):
            raise refusal_of(Repeated())
        return known

    def _check_model(self, kind: Kind, model: str) -> None:
        """Make sure that there is a model of a name, and that it can do what is asked; what one can do that is not loaded yet nobody knows.

        Raises:
            Refusal: it is not so.
        """
        if model and model not in self.models.models:
            raise Refusal(422, "model must be the name of a model that is here, or be left out.")
        painter = self.models.painter_of(model)
        if painter is not None and kind not in painter.kinds:
            raise Refusal(422, f"model must be one that can do {kind}; this one cannot.")

    async def _pictures(self, person: Person, kind: Kind, asked: Asked) -> tuple[dict[str, Any], int | None]:
        """Fetch, open and check the pictures of a request; return its fields that hold them, and which of the person's pictures it goes back to.

        Raises:
            InvalidRequest: one cannot be used.
        """
        if isinstance(asked.input, BlendInput | MorphInput):
            parts = [await self._ingredient(person, where, part, asked.files) for where, part in asked.input.parts().items()]
            return {"ingredients": tuple(parts)}, None
        if not kind.needs_picture:
            return {}, None
        files, parent = dict(asked.files), None
        for name in ("image", "mask"):
            place = getattr(asked.input, name, None)
            if place is not None and name not in files:
                files[name], own = await self._fetched(person, name, place)
                parent = own if name == "image" else parent
        if kind is Kind.INPAINT:
            region = getattr(asked.input, "region", None)
            chosen = uploads.Region(region) if region is not None and "mask" not in files else None
            picture, mask = await self._decoded(uploads.take_in_part, files["image"], files.get("mask"), chosen)
            return {"image": picture, "mask": mask}, parent
        if isinstance(asked.input, VerifyInput):
            return await self._evidence(person, files, asked.input.sources), parent
        if parent is not None:
            # Some models know their own pictures by what is written in the files.
            return {"image": files["image"]}, parent
        return {"image": await self._decoded(uploads.take_in, files["image"])}, None

    async def _ingredient(self, person: Person, where: str, part: Part, files: Mapping[str, bytes]) -> Ingredient:
        """Return a part that something is made of.

        Raises:
            InvalidRequest: its picture cannot be used.
        """
        if isinstance(part, PromptPart):
            return Ingredient(prompt=part.prompt, weight=part.weight)
        where = f"{where}.image"
        file = files[where] if where in files else (await self._fetched(person, where, part.image))[0]
        return Ingredient(await self._decoded(uploads.take_in, file), weight=part.weight)

    async def _evidence(self, person: Person, files: Mapping[str, bytes], places: Sequence[str]) -> dict[str, Any]:
        """Return a picture to verify, the file as it is, and of the files that it was made from those that are there.

        Raises:
            InvalidRequest: a file is no picture.
        """
        receipt = await self._decoded(uploads.receipt_of, files["image"])
        wanted, given = uploads.sources_in(receipt), []
        for position, place in enumerate(places):
            where = f"sources.{position}"
            given.append(files[where] if where in files else (await self._fetched(person, where, place))[0])
        known = await self._predictions.handed_in(person.id, wanted) | await self._decoded(uploads.by_hash, given)
        found = [known[name] for name in wanted if name in known]
        return {"image": files["image"], "ingredients": tuple(Ingredient(one) for one in found[:SOURCES_LIMIT])}

    async def _fetched(self, person: Person, name: str, place: str) -> tuple[bytes, int | None]:
        """Return the file at a place, and its number where it is one of the person's own pictures.

        Raises:
            BadPicture: there is none that may be had.
        """
        if not place.startswith("/"):
            return await self._fetcher.fetch(place), None
        own = OWN_PICTURE.fullmatch(place)
        found = await self.picture(person, own[1], int(own[2])) if own else None
        if found is None:
            raise BadPicture(name, "be one of your own pictures, /pictures/ID/0.png; there is none at this address")
        return found

    async def _decoded(self, function: Callable[..., T], *args: object) -> T:
        """Run something that decodes pictures beside the loop, only so many at once."""
        async with self._decoding:
            return await aside(function, *args)

    # Following.

    def _follow(self, job: Job, *, is_new: bool) -> None:
        errand = Errand(job)
        self._errands[job.id] = errand
        self._spawn(self._run(errand, is_new))

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine)
        self._telling.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._telling.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("the end of a request could not be noted, so the next start looks at it again", exc_info=error)

    async def _run(self, errand: Errand, is_new: bool) -> None:
        """Follow a job to its end, write that down, and tell of it."""
        job = errand.job
        start = self._spawn(self._begin(job)) if is_new else None
        try:
            while job.state in ON_THE_WAY:
                await job.change()
            if job.state is State.PAINTED:
                await self._jobs.delivered(job, 0)
            elif job.state is State.FAILED and job.error is not None:
                await self._predictions.explain(job.id, sentence(job.error))
        finally:
            del self._errands[job.id]
            errand.ended.set()
        if start is not None:
            # Whoever listens hears of the start first.
            await asyncio.wait([start])
        await self._close(await self._predictions.of_job(job.id))

    async def _begin(self, job: Job) -> None:
        """Tell that a request was taken in."""
        await self._tell(await self._predictions.of_job(job.id), "start")

    async def _close(self, record: Record) -> None:
        """Tell how a request ended."""
        if record.state is State.DELIVERED:
            await self._tell(record, "output")
        if not await self._tell(record, "completed"):
            log.warning("job %d: nobody could be told how it ended", record.number)
        await self._predictions.close(record.number)

    async def _tell(self, record: Record, event: str) -> bool:
        """Tell of an event where that is wanted; tell whether nobody is left who does not know."""
        webhook, events = record.prediction.webhook, record.prediction.events
        if webhook is None or event not in events:
            return True
        return await self._webhooks.send(webhook, self.view(record), patiently=event == "completed")

    # Asking after.

    async def known(self, person: Person, name: str) -> Record:
        """Return what a person calls by a name.

        Raises:
            Refusal: there is nothing of this name, or it is another person's; which of the two it is, they are not told.
        """
        record = await self._predictions.find(person.id, name)
        if record is None:
            raise Refusal(404, "There is no prediction of this id.")
        return record

    def job_of(self, record: Record) -> Job | None:
        """Return the job of a request as long as it is unfinished."""
        return self._jobs.find(record.number)

    def view(self, record: Record) -> PredictionView:
        """Say what is known of a request."""
        return view_of(record, self.job_of(record), self._jobs)

    async def again(self, record: Record) -> Record:
        """Look once more what has become of a request."""
        return await self._predictions.of_job(record.number)

    async def latest(self, person: Person, before: int, most: int) -> Sequence[Record]:
        """Return a person's latest requests."""
        return await self._predictions.latest(person.id, before, most)

    async def ended(self, record: Record) -> None:
        """Wait until a request has ended, or nobody is to wait any longer."""
        errand = self._errands.get(record.number)
        if errand is None:
            return
        await first_of(errand.ended.wait(), self.stopping.wait())

    async def cancel(self, record: Record) -> None:
        """Call a request off; what has ended stays as it is."""
        job = self.job_of(record)
        if job is None or not await self._jobs.cancel(job):
            return
        # What is painted just now stops between two steps.
        await self.ended(record)

    async def erase(self, record: Record) -> None:
        """Erase a request, with what it came to.

        Raises:
            Refusal: it has not ended.
        """
        if self.job_of(record) is not None or record.number in self._errands:
            raise Refusal(409, "It has not ended. Cancel it first.")
        await self._predictions.erase(record)

    async def film(self, record: Record, name: str) -> bytes | None:
        """Return the frames of a morph as one of `FILMS`; None where there are none."""
        if record.kind is not Kind.MORPH or not record.pictures:
            return None
        found = [await self._predictions.picture(record.user_id, record.prediction.name, position) for position in range(len(record.pictures))]
        paths = [one[0] for one in found if one is not None]

        def made() -> bytes:
            return FILMS[name].made([path.read_bytes() for path in paths])

        try:
            return await self._decoded(made) if paths else None
        except OSError:
            log.warning("a frame is lost: job %d", record.number)
            return None

    async def picture(self, person: Person, name: str, position: int) -> tuple[bytes, int] | None:
        """Return one of a person's pictures, and its number; None where there is none."""
        found = await self._predictions.picture(person.id, name, position)
        if found is None:
            return None
        path, number = found
        try:
            return await aside(path.read_bytes), number
        except OSError:
            log.warning("a picture is lost: %s", path)
            return None


def new_name() -> str:
    """Return an id that nobody guesses, in the form that cog recommends."""
    return b32encode(secrets.token_bytes(16)).decode().lower().rstrip("=")


async def first_of(*waits: Coroutine[Any, Any, object]) -> None:
    """Wait until the first of several has come about."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
