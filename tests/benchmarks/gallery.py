"""Measure the gallery: python -m tests.benchmarks.gallery [--pictures 10000] [--stars 20] [--rounds 50]

Made-up shared pictures of one server, with stars and votes; then what people wait for, through the classes of the bot. After that a bot on Discord of
this machine: from a star, by reaction, until the gallery shows it, for pictures that come to it and for those that are there. No model.
"""

import argparse
import asyncio
import contextlib
import random
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from cogs._client import Endpoint, Reverie
from engine.gallery import Gallery
from engine.history import History
from engine.jobs import Origin, Painting, Picture, Request
from engine.queue import Limits, Queue
from engine.worker import Worker
from loopback import Loopback, Message
from tests.cogs.boarding import STAR, answered, dreamt, entries, named, opened
from tests.conftest import ScriptedPainter

SERVER, CHANNEL, CROWD = 1, 2, 1000
AT_ONCE = 10
"""Pictures of the bot that is measured."""


async def fill(history: History, pictures: int, stars: int, chance: random.Random) -> None:
    """Make shared pictures, some of which everybody stars."""
    job = await history.add(Request("a cat", 1), Origin(5, CHANNEL, SERVER))
    await history.painted(job, Painting((Picture(b"", 1, 8, 8),), "m", 5, 1.0, 0.5))
    columns = [row["name"] for row in await history.database.rows("PRAGMA table_info (job)")]
    kept = ", ".join(name for name in columns if name not in ("id", "user_id", "event_id"))
    people = [(number, 5 + number % CROWD) for number in range(2, pictures + 1)]
    given = [
        (picture, person) for picture in range(1, pictures + 1) for person in chance.sample(range(CROWD), min(CROWD, chance.randint(0, 2 * stars)))
    ]
    async with history.database.transaction():
        await history.database.write_many(f"INSERT INTO job (id, user_id, {kept}) SELECT ?, ?, {kept} FROM job WHERE id = 1", people)
        await history.database.write_many(
            "INSERT INTO picture (id, job, position, seed, path, width, height) VALUES (?1, ?1, 0, 1, '', 8, 8)", [(number,) for number, _ in people]
        )
        await history.database.write("INSERT INTO share (picture, guild_id, user_id, shared_at) SELECT id, ?, user_id, 0 FROM job", SERVER)
        await history.database.write_many("INSERT INTO star VALUES (?, ?, 0)", given)


async def times_ms(work: Callable[[], Awaitable[object]], rounds: int) -> list[float]:
    """Return how long something takes, sorted."""
    taken = []
    for _ in range(rounds):
        begun = time.perf_counter()
        await work()
        taken.append(1000 * (time.perf_counter() - begun))
    return sorted(taken)


def told(name: str, taken: list[float]) -> None:
    """Print a median and the slowest."""
    print(f"{name}: p50 {taken[len(taken) // 2]:.1f} ms, worst {taken[-1]:.1f} ms")


async def measure_queries(folder: Path, pictures: int, stars: int, rounds: int) -> None:
    """Time what commands and events ask."""
    history, chance = await History.open(folder), random.Random(7)
    await fill(history, pictures, stars, chance)
    gallery = Gallery(history)
    [row] = await history.database.rows("SELECT count(*) AS stars FROM star")
    print(f"{pictures} shared pictures, {row['stars']} stars")

    async def star() -> None:
        picture = chance.randint(1, pictures)
        await gallery.star(picture, CROWD + chance.randint(1, 10**6))
        await gallery.find(picture)

    async def vote() -> None:
        pair = await gallery.pair(SERVER, 1, adult=False)
        assert pair is not None
        await gallery.vote(1, pair[0].picture, pair[1].picture)

    told("a star given and counted", await times_ms(star, rounds))
    told("a pair found and voted on", await times_ms(vote, rounds))
    told("the leaderboard", await times_ms(lambda: gallery.best(SERVER, 10, adult=True), rounds))
    told("its creators", await times_ms(lambda: gallery.creators(SERVER, 10), rounds))
    told("a server's numbers", await times_ms(lambda: gallery.stats(guild_id=SERVER), rounds))
    told("everything that a server shares", await times_ms(lambda: gallery.of_server(SERVER), rounds))
    await history.close()


async def measure_board(folder: Path, rounds: int) -> None:
    """Time stars until the gallery shows them."""
    async with Loopback() as server, contextlib.AsyncExitStack() as stack:
        history = await History.open(folder)
        stack.push_async_callback(history.close)
        queue = Queue(history, Limits(200, 50, 200))
        worker = Worker(queue, history, lambda: ScriptedPainter(steps=1), preview_every_s=60)
        async with Reverie(queue, history, worker, 60, Endpoint(server.api, server.gateway)) as bot:
            tasks = [asyncio.create_task(bot.start(server.token)), asyncio.create_task(worker.run())]
            await server.wait_for(bot.is_ready)
            gallery = await opened(server, bot)
            cards: list[Message] = [await dreamt(server) for _ in range(AT_ONCE)]
            for card in cards:
                await answered(server, await server.press(server.ann, card, named(card, "share")))  # type: ignore[arg-type] # an act's name
            crowd = [server.add_user(f"person {number}") for number in range(rounds // AT_ONCE + 1)]
            taken: dict[bool, list[float]] = {True: [], False: []}
            for place, person in enumerate(crowd):
                for picture, card in enumerate(cards, start=1):
                    begun = time.perf_counter()
                    await server.react(person, card, STAR)
                    await server.wait_for(lambda picture=picture, place=place: entries(gallery).get(picture) == [place + 1])  # type: ignore[misc]
                    taken[place == 0].append(1000 * (time.perf_counter() - begun))
            told("a star until its picture is in the gallery", sorted(taken[True]))
            told("a star until the entry in the gallery counts it", sorted(taken[False]))
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--stars", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=50)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure_queries(Path(folder) / "queries", options.pictures, options.stars, options.rounds))
        asyncio.run(measure_board(Path(folder) / "board", options.rounds))


if __name__ == "__main__":
    main()
