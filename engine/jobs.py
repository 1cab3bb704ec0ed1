"""What crosses the border between Discord, the queue and the painters: plain values, and the one protocol of a painter.

Nothing here knows discord.py or torch. Requests are frozen: asking again gives the same pictures.
"""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Protocol

from engine.errors import EngineError, InvalidRequest
from engine.verdicts import Verdict

PROMPT_LIMIT = 1000
"""Characters of a prompt. CLIP reads its first few dozen tokens; Discord would allow 6,000 characters."""
USUAL_COUNT = 4
COUNT_LIMIT = 9
"""Pictures of a request: the largest grid is 3 × 3."""
SEED_LIMIT = 2**32
"""Seeds are 0 … SEED_LIMIT - 1; the seeds of a grid count on from the first one and wrap around."""
STEPS_LIMIT = 250
"""Denoising steps of the base decoder."""
UPLOAD_LIMIT = 10 * 1024 * 1024
"""Bytes of a file that Discord takes everywhere, whatever boosts a server has."""
GUIDANCE_LIMIT = 20.0
"""Classifier-free guidance of the base decoder; 1 means off."""
CANDIDATES_LIMIT = 32
"""Draws of the prior that CLIP chooses between."""
PRIOR_STEPS_LIMIT = 1000
INGREDIENTS_LIMIT = 5
"""Pictures and prompts that are blended."""
WEIGHT_LIMIT = 100.0
"""Of an ingredient beside others."""
LEAST_FRAMES, USUAL_FRAMES, FRAMES_LIMIT = 2, 9, 32
"""Of a morph."""
WHEEL = 9
"""Pictures of a wheel: one in the middle, and those around it."""
USUAL_DRAWS = 8
SOURCES_LIMIT = 5
"""Files that a picture was made from."""
LEAST_STEPS = 2
"""Of the prior: the last of its times is the one that it ends at."""
UNETS_LIMIT = 8
"""Values of a list with one for each unet; DALL-E 2 has three."""


def words_of(text: str) -> list[str]:
    """Return the words of a text as vocabularies hold them: letters only, small."""
    return re.findall(r"[^\W\d_]+", text.lower())


def check_prompt(prompt: str) -> None:
    """Make sure that a prompt can be read, stored and shown.

    Raises:
        InvalidRequest: it is empty, too long, or holds half of a character.
    """
    if not prompt.strip():
        raise InvalidRequest("prompt", "hold at least one word")
    check_characters("prompt", prompt)
    if len(prompt) > PROMPT_LIMIT:
        raise InvalidRequest("prompt", "be at most {most} characters long; this one has {have}", most=PROMPT_LIMIT, have=len(prompt))


def check_characters(name: str, text: str) -> None:
    """Make sure that a text holds whole characters only: JSON may carry half of a surrogate pair; no database, font or tokenizer takes it.

    Raises:
        InvalidRequest: it holds half of one.
    """
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidRequest(name, "hold whole characters only; this one holds half of one")


def check_range(name: str, value: float, least: float, most: float) -> None:
    """Make sure that a value is in its range.

    Raises:
        InvalidRequest: it is not, or it is no number.
    """
    if not least <= value <= most:
        raise InvalidRequest(name, "be {least:g} to {most:.10g}, not {value:.10g}", least=least, most=most, value=value)


def check_each(name: str, values: float | tuple[float | None, ...] | None, least: float, most: float) -> None:
    """Make sure that what is given once, or once for each unet, is in its range.

    Raises:
        InvalidRequest: it is not, or there are no values in a list, or too many.
    """
    listed = values if isinstance(values, tuple) else (values,)
    if not 1 <= len(listed) <= UNETS_LIMIT:
        raise InvalidRequest(name, "be one value for each unet, {most} at most", most=UNETS_LIMIT)
    for value in listed:
        if value is not None:
            check_range(name, value, least, most)


def check_weight(weight: float) -> None:
    """Make sure that an ingredient counts for something, and not for all.

    Raises:
        InvalidRequest: it does not.
    """
    if not 0 < weight <= WEIGHT_LIMIT:
        raise InvalidRequest("weights", "be above 0 and at most {most:g}, not {value:g}", most=WEIGHT_LIMIT, value=weight)


