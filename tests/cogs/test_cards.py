from dataclasses import replace

import discord
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cogs import _cards as cards
from cogs._language import LANGUAGES, language
from engine.jobs import PROMPT_LIMIT, Drawn, Ingredient, Job, Kind, Origin, Painting, Picture, Progress, Request, State
from engine.verdicts import Finding, Verdict

prompts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=PROMPT_LIMIT).filter(str.strip)

words = st.text(st.characters(categories=["L"]), min_size=1, max_size=200)
"""What painters call words: runs of letters."""


SAY = language("en-US")
PAINTED = Painting((), "scripted", 30, 1.5, 0.5)


def job(prompt: str = "a cat", state: State = State.WAITING, model: str = "") -> Job:
    return Job(7, Request(prompt, seed=1, model=model), Origin(1, 2), 0.0, state)


@given(prompts, st.lists(words, max_size=100), st.sampled_from(["en-US", *LANGUAGES]))
def test_no_prompt_makes_a_card_that_discord_refuses(prompt: str, unknown: list[str], locale: str) -> None:
    say = language(locale)
    painting = Painting((Picture(b"", 1, 8, 8),), "m" * 2000, 30, 1.5, 1.0, tuple(unknown))
    embed = cards.result(job(prompt, model="_" * 100), painting, ("word",) * 500, say)
    assert len(embed) <= 6000 and len(embed.description or "") <= 4096
    assert all(0 < len(field.value or "") <= 1024 and 0 < len(field.name or "") <= 256 for field in embed.fields)
    assert 0 < len(cards.alt_text(job(prompt).request, say)) <= 1024
    assert len(cards.progress(job(prompt), 100, 2**33, say)) <= 2000
    assert len(cards.info(job(prompt), painting, None, say)) <= 2000 + len(painting.model)


@pytest.mark.parametrize("prompt", ["*" * PROMPT_LIMIT, "`" * PROMPT_LIMIT, "_a_" * 300, "[x](http://y) " * 60, "\\" * PROMPT_LIMIT])
def test_prompts_full_of_markup_stay_text_and_within_limits(prompt: str) -> None:
    text = cards.progress(job(prompt), 1, None, SAY)
    assert len(text) <= 2000
    inside = text.split("\n")[0].removeprefix("**").removesuffix("**")
    assert discord.utils.remove_markdown(inside.replace("\\", "")) is not None
    assert "**" not in inside


def test_what_is_copied_paints_with_the_same_model_where_one_was_asked_for() -> None:
    painting = Painting((Picture(b"", 1, 8, 8),), "foxes", 30, 1.5, 1.0)
    usual, foxes = Request("a cat", seed=1), Request("a cat", seed=1, model="foxes")
    varied = Request("a cat", seed=1, model="foxes", kind=Kind.VARIATION, image=b"png")
    typed = [cards.info(Job(7, request, Origin(1, 2), 0.0), painting, 0, SAY).split("\n")[1] for request in (usual, foxes, varied)]
    assert typed[0] == "/dream prompt: a cat seed: 1 count: 1 steps: 30 guidance: 1.5"
    assert typed[1] == f"{typed[0]} model: foxes"
    assert "model" not in typed[2]


def test_a_prompt_never_names_the_file() -> None:
    assert cards.file_name(job("../../etc/passwd")) == "reverie-7.png"


@pytest.mark.parametrize(
    ("state", "progress", "position", "says"),
    [
        (State.WAITING, None, 1, "You are next."),
        (State.WAITING, None, 4, "You are number 4 in the queue."),
        (State.PAINTING, None, 0, "Painting …"),
        (State.PAINTING, Progress("base", 0, 10), 0, "`░░░░░░░░░░░░░░░░` 0% · base"),
        (State.PAINTING, Progress("upsampler", 5, 10), 0, "`████████░░░░░░░░` 50% · upsampler"),
        (State.PAINTING, Progress("upsampler", 10, 10), 0, "`████████████████` 100% · upsampler"),
    ],
)
def test_progress_says_where_a_job_is(state: State, progress: Progress | None, position: int, says: str) -> None:
    asked = job(state=state)
    asked.progress = progress
    assert cards.progress(asked, position, None, SAY) == f"**a cat**\n{says}"


def test_progress_tells_when_it_will_be_done() -> None:
    assert "done <t:1700000000:R>" in cards.progress(job(), 2, 1_700_000_000, SAY)


