"""Pages for people, as far as there are any: no script, nothing from elsewhere."""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; background: #fff }
code, pre { font: 14px/1.4 ui-monospace, monospace; background: #f2f2f5; border-radius: 4px; padding: 0 .2em; overflow-wrap: anywhere }
h2 { margin-top: 2.5rem; font-size: 1.1rem; border-top: 1px solid #ddd; padding-top: 1rem }
table { border-collapse: collapse; width: 100% } td { border-bottom: 1px solid #eee; padding: .2rem .6rem .2rem 0; vertical-align: top }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #1e1f22 } code, pre { background: #2b2d31 } h2, td { border-color: #444 } }
"""
POLICY = f"default-src 'none'; frame-ancestors 'none'; style-src 'sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}'"


def docs_page(document: Mapping[str, Any]) -> tuple[str, str]:
    """Return a page that says what is where, from its description in OpenAPI's words, and what a browser may load for it."""
    info = document["info"]
    title = escape(info["title"])
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    body = "".join(section(method.upper(), path, operation) for path, methods in document["paths"].items() for method, operation in methods.items())
    told = f'<h1>{title}</h1><p>{escape(info["description"])} The same for programs: <a href="/openapi.json">openapi.json</a>.'
    return f"{head}<style>{STYLE}</style>{told}{body}</html>", POLICY


def section(method: str, path: str, operation: Mapping[str, Any]) -> str:
    """Describe one operation."""
    text = operation.get("description") or operation.get("summary", "")
    rows = "".join(f"<tr><td><code>{escape(name)}</code><td>{escape(told)}" for name, told in fields(operation))
    answers = ", ".join(operation["responses"])
    return f"<h2><code>{method} {escape(path)}</code></h2><p>{escape(text)}</p><table>{rows}</table><p>Answers: {escape(answers)}</p>"


def fields(operation: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what an operation takes, and what is to be known of it."""
    for parameter in operation.get("parameters", ()):
        yield parameter["name"], told_of(parameter["schema"] | parameter)
    for media, body in operation.get("requestBody", {}).get("content", {}).items():
        around = body["schema"]["properties"]
        asked = around.get("input", body["schema"])
        yield media, '{"input": {…}}' if "input" in around else "all fields side by side"
        if "input" in around or len(operation["requestBody"]["content"]) == 1:
            for name, schema in asked["properties"].items():
                yield name, ("needed: " if name in asked.get("required", ()) else "") + told_of(schema)


def told_of(schema: Mapping[str, Any]) -> str:
    """Say what a field may hold."""
    kinds = [one for one in schema.get("anyOf", [schema]) if one.get("type") != "null"]
    [first, *_] = kinds
    least, most = first.get("minimum"), first.get("maximum", first.get("exclusiveMaximum"))
    parts = [schema.get("description", ""), "" if least is None else f"{least} to {most}", json.dumps(first["enum"]) if "enum" in first else ""]
    if schema.get("default") is not None:
        parts.append(f"usually {json.dumps(schema['default'])}")
    return "; ".join(part for part in parts if part)