class Preset(StrEnum):
    """How much work a picture is worth. These names are in the database and in messages: they stay."""

    FAST = "fast"
    BALANCED = "balanced"
    BEST = "best"


class Kind(StrEnum):
    """What is to be done."""

    DREAM = "dream"
    VARIATION = "variation"
    INPAINT = "inpaint"
    UPSCALE = "upscale"
    EMBED = "embed"
    BLEND = "blend"
    MORPH = "morph"
    EDIT = "edit"
    EXPLORE = "explore"
    DRAWS = "draws"
    VERIFY = "verify"

    @property
    def needs_picture(self) -> bool:
        """Whether it begins with a picture that somebody hands in."""
        return self in (Kind.VARIATION, Kind.INPAINT, Kind.UPSCALE, Kind.EDIT, Kind.EXPLORE, Kind.VERIFY)

    @property
    def needs_words(self) -> bool:
        """Whether there is nothing to do without a prompt."""
        return self in (Kind.DREAM, Kind.INPAINT, Kind.EMBED, Kind.EDIT, Kind.DRAWS)

    @property
    def is_mixed(self) -> bool:
        """Whether it is made of several pictures and prompts."""
        return self in (Kind.BLEND, Kind.MORPH)

    @property
    def counts(self) -> tuple[int, int]:
        """How many pictures it may be asked for, at least and at most; of draws, how many draws."""
        match self:
            case Kind.EMBED | Kind.VERIFY:
                return 1, 1
            case Kind.MORPH:
                return LEAST_FRAMES, FRAMES_LIMIT
            case Kind.EXPLORE:
                return WHEEL, WHEEL
            case Kind.DRAWS:
                return 1, CANDIDATES_LIMIT
            case _:
                return 1, COUNT_LIMIT


@dataclass(frozen=True, slots=True)
class Ingredient:
    """A picture or a prompt that something is made of, and how much it counts beside the others.

    Raises:
        InvalidRequest: it is neither or both, or the weight is out of range.
    """

    picture: bytes | None = field(default=None, repr=False)
    prompt: str = ""
    weight: float = 1.0

    def __post_init__(self) -> None:
        if (self.picture is None) == (not self.prompt):
            raise InvalidRequest("ingredients", "be a picture or a prompt each")
        if self.prompt:
            check_prompt(self.prompt)
        check_weight(self.weight)

    @property
    def value(self) -> bytes | str:
        """The picture or the prompt."""
        return self.prompt if self.picture is None else self.picture


JOINED_BY = {Kind.BLEND: " + ", Kind.MORPH: " → "}
"""What stands between the prompts of which something is made, where they are shown as one."""


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked, complete. `steps` and `guidance` are those of the base decoder, or one value, or None, for each unet; None leaves them to
    preset and model.

    A variation varies `image`, upscaling enlarges it, and neither needs a prompt; inpainting repaints what is white in `mask`, a PNG of the picture's
    size. Both are files of any usual format, see `engine.uploads`. `model` is the name of a model; empty stands for the usual one. `seamless` lets
    each picture go on in its neighbours in the grid. The prior draws `candidates` of which CLIP keeps the best, with steps and guidance of its own,
    and with the seed of each picture or `prior_seed` for all; embedding is its work alone, and comes to one pair of embeddings and no picture, and
    draws are so many seeds of its, with how near each comes to the prompt.

    A blend and a morph are made of `ingredients`, and their prompt is what joins those of these; a morph has `count` frames. An edit changes what
    `before` says of `image` into what the prompt says, by `strength`; that of a variation, None for 1, is how far from the picture it may go, and its
    `drift` turns the meaning aside. What lies `step` away from `image` is explored. To verify `image` is to paint it again from its receipt, for
    which `ingredients` are the files that it was made from.

    Raises:
        InvalidRequest: a value is outside its range (the limits above), or a picture or an ingredient is missing.
    """

    prompt: str
    seed: int
    count: int = USUAL_COUNT
    steps: int | tuple[int | None, ...] | None = None
    guidance: float | tuple[float | None, ...] | None = None
    kind: Kind = Kind.DREAM
    image: bytes | None = field(default=None, repr=False)
    mask: bytes | None = field(default=None, repr=False)
    model: str = ""
    preset: Preset = Preset.BALANCED
    seamless: bool = False
    candidates: int | None = None
    prior_steps: int | None = None
    prior_guidance: float | None = None
    prior_seed: int | None = None
    before: str = ""
    strength: float | None = None
    drift: float = 0.0
    step: float | None = None
    ingredients: tuple[Ingredient, ...] = ()

    def __post_init__(self) -> None:
        if self.kind.is_mixed:
            # One text to show, to search for and to look through, whoever changes an ingredient.
            object.__setattr__(self, "prompt", JOINED_BY[self.kind].join(one.prompt for one in self.ingredients if one.prompt))
        elif self.prompt or self.kind.needs_words:
            check_prompt(self.prompt)
        if self.kind is Kind.EDIT:
            check_prompt(self.before)
        self._check_ingredients()
        if self.kind.needs_picture and not self.image:
            raise InvalidRequest("picture", "be given")
        if self.kind is Kind.INPAINT and not self.mask:
            raise InvalidRequest("mask", "be given")
        check_range("count", self.count, *self.kind.counts)
        check_range("seed", self.seed, 0, SEED_LIMIT - 1)
        check_each("steps", self.steps, 1, STEPS_LIMIT)
        check_each("guidance", self.guidance, 0, GUIDANCE_LIMIT)
        if self.candidates is not None:
            check_range("candidates", self.candidates, 1, CANDIDATES_LIMIT)
        if self.prior_steps is not None:
            check_range("prior_steps", self.prior_steps, LEAST_STEPS, PRIOR_STEPS_LIMIT)
        if self.prior_guidance is not None:
            check_range("prior_guidance", self.prior_guidance, 0, GUIDANCE_LIMIT)
        if self.prior_seed is not None:
            check_range("prior_seed", self.prior_seed, 0, SEED_LIMIT - 1)
        check_range("strength", 0 if self.strength is None else self.strength, 0, 1)
        check_range("drift", self.drift, 0, 1)
        check_range("step", 0 if self.step is None else self.step, 0, 1)

    def _check_ingredients(self) -> None:
        if self.kind is Kind.MORPH and len(self.ingredients) != 2:
            raise InvalidRequest("ingredients", "be two, where it begins and where it ends")
        if self.kind is Kind.BLEND and not 2 <= len(self.ingredients) <= INGREDIENTS_LIMIT:
            raise InvalidRequest("ingredients", "be two to {most} pictures or prompts", most=INGREDIENTS_LIMIT)
        if self.kind is Kind.VERIFY and (len(self.ingredients) > SOURCES_LIMIT or any(one.prompt for one in self.ingredients)):
            raise InvalidRequest("sources", "be at most {most} pictures", most=SOURCES_LIMIT)

    @property
    def base_steps(self) -> int | None:
        """The steps that are asked of the base decoder."""
        return self.steps[0] if isinstance(self.steps, tuple) else self.steps

    @property
    def base_guidance(self) -> float | None:
        """The guidance that is asked of the base decoder."""
        return self.guidance[0] if isinstance(self.guidance, tuple) else self.guidance

    @property
    def seeds(self) -> tuple[int, ...]:
        """One seed per picture: asking for seed + 2 and one picture paints the third picture again. Morphs and wheels have one for all."""
        has_one = self.kind in (Kind.MORPH, Kind.EXPLORE)
        return tuple((self.seed + index * (not has_one)) % SEED_LIMIT for index in range(self.count))

    @property
    def files(self) -> tuple[bytes, ...]:
        """All pictures that were handed in."""
        return tuple(file for file in (self.image, self.mask, *(one.picture for one in self.ingredients)) if file is not None)

    @property
    def texts(self) -> tuple[str, ...]:
        """Everything that somebody wrote, piece by piece."""
        own = () if self.kind.is_mixed else (self.prompt,)
        return tuple(text for text in (*own, self.before, *(one.prompt for one in self.ingredients)) if text)

    def turned_into(self, kind: Kind, **changes: Any) -> "Request":
        """Return a request for another kind of work in the same way: as many pictures, where both kinds may be asked for so many."""
        count = self.count if self.kind.counts == kind.counts else USUAL_COUNT
        bare = {"image": None, "mask": None, "prior_seed": None, "before": "", "strength": None, "drift": 0.0, "step": None, "ingredients": ()}
        changed: dict[str, Any] = {"kind": kind, "count": count} | bare | changes
        return replace(self, **changed)

    def worded(self, change: Callable[[str], str]) -> "Request":
        """Return it with every text changed.

        Raises:
            InvalidRequest: nothing is left of one that there must be.
        """
        ingredients = tuple(replace(one, prompt=change(one.prompt)) if one.prompt else one for one in self.ingredients)
        return replace(self, prompt=change(self.prompt), before=change(self.before), ingredients=ingredients)


@dataclass(frozen=True, slots=True)
class Prediction:
    """What is to be known of a request that came over HTTP: the name that its person asks for it by, and its words as they came, as JSON.

    `webhook` is an address that is told of `events`.
    """

    name: str
    words: str
    webhook: str | None = None
    events: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Origin:
    """Who asked, and where the answer goes. Ids are Discord's snowflakes; times are Unix seconds.

    A request with a `prediction` came over HTTP: it is answered there, and nothing of it goes to Discord. Its person has a negative id, which is no
    snowflake, and there is no channel, 0.

    The token belongs to the interaction and is good for 15 minutes; a job outlives it. `event_id` is the interaction or message that asked, which
    Discord may tell of twice. `is_foreign` is a place that the bot itself is not in. `asked_in` is a message that the result is to point to.
    `is_adult` is an age-restricted channel. `notes` are told on the card: what a limit changed, in the person's language.
    """

    user_id: int
    channel_id: int
    guild_id: int | None = None
    token: str | None = None
    token_expires_at: float = 0.0
    spoiler: bool = False
    event_id: int | None = None
    locale: str = "en-US"
    file_limit: int = UPLOAD_LIMIT
    is_foreign: bool = False
    asked_in: int | None = None
    is_adult: bool = False
    notes: tuple[str, ...] = ()
    prediction: Prediction | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is: `done` of `total` denoising steps over all stages.

    `preview` paints what can be seen so far as PNG; it costs time, is called on the engine thread only, and not at every step.
    """

    stage: str
    done: int
    total: int
    preview: Callable[[], bytes] | None = None


