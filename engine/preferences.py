"""What people, channels and servers have chosen: defaults, limits, places, the gallery, safety and who may change what.

Everything is in memory, so that asking costs nothing, and in SQLite before a change counts. Nearer choices win: a person's own before the channel's,
the channel's before the server's.
"""

import json
import math
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any

from engine.concepts import STRICTNESS
from engine.database import Database
from engine.errors import InvalidRequest
from engine.jobs import COUNT_LIMIT, GUIDANCE_LIMIT, SEED_LIMIT, STEPS_LIMIT, Kind, Preset, Request, check_characters
from engine.words import RULES_LIMIT, Filter, check_rule

CONCEPTS_LIMIT = 50
"""Concepts that a server may block: each costs a comparison with every picture."""
CONCEPT_LENGTH = 80
LIST_LIMIT = 4000
"""Characters of a list: what one of Discord's forms holds."""
ROLES_LIMIT = 25
DAYS_LIMIT = 3650
STARS_LIMIT = 1000
JOBS_LIMIT = 1000
SNOWFLAKE = re.compile(r"[1-9][0-9]{0,18}")


class Level(StrEnum):
    """Who chooses. These names are in the database: they stay."""

    USER = "user"
    CHANNEL = "channel"
    SERVER = "server"


class Area(StrEnum):
    """What belongs together when an owner says who may change it; `OWN` is everybody's own, `OWNER` the server owner's alone."""

    OWN = "own"
    SETTINGS = "settings"
    GALLERY = "gallery"
    SAFETY = "safety"
    MODERATION = "moderation"
    OWNER = "owner"


class Form(StrEnum):
    """How a value is asked for."""

    NUMBER = "number"
    CHOICE = "choice"
    LINES = "lines"
    CHANNEL = "channel"
    ROLES = "roles"


@dataclass(frozen=True, slots=True)
class Setting:
    """One thing that can be chosen: at which levels, by whom, in which form, and how what was written becomes a value."""

    name: str
    levels: tuple[Level, ...]
    area: Area
    form: Form
    parse: Callable[[Any], Any]
    choices: tuple[str, ...] = ()
    bounds: tuple[float, float] | None = None


def number(least: float, most: float, whole: bool = True) -> Callable[[Any], Any]:
    """Return what reads a number between two others.

    Raises:
        InvalidRequest: (what is returned) it is none.
    """

    def read(written: Any) -> Any:
        text = str(written).strip()
        if not whole:
            # As much of the world writes it; of whole numbers, a comma would part thousands.
            text = text.replace(",", ".")
        try:
            value = float(text)
        except ValueError:
            raise InvalidRequest("value", "be a number, not {value}", value=text[:20] or "-") from None
        fits = math.isfinite(value) and least <= value <= most
        if whole and not (fits and value == int(value)):
            raise InvalidRequest("value", "be a whole number from {least:g} to {most:g}", least=least, most=most)
        if not fits:
            raise InvalidRequest("value", "be a number from {least:g} to {most:g}", least=least, most=most)
        return int(value) if whole else value

    return read


def one_of(*choices: str) -> Callable[[Any], str]:
    """Return what reads one of several words.

    Raises:
        InvalidRequest: (what is returned) it is another one.
    """

    def read(written: Any) -> str:
        if str(written) not in choices:
            raise InvalidRequest("value", "be one of these: {choices}", choices=", ".join(choices))
        return str(written)

    return read


def rules(written: Any) -> list[str]:
    """Read blocked words, one in a line.

    Raises:
        InvalidRequest: there are too many, or one cannot be a rule.
    """
    # The normal form of a rule may be longer than what was written.
    found = lines(list(dict.fromkeys(check_rule(line) for line in lines(written))))
    if len(found) > RULES_LIMIT:
        raise InvalidRequest("list", "have at most {most} lines; this one has {have}", most=RULES_LIMIT, have=len(found))
    return found


