import asyncio
import contextlib
import itertools
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from engine.gallery import BUTTON, FIRST_RATING, RATING_STEP, STAR_WORTH, Gallery, Share, Stats, expected
from engine.history import History
from engine.jobs import Job, Origin, Painting, Picture, Request
from engine.rights import Rights
from tests.conftest import picture_of

SERVER, ELSEWHERE, CHANNEL, WALL = 70, 71, 50, 51
ANN, BOB, CAY, DAN = 1, 2, 3, 4


async def painted(
    history: History, user_id: int = ANN, count: int = 1, guild_id: int = SERVER, result_id: int = 0, adult: bool = False, spoiler: bool = False
) -> Job:
    job = await history.add(Request("a cat", 1, count), Origin(user_id, CHANNEL, guild_id, is_adult=adult, spoiler=spoiler))
    await history.painted(job, Painting(tuple(Picture(b"", seed, 8, 8) for seed in job.request.seeds), "m", 5, 1.0, 0.5))
    await history.delivered(job, result_id)
    return job


async def shared(history: History, user_id: int = ANN, guild_id: int = SERVER, **options: Any) -> int:
    """Return a new picture that its creator shares."""
    picture = await picture_of(history, await painted(history, user_id, guild_id=guild_id, **options))
    assert await Gallery(history).share(picture, guild_id, user_id)
    return picture


async def stars(history: History, picture: int) -> int:
    share = await Gallery(history).find(picture)
    assert share is not None
    return share.stars


@pytest.fixture
def gallery(history: History) -> Gallery:
    return Gallery(history)


# Sharing.


async def test_a_picture_is_shared_once_and_found_by_everything_it_belongs_to(history: History, gallery: Gallery) -> None:
    job = await painted(history, ANN, count=3, adult=True, spoiler=True)
    second, third = await picture_of(history, job, 1), await picture_of(history, job, 2)
    other = await shared(history, BOB, ELSEWHERE)
    assert await gallery.find(third) is None and await gallery.of_job(job) == []
    assert await gallery.share(third, SERVER, ANN) and await gallery.share(second, SERVER, ANN)
    assert not await gallery.share(third, SERVER, ANN)
    found = await gallery.find(third)
    assert found == Share(third, job.id, 2, SERVER, ANN, 0, FIRST_RATING, 0, True, True, None, None)
    assert [share.picture for share in await gallery.of_job(job)] == [second, third]
    assert [share.picture for share in await gallery.of_server(SERVER)] == [second, third]
    assert [share.picture for share in await gallery.of_server(ELSEWHERE)] == [other]
    assert await gallery.servers() == [SERVER, ELSEWHERE]


async def test_what_was_deleted_or_withheld_is_not_visible(history: History, gallery: Gallery) -> None:
    jobs = [await painted(history) for _ in range(3)]
    shares = []
    for job in jobs:
        await gallery.share(await picture_of(history, job), SERVER, ANN)
        shares += await gallery.of_job(job)
    await history.removed(jobs[0], BOB)
    await history.withheld(jobs[1])
    assert [await gallery.is_visible(share) for share in shares] == [False, False, True]
    assert [share.picture for share in await gallery.best(SERVER, 9, adult=True)] == [shares[2].picture]
    assert await gallery.pair(SERVER, BOB, adult=True) is None


async def test_what_is_withdrawn_leaves_neither_stars_nor_votes_and_its_entry_is_to_go(history: History, gallery: Gallery) -> None:
    picture, other = await shared(history), await shared(history)
    await gallery.posted(picture, WALL, 900)
    await gallery.star(picture, BOB)
    await gallery.star(picture, CAY, 900)
    await gallery.star(other, BOB)
    await gallery.vote(BOB, picture, other)
    await gallery.vote(CAY, other, picture)
    withdrawn = await gallery.withdraw(picture)
    assert withdrawn is not None and (withdrawn.stars, withdrawn.votes, withdrawn.channel_id, withdrawn.message_id) == (2, 2, WALL, 900)
    assert await gallery.find(picture) is None and await gallery.withdraw(picture) is None
    assert await gallery.doomed() == [(WALL, 900)]
    assert await gallery.picture_in(900) is None and await gallery.showings(picture) == []
    assert await history.database.rows("SELECT * FROM vote") == [] and await stars(history, other) == 1
    await gallery.share(picture, SERVER, ANN)
    again = await gallery.find(picture)
    assert again is not None and (again.stars, again.rating, again.votes, again.message_id) == (0, FIRST_RATING, 0, None)


