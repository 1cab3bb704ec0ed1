"""Several requests painted at once: their samples share the steps of one batch, and join and leave between two tokens."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from PIL import Image

from engine import pictures
from engine.jobs import Painting, Progress, Report, Request
from engine.mini.decoding import BUCKETS, Batch, Sample
from engine.mini.settings import MiniSettings

if TYPE_CHECKING:
    from engine.mini.painter import Painter

STRETCH_S = 0.05
"""How long tokens are drawn before somebody may join."""
SEATS = 8
"""Requests that are under way at most: who comes later waits in the queue, which is fair."""
MOST_ON_CPU, MOST_ON_GPU = 16, BUCKETS[-1]
"""Samples in a batch. From so many on, a CPU takes as much longer as there are more of them."""
COLOURED_AT_ONCE = 16
"""Pictures that a GPU turns into colours at once; a CPU takes one, and looks in between whether it is still wanted."""
PREVIEW_EVERY = 32
"""Tokens: two rows of a picture."""
STAGE = "tokens"


@dataclass(eq=False, slots=True)
class Member:
    """A request on its way: its samples, those of their pictures that are painted, and how many tokens were told of; then what it came to."""

    request: Request
    report: Report
    settings: MiniSettings
    samples: list[Sample]
    prompt: str
    started: float
    busy_s: float = 0.0
    previewed_s: float = 0.0
    told: int = 0
    painted: dict[Sample, Image.Image] = field(default_factory=dict, repr=False)
    result: Painting | None = None
    error: Exception | None = None
    is_done: bool = False

    @property
    def columns(self) -> int:
        """How many pictures lie side by side where they are to be one without seams; 0 where they are not."""
        return pictures.shape(len(self.samples))[0] if self.settings.seamless and len(self.samples) > 1 else 0


class Company:
    """Requests that are under way with one model. One thread at a time."""

    def __init__(self, painter: "Painter") -> None:
        self._painter, self._model = painter, painter.parts
        self._members: list[Member] = []
        self._waiting: list[Sample] = []
        """Not in the batch yet, in turn."""
        self._batch: Batch | None = None
        self.most = MOST_ON_GPU if self._model.device.type == "cuda" else MOST_ON_CPU

    def __len__(self) -> int:
        return len(self._members)

    @property
    def has_room(self) -> bool:
        """Whether another request would be begun at once, in part at least."""
        taken = len(self._waiting) + (len(self._batch.samples) if self._batch else 0)
        return len(self) < SEATS and taken < self.most

    @torch.inference_mode()
    def join(self, request: Request, report: Report, settings: MiniSettings | None = None) -> Member:
        """Begin with a request.

        Raises:
            InvalidRequest: it is not what this model can paint.
        """
        started = time.perf_counter()
        commission = self._painter.commission(request, settings or MiniSettings())
        text = self._painter.read(commission.prompt)
        samples = [Sample(text, seed, commission.drawing, commission.given) for seed in request.seeds]
        member = Member(request, report, commission.settings, samples, commission.prompt, started)
        self._members.append(member)
        self._waiting += samples
        member.busy_s = time.perf_counter() - started
        return member

    @torch.inference_mode()
    def step(self) -> list[Member]:
        """Draw tokens for a moment, or turn those of some finished pictures into colours; return who is done altogether, well or not."""
        chosen, columns = self._colourless()
        if chosen:
            self._colour(chosen, columns)
        else:
            self._decode()
        done = [member for member in self._members if member.is_done]
        for member in done:
            self._forget(member)
        return done

    @torch.inference_mode()
    def drop(self, member: Member) -> None:
        """Stop painting a request, between two tokens."""
        self._forget(member)

    # Tokens.

    def _decode(self) -> None:
        """Draw tokens until somebody has all of them, or the moment is over."""
        started = time.perf_counter()
        batch = self._admit()
        places = {member: sum(sample in batch.samples for sample in member.samples) for member in self._members}
        rows, finished = len(batch.samples), False
        while not finished:
            finished = bool(batch.step())
            for member, inside in places.items():
                if inside:
                    self._tell(member)
                    finished |= member.is_done
            if time.perf_counter() - started > STRETCH_S:
                break
        if self._model.device.type == "cuda":
            torch.cuda.synchronize(self._model.device)
        elapsed = time.perf_counter() - started
        for member, inside in places.items():
            member.busy_s += elapsed * inside / rows

    def _admit(self) -> Batch:
        """Let those in who wait, as far as there is room."""
        if self._batch is None:
            self._batch = self._painter.borrow_batch()
        while self._waiting and len(self._batch.samples) < self.most:
            try:
                self._batch.join(self._waiting[0])
            except torch.OutOfMemoryError:
                if not self._batch.samples:
                    raise
                self.most = len(self._batch.samples)
                torch.cuda.empty_cache()
                break
            self._waiting.pop(0)
        return self._batch

    def _tell(self, member: Member) -> None:
        """Report how far a request is; where that raises, it ends, and nobody else does."""
        given = len(member.samples[0].given)
        total = self._model.size.paints - given
        done = sum(sample.position - given for sample in member.samples if sample.position) // len(member.samples)
        if done <= member.told:
            return
        member.told = done
        shown = done % PREVIEW_EVERY == 0 and done < total and self._painter.may_preview(member.busy_s, member.previewed_s, len(member.samples))
        try:
            member.report(Progress(STAGE, done, total, (lambda: self._preview(member)) if shown else None))
        except Exception as error:
            self._end(member, error)

    def _preview(self, member: Member) -> bytes:
        """Show what there is of a request's pictures; what is not painted yet has the colour of the start token."""
        started = time.perf_counter()
        assert self._batch is not None
        nothing = torch.full((self._model.size.paints,), self._model.size.codes - 1, device=self._model.device)
        codes = []
        for sample in member.samples:
            known = self._batch.codes_of(sample) if sample in self._batch.samples else sample.codes
            codes.append(nothing if known is None else known)
        shown = self._painter.images(codes, member.columns)
        member.previewed_s += time.perf_counter() - started
        return pictures.grid([pictures.encode(picture, quickly=True) for picture in shown], quickly=True)

    # Colours.

    def _colourless(self) -> tuple[list[Sample], int]:
        """Return some samples that have all their tokens and no picture yet, and their columns: a whole grid without seams, or any others."""
        found: list[Sample] = []
        for member in self._members:
            ready = [sample for sample in member.samples if sample.codes is not None and sample not in member.painted]
            if member.columns and len(ready) == len(member.samples):
                return ready, member.columns
            if not member.columns:
                found += ready
        return found[: COLOURED_AT_ONCE if self._model.device.type == "cuda" else 1], 0

    def _colour(self, chosen: Sequence[Sample], columns: int) -> None:
        """Turn the tokens of samples into pictures."""
        started = time.perf_counter()
        members = [member for member in self._members if not set(chosen).isdisjoint(member.samples)]
        try:
            images = self._painter.images([sample.codes for sample in chosen if sample.codes is not None], columns)
        except Exception as error:
            for member in members:
                self._end(member, error)
            return
        elapsed = time.perf_counter() - started
        for member in members:
            own = {sample: image for sample, image in zip(chosen, images, strict=True) if sample in member.samples}
            member.painted |= own
            member.busy_s += elapsed * len(own) / len(chosen)
            if len(member.painted) == len(member.samples):
                self._finish(member)

    def _finish(self, member: Member) -> None:
        try:
            member.result, member.is_done = self._painter.painting(member), True
        except Exception as error:
            self._end(member, error)

    def _end(self, member: Member, error: Exception) -> None:
        """End a request that stops or fails; its places are free at once."""
        member.error, member.is_done = error, True
        self._leave(member)

    def _leave(self, member: Member) -> None:
        self._waiting = [sample for sample in self._waiting if sample not in member.samples]
        for sample in member.samples:
            if self._batch is not None and sample in self._batch.samples:
                self._batch.leave(sample)

    def _forget(self, member: Member) -> None:
        self._leave(member)
        self._members.remove(member)
        if not self._members and self._batch is not None:
            self._painter.give_back_batch(self._batch)
            self._batch = None
