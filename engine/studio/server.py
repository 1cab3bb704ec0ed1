"""The studio on its socket: beside the bot, on its event loop."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import uvicorn

from engine.errors import Misconfigured
from engine.history import History
from engine.neighbour import Neighbour
from engine.predictions import Predictions
from engine.settings import KEYS, Settings
from engine.studio.app import studio_app
from engine.studio.desk import Desk, Jobs, Models
from engine.studio.fetching import Fetcher
from engine.studio.keys import Keys, Rate
from engine.studio.webhooks import Webhooks

CONNECTIONS = 200
GRACE_S = 5
"""How long a stop waits for answers that are on their way."""
HEAD_BYTES = 2**15
"""Of the first line and the headers of a request."""


class Server(uvicorn.Server):
    """A server that leaves signals to the program that it is a part of."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


class Studio:
    """Answers over HTTP as long as it runs."""

    def __init__(
        self,
        settings: Settings,
        jobs: Jobs,
        history: History,
        models: Models,
        fetcher: Fetcher | None = None,
        neighbour: Neighbour | None = None,
    ) -> None:
        """Take the address and the port; `neighbour` is Discord's side of the house, where there is one.

        Raises:
            Misconfigured: they cannot be had, or others could reach it and there are no keys.
        """
        keys = Keys(settings.keys)
        if not settings.studio_address.is_loopback and not keys:
            raise Misconfigured(
                f'Anybody on the network could use a studio at {settings.studio_address}. Set {KEYS}, or studio_address = "127.0.0.1".'
            )
        self._desk = Desk(jobs, Predictions(history), models, Webhooks(settings.webhook_hosts), fetcher or Fetcher())
        names = frozenset([*settings.studio_names, *filter(None, [urlsplit(settings.studio_url).hostname])])
        app = studio_app(self._desk, keys, Rate(settings.studio_per_minute), names, settings.webhook_hosts, neighbour)
        config = uvicorn.Config(
            app,
            http="h11",
            ws="none",
            lifespan="off",
            loop="none",
            log_config=None,
            # What cannot be understood, and everybody can send, is no news.
            log_level=logging.ERROR,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=CONNECTIONS,
            timeout_graceful_shutdown=GRACE_S,
            h11_max_incomplete_event_size=HEAD_BYTES,
        )
        self._server = Server(config)
        self._socket = taken(str(settings.studio_address), settings.studio_port)

    @property
    def address(self) -> str:
        """Where it answers."""
        host, port = self._socket.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/"

    async def run(self) -> None:
        """Answer until cancelled; what was promised before is taken up first."""
        try:
            await self._desk.open()
        except BaseException:
            self._socket.close()
            raise
        serving = asyncio.create_task(self._server.serve([self._socket]))
        try:
            await asyncio.shield(serving)
        finally:
            self._desk.stopping.set()
            self._server.should_exit = True
            try:
                # It closes the socket; who stops a second time does not want to wait, but must not leave a half-closed one either.
                await asyncio.wait([serving])
            finally:
                await self._desk.close()


def taken(address: str, port: int) -> socket.socket:
    """Return a socket that listens at an address.

    Raises:
        Misconfigured: it cannot be had.
    """
    try:
        listening = socket.create_server((address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET)
    except OSError as error:
        raise Misconfigured(
            f"Port {port} of {address} cannot be had for the studio ({error.strerror}). Set another studio_port, or 0 for any free one."
        ) from None
    # Connections inherit it. asyncio sets it for sockets that it makes itself; without it an answer's body waits 40 ms for the receipt of its head.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening
