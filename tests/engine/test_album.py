import asyncio
import contextlib
import itertools
import math
import re
import sqlite3
import tempfile
import unicodedata
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import album as module
from engine import similar
from engine.album import FAMILY_LIMIT, Album, Scope
from engine.history import History
from engine.jobs import Job, Kind, Origin, Painting, Picture, Request
from tests.conftest import png

ME, OTHER, SERVER, ELSEWHERE, CHANNEL = 5, 6, 7, 8, 20
MINE = Scope(user_id=ME)
HERE = Scope(guild_id=SERVER)
SPACE = "scripted"


@pytest.fixture
async def album(history: History) -> Album:
    # Whether commits wait for the disk makes no difference here but hundreds of waits.
    await history.database.rows("PRAGMA synchronous = OFF")
    return Album(history)


def seen(*degrees: float) -> tuple[bytes, ...]:
    """Return embeddings in one plane: the angles between them are plain to see."""
    vectors = (np.eye(64)[0] * math.cos(math.radians(angle)) + np.eye(64)[1] * math.sin(math.radians(angle)) for angle in degrees)
    return tuple(vector.astype("<f2").tobytes() for vector in vectors)


async def ask(history: History, prompt: str = "a cat", *, source: int | None = None, **origin: int) -> Job:
    kind = Kind.DREAM if prompt else Kind.VARIATION
    request = Request(prompt, 3, kind=kind, image=None if prompt else b"picture")
    return await history.add(request, Origin(**({"user_id": ME, "channel_id": CHANNEL} | origin)), source=source)


async def paint(history: History, job: Job, embeddings: Sequence[bytes | None] = (None,), space: str = SPACE) -> Job:
    pictures = tuple(Picture(png((place, 2, 3)), 3 + place, 8, 8, embedding) for place, embedding in enumerate(embeddings))
    await history.painted(job, Painting(pictures, "scripted", 9, 2.5, 0.5, space=space))
    return job


async def made(history: History, prompt: str = "a cat", *, source: int | None = None, **origin: int) -> Job:
    return await paint(history, await ask(history, prompt, source=source, **origin))


async def found(album: Album, scope: Scope, words: str = "", **where: int) -> list[int]:
    return [job.id for job in await album.page(scope, words, **({"most": 100} | where))]


# Pages.


async def test_the_latest_come_first_page_by_page(album: Album, history: History) -> None:
    for number in range(7):
        await made(history, f"a cat {number}")
    assert await found(album, MINE, most=3) == [7, 6, 5]
    assert await found(album, MINE, most=3, skip=3) == [4, 3, 2]
    assert await found(album, MINE, most=3, skip=6) == [1] and await found(album, MINE, most=3, skip=7) == []
    assert await found(album, MINE, "cat", most=3, skip=3) == [4, 3, 2]


async def test_pages_do_not_move_while_new_jobs_come(album: Album, history: History) -> None:
    for _ in range(5):
        await made(history)
    assert await found(album, MINE, newest=4, most=2) == [4, 3] and await found(album, MINE, newest=4, most=2, skip=2) == [2, 1]
    assert await found(album, MINE, "cat", newest=4, most=2) == [4, 3] and await found(album, MINE, newest=0) == []


async def test_jobs_are_found_as_they_were_asked(album: Album, history: History) -> None:
    job = await made(history, "a red cat", guild_id=SERVER)
    [page] = await album.page(MINE, most=1)
    assert (page.id, page.request, page.origin) == (job.id, job.request, job.origin)


async def test_everybody_finds_what_is_theirs_and_a_server_what_is_its_own(album: Album, history: History) -> None:
    mine, theirs = await made(history, guild_id=SERVER), await made(history, user_id=OTHER, guild_id=SERVER)
    private, elsewhere = await made(history), await made(history, guild_id=ELSEWHERE)
    for words in ("", "cat"):
        assert await found(album, MINE, words) == [elsewhere.id, private.id, mine.id]
        assert await found(album, Scope(user_id=OTHER), words) == [theirs.id] and await found(album, Scope(user_id=99), words) == []
        assert await found(album, HERE, words) == [theirs.id, mine.id] and await found(album, Scope(guild_id=99), words) == []
        assert await found(album, Scope(user_id=ME, guild_id=SERVER), words) == [mine.id]


