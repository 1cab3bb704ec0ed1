import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.errors import InvalidRequest
from engine.history import History
from engine.jobs import Kind, Preset, Request
from engine.preferences import CONCEPT_LENGTH, CONCEPTS_LIMIT, LANGUAGES, ROLES_LIMIT, SETTINGS, Area, Change, Defaults, Form, Level, Preferences
from engine.words import RULE_LIMIT, RULES_LIMIT

USER, THREAD, CHANNEL, SERVER, ROLE = (1_000_000_000_000_000_000 + number for number in range(5))
EVERYWHERE, BELOW, ON_SERVER = set(Level), {Level.CHANNEL, Level.SERVER}, {Level.SERVER}
EXPECTED: Mapping[str, tuple[set[Level], Area, Form, Any, Any]] = {
    "model": (EVERYWHERE, Area.SETTINGS, Form.CHOICE, "emoji", "emoji"),
    "count": (EVERYWHERE, Area.SETTINGS, Form.NUMBER, "3", 3),
    "steps": (EVERYWHERE, Area.SETTINGS, Form.NUMBER, " 12 ", 12),
    "guidance": (EVERYWHERE, Area.SETTINGS, Form.NUMBER, "2,5", 2.5),
    "preset": (EVERYWHERE, Area.SETTINGS, Form.CHOICE, "best", "best"),
    "spoiler": (EVERYWHERE, Area.SETTINGS, Form.CHOICE, "no", "no"),
    "language": (EVERYWHERE, Area.SETTINGS, Form.CHOICE, "de", "de"),
    "max_count": (BELOW, Area.SETTINGS, Form.NUMBER, "2", 2),
    "max_steps": (BELOW, Area.SETTINGS, Form.NUMBER, "50.0", 50),
    "max_jobs": (ON_SERVER, Area.SETTINGS, Form.NUMBER, "1", 1),
    "painting": ({Level.CHANNEL}, Area.SETTINGS, Form.CHOICE, "yes", "yes"),
    "channels": (ON_SERVER, Area.SETTINGS, Form.CHOICE, "allowed", "allowed"),
    "retention_days": (ON_SERVER, Area.SETTINGS, Form.NUMBER, "30", 30),
    "gallery": (ON_SERVER, Area.GALLERY, Form.CHANNEL, str(CHANNEL), CHANNEL),
    "gallery_stars": (ON_SERVER, Area.GALLERY, Form.NUMBER, "0", 0),
    "blocked_words": (ON_SERVER, Area.SAFETY, Form.LINES, "Gun\n\n red   car \ngun", ["gun", "red car"]),
    "word_policy": (ON_SERVER, Area.SAFETY, Form.CHOICE, "remove", "remove"),
    "blocked_concepts": (ON_SERVER, Area.SAFETY, Form.LINES, " a  Gun\n\nblood\nblood", ["a Gun", "blood"]),
    "concept_policy": (ON_SERVER, Area.SAFETY, Form.CHOICE, "withhold", "withhold"),
    "strictness": (ON_SERVER, Area.SAFETY, Form.CHOICE, "high", "high"),
    "adult_channels": (ON_SERVER, Area.SAFETY, Form.CHOICE, "same", "same"),
    "min_days": (ON_SERVER, Area.SAFETY, Form.NUMBER, "0.5", 0.5),
    "reports": (ON_SERVER, Area.SAFETY, Form.CHANNEL, str(CHANNEL), CHANNEL),
    "may_settings": (ON_SERVER, Area.OWNER, Form.ROLES, [str(ROLE), CHANNEL], [ROLE, CHANNEL]),
    "may_gallery": (ON_SERVER, Area.OWNER, Form.ROLES, [ROLE], [ROLE]),
    "may_safety": (ON_SERVER, Area.OWNER, Form.ROLES, str(ROLE), [ROLE]),
    "may_moderation": (ON_SERVER, Area.OWNER, Form.ROLES, [ROLE], [ROLE]),
}
"""Of every setting: where it is chosen, who may, its form, something to write, and what that means."""
RANGES = {
    "count": (1, 9, 1),
    "steps": (1, 250, 1),
    "guidance": (0, 20, 0.01),
    "max_count": (1, 9, 1),
    "max_steps": (1, 250, 1),
    "max_jobs": (1, 1000, 1),
    "retention_days": (1, 3650, 1),
    "gallery_stars": (0, 1000, 1),
    "min_days": (0, 3650, 0.01),
}
"""Of every number: the least, the most, and what lies between two of them."""
CHOICES = {
    "preset": ("fast", "balanced", "best"),
    "spoiler": ("yes", "no"),
    "language": LANGUAGES,
    "painting": ("yes", "no"),
    "channels": ("all", "allowed"),
    "word_policy": ("refuse", "remove"),
    "concept_policy": ("spoiler", "withhold"),
    "strictness": ("low", "middle", "high"),
    "adult_channels": ("free", "same"),
}


