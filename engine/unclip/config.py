"""Which files make a model: the JSON of dalle2-laion, read strictly.

Source of the format: LAION-AI/dalle2-laion, `dalle2_laion/config.py`. Two things are new here and optional: `vocabulary`, a file with the
words that a small model knows, one per line, and the model name `local-dir:FOLDER` of open_clip, relative to the config.
"""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from engine.errors import Misconfigured

LOCAL_CLIP = "local-dir:"


class Strict(BaseModel):
    """Refuse unknown keys: a misspelt key would otherwise be a default."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class File(Strict):
    """Where a file is; local paths are relative to the config."""

    load_type: Literal["local"]
    path: str


class UnetSource(Strict):
    """One checkpoint and which unets of the cascade, counted from 1, it holds."""

    unet_numbers: list[int] = Field(min_length=1)
    default_sample_timesteps: list[int] | None = None
    default_cond_scale: list[float] | None = None
    load_model_from: File
    load_config_from: File

    @model_validator(mode="after")
    def check_lengths(self) -> "UnetSource":
        for key in ("default_sample_timesteps", "default_cond_scale"):
            values = getattr(self, key)
            if values is not None and len(values) != len(self.unet_numbers):
                raise ValueError(f"{key} must hold one value per unet: {len(self.unet_numbers)}, not {len(values)}")
        return self


class DecoderSources(Strict):
    """The cascade."""

    unet_sources: list[UnetSource] = Field(min_length=1)

    @model_validator(mode="after")
    def check_numbers(self) -> "DecoderSources":
        numbers = sorted(number for source in self.unet_sources for number in source.unet_numbers)
        if numbers != list(range(1, len(numbers) + 1)):
            raise ValueError(f"unet_numbers of all sources together must cover 1 to n once; they are {numbers}")
        return self


class PriorSource(Strict):
    """The diffusion prior."""

    default_sample_timesteps: int | None = None
    default_cond_scale: float | None = None
    load_model_from: File
    load_config_from: File


class ClipSource(Strict):
    """Which CLIP the model was trained on."""

    make: Literal["open_clip"]
    model: str

    @model_validator(mode="after")
    def check_local(self) -> "ClipSource":
        if not self.model.startswith(LOCAL_CLIP):
            raise ValueError(f"model must start with '{LOCAL_CLIP}' and name a folder with open_clip_config.json, not '{self.model}'")
        return self


class ModelConfig(Strict):
    """A whole model. `devices` and `load_on_cpu` are read for the format's sake; the bot's own settings choose the device."""

    decoder: DecoderSources
    prior: PriorSource
    clip: ClipSource
    vocabulary: File | None = None
    devices: list[str] | str = "cuda:0"
    load_on_cpu: bool = True
    strict_loading: bool = True


def read_model_config(path: Path) -> ModelConfig:
    """Read and check a model config.

    Raises:
        Misconfigured: the file cannot be read, is no JSON or says something else than expected.
    """
    try:
        return ModelConfig.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise Misconfigured(f"Model config {path}: {key or 'the file'}: {explain(dict(first))}. Mend that key and start again.") from None


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