@pytest.mark.parametrize(("count", "rows"), [(1, [1, 1, 4]), (4, [4, 4, 4]), (9, [5, 4, 5, 4, 4])])
def test_a_card_has_buttons_for_every_picture_and_fits_into_five_rows(count: int, rows: list[int]) -> None:
    asked = Job(10**17, Request("a cat", seed=1, count=count), Origin(1, 2), 0.0)
    components = cards.card_buttons(asked, PAINTED, frozenset(Kind), SAY).to_components()
    assert [len(row["components"]) for row in components] == rows
    shown = [button for row in components for button in row["components"]]
    assert all(button["label"] and cards.BUTTON_ID.fullmatch(button["custom_id"]) and len(button["custom_id"]) <= 100 for button in shown)
    assert [button["label"] for button in shown][:count] == [f"U{n}" for n in range(1, count + 1)]


PART = Ingredient(prompt="a" * PROMPT_LIMIT)
OTHERS = {
    Kind.BLEND: Request("", 1, 9, kind=Kind.BLEND, ingredients=(PART,) * 5),
    Kind.MORPH: Request("", 1, 32, kind=Kind.MORPH, ingredients=(PART, PART)),
    Kind.EDIT: Request(PART.prompt, 1, 9, kind=Kind.EDIT, image=b"png", before=PART.prompt, strength=0.5),
    Kind.EXPLORE: Request("", 1, 9, kind=Kind.EXPLORE, image=b"png", step=0.25),
    Kind.DRAWS: Request(PART.prompt, 1, 32, kind=Kind.DRAWS),
    Kind.VERIFY: Request("", 1, 1, kind=Kind.VERIFY, image=b"png"),
    Kind.VARIATION: Request("", 1, 9, kind=Kind.VARIATION, image=b"png", strength=0.5, drift=0.25),
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("locale", ["en-US", *LANGUAGES])
def test_what_only_unclip_can_do_fits_into_a_card_and_says_how_to_ask_for_it_again(kind: Kind, locale: str) -> None:
    say, asked = language(locale), Job(10**17, OTHERS[kind], Origin(1, 2, 3), 0.0, State.DELIVERED)
    verdict = Verdict(Finding.DIFFERENT, False, 255, 99.5, ("version", "computed")) if kind is Kind.VERIFY else None
    draws = tuple(Drawn(seed, 0.5) for seed in range(32)) if kind is Kind.DRAWS else ()
    painting = replace(PAINTED, draws=draws, verdict=verdict)
    rows = cards.card_buttons(asked, painting, frozenset(Kind), say).to_components()
    assert len(rows) <= 5 and all(1 <= len(row["components"]) <= 5 for row in rows)
    shown = [button["custom_id"] for row in rows for button in row["components"]]
    assert len(set(shown)) == len(shown) and all(cards.BUTTON_ID.fullmatch(name) for name in shown)
    embed = cards.result(asked, painting, (), say)
    assert len(embed) <= 6000 and all(0 < len(field.value or "") <= 1024 for field in embed.fields)
    assert 0 < len(cards.alt_text(asked.request, say)) <= 1024
    assert len(cards.progress(asked, 1, None, say)) <= 2000
    told = cards.info(asked, painting, None, say)
    assert len(told) <= 2000 and told.startswith(f"```\n/{'variations' if kind is Kind.VARIATION else kind} ")
    assert 0 < len(cards.info_buttons(asked, None, say).children) <= 5


def test_a_wheel_has_a_button_for_each_way_and_the_middle_is_enlarged() -> None:
    rows = cards.card_buttons(Job(7, OTHERS[Kind.EXPLORE], Origin(1, 2), 0.0), PAINTED, frozenset(Kind), SAY).to_components()
    assert ["".join(button["label"] for button in row["components"]) for row in rows[:3]] == ["↖↑↗", "←●→", "↙↓↘"]
    assert rows[1]["components"][1]["custom_id"] == cards.button_id(cards.Act.ENLARGE, 7, 4)


def test_what_a_model_cannot_do_has_no_button() -> None:
    asked = job()
    labels = [item.label for item in cards.card_buttons(asked, PAINTED, frozenset({Kind.VARIATION}), SAY).children]
    assert labels == ["U1", "U2", "U3", "U4", "V1", "V2", "V3", "V4", "Info", "Delete"]
    assert [item.label for item in cards.card_buttons(asked, PAINTED, frozenset({Kind.DREAM}), SAY).children][4:] == [
        "Reroll",
        "Edit prompt",
        "Info",
        "Delete",
    ]


def test_whoever_waited_long_hears_how_long_and_where_it_was_asked() -> None:
    asked = Job(7, Request("a cat", seed=1), Origin(5, 2, guild_id=3, asked_in=9), 0.0)
    assert cards.headline(asked, 59, SAY) == "<@5> · [asked here](https://discord.com/channels/3/2/9)"
    assert cards.headline(job(), 150, SAY) == "<@1> · done after 2 min · [asked here](https://discord.com/channels/@me/2)"
    assert cards.headline(job(), 50, SAY) == "<@1>"