async def test_what_has_no_entry_is_withdrawn_without_one_to_go(history: History, gallery: Gallery) -> None:
    assert await gallery.withdraw(await shared(history)) is not None
    assert await gallery.doomed() == []


async def test_an_entry_that_comes_after_the_picture_was_withdrawn_is_to_go(history: History, gallery: Gallery) -> None:
    picture = await shared(history)
    await asyncio.gather(gallery.withdraw(picture), gallery.posted(picture, WALL, 900))
    assert await gallery.doomed() == [(WALL, 900)] and await gallery.showings(picture) == []


async def test_messages_and_stars_that_come_after_a_picture_was_erased_are_none(history: History, gallery: Gallery) -> None:
    picture = await shared(history)
    await Rights(history).erase_user(ANN)
    await gallery.posted(picture, WALL, 900)
    await gallery.shown(901, CHANNEL, picture)
    assert await gallery.doomed() == [(WALL, 900), (CHANNEL, 901)]
    assert not await gallery.star(picture, BOB)
    await gallery.set_stars(picture, 901, {BOB, CAY})
    assert await history.database.rows("SELECT * FROM star") == []


# Stars.


async def test_one_persons_star_counts_once_by_whatever_it_was_given(history: History, gallery: Gallery) -> None:
    picture, other = await shared(history), await shared(history)
    given = [
        await gallery.star(picture, BOB),
        await gallery.star(picture, BOB),
        await gallery.star(picture, BOB, 900),
        await gallery.star(picture, CAY),
    ]
    assert given == [True, False, True, True]
    assert await stars(history, picture) == 2 and await stars(history, other) == 0


async def test_ones_own_star_does_not_count(history: History, gallery: Gallery) -> None:
    picture = await shared(history)
    assert await gallery.star(picture, ANN) and await gallery.star(picture, BOB)
    assert await stars(history, picture) == 1


async def test_a_star_stays_until_it_was_taken_back_everywhere(history: History, gallery: Gallery) -> None:
    picture = await shared(history)
    await gallery.star(picture, BOB, 900)
    await gallery.star(picture, BOB, 901)
    assert not await gallery.unstar(picture, BOB) and not await gallery.unstar(picture, CAY, 900)
    assert await gallery.unstar(picture, BOB, 900) and not await gallery.unstar(picture, BOB, 900)
    assert await stars(history, picture) == 1
    assert await gallery.unstar(picture, BOB, 901)
    assert await stars(history, picture) == 0


async def test_stars_on_a_message_go_with_it(history: History, gallery: Gallery) -> None:
    picture = await shared(history, result_id=800)
    await gallery.posted(picture, WALL, 900)
    for person, message in ((BOB, 800), (BOB, 900), (CAY, 900), (DAN, BUTTON)):
        await gallery.star(picture, person, message)
    assert await gallery.message_vanished(900) == picture
    assert await stars(history, picture) == 2
    share = await gallery.find(picture)
    assert share is not None and share.channel_id is None and share.message_id is None
    assert await gallery.message_vanished(900) is None
    assert await gallery.message_vanished(800) == picture
    assert await stars(history, picture) == 1


