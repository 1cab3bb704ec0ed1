"""The blocked words of a server: find them in a prompt, also where somebody hides them. Standard library only.

A text becomes a row of marks, one per letter that a reader sees; the rules become one automaton, and a single walk over the marks moves all rules
at once (Shift-And: a rule's letters are bits of one large integer, see `_Machine`). Its time depends on the lengths alone, never on what is written.

What counts as what:

- Rules are whole words or phrases. An end of `*` allows any ending; nothing else does, not even a plural's s. A rule is met as it is written, but
  for case, accents (both ways: "ano" is met by "año" too), widths, styles and invisible characters. ä, ö and ü of a rule are met by ae, oe and ue.
- Disguises are looked for only with rules of three letters or more (two in Chinese, Japanese, Korean): the rest of this list.
- Digits and signs are read as letters (LEET) in a word that holds a letter, or @: 455 is a number, and so are 4x4, 6in and 1950s (NUMBER). A sign
  is read as a separator too. * between two letters is any vowel.
- Separators but spaces and apostrophes join: na.ked is "naked"; so both halves of half-naked are words, and the whole is one. Letters that
  stand alone, whatever is between them, are a word spelled out ("n a k e d"). Such a word is whole only where it ends, or where the gap is wider.
- A letter may be stretched to three or more; two are spelling (bob, boob), but for letters that are hardly ever doubled (daamn). Letters that a rule
  doubles must be at least as many.
- Look-alikes of other alphabets are read as such in a word that mixes alphabets, or that stands in a text mostly of another one. "сор" is Russian
  among Russian words and where it stands alone, and it is "cop" in an English sentence.
- Chinese, Japanese, Thai, Lao, Khmer, Burmese, Tibetan and emoji have no gaps between words: rules in them are found anywhere. Korean has gaps.

What is missed, and stands in the corpus as such (tests/engine/words): words written backwards, misspelt (bblood) or drawn with several signs for a
letter (|\\|aked, c()p), with digits behind them (damn123, as COP26 is no cop), made of digits only (80085), or all in look-alikes of another
alphabet with no other word beside them. What is a false alarm: names that look like leetspeak (A55) or spell (a 5, 5), words of their own by accent
(año), by hyphen (bum-ble, die-cut) or by alphabet (сор in an English sentence). Nothing here knows what a word means.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import lru_cache
from itertools import pairwise

from engine.errors import InvalidRequest

RULE_LIMIT = 50
"""Characters of a rule in its normal form."""
RULES_LIMIT = 500
"""Rules of a filter."""
ROUNDS = 8
"""How often what is left of a text is censored again; one that still breaks a rule was built to, and nothing is left of it."""
DISGUISED_LETTERS = 3
"""A shorter rule is met only as it is written: too many short spellings are innocent (A5, 1s)."""
SELDOM_DOUBLED = frozenset("ahijkquvwxy")
"""Twice in a row, these are stretched already."""
LEET = {
    **{"0": "o", "1": "il", "2": "z", "3": "eз", "4": "aч", "5": "s", "6": "gbб", "7": "t", "8": "b", "9": "g"},
    **{"@": "a", "$": "s", "!": "il", "|": "il", "+": "t", "€": "e", "£": "l", "¢": "c", "¥": "y", "§": "s", "¡": "i", "×": "x", "°": "o", "©": "c"},
    **{"®": "r", "∂": "d", "∆": "a", "∀": "a", "∃": "e", "฿": "b", "₿": "b", "*": ""},
}
VOWELS = "aeiou"
NUMBER = re.compile(
    r"\d+(x\d+)?(s|st|nd|rd|th|e|er|am|pm|h|hr|min|sec|mm|cm|m|km|in|ft|yd|mi|px|em|g|kg|lbs?|oz|ml|cl|l|w|kw|v|[mgt]b|hz|fps|[kdpx]|bit)?", re.ASCII
)
"""A number with its unit: its digits are digits."""
ALONE = frozenset("aieoyаивкосуя")
"""Words of one letter: a word that is spelled out may begin after one."""
LOOKS = {
    **{"a": "аАαΑΛᎪᗩꓮ", "b": "вВьЬъбБβΒᏴᗷꓐ", "c": "сСςᏟᑕꓚ", "d": "ԁдДδᎠᗪꓓ", "e": "еЕєЄэεΕΣξᎬᗴꓰ", "f": "ғҒϝᖴꓝ", "g": "ԌցᏀꓖ"},
    **{"h": "һҺнНђΗհՀᎻᕼꓧ", "i": "іІӏӀιΙᎥꓲ", "j": "јЈϳᎫᒍꓙ", "k": "кКκΚᏦꓗ", "l": "ӏӀιΙԼᏞᒪꓡ", "m": "мМΜᎷᗰꓟ", "n": "пПиИηΝπΠոᑎꓠ"},
    **{"o": "оОөΟοσθΘօՕⲟꓳ", "p": "рРρΡᏢᑭꓑ", "q": "ԛᑫ", "r": "гяЯГᏒᖇꓣ", "s": "ѕЅςՏᏚᔕꓢ", "t": "тТτΤᎢꓔ", "u": "уцЦиИυμսՍᑌꓴ"},
    **{"v": "ѵѴνυᏙᐯꓦ", "w": "ԝԜшШщЩωᏔᗯꓪ", "x": "хХχΧжЖꓫ", "y": "уУүҮчγΥυᎩꓬ", "z": "ΖᏃᘔꓜ"},
}
"""Latin letter → letters of other alphabets that people take for it, in the case in which they do."""
LOOKS_OF = {letter: "".join(latin for latin, letters in LOOKS.items() if letter in letters) for letter in {*"".join(LOOKS.values())}}
LIGATURES = {"æ": "ae", "œ": "oe", "ð": "d", "þ": "p", "ŋ": "n", "ə": "e", "ɑ": "a", "ɩ": "i", "ɪ": "i", "ʃ": "s", "ʌ": "a"}
UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue"})
STYLED = re.compile(r"LATIN (?:SMALL |CAPITAL )?LETTER (?:SMALL CAPITAL |TURNED |REVERSED |OPEN |DOTLESS |SCRIPT |BARRED )*([A-Z])(?: WITH .*| BAR)?")
"""Names of Latin letters that are an old letter in a new dress (ø, ʙ, ɐ) and have no decomposition."""
UNSPACED = frozenset("CJK HIRAGANA KATAKANA KATAKANA-HIRAGANA IDEOGRAPHIC BOPOMOFO THAI LAO KHMER MYANMAR TIBETAN YI".split())
DENSE = UNSPACED | {"HANGUL"}
"""Two signs of these are a word."""
ALPHABETS = frozenset("LATIN CYRILLIC GREEK ARMENIAN CHEROKEE CANADIAN LISU COPTIC".split())
"""Those between which look-alikes are told apart."""
ACCENTS = frozenset("COMBINING HEBREW ARABIC VARIATION".split())
"""Marks that count for nothing; those of Thai, Hindi or Japanese make another letter."""
VOICED = "\u3099\u309a"
APOSTROPHES = frozenset("'’‘ʼ＇")
BLANKS = frozenset("\u115f\u1160\u3164\uffa0\u2800™℠")
"""Letters and signs that look like a gap, or like nothing that belongs to a word."""
JOINERS = "\u200c\u200d"
OPENING, CLOSING, STOPS = "([{<«“\"'*_~|`", ")]}>»”\"'*_~|`", ",.;:!?"
"""What may be around a word only, each with its end, and what stands right behind a word."""


class _Kind(IntEnum):
    LETTER = 0
    SOFT = 1  # read as a letter and as a separator
    JOIN = 2
    SPACE = 3
    WIDE = 4  # several spaces
    MARK = 5  # belongs to the letter before it; never on its own in a row


@dataclass(frozen=True, slots=True)
class _Sign:
    """What a character is read as: `plain` is compared with rules, `leet` and `looks` are the letters that it may stand for."""

    kind: _Kind
    plain: str = ""
    leet: str = ""
    looks: str = ""
    script: str = ""


SPACE, JOIN = _Sign(_Kind.SPACE), _Sign(_Kind.JOIN)
SPACES = frozenset((_Kind.SPACE, _Kind.WIDE))


@dataclass(slots=True)
class _Mark:
    """A sign in its place. `stands_for` are the letters that it may be here; a word may start or end here; `is_bridge`: words go on across it."""

    sign: _Sign
    start: int
    end: int
    stands_for: str = ""
    may_start: bool = False
    may_end: bool = False
    is_bridge: bool = False


@dataclass(slots=True)
class _Piece:
    """Letters without anything between them. Before a lead no word is being spelled out; a joined one has no space before it."""

    first: int
    last: int
    is_single: bool = True
    is_lead: bool = True
    is_joined: bool = False


@dataclass(frozen=True, slots=True)
class _Pattern:
    """The letters of a rule, " " for a gap. A free end may be inside a longer word; `is_long` ones are found in disguise."""

    rule: int
    letters: tuple[str, ...]
    free_start: bool
    free_end: bool
    is_long: bool

    def mirrored(self) -> "_Pattern":
        """Return the same pattern, read backwards."""
        return _Pattern(self.rule, self.letters[::-1], self.free_end, self.free_start, self.is_long)


def _script(character: str) -> str:
    """Return the first word of a character's Unicode name, which is its script where it is a letter."""
    return unicodedata.name(character, "").split(" ")[0]


