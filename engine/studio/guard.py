"""What stands before everything: who may call this machine by which name, from which page, and what every answer says of itself."""

import asyncio
import ipaddress
import logging
import re
import secrets
from collections.abc import Collection

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine.errors import Broken
from engine.studio.refusals import sentence

log = logging.getLogger(__name__)

HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+)(?::\d{1,5})?")
SAFE = ("GET", "HEAD", "OPTIONS")
"""Methods that change nothing."""
LINGER_S = 2.0
"""For so long the rest of a body is read and thrown away once it was refused: who is still sending does not hear the answer."""
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Other pages may neither show what is here nor learn of it from whether it loads.
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
"""Of every answer that does not say otherwise."""


class Guard:
    """Lets requests through that call this machine by a name of its own, and change something only from its own pages or from no page at all."""

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        self._app = app
        self._names = {"localhost", *(name.lower() for name in names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or have the app answer; whatever goes wrong in there is told by a reference."""
        exchange = Exchange(scope, receive, send)
        refusal = self._refusal(scope["method"], Headers(scope=scope))
        if refusal is not None:
            await JSONResponse({"detail": refusal}, 403)(scope, exchange.receive, exchange.send)
            return
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except Exception as error:
            broken = Broken(secrets.token_hex(3))
            log.error("a request over HTTP failed, reference %s", broken.reference, exc_info=error)
            if exchange.has_begun:
                # The connection is closed, so that nobody takes half an answer for a whole one.
                raise
            await JSONResponse({"detail": sentence(broken)}, 500)(scope, exchange.receive, exchange.send)

    def _refusal(self, method: str, headers: Headers) -> str | None:
        """Say why a request is not let through, None where it is."""
        host = headers.get("host", "")
        found = HOST.fullmatch(host)
        if found is None or not self._is_ours(found[1].lower()):
            # A page of somebody else's may have had its own name point here (DNS rebinding).
            return "This machine is not known by that name here. The operator may add it to studio_names."
        if method in SAFE:
            return None
        origin = headers.get("origin")
        if (origin is not None and origin.partition("://")[2] != host) or headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return "Another web page may not ask for this."
        return None

    def _is_ours(self, name: str) -> bool:
        if name in self._names:
            return True
        try:
            # Nobody can make a number mean another machine.
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return True


class Exchange:
    """One request and its answer on their way."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        headers = Headers(scope=scope)
        # Who asks first whether to send a body has not sent one.
        self._rest = ("transfer-encoding" in headers or headers.get("content-length", "0") != "0") and "expect" not in headers
        self.has_begun = False

    async def receive(self) -> Message:
        """Hand on what comes in, and notice its end."""
        message = await self._receive()
        if message["type"] != "http.request" or not message.get("more_body", False):
            self._rest = False
        return message

    async def send(self, message: Message) -> None:
        """Hand on an answer, with what is said of all; before it ends, see that it is heard."""
        if message["type"] == "http.response.start":
            self.has_begun = True
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            if self._rest:
                headers["Connection"] = "close"
        elif not message.get("more_body", False) and self._rest:
            await self._send({**message, "more_body": True})
            await self._throw_away()
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)

    async def _throw_away(self) -> None:
        """Read what somebody is still sending."""
        try:
            async with asyncio.timeout(LINGER_S):
                while self._rest:
                    await self.receive()
        except TimeoutError:
            pass