async def test_stars_that_nobody_listened_to_are_caught_up_with(history: History, gallery: Gallery) -> None:
    picture = await shared(history)
    await gallery.star(picture, BOB, 900)
    await gallery.star(picture, DAN, 901)
    await gallery.set_stars(picture, 900, {CAY, ANN})
    assert await stars(history, picture) == 2
    assert not await gallery.unstar(picture, BOB, 900) and await gallery.unstar(picture, CAY, 900)
    await gallery.set_stars(picture, 900, set())
    assert await stars(history, picture) == 1


PICTURES, PEOPLE, MESSAGES = st.integers(0, 2), st.sampled_from([ANN, BOB, CAY]), st.integers(900, 903)


class Stars(RuleBasedStateMachine):
    """Whatever happens to shares, messages and stars, a picture has as many stars as people other than its creator hold one on it."""

    def __init__(self) -> None:
        super().__init__()
        self.closing = contextlib.ExitStack()
        self.run = self.closing.enter_context(asyncio.Runner()).run
        folder = Path(self.closing.enter_context(tempfile.TemporaryDirectory()))
        self.history = self.run(History.open(folder))
        self.closing.callback(lambda: self.run(self.history.close()))
        self.gallery = Gallery(self.history)
        self.numbers = [self.run(shared(self.history, owner)) for owner in (ANN, BOB, ANN)]
        self.owners = dict(zip(self.numbers, (ANN, BOB, ANN), strict=True))
        self.given: set[tuple[int, int, int]] = set()
        self.entries: dict[int, int | None] = dict.fromkeys(self.numbers)

    def teardown(self) -> None:
        self.closing.close()

    def free(self, message: int) -> bool:
        """Discord's messages show one picture: an entry is never that of another one too."""
        return message not in self.entries.values()

    @rule(number=PICTURES, person=PEOPLE, message=MESSAGES | st.just(BUTTON))
    def star(self, number: int, person: int, message: int) -> None:
        star = (self.numbers[number], person, message)
        assert self.run(self.gallery.star(*star)) == (star not in self.given)
        self.given.add(star)

    @rule(number=PICTURES, person=PEOPLE, message=MESSAGES | st.just(BUTTON))
    def unstar(self, number: int, person: int, message: int) -> None:
        star = (self.numbers[number], person, message)
        assert self.run(self.gallery.unstar(*star)) == (star in self.given)
        self.given.discard(star)

    @rule(number=PICTURES, message=MESSAGES, people=st.sets(PEOPLE))
    def catch_up(self, number: int, message: int, people: set[int]) -> None:
        picture = self.numbers[number]
        self.run(self.gallery.set_stars(picture, message, people))
        self.lose(message)
        self.given |= {(picture, person, message) for person in people}

    @rule(number=PICTURES, message=MESSAGES)
    def post(self, number: int, message: int) -> None:
        picture = self.numbers[number]
        if picture in self.entries and self.free(message):
            self.run(self.gallery.posted(picture, WALL, message))
            self.entries[picture] = message

    @rule(message=MESSAGES)
    def vanish(self, message: int) -> None:
        self.run(self.gallery.message_vanished(message))
        self.lose(message)
        self.entries = {picture: None if entry == message else entry for picture, entry in self.entries.items()}

    @rule(number=PICTURES, unlist=st.booleans())
    def take_away(self, number: int, unlist: bool) -> None:
        picture = self.numbers[number]
        share = self.run(self.gallery.find(picture))
        if share is not None:
            self.run(self.gallery.unlisted(share) if unlist else self.gallery.vanished(picture))
            self.lose(self.entries[picture])
            self.entries[picture] = None

    @rule(number=PICTURES)
    def withdraw(self, number: int) -> None:
        picture = self.numbers[number]
        self.run(self.gallery.withdraw(picture))
        self.lose(self.entries.pop(picture, None))
        self.given = {star for star in self.given if star[0] != picture}

    @precondition(lambda self: len(self.entries) < len(self.numbers))
    @rule(number=PICTURES)
    def share(self, number: int) -> None:
        picture = self.numbers[number]
        assert self.run(self.gallery.share(picture, SERVER, self.owners[picture])) == (picture not in self.entries)
        self.entries.setdefault(picture, None)

    def lose(self, message: int | None) -> None:
        self.given = {star for star in self.given if star[2] != message}

    @invariant()
    def counts(self) -> None:
        found = {share.picture: (share.stars, share.message_id) for share in self.run(self.gallery.of_server(SERVER))}
        people = {picture: {person for one, person, _ in self.given if one == picture} - {self.owners[picture]} for picture in self.entries}
        assert found == {picture: (len(people[picture]), entry) for picture, entry in self.entries.items()}


