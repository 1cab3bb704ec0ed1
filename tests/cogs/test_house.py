import asyncio
import itertools
import time
from collections.abc import Sequence
from typing import Any

import discord
import pytest

from cogs._house import DAY_S, House, Place, Verdict, phrase
from cogs._language import language
from cogs._replies import Banned, MayNot, NotHere, TooNew, WordsBlocked
from engine.concepts import STRICTNESS
from engine.errors import TooManyJobs
from engine.history import History
from engine.jobs import STEPS_LIMIT, Job, Origin, Painting, Picture, Preset, Request
from engine.moderation import Moderation
from engine.preferences import Area, Defaults, Level, Preferences
from tests.conftest import ScriptedPainter

USER, THREAD, CHANNEL, SERVER, CHOSEN, OTHER = (1_000_000_000_000_000_000 + number for number in range(6))
ENGLISH = language("en-US")
ADMINISTRATOR = discord.Permissions(administrator=True)
SERVERS_MANAGER = discord.Permissions(manage_guild=True)
MESSAGES_MANAGER = discord.Permissions(manage_messages=True)


class ScriptedLooks:
    """Painters by the names of their models, or by their spaces; counts what was embedded."""

    def __init__(self) -> None:
        self.painters: dict[str, ScriptedPainter] = {"": ScriptedPainter()}
        self.ready = asyncio.Event()
        self.ready.set()
        self.embedded: list[str] = []

    def painter_of(self, model: str) -> ScriptedPainter | None:
        return self.painters.get(model)

    def painter_in(self, space: str) -> ScriptedPainter | None:
        return next((painter for painter in self.painters.values() if space and painter.space == space), None)

    async def embed_texts(self, painter: ScriptedPainter, texts: Sequence[str]) -> list[bytes]:
        self.embedded += texts
        return painter.embed_texts(texts)


class World:
    """A house over real memory, and what it asks."""

    def __init__(self, history: History) -> None:
        self.preferences, self.moderation = Preferences(history.database), Moderation(history)
        self.looks = ScriptedLooks()
        self.unfinished: list[Job] = []
        self.house = House(self.preferences, self.moderation, self.looks, self)

    async def choose(self, *, level: Level = Level.SERVER, subject: int = SERVER, **chosen: Any) -> None:
        for name, value in chosen.items():
            await self.preferences.choose(level, subject, name, value)

    async def admit(self, place: Place | None = None, prompt: str = "a cat", **options: Any) -> tuple[Request, tuple[str, ...]]:
        return await self.house.admit(place or here(), Request(prompt, 1, **options), ENGLISH)


def here(**facts: Any) -> Place:
    return Place(**{"user_id": USER, "channel_ids": (CHANNEL,), "guild_id": SERVER} | facts)


@pytest.fixture
async def world(history: History) -> World:
    made = World(history)
    await made.moderation.load()
    return made


# Who may.

AREAS = ("own", "settings", "gallery", "safety", "moderation", "owner")
MAY = {
    # Y: always. N: never. F: while no roles are chosen for the area. R: while some are, as a member of one.
    "owner": "YYYYYY",
    "administrator": "YYYYYN",
    "manages the server": "YFFFNN",
    "manages messages": "YNNNFN",
    "manages both": "YFFFFN",
    "has the role": "YRRRRN",
    "has the role and manages both": "YYYYYN",
    "has another role": "YNNNNN",
    "nobody": "YNNNNN",
    "owner, abroad": "YNNNNN",
    "administrator, abroad": "YNNNNN",
    "has the role, abroad": "YNNNNN",
}
PEOPLE: dict[str, dict[str, Any]] = {
    "owner": {"is_owner": True},
    "administrator": {"permissions": ADMINISTRATOR},
    "manages the server": {"permissions": SERVERS_MANAGER},
    "manages messages": {"permissions": MESSAGES_MANAGER},
    "manages both": {"permissions": SERVERS_MANAGER | MESSAGES_MANAGER},
    "has the role": {"roles": frozenset({CHOSEN, OTHER})},
    "has the role and manages both": {"roles": frozenset({CHOSEN}), "permissions": SERVERS_MANAGER | MESSAGES_MANAGER},
    "has another role": {"roles": frozenset({OTHER})},
    "nobody": {},
    "owner, abroad": {"is_owner": True, "guild_id": None},
    "administrator, abroad": {"permissions": ADMINISTRATOR, "guild_id": None},
    "has the role, abroad": {"roles": frozenset({CHOSEN}), "guild_id": None},
}


