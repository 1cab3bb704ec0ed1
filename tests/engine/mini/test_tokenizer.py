"""Texts into ids, without the package: what is cut off, what is kept, what is refused."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import Misconfigured
from engine.mini.tokenizer import KEPT_LETTERS, WORDS_KEPT, Tokenizer

PIECES = ["<s>", "<pad>", "</s>", "<unk>", "\u0120", *"abcdefghijklmnopqrstuvwxyz_", "\u0120c", "at", "\u0120cat"]
TOKENIZER = Tokenizer({piece: number for number, piece in enumerate(PIECES)}, ["\u0120 c", "a t", "\u0120c at"])
FIRST, LAST, UNKNOWN = 0, 2, 3


def pieces(text: str) -> list[str]:
    """Read a text and write its ids as pieces again."""
    return [PIECES[number] for number in TOKENIZER.tokenize(text)]


def test_the_best_pair_is_joined_first() -> None:
    assert pieces("cat at") == ["<s>", "\u0120cat", "\u0120", "at", "</s>"]
    assert TOKENIZER.merged("ccat") == ["\u0120c", "c", "at"]


def test_what_was_joined_is_joined_to_what_stands_before_and_behind_it() -> None:
    tokenizer = Tokenizer({piece: number for number, piece in enumerate(PIECES)}, ["a b", "c ab", "cab d", "\u0120 cabd"])
    assert tokenizer.merged("cabd") == ["\u0120cabd"]
    assert tokenizer.merged("abcabd") == ["\u0120", "ab", "cabd"]


def test_letters_are_small_and_emoji_are_named() -> None:
    assert TOKENIZER.tokenize("CAT \N{CAT FACE}") == TOKENIZER.tokenize("cat cat_face")
    assert TOKENIZER.tokenize("c\u00e4at \ud83d") == TOKENIZER.tokenize("cat ")
    assert TOKENIZER.tokenize("a1")[-2] == UNKNOWN


@given(st.text(max_size=400), st.integers(2, 64))
def test_a_text_that_is_too_long_still_begins_and_ends(text: str, most: int) -> None:
    ids = TOKENIZER.tokenize(text)
    read = TOKENIZER.read(text, most)
    assert len(read) == min(len(ids), most)
    assert read[0] == FIRST and read[-1] == LAST
    assert read[:-1] == ids[: len(read) - 1]


def test_the_empty_prompt_is_its_first_and_last_token() -> None:
    assert TOKENIZER.read("", 64) == TOKENIZER.read("  ", 64) == [FIRST, LAST]


def test_a_book_in_one_word_is_read_in_no_time() -> None:
    started = time.perf_counter()
    assert len(TOKENIZER.tokenize("cat" * 20_000)) == 40_001
    assert time.perf_counter() - started < 5


def test_words_are_remembered_as_far_as_there_is_room() -> None:
    tokenizer = Tokenizer({piece: number for number, piece in enumerate(PIECES)}, [])
    tokenizer.tokenize(" ".join("a" * (1 + number % 7) + chr(97 + number % 26) * (number // 26 % 30) for number in range(3 * WORDS_KEPT)))
    tokenizer.tokenize("b" * (KEPT_LETTERS + 1))
    assert 100 < len(tokenizer._known._values) <= WORDS_KEPT
    assert all(len(str(word)) <= KEPT_LETTERS for word in tokenizer._known._values)


@pytest.mark.parametrize(
    ("vocabulary", "merges", "complaint"),
    [
        ("[]", "#\na b\n", "no JSON object"),
        ('{"<s>": "0"}', "#\na b\n", "no JSON object"),
        ('{"<s>": 0}', "#\na b\n", "lacks </s>, <unk>"),
        ("{", "#\na b\n", "not valid JSON"),
        ('{"<s>": 0, "</s>": 2, "<unk>": 3}', "", "no pairs"),
        ('{"<s>": 0, "</s>": 2, "<unk>": 3}', "\udcff", "no text in UTF-8"),
        ('{"<s>": 0, "</s>": 2, "<unk>": 3}', None, "cannot be read"),
    ],
)
def test_broken_files_are_told_in_one_sentence(tmp_path: Path, vocabulary: str, merges: str | None, complaint: str) -> None:
    (tmp_path / "vocab.json").write_text(vocabulary)
    if merges is not None:
        (tmp_path / "merges.txt").write_bytes(merges.encode("utf-8", "surrogateescape"))
    with pytest.raises(Misconfigured, match=complaint):
        Tokenizer.from_files(tmp_path / "vocab.json", tmp_path / "merges.txt")


def test_files_are_read_like_the_package_reads_them(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text(json.dumps({piece: number for number, piece in enumerate(PIECES)}))
    (tmp_path / "merges.txt").write_text("\u0120 c\na t\n\u0120 a", newline="\r\n")
    tokenizer = Tokenizer.from_files(tmp_path / "vocab.json", tmp_path / "merges.txt")
    # The first line is a version whatever it says, and so is the last one nothing, which it is where the file is whole.
    assert tokenizer.merged("cat") == ["\u0120", "c", "at"]