def _letters(character: str) -> Iterator[_Sign]:
    """Yield the letters of one compatibility-decomposed letter or digit."""
    looks, script = LOOKS_OF.get(character, ""), _script(character)
    for letter in unicodedata.normalize("NFKD", character.casefold()):
        if unicodedata.category(letter)[0] == "M":
            continue
        if unicodedata.category(letter) == "Nd":
            letter = str(unicodedata.decimal(letter))
        for plain in LIGATURES.get(letter, letter):
            styled = None if plain.isascii() else STYLED.fullmatch(unicodedata.name(plain, ""))
            plain = styled[1].lower() if styled else plain
            yield _Sign(_Kind.LETTER, plain, LEET.get(plain, ""), looks or plain, script)


@lru_cache(maxsize=8192)
def _signs(character: str) -> tuple[_Sign, ...]:
    """Return what one character is read as; nothing where nobody sees it."""
    if character.isspace() or character in APOSTROPHES:
        return (SPACE,)
    if character in BLANKS:
        return (JOIN,)
    code = ord(character)
    if 0x1F1E6 <= code <= 0x1F1FF:
        # Half of a flag: rules may mean the flag, texts may spell with it.
        return (_Sign(_Kind.LETTER, character, chr(code - 0x1F1E6 + ord("a")), "", "LATIN"),)
    if 0x1F150 <= code <= 0x1F189 and (code - 0x1F150) % 32 < 26:
        character = chr((code - 0x1F150) % 32 + ord("a"))
    signs: list[_Sign] = []
    for part in unicodedata.normalize("NFKD", character):
        category = unicodedata.category(part)
        if part in LEET and category != "Nd":
            signs.append(_Sign(_Kind.SOFT, part, LEET[part]))
        elif category[0] in "LN" and part != "ـ":
            signs.extend(_letters(part))
        elif category[0] == "M":
            if part in VOICED or _script(part) not in ACCENTS:
                signs.append(_Sign(_Kind.MARK, part))
        elif category == "So":
            signs.append(_Sign(_Kind.SOFT, part))
        elif category not in ("Cf", "Cc", "Zs", "Lm") and not 0x1F3FB <= ord(part) <= 0x1F3FF:
            signs.append(JOIN)
    return tuple(signs) or ((JOIN,) if unicodedata.category(character) == "Sk" and code < 0x1F3FB else ())