@dataclass(frozen=True, slots=True)
class Picture:
    """One finished picture: PNG bytes with its receipt in text chunks, and the seed that paints it again.

    `embedding` is what CLIP sees in it, (D,) float16 of unit length, little-endian; None where no CLIP looked at it.
    """

    png: bytes
    seed: int
    width: int
    height: int
    embedding: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Embedding:
    """A prompt in CLIP's space, and where the prior expects its picture: (D,) float32 of unit length each, little-endian."""

    text: bytes
    image: bytes


@dataclass(frozen=True, slots=True)
class Drawn:
    """An embedding that the prior draws with a seed, and how near it comes to the prompt: the cosine between the two."""

    seed: int
    score: float


@dataclass(frozen=True, slots=True)
class Painting:
    """All pictures of a job. `steps` and `guidance` are those used; `unknown_words` are those of the prompt that the model never saw.

    `space` names the CLIP that embedded the pictures: embeddings of one space can be compared. What was only embedded or drawn has no pictures;
    `draws` come the nearest first, and of what was verified there is a `verdict` beside the picture that was painted again.
    """

    pictures: tuple[Picture, ...]
    model: str
    steps: int
    guidance: float
    seconds: float
    unknown_words: tuple[str, ...] = ()
    space: str = ""
    embedding: Embedding | None = field(default=None, repr=False)
    draws: tuple[Drawn, ...] = ()
    verdict: Verdict | None = None

    def only(self, position: int) -> "Painting | None":
        """Return it with one of its pictures alone, None where there is no such one."""
        return replace(self, pictures=(self.pictures[position],)) if 0 <= position < len(self.pictures) else None


