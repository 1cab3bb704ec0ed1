"""What can be asked for, field by field, and the requests that it comes to. The limits are the engine's own."""

import secrets
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from engine.jobs import (
    CANDIDATES_LIMIT,
    COUNT_LIMIT,
    FRAMES_LIMIT,
    GUIDANCE_LIMIT,
    INGREDIENTS_LIMIT,
    LEAST_FRAMES,
    LEAST_STEPS,
    PRIOR_STEPS_LIMIT,
    PROMPT_LIMIT,
    SEED_LIMIT,
    SOURCES_LIMIT,
    STEPS_LIMIT,
    UNETS_LIMIT,
    USUAL_COUNT,
    USUAL_DRAWS,
    USUAL_FRAMES,
    WEIGHT_LIMIT,
    WHEEL,
    Kind,
    Preset,
    Request,
)
from engine.options import EDIT_STRENGTH

MODEL_LIMIT = 100
ADDRESS_LIMIT = 2000
"""Characters of the address of a webhook."""
PICTURES = ("image", "mask")
"""Fields that hold pictures."""
ENDS = ("start", "end")
"""Fields that hold a picture or a prompt."""
BEFORE = frozenset({*PICTURES, *ENDS, "region", "ingredients", "sources"})
"""Fields that have done their work once the pictures are there."""
NOT_BLANK = r"[^\s\x1c-\x1f]"
"""What Python calls blank is more than what JSON Schema does."""

Prompt = Annotated[str, Field(min_length=1, max_length=PROMPT_LIMIT, pattern=NOT_BLANK, description="What to paint")]
Count = Annotated[int, Field(ge=1, le=COUNT_LIMIT, description="How many pictures")]
Seed = Annotated[int, Field(ge=0, lt=SEED_LIMIT, description="Equal seeds give equal pictures; random where none is given")]
Steps = Annotated[int, Field(ge=1, le=STEPS_LIMIT, description="Denoising steps of the base decoder; the model's own where none are given")]
Guidance = Annotated[float, Field(ge=0, le=GUIDANCE_LIMIT, allow_inf_nan=False, description="How strictly the base decoder follows it; 1 is off")]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Weight = Annotated[float, Field(gt=0, le=WEIGHT_LIMIT, allow_inf_nan=False, description="How much it counts beside the others")]
EachSteps = Annotated[list[Steps | None], Field(min_length=1, max_length=UNETS_LIMIT, description="One for each unet, the base decoder first")]
EachGuidance = Annotated[list[Guidance | None], Field(min_length=1, max_length=UNETS_LIMIT, description="One for each unet, the base decoder first")]
Model = Annotated[str, Field(max_length=MODEL_LIMIT, description="Name of a model; empty is the usual one")]
Candidates = Annotated[int, Field(ge=1, le=CANDIDATES_LIMIT, description="Draws of the prior, of which CLIP keeps the nearest to the prompt")]
PriorSteps = Annotated[int, Field(ge=LEAST_STEPS, le=PRIOR_STEPS_LIMIT, description="Denoising steps of the prior")]
PriorGuidance = Annotated[float, Field(ge=0, le=GUIDANCE_LIMIT, allow_inf_nan=False, description="How strictly the prior follows it; 1 is off")]
Picture = Annotated[
    str,
    Field(
        min_length=1,
        description="A PNG, JPEG, WebP, GIF, BMP or TIFF file: as data: URL, as plain base64, at a public https address, or the address here of one"
        " of your own pictures, /pictures/ID/0.png. In a form, a file.",
    ),
]


