"""What bodies may hold, in OpenAPI's words. FastAPI does not know of it: bodies are read by engine.studio.bodies, which takes JSON and forms."""

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any

from engine.jobs import Kind
from engine.studio.desk import Models
from engine.studio.inputs import INPUTS, PICTURES, Envelope

Schema = dict[str, Any]
FILE: Schema = {"type": "string", "format": "binary"}


def body_of(kind: Kind) -> Schema:
    """Describe what may be asked for."""
    asked, around = inlined(INPUTS[kind].model_json_schema()), Envelope.model_json_schema()["properties"]
    wrapped = {"type": "object", "additionalProperties": False, "required": ["input"], "properties": {"input": asked, **around}}
    content: Schema = {"application/json": {"schema": wrapped}}
    if kind.needs_picture:
        fields = {name: as_field(schema) for name, schema in (asked["properties"] | around).items()}
        fields |= {name: schema | FILE for name, schema in fields.items() if name in PICTURES}
        # A form has no lists.
        fields.pop("sources", None)
        content["multipart/form-data"] = {"schema": asked | {"properties": fields}}
    return {"requestBody": {"required": True, "content": content}}


def inlined(schema: Schema) -> Schema:
    """Return a schema in one piece: what it refers to would not be found from within another document."""
    definitions = schema.pop("$defs", {})

    def whole(part: Any) -> Any:
        if isinstance(part, dict):
            name = part.get("$ref", "").removeprefix("#/$defs/")
            return whole(definitions[name]) if name else {key: whole(value) for key, value in part.items()}
        return [whole(one) for one in part] if isinstance(part, list) else part

    return dict(whole(schema))


def as_field(schema: Schema) -> Schema:
    """Return a schema as a form can meet it: a field that says nothing is left out there, and one that may be a list is a single value."""
    kinds = [one for one in schema.get("anyOf", ()) if one.get("type") not in ("null", "array")]
    if len(kinds) != 1:
        return schema
    return {key: value for key, value in schema.items() if key not in ("anyOf", "default")} | dict(kinds[0])


def described(document: Mapping[str, Any], models: Models, webhook_hosts: Sequence[str]) -> Schema:
    """Return the whole description, with what is known only while the bot runs: models, and where webhooks may go."""
    told: Schema = copy.deepcopy(dict(document))
    painters = [painter for name in ("", *models.models) if (painter := models.painter_of(name)) is not None]
    webhook = "|".join(re.escape(host) for host in webhook_hosts)
    for operation in (operation for path in told["paths"].values() for operation in path.values() if "requestBody" in operation):
        for body in operation["requestBody"]["content"].values():
            around = body["schema"]["properties"]
            fields = around["input"]["properties"] if "input" in around else around
            if "model" not in fields:
                # It asks for no painting.
                continue
            fields["model"]["enum"] = ["", *models.models]
            if "seamless" in fields and not any(painter.can_be_seamless for painter in painters):
                fields["seamless"]["enum"] = [False]
            if not webhook:
                del around["webhook"], around["webhook_events_filter"]
                continue
            for one in around["webhook"].get("anyOf", [around["webhook"]]):
                if one.get("type") == "string":
                    one["pattern"] = rf"^({webhook})(/[A-Za-z0-9._~/-]*)?$"
    return told
