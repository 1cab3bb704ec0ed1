import asyncio
import contextlib
import hashlib
import json
import os
import resource
import shutil
import sqlite3
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import rights as module
from engine.album import Album, Scope
from engine.errors import Misconfigured
from engine.gallery import Gallery
from engine.history import GONE, History
from engine.jobs import UNFINISHED, Embedding, Ingredient, Job, Kind, Origin, Painting, Picture, Prediction, Request
from engine.moderation import Decision, Moderation
from engine.predictions import Predictions
from engine.preferences import Level, Preferences
from engine.rights import DAY_S, Rights, back_up
from engine.similar import signature
from tests.conftest import ScriptedPainter, noise, picture_of, png

ANN, BOB, CAY, MOD = 888_777_666_555_444_333, 777_888_666_444_555_222, 666_777_888_333_444_111, 555_666_777_222_333_999
SERVER, ELSEWHERE, CHANNEL, WALL = 70, 71, 50, 51
SECRETS = ("Grumblefisk", "quorvelutz", "zimjakop", "wyxhutten", "flobbertugk", "snarvequin")
"""Words that nobody but Ann writes."""


embedding = ScriptedPainter().seen


def noisy(text: str) -> bytes:
    """Return a picture of which no part is in another one."""
    return noise(12, zlib.crc32(text.encode()))


async def paint(history: History, request: Request, origin: Origin, *, result_id: int | None = None, **source: int | None) -> Job:
    """Return a job that was painted; with a message, it was delivered too."""
    job = await history.add(request, origin, **source)
    pictures = tuple(Picture(noisy(f"{job.id} {seed}"), seed, 12, 12, embedding(f"{request.prompt} {seed}")) for seed in request.seeds)
    painting = Painting(pictures, "m", 5, 1.0, 0.5, tuple(request.prompt.split()[:1]), "space")
    history.store(job, painting)
    await history.painted(job, painting)
    if result_id is not None:
        await history.delivered(job, result_id)
    return job


async def image_of(history: History, job: Job) -> bytes:
    painting = await history.painting_of(job)
    assert painting is not None
    return painting.pictures[0].png


async def request_of(history: History, job: Job) -> Request:
    found = await history.find(job.id)
    assert found is not None
    return found.request


def pieces(secret: bytes, length: int) -> set[bytes]:
    return {secret[start : start + length] for start in range(len(secret) - length + 1)}


