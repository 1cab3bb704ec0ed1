import time
from collections.abc import Callable

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from engine.errors import InvalidRequest
from engine.jobs import PROMPT_LIMIT
from engine.words import LEET, LOOKS, ROUNDS, RULE_LIMIT, RULES_LIMIT, Filter, check_rule
from tests.benchmarks.words import corpus, found, hostile, rules

LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = st.text(LETTERS, min_size=3, max_size=10)
NASTY = st.text(st.sampled_from("aabs 4@$!|*.-_'\n\u200b\u0301\u3099аΑ\u1107\u1161\u11a8か笨🍆🇦🇸ßİﬁ½\ud800"), max_size=60)
TEXTS = st.one_of(st.text(st.characters(), max_size=200), NASTY)
SIGNS_OF = {letter: [sign for sign, letters in LEET.items() if letter in letters] for letter in LETTERS}


def test_what_is_found_of_the_corpus() -> None:
    """The missed seven and the six false alarms stand under a heading of their own, "beyond …": the module's docstring says why."""
    missed = [(heading, rule, text) for heading, rule, text, hit in found("evasions") if not hit]
    alarms = [(heading, rule, text) for heading, rule, text, hit in found("innocent") if hit]
    assert {heading for heading, *_ in missed} <= {"beyond what is looked for"}, missed
    assert {heading for heading, *_ in alarms} <= {"beyond what can be told apart"}, alarms
    assert len(missed) <= 7 and len(alarms) <= 6
    assert len(list(corpus("evasions"))) >= 300 and len(list(corpus("innocent"))) >= 400


def test_rules_are_found_in_their_order_and_once() -> None:
    blocked = Filter(["Gun", "red  car", "damn*", "gun"])
    assert blocked.rules == ("gun", "red car", "damn*")
    assert blocked.find("a damned red car, a GUN and a g.u.n") == ["gun", "red car", "damn*"]
    assert blocked.find("") == Filter([]).find("gun") == []


@pytest.mark.parametrize(
    ("rule", "normal"),
    [
        ("  Red \u200b\t CAR ", "red car"),
        ("KILL **", "kill*"),
        ("**bad**", "bad*"),
        ("ｂａｄ", "bad"),
        ("blo\u0308d", "blöd"),
        ("İ", "i\u0307"),
        ("Ba\ud800d", "bad"),
        ("👩\u200d🚀", "👩\u200d🚀"),
    ],
)
def test_a_rule_has_one_normal_form(rule: str, normal: str) -> None:
    assert check_rule(rule) == normal


@pytest.mark.parametrize("rule", ["", " ", "*", "***", "...", "\u200b", "\u0301", "-*-", "\ud800"])
def test_a_rule_holds_something_to_look_for(rule: str) -> None:
    with pytest.raises(InvalidRequest, match="rule must hold at least one letter, digit or emoji"):
        check_rule(rule)


def test_rules_are_short_and_few() -> None:
    assert check_rule("x" * RULE_LIMIT) == "x" * RULE_LIMIT
    with pytest.raises(InvalidRequest, match="rule must be at most 50 characters long; this one has 51"):
        check_rule("x" * (RULE_LIMIT + 1))
    many = [f"rule {number}" for number in range(RULES_LIMIT + 1)]
    assert len(Filter(many[1:]).rules) == RULES_LIMIT
    assert len(Filter([*many[1:], many[1]]).rules) == RULES_LIMIT
    with pytest.raises(InvalidRequest, match="rules must be at most 500; these are 501"):
        Filter(many)


@pytest.mark.parametrize(
    ("rule", "text", "left"),
    [
        ("bad", "a fine day", "a fine day"),
        ("bad", "  two  spaces\tstay ", "  two  spaces\tstay "),
        ("bad", "a bad fox", "a fox"),
        ("bad", "bad fox", "fox"),
        ("bad", "a fox, bad", "a fox,"),
        ("bad", "a fox, bad!", "a fox,!"),
        ("bad", "a bad, sad  fox", "a, sad  fox"),
        ("bad", "a **bad** fox (bad)", "a fox"),
        ("bad", "a **bad fox**", "a **fox**"),
        ("bad", "bad\nfox", "fox"),
        ("bad", "a bad\nfox", "a\nfox"),
        ("bad", "a b.a.d and b4d and b a d fox", "a and and fox"),
        ("bad", "b\u0301a\u0301d\u0301 fox", "fox"),
        ("bad", "half-bad", "half-"),
        ("bad", "bad", ""),
        ("bad", "ＢＡＤ Ｆｏｘ №½", "Ｆｏｘ №½"),
        ("kill*", "a killing spree", "a spree"),
        ("kill*", "a k i l l e r fox", "a fox"),
        ("red car", "a red car, red cars", "a, red cars"),
        ("笨蛋", "你是笨蛋吗", "你是吗"),
        ("🍆", "x🍆y", "x y"),
        ("🍆", "🍆🍆 fox 🍆", "fox"),
        ("bad", "b.bad.ad", ""),
        ("bad", "fox b.bad.ad here", "fox here"),
        ("aaa", "fox, a.aaa.A", "fox,"),
    ],
)
def test_offending_words_are_taken_out(rule: str, text: str, left: str) -> None:
    assert Filter([rule]).censored(text) == left


def test_nothing_is_left_of_a_text_that_was_built_to_leave_something() -> None:
    blocked = Filter(["red car"])
    assert blocked.censored("fox" + " red" * ROUNDS + " car" * ROUNDS) == "fox"
    assert blocked.censored("fox" + " red" * (ROUNDS + 1) + " car" * (ROUNDS + 1)) == ""


