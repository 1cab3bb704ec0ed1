"""What people and operators may have done with what is remembered: exported, erased, forgotten after a while, backed up."""

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.database import NAME, Database, Row, copy_database, owners, rewrite, searchable
from engine.errors import Misconfigured
from engine.gallery import doom_results
from engine.history import UNUSED_UPLOADS, History, hashed
from engine.jobs import UNFINISHED
from engine.worker import aside

DAY_S = 24 * 3600
AT_ONCE = 500
"""Jobs that are forgotten in one transaction: others wait meanwhile."""
SECRET = ("token", "token_expires_at")
"""Columns of a job that no export holds: they open Discord."""
OWN = {
    "drafts": "SELECT * FROM draft WHERE user_id = ?",
    "ingredients": "SELECT ingredient.* FROM ingredient JOIN job ON job.id = ingredient.job WHERE user_id = ?",
    "predictions": "SELECT * FROM prediction WHERE user_id = ?",
    "settings": "SELECT name, value FROM preference WHERE scope = 'user' AND subject = ?",
    "shares": "SELECT * FROM share WHERE user_id = ?",
    "stars": "SELECT * FROM star WHERE user_id = ?",
    "votes": "SELECT * FROM vote WHERE user_id = ?",
    "reports": "SELECT * FROM report WHERE user_id = ?",
    "bans": "SELECT guild_id, reason, created_at FROM ban WHERE user_id = ?",
    "decisions": "SELECT * FROM audit WHERE user_id = ?1 OR subject_id = ?1",
}
"""What is known of a person beside their jobs."""


@dataclass(frozen=True, slots=True)
class Erased:
    """What was erased: so many jobs, and these pictures, which indexes in memory must forget too. `starred` are pictures that have a star less."""

    jobs: int
    pictures: tuple[int, ...]
    starred: tuple[int, ...] = ()


