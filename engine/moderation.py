"""What moderators decide: who is banned, what was reported and what became of it, and who did what."""

import json
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from engine.database import Database, Row
from engine.history import History, hashed
from engine.jobs import Job


class Decision(StrEnum):
    """What becomes of a report. These names are in the database: they stay."""

    DISMISSED = "dismissed"
    REMOVED = "removed"
    BANNED = "banned"


@dataclass(frozen=True, slots=True)
class Report:
    """A result that somebody reported; `message_id` is the message that showed it."""

    id: int
    guild_id: int
    job: int
    user_id: int | None
    reason: str
    channel_id: int
    message_id: int
    created_at: float
    decision: Decision | None


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the audit log. Who asked to be forgotten is None in it."""

    user_id: int | None
    act: str
    subject_id: int | None
    details: dict[str, Any]
    created_at: float


class Moderation:
    """Bans, reports and the audit log of every server. What is decided and that it was decided are written together."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._database: Database = history.database
        self._key = b""

    async def load(self) -> None:
        """Read what ids are hashed with."""
        self._key = await self._history.key()

    def person(self, guild_id: int, user_id: int) -> str:
        """Name a person in a server so that a ban holds when they asked to be forgotten, and nobody reads from it who they are."""
        return hashed(self._key, guild_id, user_id)

    # Bans.

    async def is_banned(self, guild_id: int, user_id: int) -> bool:
        """Tell whether a person may not use the bot in a server."""
        return bool(await self._database.rows("SELECT 1 FROM ban WHERE guild_id = ? AND person = ?", guild_id, self.person(guild_id, user_id)))

    async def ban(self, guild_id: int, user_id: int, by: int, reason: str) -> bool:
        """Let a person no longer use the bot in a server; tell whether that is new."""
        async with self._database.transaction():
            return await self._ban(guild_id, user_id, by, reason)

    async def _ban(self, guild_id: int, user_id: int, by: int, reason: str) -> bool:
        values = (guild_id, self.person(guild_id, user_id), user_id, reason, time.time())
        new = await self._database.write("INSERT OR IGNORE INTO ban VALUES (?, ?, ?, ?, ?)", *values) > 0
        if new:
            await self._note(guild_id, by, "ban", user_id, reason=reason)
        return new

    async def unban(self, guild_id: int, user_id: int, by: int) -> bool:
        """Let a person use the bot again; tell whether they were banned."""
        async with self._database.transaction():
            gone = await self._database.write("DELETE FROM ban WHERE guild_id = ? AND person = ?", guild_id, self.person(guild_id, user_id)) > 0
            if gone:
                await self._note(guild_id, by, "unban", user_id)
        return gone

    async def bans(self, guild_id: int, most: int) -> list[tuple[int | None, str, float]]:
        """Return who is banned from a server, why and since when, the latest first; who asked to be forgotten is None."""
        rows = await self._database.rows(
            "SELECT user_id, reason, created_at FROM ban WHERE guild_id = ? ORDER BY created_at DESC LIMIT ?", guild_id, most
        )
        return [(row["user_id"], row["reason"], row["created_at"]) for row in rows]

    # Reports.

    async def report(self, guild_id: int, job: Job, user_id: int, reason: str, channel_id: int, message_id: int) -> int | None:
        """Remember that somebody reported a result, and return the report's number; None where the same person did so before and nobody decided."""
        async with self._database.transaction():
            if await self._database.rows("SELECT 1 FROM report WHERE job = ? AND user_id = ? AND decision IS NULL", job.id, user_id):
                return None
            values = {"guild_id": guild_id, "job": job.id, "user_id": user_id, "reason": reason, "channel_id": channel_id}
            return await self._database.insert("report", values | {"message_id": message_id, "created_at": time.time()})

    async def posted(self, number: int, channel_id: int, message_id: int) -> None:
        """Remember which message tells the moderators of a report."""
        await self._database.change("UPDATE report SET posted_channel = ?, posted_message = ? WHERE id = ?", channel_id, message_id, number)

    async def reported(self, number: int) -> Report | None:
        """Return a report."""
        rows = await self._database.rows("SELECT * FROM report WHERE id = ?", number)
        return report_of(rows[0]) if rows else None

    async def open_reports(self, guild_id: int, most: int) -> list[Report]:
        """Return the reports of a server that nobody has decided, the oldest first."""
        rows = await self._database.rows("SELECT * FROM report WHERE guild_id = ? AND decision IS NULL ORDER BY id LIMIT ?", guild_id, most)
        return [report_of(row) for row in rows]

    async def count_open(self, guild_id: int) -> int:
        """Return how many reports of a server wait for a decision."""
        [row] = await self._database.rows("SELECT count(*) AS count FROM report WHERE guild_id = ? AND decision IS NULL", guild_id)
        return int(row["count"])

    async def decide(self, report: Report, by: int, decision: Decision, owner: int | None) -> bool:
        """Decide on every open report of the same result at once, `owner` is who had asked for it; tell whether there was one left to decide on."""
        async with self._database.transaction():
            decided = await self._database.write(
                "UPDATE report SET decision = ?, decided_by = ?, decided_at = ? WHERE guild_id = ? AND job = ? AND decision IS NULL",
                decision,
                by,
                time.time(),
                report.guild_id,
                report.job,
            )
            if decided:
                await self._note(report.guild_id, by, f"report {decision}", owner, job=report.job, report=report.id)
                if decision is Decision.BANNED and owner is not None:
                    await self._ban(report.guild_id, owner, by, report.reason)
        return decided > 0

    # The audit log.

    async def note(self, guild_id: int, user_id: int, act: str, subject_id: int | None = None, **details: object) -> None:
        """Write down who did what, to whom or what."""
        async with self._database.transaction():
            await self._note(guild_id, user_id, act, subject_id, **details)

    async def _note(self, guild_id: int, user_id: int, act: str, subject_id: int | None = None, **details: object) -> None:
        values = {"guild_id": guild_id, "user_id": user_id, "act": act, "subject_id": subject_id, "details": json.dumps(details)}
        await self._database.insert("audit", values | {"created_at": time.time()})

    async def log(self, guild_id: int, most: int, skip: int = 0) -> list[Entry]:
        """Return the audit log of a server, the latest first."""
        rows = await self._database.rows("SELECT * FROM audit WHERE guild_id = ? ORDER BY id DESC LIMIT ? OFFSET ?", guild_id, most, skip)
        return [Entry(row["user_id"], row["act"], row["subject_id"], json.loads(row["details"]), row["created_at"]) for row in rows]


def report_of(row: Row) -> Report:
    """Rebuild a report from its row."""
    return Report(
        row["id"],
        row["guild_id"],
        row["job"],
        row["user_id"],
        row["reason"],
        row["channel_id"],
        row["message_id"],
        row["created_at"],
        Decision(row["decision"]) if row["decision"] else None,
    )