def _belongs(sign: _Sign, before: _Sign) -> str:
    """Return the letter that a sign makes together with the one before it; empty where it stands for itself."""
    if before.kind is not _Kind.LETTER:
        return ""
    if sign.kind is _Kind.MARK:
        return before.plain if before.script in ALPHABETS else unicodedata.normalize("NFC", before.plain + sign.plain)
    if "\u1160" < sign.plain < "\u1200":
        syllable = unicodedata.normalize("NFC", before.plain + sign.plain)
        return syllable if len(syllable) == 1 else ""
    return ""


def _marks(text: str) -> list[_Mark]:
    """Return what a reader sees, gaps taken together."""
    marks: list[_Mark] = []
    before = SPACE
    letter = _Kind.LETTER
    for index, character in enumerate(text):
        signs = _signs(character)
        if not signs and marks:
            marks[-1].end = index + 1
        for sign in signs:
            if sign.kind is letter and sign.script != "HANGUL":
                marks.append(_Mark(sign, index, index + 1))
                before = sign
                continue
            if marks and sign.kind >= _Kind.JOIN and before.kind >= _Kind.JOIN and sign.kind is not _Kind.MARK:
                spaces = sign.kind >= _Kind.SPACE and before.kind >= _Kind.SPACE
                before = marks[-1].sign = _Sign(_Kind.WIDE) if spaces else max(sign, before, key=lambda one: one.kind)
                marks[-1].end = index + 1
                continue
            if marks and (sign.kind is _Kind.MARK or sign.script == "HANGUL"):
                together = _belongs(sign, before)
                if together:
                    before = marks[-1].sign = _Sign(_Kind.LETTER, together, before.leet, before.looks, before.script)
                if together or sign.kind is _Kind.MARK:
                    marks[-1].end = index + 1
                    continue
            if sign.kind is not _Kind.MARK:
                marks.append(_Mark(sign, index, index + 1))
                before = sign
    return marks


