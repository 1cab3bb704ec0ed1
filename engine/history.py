"""What is remembered: every job and every picture, in SQLite, and the pictures' files beside it. All the SQL is here."""

import asyncio
import contextlib
import fcntl
import hashlib
import io
import json
import logging
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiosqlite

from engine.errors import Misconfigured, Repeated
from engine.jobs import UNFINISHED, Job, Kind, Origin, Painting, Picture, Request, State

log = logging.getLogger(__name__)

MIGRATIONS = (
    # 1. Jobs as they were asked for and what became of them, and the pictures that came out.
    """
    CREATE TABLE job (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        kind TEXT NOT NULL,
        prompt TEXT NOT NULL,
        count INTEGER NOT NULL,
        seed INTEGER NOT NULL,
        steps INTEGER,
        guidance REAL,
        parent INTEGER REFERENCES picture (id),
        user_id INTEGER NOT NULL,
        channel_id INTEGER NOT NULL,
        guild_id INTEGER,
        spoiler INTEGER NOT NULL,
        token TEXT,
        token_expires_at REAL NOT NULL,
        message_id INTEGER,
        result_id INTEGER,
        state TEXT NOT NULL,
        error TEXT,
        model TEXT,
        used_steps INTEGER,
        used_guidance REAL,
        unknown_words TEXT,
        seconds REAL,
        created_at REAL NOT NULL,
        started_at REAL,
        finished_at REAL
    ) STRICT;
    CREATE TABLE picture (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        job INTEGER NOT NULL REFERENCES job (id),
        position INTEGER NOT NULL,
        seed INTEGER NOT NULL,
        path TEXT NOT NULL,
        width INTEGER NOT NULL,
        height INTEGER NOT NULL,
        UNIQUE (job, position)
    ) STRICT;
    """,
    # 2. A restart looks for the unfinished; what else the bot must not forget, such as which commands Discord knows.
    """
    CREATE INDEX job_state ON job (state, id);
    CREATE TABLE memory (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
    """,
    # 3. Pictures that people hand in, each once; requests that wait for a yes; what a job must know to answer anywhere, in any language, and once.
    """
    CREATE TABLE upload (hash TEXT PRIMARY KEY, data BLOB NOT NULL) STRICT;
    ALTER TABLE job ADD COLUMN image TEXT REFERENCES upload (hash);
    ALTER TABLE job ADD COLUMN mask TEXT REFERENCES upload (hash);
    ALTER TABLE job ADD COLUMN event_id INTEGER;
    ALTER TABLE job ADD COLUMN locale TEXT NOT NULL DEFAULT 'en-US';
    ALTER TABLE job ADD COLUMN file_limit INTEGER NOT NULL DEFAULT 10485760;
    ALTER TABLE job ADD COLUMN is_foreign INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE job ADD COLUMN asked_in INTEGER;
    ALTER TABLE job ADD COLUMN removed_by INTEGER;
    CREATE UNIQUE INDEX job_event ON job (event_id);
    CREATE INDEX job_user ON job (user_id, state);
    CREATE TABLE draft (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        user_id INTEGER NOT NULL,
        content TEXT NOT NULL,
        image TEXT REFERENCES upload (hash),
        mask TEXT REFERENCES upload (hash),
        created_at REAL NOT NULL
    ) STRICT;
    """,
)
"""Applied in order, never edited. `PRAGMA user_version` counts the applied ones."""

UPLOADS = "image.data AS image_data, mask.data AS mask_data"
JOIN_UPLOADS = "LEFT JOIN upload AS image ON image.hash = {table}.image LEFT JOIN upload AS mask ON mask.hash = {table}.mask"
JOBS = f"SELECT job.*, {UPLOADS} FROM job {JOIN_UPLOADS.format(table='job')}"
"""Jobs with the pictures that were handed in for them."""
USED_UPLOADS = " UNION ".join(f"SELECT {column} FROM {table} WHERE {column} NOT NULL" for table in ("job", "draft") for column in ("image", "mask"))
DRAFT_LIFE_S = 24 * 3600
"""A request that nobody confirmed for so long is forgotten."""
LATEST = 20
"""Jobs whose speed is taken as the speed of today."""
UNUSABLE = {
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
}
"""What SQLite says where the database may be sound and only cannot be used just now: nobody should be told to move it away."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A request that waits: `content` is what the asking cog wrote down, the pictures are files."""

    content: dict[str, Any]
    image: bytes | None
    mask: bytes | None


