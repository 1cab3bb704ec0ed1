"""What people share: which pictures, how many stars they have, how they fare in votes, and where the gallery shows them.

Opinions are kept as they were given (who starred what, by which message; who voted how), and everything told of them is counted from that.
"""

import json
import random
import time
from dataclasses import dataclass

from engine.database import Database, Row
from engine.history import History, hashed
from engine.jobs import Job

FIRST_RATING = 1500.0
RATING_STEP = 32.0
"""Points that are at stake in one vote. Source: Elo 1978, "The Rating of Chessplayers"; 32 is the step for those with few games."""
RATING_SPREAD = 400.0
STAR_WORTH = 25.0
"""Rating points that one star counts for in the ranking: eight stars weigh as much as winning nine times of ten."""
BUTTON = 0
"""In the place of a message, for stars that were given by button."""

STARS = "(SELECT count(DISTINCT star.user_id) FROM star WHERE star.picture = share.picture AND star.user_id != share.user_id)"
"""One person's star counts once, whatever it was given by; one's own does not count."""
SHARES = f"""
SELECT share.*, {STARS} AS stars, picture.job, picture.position, job.is_adult, job.spoiler FROM share
JOIN picture ON picture.id = share.picture JOIN job ON job.id = picture.job
"""
VISIBLE = "job.removed_by IS NULL AND job.withheld = 0"


@dataclass(frozen=True, slots=True)
class Share:
    """A picture that its creator shares in a server. `message_id` is its entry in the gallery, in `channel_id`, where there is one.

    With a channel alone, an entry was being posted there, and may have been.
    """

    picture: int
    job: int
    position: int
    guild_id: int
    user_id: int
    stars: int
    rating: float
    votes: int
    is_adult: bool
    spoiler: bool
    channel_id: int | None
    message_id: int | None

    @property
    def score(self) -> float:
        """What the ranking goes by."""
        return self.rating + STAR_WORTH * self.stars


@dataclass(frozen=True, slots=True)
class Stats:
    """What a person or a server has made: jobs, pictures, seconds of painting; pictures shared and stars for them; people who asked."""

    jobs: int
    pictures: int
    seconds: float
    shared: int
    stars: int
    people: int


