"""The whole bot on Discord of this machine: unmodified discord.py over real sockets, real SQLite; only the painter is scripted."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

import pytest

from cogs import EXTENSIONS
from cogs._client import Endpoint, Reverie
from engine.history import History
from engine.preferences import Level
from engine.queue import Limits, Queue
from engine.worker import Worker
from loopback import Channel, Interaction, Loopback, Message, User
from tests.conftest import ScriptedPainter

Start = Callable[..., contextlib.AbstractAsyncContextManager[Reverie]]
WIDE = Limits(waiting=20, per_user=10, per_server=1000)
FORGOTTEN = "I don't remember this any longer. Ask for it anew."
EVERY_S = 0.3
"""Between two edits of a progress message; two seconds in life."""


@pytest.fixture
async def discord_(addresses: None) -> AsyncIterator[Loopback]:
    async with Loopback() as server:
        yield server
        if server.contract is not None:
            assert server.violations == []


class Loaders(Mapping[str, Callable[[], ScriptedPainter]]):
    """What loads painters that are there already, also those that come later."""

    def __init__(self, painters: Mapping[str, ScriptedPainter]) -> None:
        self._painters = painters

    def __getitem__(self, name: str) -> Callable[[], ScriptedPainter]:
        # Bound to the painter, and so equal whenever it is asked for.
        return self._painters[name].loaded

    def __iter__(self) -> Iterator[str]:
        return iter(self._painters)

    def __len__(self) -> int:
        return len(self._painters)


@contextlib.asynccontextmanager
async def living(
    server: Loopback,
    folder: Path,
    painter: ScriptedPainter,
    limits: Limits = WIDE,
    *,
    working: bool = True,
    others: Mapping[str, ScriptedPainter] | None = None,
    progress_every_s: float = EVERY_S,
    preview_every_s: float = 0.0,
) -> AsyncIterator[Reverie]:
    """Run the bot, with the memory in a folder, until a block is left; `others` are models beside the usual one, by their names."""
    async with contextlib.AsyncExitStack() as stack:
        history = await History.open(folder)
        # An open one keeps the process alive, also where a test fails.
        stack.push_async_callback(history.close)
        queue = Queue(history, limits)
        worker = Worker(queue, history, lambda: painter, preview_every_s, Loaders({} if others is None else others))  # type: ignore[arg-type]
        bot = await stack.enter_async_context(Reverie(queue, history, worker, progress_every_s, Endpoint(server.api, server.gateway)))
        tasks = [asyncio.create_task(bot.start(server.token))]
        if working:
            tasks.append(asyncio.create_task(worker.run()))
        try:
            await server.wait_for(lambda: tasks[0].done() or bot.is_ready())
            yield bot
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def start(discord_: Loopback, painter: ScriptedPainter, tmp_path: Path) -> Start:
    """Return what runs the bot, with the memory of this test, until a block is left; again and again, as after restarts."""
    return functools.partial(living, discord_, tmp_path / "data", painter)


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


async def answered(server: Loopback, use: Interaction) -> Message:
    """Return the finished answer to a press or command."""
    message: Message = await server.wait_for(lambda: use.message if use.acknowledged.is_set() and use.message and not use.message.thinking else None)
    return message


async def dreamt(server: Loopback, count: int = 4, user: User | None = None, channel: Channel | None = None, **options: object) -> Message:
    """Return the card of a finished dream."""
    place = channel or server.general
    before = len(results(server, place))
    await server.command(user or server.ann, place, "dream", {"prompt": "a cat", "count": count, "seed": 7} | options)
    await server.wait_for(lambda: len(results(server, place)) > before)
    return results(server, place)[-1]


def subject(server: Loopback, user: User, level: str) -> int:
    """Return whose choices those of a level are."""
    return {"user": user.id, "channel": server.general.id, "server": server.guild.id}[level]


async def choose(bot: Reverie, server: Loopback, level: str = "server", user: User | None = None, **chosen: object) -> None:
    """Choose without the panel of /settings: for the server, its general channel, or somebody."""
    for name, value in chosen.items():
        await bot.preferences.choose(Level(level), subject(server, user or server.ann, level), name, value)


async def featured(history: History) -> Reverie:
    """Return a bot with all its features that neither connects nor paints."""
    queue = Queue(history, Limits(1, 1, 1))
    bot = Reverie(queue, history, Worker(queue, history, lambda: pytest.fail("no painter is needed")), 2.0)
    for extension in EXTENSIONS:
        await bot.load_extension(extension)
    return bot


async def asked(server: Loopback, painter: ScriptedPainter, user: User | None = None, **options: object) -> Interaction:
    """Ask for a picture that is not painted before `painter.hold` is set; return when it was acknowledged and is being painted."""
    painter.hold.clear()
    interaction = await server.command(user or server.ann, server.general, "dream", {"prompt": "a cat"} | options)
    await server.wait_for(lambda: interaction.message)
    await asyncio.to_thread(painter.started.wait)
    return interaction
