"""Hold every request body to Discord's own OpenAPI document."""

import json
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

NEARBY = Path(__file__).resolve().parents[2] / "shared" / "discord" / "openapi.json"


def document() -> Path | None:
    """Return where the document is: at DISCORD_OPENAPI, or beside the repository; None if it is nowhere."""
    path = Path(os.environ.get("DISCORD_OPENAPI") or NEARBY)
    return path if path.is_file() else None


class Contract:
    """Knows which body each path takes."""

    def __init__(self, path: Path) -> None:
        self._document = json.loads(path.read_bytes())
        templates = sorted(self._document["paths"], key=lambda path: path.count("{"))
        self._paths = [(re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(template))), template) for template in templates]
        self._validators: dict[str, Any] = {}

    def violations(self, method: str, path: str, payload: Any) -> list[str]:
        """Return a sentence for everything about this body that the document does not allow."""
        template = next((template for pattern, template in self._paths if pattern.fullmatch(path)), None)
        if template is None:
            return [f"{method} {path}: Discord has no such path"]
        operation = self._document["paths"][template].get(method.lower())
        if operation is None:
            return [f"{method} {template}: Discord has no such method here"]
        if "requestBody" not in operation:
            return [f"{method} {template}: takes no body"]
        errors = self._validator(method.lower(), template).iter_errors(as_strings(payload))
        return [f"{method} {template}: {_sentence(error)}" for error in errors]

    def _validator(self, method: str, template: str) -> Any:
        # Only tests need jsonschema, so the bot runs without it.
        from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # it ships no types

        key = f"{method} {template}"
        if key not in self._validators:
            where = "/".join(("#/paths", template.replace("~", "~0").replace("/", "~1"), method, "requestBody/content/application~1json/schema"))
            self._validators[key] = Draft202012Validator(self._document | {"$ref": where.replace("{", "%7B").replace("}", "%7D")})
        return self._validators[key]


@cache
def load(path: Path) -> Contract:
    """Return the contract in the document at `path`, read once."""
    return Contract(path)


def as_strings(value: Any, key: str = "") -> Any:
    """Return `value` with snowflakes as strings. Discord takes them as numbers too, its document does not say so."""
    if isinstance(value, dict):
        turned = {name: as_strings(item, name) for name, item in value.items()}
        for listed in ("attachments", "default_values"):
            if isinstance(turned.get(listed), list):
                turned[listed] = [_with_text_id(item) for item in turned[listed]]
        return turned
    if isinstance(value, list):
        return [as_strings(item, key) for item in value]
    is_id = key.endswith("_id") or key.endswith("_ids") or key in ("users", "roles")
    return str(value) if is_id and type(value) is int else value


def _with_text_id(item: Any) -> Any:
    return item | {"id": str(item["id"])} if isinstance(item, dict) and type(item.get("id")) is int else item


def _sentence(error: Any) -> str:
    """Say what is wrong, and of a choice of schemas what the one that was meant says."""
    while error.context:
        error = _meant(error.context)
    where = ".".join(str(step) for step in error.absolute_path) or "body"
    return f"{where}: {error.message[:200]}"


def _meant(errors: list[Any]) -> Any:
    """Return the first error of the schema that fits best: the one whose `type` is right and whose faults lie deepest."""
    branches: dict[int, list[Any]] = {}
    for error in errors:
        branches.setdefault(error.schema_path[0], []).append(error)

    def fit(branch: list[Any]) -> tuple[bool, int]:
        wrong_type = any(list(error.path) in ([], ["type"]) and error.validator in ("const", "enum", "type") for error in branch)
        return not wrong_type, max(len(error.absolute_path) for error in branch)

    return max(branches.values(), key=fit)[0]