@pytest.mark.parametrize("who", PEOPLE)
async def test_who_may_change_what(world: World, who: str) -> None:
    assert [area.value for area in Area] == list(AREAS)
    place = here(**PEOPLE[who])
    for chosen in (False, True):
        for area in ("settings", "gallery", "safety", "moderation"):
            await world.choose(**{f"may_{area}": [CHOSEN] if chosen else None})
        for area, rule in zip(AREAS, MAY[who], strict=True):
            allowed = rule == "Y" or rule == ("R" if chosen else "F")
            assert world.house.may(place, Area(area)) == allowed, (area, chosen)
            if allowed:
                world.house.check_may(place, Area(area))
            else:
                with pytest.raises(MayNot):
                    world.house.check_may(place, Area(area))


async def test_roles_count_for_their_area_and_their_server_alone(world: World) -> None:
    areas = [area for area in Area if area not in (Area.OWN, Area.OWNER)]
    for chosen in areas:
        for area in areas:
            await world.choose(**{f"may_{area}": [CHOSEN] if area is chosen else None})
        for area in areas:
            assert world.house.may(here(roles=frozenset({CHOSEN})), area) == (area is chosen)
            assert not world.house.may(here(roles=frozenset({CHOSEN}), guild_id=404), area)
        # Where roles are chosen, the permission opens the other areas only.
        manager = here(permissions=SERVERS_MANAGER | MESSAGES_MANAGER)
        assert [world.house.may(manager, area) for area in areas] == [area is not chosen for area in areas]


# Who may use the bot at all.


@pytest.mark.parametrize("banned", [False, True])
@pytest.mark.parametrize("least_days", [None, 0, 0.5, 7])
@pytest.mark.parametrize("since", ["just long enough", "not quite", "unknown"])
async def test_the_banned_and_the_new_are_refused_in_that_server(world: World, banned: bool, least_days: float | None, since: str) -> None:
    if banned:
        await world.moderation.ban(SERVER, USER, 1, "")
    await world.choose(min_days=least_days)
    border = time.time() - (least_days or 0) * DAY_S
    joined_at = {"just long enough": border - 0.5, "not quite": border + 30, "unknown": None}[since]
    too_new = TooNew if least_days and since == "not quite" else None
    refusal = Banned if banned else too_new
    for place, error in (
        (here(joined_at=joined_at), refusal),
        (here(joined_at=joined_at, guild_id=None), None),
        (here(joined_at=joined_at, guild_id=404), None),
        (here(joined_at=joined_at, user_id=OTHER), too_new),
    ):
        if error is None:
            await world.house.check_person(place)
            await world.admit(place)
            continue
        with pytest.raises(error) as refused:
            await world.house.check_person(place)
        with pytest.raises(error):
            await world.admit(place)
        if error is TooNew:
            assert joined_at is not None and least_days is not None
            assert refused.value.when == f"<t:{round(joined_at + least_days * DAY_S)}:R>"  # type: ignore[attr-defined]


# What a request becomes.


@pytest.mark.parametrize("channels", [None, "all", "allowed"])
@pytest.mark.parametrize("parent", [None, "yes", "no"])
@pytest.mark.parametrize("thread", [None, "yes", "no"])
async def test_painting_is_where_the_server_and_the_channel_want_it(
    world: World, channels: str | None, parent: str | None, thread: str | None
) -> None:
    await world.choose(channels=channels)
    await world.choose(level=Level.CHANNEL, subject=CHANNEL, painting=parent)
    await world.choose(level=Level.CHANNEL, subject=THREAD, painting=thread)
    unsaid = "no" if channels == "allowed" else "yes"
    for places, answer in (((CHANNEL,), parent or unsaid), ((THREAD, CHANNEL), thread or parent or unsaid), ((404,), unsaid)):
        if answer == "yes":
            await world.admit(here(channel_ids=places))
        else:
            with pytest.raises(NotHere):
                await world.admit(here(channel_ids=places))


async def test_only_so_many_jobs_of_a_person_are_taken_in_a_server(world: World) -> None:
    await world.choose(max_jobs=2)
    mine, elsewhere, others = Origin(USER, CHANNEL, SERVER), Origin(USER, CHANNEL, 404), Origin(OTHER, CHANNEL, SERVER)
    world.unfinished = [Job(number, Request("a cat", 1), origin, 0.0) for number, origin in enumerate((mine, elsewhere, elsewhere, others, others))]
    await world.admit()
    world.unfinished.append(Job(9, Request("a cat", 1), mine, 0.0))
    with pytest.raises(TooManyJobs) as refused:
        await world.admit()
    assert refused.value.limit == 2
    with pytest.raises(TooManyJobs):
        await world.admit(here(user_id=OTHER))
    await world.admit(here(guild_id=None))
    await world.choose(max_jobs=None)
    await world.admit()