class Gallery:
    """Shared pictures of every server."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._database: Database = history.database

    # Sharing.

    async def share(self, picture: int, guild_id: int, user_id: int) -> bool:
        """Let a picture be shown in a server's gallery; tell whether that is new."""
        return (
            await self._database.change(
                "INSERT OR IGNORE INTO share (picture, guild_id, user_id, shared_at) VALUES (?, ?, ?, ?)", picture, guild_id, user_id, time.time()
            )
            > 0
        )

    async def withdraw(self, picture: int) -> Share | None:
        """Share a picture no longer, and return what was shared: its entry is for the caller to take away. Stars and votes for it are forgotten."""
        async with self._database.transaction():
            share = await self.find(picture)
            for table, column in (("vote", "first"), ("vote", "second"), ("star", "picture"), ("share", "picture")):
                await self._database.write(f"DELETE FROM {table} WHERE {column} = ?", picture)
            if share is not None and share.message_id is not None and share.channel_id is not None:
                await self._doom(share.channel_id, share.message_id)
                await self._unshow(share.message_id)
        return share

    async def find(self, picture: int) -> Share | None:
        """Return a shared picture."""
        rows = await self._database.rows(f"{SHARES} WHERE share.picture = ?", picture)
        return share_of(rows[0]) if rows else None

    async def of_job(self, job: Job) -> list[Share]:
        """Return what of a job is shared."""
        rows = await self._database.rows(f"{SHARES} WHERE picture.job = ? ORDER BY picture.position", job.id)
        return [share_of(row) for row in rows]

    async def of_server(self, guild_id: int) -> list[Share]:
        """Return everything that a server shares."""
        rows = await self._database.rows(f"{SHARES} WHERE share.guild_id = ? ORDER BY share.picture", guild_id)
        return [share_of(row) for row in rows]

    async def servers(self) -> list[int]:
        """Return the servers that share anything."""
        return [row["guild_id"] for row in await self._database.rows("SELECT DISTINCT guild_id FROM share ORDER BY 1")]

    async def is_visible(self, share: Share) -> bool:
        """Tell whether the result that a picture is of still stands: it was neither deleted nor withheld."""
        return bool(await self._database.rows(f"SELECT 1 FROM job WHERE id = ? AND {VISIBLE}", share.job))

    # Entries.

    async def posting(self, picture: int, channel_id: int) -> None:
        """Remember that an entry is being posted: should its id never be noted, it is to be looked for there."""
        await self._database.change("UPDATE share SET channel_id = ? WHERE picture = ?", channel_id, picture)

    async def posted(self, picture: int, channel_id: int, message_id: int) -> None:
        """Remember a picture's entry in the gallery; where it is shared no longer, the entry is to be taken away."""
        async with self._database.transaction():
            if await self._database.write("UPDATE share SET channel_id = ?, message_id = ? WHERE picture = ?", channel_id, message_id, picture):
                await self._show(message_id, channel_id, picture)
            else:
                await self._doom(channel_id, message_id)

    async def vanished(self, picture: int) -> None:
        """Remember that a picture has no entry; stars that were given by it are gone with it."""
        async with self._database.transaction():
            rows = await self._database.rows("SELECT message_id FROM share WHERE picture = ? AND message_id IS NOT NULL", picture)
            await self._database.write("UPDATE share SET channel_id = NULL, message_id = NULL WHERE picture = ?", picture)
            for row in rows:
                await self._unshow(row["message_id"])

    async def unlisted(self, share: Share) -> None:
        """Remember that an entry is to be taken away."""
        if share.channel_id is None or share.message_id is None:
            return
        async with self._database.transaction():
            await self._doom(share.channel_id, share.message_id)
            await self._database.write("UPDATE share SET channel_id = NULL, message_id = NULL WHERE picture = ?", share.picture)
            await self._unshow(share.message_id)

    async def _doom(self, channel_id: int, message_id: int) -> None:
        await self._database.write("INSERT OR IGNORE INTO doomed VALUES (?, ?)", message_id, channel_id)

    async def doom(self, job: Job, *more: tuple[int, int]) -> None:
        """Note that every message that shows a result is to be deleted, and `more` (channel and message)."""
        async with self._database.transaction():
            await doom_results(self._database, json.dumps([job.id]))
            for channel_id, message_id in more:
                await self._doom(channel_id, message_id)

    async def doomed(self) -> list[tuple[int, int]]:
        """Return the messages that are to be deleted: channel and message."""
        rows = await self._database.rows("SELECT channel_id, message_id FROM doomed ORDER BY message_id")
        return [(row["channel_id"], row["message_id"]) for row in rows]

    async def gone(self, message_id: int) -> None:
        """Remember that a message to be deleted is no more."""
        await self._database.change("DELETE FROM doomed WHERE message_id = ?", message_id)

    # What messages show, and stars.

    async def shown(self, message_id: int, channel_id: int, picture: int) -> None:
        """Remember that a message shows one picture alone: stars on it are for that one. Where the picture was erased, the message is to go too."""
        async with self._database.transaction():
            await self._show(message_id, channel_id, picture)

    async def _show(self, message_id: int, channel_id: int, picture: int) -> None:
        query = "INSERT OR REPLACE INTO showing SELECT ?, ?, id FROM picture WHERE id = ?"
        if not await self._database.write(query, message_id, channel_id, picture):
            await self._doom(channel_id, message_id)

    async def _unshow(self, message_id: int) -> None:
        await self._database.write("DELETE FROM showing WHERE message_id = ?", message_id)
        await self._database.write("DELETE FROM star WHERE message_id = ?", message_id)

    async def picture_in(self, message_id: int) -> int | None:
        """Return the picture that a message shows alone."""
        rows = await self._database.rows("SELECT picture FROM showing WHERE message_id = ?", message_id)
        if not rows:
            rows = await self._database.rows(
                "SELECT picture.id AS picture FROM job JOIN picture ON picture.job = job.id WHERE result_id = ? AND count = 1", message_id
            )
        return rows[0]["picture"] if rows else None

    async def showings(self, picture: int) -> list[tuple[int, int]]:
        """Return the messages that show a picture alone: channel and message."""
        rows = await self._database.rows(
            """
            SELECT channel_id, message_id FROM showing WHERE picture = ?1 UNION
            SELECT channel_id, result_id FROM job JOIN picture ON picture.job = job.id WHERE picture.id = ?1 AND count = 1 AND result_id > 0
            """,
            picture,
        )
        return [(row["channel_id"], row["message_id"]) for row in rows]

    async def showings_in(self, guild_id: int, channel_id: int) -> list[tuple[int, int]]:
        """Return the messages in a channel that show one picture alone that a server shares: picture and message."""
        rows = await self._database.rows(
            """
            SELECT showing.picture, showing.message_id FROM showing JOIN share ON share.picture = showing.picture
            WHERE share.guild_id = ?1 AND showing.channel_id = ?2 UNION
            SELECT share.picture, result_id FROM share JOIN picture ON picture.id = share.picture JOIN job ON job.id = picture.job
            WHERE share.guild_id = ?1 AND job.channel_id = ?2 AND count = 1 AND result_id > 0
            """,
            guild_id,
            channel_id,
        )
        return [(row["picture"], row["message_id"]) for row in rows]

    async def star(self, picture: int, user_id: int, message_id: int = BUTTON) -> bool:
        """Note a star; tell whether it is a new one."""
        person = hashed(await self._history.key(), message_id, user_id)
        async with self._database.transaction():
            await self._database.write("DELETE FROM left_star WHERE message_id = ? AND person = ?", message_id, person)
            return (
                await self._database.write("INSERT OR IGNORE INTO star SELECT id, ?, ? FROM picture WHERE id = ?", user_id, message_id, picture) > 0
            )

    async def unstar(self, picture: int, user_id: int, message_id: int = BUTTON) -> bool:
        """Take a star back; tell whether there was one."""
        return await self._database.change("DELETE FROM star WHERE picture = ? AND user_id = ? AND message_id = ?", picture, user_id, message_id) > 0

    async def message_vanished(self, message_id: int) -> int | None:
        """Forget a message and the stars on it; return the picture that it showed."""
        picture = await self.picture_in(message_id)
        known = " UNION ALL ".join(f"SELECT 1 FROM {table} WHERE message_id = ?1" for table in ("showing", "star", "share", "doomed"))
        if not await self._database.rows(f"{known} LIMIT 1", message_id):
            # Most messages show no picture alone: nothing is written for them.
            return picture
        async with self._database.transaction():
            await self._unshow(message_id)
            await self._database.write("DELETE FROM doomed WHERE message_id = ?", message_id)
            await self._database.write("UPDATE share SET channel_id = NULL, message_id = NULL WHERE message_id = ?", message_id)
        return picture

    async def set_stars(self, picture: int, message_id: int, people: set[int]) -> None:
        """Make the stars on a message be those of these people: what happened while nobody listened is caught up with.

        People who asked to be forgotten are passed over, until they give a star anew.
        """
        key = await self._history.key()
        left = {row["person"] for row in await self._database.rows("SELECT person FROM left_star WHERE message_id = ?", message_id)}
        people = {person for person in people if hashed(key, message_id, person) not in left}
        async with self._database.transaction():
            await self._database.write("DELETE FROM star WHERE message_id = ?", message_id)
            rows = [(person, message_id, picture) for person in sorted(people)]
            await self._database.write_many("INSERT INTO star SELECT id, ?, ? FROM picture WHERE id = ?", rows)

    # Votes.

    async def pair(self, guild_id: int, user_id: int, adult: bool) -> tuple[Share, Share] | None:
        """Return two shared pictures for a person to choose between, of which they have not chosen and neither is theirs; None where there are none.

        Those with the fewest votes come first, and beside them one with a rating near theirs: there the answer says most.
        """
        rows = await self._database.rows(
            f"{SHARES} WHERE share.guild_id = ? AND share.user_id != ? AND {VISIBLE} AND (job.is_adult = 0 OR ?) ORDER BY votes, random() LIMIT 50",
            guild_id,
            user_id,
            adult,
        )
        shares = [share_of(row) for row in rows]
        for one in shares:
            for other in sorted(shares, key=lambda share, one=one: abs(share.rating - one.rating)):  # type: ignore[misc] # a default is a value too
                if other.picture != one.picture and not await self._has_voted(user_id, one.picture, other.picture):
                    return (one, other) if random.random() < 0.5 else (other, one)
        return None

    async def _has_voted(self, user_id: int, one: int, other: int) -> bool:
        first, second = sorted((one, other))
        return bool(await self._database.rows("SELECT 1 FROM vote WHERE user_id = ? AND first = ? AND second = ?", user_id, first, second))

    async def vote(self, user_id: int, winner: int, loser: int) -> bool:
        """Note which of two pictures somebody found better, once; tell whether it counts: both must still be shared, and neither be theirs."""
        first, second = sorted((winner, loser))
        async with self._database.transaction():
            rows = await self._database.rows("SELECT picture, rating, user_id FROM share WHERE picture IN (?, ?)", winner, loser)
            ratings = {row["picture"]: row["rating"] for row in rows if row["user_id"] != user_id}
            if len(ratings) < 2 or not await self._database.write("INSERT OR IGNORE INTO vote VALUES (?, ?, ?)", user_id, first, second):
                return False
            gain = RATING_STEP * (1 - expected(ratings[winner], ratings[loser]))
            await self._database.write("UPDATE share SET rating = rating + ?, votes = votes + 1 WHERE picture = ?", gain, winner)
            await self._database.write("UPDATE share SET rating = rating - ?, votes = votes + 1 WHERE picture = ?", gain, loser)
        return True

    # Rankings.

    async def best(self, guild_id: int, most: int, adult: bool) -> list[Share]:
        """Return the shared pictures of a server that rank highest."""
        rows = await self._database.rows(
            f"{SHARES} WHERE share.guild_id = ? AND {VISIBLE} AND (job.is_adult = 0 OR ?) ORDER BY rating + ? * stars DESC, share.picture LIMIT ?",
            guild_id,
            adult,
            STAR_WORTH,
            most,
        )
        return [share_of(row) for row in rows]

    async def creators(self, guild_id: int, most: int) -> list[tuple[int, int, int]]:
        """Return who gets the most stars in a server: person, stars, shared pictures."""
        rows = await self._database.rows(
            f"""
            SELECT user_id, sum(stars) AS stars, count(*) AS shared FROM (SELECT share.user_id, {STARS} AS stars FROM share WHERE guild_id = ?)
            GROUP BY user_id ORDER BY 2 DESC, 3 DESC, 1 LIMIT ?
            """,
            guild_id,
            most,
        )
        return [(row["user_id"], row["stars"], row["shared"]) for row in rows]

    async def stats(self, *, user_id: int | None = None, guild_id: int | None = None) -> Stats:
        """Return what a person, a server, or a person in a server has made."""
        wheres = [f"{{table}}.{name} = ?" for name, value in (("user_id", user_id), ("guild_id", guild_id)) if value is not None]
        values = [value for value in (user_id, guild_id) if value is not None]
        of_jobs, of_shares = (" AND ".join(wheres).format(table=table) or "1" for table in ("job", "share"))
        [made] = await self._database.rows(
            f"""
            SELECT count(*) AS jobs, coalesce(sum(count), 0) AS pictures, coalesce(sum(seconds), 0.0) AS seconds, count(DISTINCT user_id) AS people
            FROM job WHERE seconds IS NOT NULL AND {of_jobs}
            """,
            *values,
        )
        [shown] = await self._database.rows(f"SELECT count(*) AS shared, coalesce(sum({STARS}), 0) AS stars FROM share WHERE {of_shares}", *values)
        return Stats(made["jobs"], made["pictures"], made["seconds"], shown["shared"], shown["stars"], made["people"])