def test_stars_are_those_that_a_naive_count_says_whatever_happens() -> None:
    run_state_machine_as_test(Stars, settings=settings(max_examples=30, stateful_step_count=25, deadline=None))


# What messages show.


async def test_a_result_of_one_picture_shows_it_and_a_grid_shows_none(history: History, gallery: Gallery) -> None:
    single, grid = await painted(history, result_id=800), await painted(history, count=2, result_id=801)
    picture, one = await picture_of(history, single), await picture_of(history, grid)
    assert (await gallery.picture_in(800), await gallery.picture_in(801), await gallery.picture_in(802)) == (picture, None, None)
    assert await gallery.showings(picture) == [(CHANNEL, 800)] and await gallery.showings(one) == []
    await gallery.shown(802, 52, one)
    await gallery.shown(803, 52, picture)
    assert (await gallery.picture_in(802), await gallery.picture_in(803)) == (one, picture)
    assert sorted(await gallery.showings(picture)) == [(CHANNEL, 800), (52, 803)]
    await gallery.shown(803, 52, one)
    assert await gallery.picture_in(803) == one


async def test_a_result_without_a_message_shows_nothing(history: History, gallery: Gallery) -> None:
    assert await gallery.showings(await picture_of(history, await painted(history, result_id=0))) == []


# Entries.


async def test_an_entry_is_known_until_it_vanishes(history: History, gallery: Gallery) -> None:
    picture = await shared(history)
    await gallery.posted(picture, WALL, 900)
    await gallery.star(picture, BOB, 900)
    await gallery.star(picture, CAY)
    share = await gallery.find(picture)
    assert share is not None and (share.channel_id, share.message_id, share.stars) == (WALL, 900, 2)
    assert await gallery.showings(picture) == [(WALL, 900)]
    await gallery.vanished(picture)
    share = await gallery.find(picture)
    assert share is not None and (share.channel_id, share.message_id, share.stars) == (None, None, 1)
    assert await gallery.picture_in(900) is None and await gallery.doomed() == []
    await gallery.vanished(picture)


async def test_an_entry_that_is_being_posted_has_a_place_and_no_message(history: History, gallery: Gallery) -> None:
    picture = await shared(history)
    await gallery.posting(picture, WALL)
    share = await gallery.find(picture)
    assert share is not None and (share.channel_id, share.message_id) == (WALL, None) and await gallery.showings(picture) == []
    await gallery.unlisted(share)
    await gallery.withdraw(picture)
    assert await gallery.doomed() == []


async def test_an_entry_that_is_unlisted_is_doomed_until_it_is_gone(history: History, gallery: Gallery) -> None:
    first, second = await shared(history), await shared(history)
    for picture, message in ((first, 902), (second, 901)):
        await gallery.posted(picture, WALL, message)
        await gallery.star(picture, BOB, message)
        share = await gallery.find(picture)
        assert share is not None
        await gallery.unlisted(share)
    assert await gallery.doomed() == [(WALL, 901), (WALL, 902)]
    share = await gallery.find(first)
    assert share is not None and share.message_id is None and share.stars == 0
    await gallery.unlisted(share)
    await gallery.gone(901)
    assert await gallery.doomed() == [(WALL, 902)]
    await gallery.message_vanished(902)
    assert await gallery.doomed() == []


