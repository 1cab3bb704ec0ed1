import asyncio
import contextlib
import itertools
import logging
import os
from pathlib import Path
from typing import Any

import discord
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cogs._client import Endpoint, Reverie
from engine.history import History
from engine.queue import Limits, Queue
from engine.worker import Worker
from loopback import Loopback
from tests.cogs.fuzzing import Faults, actions, play, still_serves
from tests.conftest import ScriptedPainter

folders = itertools.count()
SCRIPT = 50
PHASES = [Phase.explicit, Phase.reuse, Phase.generate]
"""Each script runs a whole bot for a second, so none is made shorter: its fault is in the log."""
EXAMPLES = int(os.environ.get("FUZZED", 300)) // SCRIPT
"""`FUZZED=5000 pytest tests/cogs/test_fuzz.py` is the long run."""


@given(st.lists(actions, min_size=SCRIPT, max_size=SCRIPT))
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), phases=PHASES)
def test_whatever_strangers_send_the_bot_breaks_nothing_and_serves_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: list[tuple[Any, ...]]
) -> None:
    monkeypatch.setattr(discord.http.Route, "BASE", discord.http.Route.BASE)
    monkeypatch.setattr(discord.gateway.DiscordWebSocket, "DEFAULT_GATEWAY", discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY)
    faults = Faults()
    logging.getLogger().addHandler(faults)
    try:
        asyncio.run(survive(tmp_path / str(next(folders)), script))
    finally:
        logging.getLogger().removeHandler(faults)
    assert faults.records == []


async def survive(folder: Path, script: list[tuple[Any, ...]]) -> None:
    """Run the bot through a script; nothing that is shown may look like a traceback."""
    painter = ScriptedPainter(steps=1)
    async with Loopback() as server, contextlib.AsyncExitStack() as stack:
        history = await History.open(folder)
        stack.push_async_callback(history.close)
        queue = Queue(history, Limits(waiting=200, per_user=5, per_server=100))
        worker = Worker(queue, history, lambda: painter, preview_every_s=60)
        async with Reverie(queue, history, worker, 60, Endpoint(server.api, server.gateway)) as bot:
            tasks = [asyncio.create_task(bot.start(server.token)), asyncio.create_task(worker.run())]
            try:
                await server.wait_for(lambda: tasks[0].done() or (bot.is_ready() and worker.ready.is_set()))
                await play(server, script)
                await still_serves(server)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        said = [message.content for channel in server.world.channels.values() for message in channel.messages if message.author is server.bot]
        assert not [text for text in said if "Traceback" in text or "Something broke on my side" in text]
        if server.contract is not None:
            assert server.violations == []
