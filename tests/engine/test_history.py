import asyncio
import contextlib
import sqlite3
import threading
import time
from dataclasses import replace
from pathlib import Path

import aiosqlite
import pytest

from engine import history as module
from engine.database import MIGRATIONS, connect, migrate, plain_errors
from engine.errors import Misconfigured, Repeated
from engine.history import History
from engine.jobs import Drawn, Embedding, Ingredient, Kind, Origin, Painting, Picture, Prediction, Preset, Request, State
from engine.pictures import hash_of
from engine.verdicts import Finding, Verdict
from tests.conftest import png

REQUEST = Request(
    "a 🦊 on red", seed=2**32 - 1, count=2, steps=9, guidance=2.5, preset=Preset.BEST, seamless=True, candidates=3, prior_steps=8, prior_guidance=0.5
)
OF_EACH_UNET = replace(REQUEST, steps=(None, 4), guidance=(1.5, None, 2.0))
ORIGIN = Origin(user_id=2**63 - 1, channel_id=12, guild_id=13, token="secret", token_expires_at=99.5, spoiler=True)
PAINTING = Painting((Picture(png((1, 2, 3)), 2**32 - 1, 8, 8), Picture(png((4, 5, 6)), 0, 8, 8)), "scripted", 9, 2.5, 1.25, ("🦊",))


async def again(history: History, tmp_path: Path) -> History:
    """Close the memory as a stop does, and open it as a start does."""
    await history.close()
    return await History.open(tmp_path / "data")


def read(tmp_path: Path, query: str) -> list[tuple[object, ...]]:
    with sqlite3.connect(tmp_path / "data" / "reverie.db") as database:
        return database.execute(query).fetchall()


async def test_a_job_is_on_disk_before_it_is_promised(history: History, tmp_path: Path) -> None:
    job = await history.add(REQUEST, ORIGIN)
    assert read(tmp_path, "SELECT prompt, state FROM job") == [("a 🦊 on red", "waiting")]
    assert job.state is State.WAITING


async def test_unfinished_jobs_come_back_as_they_were_asked(history: History, tmp_path: Path) -> None:
    waiting, painting = await history.add(REQUEST, ORIGIN), await history.add(OF_EACH_UNET, ORIGIN)
    await history.set_message(painting, 77)
    await history.start(painting)
    history = await again(history, tmp_path)
    jobs = await history.unfinished()
    await history.close()
    assert [job.id for job in jobs] == [waiting.id, painting.id]
    assert [job.request for job in jobs] == [REQUEST, OF_EACH_UNET]
    assert all((job.origin, job.state) == (ORIGIN, State.WAITING) for job in jobs)
    assert [job.message_id for job in jobs] == [None, 77]
    assert jobs[0].created_at == waiting.created_at


async def test_painted_jobs_come_back_with_their_pictures(history: History, tmp_path: Path) -> None:
    job = await history.add(REQUEST, ORIGIN)
    history.store(job, PAINTING)
    await history.painted(job, PAINTING)
    history = await again(history, tmp_path)
    [found] = await history.unfinished()
    await history.close()
    assert found.state is State.PAINTED
    assert found.painting == PAINTING


async def test_a_painted_job_whose_files_are_lost_is_painted_again(history: History, tmp_path: Path) -> None:
    job = await history.add(REQUEST, ORIGIN)
    history.store(job, PAINTING)
    await history.painted(job, PAINTING)
    (tmp_path / "data" / "pictures" / str(job.id) / "1.png").unlink()
    [found] = await history.unfinished()
    assert found.state is State.WAITING and found.painting is None
    history.store(job, PAINTING)
    await history.painted(job, PAINTING)
    assert read(tmp_path, "SELECT count(*) FROM picture") == [(2,)]


PREDICTION = Prediction("abc", '{"prompt": "a 🦊"}', "https://hooks.example/a", ("start", "completed"))
EMBED = Request("a 🦊", 7, 1, kind=Kind.EMBED, candidates=4, prior_steps=250, prior_guidance=1.5)


