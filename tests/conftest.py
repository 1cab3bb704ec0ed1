"""Shared by all tests: a painter that plays back what it was told, and real memory in a temporary folder."""

import threading
import time
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.company import InTurn
from engine.history import History
from engine.jobs import Drawn, Embedding, Job, Kind, Painting, Picture, Preset, Progress, Request
from engine.options import EFFORTS
from engine.verdicts import Finding, Verdict


def png(colour: tuple[int, int, int], side: int = 8) -> bytes:
    """Return a plain picture."""
    file = BytesIO()
    Image.new("RGB", (side, side), colour).save(file, "PNG")
    return file.getvalue()


def noise(side: int, seed: int = 1) -> bytes:
    """Return a picture that no format without loss makes small, and of which no part is in one of another seed."""
    file = BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


async def picture_of(history: History, job: Job, position: int = 0) -> int:
    """Return the id of one of a job's pictures."""
    picture = await history.picture_id(job, position)
    assert picture is not None
    return picture


class ScriptedPainter:
    """Paints plain pictures in `steps` steps; raises or waits where it is told to.

    `failures` are raised one per job, from the first on; `hold` blocks every step until it is set, `pause_s` slows each;
    `painted` lists what was asked.
    """

    model = "scripted"
    kinds = frozenset(Kind)
    known_words = ("cat", "on", "a", "red")
    space = "scripted"
    usual_guidance = (1.5, 2.0)
    usual_prior_guidance = 1.0
    everyday = ("a cat", "a dog", "a house", "a tree")

    def __init__(self, steps: int = 3) -> None:
        self.cached = {"texts": (5, 3)}
        self.steps = steps
        self.usual = 30
        self.can_be_seamless = False
        self.pause_s = 0.0
        self.failures: list[BaseException] = []
        self.hold = threading.Event()
        self.hold.set()
        self.started = threading.Event()
        self.painted: list[Request] = []

    def usual_steps(self, preset: Preset) -> int:
        return round(self.usual * EFFORTS[preset].share)

    def paint(self, request: Request, report: Callable[[Progress], None]) -> Painting:
        self.started.set()
        if self.failures:
            raise self.failures.pop(0)
        for step in range(1, self.steps + 1):
            while not self.hold.wait(0.01):
                report(Progress("base", step - 1, self.steps, lambda: png((9, 9, 9))))
            time.sleep(self.pause_s)
            report(Progress("base", step, self.steps, lambda: png((9, 9, 9))))
        self.painted.append(request)
        if request.kind is Kind.EMBED:
            embedding = Embedding(*(np.frombuffer(self.seen(text), "<f2").astype("<f4").tobytes() for text in (request.prompt, "a picture")))
            return Painting((), self.model, request.prior_steps or 64, request.prior_guidance or 1.0, 0.5, embedding=embedding)
        if request.kind is Kind.DRAWS:
            scores = sorted((0.1 + zlib.crc32(str(seed).encode()) % 100 / 200, seed) for seed in request.seeds)
            return Painting((), self.model, 64, 1.0, 0.5, draws=tuple(Drawn(seed, score) for score, seed in reversed(scores)))
        # Frames and the pictures of a wheel have one seed, and differ all the same.
        step = int(request.kind in (Kind.MORPH, Kind.EXPLORE))
        colours = [((seed + index * step) % 256, 100, 50) for index, seed in enumerate(request.seeds)]
        pictures = tuple(Picture(png(colour), seed, 8, 8, self.seen(request.prompt)) for colour, seed in zip(colours, request.seeds, strict=True))
        if request.kind is Kind.VERIFY:
            return Painting(pictures, self.model, 0, 0.0, 0.5, verdict=Verdict(Finding.ROUNDED, True, 2, 0.25, ("version",)))
        unknown = tuple(word for word in request.prompt.split() if word not in self.known_words)
        return Painting(
            pictures, self.model, request.base_steps or self.usual_steps(request.preset), request.base_guidance or 1.5, 0.5, unknown, self.space
        )

    def company(self) -> InTurn:
        return InTurn(self.paint)

    def loaded(self) -> "ScriptedPainter":
        """Return itself, where a painter is to be loaded."""
        return self

    def seen(self, prompt: str) -> bytes:
        """Embed a text or a picture: what a picture shows is what was asked for."""
        numbers = np.random.default_rng(zlib.crc32(prompt.removeprefix("a ").encode())).standard_normal(64)
        return (numbers / np.linalg.norm(numbers)).astype("<f2").tobytes()

    def embed_texts(self, texts: Sequence[str]) -> list[bytes]:
        return [self.seen(text) for text in texts]

    def embed_picture(self, picture: bytes) -> bytes:
        return self.seen(str(zlib.crc32(picture)))


@pytest.fixture
def painter() -> ScriptedPainter:
    return ScriptedPainter()


@pytest.fixture
async def history(tmp_path: Path) -> AsyncIterator[History]:
    memory = await History.open(tmp_path / "data")
    yield memory
    await memory.close()


@pytest.fixture
def addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put discord.py's addresses back after a test: Reverie points them elsewhere for the whole process."""
    # Most tests of the engine need no discord.py.
    import discord

    for place, name in ((discord.http.Route, "BASE"), (discord.gateway.DiscordWebSocket, "DEFAULT_GATEWAY")):
        monkeypatch.setattr(place, name, getattr(place, name))