async def loaded(history: History) -> Preferences:
    preferences = Preferences(history.database)
    await preferences.load()
    return preferences


@pytest.fixture
async def preferences(history: History) -> Preferences:
    return await loaded(history)


def first_level(name: str) -> Level:
    return SETTINGS[name].levels[0]


# What can be chosen.


def test_every_setting_is_looked_at_here() -> None:
    assert {name: (set(one.levels), one.area, one.form) for name, one in SETTINGS.items()} == {name: facts[:3] for name, facts in EXPECTED.items()}
    assert {name for name, one in SETTINGS.items() if one.form is Form.NUMBER} == set(RANGES)
    assert {name: one.choices for name, one in SETTINGS.items() if one.choices} == CHOICES
    assert all(one.name == name for name, one in SETTINGS.items())


@pytest.mark.parametrize("level", Level)
async def test_every_setting_is_chosen_at_its_levels_only_and_comes_back_after_a_restart(
    history: History, preferences: Preferences, level: Level
) -> None:
    for name, (levels, _, _, written, value) in EXPECTED.items():
        if level in levels:
            assert await preferences.choose(level, CHANNEL, name, written) == value
        else:
            with pytest.raises(InvalidRequest, match="another level"):
                await preferences.choose(level, CHANNEL, name, written)
    again = await loaded(history)
    for known, (name, (levels, _, _, _, value)) in itertools.product((preferences, again), EXPECTED.items()):
        assert known.get(level, CHANNEL, name) == (value if level in levels else None)
        assert known.get(level, SERVER, name) is None
        assert all(known.get(other, CHANNEL, name) is None for other in Level if other is not level)


@pytest.mark.parametrize("name", RANGES)
def test_numbers_are_taken_up_to_their_borders_and_not_beyond(name: str) -> None:
    parse = SETTINGS[name].parse
    least, most, step = RANGES[name]
    for number in (least, most, least + step, most - step):
        assert parse(f"{number}") == parse(number) == number
        assert isinstance(parse(f"{number}"), float if step < 1 else int)
    beyond: list[object] = [least - step, most + step, f"-{most}", "1e99", "inf", "-inf", "nan", "", "x", "1 2", "1/2", True, [least]]
    if step == 1:
        beyond += [least + 0.5, f"{least},0", "1,000"]
    for written in beyond:
        with pytest.raises(InvalidRequest, match="value must be a (whole )?number"):
            parse(written)


@pytest.mark.parametrize("name", CHOICES)
def test_choices_are_taken_as_they_are_and_no_others(name: str) -> None:
    parse = SETTINGS[name].parse
    assert [parse(word) for word in CHOICES[name]] == list(CHOICES[name])
    for written in ("", "maybe", CHOICES[name][0].upper() + ".", f" {CHOICES[name][0]}", True, 1):
        with pytest.raises(InvalidRequest, match=f"be one of these: {', '.join(CHOICES[name])}"):
            parse(written)


def test_a_choice_of_channel_or_roles_is_made_of_ids() -> None:
    channel, roles = SETTINGS["gallery"].parse, SETTINGS["may_safety"].parse
    assert (channel(CHANNEL), channel(str(CHANNEL)), channel([CHANNEL])) == (CHANNEL, CHANNEL, CHANNEL)
    assert roles(list(range(1, ROLES_LIMIT + 1))) == list(range(1, ROLES_LIMIT + 1))
    for written in ("general", "0", 0, -1, 1.5, "²", "9" * 20, "9" * 5000, [CHANNEL, "x"], list(range(1, ROLES_LIMIT + 2))):
        for parse in (channel, roles):
            with pytest.raises(InvalidRequest):
                parse(written)
    with pytest.raises(InvalidRequest, match="one channel"):
        channel([CHANNEL, THREAD])