async def doom_results(database: Database, jobs: str) -> None:
    """Note that every message that shows a result is to be deleted, whole or one picture of it; `jobs` are numbers in JSON. Inside a transaction."""
    of_jobs = "(SELECT value FROM json_each(?))"
    of_pictures = f"(SELECT id FROM picture WHERE job IN {of_jobs})"
    for query in (
        f"SELECT result_id, channel_id FROM job WHERE id IN {of_jobs} AND result_id > 0 AND is_foreign = 0",
        f"SELECT message_id, channel_id FROM showing WHERE picture IN {of_pictures}",
        f"SELECT message_id, channel_id FROM share WHERE picture IN {of_pictures} AND message_id NOT NULL",
    ):
        await database.write(f"INSERT OR IGNORE INTO doomed (message_id, channel_id) {query}", jobs)


def expected(rating: float, other: float) -> float:
    """Return the chance of winning that two ratings say."""
    return 1 / (1 + 10 ** ((other - rating) / RATING_SPREAD))


def share_of(row: Row) -> Share:
    """Rebuild a share from its row."""
    return Share(
        row["picture"],
        row["job"],
        row["position"],
        row["guild_id"],
        row["user_id"],
        row["stars"],
        row["rating"],
        row["votes"],
        bool(row["is_adult"]),
        bool(row["spoiler"]),
        row["channel_id"],
        row["message_id"],
    )