class Rights:
    """Exports and erases."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._database: Database = history.database

    async def export(self, user_id: int) -> tuple[dict[str, Any], list[tuple[str, Path | bytes]]]:
        """Return everything known of a person, as plain data, and files: their pictures, and those that they handed in, with names for them."""
        jobs = await self._database.rows("SELECT * FROM job WHERE user_id = ? ORDER BY id", user_id)
        pictures = await self._database.rows(
            "SELECT picture.* FROM picture JOIN job ON job.id = picture.job WHERE job.user_id = ? ORDER BY picture.job, position", user_id
        )
        uploads = await self._database.rows(
            """
            SELECT hash, data FROM upload WHERE hash IN (
                SELECT image FROM job WHERE user_id = ?1 UNION SELECT mask FROM job WHERE user_id = ?1
                UNION SELECT image FROM draft WHERE user_id = ?1 UNION SELECT mask FROM draft WHERE user_id = ?1
                UNION SELECT picture FROM ingredient JOIN job ON job.id = ingredient.job WHERE user_id = ?1
            )
            """,
            user_id,
        )
        known: dict[str, Any] = {"jobs": [plain(row) for row in jobs], "pictures": [plain(row) for row in pictures]}
        for name, query in OWN.items():
            known[name] = [plain(row) for row in await self._database.rows(query, user_id)]
        known["settings"] = {setting["name"]: json.loads(setting["value"]) for setting in known["settings"]}
        files: list[tuple[str, Path | bytes]] = [(row["path"], self._database.folder / row["path"]) for row in pictures]
        return known, files + [(f"handed-in/{row['hash'][:16]}.png", row["data"]) for row in uploads]

    async def erase_user(self, user_id: int) -> Erased:
        """Erase everything of a person: from the database, its indexes and its log, and from the disk. Their unfinished jobs must have ended.

        Messages that show their pictures are noted, without a name, to be deleted. What others made of their pictures stays, but cannot be painted
        again; a ban holds, by a hash that only says yes or no to an id.
        """
        erased = await self._erase_jobs("user_id = ?", user_id)
        key = await self._history.key()
        async with self._database.transaction():
            stars = await self._database.rows("SELECT picture, message_id FROM star WHERE user_id = ?", user_id)
            # Reactions stay on Discord's messages, and are not to be read in again.
            left = [(message, hashed(key, message, user_id)) for message in {star["message_id"] for star in stars} if message > 0]
            await self._database.write_many("INSERT OR IGNORE INTO left_star VALUES (?, ?)", left)
            for query in (
                "DELETE FROM draft WHERE user_id = ?",
                "DELETE FROM preference WHERE scope = 'user' AND subject = ?",
                "DELETE FROM star WHERE user_id = ?",
                "DELETE FROM vote WHERE user_id = ?",
                "UPDATE report SET user_id = NULL WHERE user_id = ?",
                "UPDATE report SET decided_by = NULL WHERE decided_by = ?",
                "UPDATE ban SET user_id = NULL WHERE user_id = ?",
                "UPDATE audit SET user_id = NULL WHERE user_id = ?",
                "UPDATE audit SET subject_id = NULL WHERE subject_id = ?",
                "UPDATE job SET removed_by = 0 WHERE removed_by = ?",
            ):
                await self._database.write(query, user_id)
            await self._database.write(UNUSED_UPLOADS)
        await self._leave_nothing()
        return replace(erased, starred=tuple(dict.fromkeys(star["picture"] for star in stars)))

    async def _leave_nothing(self) -> None:
        """Make sure that what was deleted is in no file any more. Nobody writes meanwhile; reading goes on."""
        async with self._database.transaction():
            await self._database.write("INSERT INTO job_words (job_words) VALUES ('optimize')")
        async with self._database.transaction():
            await aside(rewrite, self._database.folder / NAME)

    async def expire(self, guild_id: int, days: int) -> Erased:
        """Forget the jobs of a server that ended longer ago, but for what is shared; messages stay."""
        wheres = f"guild_id = ? AND finished_at < ? AND state NOT IN ({', '.join(repr(str(state)) for state in UNFINISHED)})"
        shared = "id NOT IN (SELECT picture.job FROM share JOIN picture ON picture.id = share.picture)"
        erased = await self._erase_jobs(f"{wheres} AND {shared}", guild_id, time.time() - days * DAY_S, messages=False)
        if erased.jobs:
            await self._leave_nothing()
        return erased

    async def erase_job(self, job_id: int) -> Erased:
        """Erase a job that has ended, with its pictures; what others made of them stays."""
        return await self._erase_jobs("id = ?", job_id, messages=False)

    async def _erase_jobs(self, where: str, *values: object, messages: bool = True) -> Erased:
        """Erase jobs with everything that hangs on them."""
        jobs = 0
        gone: list[int] = []
        while rows := await self._database.rows(f"SELECT * FROM job WHERE {where} ORDER BY id LIMIT {AT_ONCE}", *values):
            numbers = json.dumps([row["id"] for row in rows])
            pictures = [
                row["id"] for row in await self._database.rows("SELECT id FROM picture WHERE job IN (SELECT value FROM json_each(?))", numbers)
            ]
            # Files first: where this is interrupted, the next try still knows of them.
            for row in rows:
                await aside(remove_folder, self._database.folder / "pictures" / str(row["id"]))
            async with self._database.transaction():
                await self._cut_loose(numbers, json.dumps(pictures), messages)
                await self._database.write_many(
                    "INSERT INTO job_words (job_words, rowid, prompt, owner) VALUES ('delete', ?, ?, ?)",
                    [(row["id"], searchable(row["prompt"]), owners(row["user_id"], row["guild_id"])) for row in rows],
                )
                await self._database.write("DELETE FROM picture WHERE job IN (SELECT value FROM json_each(?))", numbers)
                await self._database.write("DELETE FROM job WHERE id IN (SELECT value FROM json_each(?))", numbers)
                await self._database.write(UNUSED_UPLOADS)
            jobs += len(rows)
            gone += pictures
        return Erased(jobs, tuple(gone))

    async def _cut_loose(self, jobs: str, pictures: str, messages: bool) -> None:
        """Take away whatever refers to jobs and their pictures, and copies of these in other people's jobs; only inside a transaction."""
        named = {"jobs": jobs, "pictures": pictures}
        of_jobs, of_pictures = "(SELECT value FROM json_each(:jobs))", "(SELECT value FROM json_each(:pictures))"
        telling = (
            # Where there is no result, the message that showed the progress says why, and repeats the prompt.
            f"SELECT message_id, channel_id FROM job WHERE id IN {of_jobs} AND message_id > 0 AND result_id IS NULL AND is_foreign = 0",
            f"SELECT posted_message, posted_channel FROM report WHERE job IN {of_jobs} AND posted_message NOT NULL",
        )
        if messages:
            await doom_results(self._database, jobs)
            for query in telling:
                await self._database.write(f"INSERT OR IGNORE INTO doomed (message_id, channel_id) {query}", **named)
        # What was handed in for a job is in every job that repeats it, whoever asked for that.
        line = f"""
            WITH RECURSIVE line (id) AS (
                SELECT id FROM job WHERE source IN {of_jobs} UNION SELECT job.id FROM job JOIN line ON job.source = line.id
            )
        """
        repeats = f"""
            {line} UPDATE job SET image = iif(image IN (SELECT image FROM job WHERE id IN {of_jobs} AND parent IS NULL), NULL, image),
                mask = iif(mask IN (SELECT mask FROM job WHERE id IN {of_jobs}), NULL, mask)
            WHERE id IN line AND id NOT IN {of_jobs}
        """
        ingredients = f"""
            {line} UPDATE ingredient SET picture = NULL
            WHERE job IN line AND job NOT IN {of_jobs} AND picture IN (SELECT picture FROM ingredient WHERE job IN {of_jobs})
        """
        for query in (
            repeats,
            ingredients,
            f"UPDATE job SET image = NULL, mask = NULL WHERE parent IN {of_pictures} AND id NOT IN {of_jobs}",
            f"UPDATE job SET parent = NULL WHERE parent IN {of_pictures}",
            f"UPDATE job SET source = NULL WHERE source IN {of_jobs}",
            f"DELETE FROM draft WHERE json_extract(content, '$.parent') IN {of_pictures} OR json_extract(content, '$.job') IN {of_jobs}",
            f"DELETE FROM report WHERE job IN {of_jobs}",
            f"DELETE FROM embedded WHERE job IN {of_jobs}",
            f"DELETE FROM ingredient WHERE job IN {of_jobs}",
            f"DELETE FROM prediction WHERE job IN {of_jobs}",
            f"DELETE FROM vote WHERE first IN {of_pictures} OR second IN {of_pictures}",
            *(f"DELETE FROM {table} WHERE picture IN {of_pictures}" for table in ("star", "share", "showing", "embedding", "signature")),
        ):
            await self._database.write(query, **named)