def concepts(written: Any) -> list[str]:
    """Read blocked concepts, one in a line.

    Raises:
        InvalidRequest: there are too many, or one is too long.
    """
    found = list(dict.fromkeys(lines(written)))
    if len(found) > CONCEPTS_LIMIT:
        raise InvalidRequest("list", "have at most {most} lines; this one has {have}", most=CONCEPTS_LIMIT, have=len(found))
    check_characters("list", "\n".join(found))
    if any(len(text) > CONCEPT_LENGTH for text in found):
        raise InvalidRequest("list", "have lines of at most {most} characters", most=CONCEPT_LENGTH)
    return found


def lines(written: Any) -> list[str]:
    """Return the lines of a text, or of several, that hold anything.

    Raises:
        InvalidRequest: they are more than can be shown again.
    """
    texts = written if isinstance(written, list) else str(written).splitlines()
    found = [tidy for text in texts if (tidy := " ".join(str(text).split()))]
    if len("\n".join(found)) > LIST_LIMIT:
        raise InvalidRequest("list", "be at most {most} characters long", most=LIST_LIMIT)
    return found


def snowflakes(written: Any) -> list[int]:
    """Read ids of Discord's.

    Raises:
        InvalidRequest: one is none.
    """
    chosen = written if isinstance(written, list) else [written]
    found = [int(str(one)) for one in chosen if SNOWFLAKE.fullmatch(str(one))]
    if len(found) != len(chosen) or len(found) > ROLES_LIMIT:
        raise InvalidRequest("value", "be at most {most} roles", most=ROLES_LIMIT)
    return found


def snowflake(written: Any) -> int:
    """Read one id of Discord's.

    Raises:
        InvalidRequest: it is none.
    """
    found = snowflakes(written)
    if len(found) != 1:
        raise InvalidRequest("value", "be one channel")
    return found[0]


EVERYWHERE = tuple(Level)
YES_NO = ("yes", "no")
LANGUAGE_NAMES = {"en-US": "English", "de": "Deutsch", "es-ES": "Español", "fr": "Français", "ja": "日本語", "zh-CN": "中文"}
"""What the languages that can be chosen call themselves, by Discord's locales."""
LANGUAGES = tuple(LANGUAGE_NAMES)


def choice(name: str, levels: tuple[Level, ...], area: Area, *choices: str) -> Setting:
    """Return a setting of few values."""
    return Setting(name, levels, area, Form.CHOICE, one_of(*choices), choices)


def numeric(name: str, levels: tuple[Level, ...], area: Area, least: float, most: float, whole: bool = True) -> Setting:
    """Return a setting that is a number."""
    return Setting(name, levels, area, Form.NUMBER, number(least, most, whole), bounds=(least, most))


