"""The bot's memory on disk: one SQLite database and the folder that it lies in, for whoever keeps facts in it. The schema and its migrations."""

import asyncio
import contextlib
import fcntl
import io
import re
import sqlite3
import unicodedata
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import quote

import aiosqlite

from engine.errors import InUse, Misconfigured

Row = sqlite3.Row

NAME = "reverie.db"
CHECKED_PAGES = 65_536
"""Of 4 KiB: a larger database is not read from end to end at each start, which may take minutes; `bot.py --doctor` does."""
QUICK_CHECK = "PRAGMA quick_check(1)"
"""Reads a database from end to end and tells of the first damage."""
BUSY_S = 60.0
"""What reads the database at the same time, such as a backup, is waited for so long."""
WITHOUT_SPACES = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]|[\U00020000-\U0003ffff]")
"""Thai, Lao, Burmese, Khmer, Chinese, Japanese, Korean: scripts in which words are not, or not only, parted by spaces."""
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
    # 4. What a community keeps: what goes back to what, what pictures show, words to search for, settings, the gallery, moderation.
    """
    ALTER TABLE job ADD COLUMN source INTEGER REFERENCES job (id);
    ALTER TABLE job ADD COLUMN is_adult INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE job ADD COLUMN notes TEXT NOT NULL DEFAULT '[]';
    ALTER TABLE job ADD COLUMN withheld INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE job ADD COLUMN asked_model TEXT NOT NULL DEFAULT '';
    UPDATE job SET source = (SELECT picture.job FROM picture WHERE picture.id = job.parent);
    CREATE INDEX job_source ON job (source);
    CREATE INDEX job_parent ON job (parent);
    CREATE INDEX job_image ON job (image);
    CREATE INDEX job_mask ON job (mask);
    CREATE INDEX job_result ON job (result_id);
    CREATE INDEX job_kept_user ON job (user_id, id) WHERE seconds IS NOT NULL AND removed_by IS NULL;
    CREATE INDEX job_kept_guild ON job (guild_id, id, channel_id, is_adult, withheld) WHERE seconds IS NOT NULL AND removed_by IS NULL;
    CREATE VIRTUAL TABLE job_words USING fts5 (prompt, owner, content='', prefix='2 3', tokenize='unicode61 remove_diacritics 2');
    INSERT INTO job_words (rowid, prompt, owner) SELECT id, searchable(prompt), owners(user_id, guild_id) FROM job;
    CREATE TABLE embedding (picture INTEGER PRIMARY KEY REFERENCES picture (id), space TEXT NOT NULL, vector BLOB NOT NULL) STRICT;
    CREATE TABLE signature (picture INTEGER PRIMARY KEY REFERENCES picture (id), space TEXT NOT NULL, bits BLOB NOT NULL) STRICT;
    CREATE TABLE preference (
        scope TEXT NOT NULL, subject INTEGER NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (scope, subject, name)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE share (
        picture INTEGER PRIMARY KEY REFERENCES picture (id),
        guild_id INTEGER NOT NULL,
        user_id INTEGER NOT NULL,
        shared_at REAL NOT NULL,
        rating REAL NOT NULL DEFAULT 1500,
        votes INTEGER NOT NULL DEFAULT 0,
        channel_id INTEGER,
        message_id INTEGER
    ) STRICT;
    CREATE INDEX share_guild ON share (guild_id, rating);
    CREATE INDEX share_message ON share (message_id);
    CREATE TABLE showing (
        message_id INTEGER PRIMARY KEY, channel_id INTEGER NOT NULL, picture INTEGER NOT NULL REFERENCES picture (id)
    ) STRICT;
    CREATE INDEX showing_picture ON showing (picture);
    CREATE TABLE star (
        picture INTEGER NOT NULL REFERENCES picture (id), user_id INTEGER NOT NULL, message_id INTEGER NOT NULL,
        PRIMARY KEY (picture, user_id, message_id)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE left_star (message_id INTEGER NOT NULL, person TEXT NOT NULL, PRIMARY KEY (message_id, person)) STRICT, WITHOUT ROWID;
    CREATE INDEX star_user ON star (user_id);
    CREATE INDEX star_message ON star (message_id);
    CREATE TABLE vote (
        user_id INTEGER NOT NULL, first INTEGER NOT NULL REFERENCES picture (id), second INTEGER NOT NULL REFERENCES picture (id),
        PRIMARY KEY (user_id, first, second)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX vote_first ON vote (first);
    CREATE INDEX vote_second ON vote (second);
    CREATE TABLE ban (guild_id INTEGER NOT NULL, person TEXT NOT NULL, user_id INTEGER, reason TEXT NOT NULL, created_at REAL NOT NULL,
        PRIMARY KEY (guild_id, person)) STRICT, WITHOUT ROWID;
    CREATE TABLE report (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        guild_id INTEGER NOT NULL,
        job INTEGER NOT NULL REFERENCES job (id),
        user_id INTEGER,
        reason TEXT NOT NULL,
        channel_id INTEGER NOT NULL,
        message_id INTEGER NOT NULL,
        created_at REAL NOT NULL,
        posted_channel INTEGER,
        posted_message INTEGER,
        decision TEXT,
        decided_by INTEGER,
        decided_at REAL
    ) STRICT;
    CREATE INDEX report_open ON report (guild_id, id) WHERE decision IS NULL;
    CREATE INDEX report_job ON report (job);
    CREATE TABLE audit (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        guild_id INTEGER NOT NULL,
        user_id INTEGER,
        act TEXT NOT NULL,
        subject_id INTEGER,
        details TEXT NOT NULL,
        created_at REAL NOT NULL
    ) STRICT;
    CREATE INDEX audit_guild ON audit (guild_id, id);
    CREATE TABLE doomed (message_id INTEGER PRIMARY KEY, channel_id INTEGER NOT NULL) STRICT;
    """,
    # 5. How much work a picture is worth, and whether it goes on in its neighbours.
    """
    ALTER TABLE job ADD COLUMN preset TEXT NOT NULL DEFAULT 'balanced';
    ALTER TABLE job ADD COLUMN seamless INTEGER NOT NULL DEFAULT 0;
    """,
    # 6. What the prior is asked for, and what it alone comes to; requests that came over HTTP, where a person calls each by a name.
    """
    ALTER TABLE job ADD COLUMN candidates INTEGER;
    ALTER TABLE job ADD COLUMN prior_steps INTEGER;
    ALTER TABLE job ADD COLUMN prior_guidance REAL;
    CREATE TABLE embedded (job INTEGER PRIMARY KEY REFERENCES job (id), text BLOB NOT NULL, image BLOB NOT NULL) STRICT;
    CREATE TABLE prediction (
        job INTEGER PRIMARY KEY REFERENCES job (id),
        user_id INTEGER NOT NULL,
        name TEXT NOT NULL,
        words TEXT NOT NULL,
        webhook TEXT,
        events TEXT NOT NULL,
        error TEXT,
        is_closed INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE UNIQUE INDEX prediction_name ON prediction (user_id, name);
    CREATE INDEX prediction_open ON prediction (job) WHERE is_closed = 0;
    """,
    # 7. What only unCLIP can do: what pictures are made of and how far they go, and what a job comes to beside pictures, as JSON.
    """
    ALTER TABLE job ADD COLUMN prior_seed INTEGER;
    ALTER TABLE job ADD COLUMN before TEXT NOT NULL DEFAULT '';
    ALTER TABLE job ADD COLUMN strength REAL;
    ALTER TABLE job ADD COLUMN drift REAL NOT NULL DEFAULT 0;
    ALTER TABLE job ADD COLUMN step REAL;
    ALTER TABLE job ADD COLUMN outcome TEXT NOT NULL DEFAULT '{}';
    CREATE TABLE ingredient (
        job INTEGER NOT NULL REFERENCES job (id),
        position INTEGER NOT NULL,
        picture TEXT REFERENCES upload (hash),
        prompt TEXT NOT NULL,
        weight REAL NOT NULL,
        PRIMARY KEY (job, position)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX ingredient_picture ON ingredient (picture);
    """,
    # 8. Steps and guidance of each unet, as JSON lists, where more is asked than those of the base decoder.
    """
    ALTER TABLE job ADD COLUMN unet_steps TEXT;
    ALTER TABLE job ADD COLUMN unet_guidance TEXT;
    """,
)
"""Applied in order, never edited. `PRAGMA user_version` counts the applied ones."""

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