# Votes.


def test_equals_win_as_often_as_they_lose_and_400_points_are_ten_to_one() -> None:
    assert expected(1500, 1500) == 0.5
    assert expected(1900, 1500) == pytest.approx(10 / 11)
    assert expected(1500, 1900) + expected(1900, 1500) == pytest.approx(1)


async def test_nobody_chooses_between_their_own_pictures_or_twice_between_the_same(history: History, gallery: Gallery) -> None:
    await shared(history, BOB)
    await shared(history, CAY, ELSEWHERE)
    theirs = {await shared(history, person) for person in (ANN, ANN, CAY, DAN)}
    chosen = []
    while (pair := await gallery.pair(SERVER, BOB, adult=False)) is not None:
        one, other = (share.picture for share in pair)
        assert await gallery.vote(BOB, one, other)
        chosen.append(frozenset((one, other)))
    assert sorted(map(sorted, chosen)) == sorted(sorted(pair) for pair in itertools.combinations(sorted(theirs), 2))
    assert await gallery.pair(SERVER, DAN, adult=False) is not None and await gallery.pair(ELSEWHERE, BOB, adult=False) is None


async def test_age_restricted_pictures_are_shown_only_where_they_may_be(history: History, gallery: Gallery) -> None:
    free, adult = await shared(history), await shared(history, adult=True)
    assert await gallery.pair(SERVER, BOB, adult=False) is None
    pair = await gallery.pair(SERVER, BOB, adult=True)
    assert pair is not None and {share.picture for share in pair} == {free, adult}
    assert [share.picture for share in await gallery.best(SERVER, 9, adult=False)] == [free]


async def test_the_picture_with_the_fewest_votes_is_asked_for_beside_its_equal_in_either_order(history: History, gallery: Gallery) -> None:
    pictures = [await shared(history) for _ in range(4)]
    for picture, votes, rating in zip(pictures, (0, 3, 2, 4), (1600, 1900, 1400, 1620), strict=True):
        await history.database.change("UPDATE share SET votes = ?, rating = ? WHERE picture = ?", votes, rating, picture)
    pairs = set()
    for _ in range(40):
        pair = await gallery.pair(SERVER, BOB, adult=False)
        assert pair is not None
        pairs.add((pair[0].picture, pair[1].picture))
    assert pairs == {(pictures[0], pictures[3]), (pictures[3], pictures[0])}


async def test_a_vote_moves_points_from_the_loser_to_the_winner(history: History, gallery: Gallery) -> None:
    pictures = [await shared(history, person) for person in (ANN, ANN, CAY)]
    assert await gallery.vote(BOB, pictures[1], pictures[0])
    first, second = await gallery.find(pictures[0]), await gallery.find(pictures[1])
    assert first is not None and second is not None
    assert (second.rating - FIRST_RATING, first.rating - FIRST_RATING) == (RATING_STEP / 2, -RATING_STEP / 2)
    for person, (winner, loser) in itertools.product((BOB, DAN), itertools.permutations(pictures, 2)):
        await gallery.vote(person, winner, loser)
    shares = await gallery.of_server(SERVER)
    assert sum(share.rating for share in shares) == pytest.approx(3 * FIRST_RATING)
    assert [share.votes for share in shares] == [4, 4, 4]


async def test_a_favourite_gains_less_than_an_outsider(history: History, gallery: Gallery) -> None:
    strong, weak = await shared(history), await shared(history)
    await history.database.change("UPDATE share SET rating = 1900 WHERE picture = ?", strong)
    await gallery.vote(BOB, strong, weak)
    share = await gallery.find(strong)
    assert share is not None and share.rating == pytest.approx(1900 + RATING_STEP / 11)


