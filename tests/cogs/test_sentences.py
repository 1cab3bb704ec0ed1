from collections.abc import Iterator

from cogs._language import language
from cogs._replies import (
    AdultOnly,
    AlreadyDone,
    Banned,
    CannotDo,
    Forgotten,
    Hidden,
    MayNot,
    NoGallery,
    NoPicture,
    NoStudio,
    NotHere,
    NotYours,
    OldCommand,
    OnlyInServers,
    OwnStar,
    PermissionsMissing,
    StillLoading,
    TooNew,
    Undeliverable,
    Unreported,
    Withheld,
    WordsBlocked,
    sentence,
)
from engine.errors import Broken, Cancelled, EngineError, InUse, InvalidRequest, Misconfigured, QueueFull, Refused, Repeated, TooManyJobs

SAY = language("en-US")

EXAMPLES: list[EngineError] = [
    EngineError(),
    Refused(),
    InvalidRequest("count", "be 1 to 9, not 12"),
    QueueFull(100),
    TooManyJobs(10),
    Misconfigured("The file /home/me/secret is missing."),
    Cancelled(),
    Broken("7-ab12"),
    PermissionsMissing(["attach_files", "embed_links"]),
    Undeliverable(7),
    OldCommand(),
    NotYours(5),
    Forgotten(),
    NoPicture(),
    Hidden(),
    CannotDo("tiny"),
    StillLoading(),
    AlreadyDone(),
    NotHere(),
    Banned(),
    TooNew(1_800_000_000),
    WordsBlocked(["stupid"]),
    Withheld(["a snake"]),
    MayNot(),
    OnlyInServers(),
    NoGallery(),
    AdultOnly(),
    OwnStar(),
    NoStudio(),
    Unreported(),
]


def classes(kind: type[EngineError]) -> Iterator[type[EngineError]]:
    """Walk the tree of errors."""
    yield kind
    for child in kind.__subclasses__():
        yield from classes(child)


def test_every_error_has_a_sentence_of_its_own() -> None:
    # What only the studio says is said there.
    ours = {
        kind for kind in classes(EngineError) if kind.__module__.startswith(("engine", "cogs")) and not kind.__module__.startswith("engine.studio")
    }
    assert {type(error) for error in EXAMPLES} == ours - {Repeated, InUse}
    sentences = [sentence(error, SAY) for error in EXAMPLES]
    assert len(set(sentences)) == len(sentences)
    assert all(text.endswith(".") and "{" not in text and "Error" not in text for text in sentences)


def test_sentences_carry_the_facts() -> None:
    assert sentence(InvalidRequest("count", "be 1 to 9, not 12"), SAY) == "The count must be 1 to 9, not 12."
    assert "**Attach Files**, **Embed Links**" in sentence(PermissionsMissing(["attach_files", "embed_links"]), SAY)
    assert "7-ab12" in sentence(Broken("7-ab12"), SAY)


def test_blocked_words_and_concepts_are_named_under_a_spoiler_and_without_markup() -> None:
    assert "||stu\\*pid||, ||b||" in sentence(WordsBlocked(["stu*pid", "b"]), SAY)
    assert "||a snake||" in sentence(Withheld(["a snake"]), SAY)


def test_what_is_for_the_operator_is_not_shown_to_people() -> None:
    assert "secret" not in sentence(Misconfigured("The file /home/me/secret is missing."), SAY)