def traces(folder: Path, secrets: set[bytes]) -> list[tuple[str, bytes]]:
    """Return which secrets stand in which files."""
    files = {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    return [(name, secret) for name, content in files.items() for secret in sorted(secrets) if secret in content]


async def cells(history: History) -> Iterator[tuple[str, object]]:
    """Return every value in every table."""
    tables = await history.database.rows("SELECT name FROM sqlite_master WHERE type = 'table'")
    rows = [(table["name"], row) for table in tables for row in await history.database.rows(f'SELECT * FROM "{table["name"]}"')]
    return ((name, value) for name, row in rows for value in tuple(row))


class Town:
    """Two people who have done everything there is to do, and a moderator; Ann is to be forgotten."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.gallery, self.moderation, self.preferences = Gallery(history), Moderation(history), Preferences(history.database)
        self.secrets: set[bytes] = set()
        self.pictures: list[tuple[str, bytes]] = []
        """Ann's: prompt with seed, and embedding."""

    def ann(self, **values: Any) -> Origin:
        return Origin(ANN, CHANNEL, SERVER, "token-Hurgelwamp", time.time() + 900, **values)

    def bob(self, **values: Any) -> Origin:
        return Origin(BOB, CHANNEL, SERVER, "token-of-bob", time.time() + 900, **values)

    async def build(self) -> None:
        await self.moderation.load()
        await self.jobs()
        await self.copies()
        await self.opinions()
        await self.acts()
        for word in SECRETS:
            self.secrets |= pieces(word.encode(), 5) | pieces(word.lower().encode(), 5)
        self.secrets |= pieces(b"Hurgelwamp", 5) | {str(ANN).encode(), ANN.to_bytes(8, "big")}
        rows = await self.history.database.rows(
            "SELECT picture.*, prompt, vector FROM picture JOIN job ON job.id = job JOIN embedding ON picture = picture.id WHERE user_id = ?", ANN
        )
        for row in rows:
            self.pictures.append((row["prompt"], row["vector"]))
            self.secrets |= {row["vector"][:16], signature(row["vector"])[:16], (self.history.database.folder / row["path"]).read_bytes()[45:70]}
        for upload in (self.upload, self.mask, self.part, self.draft_picture):
            self.secrets |= {upload[45:70], hashlib.sha256(upload).hexdigest().encode()}

    async def jobs(self) -> None:
        """Results of every kind and end."""
        add, history = paint, self.history
        self.anns = await add(history, Request(f"a {SECRETS[0]} on red", 1, 2), self.ann(spoiler=True), result_id=801)
        self.anns_single = await add(history, Request(f"{SECRETS[1]} at night 夜", 5, 1), self.ann(event_id=4711, locale="de"), result_id=802)
        self.bobs = await add(history, Request("a bicycle in the rain", 1, 2), self.bob(), result_id=803)
        self.bobs_single = await add(history, Request("a lighthouse", 9, 1), self.bob(), result_id=804)
        removed = await add(history, Request("a boat", 9, 1), self.bob(), result_id=805)
        await history.removed(removed, ANN)
        self.removed = removed
        kept = await add(history, Request(f"{SECRETS[2]} kept", 5, 1), self.ann())
        await history.kept(kept)
        # Nobody asks both in Discord and over HTTP under one id, but what is erased is erased of both.
        over_http = Origin(ANN, 0, None, prediction=Prediction("mine", json.dumps({"prompt": SECRETS[3]}), f"https://hooks.example/{SECRETS[4]}"))
        embedded = await history.add(Request(f"{SECRETS[3]} embedded", 5, 1, kind=Kind.EMBED), over_http)
        await history.painted(embedded, Painting((), "scripted", 9, 1.0, 0.5, embedding=Embedding(*(SECRETS[n].encode() for n in (3, 4)))))
        await history.delivered(embedded, 0)
        await Predictions(history).explain(embedded.id, f"no {SECRETS[3]}")
        failed = await history.add(Request(f"{SECRETS[3]} failed", 5, 1), self.ann())
        await history.failed(failed, f"no {SECRETS[3]} today")
        await history.cancelled(await history.add(Request(f"{SECRETS[4]} cancelled", 5, 1), self.ann()))
        foreign = await add(history, Request(f"{SECRETS[0]} abroad", 5, 1), Origin(ANN, CHANNEL, None, is_foreign=True), result_id=806)
        self.foreign = foreign

    async def crowd(self) -> None:
        """So many jobs that SQLite moves rows from page to page."""
        draw, jobs = np.random.default_rng(0), []
        for number in range(700):
            words = draw.choice(SECRETS if number % 5 < 2 else ("apple", "banana", "cherry"), int(draw.integers(1, 30)))
            prompt = " ".join(f"{word}{draw.integers(100)}" for word in words)
            jobs.append(await self.history.add(Request(prompt, number, 1), self.ann() if number % 5 < 2 else self.bob()))
        for place in draw.permutation(len(jobs)):
            await self.history.failed(jobs[place], f"no {jobs[place].request.prompt} today")

    async def copies(self) -> None:
        """What each made of the other's pictures, and what people handed in."""
        history = self.history
        image, theirs = await image_of(history, self.anns), await image_of(history, self.bobs)
        variation = Request("", 3, 1, kind=Kind.VARIATION, image=image)
        self.of_anns = await paint(history, variation, self.bob(), result_id=810, parent=await picture_of(history, self.anns))
        again = replace(variation, image=await image_of(history, self.of_anns), seed=4)
        self.of_that = await paint(history, again, self.bob(), result_id=811, parent=await picture_of(history, self.of_anns))
        of_bobs = replace(variation, image=theirs, seed=5)
        await paint(history, of_bobs, self.ann(), result_id=812, parent=await picture_of(history, self.bobs))
        self.upload, self.mask, self.draft_picture = noisy("Ann's upload"), noisy("Ann's mask"), noisy("Ann's draft")
        handed_in = Request(f"{SECRETS[5]} in the middle", 6, 1, kind=Kind.INPAINT, image=self.upload, mask=self.mask)
        anns_inpaint = await paint(history, handed_in, self.ann(), result_id=813)
        # Others ask for the same once more, and again.
        repeated = replace(handed_in, prompt="something else", seed=7)
        self.repeat = await paint(history, repeated, self.bob(), result_id=814, source=anns_inpaint.id)
        self.repeated_again = await paint(history, replace(repeated, seed=8), Origin(CAY, CHANNEL, SERVER), result_id=815, source=self.repeat.id)
        # Ann's mask on Bob's picture; Bob repeats that: the picture is his, the mask hers.
        masked = Request(f"{SECRETS[5]} there", 6, 1, kind=Kind.INPAINT, image=theirs, mask=self.mask)
        picture = await picture_of(history, self.bobs)
        anns_masked = await paint(history, masked, self.ann(), result_id=816, parent=picture)
        self.masked = await paint(history, replace(masked, prompt="over there"), self.bob(), result_id=817, parent=picture, source=anns_masked.id)
        self.part = noisy("Ann's part")
        blend = Request("", 6, 1, kind=Kind.BLEND, ingredients=(Ingredient(self.part), Ingredient(prompt="a boat", weight=2.0)))
        anns_blend = await paint(history, blend, self.ann(), result_id=819)
        self.blended = await paint(history, replace(blend, seed=8), self.bob(), result_id=820, source=anns_blend.id)
        own = Request("a hat", 6, 1, kind=Kind.INPAINT, image=noisy("Bob's upload"), mask=noisy("Bob's mask"))
        self.bobs_inpaint = await paint(history, own, self.bob(), result_id=818)
        self.annoyed = await history.add_draft(ANN, {"prompt": SECRETS[4]}, self.draft_picture, self.mask)
        self.draft = await history.add_draft(BOB, {"prompt": "a hat"}, noisy("Bob's draft"))
        self.drafts_of_anns = [
            await history.add_draft(BOB, {"prompt": "a hat", "parent": await picture_of(history, self.anns, 1)}, image),
            await history.add_draft(BOB, {"job": self.anns.id, "index": 0}),
        ]

    async def opinions(self) -> None:
        gallery = self.gallery
        self.anns_share, self.bobs_share = await picture_of(self.history, self.anns_single), await picture_of(self.history, self.bobs_single)
        self.bobs_other = await picture_of(self.history, self.bobs)
        for picture, person, entry in ((self.anns_share, ANN, 901), (self.bobs_share, BOB, 902), (self.bobs_other, BOB, 903)):
            await gallery.share(picture, SERVER, person)
            await gallery.posted(picture, WALL, entry)
        for picture, person, message in (
            (self.bobs_share, ANN, 902),
            (self.bobs_share, ANN, 0),
            (self.bobs_share, CAY, 0),
            (self.anns_share, BOB, 0),
            (self.anns_share, CAY, 901),
        ):
            await gallery.star(picture, person, message)
        await gallery.shown(904, CHANNEL, await picture_of(self.history, self.anns, 1))
        await gallery.shown(905, CHANNEL, self.bobs_other)
        assert await gallery.vote(ANN, self.bobs_share, self.bobs_other) and await gallery.vote(CAY, self.anns_share, self.bobs_share)
        assert await gallery.vote(CAY, self.bobs_share, self.bobs_other)

    async def acts(self) -> None:
        moderation, preferences = self.moderation, self.preferences
        await moderation.report(SERVER, self.anns, BOB, "what is this", CHANNEL, 801)
        await moderation.report(SERVER, self.bobs, ANN, "too wet", CHANNEL, 803)
        decided = await moderation.reported(await moderation.report(SERVER, self.bobs_single, CAY, "too bright", CHANNEL, 804) or 0)
        assert decided is not None
        await moderation.decide(decided, ANN, Decision.DISMISSED, BOB)
        await moderation.ban(SERVER, ANN, MOD, "enough")
        await moderation.ban(SERVER, CAY, ANN, "why not")
        await moderation.note(SERVER, ANN, "set gallery", None, value=WALL)
        for level, subject, name, value in (
            (Level.USER, ANN, "model", SECRETS[2]),
            (Level.USER, BOB, "count", 3),
            (Level.SERVER, SERVER, "max_count", 5),
        ):
            await preferences.choose(level, subject, name, value)


@pytest.fixture
def rights(history: History) -> Rights:
    return Rights(history)


@pytest.fixture
async def town(history: History) -> Town:
    town = Town(history)
    await town.build()
    return town


# Everything of a person.


async def test_an_export_holds_everything_of_a_person_and_no_secrets(town: Town, rights: Rights) -> None:
    known, files = await rights.export(ANN)
    text = json.dumps(known)
    assert all(word in text for word in SECRETS) and "token" not in text and "bicycle" not in text
    counts = {name: len(known[name]) for name in known}
    assert counts == {
        "jobs": 11, "pictures": 9, "drafts": 1, "ingredients": 2, "predictions": 1, "settings": 1,
        "shares": 1, "stars": 2, "votes": 1, "reports": 1, "bans": 1, "decisions": 4,
    }  # fmt: skip
    assert known["settings"] == {"model": SECRETS[2]}
    assert sorted({act["act"] for act in known["decisions"]}) == ["ban", "report dismissed", "set gallery"]
    there = {name: data.read_bytes() if isinstance(data, Path) else data for name, data in files}
    assert len(there) == len(files) == 14 and there[f"pictures/{town.anns.id}/1.png"] == noisy(f"{town.anns.id} 2")
    handed_in = {town.upload, town.mask, town.part, town.draft_picture, await image_of(town.history, town.bobs)}
    assert {data for name, data in there.items() if name.startswith("handed-in/")} == handed_in


async def test_after_a_person_is_erased_nothing_of_them_is_left_anywhere(history: History, town: Town, rights: Rights, tmp_path: Path) -> None:
    await town.crowd()
    album, data, backup = Album(history), tmp_path / "data", tmp_path / "backup"
    mine, here = Scope(user_id=ANN), Scope(guild_id=SERVER)
    assert await album.page(mine, "quorvel", most=9) and await album.lookalikes("space", town.pictures[0][1], mine, 9)
    back_up(data, backup)
    assert {name for name, _ in traces(data, town.secrets)} >= {"reverie.db", "0.png"} and traces(backup, town.secrets)

    known, files = await rights.export(ANN)
    erased = await rights.erase_user(ANN)
    assert (erased.jobs, len(erased.pictures)) == (len(known["jobs"]), len(known["pictures"]))
    # The database's other rows and the write-ahead log: what the bot does next is no reason for anything to come back.
    assert traces(data, town.secrets) == []
    await history.add(Request("a cat", 1), town.bob())
    assert traces(data, town.secrets) == []

    after, none = await rights.export(ANN)
    assert not any(after.values()) and none == []
    assert all(value != ANN and str(ANN) not in str(value) for _, value in await cells(history))
    assert not any((data / "pictures" / str(job["id"])).exists() for job in known["jobs"])
    await album.forget(erased.pictures)
    for words in ("", "quorvel", "Grumblefisk on red", "夜"):
        assert await album.page(mine, words, most=9) == []
    for word in SECRETS:
        assert await album.page(here, word, most=9) == []
    gone = {job["id"] for job in known["jobs"]}
    for _, vector in town.pictures:
        assert await album.lookalikes("space", vector, mine, 9) == []
        assert gone.isdisjoint(found.job.id for found in await album.lookalikes("space", vector, here, 99))
    back_up(data, backup)
    assert traces(backup, town.secrets) == [] and not (backup / "pictures" / str(town.anns.id)).exists()


async def test_an_index_in_memory_forgets_what_was_erased(town: Town, rights: Rights) -> None:
    album = Album(town.history)
    await album.lookalikes("space", town.pictures[0][1], Scope(), 9)
    before = len(album._indexes["space"])
    erased = await rights.erase_user(ANN)
    await album.forget(erased.pictures)
    assert len(album._indexes["space"]) == before - len(town.pictures)


async def test_what_others_have_stays_whole_when_a_person_is_erased(history: History, town: Town, rights: Rights) -> None:
    jobs = await history.database.rows("SELECT * FROM job WHERE user_id != ? ORDER BY id", ANN)
    await rights.erase_user(ANN)
    kept = await history.database.rows("SELECT * FROM job ORDER BY id")
    loose = ("parent", "source", "image", "mask", "removed_by")
    assert [[row[key] for key in row.keys() if key not in loose] for row in kept] == [
        [row[key] for key in row.keys() if key not in loose] for row in jobs
    ]
    assert await history.database.rows("PRAGMA foreign_key_check") == []
    assert [tuple(row) for row in await history.database.rows("PRAGMA integrity_check")] == [("ok",)]
    await history.database.change("INSERT INTO job_words (job_words) VALUES ('integrity-check')")
    await history.database.change("CREATE VIRTUAL TABLE temp.word USING fts5vocab (main, job_words, instance)")
    assert [row["doc"] for row in await history.database.rows("SELECT DISTINCT doc FROM word ORDER BY 1")] == [row["id"] for row in kept]
    for job in (town.bobs, town.bobs_single, town.of_anns, town.of_that, town.repeat, town.repeated_again, town.masked, town.bobs_inpaint):
        found = await history.find(job.id)
        assert found is not None and found.origin.user_id == job.origin.user_id
        assert await image_of(history, job) == noisy(f"{job.id} {job.request.seed}")
    album = Album(history)
    assert [job.id for job in await album.page(Scope(user_id=BOB), "bicycle ra", most=9)] == [town.bobs.id]
    lookalikes = await album.lookalikes("space", embedding("a lighthouse 9"), Scope(guild_id=SERVER), 1)
    assert [found.job.id for found in lookalikes] == [town.bobs_single.id]
    assert await history.find_draft(town.draft, BOB) is not None
    assert await town.preferences.choose(Level.USER, BOB, "count", 4) == 4
    rows = await history.database.rows("SELECT scope, name FROM preference")
    assert {tuple(row) for row in rows} == {("user", "count"), ("server", "max_count")}


async def test_what_others_made_of_erased_pictures_stays_but_cannot_be_painted_again(history: History, town: Town, rights: Rights) -> None:
    own, picture = await request_of(history, town.bobs_inpaint), await image_of(history, town.bobs)
    await rights.erase_user(ANN)
    requests = [await request_of(history, job) for job in (town.of_anns, town.repeat, town.repeated_again)]
    assert [(request.image, request.mask) for request in requests] == [(GONE, None), (GONE, GONE), (GONE, GONE)]
    assert (await request_of(history, town.blended)).ingredients == (Ingredient(GONE), Ingredient(prompt="a boat", weight=2.0))
    masked = await request_of(history, town.masked)
    assert (masked.image, masked.mask) == (picture, GONE)
    assert (await request_of(history, town.of_that)).image == await image_of(history, town.of_anns)
    assert await request_of(history, town.bobs_inpaint) == own
    assert await history.parent_of(town.of_anns) is None
    assert await history.parent_of(town.of_that) == await picture_of(history, town.of_anns)
    assert [await history.find_draft(number, BOB) for number in town.drafts_of_anns] == [None, None]
    family = await Album(history).family(town.repeated_again)
    assert [relative.job.id for relative in family] == [town.repeat.id, town.repeated_again.id]


async def test_the_same_file_that_somebody_else_handed_in_is_theirs(history: History, rights: Rights) -> None:
    shared = Request("", 3, 1, kind=Kind.VARIATION, image=noisy("a meme"))
    anns = await history.add(shared, Origin(ANN, CHANNEL, SERVER))
    bobs = await history.add(shared, Origin(BOB, CHANNEL, SERVER))
    repeat = await history.add(shared, Origin(CAY, CHANNEL, SERVER), source=anns.id)
    await rights.erase_user(ANN)
    assert (await request_of(history, bobs)).image == noisy("a meme") and (await request_of(history, repeat)).image == GONE
    await rights.erase_user(BOB)
    assert await history.database.rows("SELECT * FROM upload") == []


async def test_opinions_of_the_erased_are_gone_and_their_pictures_are_in_no_gallery(history: History, town: Town, rights: Rights) -> None:
    before = await town.gallery.find(town.bobs_share)
    await rights.erase_user(ANN)
    after = await town.gallery.find(town.bobs_share)
    assert before is not None and after is not None and (before.stars, after.stars) == (2, 1)
    assert replace(after, stars=2) == before
    assert [share.picture for share in await town.gallery.of_server(SERVER)] == sorted((town.bobs_share, town.bobs_other))
    assert [tuple(row) for row in await history.database.rows("SELECT * FROM vote")] == [(CAY, *sorted((town.bobs_share, town.bobs_other)))]
    assert await town.gallery.picture_in(905) == town.bobs_other and await town.gallery.picture_in(904) is None


async def test_messages_that_show_erased_pictures_are_to_be_deleted_where_the_bot_is(history: History, town: Town, rights: Rights) -> None:
    await rights.erase_user(ANN)
    doomed = await town.gallery.doomed()
    assert doomed == [(CHANNEL, 801), (CHANNEL, 802), *((CHANNEL, number) for number in (812, 813, 816, 819)), (WALL, 901), (CHANNEL, 904)]


async def test_moderators_know_what_was_decided_and_no_longer_of_whom(history: History, town: Town, rights: Rights) -> None:
    await rights.erase_user(ANN)
    moderation = town.moderation
    assert await moderation.is_banned(SERVER, ANN) and await moderation.is_banned(SERVER, CAY)
    assert sorted(who or 0 for who, *_ in await moderation.bans(SERVER, 9)) == [0, CAY]
    [left] = await moderation.open_reports(SERVER, 9)
    assert (left.job, left.user_id, left.reason) == (town.bobs.id, None, "too wet")
    decided = await history.database.rows("SELECT decision, decided_by FROM report WHERE job = ?", town.bobs_single.id)
    assert [tuple(row) for row in decided] == [("dismissed", None)]
    lines = [(line.user_id, line.act, line.subject_id) for line in reversed(await moderation.log(SERVER, 9))]
    assert lines == [(None, "report dismissed", BOB), (MOD, "ban", None), (None, "ban", CAY), (None, "set gallery", None)]
    removed = await history.database.rows("SELECT removed_by FROM job WHERE id = ?", town.removed.id)
    assert removed[0]["removed_by"] == 0
    assert town.removed.id not in [job.id for job in await Album(history).page(Scope(user_id=BOB), most=500)]


async def test_what_has_a_star_less_is_told(town: Town, rights: Rights) -> None:
    assert (await rights.erase_user(ANN)).starred == (town.bobs_share,)


async def test_who_is_not_known_is_erased_without_a_trace(history: History, rights: Rights) -> None:
    job = await paint(history, Request("a cat", 1), Origin(BOB, CHANNEL, SERVER), result_id=801)
    assert await rights.erase_user(ANN) == module.Erased(0, ())
    assert await history.painting_of(job) is not None
    known, files = await rights.export(ANN)
    assert not any(known.values()) and files == []


async def test_more_jobs_than_are_erased_at_once_are_all_erased(history: History, rights: Rights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 3)
    parent = None
    for number in range(8):
        # Each goes back to the one before, across what is erased at once.
        job = await paint(history, Request("a cat", number, 1), Origin(ANN, CHANNEL, SERVER), result_id=801 + number, parent=parent)
        parent = await picture_of(history, job)
    bobs = await paint(history, Request("a dog", 1), Origin(BOB, CHANNEL, SERVER), result_id=820, parent=parent)
    erased = await rights.erase_user(ANN)
    assert (erased.jobs, len(erased.pictures)) == (8, 8)
    assert [row["id"] for row in await history.database.rows("SELECT id FROM job")] == [bobs.id]
    assert len(await Gallery(history).doomed()) == 8 and os.listdir(history.database.folder / "pictures") == [str(bobs.id)]


async def test_an_erase_that_was_interrupted_is_finished_by_the_next_one(history: History, rights: Rights) -> None:
    jobs = [await paint(history, Request("a cat", 1), Origin(ANN, CHANNEL, SERVER), result_id=801 + number) for number in range(2)]
    folder = history.database.folder / "pictures" / str(jobs[1].id)
    shutil.rmtree(folder)
    folder.write_text("cannot be deleted as a folder is")
    with pytest.raises(OSError):
        await rights.erase_user(ANN)
    assert await history.find(jobs[1].id) is not None
    folder.unlink()
    folder.mkdir()
    (folder / "0.png").write_bytes(png((1, 2, 3)))
    assert (await rights.erase_user(ANN)).jobs == 2
    assert os.listdir(history.database.folder / "pictures") == [] and await history.find(jobs[1].id) is None


async def test_an_erase_waits_for_who_is_reading(history: History, town: Town, rights: Rights, tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "data" / "reverie.db", check_same_thread=False, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM job").fetchall()
        threading.Timer(0.3, lambda: reader.execute("COMMIT")).start()
        await rights.erase_user(ANN)
    assert traces(tmp_path / "data", town.secrets) == []


async def test_others_write_and_read_while_a_person_is_erased(history: History, town: Town, rights: Rights) -> None:
    added, erased = await asyncio.gather(
        asyncio.gather(*(history.add(Request(f"a cat {number}", number), town.bob()) for number in range(30))), rights.erase_user(ANN)
    )
    assert erased.jobs == 11 and len({job.id for job in added}) == 30
    assert [await history.find(job.id) is not None for job in added] == [True] * 30


# What is forgotten after a while.

NOW = 1_800_000_000.0


async def ended(history: History, days_ago: float, user_id: int = ANN, guild_id: int | None = SERVER) -> Job:
    job = await paint(history, Request(f"a {SECRETS[0]}", 1, 1), Origin(user_id, CHANNEL, guild_id), result_id=801)
    await history.database.change("UPDATE job SET finished_at = ? WHERE id = ?", NOW - days_ago * DAY_S, job.id)
    return job


async def test_what_ended_longer_ago_is_forgotten_and_nothing_else(history: History, rights: Rights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: NOW)
    gallery = Gallery(history)
    old, border, young, elsewhere, nowhere, shared = [
        await ended(history, days, person, server)
        for days, person, server in (
            (30 + 1 / DAY_S, ANN, SERVER),
            (30, ANN, SERVER),
            (1, BOB, SERVER),
            (90, ANN, ELSEWHERE),
            (90, ANN, None),
            (90, BOB, SERVER),
        )
    ]
    await gallery.share(await picture_of(history, shared), SERVER, BOB)
    unfinished = [await history.add(Request("a cat", 1), Origin(ANN, CHANNEL, SERVER)) for _ in UNFINISHED]
    for job, state in zip(unfinished, UNFINISHED, strict=True):
        await history.database.change("UPDATE job SET state = ?, finished_at = 0 WHERE id = ?", state, job.id)
    failed = await history.add(Request("a cat", 1), Origin(ANN, CHANNEL, SERVER))
    await history.failed(failed, "why")
    await history.database.change("UPDATE job SET finished_at = 0 WHERE id = ?", failed.id)
    picture = await picture_of(history, old)
    assert await rights.expire(SERVER, 30) == module.Erased(2, (picture,))
    left = [job.id for job in (border, young, elsewhere, nowhere, shared, *unfinished)]
    assert [row["id"] for row in await history.database.rows("SELECT id FROM job ORDER BY id")] == left
    assert sorted(os.listdir(history.database.folder / "pictures"), key=int) == [str(number) for number in left[:5]]
    assert await gallery.doomed() == []
    assert [job.id for job in await Album(history).page(Scope(guild_id=SERVER), SECRETS[0], most=9)] == [shared.id, young.id, border.id]
    assert await rights.expire(SERVER, 30) == module.Erased(0, ())
    await gallery.withdraw(await picture_of(history, shared))
    assert (await rights.expire(SERVER, 30)).jobs == 1


async def test_what_expired_is_let_go_by_what_stays(history: History, rights: Rights) -> None:
    old = await ended(history, 90)
    await history.database.change("UPDATE job SET finished_at = 0")
    variation = Request("", 3, 1, kind=Kind.VARIATION, image=await image_of(history, old))
    job = await paint(history, variation, Origin(BOB, CHANNEL, SERVER), result_id=802, parent=await picture_of(history, old))
    gallery = Gallery(history)
    await gallery.shown(803, CHANNEL, await picture_of(history, old))
    await gallery.star(await picture_of(history, old), BOB, 803)
    assert (await rights.expire(SERVER, 30)).jobs == 1
    assert (await request_of(history, job)).image == GONE and await history.painting_of(job) is not None
    assert await gallery.picture_in(803) is None and await gallery.doomed() == []
    assert await history.database.rows("PRAGMA foreign_key_check") == []


# Backups.


def shown_by(folder: Path) -> dict[str, bytes]:
    """Return the pictures that a backup's database knows of, with their files."""
    with contextlib.closing(sqlite3.connect(folder / "reverie.db")) as database:
        return {path: (folder / path).read_bytes() for (path,) in database.execute("SELECT path FROM picture")}


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


async def test_a_backup_serves_as_the_memory_did(history: History, town: Town, tmp_path: Path) -> None:
    told: list[str] = []
    count = back_up(tmp_path / "data", tmp_path / "far" / "backup", told.append)
    [rows] = await history.database.rows("SELECT count(*) AS count FROM picture")
    assert count == rows["count"] and told == [f"{count} pictures"]
    assert "reverie.db.part" not in files_in(tmp_path / "far" / "backup")
    restored = await History.open(tmp_path / "far" / "backup")
    try:
        for job in (town.anns, town.bobs, town.of_anns, town.bobs_inpaint):
            assert await restored.painting_of(job) == await history.painting_of(job)
            assert await request_of(restored, job) == await request_of(history, job)
        assert [job.id for job in await Album(restored).page(Scope(user_id=BOB), "bicycle", most=9)] == [town.bobs.id]
        found = await Album(restored).lookalikes("space", embedding("a lighthouse 9"), Scope(), 1)
        assert found[0].job.id == town.bobs_single.id
        moderation = Moderation(restored)
        await moderation.load()
        assert await moderation.is_banned(SERVER, ANN)
        assert (await restored.add(Request("a cat", 1), town.bob())).id > town.bobs_inpaint.id
    finally:
        await restored.close()


async def test_a_backup_is_made_while_the_bot_paints(history: History, tmp_path: Path) -> None:
    done = asyncio.Event()

    async def work() -> None:
        number = 0
        while not done.is_set():
            await paint(history, Request("a cat", number, 2), Origin(BOB, CHANNEL, SERVER), result_id=number + 1)
            number += 1

    working = asyncio.create_task(work())
    counts = []
    for _ in range(4):
        counts.append(await asyncio.to_thread(back_up, tmp_path / "data", tmp_path / "backup"))
        assert len(shown_by(tmp_path / "backup")) == counts[-1]
    done.set()
    await working
    assert counts == sorted(counts) and counts[-1] > counts[0]
    for path, content in shown_by(tmp_path / "backup").items():
        assert content == (tmp_path / "data" / path).read_bytes()


async def test_a_later_backup_copies_what_is_new_and_erases_what_was_erased(history: History, rights: Rights, tmp_path: Path) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    anns = await paint(history, Request("a cat", 1), Origin(ANN, CHANNEL, SERVER), result_id=801)
    bobs = await paint(history, Request("a dog", 2), Origin(BOB, CHANNEL, SERVER), result_id=802)
    assert back_up(data, backup) == 8
    first = backup / "pictures" / str(bobs.id) / "0.png"
    os.utime(first, (2_000_000_000, 2_000_000_000))
    (backup / "pictures" / str(bobs.id) / "9.part").write_bytes(b"half a picture of a run that was stopped")
    later = await paint(history, Request("a bird", 3), Origin(BOB, CHANNEL, SERVER), result_id=803)
    await rights.erase_user(ANN)
    assert back_up(data, backup) == 8
    assert first.stat().st_mtime == 2_000_000_000
    assert files_in(backup) == {"reverie.db", *(f"pictures/{job.id}/{place}.png" for job in (bobs, later) for place in range(4))}
    assert not (backup / "pictures" / str(anns.id)).exists()


async def test_a_picture_that_was_painted_again_or_copied_by_half_is_copied_again(history: History, tmp_path: Path) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    job = await paint(history, Request("a cat", 1), Origin(ANN, CHANNEL, SERVER), result_id=801)
    back_up(data, backup)
    half, other = (Path("pictures", str(job.id), f"{place}.png") for place in range(2))
    (backup / half).write_bytes((data / half).read_bytes()[:50])
    (data / other).write_bytes(bytes(reversed((data / other).read_bytes())))
    os.utime(backup / other, (1_000_000_000, 1_000_000_000))
    back_up(data, backup)
    assert all((backup / path).read_bytes() == (data / path).read_bytes() for path in (half, other))


async def test_a_backup_that_a_killed_bot_used_is_overwritten_with_its_log(history: History, tmp_path: Path) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    for number in range(30):
        await history.add(Request(f"{SECRETS[0]} {number}", number), Origin(ANN, CHANNEL, SERVER))
    back_up(data, backup)
    used = await History.open(backup)
    await used.add(Request(f"{SECRETS[1]}", 1), Origin(ANN, CHANNEL, SERVER))
    left = {path.name: path.read_bytes() for path in backup.glob("reverie.db-*")}
    assert left["reverie.db-wal"]
    await used.close()
    for name, content in left.items():
        (backup / name).write_bytes(content)
    await Rights(history).erase_user(ANN)
    await history.add(Request("a dog", 1), Origin(BOB, CHANNEL, SERVER))
    back_up(data, backup)
    assert traces(backup, {SECRETS[0].encode(), SECRETS[1].encode()}) == []
    restored = await History.open(backup)
    assert [row["prompt"] for row in await restored.database.rows("SELECT prompt FROM job")] == ["a dog"]
    await restored.close()


async def test_a_memory_that_no_bot_uses_is_backed_up_even_after_a_crash(history: History, tmp_path: Path) -> None:
    await paint(history, Request("a cat", 1), Origin(ANN, CHANNEL, SERVER), result_id=801)
    crashed = tmp_path / "crashed 100% #1?"
    shutil.copytree(tmp_path / "data", crashed)
    assert (crashed / "reverie.db-wal").stat().st_size > 0
    (crashed / "reverie.db-shm").unlink()
    assert back_up(crashed, tmp_path / "one") == 4
    await history.close()
    assert back_up(tmp_path / "data", tmp_path / "two") == 4
    assert shown_by(tmp_path / "one") == shown_by(tmp_path / "two")


async def test_a_picture_that_is_lost_is_told_of_and_no_reason_to_stop(history: History, tmp_path: Path) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    job = await paint(history, Request("a cat", 1), Origin(ANN, CHANNEL, SERVER), result_id=801)
    told: list[str] = []

    def tell(text: str) -> None:
        told.append(text)
        # Somebody erases while the backup is under way: between the database and the pictures.
        (data / "pictures" / str(job.id) / "2.png").unlink(missing_ok=True)

    assert back_up(data, backup, tell) == 3
    assert told == ["4 pictures", "1 of them were deleted meanwhile or are lost"]
    assert files_in(backup) == {"reverie.db", *(f"pictures/{job.id}/{place}.png" for place in (0, 1, 3))}
    restored = await History.open(backup)
    assert await restored.find(job.id) is not None and await restored.painting_of(job) is None
    await restored.close()


async def test_the_memory_itself_is_no_place_for_its_backup(history: History, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "data")
    before = files_in(tmp_path / "data")
    for target in (tmp_path / "data", tmp_path / "data" / ".." / "data", tmp_path / "link"):
        with pytest.raises(Misconfigured, match="is the data folder itself"):
            back_up(tmp_path / "data", target)
    assert files_in(tmp_path / "data") == before


async def test_pictures_of_somebody_elses_that_lie_in_the_target_stay(history: History, tmp_path: Path) -> None:
    """A folder `pictures` is in many places where nobody ever backed anything up."""
    holiday = tmp_path / "home" / "pictures" / "holiday.png"
    holiday.parent.mkdir(parents=True)
    holiday.write_bytes(b"the sea")
    await paint(history, Request("a cat", 1), Origin(ANN, CHANNEL, SERVER), result_id=801)
    assert back_up(tmp_path / "data", tmp_path / "home") == 4
    assert holiday.read_bytes() == b"the sea"


async def test_a_backup_that_was_stopped_is_taken_up_by_the_next_one(history: History, rights: Rights, tmp_path: Path) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    anns = await paint(history, Request("a cat", 1), Origin(ANN, CHANNEL, SERVER), result_id=801)

    def stop(text: str) -> None:
        raise KeyboardInterrupt

    back_up(data, backup)
    (backup / "reverie.db").unlink()
    with pytest.raises(KeyboardInterrupt):
        back_up(data, backup, stop)
    assert not (backup / "reverie.db").exists()
    await rights.erase_user(ANN)
    assert back_up(data, backup) == 0
    assert files_in(backup) == {"reverie.db"} and not (backup / "pictures" / str(anns.id)).exists()


def test_there_is_nothing_to_back_up_where_there_is_no_memory(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="reverie.db does not exist, so there is nothing to back up"):
        back_up(tmp_path / "nowhere", tmp_path / "backup")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("blocked", ["backup", "backup/reverie.db.part/x", "backup/reverie.db/x", "backup/pictures"])
async def test_a_target_that_cannot_be_written_is_named(history: History, tmp_path: Path, blocked: str) -> None:
    await paint(history, Request("a cat", 1), Origin(ANN, CHANNEL, SERVER), result_id=801)
    (tmp_path / blocked).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / blocked).write_text("in the way")
    with pytest.raises(Misconfigured, match="The backup in .*backup cannot be written: .*. Name another folder, or make room"):
        back_up(tmp_path / "data", tmp_path / "backup")
    assert (tmp_path / blocked).read_text() == "in the way"


async def test_a_full_disk_is_no_fault_of_the_memory(history: History, tmp_path: Path) -> None:
    await history.add(Request("", 1, kind=Kind.VARIATION, image=os.urandom(600_000)), Origin(ANN, CHANNEL, SERVER))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, limits[1]))
    try:
        with pytest.raises(Misconfigured, match="The backup in .*backup cannot be written"):
            back_up(tmp_path / "data", tmp_path / "backup")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert back_up(tmp_path / "data", tmp_path / "backup") == 0


async def test_a_damaged_memory_is_named_and_an_earlier_backup_stays(history: History, tmp_path: Path) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    job = await paint(history, Request("a cat", 1), Origin(ANN, CHANNEL, SERVER), result_id=801)
    await history.close()
    back_up(data, backup)
    whole = (data / "reverie.db").read_bytes()
    for damaged in (b"no database at all" * 100, whole[:4096] + bytes(len(whole) - 4096), b""):
        (data / "reverie.db").write_bytes(damaged)
        with pytest.raises(Misconfigured, match="data/reverie.db is not a database"):
            back_up(data, backup)
    assert len(shown_by(backup)) == 4
    restored = await History.open(backup)
    assert await restored.painting_of(job) is not None
    await restored.close()