async def test_a_server_shows_only_channels_that_may_be_seen(album: Album, history: History) -> None:
    jobs = [await made(history, guild_id=SERVER, channel_id=channel) for channel in (20, 21, 22, 20)]
    for words in ("", "cat"):
        seen_there = Scope(guild_id=SERVER, channels=frozenset({20, 22, 99}))
        assert await found(album, seen_there, words) == [jobs[3].id, jobs[2].id, jobs[0].id]
        assert await found(album, Scope(guild_id=SERVER, channels=frozenset()), words) == []


async def test_age_restricted_ones_are_found_only_where_they_count(album: Album, history: History) -> None:
    plain, adult = await made(history, guild_id=SERVER), await made(history, guild_id=SERVER, is_adult=True)
    for words in ("", "cat"):
        assert await found(album, Scope(guild_id=SERVER, adult=False), words) == [plain.id]
        assert await found(album, HERE, words) == [adult.id, plain.id]


async def test_what_was_removed_withheld_or_never_painted_is_not_found(album: Album, history: History) -> None:
    removed, withheld, kept = [await made(history, guild_id=SERVER) for _ in range(3)]
    waiting, failed, cancelled = [await ask(history, guild_id=SERVER) for _ in range(3)]
    await history.start(waiting)
    await history.failed(failed, "why")
    await history.cancelled(cancelled)
    await history.removed(removed, OTHER)
    await history.withheld(withheld)
    for words in ("", "cat"):
        assert await found(album, MINE, words) == await found(album, HERE, words) == [kept.id]


# Words.


async def test_all_words_must_be_there_in_whatever_order_and_case(album: Album, history: History) -> None:
    one, two = await made(history, "A red FOX, in the snow"), await made(history, "the fox")
    await made(history, "firefox reddish")
    assert await found(album, MINE, "snow red Fox") == [one.id]
    assert await found(album, MINE, "fox") == await found(album, MINE, "the fox") == [two.id, one.id]
    assert await found(album, MINE, "fox dog") == []


async def test_only_the_last_word_may_be_a_beginning(album: Album, history: History) -> None:
    job = await made(history, "a lighthouse at night")
    for words in ("l", "light", "night lighth", "lighthouse nig"):
        assert await found(album, MINE, words) == [job.id], words
    for words in ("house", "light night", "lighthouses"):
        assert await found(album, MINE, words) == [], words


@pytest.mark.parametrize("asked", ["Café d\u2019Été", "cafe\u0301 d'e\u0301te\u0301", "CAFE dete d ete"])
async def test_accents_do_not_matter_however_they_are_written(album: Album, history: History, asked: str) -> None:
    job = await made(history, asked)
    for words in ("café été", "cafe ete", "cafe\u0301 e\u0301te\u0301", "E\u0301TE\u0301 caf"):
        assert await found(album, MINE, words) == [job.id], words


@pytest.mark.parametrize("prompt", ["a fox with 猫が好き and snow", "ภาพแมวสีแดง a fox in snow", "a fox 狐狸 snow", "여우 fox 눈snow"])
async def test_words_without_spaces_are_found_inside_of_longer_prompts(album: Album, history: History, prompt: str) -> None:
    job = await made(history, prompt)
    await made(history, "a fox in snow")
    inside = "".join(module.WORD.findall("".join(re.findall(r"[^\x00-\x7f]+", prompt))))
    for start, end in itertools.combinations(range(len(inside) + 1), 2):
        assert await found(album, MINE, inside[start:end]) == [job.id], inside[start:end]
    assert await found(album, MINE, f"fox {inside[1]} snow") == [job.id]
    assert await found(album, MINE, f"{inside[0]}犬") == []


async def test_signs_of_the_search_language_mean_nothing(album: Album, history: History) -> None:
    job = await made(history, "a red fox and a dog or near cats not owner u6 x_y")
    other = await made(history, "a red fox", user_id=OTHER)
    for words in ('"red fox"', '"red', 'fox" OR "dog', "red AND fox", "red NOT u6", "NEAR(red fox)", "red + fox", "(fox", "fox)", "^red", "red:fox"):
        assert await found(album, MINE, words) == [job.id], words
    for words in ("fox*", "re* fox", "-fox", "{red fox}", "fox\0dog", "red;--", "'fox'", "x_y", "_fox_", "fo*", "owner:u6", "a OR dog", "near/2"):
        assert await found(album, MINE, words) == ([job.id] if words not in ("re* fox", "near/2") else []), words
    for words in ('x") OR owner : "u6', "owner:u6 OR red", "fox\ud800", "prompt : fox OR owner : u6", "fox) OR (owner : u6"):
        assert other.id not in await found(album, MINE, words), words