def plain(row: Row) -> dict[str, Any]:
    """Return a row as plain data, without secrets."""
    return {key: row[key] for key in row.keys() if key not in SECRET}


def remove_folder(folder: Path) -> None:
    """Delete a folder with what is in it, where there is one."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)


# Backups.


def back_up(data: Path, target: Path, tell: Callable[[str], None] = lambda text: None) -> int:
    """Make `target` hold what the memory in `data` holds now, also while a bot is writing there, and return how many pictures it holds.

    A folder that holds an earlier backup is brought up to date: only new pictures are copied, and what was erased is erased there too.

    Raises:
        Misconfigured: there is no memory in `data`, or the target cannot be written.
    """
    if not (data / NAME).exists():
        raise Misconfigured(f"{data / NAME} does not exist, so there is nothing to back up. Name the folder with 'data' in the settings.")
    try:
        target.mkdir(parents=True, exist_ok=True)
        if target.resolve() == data.resolve():
            raise Misconfigured(f"{target} is the data folder itself. Name another folder.")
        half_written = target / f"{NAME}.part"
        # Pictures of somebody else's that lie there are not to be deleted.
        is_backup = half_written.exists() or (target / NAME).exists()
        half_written.unlink(missing_ok=True)
        paths = [Path(path) for path in copy_database(data / NAME, half_written)]
        tell(f"{len(paths)} pictures")
        for path in unwanted(target, set(paths)) if is_backup else ():
            path.unlink()
        lost = sum(not copied(data / path, target / path) for path in paths)
        if lost:
            tell(f"{lost} of them were deleted meanwhile or are lost")
        for ending in ("-wal", "-shm"):
            # Where a bot used the backup and was killed, its log belongs to the earlier database.
            (target / f"{NAME}{ending}").unlink(missing_ok=True)
        half_written.replace(target / NAME)
        for folder in (target / "pictures").glob("*"):
            with contextlib.suppress(OSError):
                # Only empty ones can be removed.
                folder.rmdir()
    except OSError as error:
        raise Misconfigured(f"The backup in {target} cannot be written: {error.strerror or error}. Name another folder, or make room.") from None
    return len(paths) - lost


def unwanted(target: Path, wanted: set[Path]) -> Iterator[Path]:
    """Yield the files of an earlier backup that the memory no longer knows."""
    for path in sorted((target / "pictures").rglob("*")):
        if path.is_file() and path.relative_to(target) not in wanted:
            yield path


def copied(source: Path, target: Path) -> bool:
    """Copy a picture unless it is there; tell whether it is there now."""
    try:
        there = source.stat()
        if not target.exists() or target.stat().st_size != there.st_size or target.stat().st_mtime < there.st_mtime:
            target.parent.mkdir(parents=True, exist_ok=True)
            half_written = target.with_suffix(".part")
            shutil.copyfile(source, half_written)
            half_written.replace(target)
    except FileNotFoundError:
        return False
    return True
