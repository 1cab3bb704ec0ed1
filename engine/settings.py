"""The operator's choices: a TOML file, every key of it required, and what is secret from the environment or `.env`."""

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from dotenv import dotenv_values
from pydantic import BaseModel, ConfigDict, Field, IPvAnyAddress, SecretStr, ValidationError

from engine.errors import Misconfigured

ROOT = Path(__file__).parents[1]
TOKEN = "DISCORD_TOKEN"
KEYS = "STUDIO_KEYS"
PERSON = r"[A-Za-z0-9_.-]{1,32}"
"""What somebody may be called who has a key."""
KEY_LENGTH = 16
"""Characters of a key at least: such a one is not guessed, however fast somebody tries."""
NAME_LIMIT = 100
"""Characters of a model's name that can be chosen: what Discord takes."""


class Settings(BaseModel):
    """Everything that an operator can set; what each key means is said in configs/bot.toml. Paths are absolute."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    data: Path = Field(strict=False)
    model: Path = Field(strict=False)
    more_models: tuple[Annotated[Path, Field(strict=False)], ...] = Field(strict=False)
    device: str = Field(pattern=r"^(auto|cpu|cuda(:\d{1,2})?)$")
    dtype: Literal["auto", "float32", "bfloat16", "float16"]
    waiting: int = Field(ge=1)
    per_user: int = Field(ge=1)
    per_server: int = Field(ge=1)
    progress_every_s: float = Field(ge=1, allow_inf_nan=False)
    page_port: int = Field(ge=0, le=65535)
    metrics_port: int = Field(ge=0, le=65535)
    studio_address: IPvAnyAddress
    studio_port: int = Field(ge=0, le=65535)
    studio_names: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]{1,253}$")], ...] = Field(strict=False)
    studio_per_minute: int = Field(ge=1)
    studio_url: str = Field(pattern=r"^(https?://([A-Za-z0-9.-]+|\[[0-9a-fA-F:.]+\])(:\d{1,5})?)?$")
    studio_channels: tuple[Annotated[int, Field(ge=1, lt=2**63)], ...] = Field(strict=False)
    webhook_hosts: tuple[Annotated[str, Field(pattern=r"^https?://([A-Za-z0-9.-]+|\[[0-9a-fA-F:.]+\])(:\d{1,5})?$")], ...] = Field(strict=False)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"]
    log_format: Literal["text", "json"]
    token: SecretStr | None = None
    keys: Mapping[str, SecretStr] = {}

    def other_models(self) -> dict[str, Path]:
        """Return the configs of the models that people may choose beside the usual one, by their names, as they are just now."""
        found: dict[str, Path] = {}
        for path in self.more_models:
            for config in [path] if path.suffix == ".json" or os.path.isfile(path) else models_in(path):
                if config.stem != self.model.stem:
                    found.setdefault(config.stem, config)
        return found


def models_in(folder: Path) -> list[Path]:
    """Return the configs of all models in a folder: FOLDER/NAME/NAME.json. Where there is no such folder, there are none."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    # A name that Discord does not take would keep all others from being shown.
    sayable = [name for name in names if not name.startswith(".") and len(name) <= NAME_LIMIT and name.isprintable()]
    configs = [folder / name / f"{name}.json" for name in sayable]
    return [config for config in configs if os.path.isfile(config)]


def load(path: Path) -> Settings:
    """Read the settings file and the secrets.

    Raises:
        Misconfigured: the file is missing or wrong; the message names the key, what it is and what was expected.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Misconfigured(f"Settings file {path} is missing. Name another one with --config, or restore it from the repository.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"Settings file {path} cannot be read: {error}.") from None
    except tomllib.TOMLDecodeError as error:
        raise Misconfigured(f"Settings file {path} is not valid TOML: {error}.") from None
    for key, name, what in (("token", TOKEN, "a token"), ("keys", KEYS, "keys")):
        if key in values:
            raise Misconfigured(f"Settings file {path} holds {what}. Files get shared: put that into the environment or .env as {name}.")
    try:
        settings = Settings.model_validate(values | {"token": read_token(), "keys": read_keys()})
    except ValidationError as error:
        # A misspelt key is also a missing one; its near miss says more.
        findings = sorted(error.errors(), key=lambda finding: finding["type"] != "extra_forbidden")
        raise Misconfigured(f"Settings file {path}: {explain(dict(findings[0]))}.") from None
    more_models = tuple(ROOT / path for path in settings.more_models)
    return settings.model_copy(update={"data": ROOT / settings.data, "model": ROOT / settings.model, "more_models": more_models})


def read_token() -> SecretStr | None:
    """Return the bot's token, where there is one.

    Raises:
        Misconfigured: there is a `.env` that cannot be read, or the token holds what none does and could not even be sent.
    """
    value = read_secret(TOKEN)
    if not all("!" <= character <= "~" for character in value):
        raise Misconfigured(f"{TOKEN} holds a space, a line break or a letter that no token has. Copy it once more from the developer portal.")
    return SecretStr(value) if value else None


def read_keys() -> dict[str, SecretStr]:
    """Return the keys of the studio by the names of their people: `ann:key bob:key`.

    Raises:
        Misconfigured: there is a `.env` that cannot be read, or the keys are not written so.
    """
    keys: dict[str, SecretStr] = {}
    for place, entry in enumerate(read_secret(KEYS).split(), start=1):
        name, colon, key = entry.partition(":")
        if not colon or not re.fullmatch(PERSON, name) or not all("!" <= character <= "~" for character in key):
            raise Misconfigured(f"{KEYS} is not understood at entry {place}. Write name:key for each person, with spaces between them.")
        if len(key) < KEY_LENGTH:
            raise Misconfigured(f"{KEYS} holds a key for {name} that is too short. Give it {KEY_LENGTH} characters, drawn at random.")
        if name in keys or any(key == other.get_secret_value() for other in keys.values()):
            raise Misconfigured(f"{KEYS} holds the name or the key of {name} twice. Give everybody a key of their own.")
        keys[name] = SecretStr(key)
    return keys


def read_secret(name: str) -> str:
    """Return what is secret, as it was written; the environment wins over `.env`, and an empty one counts as none.

    Raises:
        Misconfigured: there is a `.env` that cannot be read.
    """
    path = ROOT / ".env"
    try:
        return os.environ.get(name, "").strip() or (dotenv_values(path).get(name) or "").strip()
    except OSError as error:
        raise Misconfigured(f"{path} cannot be read: {error.strerror}. Let the bot's user read it, or remove it.") from None
    except UnicodeDecodeError:
        raise Misconfigured(f"{path} cannot be read: it is not UTF-8 text. Write it anew with a line {name}=…") from None


def explain(error: dict[str, Any]) -> str:
    """Say one of pydantic's findings in plain words."""
    key = ".".join(str(part) for part in error["loc"])
    match error["type"]:
        case "extra_forbidden":
            near = difflib.get_close_matches(key, Settings.model_fields, n=1)
            return f"unknown key '{key}'" + (f"; did you mean '{near[0]}'?" if near else "")
        case "missing":
            return f"key '{key}' is missing; every key is required"
        case _:
            return f"key '{key}' is {error['input']!r:.60}; {error['msg'][0].lower()}{error['msg'][1:]}"