@pytest.mark.parametrize(("asked", "most", "given"), [(4, 4, 4), (4, 3, 3), (1, 1, 1), (9, 1, 1), (9, 9, 9), (4, None, 4)])
async def test_more_pictures_than_the_limit_become_the_limit_and_the_card_says_so(world: World, asked: int, most: int | None, given: int) -> None:
    await world.choose(max_count=most)
    request, notes = await world.admit(count=asked)
    assert (request.count, request.steps) == (given, None)
    assert notes == (() if asked == given else (f"count: {most} instead of {asked}, which is the limit here.",))


@pytest.mark.parametrize(
    ("asked", "most", "given"), [(30, 30, 30), (31, 30, 30), (None, 30, None), (None, 29, 29), (250, 1, 1), (1, 1, 1), (None, None, None)]
)
async def test_more_steps_than_the_limit_become_the_limit_also_where_they_are_the_models_own(
    world: World, asked: int | None, most: int | None, given: int | None
) -> None:
    await world.choose(max_steps=most)
    request, notes = await world.admit(steps=asked)
    assert (request.steps, request.count) == (given, 4)
    # The scripted painter takes 30 where nobody says.
    assert notes == (() if asked == given else (f"steps: {most} instead of {asked or 30}, which is the limit here.",))


@pytest.mark.parametrize("asked", [None, 10, 11])
async def test_a_model_that_is_not_loaded_yet_gets_the_limit(world: World, asked: int | None) -> None:
    await world.choose(max_steps=10)
    world.looks.painters = {}
    request, notes = await world.admit(steps=asked, model="second")
    assert request.steps == 10
    assert notes == (("steps: 10 instead of 11, which is the limit here.",) if asked == 11 else ())
    await world.choose(max_steps=STEPS_LIMIT)
    assert (await world.admit(model="second"))[0].steps is None


async def test_the_steps_that_count_are_those_of_the_model_that_is_asked_for(world: World) -> None:
    await world.choose(max_steps=20)
    quick = ScriptedPainter()
    quick.usual = 20
    world.looks.painters["quick"] = quick
    assert (await world.admit(model="quick"))[0].steps is None
    assert (await world.admit(model="quick", preset=Preset.BEST))[0].steps == 20
    assert (await world.admit())[0].steps == 20


REMOVED = "Words that are not allowed here were taken out."


@pytest.mark.parametrize("policy", [None, "refuse", "remove"])
@pytest.mark.parametrize(
    ("prompt", "kept"),
    [
        ("a cat", "a cat"),
        ("a stupid cat", "a cat"),
        ("a $tup1d cat!", "a cat!"),
        ("stupid", ""),
        ("stupid, (stupid)", ""),
        ("stupidity", "stupidity"),
    ],
)
async def test_blocked_words_are_refused_or_taken_out(world: World, policy: str | None, prompt: str, kept: str) -> None:
    await world.choose(blocked_words="stupid\nugly", word_policy=policy)
    if prompt == kept:
        assert await world.admit(prompt=prompt) == (Request(prompt, 1), ())
    elif policy == "remove" and kept:
        assert await world.admit(prompt=prompt) == (Request(kept, 1), (REMOVED,))
    else:
        with pytest.raises(WordsBlocked) as refused:
            await world.admit(prompt=prompt)
        assert refused.value.words == "||stupid||"
    assert (await world.admit(here(guild_id=None), prompt=prompt))[0].prompt == prompt


async def test_everything_that_was_changed_is_told(world: World) -> None:
    await world.choose(blocked_words="stupid", word_policy="remove", max_count=2)
    await world.choose(level=Level.CHANNEL, subject=CHANNEL, max_steps=5)
    request, notes = await world.admit(prompt="a stupid cat", count=4, steps=6, guidance=2.5)
    assert request == Request("a cat", 1, 2, 5, 2.5)
    assert notes == (REMOVED, "count: 2 instead of 4, which is the limit here.", "steps: 5 instead of 6, which is the limit here.")
    german = await world.house.admit(here(), Request("a stupid cat", 1, 1, 1), language("de"))
    assert german[1] and german[1] != (REMOVED,)


# What may be seen.


def painting(*prompts: str | None, space: str = "scripted") -> Painting:
    """Return pictures of these; CLIP has not looked at None."""
    seen = ScriptedPainter().seen
    pictures = tuple(Picture(b"", number, 8, 8, None if prompt is None else seen(prompt)) for number, prompt in enumerate(prompts))
    return Painting(pictures, "scripted", 1, 1.0, 1.0, space=space)


