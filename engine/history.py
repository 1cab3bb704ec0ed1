"""What is remembered of jobs and their pictures, in SQLite, and the pictures' files beside it."""

import hashlib
import hmac
import json
import logging
import os
import secrets
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from engine.database import Database, Row, owners, searchable
from engine.errors import Repeated
from engine.jobs import UNFINISHED, Drawn, Embedding, Ingredient, Job, Kind, Origin, Painting, Picture, Prediction, Preset, Request, State
from engine.similar import signature
from engine.verdicts import Finding, Verdict

log = logging.getLogger(__name__)

KEY = "key of bans"
"""Under which the memory keeps what ids are hashed with."""
UPLOADS = "image.data AS image_data, mask.data AS mask_data"
JOIN_UPLOADS = "LEFT JOIN upload AS image ON image.hash = {table}.image LEFT JOIN upload AS mask ON mask.hash = {table}.mask"
JOBS = f"""
    SELECT job.*, {UPLOADS}, prediction.name, prediction.words, prediction.webhook, prediction.events
    FROM job LEFT JOIN prediction ON prediction.job = job.id {JOIN_UPLOADS.format(table="job")}
"""
"""Jobs with the pictures that were handed in for them, and what is to be known of those that came over HTTP."""
PICTURES = "SELECT picture.*, embedding.space, embedding.vector FROM picture LEFT JOIN embedding ON embedding.picture = picture.id"
PLACES = (("job", "image"), ("job", "mask"), ("draft", "image"), ("draft", "mask"), ("ingredient", "picture"))
"""Tables and columns in which names of uploads stand."""
USED_UPLOADS = " UNION ".join(f"SELECT {column} FROM {table} WHERE {column} NOT NULL" for table, column in PLACES)
UNUSED_UPLOADS = f"DELETE FROM upload WHERE hash NOT IN ({USED_UPLOADS})"
"""Forgets what people handed in where nothing needs it any longer."""
ONCE = ("job.event_id", "prediction.name")
"""Columns that say of a job that it was asked for before."""
GONE = b"\0"
"""In the place of a picture that somebody handed in, where whose it was asked to be forgotten."""
DRAFT_LIFE_S = 24 * 3600
"""A request that nobody confirmed for so long is forgotten."""
LATEST = 20
"""Jobs whose speed is taken as the speed of today."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A request that waits: `content` is what the asking cog wrote down, the pictures are files."""

    content: dict[str, Any]
    image: bytes | None
    mask: bytes | None