async def test_votes_that_do_not_count_change_nothing(history: History, gallery: Gallery) -> None:
    one, other, own, withdrawn = [await shared(history, person) for person in (ANN, ANN, BOB, ANN)]
    await gallery.withdraw(withdrawn)
    assert await gallery.vote(BOB, one, other)
    before = await gallery.of_server(SERVER)
    refused = [(one, other), (other, one), (one, own), (own, one), (one, withdrawn), (withdrawn, one), (one, one), (one, 404)]
    assert not any([await gallery.vote(BOB, *pair) for pair in refused])
    assert await gallery.of_server(SERVER) == before


# Rankings.


async def test_the_best_have_the_highest_rating_and_stars(history: History, gallery: Gallery) -> None:
    plain, starred, rated, _elsewhere = [await shared(history, ANN, server) for server in (SERVER, SERVER, SERVER, ELSEWHERE)]
    for person in (BOB, CAY):
        await gallery.star(starred, person)
    await history.database.change("UPDATE share SET rating = ? WHERE picture = ?", FIRST_RATING + 2 * STAR_WORTH - 1, rated)
    best = await gallery.best(SERVER, 9, adult=False)
    assert [(share.picture, share.score) for share in best] == [(starred, 1550), (rated, 1549), (plain, 1500)]
    assert await gallery.best(SERVER, 2, adult=False) == best[:2]
    await history.database.change("UPDATE share SET rating = rating + 1 WHERE picture = ?", rated)
    assert [share.picture for share in await gallery.best(SERVER, 9, adult=False)] == [starred, rated, plain]


async def test_creators_are_ranked_by_what_others_think(history: History, gallery: Gallery) -> None:
    anns, more, bobs, _cays, away = [
        await shared(history, person, server) for person, server in ((ANN, SERVER), (ANN, SERVER), (BOB, SERVER), (CAY, SERVER), (CAY, ELSEWHERE))
    ]
    for picture, person in ((anns, BOB), (more, BOB), (bobs, ANN), (bobs, BOB), (away, ANN)):
        await gallery.star(picture, person)
    assert await gallery.creators(SERVER, 9) == [(ANN, 2, 2), (BOB, 1, 1), (CAY, 0, 1)]
    assert await gallery.creators(SERVER, 1) == [(ANN, 2, 2)]
    assert await gallery.creators(404, 9) == []


async def test_stats_count_what_was_painted_and_shared_by_whom_and_where(history: History, gallery: Gallery) -> None:
    await shared(history, ANN)
    await shared(history, ANN, ELSEWHERE)
    bobs = await shared(history, BOB)
    await painted(history, BOB, count=4)
    await history.failed(await history.add(Request("a cat", 1), Origin(ANN, CHANNEL, SERVER)), "why")
    await gallery.star(bobs, ANN)
    await gallery.star(bobs, CAY)
    assert await gallery.stats() == Stats(jobs=4, pictures=7, seconds=2.0, shared=3, stars=2, people=2)
    assert await gallery.stats(user_id=BOB) == Stats(2, 5, 1.0, 1, 2, 1)
    assert await gallery.stats(guild_id=SERVER) == Stats(3, 6, 1.5, 2, 2, 2)
    assert await gallery.stats(user_id=ANN, guild_id=ELSEWHERE) == Stats(1, 1, 0.5, 1, 0, 1)
    assert await gallery.stats(user_id=DAN) == Stats(0, 0, 0.0, 0, 0, 0)


async def test_stars_of_who_asked_to_be_forgotten_are_not_read_in_again(history: History, gallery: Gallery) -> None:
    picture = await shared(history)
    await gallery.shown(77, CHANNEL, picture)
    await gallery.star(picture, BOB, 77)
    await Rights(history).erase_user(BOB)
    await gallery.set_stars(picture, 77, {BOB, CAY})
    assert [row["user_id"] for row in await history.database.rows("SELECT user_id FROM star")] == [CAY]
    # Who gives one anew counts again.
    await gallery.star(picture, BOB, 77)
    await gallery.set_stars(picture, 77, {BOB, CAY})
    assert await stars(history, picture) == 2
