"""The studio as it runs beside the bot: uvicorn on a socket of this machine, the real queue, real SQLite; the painter is scripted."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from pydantic import SecretStr

from engine import settings
from engine.errors import Misconfigured
from engine.history import History
from engine.queue import Limits, Queue
from engine.settings import Settings
from engine.studio import Studio
from engine.studio.fetching import Fetcher
from engine.worker import Worker
from tests.cogs.conftest import Loaders
from tests.conftest import ScriptedPainter

BUNDLED = Path(__file__).parents[3] / "configs" / "bot.toml"
ANN, BOB = "ann-has-this-key-alone", "bob-has-this-key-alone"
WIDE = Limits(waiting=20, per_user=10, per_server=1000)
PATIENCE_S = 60.0

Open = Callable[..., contextlib.AbstractAsyncContextManager["House"]]


class House:
    """A running studio, and somebody who asks there."""

    def __init__(self, studio: Studio, queue: Queue, history: History, session: aiohttp.ClientSession, stop: Callable[[], object]) -> None:
        self.address = studio.address
        self.stop = stop
        self.queue = queue
        self.history = history
        self.session = session

    async def ask(self, method: str, path: str, status: int = 200, key: str | None = ANN, **more: Any) -> Any:
        """Ask as somebody with a key, and return the answer: JSON where it is that, else bytes."""
        headers = ({} if key is None else {"Authorization": f"Bearer {key}"}) | more.pop("headers", {})
        async with self.session.request(method, self.address.rstrip("/") + path, headers=headers, allow_redirects=False, **more) as answer:
            told = await (answer.json() if answer.content_type == "application/json" else answer.read())
            assert answer.status == status, told
            return told

    async def take(self, kind: str, input: Mapping[str, Any], status: int = 202, key: str = ANN, **around: Any) -> Any:
        """Ask for something and do not wait for it."""
        return await self.ask("POST", f"/{kind}", status, key, json={"input": input, **around}, headers={"Prefer": "respond-async"})

    async def ended(self, told: Mapping[str, Any], key: str = ANN) -> Any:
        """Wait until a prediction has ended, and return it."""
        async with asyncio.timeout(PATIENCE_S):
            while (now := await self.ask("GET", told["urls"]["get"], key=key))["status"] in ("starting", "processing"):  # noqa: ASYNC110 - it is asked over HTTP
                await asyncio.sleep(0.02)
        return now

    async def events(self, told: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Return everything that is told of a prediction, until its end."""
        text = (await self.ask("GET", told["urls"]["events"])).decode()
        blocks = [dict(line.split(": ", 1) for line in block.splitlines()) for block in text.strip().split("\n\n") if not block.startswith(":")]
        return [(block["event"], block["data"]) for block in blocks]


def settings_with(**changes: Any) -> Settings:
    """Return the bundled settings, on any free port, with two people."""
    keys = {"ann": SecretStr(ANN), "bob": SecretStr(BOB)}
    return settings.load(BUNDLED).model_copy(update={"studio_port": 0, "keys": keys, "studio_per_minute": 10_000} | changes)


@contextlib.asynccontextmanager
async def living(
    folder: Path,
    painter: ScriptedPainter,
    limits: Limits = WIDE,
    *,
    working: bool = True,
    others: Mapping[str, ScriptedPainter] | None = None,
    fetcher: Fetcher | None = None,
    **changes: Any,
) -> AsyncIterator[House]:
    """Run a studio, with the memory in a folder, until a block is left."""
    async with contextlib.AsyncExitStack() as stack:
        history = await History.open(folder)
        stack.push_async_callback(history.close)
        queue = Queue(history, limits)
        worker = Worker(queue, history, lambda: painter, 0.0, Loaders({} if others is None else others))  # type: ignore[arg-type]
        studio = Studio(settings_with(**changes), queue, history, worker, fetcher)
        await queue.restore()
        tasks = [asyncio.create_task(studio.run())]
        if working:
            tasks.append(asyncio.create_task(worker.run()))
            await worker.ready.wait()
        session = await stack.enter_async_context(aiohttp.ClientSession())
        try:
            yield House(studio, queue, history, session, tasks[0].cancel)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert not any(isinstance(result, Misconfigured) for result in results)


@pytest.fixture
def start(painter: ScriptedPainter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Return what runs a studio, with the memory of this test, until a block is left; again and again, as after restarts."""
    for name in ("DISCORD_TOKEN", "STUDIO_KEYS"):
        monkeypatch.delenv(name, raising=False)
    return functools.partial(living, tmp_path / "data", painter)


@pytest.fixture
async def house(start: Open) -> AsyncIterator[House]:
    async with start() as running:
        yield running
