"""A small throw-away bot on discord.py, unmodified, with Discord on this machine."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import discord
import pytest
import yarl
from discord import app_commands

from loopback import Loopback


class Bot(discord.Client):
    """Does nothing until a test gives it commands."""

    def __init__(self, **options: object) -> None:
        options = {"intents": discord.Intents(guilds=True, messages=True, reactions=True), "guild_ready_timeout": 0} | options
        super().__init__(**options)
        self.tree = app_commands.CommandTree(self)
        self.heard: list[discord.Message] = []
        self.resumed = 0
        self.readied = 0

    async def before_identify_hook(self, shard_id: int | None, *, initial: bool = False) -> None:
        """Identify at once; discord.py would wait five seconds the second time."""

    async def on_message(self, message: discord.Message) -> None:
        self.heard.append(message)

    async def on_resumed(self) -> None:
        self.resumed += 1

    async def on_ready(self) -> None:
        self.readied += 1


Connect = Callable[..., Awaitable[Bot]]


@pytest.fixture
async def discord_(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Loopback]:
    async with Loopback() as server:
        point_at(server, monkeypatch)
        yield server


def point_at(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discord.http.Route, "BASE", server.api)
    monkeypatch.setattr(discord.gateway.DiscordWebSocket, "DEFAULT_GATEWAY", yarl.URL(server.gateway))


@contextlib.asynccontextmanager
async def running(bot: Bot, token: str = Loopback.token) -> AsyncIterator[Bot]:
    """Run a bot until the block is left, ready and with its commands registered."""
    await bot.login(token)
    life = asyncio.create_task(bot.connect())
    ready = asyncio.create_task(bot.wait_until_ready())
    await asyncio.wait({life, ready}, return_when=asyncio.FIRST_COMPLETED, timeout=10)
    assert ready.done()
    if bot.tree.get_commands():
        await bot.tree.sync()
    try:
        yield bot
    finally:
        await bot.close()
        await life


@pytest.fixture
async def bot(discord_: Loopback) -> AsyncIterator[Bot]:
    """A connected bot without commands."""
    async with running(Bot()) as connected:
        yield connected
