"""Looking through what was painted: by person or server, by words, by family, by likeness."""

import asyncio
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from engine.database import Database, Row, owners, searchable
from engine.history import History
from engine.jobs import Job
from engine.similar import Entry, Index, ranked, signature
from engine.worker import aside

T = TypeVar("T")

WORD = re.compile(r"(?:[^\W_][\u0300-\u036f]*)+")
"""A word and the marks on its letters. SQLite takes an underscore for a space."""
FAMILY_LIMIT = 60
"""Jobs of a family that are told of."""
TOLD = "seconds IS NOT NULL AND removed_by IS NULL AND withheld = 0"
"""What jobs fulfil that are told of: they came to something that still stands."""
LOADED_AT_ONCE = 1000
"""Other questions wait for so many signatures to be read at most."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose jobs to look through: a person's, or a server's as far as its `channels` may be seen; and whether age-restricted ones count."""

    user_id: int | None = None
    guild_id: int | None = None
    channels: frozenset[int] | None = None
    adult: bool = True


@dataclass(frozen=True, slots=True)
class Relative:
    """A job of a family. `depth` counts from the oldest; `source` is the number of the nearest one told of that the job goes back to."""

    job: Job
    depth: int
    source: int | None = None


@dataclass(frozen=True, slots=True)
class Lookalike:
    """A picture that looks like another one: which of a job's, and the cosine of the angle between their embeddings."""

    job: Job
    position: int
    cosine: float


class Album:
    """Finds earlier jobs and pictures. Results that were deleted or withheld are found by nobody."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._database: Database = history.database
        self._indexes: dict[str, Index] = {}
        self._using_index = asyncio.Lock()

    # Pages.

    async def page(self, scope: Scope, words: str = "", *, newest: int = 2**62, skip: int = 0, most: int) -> list[Job]:
        """Return the latest jobs of a scope up to the number `newest`, but for the first few; those whose prompts hold all the `words`, where given.

        The last word may be the beginning of one.
        """
        wheres, values = conditions(scope)
        source = "job"
        if (match := matching(scope, words)) is not None:
            source = "job_words JOIN job ON job.id = job_words.rowid"
            wheres, values = ["job_words MATCH ?", "job_words.rowid <= ?", *wheres], [match, newest, *values]
            order = "job_words.rowid"
        else:
            wheres, values = ["job.id <= ?", *wheres], [newest, *values]
            order = "job.id"
        query = f"SELECT job.id FROM {source} WHERE {' AND '.join(wheres)} ORDER BY {order} DESC LIMIT ? OFFSET ?"
        rows = await self._database.rows(query, *values, most, skip)
        return await self.jobs([row["id"] for row in rows])

    async def jobs(self, numbers: Sequence[int]) -> list[Job]:
        """Return jobs in the order of their numbers; those that are gone meanwhile are left out."""
        return [job for number in numbers if (job := await self._history.find(number)) is not None]

    # Families.

    async def family(self, job: Job) -> list[Relative]:
        """Return what a job goes back to and everything that goes back to that, each after what it goes back to; at most FAMILY_LIMIT jobs."""
        # Sources are older: whatever the rows say, no line runs in a circle.
        [oldest] = await self._database.rows(
            """
            WITH RECURSIVE line (id) AS (SELECT ? UNION ALL SELECT job.source FROM job JOIN line ON job.id = line.id WHERE job.source < job.id)
            SELECT min(id) AS id FROM line
            """,
            job.id,
        )
        # Deepest first is one branch after another; without a limit, SQLite would leave out that order.
        rows = await self._database.rows(
            f"""
            WITH RECURSIVE tree (id, depth, above, is_told) AS (
                SELECT id, 0, NULL, {TOLD} FROM job WHERE id = ? UNION ALL
                SELECT job.id, depth + 1, iif(is_told, tree.id, above), {TOLD} FROM job JOIN tree ON job.source = tree.id WHERE job.id > tree.id
                ORDER BY 2 DESC, 1 LIMIT -1
            )
            SELECT id, depth, above FROM tree WHERE is_told LIMIT ?
            """,
            oldest["id"],
            FAMILY_LIMIT,
        )
        found = {one.id: one for one in await self.jobs([row["id"] for row in rows])}
        return [Relative(found[row["id"]], row["depth"], row["above"]) for row in rows if row["id"] in found]

    async def result_of(self, job: Job) -> int | None:
        """Return the message that shows a job's result, where there is one."""
        rows = await self._database.rows("SELECT result_id FROM job WHERE id = ?", job.id)
        return (rows[0]["result_id"] or None) if rows else None

    # Likeness.

    async def embedding(self, job: Job, position: int) -> tuple[str, bytes] | None:
        """Return what a picture shows: the space and its embedding there."""
        rows = await self._database.rows(
            "SELECT space, vector FROM embedding JOIN picture ON picture.id = embedding.picture WHERE job = ? AND position = ?", job.id, position
        )
        return (rows[0]["space"], rows[0]["vector"]) if rows else None

    async def lookalikes(self, space: str, embedding: bytes, scope: Scope, most: int, *, without: Job | None = None) -> list[Lookalike]:
        """Return the pictures of a scope that are most alike to an embedding, one of each job, the most alike first."""
        bits = await aside(signature, embedding)

        def nearest(index: Index) -> list[int]:
            return index.nearest(bits, user_id=scope.user_id, guild_id=scope.guild_id, channels=scope.channels, adult=scope.adult)

        near = await self._search(space, nearest)
        marks = ", ".join("?" * len(near))
        wheres, values = conditions(scope)
        # A CROSS JOIN is done in this order; SQLite would go through all jobs of a server.
        rows = await self._database.rows(
            f"""
            SELECT picture.id, picture.job, picture.position, embedding.vector FROM picture
            CROSS JOIN embedding ON embedding.picture = picture.id CROSS JOIN job ON job.id = picture.job
            WHERE picture.id IN ({marks}) AND embedding.space = ? AND {" AND ".join(wheres)}
            """,
            *near,
            space,
            *values,
        )
        facts = {row["id"]: (row["job"], row["position"]) for row in rows if without is None or row["job"] != without.id}
        ordered = await aside(ranked, embedding, [(row["id"], row["vector"]) for row in rows if row["id"] in facts], len(facts))
        best: dict[int, tuple[int, float]] = {}
        for picture, cosine in ordered:
            number, position = facts[picture]
            best.setdefault(number, (position, cosine))
        numbers = list(best)[:most]
        return [Lookalike(job, *best[job.id]) for job in await self.jobs(numbers)]

    async def _search(self, space: str, function: Callable[[Index], T]) -> T:
        """Use the index of a space, which is read into memory when it is first needed."""
        async with self._using_index:
            index = self._indexes.get(space)
            if index is None:
                index = Index()
                newest = 0
                while rows := await self._entries(space, newest):
                    await aside(index.add, map(entry_of, rows))
                    newest = rows[-1]["picture"]
                self._indexes[space] = index
            return await aside(function, index)

    async def _entries(self, space: str, after: int) -> list[Row]:
        return await self._database.rows(
            """
            SELECT signature.picture, bits, job.user_id, job.guild_id, job.channel_id, job.is_adult FROM signature
            JOIN picture ON picture.id = signature.picture JOIN job ON job.id = picture.job
            WHERE signature.picture > ? AND signature.space = ? AND removed_by IS NULL AND withheld = 0 ORDER BY signature.picture LIMIT ?
            """,
            after,
            space,
            LOADED_AT_ONCE,
        )

    async def painted(self, job: Job) -> None:
        """Let the pictures of a job be found by likeness."""
        rows = await self._database.rows(
            "SELECT signature.picture, bits, space FROM signature JOIN picture ON picture.id = signature.picture WHERE job = ?", job.id
        )
        async with self._using_index:
            for row in rows:
                if (index := self._indexes.get(row["space"])) is not None:
                    origin = job.origin
                    entry = Entry(row["picture"], row["bits"], origin.user_id, origin.guild_id or 0, origin.channel_id, origin.is_adult)
                    await aside(index.add, [entry])

    async def forget(self, pictures: Sequence[int]) -> None:
        """Let pictures no longer be found by likeness."""
        async with self._using_index:
            for index in self._indexes.values():
                await aside(index.remove, pictures)