class Input(BaseModel):
    """What every operation knows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Model = ""

    def values(self) -> dict[str, Any]:
        """Return the fields of the request that was asked for, but for its pictures."""
        values = self.model_dump(exclude=set(BEFORE))
        values["preset"] = Preset(values.get("preset", Preset.BALANCED))
        # A null says nothing, as what is left out.
        values["seed"] = secrets.randbelow(SEED_LIMIT) if values["seed"] is None else values["seed"]
        return values | {name: tuple(value) for name, value in values.items() if isinstance(value, list)}


class ManyInput(Input):
    """What everything knows that paints, however many pictures that are."""

    seed: Seed | None = None
    steps: Steps | EachSteps | None = None
    guidance: Guidance | EachGuidance | None = None
    preset: Literal["fast", "balanced", "best"] = Field("balanced", description="How much work a picture is worth")


class PaintInput(ManyInput):
    """What everything knows that paints as many pictures as are asked for."""

    count: Count = USUAL_COUNT


class PriorFields(BaseModel):
    """What everything knows that begins with the prior."""

    candidates: Candidates | None = None
    prior_steps: PriorSteps | None = None
    prior_guidance: PriorGuidance | None = None


class DreamInput(PriorFields, PaintInput):
    """Paint what a prompt describes."""

    prompt: Prompt
    prior_seed: Annotated[Seed, Field(description="Has the prior draw with this seed for all pictures, as /draws names them")] | None = None
    seamless: bool = Field(False, description="Let each picture go on in its neighbours; for DALL·E Mini")


class VariationInput(PaintInput):
    """Paint other pictures with the meaning of a given one."""

    image: Picture
    prompt: Annotated[str, Field(max_length=PROMPT_LIMIT, description="Words for models that read text beside the picture")] = ""
    strength: (
        Annotated[Share, Field(description="How far from the picture: 0 is nearly itself, 1 nothing but its meaning, as where it is null")] | None
    ) = None
    drift: Annotated[Share, Field(description="How far to turn its meaning aside, each picture another way; 1 is a right angle")] = 0.0


class InpaintInput(PriorFields, PaintInput):
    """Repaint what is white or transparent in the mask, or transparent in the picture itself; the rest keeps every pixel."""

    image: Picture
    mask: Picture | None = None
    region: Literal["left", "right", "top", "bottom", "centre", "background"] | None = Field(
        None, description="What to repaint, where there is no mask; background is all that has the colour of the picture's border"
    )
    prompt: Prompt


class UpscaleInput(Input):
    """Enlarge a picture with the unets after the first."""

    image: Picture
    prompt: Annotated[str, Field(max_length=PROMPT_LIMIT, description="Words for models that read text beside the picture")] = ""
    count: Count = 1
    seed: Seed | None = None
    preset: Literal["fast", "balanced", "best"] = Field("balanced", description="How much work a picture is worth")


class PicturePart(BaseModel):
    """A picture that something is made of."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image: Picture
    weight: Weight = 1.0


class PromptPart(BaseModel):
    """A prompt that something is made of."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: Prompt
    weight: Weight = 1.0


Part = PicturePart | PromptPart


class BlendInput(PriorFields, PaintInput):
    """Paint what lies between pictures and prompts: their spherical mean in CLIP's space."""

    ingredients: list[Part] = Field(min_length=2, max_length=INGREDIENTS_LIMIT, description="Pictures and prompts, and how much each counts")

    def parts(self) -> dict[str, Part]:
        """Return what it is made of, by where that stands."""
        return {f"ingredients.{position}": part for position, part in enumerate(self.ingredients)}


class MorphInput(PriorFields, ManyInput):
    """Paint the way from one picture or prompt to another."""

    start: Part
    end: Part
    frames: int = Field(USUAL_FRAMES, ge=LEAST_FRAMES, le=FRAMES_LIMIT, description="How many pictures, with the first and the last")

    def parts(self) -> dict[str, Part]:
        """Return what it is made of, by where that stands."""
        return {"start": self.start, "end": self.end}

    def values(self) -> dict[str, Any]:
        """Return the fields of the request that was asked for, but for its pictures."""
        return renamed(super().values(), frames="count")


class EditInput(ManyInput):
    """Change what a picture shows, and keep the rest of it."""

    image: Picture
    before: Annotated[Prompt, Field(description="What it shows now")]
    after: Annotated[Prompt, Field(description="What it is to show instead")]
    strength: Annotated[Share, Field(description=f"How far to turn towards that; {EDIT_STRENGTH:g} where it is null")] | None = None
    count: Count = 1

    def values(self) -> dict[str, Any]:
        """Return the fields of the request that was asked for, but for its pictures."""
        return renamed(super().values(), after="prompt")


class ExploreInput(ManyInput):
    """Paint a wheel of nine: a picture in the middle, and what lies around it."""

    image: Picture
    step: Annotated[Share, Field(description="How far around: a share of a right angle")] | None = None

    def values(self) -> dict[str, Any]:
        """Return the fields of the request that was asked for, but for its pictures."""
        return super().values() | {"prompt": "", "count": WHEEL}