async def test_nobody_finds_others_by_the_name_that_the_index_has_for_them(album: Album, history: History) -> None:
    theirs = await made(history, user_id=OTHER, guild_id=SERVER)
    spelt = await made(history, f"u{OTHER} g{SERVER} g0")
    for words in (f"u{OTHER}", f"g{SERVER}", "g0", f"u{ME} u{OTHER}", "u", "g", f"owner u{OTHER}"):
        assert theirs.id not in await found(album, MINE, words), words
    assert await found(album, MINE, f"u{OTHER}") == await found(album, MINE, f"g{SERVER} u{OTHER}") == [spelt.id]
    assert await found(album, MINE, f"u{ME}") == [] and await found(album, HERE, f"u{OTHER}") == []
    # A beginning of a number is another number.
    await made(history, user_id=int(f"{ME}1"), guild_id=int(f"{SERVER}1"))
    assert await found(album, MINE, "cat") == [] and await found(album, HERE, "cat") == [theirs.id]


@pytest.mark.parametrize("words", ["", "   ", "🦊", '"', "*", "_", "!?", "( )", "\0", "\ud800", "\u0301"])
async def test_where_no_word_is_given_everything_is_found(album: Album, history: History, words: str) -> None:
    jobs = [await made(history, "a 🦊"), await made(history, "a cat")]
    assert await found(album, MINE, words) == [jobs[1].id, jobs[0].id]


async def test_an_emoji_beside_words_is_passed_over(album: Album, history: History) -> None:
    job = await made(history, "a 🦊 on red")
    assert await found(album, MINE, "🦊 red") == await found(album, MINE, "red ❤️") == [job.id]


async def test_as_many_words_as_a_message_holds_can_be_looked_for(album: Album, history: History) -> None:
    job = await made(history, " ".join(["fox"] * 250))
    assert await found(album, MINE, "fox " * 1500) == [job.id] and await found(album, MINE, "fox " * 1500 + "dog") == []


async def test_a_variation_without_a_prompt_is_on_pages_but_has_no_words(album: Album, history: History) -> None:
    job = await made(history, "")
    assert await found(album, MINE) == [job.id] and await found(album, MINE, "a") == []


@dataclass(frozen=True)
class Made:
    """A random job."""

    prompt: str
    user_id: int
    guild_id: int | None
    channel_id: int
    is_adult: bool
    fate: str


VOCABULARY = ("cat", "Cats", "café", "CAFE\u0301", "red", "re", "u5", "g7", "猫", "猫狐", "x-ray", "2nd", "été")
WORDS = st.lists(st.sampled_from(VOCABULARY), max_size=3).map(" ".join)
JOBS = st.builds(
    Made,
    prompt=WORDS,
    user_id=st.sampled_from((5, 6)),
    guild_id=st.sampled_from((None, 7, 7, 8)),
    channel_id=st.sampled_from((20, 21)),
    is_adult=st.booleans(),
    fate=st.sampled_from(("kept", "kept", "kept", "kept", "waiting", "removed", "withheld")),
)
SCOPES = st.builds(
    Scope,
    user_id=st.none() | st.sampled_from((5, 6)),
    guild_id=st.just(7),
    channels=st.none() | st.frozensets(st.sampled_from((20, 21, 22))),
    adult=st.booleans(),
) | st.builds(Scope, user_id=st.sampled_from((5, 6)), adult=st.booleans())
QUESTIONS = st.tuples(SCOPES, WORDS, st.sampled_from((0, 4, 2**62)), st.integers(0, 3), st.integers(1, 5))


def tokens(text: str) -> list[str]:
    """Take a text apart into words as a search for them does, by other means."""
    plain = "".join(character for character in unicodedata.normalize("NFD", text) if not unicodedata.combining(character))
    return re.findall(r"[a-z0-9]+|[猫狐]", plain.lower())


def naive(jobs: Sequence[Made], scope: Scope, words: str, newest: int, skip: int, most: int) -> list[int]:
    """Find what a page holds by looking at every job."""
    *whole, last = tokens(words) or [""]
    numbers = [
        number
        for number, job in enumerate(jobs, start=1)
        if number <= newest
        and job.fate == "kept"
        and scope.user_id in (None, job.user_id)
        and scope.guild_id in (None, job.guild_id)
        and (scope.channels is None or job.channel_id in scope.channels)
        and (scope.adult or not job.is_adult)
        and all(word in tokens(job.prompt) for word in whole)
        and (not last or any(token.startswith(last) for token in tokens(job.prompt)))
    ]
    return numbers[::-1][skip : skip + most]