def test_lists_of_words_are_limited() -> None:
    parse = SETTINGS["blocked_words"].parse
    most = [f"w{number}" for number in range(RULES_LIMIT)]
    assert parse("\n".join(most)) == parse(most) == parse([*most, "W0", "*w1"]) == most
    # The last sign becomes eighteen letters.
    longer = [f"{number}\ufdfa" for number in range(300)]
    for written in ([*most, "another"], ["***"], ["x" * (RULE_LIMIT + 1)], longer):
        with pytest.raises(InvalidRequest):
            parse(written)


def test_lists_of_concepts_are_limited() -> None:
    parse = SETTINGS["blocked_concepts"].parse
    most = [str(number) for number in range(CONCEPTS_LIMIT)]
    assert parse("\n".join(most)) == parse([*most, *most]) == most
    assert parse("x" * CONCEPT_LENGTH) == ["x" * CONCEPT_LENGTH]
    full = [f"{number:079}" for number in range(50)] + [""]
    assert parse(full) == full[:50]
    for written, why in (
        ([*most, "another"], "at most 50 lines.*51"),
        (["x" * (CONCEPT_LENGTH + 1)], "80 characters"),
        ("half \ud800", "whole"),
        ([*full[:48], "x" * 80, "y" * 80], "4000 characters"),
    ):
        with pytest.raises(InvalidRequest, match=why):
            parse(written)


@given(st.sampled_from(sorted(SETTINGS)), st.text(st.characters(), max_size=60) | st.lists(st.text(st.characters(), max_size=30) | st.integers()))
@example("gallery", "9" * 5000)
@example("blocked_concepts", "\ud83d")
@example("count", "1_0")
@example("count", "٣")
def test_whatever_is_written_is_a_value_or_refused(name: str, written: Any) -> None:
    parse = SETTINGS[name].parse
    try:
        value = parse(written)
    except InvalidRequest:
        return
    assert parse(value) == value
    assert json.loads(json.dumps(value)) == value


# Choosing and forgetting.


@pytest.mark.parametrize("nothing", [None, "", "  \n ", []])
async def test_an_empty_value_forgets_a_choice(history: History, preferences: Preferences, nothing: object) -> None:
    for name, (*_, written, _value) in EXPECTED.items():
        level = first_level(name)
        await preferences.choose(level, CHANNEL, name, written)
        await preferences.choose(level, SERVER, name, written)
        assert await preferences.choose(level, CHANNEL, name, nothing) is None
        assert await preferences.choose(level, CHANNEL, name, nothing) is None
        for known in (preferences, await loaded(history)):
            assert known.get(level, CHANNEL, name) is None and known.get(level, SERVER, name) is not None


async def test_lines_that_hold_nothing_are_no_choice(history: History, preferences: Preferences) -> None:
    for name in ("blocked_words", "blocked_concepts"):
        await preferences.choose(Level.SERVER, SERVER, name, "gun")
        assert await preferences.choose(Level.SERVER, SERVER, name, ["", "  "]) is None
        assert preferences.server(SERVER, name) is None and (await loaded(history)).server(SERVER, name) is None


async def test_what_is_refused_leaves_the_earlier_choice(history: History, preferences: Preferences) -> None:
    await preferences.choose(Level.SERVER, SERVER, "count", 3)
    with pytest.raises(InvalidRequest):
        await preferences.choose(Level.SERVER, SERVER, "count", 10)
    assert preferences.server(SERVER, "count") == (await loaded(history)).server(SERVER, "count") == 3
    await preferences.choose(Level.SERVER, SERVER, "count", 2)
    assert preferences.server(SERVER, "count") == (await loaded(history)).server(SERVER, "count") == 2


async def test_what_this_version_does_not_know_is_left_alone(history: History) -> None:
    rows = [("server", SERVER, "hologram", '"on"'), ("planet", SERVER, "count", "3"), ("server", SERVER, "count", "2")]
    async with history.database.transaction():
        await history.database.write_many("INSERT INTO preference VALUES (?, ?, ?, ?)", rows)
    preferences = await loaded(history)
    assert preferences.server(SERVER, "count") == 2 and preferences.server(SERVER, "hologram") is None
    await preferences.choose(Level.SERVER, SERVER, "count", None)
    assert {tuple(row) for row in await history.database.rows("SELECT * FROM preference")} == set(rows[:2])