def _pieces(marks: Sequence[_Mark]) -> list[_Piece]:
    """Return the runs of letters, and mark where words start and end inside of them: next to signs of unspaced scripts."""
    pieces: list[_Piece] = []
    inside = False
    for index, mark in enumerate(marks):
        if mark.sign.kind is not _Kind.LETTER:
            inside = False
            continue
        if not inside:
            pieces.append(_Piece(index, index))
            inside = True
            continue
        pieces[-1].last, pieces[-1].is_single = index, False
        if mark.sign.script in UNSPACED or marks[index - 1].sign.script in UNSPACED:
            mark.may_start = marks[index - 1].may_end = True
    return pieces


def _bridge(marks: Sequence[_Mark], left: _Piece | None, right: _Piece | None) -> None:
    """Decide what the gap between two pieces does to words: whether they start and end there, and whether they go on across it."""
    gap = marks[left.last + 1 if left else 0 : right.first if right else len(marks)]
    kinds = {mark.sign.kind for mark in gap}
    is_spelled = (not left or left.is_single) and (not right or right.is_single)
    is_edge = not (left and right and is_spelled) or _Kind.WIDE in kinds
    if left and left.is_lead and _Kind.SPACE in kinds and marks[left.last].sign.plain in ALONE:
        is_edge = True
    if left and right:
        right.is_lead = not is_spelled
        right.is_joined = is_spelled or kinds.isdisjoint(SPACES)
    spaces = [place for place, mark in enumerate(gap) if mark.sign.kind >= _Kind.SPACE]
    for place, mark in enumerate(gap):
        # A sign between two spaces is a single letter, too.
        mark.is_bridge = is_spelled or mark.sign.kind < _Kind.SPACE
        if not mark.is_bridge and len(spaces) > 1:
            mark.is_bridge = (place > spaces[0] or not left or left.is_single) and (place < spaces[-1] or not right or right.is_single)
        if mark.sign.kind is _Kind.SOFT:
            mark.may_start = is_edge and (place > 0 or not left or _is_unspaced(marks[left.last]))
            mark.may_end = is_edge and (place < len(gap) - 1 or not right or _is_unspaced(marks[right.first]))
    if left:
        marks[left.last].may_end = is_edge or _is_unspaced(marks[left.last])
    if right:
        marks[right.first].may_start = is_edge or _is_unspaced(marks[right.first])


def _is_unspaced(mark: _Mark) -> bool:
    return mark.sign.script in UNSPACED