class History:
    """The memory of one bot: `reverie.db` and `pictures/` in one folder, which no other bot may use meanwhile."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._folder = database.folder

    @classmethod
    async def open(cls, folder: Path) -> "History":
        """Open the memory in `folder`, making it where there is none, and bring its schema up to date.

        Raises:
            Misconfigured: the folder cannot be written, another bot uses it, or the database is damaged or of a newer Reverie.
        """
        return cls(await Database.open(folder))

    async def close(self) -> None:
        """Close the database and let others have the folder."""
        await self.database.close()

    async def add(self, request: Request, origin: Origin, parent: int | None = None, source: int | None = None) -> Job:
        """Remember a new job; once this returns, no crash loses it.

        `parent` is the id of the picture that it goes back to, `source` the id of the job; where only the picture is given, the job is its.

        Raises:
            Repeated: a job was made of this very event before.
        """
        now = time.time()
        values = {
            "kind": request.kind,
            "prompt": request.prompt,
            "count": request.count,
            "seed": request.seed,
            "steps": request.base_steps,
            "guidance": request.base_guidance,
            "unet_steps": written(request.steps),
            "unet_guidance": written(request.guidance),
            "asked_model": request.model,
            "preset": request.preset,
            "seamless": request.seamless,
            "candidates": request.candidates,
            "prior_steps": request.prior_steps,
            "prior_guidance": request.prior_guidance,
            "prior_seed": request.prior_seed,
            "before": request.before,
            "strength": request.strength,
            "drift": request.drift,
            "step": request.step,
            "parent": parent,
            "source": await self._job_of_picture(parent) if source is None and parent is not None else source,
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
            "is_adult": origin.is_adult,
            "notes": json.dumps(origin.notes),
            "state": State.WAITING,
            "created_at": now,
        }
        try:
            async with self.database.transaction():
                pictures = {"image": await self._keep(request.image), "mask": await self._keep(request.mask)}
                job_id = await self.database.insert("job", values | pictures)
                words = {"rowid": job_id, "prompt": searchable(request.prompt), "owner": owners(origin.user_id, origin.guild_id)}
                await self.database.insert("job_words", words)
                for position, one in enumerate(request.ingredients):
                    made_of: dict[str, object] = {"picture": await self._keep(one.picture), "prompt": one.prompt, "weight": one.weight}
                    await self.database.insert("ingredient", {"job": job_id, "position": position} | made_of)
                if origin.prediction is not None:
                    await self.database.insert("prediction", row_of(job_id, origin.user_id, origin.prediction))
        except sqlite3.IntegrityError as error:
            if not any(column in str(error) for column in ONCE):
                raise
            raise Repeated from None
        return Job(job_id, request, origin, now)

    async def _job_of_picture(self, picture: int) -> int | None:
        rows = await self.database.rows("SELECT job FROM picture WHERE id = ?", picture)
        return rows[0]["job"] if rows else None

    async def _keep(self, data: bytes | None) -> str | None:
        """Keep a picture that somebody handed in, once however often it is, and return its name; only inside a transaction."""
        if data is None:
            return None
        name = hashlib.sha256(data).hexdigest()
        await self.database.write("INSERT OR IGNORE INTO upload VALUES (?, ?)", name, data)
        return name

    async def handed_in(self, user_id: int, hashes: Sequence[str]) -> dict[str, bytes]:
        """Return the pictures that a person handed in earlier, by the beginnings of their SHA-256; those of others are none of theirs."""
        query = """
            WITH own (id) AS (SELECT id FROM job WHERE user_id = ?1 AND removed_by IS NULL)
            SELECT hash, data FROM upload WHERE substr(hash, 1, ?2) = ?3 AND hash IN (
                SELECT image FROM job WHERE id IN own UNION SELECT mask FROM job WHERE id IN own
                UNION SELECT picture FROM ingredient WHERE job IN own
            )
        """
        found = [(name, await self._rows(query, user_id, len(name), name)) for name in hashes if name]
        return {name: rows[0]["data"] for name, rows in found if rows}

    async def add_draft(self, user_id: int, content: Mapping[str, Any], image: bytes | None = None, mask: bytes | None = None) -> int:
        """Remember a request that waits for a person's yes or for more details, and return its id; old ones are forgotten."""
        now = time.time()
        async with self.database.transaction():
            if await self.database.write("DELETE FROM draft WHERE created_at < ?", now - DRAFT_LIFE_S):
                await self.database.write(UNUSED_UPLOADS)
            pictures = {"image": await self._keep(image), "mask": await self._keep(mask)}
            return await self.database.insert("draft", {"user_id": user_id, "content": json.dumps(content), "created_at": now} | pictures)

    async def find_draft(self, draft_id: int, user_id: int) -> Draft | None:
        """Return a person's draft, if it is still remembered."""
        rows = await self._rows(
            f"SELECT draft.content, {UPLOADS} FROM draft {JOIN_UPLOADS.format(table='draft')} WHERE draft.id = ? AND draft.user_id = ?"
            " AND draft.created_at > ?",
            draft_id,
            user_id,
            time.time() - DRAFT_LIFE_S,
        )
        return Draft(json.loads(rows[0]["content"]), rows[0]["image_data"], rows[0]["mask_data"]) if rows else None

    async def find_linked(self, draft_id: int) -> tuple[int, Draft] | None:
        """Return a draft and whose it is, for who can tell by something else that it may be seen."""
        rows = await self._rows("SELECT user_id FROM draft WHERE id = ?", draft_id)
        draft = await self.find_draft(draft_id, rows[0]["user_id"]) if rows else None
        return None if draft is None else (rows[0]["user_id"], draft)

    async def drop_draft(self, draft_id: int) -> bool:
        """Forget a draft; tell whether it was there, so that of two who take it at once only one does."""
        async with self.database.transaction():
            return await self.database.write("DELETE FROM draft WHERE id = ?", draft_id) > 0

    async def find(self, job_id: int) -> Job | None:
        """Return any job that was ever asked for, ended or not, without its pictures."""
        rows = await self._rows(f"{JOBS} WHERE job.id = ?", job_id) if 0 < job_id < 2**63 else []
        return job_of(rows[0], await self._ingredients(rows[0])) if rows else None

    async def _ingredients(self, row: Row) -> tuple[Ingredient, ...]:
        """Return what a job is made of."""
        query = "SELECT prompt, weight, data FROM ingredient LEFT JOIN upload ON hash = picture WHERE job = ? ORDER BY position"
        return tuple(
            Ingredient(None if one["prompt"] else one["data"] or GONE, one["prompt"], one["weight"]) for one in await self._rows(query, row["id"])
        )

    async def painting_of(self, job: Job) -> Painting | None:
        """Return what a job came to, with its pictures; None where there are none, they are withheld or were deleted, or their files are lost."""
        rows = await self._rows("SELECT * FROM job WHERE id = ? AND seconds IS NOT NULL AND withheld = 0 AND removed_by IS NULL", job.id)
        return await self._painting(rows[0]) if rows else None

    async def files(self, job: Job) -> list[tuple[str, Path]]:
        """Return the files of a job's pictures that may be shown, with names for them."""
        query = "SELECT path FROM picture JOIN job ON job.id = picture.job WHERE job.id = ? AND withheld = 0 AND removed_by IS NULL ORDER BY position"
        return [(row["path"], self._folder / row["path"]) for row in await self._rows(query, job.id)]

    async def picture_id(self, job: Job, position: int) -> int | None:
        """Return the id of one picture of a job, for use as a parent."""
        rows = await self._rows("SELECT id FROM picture WHERE job = ? AND position = ?", job.id, position)
        return rows[0]["id"] if rows else None

    async def picture_ids(self, job: Job) -> list[int]:
        """Return the ids of a job's pictures."""
        return [row["id"] for row in await self._rows("SELECT id FROM picture WHERE job = ? ORDER BY position", job.id)]

    async def parent_of(self, job: Job) -> int | None:
        """Return the id of the picture that a job goes back to."""
        rows = await self._rows("SELECT parent FROM job WHERE id = ?", job.id)
        return rows[0]["parent"] if rows else None

    async def facts(self, job: Job) -> dict[str, Any]:
        """Return what a job was painted with, and what it goes back to: the job, and which picture of which job; None where that is not known."""
        query = """
            SELECT job.model, used_steps, used_guidance, source, picture.job AS parent, picture.position FROM job
            LEFT JOIN picture ON picture.id = job.parent WHERE job.id = ?
        """
        rows = await self._rows(query, job.id)
        return dict(rows[0]) if rows else {}

    async def untold(self, user_id: int) -> list[int]:
        """Return the ids of a person's jobs that are painted but could be posted nowhere, as far as the person doesn't know yet."""
        rows = await self._rows("SELECT id FROM job WHERE user_id = ? AND state = ? AND result_id IS NULL ORDER BY id", user_id, State.KEPT)
        return [row["id"] for row in rows]

    async def told(self, job_ids: Sequence[int]) -> None:
        """Remember that a person knows of results that are kept."""
        async with self.database.transaction():
            await self.database.write_many("UPDATE job SET result_id = 0 WHERE id = ?", [(job_id,) for job_id in job_ids])

    async def collected(self, job: Job) -> None:
        """Remember that the person has seen a result that was kept."""
        async with self.database.transaction():
            await self.database.write("UPDATE job SET state = ?, result_id = 0 WHERE id = ? AND state = ?", State.DELIVERED, job.id, State.KEPT)

    async def kept(self, job: Job) -> None:
        """Remember that a result could be posted nowhere, and waits for the person to ask for it."""
        await self._update(job, state=State.KEPT, finished_at=time.time(), token=None)

    async def hidden(self, job: Job) -> None:
        """Remember that a job's pictures are under a spoiler, and what its card says of it."""
        await self._update(job, spoiler=True, notes=json.dumps(job.origin.notes))

    async def withheld(self, job: Job) -> None:
        """Remember that a job's pictures are shown to nobody."""
        await self._update(job, withheld=True)

    async def removed(self, job: Job, user_id: int) -> None:
        """Remember who deleted a job's result."""
        await self._update(job, removed_by=user_id)

    async def unfinished(self) -> list[Job]:
        """Return the jobs that a crash or a stop left behind, oldest first.

        Painted ones come with their pictures and only wait to be delivered; all others, also those whose files are lost, wait again.
        """
        marks = ", ".join("?" * len(UNFINISHED))
        rows = await self._rows(f"{JOBS} WHERE job.state IN ({marks}) ORDER BY job.id", *UNFINISHED)
        jobs = [job_of(row, await self._ingredients(row)) for row in rows]
        for job, row in zip(jobs, rows, strict=True):
            if row["state"] == State.PAINTED:
                job.painting = await self._painting(row)
                # Where a file is lost, the job is painted again.
                job.state = State.PAINTED if job.painting else State.WAITING
            else:
                job.state = State.WAITING
        return jobs

    async def _painting(self, row: Row) -> Painting | None:
        """Return what a painted job came to; None where one of its files cannot be read."""
        pictures = await self._rows(f"{PICTURES} WHERE picture.job = ? ORDER BY position", row["id"])
        try:
            files = [(self._folder / picture["path"]).read_bytes() for picture in pictures]
        except OSError as error:
            log.warning("job %d: a picture is lost: %s", row["id"], error)
            return None
        return Painting(
            tuple(Picture(png, p["seed"], p["width"], p["height"], p["vector"]) for png, p in zip(files, pictures, strict=True)),
            model=row["model"],
            steps=row["used_steps"],
            guidance=row["used_guidance"],
            seconds=row["seconds"],
            unknown_words=tuple(json.loads(row["unknown_words"])),
            space=next((p["space"] for p in pictures if p["space"] is not None), ""),
            embedding=next((Embedding(*pair) for pair in await self._rows("SELECT text, image FROM embedded WHERE job = ?", row["id"])), None),
            **outcome_of(row["outcome"]),
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
        async with self.database.transaction():
            # A job whose files were lost is painted a second time.
            for table in ("embedding", "signature"):
                await self.database.write(f"DELETE FROM {table} WHERE picture IN (SELECT id FROM picture WHERE job = ?)", job.id)
            if painting.embedding is not None:
                await self.database.insert("embedded", {"job": job.id, "text": painting.embedding.text, "image": painting.embedding.image})
            await self.database.write("DELETE FROM picture WHERE job = ?", job.id)
            await self.database.write_many("INSERT INTO picture (job, position, seed, path, width, height) VALUES (?, ?, ?, ?, ?, ?)", rows)
            await self._keep_embeddings(job, painting)
            await self._set(
                job,
                state=State.PAINTED,
                model=painting.model,
                used_steps=painting.steps,
                used_guidance=painting.guidance,
                unknown_words=json.dumps(painting.unknown_words),
                seconds=painting.seconds,
                outcome=written_outcome(painting),
            )

    async def _keep_embeddings(self, job: Job, painting: Painting) -> None:
        """Remember what pictures show, by embeddings to compare and by signatures to find them; only inside a transaction."""
        for position, picture in enumerate(painting.pictures):
            if picture.embedding is not None:
                [row] = await self._rows("SELECT id FROM picture WHERE job = ? AND position = ?", job.id, position)
                await self.database.insert("embedding", {"picture": row["id"], "space": painting.space, "vector": picture.embedding})
                bits = signature(picture.embedding)
                await self.database.insert("signature", {"picture": row["id"], "space": painting.space, "bits": bits})

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
        query = "SELECT seconds / count AS pace FROM job WHERE seconds IS NOT NULL AND kind NOT IN (?, ?) ORDER BY id DESC LIMIT ?"
        rows = await self._rows(query, Kind.EMBED, Kind.DRAWS, LATEST)
        paces = sorted(row["pace"] for row in rows)
        return paces[len(paces) // 2] if paces else None

    async def recall(self, key: str) -> str | None:
        """Return what was remembered under a key."""
        rows = await self._rows("SELECT value FROM memory WHERE key = ?", key)
        return rows[0]["value"] if rows else None

    async def remember(self, key: str, value: str) -> None:
        """Remember one text under a key, in place of an earlier one."""
        async with self.database.transaction():
            await self.database.write("INSERT INTO memory VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", key, value)

    async def key(self) -> bytes:
        """Return what ids are hashed with that must be known again and not be read: the same in every run."""
        known = await self.recall(KEY)
        if known is None:
            await self.remember(KEY, known := secrets.token_hex(16))
        return bytes.fromhex(known)

    async def _update(self, job: Job, **values: object) -> None:
        async with self.database.transaction():
            await self._set(job, **values)

    async def _set(self, job: Job, **values: object) -> None:
        assignments = ", ".join(f"{key} = ?" for key in values)
        await self.database.write(f"UPDATE job SET {assignments} WHERE id = ?", *values.values(), job.id)

    async def _rows(self, query: str, *values: object) -> list[Row]:
        return await self.database.rows(query, *values)


def hashed(key: bytes, *numbers: int) -> str:
    """Name numbers so that they are known again, and nobody without the key reads them from it."""
    return hmac.new(key, "/".join(map(str, numbers)).encode(), hashlib.sha256).hexdigest()


def path_of(job: Job, position: int) -> str:
    """Return where a picture lies, relative to the folder of the memory."""
    return f"pictures/{job.id}/{position}.png"


def row_of(job_id: int, user_id: int, prediction: Prediction) -> dict[str, object]:
    """Return what is written down of a request that came over HTTP, beside its job."""
    told = {"words": prediction.words, "webhook": prediction.webhook, "events": json.dumps(prediction.events)}
    return {"job": job_id, "user_id": user_id, "name": prediction.name} | told


def written(values: float | tuple[float | None, ...] | None) -> str | None:
    """Write down what is asked of each unet; None where only the base decoder is spoken of."""
    return json.dumps(values) if isinstance(values, tuple) else None


def prediction_of(row: Row) -> Prediction | None:
    """Read what was written down of a request that came over HTTP; None of others."""
    return None if row["name"] is None else Prediction(row["name"], row["words"], row["webhook"], tuple(json.loads(row["events"])))


def written_outcome(painting: Painting) -> str:
    """Return what a job came to beside pictures, as JSON."""
    outcome: dict[str, Any] = {"draws": [(one.seed, one.score) for one in painting.draws]} if painting.draws else {}
    if painting.verdict is not None:
        outcome["verdict"] = asdict(replace(painting.verdict, picture=None))
    return json.dumps(outcome)


def outcome_of(written: str) -> dict[str, Any]:
    """Read what a job came to beside pictures, as fields of a `Painting`."""
    outcome = json.loads(written)
    if "draws" in outcome:
        outcome["draws"] = tuple(Drawn(*one) for one in outcome["draws"])
    if "verdict" in outcome:
        told = outcome["verdict"]
        outcome["verdict"] = Verdict(**told | {"finding": Finding(told["finding"]), "differs": tuple(told["differs"])})
    return dict(outcome)


def job_of(row: Row, ingredients: tuple[Ingredient, ...]) -> Job:
    """Rebuild a job from its row, uploads and ingredients."""
    kind = Kind(row["kind"])
    request = Request(
        row["prompt"],
        row["seed"],
        row["count"],
        row["steps"] if row["unet_steps"] is None else tuple(json.loads(row["unet_steps"])),
        row["guidance"] if row["unet_guidance"] is None else tuple(json.loads(row["unet_guidance"])),
        kind,
        row["image_data"] or (GONE if kind.needs_picture else None),
        row["mask_data"] or (GONE if kind is Kind.INPAINT else None),
        row["asked_model"],
        Preset(row["preset"]),
        bool(row["seamless"]),
        row["candidates"],
        row["prior_steps"],
        row["prior_guidance"],
        row["prior_seed"],
        row["before"],
        row["strength"],
        row["drift"],
        row["step"],
        ingredients,
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
        bool(row["is_adult"]),
        tuple(json.loads(row["notes"])),
        prediction_of(row),
    )
    return Job(row["id"], request, origin, row["created_at"], State(row["state"]), message_id=row["message_id"])