async def test_what_a_person_chose_is_forgotten_alone(preferences: Preferences) -> None:
    for level, subject in ((Level.USER, USER), (Level.CHANNEL, USER), (Level.USER, SERVER)):
        await preferences.choose(level, subject, "count", 3)
    preferences.forget_user(USER)
    found = [preferences.get(level, subject, "count") for level, subject in ((Level.USER, USER), (Level.CHANNEL, USER), (Level.USER, SERVER))]
    assert found == [None, 3, 3]


# What counts.


async def test_the_nearest_choice_counts(preferences: Preferences) -> None:
    places = [(Level.USER, USER), (Level.CHANNEL, THREAD), (Level.CHANNEL, CHANNEL), (Level.SERVER, SERVER)]
    for chosen in itertools.product((False, True), repeat=4):
        for place, (level, subject) in enumerate(places, start=1):
            await preferences.choose(level, subject, "count", place if chosen[place - 1] else None)
        nearest = next((place for place in range(1, 5) if chosen[place - 1]), None)
        assert preferences.nearest("count", USER, (THREAD, CHANNEL), SERVER) == nearest
        assert preferences.defaults(USER, (THREAD, CHANNEL), SERVER).count == (nearest or 4)
    assert preferences.nearest("count", None, (THREAD,), None) == 2
    assert preferences.nearest("count", None, (), SERVER) == 4 and preferences.nearest("count", None, (), None) is None


async def test_defaults_are_put_together_of_what_was_chosen_anywhere(preferences: Preferences) -> None:
    assert preferences.defaults(USER, (THREAD, CHANNEL), None) == Defaults(4, None, None, False, "")
    await preferences.choose(Level.USER, USER, "guidance", "0")
    await preferences.choose(Level.CHANNEL, THREAD, "spoiler", "no")
    await preferences.choose(Level.CHANNEL, CHANNEL, "spoiler", "yes")
    await preferences.choose(Level.SERVER, SERVER, "steps", "7")
    await preferences.choose(Level.SERVER, SERVER, "guidance", "3")
    await preferences.choose(Level.SERVER, SERVER, "model", "emoji")
    await preferences.choose(Level.SERVER, SERVER, "preset", "fast")
    await preferences.choose(Level.USER, USER, "preset", "best")
    assert preferences.defaults(USER, (THREAD, CHANNEL), SERVER) == Defaults(4, 7, 0.0, False, "emoji", Preset.BEST)
    assert preferences.defaults(SERVER, (CHANNEL,), SERVER) == Defaults(4, 7, 3.0, True, "emoji", Preset.FAST)


def test_what_is_asked_for_counts_more_than_defaults() -> None:
    usual = Defaults(2, 7, 0.0, True, "emoji")
    assert usual.with_options(count=None, steps=None, spoiler=None) == usual
    assert usual.with_options(count=9, guidance=1.5, spoiler=False) == Defaults(9, 7, 1.5, False, "emoji")


def test_a_request_is_asked_for_in_the_way_that_was_chosen_with_a_new_seed_where_none_is_given() -> None:
    usual = Defaults(2, 7, 0.5, True, "emoji", Preset.FAST)
    assert usual.request("a cat", 3) == Request("a cat", 3, 2, 7, 0.5, model="emoji", preset=Preset.FAST)
    assert usual.request("", 3, Kind.VARIATION, b"a") == Request("", 3, 2, 7, 0.5, Kind.VARIATION, b"a", model="emoji", preset=Preset.FAST)
    assert len({usual.request("a cat").seed for _ in range(4)}) > 1


async def test_a_language_is_the_nearest_one_or_everybodys_own(preferences: Preferences) -> None:
    assert preferences.language(USER, (CHANNEL,), SERVER) is None
    await preferences.choose(Level.SERVER, SERVER, "language", "de")
    await preferences.choose(Level.USER, USER, "language", "ja")
    assert preferences.language(USER, (CHANNEL,), SERVER) == "ja" and preferences.language(SERVER, (CHANNEL,), SERVER) == "de"


ANSWERS = (None, "yes", "no")