class Database:
    """One connection to `reverie.db` in a folder that no other bot may use meanwhile."""

    def __init__(self, folder: Path, connection: aiosqlite.Connection, lock: io.TextIOWrapper) -> None:
        self.folder = folder
        self._connection = connection
        self._lock = lock
        # One connection has one transaction: whoever writes waits for the writer before.
        self._writing = asyncio.Lock()

    @classmethod
    async def open(cls, folder: Path) -> Self:
        """Open the memory in `folder`, making it where there is none, and bring its schema up to date.

        Raises:
            Misconfigured: the folder cannot be written, another bot uses it, or the database is damaged or of a newer Reverie.
        """
        lock = take_lock(folder)
        try:
            connection = await connect(folder / NAME)
        except BaseException:
            lock.close()
            raise
        return cls(folder, connection, lock)

    async def close(self) -> None:
        """Close the database and let others have the folder."""
        await self._connection.close()
        self._lock.close()

    async def rows(self, query: str, *values: object) -> list[Row]:
        """Return everything that a query finds."""
        return list(await self._connection.execute_fetchall(query, values))

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """Write all of what a block writes, or nothing of it; no other writes come in between."""
        async with self._writing:
            try:
                yield
                await self._connection.commit()
            except BaseException:
                await self._connection.rollback()
                raise

    async def write(self, query: str, *values: object, **named: object) -> int:
        """Write inside a transaction, and return how many rows changed."""
        cursor = await self._connection.execute(query, named or values)
        return cursor.rowcount

    async def write_many(self, query: str, rows: Iterable[Iterable[object]]) -> None:
        """Write the same with many values, inside a transaction."""
        await self._connection.executemany(query, [tuple(row) for row in rows])

    async def change(self, query: str, *values: object) -> int:
        """Write in a transaction of its own, and return how many rows changed."""
        async with self.transaction():
            return await self.write(query, *values)

    async def insert(self, table: str, values: Mapping[str, object]) -> int:
        """Add a row inside a transaction, and return its id."""
        marks = ", ".join(f":{key}" for key in values)
        cursor = await self._connection.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", dict(values))
        assert cursor.lastrowid is not None
        return cursor.lastrowid


