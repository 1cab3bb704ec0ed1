"""Measure the filter of blocked words: python -m tests.benchmarks.words [--rounds 200]

What it finds of the corpus in tests/engine/words, class by class: of the evasions all should be found, of the innocent texts none. Then how long it
takes for prompts that are meant to take long, and how long building it takes. No network, no model.
"""

import argparse
import random
import re
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from engine.jobs import PROMPT_LIMIT
from engine.words import RULE_LIMIT, RULES_LIMIT, Filter

CORPUS = Path(__file__).parents[1] / "engine" / "words"
ESCAPED = re.compile(r"\\u\{([0-9a-f]+)\}")
"""Invisible characters are written as \\u{200b}, so that people can read the files."""


def corpus(name: str) -> Iterator[tuple[str, str, str]]:
    """Yield the class (the last heading), the rule and the text of every line of a file."""
    heading = ""
    for line in (CORPUS / f"{name}.tsv").read_text(encoding="utf-8").splitlines():
        if "\t" in line:
            rule, text = ESCAPED.sub(lambda found: chr(int(found[1], 16)), line).split("\t")
            yield heading, rule, text
        else:
            heading = line.removeprefix("# ")


def found(name: str) -> list[tuple[str, str, str, bool]]:
    """Return the lines of a file, and whether each breaks its rule."""
    return [(heading, rule, text, bool(Filter([rule]).find(text))) for heading, rule, text in corpus(name)]


def rules(letters: int) -> list[str]:
    """Return as many rules as a filter may have, of few different letters, so that many of them are half met everywhere."""
    draw = random.Random(7)
    return ["".join(draw.choice("abdeilost") for _ in range(letters)) for _ in range(RULES_LIMIT)]


def hostile(blocked: list[str]) -> dict[str, str]:
    """Return prompts that are meant to take long."""
    draw = random.Random(11)
    return {
        "one letter": "a" * PROMPT_LIMIT,
        "single letters": "a " * (PROMPT_LIMIT // 2),
        "digits and signs": "".join(draw.choice("4 @$!1|0.5s") for _ in range(PROMPT_LIMIT)),
        "blocked words": " ".join(blocked)[:PROMPT_LIMIT],
        "halves of them": " ".join(rule[: len(rule) // 2] for rule in blocked * 9)[:PROMPT_LIMIT],
        "marks": "a\u0301\u0302\u0303\u200b" * (PROMPT_LIMIT // 5),
        "any character": "".join(chr(draw.randrange(0xA0, 0xD800)) for _ in range(PROMPT_LIMIT)),
    }


def times_ms(blocked: Filter, text: str, rounds: int) -> list[float]:
    """Return how long each of many checks took, sorted."""
    taken = []
    for _ in range(rounds):
        begin = time.perf_counter()
        blocked.find(text)
        taken.append(1000 * (time.perf_counter() - begin))
    return sorted(taken)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200, help="checks of every hostile prompt")
    options = parser.parse_args()
    for name, title in (("evasions", "hits"), ("innocent", "false alarms")):
        lines = found(name)
        print(f"\n{title}: {sum(hit for *_, hit in lines)} of {len(lines)} ({statistics.mean(hit for *_, hit in lines):.1%})")
        for heading in dict.fromkeys(line[0] for line in lines):
            hits = [hit for where, *_, hit in lines if where == heading]
            print(f"  {heading:<50} {sum(hits):4} of {len(hits):4}")
        for _, rule, text, hit in lines:
            if hit is (name == "innocent"):
                print(f"  {'false alarm' if hit else 'missed'}: {rule!r} in {text!r}")
    for letters in (8, 16, RULE_LIMIT):
        words = rules(letters)
        begin = time.perf_counter()
        blocked = Filter(words)
        print(f"\n{RULES_LIMIT} rules of {letters} letters, built in {1000 * (time.perf_counter() - begin):.0f} ms; {PROMPT_LIMIT} characters of")
        for title, text in hostile(words).items():
            taken = times_ms(blocked, text, options.rounds)
            print(f"  {title:<18} median {statistics.median(taken):5.2f} ms, p99 {taken[len(taken) * 99 // 100]:5.2f} ms")


if __name__ == "__main__":
    main()