def entry_of(row: Row) -> Entry:
    """Return a row of the index."""
    return Entry(row["picture"], row["bits"], row["user_id"], row["guild_id"] or 0, row["channel_id"], bool(row["is_adult"]))


def conditions(scope: Scope) -> tuple[list[str], list[object]]:
    """Return what rows of a scope fulfil, and the values for it."""
    wheres = [TOLD]
    values: list[object] = []
    if scope.user_id is not None:
        wheres.append("job.user_id = ?")
        values.append(scope.user_id)
    if scope.guild_id is not None:
        # A plus keeps SQLite from going through a server's jobs in search of a person's.
        wheres.append("job.guild_id = ?" if scope.user_id is None else "+job.guild_id = ?")
        values.append(scope.guild_id)
    if scope.channels is not None:
        wheres.append("job.channel_id IN (SELECT value FROM json_each(?))")
        values.append(json.dumps(sorted(scope.channels)))
    if not scope.adult:
        wheres.append("is_adult = 0")
    return wheres, values


def matching(scope: Scope, words: str) -> str | None:
    """Return a query of SQLite's full-text search for jobs of a scope whose prompts hold all words; None where there is no word in them."""
    found = WORD.findall(searchable(words))
    if not found:
        return None
    # What a word may hold has no meaning in quotes.
    prompts = " AND ".join([*(f'"{word}"' for word in found[:-1]), f'"{found[-1]}" *'])
    person, server = owners(scope.user_id or 0, scope.guild_id).split()
    whose = person if scope.user_id is not None else server
    return f'owner : "{whose}" AND prompt : ({prompts})'