def searchable(text: str) -> str:
    """Return a text as its words are looked for: writing without spaces is taken apart into characters."""
    return WITHOUT_SPACES.sub(r" \g<0> ", unicodedata.normalize("NFC", text))


def owners(user_id: int, guild_id: int | None) -> str:
    """Return who may find a job, as words beside those of its prompt; who asks over HTTP has a negative id, and a word has no minus."""
    return f"{'u' if user_id >= 0 else 'h'}{abs(user_id)} g{guild_id or 0}"


def take_lock(folder: Path) -> io.TextIOWrapper:
    """Claim a folder for this process; the claim ends with the process, however it ends.

    Raises:
        InUse: another process has claimed it.
        Misconfigured: the folder cannot be written.
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
        raise InUse(f"Another Reverie is running on {folder}. Stop it, or set another 'data' in the settings.") from None
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
            database.row_factory = Row
            await database.execute("PRAGMA journal_mode = WAL")
            # An acknowledged job must survive a power cut, so every commit waits for the disk.
            await database.execute("PRAGMA synchronous = FULL")
            await database.execute("PRAGMA foreign_keys = ON")
            # Who asks to be forgotten is: what is deleted is overwritten.
            await database.execute("PRAGMA secure_delete = ON")
            [(pages,)] = await database.execute_fetchall("PRAGMA page_count")
            if pages <= CHECKED_PAGES:
                check_findings(await database.execute_fetchall(QUICK_CHECK))
            await migrate(database, path)
    except BaseException:
        await database.close()
        raise
    return database


def check_findings(rows: Iterable[Row]) -> None:
    """Make sure that QUICK_CHECK found nothing wrong.

    Raises:
        sqlite3.DatabaseError: the database is damaged.
    """
    [(finding,)] = rows
    if finding != "ok":
        raise sqlite3.DatabaseError(" ".join(str(finding).split()))


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
    check_version(version, path, len(migrations))
    # For the migration that fills the index of words.
    await database.create_function("searchable", 1, searchable, deterministic=True)
    await database.create_function("owners", 2, owners, deterministic=True)
    for number, script in enumerate(migrations[version:], start=version + 1):
        try:
            await database.executescript(f"BEGIN;{script}PRAGMA user_version = {number};COMMIT;")
        except sqlite3.Error:
            await database.rollback()
            raise
    return len(migrations) - version


@dataclass(frozen=True, slots=True)
class Findings:
    """What is found in a folder: whether a bot runs on it, and of its database the schema, 0 where there is none, and the texts under their keys."""

    is_in_use: bool
    schema: int
    memory: Mapping[str, str]


def examine(folder: Path) -> Findings:
    """Look at a folder and its database without changing what is in them, also while a bot runs on it; not for the event loop.

    Raises:
        Misconfigured: the folder cannot be written, or the database is damaged or of a newer Reverie.
    """
    try:
        take_lock(folder).close()
        is_in_use = False
    except InUse:
        is_in_use = True
    path = folder / NAME
    if not path.exists():
        return Findings(is_in_use, 0, {})
    with plain_errors(path), contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
        check_findings(database.execute(QUICK_CHECK))
        [(version,)] = database.execute("PRAGMA user_version")
        check_version(version, path)
        # The second migration is the one that makes it.
        memory = dict(database.execute("SELECT key, value FROM memory")) if version >= 2 else {}
    return Findings(is_in_use, version, memory)


def check_version(version: int, path: Path, known: int = len(MIGRATIONS)) -> None:
    """Make sure that this code knows the schema of a database.

    Raises:
        Misconfigured: it has seen more migrations than this code knows.
    """
    if version > known:
        raise Misconfigured(f"{path} was written by a newer Reverie (schema {version}, known {known}). Update, or set another 'data'.")


def rewrite(path: Path) -> None:
    """Write a database anew: where SQLite moved rows from page to page, it left copies behind, which no deletion overwrites."""
    with contextlib.closing(sqlite3.connect(path, timeout=BUSY_S)) as database:
        database.execute("VACUUM")
        database.execute("PRAGMA wal_checkpoint (TRUNCATE)").fetchall()


def copy_database(source: Path, target: Path) -> list[str]:
    """Write a copy of a database, also while a bot writes there, that holds nothing of what was deleted; return the paths of its pictures.

    Raises:
        Misconfigured: the database cannot be read.
        OSError: the copy cannot be written.
    """
    with plain_errors(source), contextlib.closing(sqlite3.connect(f"file:{quote(str(source))}?mode=ro", uri=True, timeout=BUSY_S)) as database:
        database.execute("SELECT count(*) FROM picture").fetchall()
        try:
            database.execute("VACUUM INTO ?", (str(target),))
        except sqlite3.OperationalError as error:
            # It can be read, so it is the copy that cannot be written.
            raise OSError(str(error)) from None
    try:
        with contextlib.closing(sqlite3.connect(target)) as copy:
            return [path for (path,) in copy.execute("SELECT path FROM picture")]
    except sqlite3.Error as error:
        raise OSError(str(error)) from None
