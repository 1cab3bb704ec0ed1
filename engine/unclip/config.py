"""Which files make a model: the JSON of dalle2-laion, read strictly.

Source of the format: LAION-AI/dalle2-laion, `dalle2_laion/config.py`. Four things are new here and optional: `vocabulary`, a file with the words
that a small model knows, one per line; `default_solver`, beside the default steps; `default_drafts`, how many drafts of a picture CLIP chooses
from; and the model name `local-dir:FOLDER` of open_clip, relative to the config.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from engine.errors import Misconfigured
from engine.files import File
from engine.jobs import CANDIDATES_LIMIT
from engine.options import DRAFTS_LIMIT, Solver

LOCAL_CLIP = "local-dir:"
"""Before a name of open_clip's: a folder in its format."""
Steps = Annotated[int, Field(ge=1, le=10_000)]
"""Of a stage; as many as it was trained with are DDPM where no solver is named."""
Guidance = Annotated[float, Field(ge=0, le=100)]


C = TypeVar("C", bound="Strict")


class Strict(BaseModel):
    """Refuse unknown keys: a misspelt key would otherwise be a default."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class UnetSource(Strict):
    """One checkpoint and which unets of the cascade, counted from 1, it holds; its train config is needed where the file carries none."""

    unet_numbers: list[int] = Field(min_length=1)
    default_sample_timesteps: list[Steps] | None = None
    default_cond_scale: list[Guidance] | None = None
    default_solver: list[Solver] | None = None
    load_model_from: File
    load_config_from: File | None = None

    @model_validator(mode="after")
    def check_lengths(self) -> "UnetSource":
        for key in ("default_sample_timesteps", "default_cond_scale", "default_solver"):
            values = getattr(self, key)
            if values is not None and len(values) != len(self.unet_numbers):
                raise ValueError(f"{key} must hold one value per unet: {len(self.unet_numbers)}, not {len(values)}")
        return self


class DecoderSources(Strict):
    """The cascade. `final_unet_number` is how many unets there are; dalle2-laion counts them itself."""

    unet_sources: list[UnetSource] = Field(min_length=1)
    final_unet_number: int | None = None
    default_drafts: Annotated[int, Field(ge=1, le=DRAFTS_LIMIT)] = 1

    @model_validator(mode="after")
    def check_numbers(self) -> "DecoderSources":
        numbers = sorted(number for source in self.unet_sources for number in source.unet_numbers)
        if numbers != list(range(1, len(numbers) + 1)):
            raise ValueError(f"unet_numbers of all sources together must cover 1 to n once; they are {numbers}")
        return self


class PriorSource(Strict):
    """The diffusion prior; its train config is needed where the file carries none."""

    default_sample_timesteps: Annotated[Steps, Field(ge=2)] | None = None
    default_cond_scale: Guidance | None = None
    default_solver: Solver | None = None
    default_candidates: Annotated[int, Field(ge=1, le=CANDIDATES_LIMIT)] = 1
    load_model_from: File
    load_config_from: File | None = None


class ClipSource(Strict):
    """Which CLIP the model was trained on."""

    make: Literal["openai", "open_clip", "x-clip", "coca"]
    model: str
    base_model_kwargs: dict[str, Any] | None = None


class ModelConfig(Strict):
    """A whole model, or the part of one that an operation needs: without a prior there are no dreams, without a decoder only embeddings, and a CLIP
    alone looks at pictures to train on.

    `load_on_cpu` is read for the format's sake: weights go where they are used. `cuda_graphs` has a GPU record and play back the work of unets.
    """

    decoder: DecoderSources | None = None
    prior: PriorSource | None = None
    clip: ClipSource | None = None
    vocabulary: File | None = None
    devices: list[str] | str = "cuda:0"
    load_on_cpu: bool = True
    strict_loading: bool = True
    cuda_graphs: bool = False

    @model_validator(mode="after")
    def check_parts(self) -> "ModelConfig":
        if self.decoder is None and self.prior is None and self.clip is None:
            raise ValueError("a model needs a decoder, a prior or a clip")
        if self.prior is not None and self.clip is None:
            raise ValueError("a prior needs the clip that it was trained on")
        return self

    @property
    def sources(self) -> list[PriorSource | UnetSource]:
        """Every checkpoint that is named."""
        return [*(self.decoder.unet_sources if self.decoder else ()), *([self.prior] if self.prior else ())]

    @property
    def files(self) -> list[File]:
        """Every file that is named, or lies in a folder that is; a published CLIP is none of them."""
        named = [file for source in self.sources for file in (source.load_model_from, source.load_config_from)]
        clip = []
        if self.clip is not None and self.clip.make == "open_clip" and self.clip.model.startswith(LOCAL_CLIP):
            folder = self.clip.model.removeprefix(LOCAL_CLIP)
            clip = [File(load_type="local", path=f"{folder}/{name}") for name in ("open_clip_config.json", "open_clip_model.safetensors")]
        return [file for file in (*named, self.vocabulary, *clip) if file is not None]


def read_model_config(path: Path) -> ModelConfig:
    """Read and check a model config.

    Raises:
        Misconfigured: the file cannot be read, is no JSON or says something else than expected.
    """
    return read_as(ModelConfig, path)


def read_as(form: type[C], path: Path) -> C:
    """Read and check a model config of a form.

    Raises:
        Misconfigured: the file cannot be read, is no JSON or says something else than expected.
    """
    try:
        return form.model_validate(read_json(path))
    except ValidationError as error:
        raise Misconfigured(f"Model config {path}: {first_mistake(error)}. Mend that key and start again.") from None


def first_mistake(error: ValidationError) -> str:
    """Name the key of the first of pydantic's findings and what is wrong with it."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    return f"{key or 'the file'}: {explain(dict(first))}"


def explain(error: dict[str, Any]) -> str:
    """Say one of pydantic's findings in plain words."""
    match error["type"]:
        case "extra_forbidden":
            return "this key is not known here"
        case "missing":
            return "this key is missing"
        case _:
            return f"{error['msg'].removeprefix('Value error, ')} (got {error['input']!r:.60})"


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        Misconfigured: it is missing, unreadable or no JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise Misconfigured(f"{path} is missing. Check the path, or restore the file from the repository.") from None
    except OSError as error:
        raise Misconfigured(f"{path} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise Misconfigured(f"{path} is not valid JSON: {error}.") from None
