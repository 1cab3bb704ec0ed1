import asyncio
import itertools
import logging
import os
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from engine.queue import Limits
from loopback import Loopback
from tests.cogs.conftest import living
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
def test_whatever_strangers_send_the_bot_breaks_nothing_and_serves_the_next(tmp_path: Path, addresses: None, script: list[tuple[Any, ...]]) -> None:
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
    limits = Limits(waiting=200, per_user=5, per_server=100)
    async with Loopback() as server:
        async with living(server, folder, painter, limits, progress_every_s=60, preview_every_s=60) as bot:
            await bot.worker.ready.wait()
            await play(server, script)
            await still_serves(server)
        said = [message.content for channel in server.world.channels.values() for message in channel.messages if message.author is server.bot]
        assert not [text for text in said if "Traceback" in text or "Something broke on my side" in text]
        if server.contract is not None:
            assert server.violations == []