class DrawsInput(Input):
    """Let the prior draw several times, and see how near each draw comes to the prompt."""

    prompt: Prompt
    number: int = Field(USUAL_DRAWS, ge=1, le=CANDIDATES_LIMIT, description="How many draws")
    seed: Seed | None = None
    prior_steps: PriorSteps | None = None
    prior_guidance: PriorGuidance | None = None

    def values(self) -> dict[str, Any]:
        """Return the fields of the request that was asked for."""
        return renamed(super().values(), number="count")


class VerifyInput(Input):
    """Paint a picture again from the receipt in its file, and compare."""

    image: Picture
    sources: list[Picture] = Field([], max_length=SOURCES_LIMIT, description="What it was made from, unless you handed that in here")

    def values(self) -> dict[str, Any]:
        """Return the fields of the request that was asked for, but for its pictures."""
        return {"prompt": "", "seed": 0, "count": 1, "model": self.model}


def renamed(values: dict[str, Any], **names: str) -> dict[str, Any]:
    """Return values under other names."""
    return {names.get(name, name): value for name, value in values.items()}


def whole(value: int | str) -> int:
    """Read a number that may be written as text."""
    return int(value)


def real(value: float | str) -> float:
    """Read a number that may be written as text."""
    return float(value)


class EmbedInput(Input):
    """Embed a prompt with CLIP, and let the prior draw the picture embedding that belongs to it; conditioned-prior's contract.

    Source of names, ranges and numbers that are texts: LAION-AI/conditioned-prior, predict.py and README.md; the ranges here hold those there.
    """

    prompt: Prompt
    candidates: Annotated[Candidates | Annotated[str, Field(pattern=r"^([1-9]|[12][0-9]|3[0-2])$")], AfterValidator(whole)] = 2
    cond_scale: Annotated[PriorGuidance | Annotated[str, Field(pattern=r"^(1?[0-9](\.[0-9]{1,6})?|20(\.0{1,6})?)$")], AfterValidator(real)] = 1.0
    sample_timesteps: Annotated[PriorSteps | Annotated[str, Field(pattern=r"^([2-9]|[1-9][0-9]{1,2}|1000)$")], AfterValidator(whole)] | None = None
    overwrite: bool = Field(True, description="Taken and ignored: nothing that was embedded before is answered in the place of what is asked")
    seed: Seed | None = None

    def values(self) -> dict[str, Any]:
        """Return the fields of the request that was asked for."""
        own = super().values()
        kept = {name: own[name] for name in ("prompt", "model", "seed", "candidates", "preset")}
        return kept | {"count": 1, "prior_steps": own["sample_timesteps"], "prior_guidance": own["cond_scale"]}


INPUTS: Mapping[Kind, type[Input]] = {
    Kind.EMBED: EmbedInput,
    Kind.DREAM: DreamInput,
    Kind.VARIATION: VariationInput,
    Kind.INPAINT: InpaintInput,
    Kind.UPSCALE: UpscaleInput,
    Kind.BLEND: BlendInput,
    Kind.MORPH: MorphInput,
    Kind.EDIT: EditInput,
    Kind.EXPLORE: ExploreInput,
    Kind.DRAWS: DrawsInput,
    Kind.VERIFY: VerifyInput,
}
Event = Literal["start", "output", "logs", "completed"]
"""What a webhook may be told of, in cog's words; nothing here writes logs."""
EVENTS: tuple[Event, ...] = get_args(Event)


class Envelope(BaseModel):
    """What surrounds an input in a JSON body, as cog has it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    webhook: Annotated[str, Field(max_length=ADDRESS_LIMIT)] | None = None
    webhook_events_filter: list[Event] = Field(list(EVENTS), max_length=len(EVENTS))


def request_of(kind: Kind, asked: Input, made_of: Mapping[str, Any]) -> Request:
    """Return the request that was asked for; `made_of` are the fields of it that hold pictures.

    Raises:
        InvalidRequest: see `Request`.
    """
    return Request(kind=kind, **made_of, **{"prompt": ""} | asked.values())
