"""The command line paints with a DALL·E Mini, and says what it cannot do with one."""

import json
from pathlib import Path

import pytest

from engine.pictures import read_receipt
from tests.engine.conftest import CommandLine
from tests.engine.mini.conftest import files_of


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return files_of(tmp_path_factory.mktemp("tiny"))


def test_a_dream_and_its_variation_keep_to_what_was_asked(engine: CommandLine, config: Path, tmp_path: Path) -> None:
    more = ("--config", str(config), "--out", str(tmp_path), "--device", "cpu", "--json", "--top-k", "40", "--temperature", "0.5")
    dreamt = engine("dream", "the cat", "the dog", "--count", "1", "--seed", "3", "--guidance", "4", *more)
    assert dreamt.returncode == 0, dreamt.stderr
    told = json.loads(dreamt.stdout)
    assert [(one["seed"], one["guidance"], one["top_k"], one["temperature"]) for one in told["settings"]] == [("3", "4", "40", "0.5")] * 2
    assert len(told["grids"]) == 2 and told["unknown_words"] == []
    receipt = read_receipt(Path(told["pictures"][0]).read_bytes())
    varied = engine("variation", told["pictures"][0], "--count", "1", "--seed", "9", *more)
    assert varied.returncode == 0, varied.stderr
    other = read_receipt(Path(json.loads(varied.stdout)["pictures"][0]).read_bytes())
    assert other["prompt"] == "the cat" and other["kept_tokens"] == "128"
    assert other["tokens"][:300] == receipt["tokens"][:300] and other["tokens"] != receipt["tokens"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("embed", "a cat"), "model must have a decoder for embed"),
        (("blend", "a cat", "a dog"), "model must have a decoder for blend"),
        (("verify", "loopback/screenshot.png"), "model must have a decoder for verify"),
        (("dream", "a cat", "--temperature", "0"), "temperature must be above 0"),
        (("dream", "a cat", "--top-k", "301"), "top_k must be at most 300"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(engine: CommandLine, config: Path, words: tuple[str, ...], said: str) -> None:
    done = engine(*words, "--config", str(config), "--device", "cpu")
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


def test_tokens_are_not_asked_of_models_without_any(engine: CommandLine) -> None:
    done = engine("dream", "a cat", "--seamless")
    assert done.returncode == 2 and "seamless must be left out" in done.stderr