class History:
    """The memory of one bot: `reverie.db` and `pictures/` in one folder, which no other bot may use meanwhile."""

    def __init__(self, folder: Path, database: aiosqlite.Connection, lock: io.TextIOWrapper) -> None:
        self._folder = folder
        self._database = database
        self._lock = lock
        # One connection has one transaction: whoever writes waits for the writer before.
        self._writing = asyncio.Lock()

    @classmethod
    async def open(cls, folder: Path) -> "History":
        """Open the memory in `folder`, making it where there is none, and bring its schema up to date.

        Raises:
            Misconfigured: the folder cannot be written, another bot uses it, or the database is damaged or of a newer Reverie.
        """
        lock = take_lock(folder)
        path = folder / "reverie.db"
        try:
            database = await connect(path)
        except BaseException:
            lock.close()
            raise
        return cls(folder, database, lock)

    async def close(self) -> None:
        """Close the database and let others have the folder."""
        await self._database.close()
        self._lock.close()

    async def add(self, request: Request, origin: Origin, parent: int | None = None) -> Job:
        """Remember a new job; once this returns, no crash loses it. `parent` is the id of the picture that it goes back to.

        Raises:
            Repeated: a job was made of this very event before.
        """
        now = time.time()
        values = {
            "kind": request.kind,
            "prompt": request.prompt,
            "count": request.count,
            "seed": request.seed,
            "steps": request.steps,
            "guidance": request.guidance,
            "parent": parent,
            "user_id": origin.user_id,
            "channel_id": origin.channel_id,
            "guild_id": origin.guild_id,
            "spoiler": origin.spoiler,
            "token": origin.token,
            "token_expires_at": origin.token_expires_at,
            "event_id": origin.event_id,
            "locale": origin.locale,
            "file_limit": origin.file_limit,
            "is_foreign": origin.is_foreign,
            "asked_in": origin.asked_in,
            "state": State.WAITING,
            "created_at": now,
        }
        try:
            async with self._transaction():
                pictures = {"image": await self._keep(request.image), "mask": await self._keep(request.mask)}
                job_id = await self._insert("job", values | pictures)
        except sqlite3.IntegrityError as error:
            if "job.event_id" not in str(error):
                raise
            raise Repeated from None
        return Job(job_id, request, origin, now)

    async def _insert(self, table: str, values: Mapping[str, object]) -> int:
        marks = ", ".join(f":{key}" for key in values)
        cursor = await self._database.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", dict(values))
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    async def _keep(self, data: bytes | None) -> str | None:
        """Keep a picture that somebody handed in, once however often it is, and return its name; only inside a transaction."""
        if data is None:
            return None
        name = hashlib.sha256(data).hexdigest()
        await self._database.execute("INSERT OR IGNORE INTO upload VALUES (?, ?)", (name, data))
        return name

    async def add_draft(self, user_id: int, content: Mapping[str, Any], image: bytes | None = None, mask: bytes | None = None) -> int:
        """Remember a request that waits for a person's yes or for more details, and return its id; old ones are forgotten."""
        now = time.time()
        async with self._transaction():
            old = await self._database.execute("DELETE FROM draft WHERE created_at < ?", (now - DRAFT_LIFE_S,))
            if old.rowcount:
                await self._database.execute(f"DELETE FROM upload WHERE hash NOT IN ({USED_UPLOADS})")
            pictures = {"image": await self._keep(image), "mask": await self._keep(mask)}
            return await self._insert("draft", {"user_id": user_id, "content": json.dumps(content), "created_at": now} | pictures)

    async def find_draft(self, draft_id: int, user_id: int) -> Draft | None:
        """Return a person's draft, if it is still remembered."""
        rows = await self._rows(
            f"SELECT draft.content, {UPLOADS} FROM draft {JOIN_UPLOADS.format(table='draft')} WHERE draft.id = ? AND draft.user_id = ?",
            draft_id,
            user_id,
        )
        return Draft(json.loads(rows[0]["content"]), rows[0]["image_data"], rows[0]["mask_data"]) if rows else None

    async def drop_draft(self, draft_id: int) -> bool:
        """Forget a draft; tell whether it was there, so that of two who take it at once only one does."""
        async with self._transaction():
            cursor = await self._database.execute("DELETE FROM draft WHERE id = ?", (draft_id,))
        return cursor.rowcount > 0

    async def find(self, job_id: int) -> Job | None:
        """Return any job that was ever asked for, ended or not, without its pictures."""
        rows = await self._rows(f"{JOBS} WHERE job.id = ?", job_id) if 0 < job_id < 2**63 else []
        return job_of(rows[0]) if rows else None

    async def painting_of(self, job: Job) -> Painting | None:
        """Return what a job came to, with its pictures; None where there are none, or their files are lost."""
        rows = await self._rows("SELECT * FROM job WHERE id = ? AND seconds IS NOT NULL", job.id)
        return await self._painting(rows[0]) if rows else None

    async def picture_id(self, job: Job, position: int) -> int | None:
        """Return the id of one picture of a job, for use as a parent."""
        rows = await self._rows("SELECT id FROM picture WHERE job = ? AND position = ?", job.id, position)
        return rows[0]["id"] if rows else None

    async def parent_of(self, job: Job) -> int | None:
        """Return the id of the picture that a job goes back to."""
        rows = await self._rows("SELECT parent FROM job WHERE id = ?", job.id)
        return rows[0]["parent"] if rows else None

    async def untold(self, user_id: int) -> list[int]:
        """Return the ids of a person's jobs that are painted but could be posted nowhere, as far as the person doesn't know yet."""
        rows = await self._rows("SELECT id FROM job WHERE user_id = ? AND state = ? AND result_id IS NULL ORDER BY id", user_id, State.KEPT)
        return [row["id"] for row in rows]

    async def told(self, job_ids: Sequence[int]) -> None:
        """Remember that a person knows of results that are kept."""
        async with self._transaction():
            await self._database.executemany("UPDATE job SET result_id = 0 WHERE id = ?", [(job_id,) for job_id in job_ids])

    async def collected(self, job: Job) -> None:
        """Remember that the person has seen a result that was kept."""
        async with self._transaction():
            await self._database.execute("UPDATE job SET state = ?, result_id = 0 WHERE id = ? AND state = ?", (State.DELIVERED, job.id, State.KEPT))

    async def kept(self, job: Job) -> None:
        """Remember that a result could be posted nowhere, and waits for the person to ask for it."""
        await self._update(job, state=State.KEPT, finished_at=time.time(), token=None)

    async def removed(self, job: Job, user_id: int) -> None:
        """Remember who deleted a job's result."""
        await self._update(job, removed_by=user_id)

    async def unfinished(self) -> list[Job]:
        """Return the jobs that a crash or a stop left behind, oldest first.

        Painted ones come with their pictures and only wait to be delivered; all others, also those whose files are lost, wait again.
        """
        marks = ", ".join("?" * len(UNFINISHED))
        rows = await self._rows(f"{JOBS} WHERE job.state IN ({marks}) ORDER BY job.id", *UNFINISHED)
        jobs = [job_of(row) for row in rows]
        for job, row in zip(jobs, rows, strict=True):
            if row["state"] == State.PAINTED:
                job.painting = await self._painting(row)
                # Where a file is lost, the job is painted again.
                job.state = State.PAINTED if job.painting else State.WAITING
            else:
                job.state = State.WAITING
        return jobs

    async def _painting(self, row: sqlite3.Row) -> Painting | None:
        """Return what a painted job came to; None where one of its files cannot be read."""
        pictures = await self._rows("SELECT * FROM picture WHERE job = ? ORDER BY position", row["id"])
        try:
            files = [(self._folder / picture["path"]).read_bytes() for picture in pictures]
        except OSError as error:
            log.warning("job %d: a picture is lost: %s", row["id"], error)
            return None
        return Painting(
            tuple(Picture(png, p["seed"], p["width"], p["height"]) for png, p in zip(files, pictures, strict=True)),
            model=row["model"],
            steps=row["used_steps"],
            guidance=row["used_guidance"],
            seconds=row["seconds"],
            unknown_words=tuple(json.loads(row["unknown_words"])),
        )

    async def set_message(self, job: Job, message_id: int) -> None:
        """Remember which message shows a job's progress."""
        await self._update(job, message_id=message_id)

    async def start(self, job: Job) -> None:
        """Remember that a job is being painted."""
        await self._update(job, state=State.PAINTING, started_at=time.time())

    def store(self, job: Job, painting: Painting) -> None:
        """Write the pictures of a job to disk. Called on the engine thread, before `painted`; the loop never waits for the disk here.

        Raises:
            OSError: the disk is full or cannot be written.
        """
        folder = self._folder / "pictures" / str(job.id)
        folder.mkdir(parents=True, exist_ok=True)
        for position, picture in enumerate(painting.pictures):
            half_written = folder / f"{position}.part"
            with half_written.open("wb") as file:
                file.write(picture.png)
                file.flush()
                os.fsync(file.fileno())
            half_written.replace(self._folder / path_of(job, position))

    async def painted(self, job: Job, painting: Painting) -> None:
        """Remember what was painted, all or nothing."""
        rows = [
            (job.id, position, picture.seed, path_of(job, position), picture.width, picture.height)
            for position, picture in enumerate(painting.pictures)
        ]
        async with self._transaction():
            # A job whose files were lost is painted a second time.
            await self._database.execute("DELETE FROM picture WHERE job = ?", (job.id,))
            await self._database.executemany("INSERT INTO picture (job, position, seed, path, width, height) VALUES (?, ?, ?, ?, ?, ?)", rows)
            await self._set(
                job,
                state=State.PAINTED,
                model=painting.model,
                used_steps=painting.steps,
                used_guidance=painting.guidance,
                unknown_words=json.dumps(painting.unknown_words),
                seconds=painting.seconds,
            )

    async def delivered(self, job: Job, message_id: int) -> None:
        """Remember that the result was posted, and as which message (0 where it can't be known)."""
        await self._update(job, state=State.DELIVERED, result_id=message_id, finished_at=time.time(), token=None)

    async def failed(self, job: Job, reason: str) -> None:
        """Remember that a job ended without a result, and why."""
        await self._update(job, state=State.FAILED, error=reason, finished_at=time.time(), token=None)

    async def cancelled(self, job: Job) -> None:
        """Remember that a job was called off."""
        await self._update(job, state=State.CANCELLED, finished_at=time.time(), token=None)

    async def seconds_per_picture(self) -> float | None:
        """Return the median over the latest jobs; None before the first."""
        rows = await self._rows("SELECT seconds / count AS pace FROM job WHERE seconds IS NOT NULL ORDER BY id DESC LIMIT ?", LATEST)
        paces = sorted(row["pace"] for row in rows)
        return paces[len(paces) // 2] if paces else None

    async def recall(self, key: str) -> str | None:
        """Return what was remembered under a key."""
        rows = await self._rows("SELECT value FROM memory WHERE key = ?", key)
        return rows[0]["value"] if rows else None

    async def remember(self, key: str, value: str) -> None:
        """Remember one text under a key, in place of an earlier one."""
        async with self._transaction():
            await self._database.execute("INSERT INTO memory VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", (key, value))

    async def _update(self, job: Job, **values: object) -> None:
        async with self._transaction():
            await self._set(job, **values)

    async def _set(self, job: Job, **values: object) -> None:
        assignments = ", ".join(f"{key} = :{key}" for key in values)
        await self._database.execute(f"UPDATE job SET {assignments} WHERE id = :id", values | {"id": job.id})

    async def _rows(self, query: str, *values: object) -> list[sqlite3.Row]:
        return list(await self._database.execute_fetchall(query, values))

    @contextlib.asynccontextmanager
    async def _transaction(self) -> AsyncIterator[None]:
        async with self._writing:
            try:
                yield
                await self._database.commit()
            except BaseException:
                await self._database.rollback()
                raise


def path_of(job: Job, position: int) -> str:
    """Return where a picture lies, relative to the folder of the memory."""
    return f"pictures/{job.id}/{position}.png"


def job_of(row: sqlite3.Row) -> Job:
    """Rebuild a job from its row and uploads."""
    request = Request(
        row["prompt"],
        row["seed"],
        row["count"],
        row["steps"],
        row["guidance"],
        Kind(row["kind"]),
        row["image_data"],
        row["mask_data"],
    )
    origin = Origin(
        row["user_id"],
        row["channel_id"],
        row["guild_id"],
        row["token"],
        row["token_expires_at"],
        bool(row["spoiler"]),
        row["event_id"],
        row["locale"],
        row["file_limit"],
        bool(row["is_foreign"]),
        row["asked_in"],
    )
    return Job(row["id"], request, origin, row["created_at"], State(row["state"]), message_id=row["message_id"])


def take_lock(folder: Path) -> io.TextIOWrapper:
    """Claim a folder for this process; the claim ends with the process, however it ends.

    Raises:
        Misconfigured: the folder cannot be written, or another process has claimed it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "reverie.lock").open("w")
    except OSError as error:
        raise Misconfigured(f"The data folder {folder} cannot be written: {error.strerror}. Set another one as 'data' in the settings.") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise Misconfigured(f"Another Reverie is running on {folder}. Stop it, or set another 'data' in the settings.") from None
    except OSError as error:
        lock.close()
        raise Misconfigured(
            f"The data folder {folder} cannot be locked: {error.strerror}. Set one on a local disk as 'data' in the settings."
        ) from None
    return lock


async def connect(path: Path) -> aiosqlite.Connection:
    """Open and migrate a database; nothing stays open where that fails.

    Raises:
        Misconfigured: the file is no database, damaged, or was written by a newer Reverie.
    """
    with plain_errors(path):
        # Where its first step fails, aiosqlite leaves a thread behind that may outlive the loop: fail before it.
        sqlite3.connect(path).close()
        database = await aiosqlite.connect(path, timeout=10)
    try:
        with plain_errors(path):
            database.row_factory = sqlite3.Row
            await database.execute("PRAGMA journal_mode = WAL")
            # An acknowledged job must survive a power cut, so every commit waits for the disk.
            await database.execute("PRAGMA synchronous = FULL")
            await database.execute("PRAGMA foreign_keys = ON")
            [(finding,)] = await database.execute_fetchall("PRAGMA quick_check(1)")
            if finding != "ok":
                raise sqlite3.DatabaseError(" ".join(str(finding).split()))
            await migrate(database, path)
    except BaseException:
        await database.close()
        raise
    return database


@contextlib.contextmanager
def plain_errors(path: Path) -> Iterator[None]:
    """Turn what SQLite says of a file into a sentence for the operator."""
    try:
        yield
    except sqlite3.Error as error:
        # The lowest byte is the error, those above tell it in more detail; errors of the module itself have none.
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in UNUSABLE:
            raise Misconfigured(
                f"{path} cannot be used ({error}). See that it may be written, that the disk has room and that no other program holds it."
            ) from None
        raise Misconfigured(
            f"{path} is not a database that Reverie can read ({error}). Move it away to start afresh, or put a backup in its place."
        ) from None


async def migrate(database: aiosqlite.Connection, path: Path, migrations: tuple[str, ...] = MIGRATIONS) -> int:
    """Bring a database up to date, each migration all or nothing, and return how many ran.

    Raises:
        Misconfigured: it has seen more migrations than this code knows.
    """
    [row] = await database.execute_fetchall("PRAGMA user_version")
    version = int(row[0])
    if version > len(migrations):
        raise Misconfigured(f"{path} was written by a newer Reverie (schema {version}, known {len(migrations)}). Update, or set another 'data'.")
    for number, script in enumerate(migrations[version:], start=version + 1):
        try:
            await database.executescript(f"BEGIN;{script}PRAGMA user_version = {number};COMMIT;")
        except sqlite3.Error:
            await database.rollback()
            raise
    return len(migrations) - version