def _disguises(marks: Sequence[_Mark], pieces: Sequence[_Piece]) -> None:
    """Decide which letters the marks stand for, stretch by stretch: no word leaves a stretch but a phrase."""
    alphabets = Counter(mark.sign.script for mark in marks if mark.sign.script in ALPHABETS)
    most = max(alphabets.values(), default=0)
    numbers = {index for piece in pieces if not piece.is_single and _is_number(marks, piece) for index in range(piece.first, piece.last + 1)}
    first = 0
    for index in range(len(marks) + 1):
        if index < len(marks) and (marks[index].is_bridge or marks[index].sign.kind is _Kind.LETTER):
            continue
        stretch = marks[first:index]
        scripts = {mark.sign.script for mark in stretch} & ALPHABETS
        if len(scripts) > 1 or any(alphabets[script] < most for script in scripts):
            for mark in stretch:
                mark.stands_for = mark.sign.looks
        if any(mark.sign.plain == "@" or mark.sign.kind is _Kind.LETTER and not mark.sign.plain.isdigit() for mark in stretch):
            for place, mark in enumerate(stretch, first):
                if place not in numbers:
                    mark.stands_for += mark.sign.leet
                if mark.sign.plain == "*" and all(beside.sign.kind is _Kind.LETTER for beside in marks[max(place - 1, 0) : place + 2 : 2]):
                    mark.stands_for = VOWELS
        first = index + 1


def _is_number(marks: Sequence[_Mark], piece: _Piece) -> bool:
    """Return whether a piece is a number with its unit, and no part of something longer."""
    if piece.is_joined or not marks[piece.first].sign.plain.isdigit():
        return False
    return NUMBER.fullmatch("".join(mark.sign.plain for mark in marks[piece.first : piece.last + 1])) is not None


def _read(text: str) -> list[_Mark]:
    """Return the marks of a text, with all that can be told of them without rules."""
    marks = _marks(text)
    pieces = _pieces(marks)
    for left, right in pairwise([None, *pieces, None]):
        _bridge(marks, left, right)
    _disguises(marks, pieces)
    return marks


def _patterns(number: int, rule: str) -> Iterator[_Pattern]:
    """Yield what a rule in its normal form looks for."""
    text = rule.removesuffix("*")
    for spelling in dict.fromkeys((text, text.translate(UMLAUTS))):
        signs = [mark.sign for mark in _marks(spelling)]
        while signs and signs[0].kind >= _Kind.JOIN:
            del signs[0]
        while signs and signs[-1].kind >= _Kind.JOIN:
            del signs[-1]
        letters = tuple(sign.plain or " " for sign in signs)
        if all(letter == " " or letter in LEET and not letter.isdigit() for letter in letters):
            continue
        count = len(letters) - letters.count(" ")
        is_long = count >= (2 if any(sign.script in DENSE for sign in signs) else DISGUISED_LETTERS)
        yield _Pattern(number, letters, _is_free(signs[0]), _is_free(signs[-1]) or rule.endswith("*"), is_long)


def _is_free(sign: _Sign) -> bool:
    """Return whether words may begin and end with this sign wherever it stands: it is unspaced, a pictograph, or half of a flag."""
    return sign.script in UNSPACED or (sign.kind is _Kind.SOFT and sign.plain not in LEET) or "\U0001f1e6" <= sign.plain <= "\U0001f1ff"