@pytest.mark.parametrize("policy", [None, "withhold", "spoiler"])
@pytest.mark.parametrize("adult", [None, "free", "same"])
@pytest.mark.parametrize("is_adult", [False, True])
async def test_what_becomes_of_pictures(world: World, policy: str | None, adult: str | None, is_adult: bool) -> None:
    await world.choose(blocked_concepts="snake\nthe blood", concept_policy=policy, adult_channels=adult)
    free = is_adult and adult != "same"
    hit = Verdict(("snake",), withhold=policy != "spoiler", spoiler=policy == "spoiler")
    both = Verdict(("snake", "the blood"), hit.withhold, hit.spoiler)
    for seen, verdict in (
        (painting("house", "tree"), Verdict()),
        (painting("house", "snake"), hit),
        (painting("snake", "snake"), hit),
        (painting("snake", "the blood"), both),
        (painting("blood"), Verdict()),
        (painting("snake", space="of another model"), Verdict(spoiler=True)),
        (painting(None, None, space=""), Verdict(spoiler=True)),
        (painting("house", None), Verdict(spoiler=True)),
        (painting("snake", None), hit),
    ):
        assert await world.house.judge(seen, SERVER, is_adult) == (Verdict() if free else verdict)
        for guild_id in (None, 404):
            assert await world.house.judge(seen, guild_id, is_adult) == Verdict()
    for guild_id in (SERVER, None, 404):
        looked_at = guild_id == SERVER and not free
        assert world.house.looks_at(guild_id, is_adult) == looked_at
        job = Job(1, Request("a cat", 1), Origin(USER, CHANNEL, guild_id, is_adult=is_adult), 0.0)
        assert world.house.previews(job) != looked_at


@pytest.mark.parametrize("strictness", [None, *STRICTNESS])
async def test_the_strictness_is_the_servers(world: World, monkeypatch: pytest.MonkeyPatch, strictness: str | None) -> None:
    thresholds: list[float] = []
    monkeypatch.setattr("cogs._house.shown", lambda picture, concepts, everyday, threshold: thresholds.append(threshold) or [])
    await world.choose(blocked_concepts="snake", strictness=strictness)
    await world.house.judge(painting("snake"), SERVER, False)
    assert thresholds == [{"low": 2.5, None: 2.0, "middle": 2.0, "high": 1.5}[strictness]]


async def test_texts_are_embedded_once_for_each_space(world: World) -> None:
    await world.choose(blocked_concepts="snake")
    for _ in range(2):
        await world.house.judge(painting("house"), SERVER, False)
    assert world.looks.embedded == ["a snake", "a cat", "a dog", "a house", "a tree"]
    other = ScriptedPainter()
    other.space = "other"
    world.looks.painters["other"] = other
    await world.house.judge(painting("house", space="other"), SERVER, False)
    assert len(world.looks.embedded) == 10
    await world.choose(blocked_concepts="snake\ndragon")
    await world.house.judge(painting("house"), SERVER, False)
    assert world.looks.embedded[10:] == ["a dragon"]


async def test_pictures_of_the_run_before_wait_until_somebody_can_look_at_them(world: World) -> None:
    await world.choose(blocked_concepts="snake")
    painters, world.looks.painters = world.looks.painters, {}
    world.looks.ready.clear()
    judging = asyncio.create_task(world.house.judge(painting("snake"), SERVER, False))
    await asyncio.sleep(0.05)
    assert not judging.done()
    # What needs no look, or can get none, waits for nobody.
    assert await world.house.judge(painting(None, space=""), SERVER, False) == Verdict(spoiler=True)
    assert await world.house.judge(painting("snake"), None, False) == Verdict()
    world.looks.painters = painters
    world.looks.ready.set()
    assert (await judging).withhold


@pytest.mark.parametrize(
    ("concept", "said"), [("snake", "a snake"), ("a snake", "a snake"), ("An eye", "An eye"), ("the sun", "the sun"), ("android", "a android")]
)
def test_concepts_are_looked_for_as_pictures_are_described(concept: str, said: str) -> None:
    assert phrase(concept) == said


# What is usual.


async def test_the_nearest_choice_counts(world: World) -> None:
    subjects = {Level.USER: USER, Level.CHANNEL: CHANNEL, Level.SERVER: SERVER}
    locales = {Level.USER: "de", Level.CHANNEL: "fr", Level.SERVER: "ja"}
    for chosen in itertools.product((False, True), repeat=3):
        there = [level for level, is_chosen in zip(Level, chosen, strict=True) if is_chosen]
        for number, level in enumerate(Level, start=1):
            mine = level in there
            await world.choose(level=level, subject=subjects[level], count=number if mine else None, language=locales[level] if mine else None)
        expected = list(Level).index(there[0]) + 1 if there else 4
        assert world.house.defaults(here()) == Defaults(expected)
        assert world.house.locale(here(), "es-ES") == (locales[there[0]] if there else "es-ES")
        # A thread has what its channel has; abroad only one's own counts.
        assert world.house.defaults(here(channel_ids=(THREAD, CHANNEL))) == Defaults(expected)
        abroad = here(channel_ids=(404,), guild_id=None)
        assert world.house.defaults(abroad).count == (1 if Level.USER in there else 4)
        assert world.house.locale(abroad, "es-ES") == ("de" if Level.USER in there else "es-ES")
