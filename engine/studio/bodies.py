"""What comes in the bodies of requests: read no further than is allowed, JSON and forms alike, and files out of it."""

import asyncio
import base64
import binascii
import hashlib
import json
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from engine.jobs import INGREDIENTS_LIMIT, PROMPT_LIMIT, SEED_LIMIT, SOURCES_LIMIT, Kind
from engine.studio.inputs import ENDS, INPUTS, PICTURES, Envelope, Input
from engine.studio.refusals import BadPicture, Refusal, sentence_of
from engine.uploads import LIMIT_BYTES
from engine.worker import aside

BODY_S = 60.0
"""For a whole body to come in."""
SMALL_BYTES = 2**16
"""Of a body without pictures: a prompt of the longest, every character of it escaped, fits five times over."""
JSON_BYTES = 2 * (LIMIT_BYTES * 4 // 3) + SMALL_BYTES
"""Of a body with a picture and a mask as base64."""
FORM_BYTES = 2 * LIMIT_BYTES + SMALL_BYTES
FIELD_BYTES = 8 * PROMPT_LIMIT
"""Of a field of a form that is no file."""
FIELDS = 40
ENVELOPE = frozenset(Envelope.model_fields)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a body asks for. `files` are those that came in it, by the fields that they are for; these then hold only what names them."""

    input: Input
    envelope: Envelope
    files: Mapping[str, bytes] = field(repr=False)


async def read_body(request: Request, kind: Kind) -> Asked:
    """Read what is asked for, as JSON or as a form.

    Raises:
        Refusal: it is too much, too slow, neither of both, or says something else than what can be asked.
        BadPicture: a picture is written in a way that cannot be read.
    """
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media == "multipart/form-data" and kind.needs_picture:
        values, envelope, files = await read_form(request)
        is_typed = False
    elif media == "application/json":
        values, envelope, files = await read_json(request, JSON_BYTES if kind.needs_picture or kind.is_mixed else SMALL_BYTES)
        is_typed = True
    else:
        forms = " or multipart/form-data" if kind.needs_picture else ""
        raise Refusal(415, f"The body must be application/json{forms}.")
    try:
        # What JSON says has types; forms hold texts only.
        return Asked(INPUTS[kind].model_validate(values, strict=is_typed), Envelope.model_validate(envelope, strict=is_typed), files)
    except ValidationError as error:
        raise Refusal(422, sentence_of(error.errors(include_url=False, include_input=False, include_context=False))) from None


async def bounded(request: Request, limit_bytes: int) -> AsyncGenerator[bytes, None]:
    """Yield a body as it comes, up to a limit; more is not even waited for.

    Raises:
        Refusal: it is larger, comes too slowly, or does not come.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > limit_bytes:
        raise too_large(limit_bytes)
    come, stream = 0, request.stream()
    deadline = asyncio.get_running_loop().time() + BODY_S
    try:
        while True:
            # Around each piece alone: what is done with one is not to be interrupted.
            async with asyncio.timeout_at(deadline):
                chunk = await anext(stream, None)
            if chunk is None:
                return
            come += len(chunk)
            if come > limit_bytes:
                raise too_large(limit_bytes)
            yield chunk
    except TimeoutError:
        raise Refusal(408, f"The body must come within {BODY_S:g} seconds.") from None
    except ClientDisconnect:
        raise Refusal(400, "The body must come whole.") from None


def too_large(limit_bytes: int) -> Refusal:
    """Return the answer to a body that is too large."""
    return Refusal(413, f"The body must have at most {limit_bytes} bytes.")


async def read_json(request: Request, limit_bytes: int) -> tuple[dict[str, Any], dict[str, Any], dict[str, bytes]]:
    """Read a JSON body with an `input` in it; return that, what is around it, and its files.

    Raises:
        Refusal: it is no JSON, or has no such form.
        BadPicture: a picture is written in a way that cannot be read.
    """
    read = await read_object(request, limit_bytes)
    values = read.pop("input", None)
    if not isinstance(values, dict):
        raise Refusal(422, "input must be given, and be an object.")
    files = {}
    for where, holder, name in places_of_pictures(values):
        if isinstance(text := holder[name], str) and (file := await aside(decoded, where, text)) is not None:
            holder[name], files[where] = name_of(file), file
    return values, read, files


async def read_object(request: Request, limit_bytes: int) -> dict[str, Any]:
    """Read a JSON body.

    Raises:
        Refusal: it is no JSON, or no object.
    """
    body = b"".join([chunk async for chunk in bounded(request, limit_bytes)])
    try:
        read = await aside(json.loads, body.decode(), object_pairs_hook=once_each, parse_constant=no_number, parse_float=number)
    except Refusal:
        raise
    except (ValueError, RecursionError):
        raise Refusal(400, "The body must be JSON in UTF-8.") from None
    if not isinstance(read, dict):
        raise Refusal(422, "The body must be an object.")
    return read


def places_of_pictures(values: dict[str, Any]) -> Iterator[tuple[str, Any, str | int]]:
    """Yield where an input may hold pictures: the name of the place, what holds it, and its key or position there.

    Of a list that is too long for any input, not all.
    """
    for name in PICTURES:
        if name in values:
            yield name, values, name
    ingredients, sources = values.get("ingredients"), values.get("sources")
    parts = {name: values.get(name) for name in ENDS}
    parts |= {
        f"ingredients.{position}": part for position, part in enumerate(ingredients[:INGREDIENTS_LIMIT] if isinstance(ingredients, list) else ())
    }
    for where, part in parts.items():
        if isinstance(part, dict) and "image" in part:
            yield f"{where}.image", part, "image"
    for position in range(min(len(sources), SOURCES_LIMIT) if isinstance(sources, list) else 0):
        yield f"sources.{position}", sources, position


def once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the pairs of a JSON object.

    Raises:
        Refusal: two have one name: readers differ in which they take.
    """
    read = dict(pairs)
    if len(read) < len(pairs):
        raise Refusal(400, "Every field must be given once only.")
    return read


def number(text: str) -> int | float:
    """Read a number with a point or an exponent: one without a fraction is whole all the same, as in JSON Schema."""
    value = float(text)
    return int(value) if value.is_integer() and abs(value) <= SEED_LIMIT else value


def no_number(text: str) -> None:
    """Refuse Infinity and NaN, which are no JSON.

    Raises:
        ValueError: always.
    """
    raise ValueError(text)


def decoded(name: str, text: str) -> bytes | None:
    """Return a file that is written as text, as `data:` URL or as plain base64; None where the text only says where it is.

    Raises:
        BadPicture: it is neither.
    """
    if text.startswith(("https:", "http:", "/")):
        return None
    if text.startswith("data:"):
        head, _, text = text.partition(",")
        if not head.endswith(";base64"):
            raise BadPicture(name, "be in base64, in a data: URL too")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BadPicture(name, "be a data: URL, base64, a public https address or one of your own pictures") from None


async def read_form(request: Request) -> tuple[dict[str, Any], dict[str, Any], dict[str, bytes]]:
    """Read a form, in which the fields of the input stand beside those around it; return both, and its files.

    Raises:
        Refusal: it cannot be read, or a field comes twice.
        BadPicture: a picture is written in a way that cannot be read.
    """
    stream = bounded(request, FORM_BYTES)
    parser = MultiPartParser(request.headers, stream, max_files=len(PICTURES), max_fields=FIELDS, max_part_size=FIELD_BYTES)
    try:
        form = await parser.parse()
    except MultiPartException:
        raise Refusal(400, "The body must be a form that can be read: whole, and with no more than one file for each picture.") from None
    except (KeyError, ValueError, LookupError):
        # A boundary that is missing, a charset that there is none of.
        raise Refusal(400, "The body must be a form that can be read.") from None
    finally:
        await stream.aclose()
    try:
        return await sorted_out(form.multi_items())
    finally:
        await form.close()


async def sorted_out(items: list[tuple[str, UploadFile | str]]) -> tuple[dict[str, Any], dict[str, Any], dict[str, bytes]]:
    """Part the fields of a form into those of the input, those around it, and files.

    Raises:
        Refusal: a field comes twice, or a file is where none may be.
        BadPicture: a picture is written in a way that cannot be read.
    """
    values: dict[str, Any] = {}
    envelope: dict[str, Any] = {}
    files: dict[str, bytes] = {}
    for name, value in items:
        if name in values or (name in envelope and name != "webhook_events_filter"):
            raise Refusal(422, "Every field must be given once only.")
        if isinstance(value, UploadFile):
            if name not in PICTURES:
                raise Refusal(422, "Only image and mask may be files.")
            files[name] = await value.read()
            values[name] = name_of(files[name])
        elif name == "webhook_events_filter":
            envelope.setdefault(name, []).append(value)
        elif name in ENVELOPE:
            envelope[name] = value
        elif name in PICTURES and (file := decoded(name, value)) is not None:
            values[name], files[name] = name_of(file), file
        else:
            values[name] = value
    return values, envelope, files


def name_of(file: bytes) -> str:
    """Return what stands in the place of a file where what was asked is written down."""
    return f"sha256:{hashlib.sha256(file).hexdigest()}"