def test_a_short_rule_is_met_only_as_it_is_written() -> None:
    blocked = Filter(["ss", "笨蛋"])
    assert blocked.find("SS") == blocked.find("ＳＳ") == ["ss"]
    assert not any(map(blocked.find, ("$$", "a5s", "s s", "s.s", "sss", "55", "x5s")))
    assert blocked.find("笨 蛋") == ["笨蛋"]


def test_words_of_another_alphabet_are_read_as_look_alikes_only_out_of_place() -> None:
    blocked = Filter(["cop"])
    assert not blocked.find("сор") and not blocked.find("сор в избе") and not blocked.find("сор в избе, cat")
    assert blocked.find("сop") and blocked.find("a cat and a сор") and blocked.find("сор в избе, cор")


@given(TEXTS, st.lists(st.sampled_from(["ass", "as", "kill*", "red car", "笨蛋", "か", "🍆", "🇦🇸", "바보", "абс", "a$$"]), max_size=6))
@settings(max_examples=300, deadline=None)
@example("b.b.b.ad.ad.ad", ["ass"])
def test_any_text_can_be_read_and_what_is_left_of_it_breaks_no_rule(text: str, chosen: list[str]) -> None:
    blocked = Filter(chosen)
    left = blocked.censored(text)
    assert not blocked.find(left)
    assert left == text if not blocked.find(text) else len(left) < len(text) + len(chosen)


@given(TEXTS)
@settings(max_examples=300, deadline=None)
def test_a_normal_form_is_its_own_and_finds_itself(rule: str) -> None:
    try:
        normal = check_rule(rule)
    except InvalidRequest:
        assume(False)
    assert check_rule(normal) == normal
    assert Filter([normal]).find(normal.removesuffix("*")) == [normal]


@given(TEXTS, st.lists(st.text("asbl 4*", min_size=1, max_size=4), max_size=8), st.text("asbl", min_size=1, max_size=3))
@settings(max_examples=200, deadline=None)
def test_another_rule_takes_no_finding_away(text: str, chosen: list[str], another: str) -> None:
    chosen = [rule for rule in chosen if any(character.isalnum() for character in rule)]
    assert set(Filter(chosen).find(text)) <= set(Filter([*chosen, another]).find(text)) <= {*Filter(chosen).find(text), another}


@given(st.text("abcde", min_size=1, max_size=8), st.text("mnprMNP", max_size=4), st.text("mnprMNP", max_size=4))
@settings(max_examples=300, deadline=None)
def test_a_word_inside_of_a_longer_one_is_innocent(rule: str, before: str, after: str) -> None:
    assume(before or after)
    text = f"{before}{rule}{after}"
    assert not Filter([rule]).find(f"the {text} fox")
    if len(rule) > 1:
        assert not Filter([rule]).find(" ".join(text)), "nor is it found in a longer one that is spelled out"
        assert not Filter([rule]).find(".".join(text))


def _other_case(letter: str, pick: Callable[[list[str]], str]) -> str:
    return letter.upper()


def _accented(letter: str, pick: Callable[[list[str]], str]) -> str:
    return letter + pick(["\u0301", "\u0308", "\u0334\u0315", "\u20dd"])


def _wide(letter: str, pick: Callable[[list[str]], str]) -> str:
    return pick([chr(ord(letter) - ord("a") + first) for first in (0xFF41, 0x1D41A, 0x1D656, 0x24D0, 0x1F150, 0x1F170)])


def _split(letter: str, pick: Callable[[list[str]], str]) -> str:
    return letter + pick(["\u200b", "\u200d", "\u00ad", "\u202e", "\ufe0f", "\U000e0061"])


def _leet(letter: str, pick: Callable[[list[str]], str]) -> str:
    return pick(SIGNS_OF[letter] or [letter])


def _look_alike(letter: str, pick: Callable[[list[str]], str]) -> str:
    return pick(list(LOOKS[letter]))


def _stretched(letter: str, pick: Callable[[list[str]], str]) -> str:
    return letter * (3 + len(pick(["", "x", "xx"])))


@given(WORDS, st.data())
@settings(max_examples=1000, deadline=None)
def test_a_word_is_found_in_any_disguise(word: str, data: st.DataObject) -> None:
    assume(word not in ("painting", "the", "under", "trees"))
    separator = data.draw(st.sampled_from(["", ".", "-", "_", "/", "**", "||", "``", "😀", " ", "  "]))
    ways = [_other_case, _accented, _wide, _split, _look_alike, _leet]
    if not separator.isspace():
        ways.append(_stretched)
    disguised = [word[0]]
    for letter in word[1:]:
        way = data.draw(st.sampled_from(ways))
        disguised.append(way(letter, lambda choices: data.draw(st.sampled_from(choices))))
    text = f"painting of the {separator.join(disguised)} under trees"
    assert Filter([word]).find(text) == [word], text
    assert Filter([word[:-1] + "*"]).find(text) or len(word) == 3, text
    left = Filter([word]).censored(text)
    assert left == "painting of the under trees", text


@pytest.mark.parametrize("letters", [8, RULE_LIMIT])
def test_hostile_prompts_take_no_longer_than_others(letters: int) -> None:
    chosen = rules(letters)
    blocked = Filter(chosen)
    for name, text in hostile(chosen).items():
        assert len(text) <= PROMPT_LIMIT
        taken = []
        for _ in range(5):
            begin = time.thread_time()
            blocked.find(text)
            taken.append(time.thread_time() - begin)
        assert min(taken) < 0.03, name
        begin = time.thread_time()
        blocked.censored(text)
        assert time.thread_time() - begin < 0.5, name
