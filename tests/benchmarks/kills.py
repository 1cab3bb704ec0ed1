"""Kill a busy bot at random moments: python -m tests.benchmarks.kills [--kills 50]

A bot in a process of its own is asked again and again, by commands, buttons and messages, killed with SIGKILL after a random time, and started again;
in the end every job that was acknowledged must have been posted exactly once.
"""

import argparse
import asyncio
import contextlib
import random
import sqlite3
import tempfile
import time
from pathlib import Path

from loopback import Interaction, Loopback
from loopback.options import NotSent
from loopback.values import Channel
from tests.benchmarks.crowd import CHANNELS, posted, start

PACE_S = 0.02
LONGEST_LIFE_S = 4.0


async def pester(server: Loopback, places: list[Channel], chance: random.Random, asked: list[Interaction], until: float) -> None:
    """Ask for pictures until a moment, as people do who know nothing of kills."""
    number = 0
    while (left := until - time.monotonic()) > 0:
        number += 1
        person = chance.choice([server.ann, server.ben])
        with contextlib.suppress(TimeoutError, NotSent):
            async with asyncio.timeout(left):
                place = chance.choice(places)
                cards = [message for message in place.messages if any("reverie-" in file.filename for file in message.attachments)]
                if cards and chance.random() < 0.3:
                    card = chance.choice(cards)
                    job = card.attachments[0].filename.split("-")[1].split(".")[0]
                    asked.append(await server.press(person, card, f"reverie:v:{job}:0"))
                else:
                    asked.append(await server.command(person, place, "dream", {"prompt": f"a cat {number}", "count": chance.randint(1, 4)}))
        await asyncio.sleep(chance.uniform(0, 0.3))


async def measure(kills: int, folder: Path) -> None:
    """Kill, start, and count."""
    chance = random.Random(0)
    asked: list[Interaction] = []
    async with Loopback() as server:
        # This Discord remembers some hundred messages of each channel.
        places = [server.add_channel(f"channel{number}") for number in range(CHANNELS)]
        for _ in range(kills):
            bot = start(folder / "data", server, PACE_S)
            await server.wait_for(lambda: server.sessions, 60)
            until = time.monotonic() + chance.uniform(0, LONGEST_LIFE_S)
            await pester(server, places, chance, asked, until)
            bot.kill()
            bot.wait()
            server.requests.clear()
            await server.wait_for(lambda: not server.sessions, 10)
        bot = start(folder / "data", server, PACE_S)
        try:
            await server.wait_for(lambda: finished(folder), 600)
            await asyncio.sleep(3)
        finally:
            bot.kill()
            bot.wait()
        told = posted(server)
    acknowledged = {use.id for use in asked if use.acknowledged.is_set() and use.message is not None and not use.message.ephemeral}
    with sqlite3.connect(folder / "data" / "reverie.db") as database:
        jobs = dict(database.execute("SELECT event_id, id FROM job").fetchall())
    lost = [event for event in acknowledged if told[jobs.get(event, -1)] == 0]
    print(f"{kills} kills; {len(asked)} asked, {len(acknowledged)} acknowledged, {len(jobs)} on disk, {len(told)} posted")
    doubled = sum(count > 1 for count in told.values())
    print(f"lost {len(lost)}, doubled {doubled}; never came to the bot {len(asked) - len(jobs)}")


def finished(folder: Path) -> bool:
    """Tell whether nothing is left to do."""
    with contextlib.closing(sqlite3.connect(folder / "data" / "reverie.db")) as database:
        [(left,)] = database.execute("SELECT count(*) FROM job WHERE state IN ('waiting', 'painting', 'painted')").fetchall()
    return not left


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(options.kills, Path(folder)))


if __name__ == "__main__":
    main()