async def test_what_came_over_http_comes_back_with_what_it_came_to(history: History, tmp_path: Path) -> None:
    origin = Origin(user_id=-(2**62), channel_id=0, prediction=PREDICTION)
    upscale = Request("", 1, 1, kind=Kind.UPSCALE, image=png((1, 2, 3)))
    embedded = Painting((), "scripted", 250, 1.5, 0.25, embedding=Embedding(b"\0\0\x80?", b"\0\0\0?"))
    first = await history.add(EMBED, origin)
    await history.add(upscale, Origin(-5, 0, prediction=PREDICTION))
    await history.painted(first, embedded)
    history = await again(history, tmp_path)
    done, waiting = await history.unfinished()
    await history.close()
    assert (done.request, done.origin, done.state, done.painting) == (EMBED, origin, State.PAINTED, embedded)
    assert (waiting.request, waiting.origin.prediction, waiting.state) == (upscale, PREDICTION, State.WAITING)


async def test_what_only_unclip_can_do_comes_back_with_what_it_came_to(history: History, tmp_path: Path) -> None:
    parts = (Ingredient(png((1, 2, 3))), Ingredient(prompt="a dog", weight=2.5))
    asked = [
        Request("", 1, 2, kind=Kind.BLEND, ingredients=parts),
        Request("", 1, 12, kind=Kind.MORPH, ingredients=parts[::-1]),
        Request("a dog", 1, 1, kind=Kind.EDIT, image=png((1, 2, 3)), before="a cat", strength=0.75),
        Request("", 1, 9, kind=Kind.EXPLORE, image=png((1, 2, 3)), step=0.25),
        Request("", 1, 1, kind=Kind.VARIATION, image=png((1, 2, 3)), strength=0.5, drift=0.25),
        Request("a cat", 1, 1, prior_seed=2**32 - 1, candidates=1),
        Request("a cat", 1, 3, kind=Kind.DRAWS),
        Request("", 0, 1, kind=Kind.VERIFY, image=png((3, 2, 1)), ingredients=parts[:1]),
    ]
    *_, draws, verify = [await history.add(request, ORIGIN) for request in asked]
    drawn = Painting((), "scripted", 64, 1.0, 0.25, draws=(Drawn(7, 0.75), Drawn(2**32 - 1, 0.5)))
    verified = replace(PAINTING, verdict=Verdict(Finding.DIFFERENT, None, 200, 0.125, ("version", "computed")))
    for job, painting in ((draws, drawn), (verify, verified)):
        history.store(job, painting)
        await history.painted(job, painting)
    history = await again(history, tmp_path)
    found = await history.unfinished()
    known = await history.find(found[0].id)
    await history.close()
    assert [job.request for job in found] == asked and known is not None and known.request == asked[0]
    assert [job.painting for job in found[-2:]] == [drawn, verified]


async def test_only_what_a_person_handed_in_is_found_again_for_them(history: History) -> None:
    one, other, theirs = png((1, 2, 3)), png((4, 5, 6)), png((7, 8, 9))
    await history.add(Request("", 1, kind=Kind.VARIATION, image=one), ORIGIN)
    await history.add(Request("", 1, kind=Kind.BLEND, ingredients=(Ingredient(other), Ingredient(prompt="a dog"))), ORIGIN)
    await history.add(Request("", 1, kind=Kind.VARIATION, image=theirs), replace(ORIGIN, user_id=5))
    hashes = [hash_of(file) for file in (one, other, theirs)]
    assert await history.handed_in(ORIGIN.user_id, [*hashes, "", "%", "0" * 16]) == {hashes[0]: one, hashes[1]: other}


async def test_a_person_calls_only_one_request_by_a_name(history: History) -> None:
    await history.add(EMBED, Origin(-5, 0, prediction=PREDICTION))
    with pytest.raises(Repeated):
        await history.add(EMBED, Origin(-5, 0, prediction=PREDICTION))
    # Somebody else may call theirs the same.
    await history.add(EMBED, Origin(-6, 0, prediction=PREDICTION))
    assert len(await history.unfinished()) == 2


@pytest.mark.parametrize("end", ["delivered", "failed", "cancelled"])
async def test_an_ended_job_stays_ended_and_its_token_is_forgotten(history: History, tmp_path: Path, end: str) -> None:
    job = await history.add(REQUEST, ORIGIN)
    await {"delivered": lambda: history.delivered(job, 5), "failed": lambda: history.failed(job, "why"), "cancelled": lambda: history.cancelled(job)}[
        end
    ]()
    assert await history.unfinished() == []
    assert read(tmp_path, "SELECT state, token FROM job") == [(end, None)]