ON_SERVER = (Level.SERVER,)
BELOW = (Level.CHANNEL, Level.SERVER)
SETTINGS = {
    setting.name: setting
    for setting in (
        Setting("model", EVERYWHERE, Area.SETTINGS, Form.CHOICE, str),
        numeric("count", EVERYWHERE, Area.SETTINGS, 1, COUNT_LIMIT),
        numeric("steps", EVERYWHERE, Area.SETTINGS, 1, STEPS_LIMIT),
        numeric("guidance", EVERYWHERE, Area.SETTINGS, 0, GUIDANCE_LIMIT, whole=False),
        choice("preset", EVERYWHERE, Area.SETTINGS, *Preset),
        choice("spoiler", EVERYWHERE, Area.SETTINGS, *YES_NO),
        choice("language", EVERYWHERE, Area.SETTINGS, *LANGUAGES),
        numeric("max_count", BELOW, Area.SETTINGS, 1, COUNT_LIMIT),
        numeric("max_steps", BELOW, Area.SETTINGS, 1, STEPS_LIMIT),
        numeric("max_jobs", ON_SERVER, Area.SETTINGS, 1, JOBS_LIMIT),
        choice("painting", (Level.CHANNEL,), Area.SETTINGS, *YES_NO),
        choice("channels", ON_SERVER, Area.SETTINGS, "all", "allowed"),
        numeric("retention_days", ON_SERVER, Area.SETTINGS, 1, DAYS_LIMIT),
        Setting("gallery", ON_SERVER, Area.GALLERY, Form.CHANNEL, snowflake),
        numeric("gallery_stars", ON_SERVER, Area.GALLERY, 0, STARS_LIMIT),
        Setting("blocked_words", ON_SERVER, Area.SAFETY, Form.LINES, rules),
        choice("word_policy", ON_SERVER, Area.SAFETY, "refuse", "remove"),
        Setting("blocked_concepts", ON_SERVER, Area.SAFETY, Form.LINES, concepts),
        choice("concept_policy", ON_SERVER, Area.SAFETY, "spoiler", "withhold"),
        choice("strictness", ON_SERVER, Area.SAFETY, *STRICTNESS),
        choice("adult_channels", ON_SERVER, Area.SAFETY, "free", "same"),
        numeric("min_days", ON_SERVER, Area.SAFETY, 0, DAYS_LIMIT, whole=False),
        Setting("reports", ON_SERVER, Area.SAFETY, Form.CHANNEL, snowflake),
        *(
            Setting(f"may_{area}", ON_SERVER, Area.OWNER, Form.ROLES, snowflakes)
            for area in (Area.SETTINGS, Area.GALLERY, Area.SAFETY, Area.MODERATION)
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a request is that says nothing else. None leaves it to the model."""

    count: int = 4
    steps: int | None = None
    guidance: float | None = None
    spoiler: bool = False
    model: str = ""
    preset: Preset = Preset.BALANCED

    def with_options(self, **asked: Any) -> "Defaults":
        """Return them with what was asked for, the preset by its name; None is not."""
        given = {name: value for name, value in asked.items() if value is not None}
        return replace(self, **given | {"preset": Preset(given.get("preset", self.preset))})

    @classmethod
    def written(cls, content: Mapping[str, Any]) -> "Defaults":
        """Return those that a draft holds; what it does not name, as those of earlier versions, is as it usually is."""
        return cls().with_options(**{option.name: content.get(option.name) for option in fields(cls)})

    def request(
        self, prompt: str, seed: int | None = None, kind: Kind = Kind.DREAM, image: bytes | None = None, mask: bytes | None = None, **more: Any
    ) -> Request:
        """Return the request that asks for something in this way, with a random seed where none is given; `more` are further fields of it.

        Raises:
            InvalidRequest: see `Request`.
        """
        seed = secrets.randbelow(SEED_LIMIT) if seed is None else seed
        own = {"count": self.count, "steps": self.steps, "guidance": self.guidance, "model": self.model, "preset": self.preset}
        return Request(prompt, seed, kind=kind, image=image, mask=mask, **own | more)


@dataclass(frozen=True, slots=True)
class Change:
    """What a limit changed of a request: its option, what was asked, what is done instead."""

    option: str
    asked: int
    most: int


class Preferences:
    """All choices of everybody."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._values: dict[tuple[Level, int, str], Any] = {}
        self._filters: dict[int, Filter] = {}

    async def load(self) -> None:
        """Read all choices; what this version does not know is left alone."""
        for row in await self._database.rows("SELECT * FROM preference"):
            if row["name"] in SETTINGS and row["scope"] in set(Level):
                self._values[Level(row["scope"]), row["subject"], row["name"]] = json.loads(row["value"])

    def get(self, level: Level, subject: int, name: str) -> Any:
        """Return what was chosen at one level, None where nothing was."""
        return self._values.get((level, subject, name))

    async def choose(self, level: Level, subject: int, name: str, written: Any) -> Any:
        """Remember a choice, and return its value; an empty one, or None, forgets the choice.

        Raises:
            InvalidRequest: it cannot be chosen.
        """
        setting = SETTINGS[name]
        if level not in setting.levels:
            raise InvalidRequest("setting", "be chosen at another level")
        empty = written is None or written == [] or (isinstance(written, str) and not written.strip())
        value = None if empty else setting.parse(written)
        if value is None or value == []:
            value = None
            await self._database.change("DELETE FROM preference WHERE scope = ? AND subject = ? AND name = ?", level, subject, name)
            self._values.pop((level, subject, name), None)
        else:
            await self._database.change(
                "INSERT INTO preference VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", level, subject, name, json.dumps(value)
            )
            self._values[level, subject, name] = value
        self._filters.pop(subject, None)
        return value

    def forget_user(self, user_id: int) -> None:
        """Forget in memory what a person chose; the database is up to who erases there."""
        for key in [key for key in self._values if key[:2] == (Level.USER, user_id)]:
            del self._values[key]

    def nearest(self, name: str, user_id: int | None, channel_ids: tuple[int, ...], guild_id: int | None) -> Any:
        """Return the choice that counts: the person's, else the channel's (a thread's before that of the channel above it), else the server's."""
        asked = [(Level.USER, user_id), *((Level.CHANNEL, channel_id) for channel_id in channel_ids), (Level.SERVER, guild_id)]
        values = (self._values.get((level, subject, name)) for level, subject in asked if subject is not None)
        return next((value for value in values if value is not None), None)

    def server(self, guild_id: int | None, name: str) -> Any:
        """Return a server's choice."""
        return None if guild_id is None else self.get(Level.SERVER, guild_id, name)

    def defaults(self, user_id: int, channel_ids: tuple[int, ...], guild_id: int | None) -> Defaults:
        """Return what a request is that says nothing else."""

        def chosen(name: str) -> Any:
            return self.nearest(name, user_id, channel_ids, guild_id)

        preset = Preset(chosen("preset") or Preset.BALANCED)
        return Defaults(chosen("count") or 4, chosen("steps"), chosen("guidance"), chosen("spoiler") == "yes", chosen("model") or "", preset)

    def language(self, user_id: int, channel_ids: tuple[int, ...], guild_id: int | None) -> str | None:
        """Return one of Discord's locales, None where everybody reads their own."""
        found = self.nearest("language", user_id, channel_ids, guild_id)
        return str(found) if found is not None else None

    def may_paint(self, channel_ids: tuple[int, ...], guild_id: int | None) -> bool:
        """Tell whether a place is one to paint in."""
        said = self.nearest("painting", None, channel_ids, None)
        return bool(said == "yes" if self.server(guild_id, "channels") == "allowed" else said != "no")

    def limit(self, request: Request, channel_ids: tuple[int, ...], guild_id: int | None, usual_steps: int) -> list[Change]:
        """Return what a channel's or server's limits change of a request; `usual_steps` are those of the model where it names none."""
        changes = []
        # What has frames, or is a wheel, is nothing with fewer of them.
        counted = [("count", request.count)] if request.kind.counts == (1, COUNT_LIMIT) else []
        for option, asked in (*counted, ("steps", request.base_steps or usual_steps)):
            limits = [self.get(Level.CHANNEL, channel_id, f"max_{option}") for channel_id in channel_ids] + [self.server(guild_id, f"max_{option}")]
            most = min((limit for limit in limits if limit is not None), default=None)
            if most is not None and asked > most:
                changes.append(Change(option, asked, most))
        return changes

    def filter(self, guild_id: int | None) -> Filter:
        """Return the blocked words of a server."""
        if guild_id is None:
            return NOTHING
        if guild_id not in self._filters:
            self._filters[guild_id] = Filter(self.server(guild_id, "blocked_words") or ())
        return self._filters[guild_id]

    def roles(self, guild_id: int, area: Area) -> frozenset[int]:
        """Return the roles whose members may change an area of a server."""
        return frozenset(self.server(guild_id, f"may_{area}") or ())

    def servers_with(self, name: str) -> Mapping[int, Any]:
        """Return the servers that chose something, and what."""
        return {subject: value for (level, subject, known), value in self._values.items() if level is Level.SERVER and known == name}


NOTHING = Filter(())
