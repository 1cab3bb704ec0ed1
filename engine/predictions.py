"""What came over HTTP and what became of it, as it is remembered."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.database import Database, Row
from engine.history import History, outcome_of
from engine.jobs import UNFINISHED, Drawn, Embedding, Kind, Prediction, State
from engine.rights import Rights
from engine.verdicts import Verdict

QUERY = """
    SELECT job.id, kind, state, seed, created_at, started_at, finished_at, seconds, model, used_steps, used_guidance, unknown_words, outcome,
        prediction.user_id, prediction.name, prediction.words, prediction.webhook, prediction.events, prediction.error
    FROM prediction JOIN job ON job.id = prediction.job
"""


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture that can be fetched: what paints it again, and its size in pixels."""

    seed: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Record:
    """A request that came over HTTP, and what it has come to; times are Unix seconds.

    `number` is that of its job, `error` the sentence that was told of a failure. What was painted, and with what, is None until it is.
    """

    number: int
    user_id: int
    prediction: Prediction
    kind: Kind
    state: State
    seed: int
    created_at: float
    started_at: float | None
    finished_at: float | None
    error: str | None
    seconds: float | None
    model: str | None
    steps: int | None
    guidance: float | None
    unknown_words: tuple[str, ...]
    pictures: tuple[Shown, ...]
    embedding: Embedding | None
    draws: tuple[Drawn, ...]
    verdict: Verdict | None

    @property
    def words(self) -> Mapping[str, Any]:
        """What was asked, as it was written."""
        words: Mapping[str, Any] = json.loads(self.prediction.words)
        return words


class Predictions:
    """Finds what came over HTTP. Who asks for another person's finds nothing."""

    def __init__(self, history: History) -> None:
        self._database: Database = history.database
        self._history = history
        self._rights = Rights(history)

    async def erase(self, record: Record) -> None:
        """Erase a request that has ended, with what it came to."""
        await self._rights.erase_job(record.number)

    async def handed_in(self, user_id: int, hashes: Sequence[str]) -> dict[str, bytes]:
        """Return the pictures that a person handed in earlier; see `History.handed_in`."""
        return await self._history.handed_in(user_id, hashes)

    async def find(self, user_id: int, name: str) -> Record | None:
        """Return what a person calls by a name."""
        return await self._first("WHERE prediction.user_id = ? AND prediction.name = ?", user_id, name)

    async def of_job(self, number: int) -> Record:
        """Return what a job that came over HTTP is known by."""
        record = await self._first("WHERE job.id = ?", number)
        assert record is not None
        return record

    async def latest(self, user_id: int, before: int, most: int) -> list[Record]:
        """Return a person's latest requests with numbers below another one, the latest first."""
        rows = await self._database.rows(f"{QUERY} WHERE prediction.user_id = ? AND job.id < ? ORDER BY job.id DESC LIMIT ?", user_id, before, most)
        return [await self._record(row) for row in rows]

    async def open_ends(self) -> list[Record]:
        """Return what has ended without everybody having been told, oldest first."""
        marks = ", ".join("?" * len(UNFINISHED))
        rows = await self._database.rows(f"{QUERY} WHERE is_closed = 0 AND state NOT IN ({marks}) ORDER BY job.id", *UNFINISHED)
        return [await self._record(row) for row in rows]

    async def explain(self, number: int, sentence: str) -> None:
        """Remember what is to be told of a failure."""
        await self._database.change("UPDATE prediction SET error = ? WHERE job = ?", sentence, number)

    async def close(self, number: int) -> None:
        """Remember that everybody has been told how a request ended, or cannot be."""
        await self._database.change("UPDATE prediction SET is_closed = 1 WHERE job = ?", number)

    async def picture(self, user_id: int, name: str, position: int) -> tuple[Path, int] | None:
        """Return where the file of a picture lies, and its number; None where there is no such picture."""
        rows = await self._database.rows(
            """
            SELECT picture.path, picture.id FROM picture JOIN prediction ON prediction.job = picture.job JOIN job ON job.id = picture.job
            WHERE prediction.user_id = ? AND prediction.name = ? AND picture.position = ? AND withheld = 0 AND removed_by IS NULL
            """,
            user_id,
            name,
            position,
        )
        return (self._database.folder / rows[0]["path"], rows[0]["id"]) if rows else None

    async def _first(self, where: str, *values: object) -> Record | None:
        rows = await self._database.rows(f"{QUERY} {where}", *values)
        return await self._record(rows[0]) if rows else None

    async def _record(self, row: Row) -> Record:
        pictures = await self._database.rows("SELECT seed, width, height FROM picture WHERE job = ? ORDER BY position", row["id"])
        pairs = await self._database.rows("SELECT text, image FROM embedded WHERE job = ?", row["id"])
        return Record(
            number=row["id"],
            user_id=row["user_id"],
            prediction=Prediction(row["name"], row["words"], row["webhook"], tuple(json.loads(row["events"]))),
            kind=Kind(row["kind"]),
            state=State(row["state"]),
            seed=row["seed"],
            created_at=row["created_at"],
            started_at=row["started_at"],
            finished_at=row["finished_at"],
            error=row["error"],
            seconds=row["seconds"],
            model=row["model"],
            steps=row["used_steps"],
            guidance=row["used_guidance"],
            unknown_words=tuple(json.loads(row["unknown_words"] or "[]")),
            pictures=tuple(Shown(*picture) for picture in pictures),
            embedding=next((Embedding(*pair) for pair in pairs), None),
            **{"draws": (), "verdict": None} | outcome_of(row["outcome"]),
        )
