import discord
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cogs import _cards as cards
from engine.jobs import PROMPT_LIMIT, Job, Origin, Painting, Picture, Progress, Request, State

prompts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=PROMPT_LIMIT).filter(str.strip)

words = st.text(st.characters(categories=["L"]), min_size=1, max_size=200)
"""What painters call words: runs of letters."""


def job(prompt: str = "a cat", state: State = State.WAITING) -> Job:
    return Job(7, Request(prompt, seed=1), Origin(1, 2), 0.0, state)


@given(prompts, st.lists(words, max_size=100))
def test_no_prompt_makes_a_card_that_discord_refuses(prompt: str, unknown: list[str]) -> None:
    painting = Painting((Picture(b"", 1, 8, 8),), "m" * 2000, 30, 1.5, 1.0, tuple(unknown))
    embed = cards.result(job(prompt), painting, ("word",) * 500)
    assert len(embed) <= 6000 and len(embed.description or "") <= 4096
    assert all(0 < len(field.value or "") <= 1024 and 0 < len(field.name or "") <= 256 for field in embed.fields)
    assert 0 < len(cards.alt_text(job(prompt))) <= 1024
    assert len(cards.progress(job(prompt), 100, 2**33)) <= 2000


@pytest.mark.parametrize("prompt", ["*" * PROMPT_LIMIT, "`" * PROMPT_LIMIT, "_a_" * 300, "[x](http://y) " * 60, "\\" * PROMPT_LIMIT])
def test_prompts_full_of_markup_stay_text_and_within_limits(prompt: str) -> None:
    text = cards.progress(job(prompt), 1, None)
    assert len(text) <= 2000
    inside = text.split("\n")[0].removeprefix("**").removesuffix("**")
    assert discord.utils.remove_markdown(inside.replace("\\", "")) is not None
    assert "**" not in inside


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
    assert cards.progress(asked, position, None) == f"**a cat**\n{says}"


def test_progress_tells_when_it_will_be_done() -> None:
    assert "done <t:1700000000:R>" in cards.progress(job(), 2, 1_700_000_000)
