"""What people are told of their requests: cog's fields and words, and more beside them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

import numpy as np
from pydantic import BaseModel, Field

from engine.errors import EngineError
from engine.jobs import Embedding, Job, Kind, State
from engine.predictions import Record
from engine.studio.films import FILMS
from engine.studio.refusals import sentence
from engine.verdicts import Finding

Status = Literal["starting", "processing", "succeeded", "failed", "canceled"]
STATUSES: Mapping[State, Status] = {
    State.WAITING: "starting",
    State.PAINTING: "processing",
    # What is painted is theirs as soon as it is written down that it has been delivered.
    State.PAINTED: "processing",
    State.DELIVERED: "succeeded",
    State.KEPT: "succeeded",
    State.FAILED: "failed",
    State.CANCELLED: "canceled",
}


class Line(Protocol):
    """What is to be known of the queue."""

    def position(self, job: Job) -> int: ...

    def eta_s(self, job: Job) -> float | None: ...


class PictureView(BaseModel):
    """A picture that was painted: where it can be fetched, what paints it again, and its size in pixels."""

    url: str
    seed: int
    width: int
    height: int


class PaintedView(BaseModel):
    """What was painted, and with what; steps and guidance are those of the base decoder."""

    pictures: list[PictureView]
    model: str
    seed: int
    steps: int
    guidance: float
    unknown_words: list[str] = Field(description="Words of the prompt that the model never saw")


class EmbeddedView(BaseModel):
    """CLIP's embedding of the prompt, and the picture embedding that the prior drew for it; both of unit length."""

    text_embedding: list[float]
    image_embedding: list[float]


class DrawnView(BaseModel):
    """A draw of the prior: the seed that draws it again, and the cosine between it and the prompt."""

    seed: int
    score: float


class DrawsView(BaseModel):
    """Draws of the prior, the nearest to the prompt first; `/dream` paints one where its seed is `prior_seed` and there is one candidate."""

    draws: list[DrawnView]
    model: str


class VerdictView(BaseModel):
    """What painting a picture again came to; differences are of channels, of 255, and null where the two cannot be compared."""

    finding: Finding
    sentence: str
    same_model: bool | None
    largest: int | None
    mean: float | None
    differs: list[str] = Field(description="What else is not as it was then, which explains small differences")
    pictures: list[PictureView] = Field(description="The picture that was painted again, where one was")
    model: str


class ProgressView(BaseModel):
    """How far a request is: its place in the queue, 1 is next and 0 is being painted; steps of all stages; seconds until it is done."""

    position: int
    stage: str | None
    done: int
    total: int
    eta_s: float | None


class PredictionView(BaseModel):
    """A request, and what it has come to."""

    id: str
    kind: Kind
    status: Status
    input: dict[str, Any] = Field(description="What was asked; of pictures that came in the body, their SHA-256")
    output: EmbeddedView | PaintedView | DrawsView | VerdictView | None
    error: str | None
    logs: str
    metrics: dict[str, float] = Field(description="`predict_time` in seconds, once it is done")
    created_at: str
    started_at: str | None
    completed_at: str | None
    urls: dict[str, str]
    progress: ProgressView | None = Field(description="Null once it has ended")


def view_of(record: Record, job: Job | None, line: Line) -> PredictionView:
    """Say what is known of a request; `job` is there as long as it is unfinished, and knows more than what is written down."""
    status = STATUSES[record.state]
    name = record.prediction.name
    urls = {"get": f"/predictions/{name}", "cancel": f"/predictions/{name}/cancel", "events": f"/predictions/{name}/events"}
    if record.embedding is not None:
        urls |= {which: f"/predictions/{name}/{which}.npy" for which in ("text_embedding", "image_embedding")}
    if record.kind is Kind.MORPH and status == "succeeded":
        urls |= {which.partition(".")[2]: f"/pictures/{name}/{which}" for which in FILMS}
    error = None
    if status == "failed":
        error = record.error or sentence(job.error if job is not None and job.error is not None else EngineError())
    return PredictionView(
        id=name,
        kind=record.kind,
        status=status,
        input=dict(record.words),
        output=output_of(record) if status == "succeeded" else None,
        error=error,
        logs="",
        metrics={} if record.seconds is None else {"predict_time": record.seconds},
        created_at=written(record.created_at),
        started_at=None if record.started_at is None else written(record.started_at),
        completed_at=None if record.finished_at is None else written(record.finished_at),
        urls=urls,
        progress=progress_of(job, line) if job is not None and status in ("starting", "processing") else None,
    )


def output_of(record: Record) -> EmbeddedView | PaintedView | DrawsView | VerdictView:
    """Say what a request has come to that ended well."""
    if record.kind is Kind.EMBED:
        assert record.embedding is not None
        text, image = (np.frombuffer(half, "<f4").tolist() for half in (record.embedding.text, record.embedding.image))
        return EmbeddedView(text_embedding=text, image_embedding=image)
    assert record.model is not None and record.steps is not None and record.guidance is not None
    if record.kind is Kind.DRAWS:
        return DrawsView(draws=[DrawnView(seed=one.seed, score=one.score) for one in record.draws], model=record.model)
    pictures = [
        PictureView(url=f"/pictures/{record.prediction.name}/{position}.png", seed=one.seed, width=one.width, height=one.height)
        for position, one in enumerate(record.pictures)
    ]
    if (verdict := record.verdict) is not None:
        return VerdictView(
            finding=verdict.finding,
            sentence=verdict.sentence,
            same_model=verdict.same_model,
            largest=verdict.largest,
            mean=verdict.mean,
            differs=list(verdict.differs),
            pictures=pictures,
            model=record.model,
        )
    return PaintedView(
        pictures=pictures,
        model=record.model,
        seed=record.seed,
        steps=record.steps,
        guidance=record.guidance,
        unknown_words=list(record.unknown_words),
    )


def progress_of(job: Job, line: Line) -> ProgressView:
    """Say how far a job is."""
    told = job.progress
    eta_s = line.eta_s(job)
    return ProgressView(
        position=line.position(job),
        stage=told.stage if told else None,
        done=told.done if told else 0,
        total=told.total if told else 0,
        eta_s=None if eta_s is None else round(max(eta_s, 0.0), 1),
    )


def written(moment: float) -> str:
    """Write a time, in Unix seconds, as cog does."""
    return datetime.fromtimestamp(moment, UTC).isoformat()


def half_of(embedding: Embedding, which: str) -> "np.ndarray[Any, np.dtype[np.float32]]":
    """Return one of two embeddings, `text_embedding` or `image_embedding`, (D,) float32."""
    return np.frombuffer(embedding.text if which == "text_embedding" else embedding.image, "<f4")