async def test_a_place_is_one_to_paint_in_as_the_server_and_the_channels_say(preferences: Preferences) -> None:
    for channels, thread, parent in itertools.product((None, "all", "allowed"), ANSWERS, ANSWERS):
        await preferences.choose(Level.SERVER, SERVER, "channels", channels)
        await preferences.choose(Level.CHANNEL, THREAD, "painting", thread)
        await preferences.choose(Level.CHANNEL, CHANNEL, "painting", parent)
        for places, said in (((THREAD, CHANNEL), thread or parent), ((CHANNEL,), parent), ((404,), None)):
            allowed = said == "yes" or (said is None and channels != "allowed")
            assert preferences.may_paint(places, SERVER) == allowed, (channels, thread, parent, places)
    assert preferences.may_paint((404,), None)


@pytest.mark.parametrize(
    ("limits", "changes"),
    [
        ({}, []),
        ({SERVER: 3}, [3]),
        ({THREAD: 3, CHANNEL: 2, SERVER: 1}, [1]),
        ({THREAD: 1, CHANNEL: 2, SERVER: 3}, [1]),
        ({THREAD: 3, CHANNEL: 1}, [1]),
        ({CHANNEL: 4, SERVER: 5}, []),
        ({404: 1}, []),
    ],
)
async def test_the_smallest_limit_holds(preferences: Preferences, limits: dict[int, int], changes: list[int]) -> None:
    for subject, most in limits.items():
        level = Level.SERVER if subject == SERVER else Level.CHANNEL
        await preferences.choose(level, subject, "max_count", most)
        await preferences.choose(level, subject, "max_steps", 10 * most)
    places = (THREAD, CHANNEL)
    both = [change for most in changes for change in (Change("count", 4, most), Change("steps", 40, 10 * most))]
    assert preferences.limit(Request("a cat", 1, 4, 40), places, SERVER, usual_steps=1) == both
    # What names no steps has the usual ones of the model.
    assert preferences.limit(Request("a cat", 1, 1), places, SERVER, usual_steps=40) == both[1:]
    assert preferences.limit(Request("a cat", 1, 1, 1), places, SERVER, usual_steps=250) == []


async def test_limits_of_a_server_hold_in_it_alone(preferences: Preferences) -> None:
    await preferences.choose(Level.SERVER, SERVER, "max_count", 1)
    assert preferences.limit(Request("a cat", 1, 4), (CHANNEL,), None, 0) == preferences.limit(Request("a cat", 1, 4), (CHANNEL,), 404, 0) == []


# Words, roles, servers.


async def test_blocked_words_are_those_of_now(preferences: Preferences) -> None:
    assert preferences.filter(None).find("a gun") == preferences.filter(SERVER).find("a gun") == []
    await preferences.choose(Level.SERVER, SERVER, "blocked_words", "gun")
    assert preferences.filter(SERVER).find("a gun and blood") == ["gun"]
    assert preferences.filter(SERVER) is preferences.filter(SERVER)
    await preferences.choose(Level.SERVER, SERVER, "blocked_words", "blood\ngun")
    assert preferences.filter(SERVER).find("a gun and blood") == ["blood", "gun"]
    assert preferences.filter(404).find("a gun") == []
    await preferences.choose(Level.SERVER, SERVER, "blocked_words", "")
    assert preferences.filter(SERVER).find("a gun") == []


async def test_the_roles_of_an_area_are_its_own(preferences: Preferences) -> None:
    await preferences.choose(Level.SERVER, SERVER, "may_safety", [ROLE, CHANNEL])
    assert preferences.roles(SERVER, Area.SAFETY) == {ROLE, CHANNEL}
    assert preferences.roles(SERVER, Area.GALLERY) == preferences.roles(404, Area.SAFETY) == frozenset()


async def test_servers_are_found_by_what_they_chose(history: History, preferences: Preferences) -> None:
    await preferences.choose(Level.SERVER, SERVER, "retention_days", 30)
    await preferences.choose(Level.SERVER, 404, "retention_days", 1)
    await preferences.choose(Level.SERVER, 405, "max_jobs", 1)
    await preferences.choose(Level.CHANNEL, CHANNEL, "count", 1)
    assert (await loaded(history)).servers_with("retention_days") == {SERVER: 30, 404: 1}
    assert preferences.servers_with("count") == {}
    assert preferences.server(None, "retention_days") is None


async def test_a_restart_in_another_folder_knows_nothing(preferences: Preferences, tmp_path: Path) -> None:
    await preferences.choose(Level.USER, USER, "count", 3)
    other = await History.open(tmp_path / "other")
    assert (await loaded(other)).get(Level.USER, USER, "count") is None
    await other.close()
