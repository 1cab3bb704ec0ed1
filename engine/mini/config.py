"""Which files make a DALL·E Mini: JSON with `"kind": "dalle-mini"`, read as strictly as the configs of DALL-E 2."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from engine.files import File
from engine.unclip.config import Strict, read_as

KIND = "dalle-mini"


class Usual(Strict):
    """What a picture is painted with where nothing else is asked: min-dalle's own values."""

    temperature: Annotated[float, Field(gt=0, le=100)] = 1.0
    top_k: Annotated[int, Field(ge=1)] = 256
    guidance: Annotated[float, Field(ge=0, le=100)] = 16.0


class MiniConfig(Strict):
    """A model of min-dalle's: its files and its size, which must be that of the files; the number of heads is in no file.

    `memory` is whether networks stay between two requests, or are let go after each and read again.
    """

    kind: Literal["dalle-mini"]
    layers: Annotated[int, Field(ge=1, le=256)]
    width: Annotated[int, Field(ge=8, le=65536)]
    heads: Annotated[int, Field(ge=1, le=256)]
    vocabulary: File
    merges: File
    encoder: File
    decoder: File
    detokenizer: File
    usual: Usual = Usual()
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    memory: Literal["auto", "resident", "release"] = "auto"
    devices: list[str] | str = "cuda:0"

    @model_validator(mode="after")
    def check_heads(self) -> "MiniConfig":
        if self.width % self.heads:
            raise ValueError(f"heads must divide width; {self.width} / {self.heads} is no whole number")
        return self

    @property
    def files(self) -> list[File]:
        """Every file that is named."""
        return [self.vocabulary, self.merges, self.encoder, self.decoder, self.detokenizer]


def is_mini(content: Any) -> bool:
    """Tell whether the JSON of a model config is that of a DALL·E Mini."""
    return isinstance(content, dict) and content.get("kind") == KIND


def read_mini_config(path: Path) -> MiniConfig:
    """Read and check a model config.

    Raises:
        Misconfigured: the file cannot be read, is no JSON or says something else than expected.
    """
    return read_as(MiniConfig, path)