class _Machine:
    """All patterns as one automaton. Bit i of a state: the letters up to the i-th of all patterns' letters, laid end to end, have been read.

    Three states are kept, by how often the last letter has been read: once, twice, more often. From the second the next letter is read only where
    two are no other word. One bit lies unused behind every pattern, so that shifting one out of it does not start the next.

    Source: Baeza-Yates and Gonnet 1992, "A new approach to text searching"; states for stretched letters are our own.
    """

    def __init__(self, patterns: Iterable[_Pattern]) -> None:
        plain: dict[str, list[int]] = defaultdict(list)
        disguised: dict[str, list[int]] = defaultdict(list)
        sets: dict[str, list[int]] = defaultdict(list)
        self._rules: dict[int, int] = {}
        at = 0
        for pattern in patterns:
            letters = pattern.letters
            sets["start"].append(at)
            if pattern.free_start:
                sets["free start"].append(at)
            for place, letter in enumerate(letters, at):
                plain[letter].append(place)
                is_doubled = place > at and letters[place - at - 1] == letter
                if pattern.is_long:
                    sets["long"].append(place)
                    for other in {letter, *_looks_of_rules(letter)}:
                        disguised[other].append(place)
                    if not letter.isdigit():
                        sets["stretched"].append(place)
                    if is_doubled or letter in SELDOM_DOUBLED:
                        sets["free twice"].append(place)
                if letter == " ":
                    sets["stretched"].append(place)
                    sets["free twice"].append(place)
            at += len(letters) + 1
            self._rules[at - 2] = pattern.rule
            sets["end"].append(at - 2)
            if pattern.free_end:
                sets["free end"].append(at - 2)
        self._plain = {letter: _bits(places, at) for letter, places in plain.items()}
        self._disguised = {letter: _bits(places, at) for letter, places in disguised.items()}
        self._sets = {name: _bits(sets[name], at) for name in ("start", "free start", "end", "free end", "long", "stretched", "free twice")}

    def _mask(self, mark: _Mark) -> int:
        """Return where the rules have a letter that this mark may be."""
        mask = self._plain.get(mark.sign.plain or " ", 0)
        if mark.sign.kind is _Kind.SOFT:
            mask |= self._plain.get(" ", 0)
        for letter in mark.stands_for:
            mask |= self._disguised.get(letter, 0)
        return mask

    def walk(self, marks: Iterable[_Mark]) -> Iterator[tuple[int, int]]:
        """Yield the number of a mark and, as bits, the patterns whose last letter it is."""
        start, free_start, end, free_end, long, stretched, free_twice = self._sets.values()
        masks: dict[tuple[str, str, _Kind], int] = {}
        once = twice = more = ready = 0
        for index, mark in enumerate(marks):
            key = (mark.sign.plain, mark.stands_for, mark.sign.kind)
            mask = masks.get(key, -1)
            if mask < 0:
                mask = masks[key] = self._mask(mark)
            if not mask and not mark.is_bridge:
                once = twice = more = ready = 0
                continue
            first = (ready << 1 | (start if mark.may_start else free_start)) & mask
            second = once & mask & stretched
            third = (twice | more) & mask
            ready = first | third | second & free_twice
            if ready:
                hits = ready & (end if mark.may_end else free_end)
                if hits:
                    yield index, hits
            if mark.is_bridge:
                once, twice, more = first | once & long, second | twice, third | more
                ready = once | more | twice & free_twice
            else:
                once, twice, more = first, second, third

    def rules(self, hits: int) -> set[int]:
        """Return the numbers of the rules whose patterns are these bits."""
        found = set()
        while hits:
            last = hits.bit_length() - 1
            found.add(self._rules[last])
            hits ^= 1 << last
        return found


def _looks_of_rules(letter: str) -> str:
    """Return what people may take a rule's letter for, in either case."""
    return LOOKS_OF.get(letter, "") + LOOKS_OF.get(letter.upper(), "")


