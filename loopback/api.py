"""The door of the REST API: reads requests, checks who asks, keeps the log, and turns refusals into Discord's answers."""

import asyncio
import json
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import BodyPartReader, hdrs, web

from loopback.contract import Contract
from loopback.refusals import Refusal, invalid, no_such_path, too_large, unauthorized
from loopback.values import File, Json
from loopback.world import World

log = logging.getLogger(__name__)

PREFIX = "/api/v10"
FILE_FIELD = re.compile(r"files\[(\d{1,2})\]|file")
REQUESTS_KEPT = 20_000
"""Entries of the log; older ones are dropped, for a server that runs for weeks."""


@dataclass(slots=True)
class Call:
    """One request of the bot, read: what it is about, and what was sent along."""

    method: str
    path: str
    params: dict[str, str] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)
    payload: Any = None
    files: dict[int, File] = field(default_factory=dict)

    @property
    def body(self) -> Json:
        """The payload, which must be a JSON object."""
        if not isinstance(self.payload, dict):
            raise invalid("", "DICT_TYPE_CONVERT", "Only dictionaries may be used in a DictType")
        return self.payload

    def id(self, name: str) -> int:
        """Return a snowflake of the path."""
        value = self.params[name]
        if not (value.isascii() and value.isdigit() and len(value) <= 20):
            raise invalid(name, "NUMBER_TYPE_COERCE", f'Value "{value[:40]}" is not snowflake.')
        return int(value)


Handler = Callable[[Call], Any]
"""Returns the JSON to answer with, or None for an empty answer (204)."""


@dataclass(frozen=True, slots=True)
class Request:
    """An entry of the log: what the bot asked for, with names and sizes of its files, the status it got, and when, on the virtual clock."""

    method: str
    path: str
    payload: Any
    files: list[tuple[str, int]]
    status: int
    at: float


@dataclass(slots=True)
class Failure:
    """Requests that are to fail, whatever they ask for."""

    left: int
    status: int
    path: re.Pattern[str]
    retry_after: float
    globally: bool = False

    def response(self) -> web.Response:
        if self.status != 429:
            return reply(self.status, {"message": f"{self.status}: failed on purpose", "code": 0})
        # discord.py takes a 429 without Via for a ban and gives up at once.
        headers = {"Via": "1.1 loopback", "Retry-After": str(self.retry_after), "X-RateLimit-Scope": "global" if self.globally else "user"}
        body = {"message": "You are being rate limited.", "retry_after": self.retry_after, "global": self.globally}
        return reply(429, body, headers)


def reply(status: int, body: Any = None, headers: dict[str, str] | None = None) -> web.Response:
    """Return JSON as Discord does. discord.py reads it only if the type is exactly application/json, without a charset."""
    if body is None:
        return web.Response(status=204, headers=headers)
    return web.Response(status=status, body=json.dumps(body).encode(), headers={"Content-Type": "application/json"} | (headers or {}))


class Api:
    """All REST routes behind one door."""

    def __init__(self, world: World, token: str, contract: Contract | None) -> None:
        self._world = world
        self._token = token
        self._contract = contract
        self.requests: list[Request] = []
        self.violations: list[str] = []
        self._failures: list[Failure] = []
        self.saved: Callable[[], None] = lambda: None
        """Called before a change is confirmed, to bring it to disk."""
        self._routes: list[tuple[str, re.Pattern[str], Handler, bool]] = []

    def route(self, method: str, path: str, handler: Handler, open_to_all: bool = False) -> None:
        """Answer requests for `path`, whose {names} become parameters. Who has a token in the path needs no other."""
        pattern = re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path))
        self._routes.append((method, pattern, handler, open_to_all))

    def fail(self, n: int, status: int, path: str, retry_after: float, globally: bool) -> None:
        """Let the next `n` requests whose path matches end in an error."""
        self._failures.append(Failure(n, status, re.compile(path), retry_after, globally))

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer one HTTP request."""
        call = Call(request.method, request.path.removeprefix(PREFIX), query=dict(request.query))
        try:
            refusal = await self._read(request, call)
            response = self._failure(call) or self._answer(request, call, refusal)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Refusal as refused:
            response = reply(refused.status, refused.body)
        except Exception:
            # A body of a shape that no handler expects, or a fault of this server: either way the bot gets an answer.
            log.exception("%s %s", call.method, call.path)
            response = reply(400, {"message": "Invalid Form Body", "code": 50035})
        sizes = [(name, len(data)) for name, data in call.files.values()]
        self.requests.append(Request(call.method, call.path, call.payload, sizes, response.status, self._world.clock.now()))
        if len(self.requests) > REQUESTS_KEPT:
            del self.requests[: REQUESTS_KEPT // 2]
        self._world.touch()
        return response

    def _answer(self, request: web.Request, call: Call, refusal: Refusal | None) -> web.Response:
        known = [(method, handler, is_open, match) for method, path, handler, is_open in self._routes if (match := path.fullmatch(call.path))]
        if self._contract and call.payload is not None:
            self.violations.extend(self._contract.violations(call.method, call.path, call.payload))
        for method, handler, open_to_all, match in known:
            if method == call.method:
                if not open_to_all and request.headers.get(hdrs.AUTHORIZATION) != f"Bot {self._token}":
                    raise unauthorized()
                if refusal:
                    raise refusal
                call.params = match.groupdict()
                answer = handler(call)
                if call.method != "GET":
                    self.saved()
                return reply(200, answer)
        if known:
            raise Refusal(405, 0, "405: Method Not Allowed")
        log.warning("the bot asked for %s %s, which is not served here", call.method, call.path)
        raise no_such_path()

    def _failure(self, call: Call) -> web.Response | None:
        for failure in self._failures:
            if failure.left and failure.path.search(call.path):
                failure.left -= 1
                return failure.response()
        return None

    async def _read(self, request: web.Request, call: Call) -> Refusal | None:
        """Read the whole body into `call`; what is wrong with it is returned, to be told after everything else is known."""
        if request.content_type == "multipart/form-data":
            return await self._read_parts(request, call)
        raw, large = await _limited(request.content.iter_any(), self._world.limits.request_bytes)
        if large:
            return too_large()
        if not raw:
            return None
        if request.content_type != "application/json":
            return Refusal(400, 50035, "Expected Content-Type header to be application/json or multipart/form-data")
        return _load(raw, call)

    async def _read_parts(self, request: web.Request, call: Call) -> Refusal | None:
        left = self._world.limits.request_bytes
        refusal: Refusal | None = None
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader):
                return invalid("", "MULTIPART", "Nested parts are not read")
            data, large = await _limited(_chunks(part), left)
            left -= len(data)
            field_name = FILE_FIELD.fullmatch(part.name or "")
            if large:
                refusal = too_large()
            elif part.name == "payload_json":
                refusal = _load(data, call) or refusal
            elif field_name:
                call.files[int(field_name[1] or 0)] = (part.filename or "unknown", data)
        return refusal


def _load(raw: bytes, call: Call) -> Refusal | None:
    try:
        call.payload = json.loads(raw)
    except ValueError:
        return Refusal(400, 50109, "The request body contains invalid JSON.")
    return None


async def _chunks(part: BodyPartReader) -> Any:
    while chunk := await part.read_chunk(1 << 16):
        yield chunk


async def _limited(chunks: Any, limit: int) -> tuple[bytes, bool]:
    """Read to the end but keep at most `limit` bytes, so that who sends too much still hears why it was refused."""
    kept, size = bytearray(), 0
    async for chunk in chunks:
        size += len(chunk)
        if size <= limit:
            kept += chunk
    return bytes(kept), size > limit