async def test_everything_about_a_job_is_remembered(history: History, tmp_path: Path) -> None:
    parent = await history.add(REQUEST, ORIGIN)
    history.store(parent, PAINTING)
    await history.painted(parent, PAINTING)
    job = await history.add(REQUEST, ORIGIN, parent=1)
    history.store(job, PAINTING)
    await history.start(job)
    await history.painted(job, PAINTING)
    await history.delivered(job, 55)
    columns = (
        "kind, seed, count, steps, guidance, parent, user_id, channel_id, guild_id, spoiler, "
        "model, used_steps, used_guidance, unknown_words, seconds, result_id"
    )
    [row] = read(tmp_path, f"SELECT {columns} FROM job WHERE id = 2")
    assert row == ("dream", 2**32 - 1, 2, 9, 2.5, 1, 2**63 - 1, 12, 13, 1, "scripted", 9, 2.5, '["\\ud83e\\udd8a"]', 1.25, 55)
    pictures = read(tmp_path, "SELECT position, seed, path, width, height FROM picture WHERE job = 2")
    assert pictures == [(0, 2**32 - 1, "pictures/2/0.png", 8, 8), (1, 0, "pictures/2/1.png", 8, 8)]
    assert (tmp_path / "data" / "pictures" / "2" / "1.png").read_bytes() == PAINTING.pictures[1].png


async def test_the_pace_is_the_median_of_the_latest_jobs(history: History) -> None:
    assert await history.seconds_per_picture() is None
    for seconds in (2.0, 100.0, 4.0):
        job = await history.add(REQUEST, ORIGIN)
        await history.painted(job, Painting(PAINTING.pictures, "m", 1, 1.0, seconds))
    assert await history.seconds_per_picture() == 2.0
    # What was only embedded says nothing of pictures.
    await history.painted(await history.add(EMBED, ORIGIN), Painting((), "m", 1, 1.0, 0.1))
    assert await history.seconds_per_picture() == 2.0
    # What is longer ago than the latest jobs says nothing about today.
    for _ in range(module.LATEST):
        await history.painted(await history.add(REQUEST, ORIGIN), Painting(PAINTING.pictures, "m", 1, 1.0, 50.0))
    assert await history.seconds_per_picture() == 25.0


async def test_one_text_is_kept_under_a_key(history: History) -> None:
    assert await history.recall("commands") is None
    await history.remember("commands", "a")
    await history.remember("commands", "b")
    assert await history.recall("commands") == "b"


async def test_writers_at_the_same_time_do_not_undo_each_other(history: History) -> None:
    # The failing one comes first, so that its rollback falls between the others' inserts and commits.
    writes = [history.add(REQUEST, ORIGIN, parent=404), *(history.add(REQUEST, ORIGIN) for _ in range(10))]
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert sum(isinstance(result, sqlite3.IntegrityError) for result in results) == 1
    assert len(await history.unfinished()) == 10


async def test_two_bots_cannot_share_a_folder(history: History, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="Another Reverie"):
        await History.open(tmp_path / "data")


@pytest.mark.parametrize("content", [b"no database at all" * 100, None])
async def test_a_damaged_database_is_named_and_left_alone(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "reverie.db"
    if content is None:
        history = await History.open(tmp_path)
        await history.add(REQUEST, ORIGIN)
        await history.close()
        content = path.read_bytes()
        content = content[:4096] + bytes(len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(Misconfigured, match="reverie.db.*backup"):
        await History.open(tmp_path)
    assert path.read_bytes()[:18] == content[:18]


async def test_pictures_that_people_hand_in_come_back_with_the_job(history: History, tmp_path: Path) -> None:
    image, mask = png((1, 2, 3)), png((255, 255, 255))
    origin = Origin(1, 2, event_id=5, locale="de", file_limit=99, is_foreign=True, asked_in=7)
    asked = [await history.add(Request("a cat", 3, kind=Kind.INPAINT, image=image, mask=mask), origin)]
    asked.append(await history.add(Request("", 4, kind=Kind.VARIATION, image=image), Origin(1, 2)))
    assert len(read(tmp_path, "SELECT data FROM upload")) == 2
    after = await again(history, tmp_path)
    try:
        assert [(job.request, job.origin) for job in await after.unfinished()] == [(job.request, job.origin) for job in asked]
        found = await after.find(asked[0].id)
        assert found is not None and found.request == asked[0].request
        assert await after.find(99) is None and await after.find(2**70) is None and await after.find(-1) is None
    finally:
        await after.close()


async def test_a_draft_is_its_owners_and_is_taken_once(history: History) -> None:
    draft = await history.add_draft(1, {"prompt": "a cat"}, image=b"picture")
    assert await history.find_draft(draft, 2) is None
    found = await history.find_draft(draft, 1)
    assert found is not None and (found.content, found.image, found.mask) == ({"prompt": "a cat"}, b"picture", None)
    assert sorted(await asyncio.gather(history.drop_draft(draft), history.drop_draft(draft))) == [False, True]
    assert await history.find_draft(draft, 1) is None


async def test_old_drafts_and_their_pictures_are_forgotten(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    job = await history.add(Request("", 4, kind=Kind.VARIATION, image=b"kept"), Origin(1, 2))
    old = await history.add_draft(1, {}, image=b"old")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + module.DRAFT_LIFE_S + 1)
    await history.add_draft(1, {}, image=b"new")
    assert await history.find_draft(old, 1) is None
    assert {row["data"] for row in await history._rows("SELECT data FROM upload")} == {b"kept", b"new"}
    assert (await history.find(job.id) or job).request.image == b"kept"


async def test_what_no_place_took_is_kept_for_the_person(history: History) -> None:
    job = await history.add(Request("a cat", 3, count=2), Origin(1, 2))
    assert await history.painting_of(job) is None
    painting = Painting(tuple(Picture(png((n, n, n)), 3 + n, 8, 8) for n in range(2)), "m", 5, 1.0, 0.1)
    history.store(job, painting)
    await history.painted(job, painting)
    await history.kept(job)
    assert await history.untold(1) == [job.id] and await history.untold(2) == []
    await history.told([job.id])
    assert await history.untold(1) == []
    assert await history.painting_of(job) == painting
    assert await history.unfinished() == []
    first, beyond = await history.picture_id(job, 0), await history.picture_id(job, 2)
    assert first is not None and beyond is None
    await history.collected(job)
    assert [row["state"] for row in await history._rows("SELECT state FROM job")] == ["delivered"]


async def test_a_database_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "reverie.db").mkdir()
    with pytest.raises(Misconfigured, match="reverie.db cannot be used.*may be written"):
        await History.open(tmp_path)


async def test_nobody_is_told_to_move_away_a_database_that_is_only_in_use(tmp_path: Path) -> None:
    path = tmp_path / "reverie.db"
    with contextlib.closing(sqlite3.connect(path)) as other, contextlib.closing(sqlite3.connect(path, timeout=0)) as database:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(Misconfigured, match="reverie.db cannot be used.*locked") as refused, plain_errors(path):
            database.execute("CREATE TABLE x (y)")
    assert "Move it away" not in str(refused.value)


async def test_a_refused_start_lets_the_next_one_have_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "reverie.db"
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(Misconfigured):
        await History.open(tmp_path)
    path.unlink()
    await (await History.open(tmp_path)).close()


def test_a_refused_start_leaves_no_thread_that_outlives_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Late(aiosqlite.core.SimpleQueue):
        def get(self) -> object:
            work = super().get()
            time.sleep(0.05)
            return work

    monkeypatch.setattr(aiosqlite.core, "SimpleQueue", Late)
    (tmp_path / "reverie.db").mkdir()
    before = set(threading.enumerate())
    with pytest.raises(Misconfigured):
        asyncio.run(History.open(tmp_path))
    assert set(threading.enumerate()) <= before


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(Misconfigured, match="data"):
        await History.open(tmp_path / "data")


async def test_a_database_of_a_newer_reverie_is_refused(history: History, tmp_path: Path) -> None:
    await history.close()
    with sqlite3.connect(tmp_path / "data" / "reverie.db") as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(Misconfigured, match="newer"):
        await History.open(tmp_path / "data")


def schema(path: Path) -> dict[str, list[str]]:
    """Return every table with its columns (! = NOT NULL), and every index with its columns."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        tables = database.execute(
            "SELECT name, strict FROM pragma_table_list WHERE schema = 'main' AND type != 'shadow' AND name NOT LIKE 'sqlite_%'"
        ).fetchall()
        found = {}
        for table, strict in tables:
            columns = database.execute('SELECT name, type, "notnull" FROM pragma_table_info(?)', (table,))
            found[f"{table} strict" if strict else table] = [f"{name} {kind}{'!' * required}" for name, kind, required in columns]
        for (index,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL").fetchall():
            found[index] = [name for (name,) in database.execute("SELECT name FROM pragma_index_info(?)", (index,))]
        return found


EXPECTED = {
    "job strict": [
        "id INTEGER", "kind TEXT!", "prompt TEXT!", "count INTEGER!", "seed INTEGER!", "steps INTEGER", "guidance REAL", "parent INTEGER",
        "user_id INTEGER!", "channel_id INTEGER!", "guild_id INTEGER", "spoiler INTEGER!", "token TEXT", "token_expires_at REAL!",
        "message_id INTEGER", "result_id INTEGER", "state TEXT!", "error TEXT", "model TEXT", "used_steps INTEGER", "used_guidance REAL",
        "unknown_words TEXT", "seconds REAL", "created_at REAL!", "started_at REAL", "finished_at REAL",
        "image TEXT", "mask TEXT", "event_id INTEGER", "locale TEXT!", "file_limit INTEGER!", "is_foreign INTEGER!", "asked_in INTEGER",
        "removed_by INTEGER", "source INTEGER", "is_adult INTEGER!", "notes TEXT!", "withheld INTEGER!", "asked_model TEXT!",
        "preset TEXT!", "seamless INTEGER!", "candidates INTEGER", "prior_steps INTEGER", "prior_guidance REAL",
        "prior_seed INTEGER", "before TEXT!", "strength REAL", "drift REAL!", "step REAL", "outcome TEXT!",
        "unet_steps TEXT", "unet_guidance TEXT",
    ],
    "picture strict": ["id INTEGER", "job INTEGER!", "position INTEGER!", "seed INTEGER!", "path TEXT!", "width INTEGER!", "height INTEGER!"],
    "memory strict": ["key TEXT!", "value TEXT!"],
    "job_state": ["state", "id"],
    "job_event": ["event_id"],
    "job_user": ["user_id", "state"],
    "upload strict": ["hash TEXT!", "data BLOB!"],
    "draft strict": ["id INTEGER", "user_id INTEGER!", "content TEXT!", "image TEXT", "mask TEXT", "created_at REAL!"],
    "job_source": ["source"],
    "job_parent": ["parent"],
    "job_image": ["image"],
    "job_mask": ["mask"],
    "job_result": ["result_id"],
    "job_kept_user": ["user_id", "id"],
    "job_kept_guild": ["guild_id", "id", "channel_id", "is_adult", "withheld"],
    "job_words": ["prompt ", "owner "],
    "embedding strict": ["picture INTEGER", "space TEXT!", "vector BLOB!"],
    "signature strict": ["picture INTEGER", "space TEXT!", "bits BLOB!"],
    "preference strict": ["scope TEXT!", "subject INTEGER!", "name TEXT!", "value TEXT!"],
    "share strict": [
        "picture INTEGER", "guild_id INTEGER!", "user_id INTEGER!", "shared_at REAL!", "rating REAL!", "votes INTEGER!", "channel_id INTEGER",
        "message_id INTEGER",
    ],
    "share_guild": ["guild_id", "rating"],
    "share_message": ["message_id"],
    "showing strict": ["message_id INTEGER", "channel_id INTEGER!", "picture INTEGER!"],
    "showing_picture": ["picture"],
    "star strict": ["picture INTEGER!", "user_id INTEGER!", "message_id INTEGER!"],
    "left_star strict": ["message_id INTEGER!", "person TEXT!"],
    "star_user": ["user_id"],
    "star_message": ["message_id"],
    "vote strict": ["user_id INTEGER!", "first INTEGER!", "second INTEGER!"],
    "vote_first": ["first"],
    "vote_second": ["second"],
    "ban strict": ["guild_id INTEGER!", "person TEXT!", "user_id INTEGER", "reason TEXT!", "created_at REAL!"],
    "report strict": [
        "id INTEGER", "guild_id INTEGER!", "job INTEGER!", "user_id INTEGER", "reason TEXT!", "channel_id INTEGER!", "message_id INTEGER!",
        "created_at REAL!", "posted_channel INTEGER", "posted_message INTEGER", "decision TEXT", "decided_by INTEGER", "decided_at REAL",
    ],
    "report_open": ["guild_id", "id"],
    "report_job": ["job"],
    "audit strict": [
        "id INTEGER", "guild_id INTEGER!", "user_id INTEGER", "act TEXT!", "subject_id INTEGER", "details TEXT!", "created_at REAL!",
    ],
    "audit_guild": ["guild_id", "id"],
    "doomed strict": ["message_id INTEGER", "channel_id INTEGER!"],
    "embedded strict": ["job INTEGER", "text BLOB!", "image BLOB!"],
    "prediction strict": [
        "job INTEGER", "user_id INTEGER!", "name TEXT!", "words TEXT!", "webhook TEXT", "events TEXT!", "error TEXT", "is_closed INTEGER!",
    ],
    "prediction_name": ["user_id", "name"],
    "prediction_open": ["job"],
    "ingredient strict": ["job INTEGER!", "position INTEGER!", "picture TEXT", "prompt TEXT!", "weight REAL!"],
    "ingredient_picture": ["picture"],
}  # fmt: skip


@pytest.mark.parametrize("version", range(len(MIGRATIONS)))
async def test_every_earlier_schema_is_brought_up_to_date(tmp_path: Path, version: int) -> None:
    path = tmp_path / "reverie.db"
    async with aiosqlite.connect(path) as old:
        assert await migrate(old, path, MIGRATIONS[:version]) == version
    await (await connect(path)).close()
    assert schema(path) == EXPECTED


async def test_the_fourth_migration_knows_old_jobs_by_their_words_and_by_what_they_go_back_to(tmp_path: Path) -> None:
    path = tmp_path / "reverie.db"
    async with aiosqlite.connect(path) as old:
        await migrate(old, path, MIGRATIONS[:3])
        jobs = (
            # Number, prompt, parent, person, server.
            (1, "a red fox", None, 5, 7),
            (2, "a fox in snow", 11, 6, None),
            (3, "猫が好き", 12, 5, 7),
            (9, "a house", 20, 5, 8),
            (10, "a hut", None, 5, 7),
        )
        for number, prompt, _, person, server in jobs:
            await old.execute(
                "INSERT INTO job (id, kind, prompt, count, seed, user_id, channel_id, guild_id, spoiler, token_expires_at, state, created_at)"
                " VALUES (?, 'dream', ?, 2, 3, ?, 4, ?, 0, 0, 'delivered', 1)",
                (number, prompt, person, server),
            )
        for picture, job, position in ((11, 1, 0), (12, 1, 1), (20, 2, 0)):
            await old.execute("INSERT INTO picture VALUES (?, ?, ?, 3, '', 8, 8)", (picture, job, position))
        for number, _, parent, _, _ in jobs:
            await old.execute("UPDATE job SET parent = ? WHERE id = ?", (parent, number))
        await old.commit()
    await (await connect(path)).close()
    with contextlib.closing(sqlite3.connect(path)) as database:

        def found(words: str) -> list[int]:
            return [number for (number,) in database.execute("SELECT rowid FROM job_words WHERE job_words MATCH ? ORDER BY rowid", (words,))]

        sources = database.execute("SELECT id, source, is_adult, notes, withheld FROM job ORDER BY id").fetchall()
        assert sources == [(1, None, 0, "[]", 0), (2, 1, 0, "[]", 0), (3, 1, 0, "[]", 0), (9, 2, 0, "[]", 0), (10, None, 0, "[]", 0)]
        assert found("prompt : fox") == [1, 2] and found("prompt : (fox AND snow)") == [2] and found("prompt : hous *") == [9]
        assert found('prompt : "猫"') == [3] and found('prompt : "好"') == [3] and found('prompt : "犬"') == []
        assert found("owner : u5") == [1, 3, 9, 10] and found("owner : u6") == [2]
        assert found("owner : g7") == [1, 3, 10] and found("owner : g0") == [2] and found("prompt : u5") == []


async def test_a_migration_that_fails_leaves_no_trace(tmp_path: Path) -> None:
    path = tmp_path / "reverie.db"
    async with aiosqlite.connect(path) as database:
        await migrate(database, path)
        with pytest.raises(sqlite3.Error):
            await migrate(database, path, (*MIGRATIONS, "CREATE TABLE half (x); CREATE TABLE job (x);"))
    assert schema(path) == EXPECTED
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