def _bits(places: Iterable[int], size: int) -> int:
    """Return an integer with these bits set."""
    row = bytearray(size // 8 + 1)
    for place in places:
        row[place // 8] |= 1 << place % 8
    return int.from_bytes(row, "little")


def check_rule(rule: str) -> str:
    """Return a rule in its normal form: lower case, composed, single spaces, nothing invisible, at most one `*` and that at its end.

    Raises:
        InvalidRequest: nothing is left to look for, or it is too long.
    """
    before, normal = "", rule
    while normal != before:
        before, normal = normal, unicodedata.normalize("NFKC", normal.casefold())
        normal = " ".join("".join(filter(_is_visible, normal)).split())
        normal = normal.strip("* ") + "*" * normal.rstrip().endswith("*")
    if not any(_patterns(0, normal)):
        raise InvalidRequest("rule", "hold at least one letter, digit or emoji")
    if len(normal) > RULE_LIMIT:
        raise InvalidRequest("rule", "be at most {most} characters long; this one has {have}", most=RULE_LIMIT, have=len(normal))
    return normal


def _is_visible(character: str) -> bool:
    """Return whether a character is a part of a rule; joiners shape what is beside them."""
    return character in JOINERS or character.isspace() or unicodedata.category(character) not in ("Cc", "Cf", "Cn", "Co", "Cs")


class Filter:
    """The rules of a server, ready to be looked for. Never changes.

    Raises:
        InvalidRequest: there are too many rules, or one is none.
    """

    def __init__(self, rules: Iterable[str]) -> None:
        self.rules = tuple(dict.fromkeys(check_rule(rule) for rule in rules))
        if len(self.rules) > RULES_LIMIT:
            raise InvalidRequest("rules", "be at most {most}; these are {have}", most=RULES_LIMIT, have=len(self.rules))
        self._patterns = [pattern for number, rule in enumerate(self.rules) for pattern in _patterns(number, rule)]
        self._machine = _Machine(self._patterns)

    def find(self, text: str) -> list[str]:
        """Return the rules that a text breaks, in the order of the rules and in their normal form."""
        return [self.rules[number] for number in sorted(self._broken(_read(text)))]

    def censored(self, text: str) -> str:
        """Return a text without the words that break a rule, and without what was only around them: emphasis, brackets, a second space.

        All else stays as it is, character by character. What is left breaks no rule; where that takes too many rounds, nothing is left.
        """
        for _ in range(ROUNDS):
            marks = _read(text)
            broken = self._broken(marks)
            if not broken:
                return text
            spans = self._spans(marks, broken)
            for (_, least), (start, end) in reversed(list(pairwise([(0, 0), *spans]))):
                text = _without(text, start, end, least)
        return "" if self.find(text) else text

    def _broken(self, marks: Sequence[_Mark]) -> set[int]:
        """Return the numbers of the rules that are broken."""
        hits = 0
        for _, found in self._machine.walk(marks):
            hits |= found
        return self._machine.rules(hits)

    def _spans(self, marks: Sequence[_Mark], broken: set[int]) -> list[tuple[int, int]]:
        """Return from where to where a text breaks rules, in order, none touching another.

        Matches end where a walk ends them. They start where a walk backwards, with mirrored patterns, ends them: the first such place behind the
        match before, else the last one.
        """
        patterns = [pattern for pattern in self._patterns if pattern.rule in broken]
        starts: dict[int, list[int]] = defaultdict(list)
        backwards = _Machine(pattern.mirrored() for pattern in patterns)
        mirrored = [replace(mark, may_start=mark.may_end, may_end=mark.may_start) for mark in reversed(marks)]
        for index, hits in backwards.walk(mirrored):
            for rule in backwards.rules(hits):
                starts[rule].append(len(marks) - 1 - index)
        spans: list[tuple[int, int]] = []
        ended: dict[int, int] = defaultdict(lambda: -1)
        forwards = _Machine(patterns)
        for index, hits in forwards.walk(marks):
            for rule in forwards.rules(hits):
                before = [start for start in starts[rule] if start <= index]
                first = min((start for start in before if start > ended[rule]), default=max(before, default=index))
                ended[rule] = last = index
                while self.rules[rule].endswith("*") and (after := _goes_on(marks, last)) > last:
                    last = after
                spans.append((marks[first].start, marks[last].end))
        return _merged(spans)


def _goes_on(marks: Sequence[_Mark], index: int) -> int:
    """Return where the next letter of the same word is; the same place where the word ends."""
    after = index + 1
    while after < len(marks) and marks[after].is_bridge:
        after += 1
    return index if after == len(marks) or marks[after].sign.kind is not _Kind.LETTER or marks[after].may_start else after


def _merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return spans in order, those that overlap or touch as one."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _without(text: str, start: int, end: int, least: int) -> str:
    """Take a span out of a text, with the brackets and the emphasis that are around nothing else, and close the gap; `least` is kept."""
    while start > least and end < len(text) and text[start - 1] in OPENING and text[end] == CLOSING[OPENING.index(text[start - 1])]:
        start, end = start - 1, end + 1
    before, after = text[:start], text[end:]
    if start == least or not after:
        return before.rstrip() + after if not after and start > least else before + after.lstrip() if not before else before + after
    left, right = before[-1], after[0]
    if left.isspace() and (right == "\n" or right in CLOSING + STOPS):
        return before[:-1] + after
    if right.isspace() and (left.isspace() or left in OPENING):
        return before + after[1:]
    is_joined = left.isalnum() and right.isalnum() and not {_script(left), _script(right)} & UNSPACED
    return before + " " * is_joined + after