Report = Callable[[Progress], None]
"""Told after every denoising step; raising stops the work between two steps."""


class Ticket(Protocol):
    """A request that is under way, and then what it came to; `busy_s` is what it took of the device's time."""

    result: Painting | None
    error: Exception | None
    busy_s: float


class Company(Protocol):
    """Requests that are painted beside each other, by one thread."""

    @property
    def has_room(self) -> bool:
        """Whether one more request would be well served here, rather than by waiting."""
        ...

    def join(self, request: Request, report: Report) -> Ticket:
        """Begin with a request.

        Raises:
            EngineError: it cannot be painted.
        """
        ...

    def step(self) -> Sequence[Ticket]:
        """Paint for a moment; return what is done, well or not."""
        ...

    def drop(self, ticket: Any) -> None:
        """Stop painting a request of this company, between two steps."""
        ...


class Painter(Protocol):
    """Turns requests into pictures, on the engine thread. Loaded once; knows nothing of who asks."""

    @property
    def model(self) -> str:
        """Name shown to people."""
        ...

    @property
    def known_words(self) -> tuple[str, ...]:
        """Every word that the model was trained on, where that is a short list; else empty."""
        ...

    @property
    def kinds(self) -> frozenset[Kind]:
        """What the model can do."""
        ...

    @property
    def can_be_seamless(self) -> bool:
        """Whether pictures may go on in their neighbours."""
        ...

    def usual_steps(self, preset: Preset) -> int:
        """Return the steps of the base decoder where a request names none; 0 where there is no decoder."""
        ...

    @property
    def usual_guidance(self) -> tuple[float, ...]:
        """The guidance of each unet where a request names none; of a model without unets, that of its decoder."""
        ...

    @property
    def usual_prior_guidance(self) -> float | None:
        """The guidance of the prior where a request names none; None where there is no prior."""
        ...

    @property
    def space(self) -> str:
        """Name of the CLIP that sees what is in pictures; empty where there is none, and nothing can be embedded."""
        ...

    @property
    def everyday(self) -> tuple[str, ...]:
        """Texts of ordinary pictures, which others are compared with to tell what stands out."""
        ...

    def embed_texts(self, texts: Sequence[str]) -> list[bytes]:
        """Embed texts in the space of the pictures: (D,) float16 of unit length each, little-endian."""
        ...

    def embed_picture(self, picture: bytes) -> bytes:
        """Embed a file of any usual format.

        Raises:
            InvalidRequest: it cannot be read.
        """
        ...

    @property
    def cached(self) -> Mapping[str, tuple[int, int]]:
        """By the names of the caches, how often each was asked and how often it knew."""
        ...

    def company(self) -> Company:
        """Return a new company, in which requests are painted."""
        ...


class State(StrEnum):
    """The life of a job. The first three are unfinished: a restart takes them up again; what is kept is painted, but no place took it."""

    WAITING = "waiting"
    PAINTING = "painting"
    PAINTED = "painted"
    DELIVERED = "delivered"
    KEPT = "kept"
    FAILED = "failed"
    CANCELLED = "cancelled"


UNFINISHED = (State.WAITING, State.PAINTING, State.PAINTED)


@dataclass(eq=False, slots=True)
class Job:
    """A request in the queue. Lives on the event loop; only `cancelled` is read by the engine thread.

    `message_id` is the message that shows its progress, `painting` and `error` are what it came to.
    """

    id: int
    request: Request
    origin: Origin
    created_at: float
    state: State = State.WAITING
    message_id: int | None = None
    progress: Progress | None = None
    preview: bytes | None = None
    painting: Painting | None = None
    error: EngineError | None = None
    cancelled: bool = False
    _changed: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    def touch(self) -> None:
        """Wake everybody who waits for a change of this job."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def change(self) -> None:
        """Wait until anything about this job changes."""
        await self._changed.wait()
