"""The whole bot on Discord of this machine: unmodified discord.py over real sockets, real SQLite; only the painter is scripted."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import discord
import pytest

from cogs._client import Endpoint, Reverie
from engine.history import History
from engine.queue import Limits, Queue
from engine.worker import Worker
from loopback import Channel, Interaction, Loopback, Message, User
from tests.conftest import ScriptedPainter

Start = Callable[..., contextlib.AbstractAsyncContextManager[Reverie]]
WIDE = Limits(waiting=20, per_user=10, per_server=1000)
EVERY_S = 0.3
"""Between two edits of a progress message; two seconds in life."""


@pytest.fixture
async def discord_(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Loopback]:
    # Reverie points discord.py elsewhere for the whole process; this puts it back after the test.
    monkeypatch.setattr(discord.http.Route, "BASE", discord.http.Route.BASE)
    monkeypatch.setattr(discord.gateway.DiscordWebSocket, "DEFAULT_GATEWAY", discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY)
    async with Loopback() as server:
        yield server
        if server.contract is not None:
            assert server.violations == []


@pytest.fixture
def start(discord_: Loopback, painter: ScriptedPainter, tmp_path: Path) -> Start:
    """Return what runs the bot, with the memory of this test, until a block is left; again and again, as after restarts."""

    @contextlib.asynccontextmanager
    async def running(limits: Limits = WIDE, working: bool = True) -> AsyncIterator[Reverie]:
        async with contextlib.AsyncExitStack() as stack:
            history = await History.open(tmp_path / "data")
            # An open one keeps the process alive, also where a test fails.
            stack.push_async_callback(history.close)
            queue = Queue(history, limits)
            worker = Worker(queue, history, lambda: painter, preview_every_s=0)
            bot = await stack.enter_async_context(Reverie(queue, history, worker, EVERY_S, Endpoint(discord_.api, discord_.gateway)))
            tasks = [asyncio.create_task(bot.start(discord_.token))]
            if working:
                tasks.append(asyncio.create_task(worker.run()))
            try:
                await discord_.wait_for(lambda: tasks[0].done() or bot.is_ready())
                yield bot
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    return running


@pytest.fixture
async def bot(start: Start) -> AsyncIterator[Reverie]:
    async with start() as running:
        yield running


def results(server: Loopback, channel: Channel | None = None) -> list[Message]:
    """Return the messages with a finished grid, those of the general channel where no other is given."""
    return [message for message in (channel or server.general).messages if any("reverie-" in file.filename for file in message.attachments)]


async def result(server: Loopback) -> Message:
    """Wait for the first finished grid."""
    await server.wait_for(lambda: results(server))
    return results(server)[0]


def direct_results(server: Loopback) -> list[Message]:
    """Return the messages with a finished grid that people got directly."""
    return [message for channel in server.world.channels.values() if channel.recipient for message in results(server, channel)]


async def states(bot: Reverie) -> list[str]:
    """Return the state of every job on disk."""
    return [row["state"] for row in await bot.history._rows("SELECT state FROM job ORDER BY id")]


async def settled(bot: Reverie, *expected: str) -> None:
    """Wait until all jobs on disk are in these states."""
    for _ in range(200):
        if await states(bot) == list(expected):
            return
        await asyncio.sleep(0.05)
    pytest.fail(f"{await states(bot)} instead of {expected}")


async def asked(server: Loopback, painter: ScriptedPainter, user: User | None = None, **options: object) -> Interaction:
    """Ask for a picture that is not painted before `painter.hold` is set; return when it was acknowledged and is being painted."""
    painter.hold.clear()
    interaction = await server.command(user or server.ann, server.general, "dream", {"prompt": "a cat"} | options)
    await server.wait_for(lambda: interaction.message)
    await asyncio.to_thread(painter.started.wait)
    return interaction
