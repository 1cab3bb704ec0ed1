"""Put Discord on 127.0.0.1: REST, gateway, CDN and the page, on one port."""

import re
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from loopback import contract, wire
from loopback.api import PREFIX, Api, Request
from loopback.cdn import Cdn
from loopback.channels import Channels
from loopback.clock import Clock
from loopback.gateway import Gateway, Intent, Session
from loopback.interactions import Answers
from loopback.page import Page
from loopback.people import People
from loopback.rest import Rest
from loopback.store import Store
from loopback.values import Channel, Guild, Limits, Role, User
from loopback.world import ANN_ID, BEN_ID, GENERAL_ID, OWNER_ID, World

HOST = "127.0.0.1"
LOCAL_HOST = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?")
"""Names of this machine; the port may differ from ours behind a tunnel."""
PRIVILEGED = Intent.GUILD_MEMBERS | Intent.GUILD_PRESENCES | Intent.MESSAGE_CONTENT
ALL_INTENTS = (1 << 32) - 1


class Loopback(People):
    """A Discord of one guild on this machine, for one bot whose token is "loopback".

    With `folder`, messages and files outlive the process. `message_content` is the portal's switch for that intent.
    """

    token = "loopback"

    def __init__(self, port: int = 0, folder: Path | None = None, message_content: bool = False) -> None:
        world = World(folder)
        world.render = lambda message: wire.message(world, message)
        document = contract.document()
        allowed = ALL_INTENTS & ~(PRIVILEGED & ~(Intent.MESSAGE_CONTENT if message_content else 0))
        super().__init__(world, Gateway(world, self.token, allowed))
        self.contract = contract.load(document) if document else None
        self._wanted_port = port
        self._api = Api(world, self.token, self.contract)
        Rest(world, self._api, lambda: self.gateway, message_content)
        Channels(world, self._api, message_content)
        Answers(world, self._api)
        self._page = Page(self, self._gateway)
        self._store = Store(world, folder) if folder else None
        self._runner: web.AppRunner | None = None
        self.port = 0

    # Life.

    async def start(self) -> None:
        """Listen on 127.0.0.1.

        Raises:
            OSError: the port is taken.
        """
        app = web.Application(middlewares=[only_local])
        app.router.add_route("*", PREFIX + "/{rest:.*}", self._api.serve)
        app.router.add_get("/gateway/", self._gateway.serve)
        app.router.add_get("/attachments/{channel}/{file}/{name}", Cdn(self.world).serve)
        self._page.add_routes(app)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, HOST, self._wanted_port)
        try:
            await site.start()
        except OSError:
            await self._runner.cleanup()
            raise
        server: Any = site._server
        self.port = server.sockets[0].getsockname()[1]
        self.world.base_url = f"http://{HOST}:{self.port}"
        self._gateway.address = self.gateway
        if self._store:
            self._store.open()
            self._api.saved = self._store.save

    async def stop(self) -> None:
        """Hang up, save, and free the port."""
        if self._store:
            self._store.save()
        self.world.clock.stop()
        self._gateway.close()
        self._page.close()
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    # Addresses.

    @property
    def api(self) -> str:
        """For discord.http.Route.BASE."""
        return self.world.base_url + PREFIX

    @property
    def gateway(self) -> str:
        """For DiscordWebSocket.DEFAULT_GATEWAY, as a yarl.URL."""
        return f"ws://{HOST}:{self.port}/gateway/"

    @property
    def page(self) -> str:
        """What a person opens in a browser."""
        return self.world.base_url + "/"

    # The world.

    @property
    def guild(self) -> Guild:
        return self.world.guild

    @property
    def general(self) -> Channel:
        return self.world.channels[GENERAL_ID]

    @property
    def ann(self) -> User:
        return self.world.users[ANN_ID]

    @property
    def ben(self) -> User:
        return self.world.users[BEN_ID]

    @property
    def olga(self) -> User:
        """The owner of the guild, unless another was made it."""
        return self.world.users[OWNER_ID]

    @property
    def bot(self) -> User:
        return self.world.bot

    @property
    def clock(self) -> Clock:
        return self.world.clock

    @property
    def limits(self) -> Limits:
        return self.world.limits

    def add_channel(self, name: str, nsfw: bool = False) -> Channel:
        return self.world.add_channel(name, nsfw)

    def add_thread(self, parent: Channel, name: str) -> Channel:
        """Open a public thread below a channel."""
        return self.world.add_thread(parent, name)

    def remove_channel(self, channel: Channel) -> None:
        """Remove a channel with the threads below it, or a thread."""
        self.world.remove_channel(channel)

    def restrict(self, channel: Channel, nsfw: bool) -> None:
        """Make a channel age-restricted, with its threads, or open to all again."""
        self.world.restrict(channel, nsfw)

    def add_role(self, name: str, permissions: int = 0) -> Role:
        """Add a role to the guild; `user.roles.add(role.id)` gives it to somebody."""
        return self.world.add_role(name, permissions)

    def add_foreign_channel(self, name: str, guild: bool = True) -> Channel:
        """Add a place that the bot is not in, a channel of another guild or a group: people who installed it may use it there."""
        return self.world.add_foreign_channel(name, guild)

    def add_user(self, name: str, dms_open: bool = True, moderator: bool = False) -> User:
        return self.world.add_user(name, dms_open, moderator)

    def dm(self, user: User) -> Channel:
        """Return the direct messages between `user` and the bot."""
        return self.world.dm(user)

    # What the bot did, and what is to happen to it.

    @property
    def requests(self) -> list[Request]:
        return self._api.requests

    @property
    def violations(self) -> list[str]:
        return self._api.violations

    @property
    def sessions(self) -> list[Session]:
        return self._gateway.sessions

    def fail_next(self, n: int, status: int = 500, path: str = "", retry_after: float = 0.05, globally: bool = False) -> None:
        """Answer the next `n` requests whose path matches the regular expression with an error instead."""
        self._api.fail(n, status, path, retry_after, globally)

    def drop_gateway(self, resumable: bool = True) -> None:
        self._gateway.drop(resumable)

    def reconnect(self) -> None:
        self._gateway.reconnect()

    def invalidate(self) -> None:
        self._gateway.invalidate()


@web.middleware
async def only_local(request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
    """Refuse pages of other sites, also those whose name was made to point here (DNS rebinding)."""
    host = request.headers.get("Host", "")
    origin = request.headers.get("Origin")
    if not LOCAL_HOST.fullmatch(host) or (origin is not None and origin != f"http://{host}"):
        return web.Response(status=403, text="Only this machine may ask.")
    response: web.StreamResponse = await handler(request)
    return response