async def check_pages(jobs: Sequence[Made], questions: Sequence[tuple[Scope, str, int, int, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        history = await History.open(Path(folder))
        # Nothing here outlives the test: no need to wait for the disk.
        await history.database.rows("PRAGMA synchronous = OFF")
        try:
            for job in jobs:
                places = {"user_id": job.user_id, "channel_id": job.channel_id, "is_adult": job.is_adult}
                one = await ask(history, job.prompt, **places, **({"guild_id": job.guild_id} if job.guild_id else {}))
                if job.fate != "waiting":
                    await paint(history, one)
                if job.fate == "removed":
                    await history.removed(one, 1)
                if job.fate == "withheld":
                    await history.withheld(one)
            for scope, words, newest, skip, most in questions:
                page = await found(Album(history), scope, words, newest=newest, skip=skip, most=most)
                assert page == naive(jobs, scope, words, newest, skip, most), (scope, words)
        finally:
            await history.close()


@settings(max_examples=40, deadline=None)
@given(jobs=st.lists(JOBS, min_size=3, max_size=14), questions=st.lists(QUESTIONS, min_size=10, max_size=30))
def test_pages_hold_what_a_look_at_every_job_finds(jobs: list[Made], questions: list[tuple[Scope, str, int, int, int]]) -> None:
    asyncio.run(check_pages(jobs, questions))


# Families.


async def family(album: Album, job: Job) -> list[tuple[int, int]]:
    return [(relative.job.id, relative.depth) for relative in await album.family(job)]


async def test_a_job_alone_is_its_family(album: Album, history: History) -> None:
    job = await made(history)
    await made(history)
    assert await family(album, job) == [(job.id, 0)]


async def test_a_family_is_told_from_the_oldest_each_after_what_it_goes_back_to(album: Album, history: History) -> None:
    oldest = await made(history)
    picture = await history.picture_id(oldest, 0)
    varied = await paint(history, await history.add(Request("a cat", 3), Origin(OTHER, CHANNEL), parent=picture))
    again = await made(history, source=oldest.id)
    await made(history)
    deeper = await made(history, source=varied.id)
    expected = [(oldest.id, 0), (varied.id, 1), (deeper.id, 2), (again.id, 1)]
    for job in (oldest, varied, again, deeper):
        assert await family(album, job) == expected
        assert [relative.source for relative in await album.family(job)] == [None, oldest.id, varied.id, oldest.id]


@pytest.mark.parametrize("fate", ["removed", "withheld", "unpainted"])
async def test_what_is_gone_in_the_middle_does_not_part_a_family(album: Album, history: History, fate: str) -> None:
    oldest = await made(history)
    gone = await ask(history, source=oldest.id)
    if fate != "unpainted":
        await paint(history, gone)
    if fate == "removed":
        await history.removed(gone, ME)
    if fate == "withheld":
        await history.withheld(gone)
    youngest = await made(history, source=gone.id)
    for job in (oldest, gone, youngest):
        assert await family(album, job) == [(oldest.id, 0), (youngest.id, 2)]
        assert [relative.source for relative in await album.family(job)] == [None, oldest.id]


async def test_a_long_line_is_told_from_its_oldest_and_only_so_far(album: Album, history: History) -> None:
    line = [await made(history)]
    for _ in range(199):
        line.append(await made(history, source=line[-1].id))
    expected = [(job.id, depth) for depth, job in enumerate(line)][:FAMILY_LIMIT]
    assert await family(album, line[0]) == await family(album, line[-1]) == expected


async def test_at_most_so_many_of_a_family_are_told_but_those_that_are_gone_do_not_count(album: Album, history: History) -> None:
    oldest = await made(history)
    children = [await made(history, source=oldest.id) for _ in range(FAMILY_LIMIT + 5)]
    for child in children[:3]:
        await history.removed(child, ME)
    assert [number for number, _ in await family(album, children[9])] == [oldest.id, *(child.id for child in children[3 : FAMILY_LIMIT + 2])]


async def test_a_circle_that_no_request_can_make_is_walked_once(album: Album, history: History, tmp_path: Path) -> None:
    first = await made(history)
    second = await made(history, source=first.id)
    third = await made(history, source=second.id)
    with contextlib.closing(sqlite3.connect(tmp_path / "data" / "reverie.db")) as database:
        database.execute("UPDATE job SET source = ? WHERE id = ?", (third.id, first.id))
        database.commit()
    for job in (first, second, third):
        assert await family(album, job) == [(first.id, 0), (second.id, 1), (third.id, 2)]


async def test_a_job_that_was_erased_meanwhile_has_no_family(album: Album, history: History, tmp_path: Path) -> None:
    job = await ask(history)
    with contextlib.closing(sqlite3.connect(tmp_path / "data" / "reverie.db")) as database:
        database.execute("DELETE FROM job")
        database.commit()
    assert await family(album, job) == [] and await album.jobs([job.id]) == [] and await album.result_of(job) is None


# What is kept of a job.


async def test_the_message_of_a_result_is_known_where_there_is_one(album: Album, history: History) -> None:
    job, kept = await made(history), await made(history)
    assert await album.result_of(job) is None
    await history.delivered(job, 77)
    await history.delivered(kept, 0)
    assert await album.result_of(job) == 77 and await album.result_of(kept) is None


async def test_what_a_picture_shows_is_known_where_something_looked_at_it(album: Album, history: History) -> None:
    job = await paint(history, await ask(history), (*seen(0, 90), None))
    assert [await album.embedding(job, position) for position in range(4)] == [(SPACE, seen(0)[0]), (SPACE, seen(90)[0]), None, None]


# Likeness.


async def alike(album: Album, degrees: float = 0, scope: Scope = MINE, most: int = 100, space: str = SPACE, without: Job | None = None) -> list[int]:
    return [one.job.id for one in await album.lookalikes(space, *seen(degrees), scope, most, without=without)]


async def test_the_most_alike_comes_first_with_its_cosine(album: Album, history: History) -> None:
    jobs = [await paint(history, await ask(history), seen(degrees)) for degrees in (60, 10, 120, 30)]
    result = await album.lookalikes(SPACE, *seen(0), MINE, 3)
    assert [one.job.id for one in result] == [jobs[1].id, jobs[3].id, jobs[0].id] and {one.position for one in result} == {0}
    assert [one.cosine for one in result] == pytest.approx([math.cos(math.radians(angle)) for angle in (10, 30, 60)], abs=1e-3)
    assert result[0].job.request == jobs[1].request


async def test_of_each_job_the_most_alike_picture_is_found_once(album: Album, history: History) -> None:
    one = await paint(history, await ask(history), seen(50, 5, 20))
    other = await paint(history, await ask(history), (*seen(80), None, *seen(10)))
    assert [(found.job.id, found.position) for found in await album.lookalikes(SPACE, *seen(0), MINE, 9)] == [(one.id, 1), (other.id, 2)]
    assert await alike(album, most=1) == [one.id] and await alike(album, without=one) == [other.id]


async def test_likeness_stays_within_what_may_be_seen(album: Album, history: History) -> None:
    places = {
        "mine": {"guild_id": SERVER, "channel_id": 21},
        "private": {},
        "theirs": {"user_id": OTHER, "guild_id": SERVER},
        "adult": {"guild_id": SERVER, "is_adult": True},
        "elsewhere": {"guild_id": ELSEWHERE},
    }
    numbers = {name: (await paint(history, await ask(history, **place), seen(5 * at))).id for at, (name, place) in enumerate(places.items())}

    async def names(**scope: object) -> list[str]:
        found = await alike(album, scope=Scope(**scope))  # type: ignore[arg-type]
        return [name for number in found for name in numbers if numbers[name] == number]

    assert await names(user_id=ME) == ["mine", "private", "adult", "elsewhere"] and await names(user_id=OTHER) == ["theirs"]
    assert await names(guild_id=SERVER) == ["mine", "theirs", "adult"] and await names(guild_id=SERVER, adult=False) == ["mine", "theirs"]
    assert await names(guild_id=SERVER, channels=frozenset({21, 99})) == ["mine"] and await names(guild_id=SERVER, channels=frozenset()) == []
    assert await names(guild_id=ELSEWHERE) == ["elsewhere"] and await names(user_id=99) == [] and await names(user_id=OTHER, guild_id=ELSEWHERE) == []


async def test_more_alike_ones_that_may_not_be_seen_do_not_crowd_out_others(album: Album, history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similar, "CANDIDATES", 2)
    for place in ({"channel_id": 21}, {"is_adult": True}, {"guild_id": ELSEWHERE}):
        for degrees in (1, 2, 3):
            await paint(history, await ask(history, **({"guild_id": SERVER} | place)), seen(degrees))
    job = await paint(history, await ask(history, guild_id=SERVER), seen(60))
    assert await alike(album, scope=Scope(guild_id=SERVER, channels=frozenset({CHANNEL}), adult=False)) == [job.id]


async def test_what_is_painted_later_is_found_at_once(album: Album, history: History) -> None:
    assert await alike(album) == []
    job = await paint(history, await ask(history, guild_id=SERVER, is_adult=True), seen(5, 3))
    await album.painted(job)
    assert await alike(album) == await alike(album, scope=Scope(guild_id=SERVER, channels=frozenset({CHANNEL}))) == [job.id]
    assert await alike(album, scope=Scope(guild_id=SERVER, adult=False)) == [] and await alike(album, scope=Scope(user_id=OTHER)) == []
    # The same job, whose files were lost, painted again.
    await paint(history, job, seen(90))
    await album.painted(job)
    [again] = await album.lookalikes(SPACE, *seen(90), MINE, 9)
    assert again.job.id == job.id and again.cosine == pytest.approx(1, abs=1e-3)


async def test_nothing_that_nobody_looked_for_is_read_into_memory(album: Album, history: History) -> None:
    job = await paint(history, await ask(history), seen(5))
    await album.painted(job)
    await album.forget([1])
    assert album._indexes == {}


async def test_what_is_forgotten_is_found_no_more(album: Album, history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similar, "CANDIDATES", 1)
    near, far = [await paint(history, await ask(history), seen(degrees)) for degrees in (5, 50)]
    assert await alike(album) == [near.id]
    # In the database it is still there, and would take the only place.
    await album.forget([picture for picture in [await history.picture_id(near, 0)] if picture is not None])
    assert await alike(album) == [far.id]
    await album.forget([404])
    assert await alike(album) == [far.id]


@pytest.mark.parametrize("loaded", [True, False])
async def test_what_was_removed_or_withheld_is_not_like_anything(album: Album, history: History, loaded: bool) -> None:
    removed, withheld, kept = [await paint(history, await ask(history), seen(degrees)) for degrees in (5, 6, 50)]
    if loaded:
        assert await alike(album) == [removed.id, withheld.id, kept.id]
    await history.removed(removed, ME)
    await history.withheld(withheld)
    assert await alike(album) == [kept.id]


async def test_more_alike_ones_of_other_spaces_do_not_crowd_out_others(album: Album, history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similar, "CANDIDATES", 1)
    job, _ = await paint(history, await ask(history), seen(50)), await paint(history, await ask(history), seen(1), "other")
    assert await alike(album) == [job.id]


async def test_spaces_are_never_mixed(album: Album, history: History) -> None:
    one, other = [await paint(history, await ask(history), seen(5), space) for space in (SPACE, "other")]
    assert await alike(album) == [one.id] and await alike(album, space="other") == [other.id] and await alike(album, space="third") == []
    third = await paint(history, await ask(history), seen(3), "third")
    await album.painted(third)
    assert await alike(album) == [one.id] and await alike(album, space="third") == [third.id]
    # Painted again by another model, a job is in its space alone.
    await paint(history, one, seen(5), "other")
    await album.painted(one)
    assert await alike(album) == [] and await alike(album, space="other") == [other.id, one.id]


@pytest.fixture
async def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Album]:
    """An album over what an earlier run of the bot left on disk, read in several parts."""
    monkeypatch.setattr(module, "LOADED_AT_ONCE", 3)
    history = await History.open(tmp_path / "data")
    for degrees in (40, 10, 30, 20):
        await paint(history, await ask(history, guild_id=SERVER), seen(degrees, degrees + 100))
    await history.close()
    history = await History.open(tmp_path / "data")
    yield Album(history)
    await history.close()


async def test_likeness_is_read_from_disk_after_a_restart(filled: Album) -> None:
    assert await alike(filled) == [2, 4, 3, 1] and await alike(filled, 130) == [3, 4, 1, 2]
    assert await alike(filled, scope=Scope(guild_id=SERVER, channels=frozenset({CHANNEL}))) == [2, 4, 3, 1]


async def test_many_may_ask_before_likeness_has_been_read(filled: Album) -> None:
    results = await asyncio.gather(*(alike(filled) for _ in range(5)))
    assert results == [[2, 4, 3, 1]] * 5
    assert len(filled._indexes[SPACE]) == 8
