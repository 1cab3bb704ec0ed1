"""Look through a large memory: python -m tests.benchmarks.album [--pictures 1000000] [--width 768] [--folder FOLDER] [--calls 200]

Made-up jobs of four pictures each, by people and in servers of whom few have most, with embeddings in clusters; then what people wait for: pages,
searches by words and by likeness, through the classes of the bot. Files of pictures are no part of it. With --folder the memory is kept there, and
used again where it already is.
"""

import argparse
import asyncio
import itertools
import random
import re
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.album import Album, Scope
from engine.database import NAME, owners, searchable
from engine.history import History
from engine.similar import directions, signature

SPACE = "made up"
PER_JOB = 4
PEOPLE = 2000
MOST_OF_A_PERSON = 0.08
"""Share of the jobs that the busiest person has."""
SERVERS = 50
MOST_OF_A_SERVER = 0.5
PRIVATE = 0.1
"""Share of the jobs that belong to no server."""
CHANNELS = 30
ADULT_CHANNELS = (7, 19, 29)
WORDS = 4000
CLUSTERS = 5000
AT_ONCE = 5000
PERSON, SERVER, CHANNEL, PRIVATE_CHANNEL, MESSAGE = (digit * 10**18 for digit in range(1, 6))
"""Ids are as long as Discord's; each kind begins with its own digit."""
PAGE = 10

JOB = """
    INSERT INTO job (id, kind, prompt, count, seed, source, user_id, channel_id, guild_id, spoiler, token_expires_at, event_id, message_id, result_id,
        state, model, used_steps, used_guidance, unknown_words, seconds, created_at, started_at, finished_at, is_adult, removed_by, withheld)
    VALUES (?, 'dream', ?, 4, ?, ?, ?, ?, ?, 0, 0, ?, ?, ?, 'delivered', 'made up', 30, 2.5, '[]', ?, ?, ?, ?, ?, ?, ?)
"""
Work = Callable[[], Awaitable[object]]


def shares(count: int, first: float) -> list[float]:
    """Return falling shares, the first one as given."""
    rest = [1 / (place + 5) for place in range(count - 1)]
    return [first, *((1 - first) * share / sum(rest) for share in rest)]


def vocabulary(chance: random.Random) -> list[str]:
    """Return made-up words, the most common first: as in languages, these are short."""
    syllables = [first + vowel for first in "bdfghklmnprstvwz" for vowel in "aeiou"]
    words = dict.fromkeys(["a", "of", "in", "the", "on", "with", "and"])
    while len(words) < WORDS:
        words["".join(chance.choices(syllables, k=1 + (len(words) > 60) + (len(words) > 600) + chance.randint(0, 1)))] = None
    return list(words)


@dataclass
class World:
    """Who asks for what, where: the same for the same numbers."""

    jobs: int
    chance: random.Random = field(default_factory=lambda: random.Random(0))

    def __post_init__(self) -> None:
        self.words = vocabulary(self.chance)
        self.people = [PERSON + number for number in range(PEOPLE)]
        self.servers = [SERVER + number for number in range(SERVERS)]
        self.word_sums = list(itertools.accumulate(1 / (place + 2) for place in range(WORDS)))
        self.people_sums = list(itertools.accumulate(shares(PEOPLE, MOST_OF_A_PERSON)))
        self.server_sums = list(itertools.accumulate(shares(SERVERS, MOST_OF_A_SERVER / (1 - PRIVATE))))
        self.channel_sums = list(itertools.accumulate(1 / (place + 1) ** 1.5 for place in range(CHANNELS)))

    def channels(self, server: int) -> list[int]:
        """Return the channels of a server, the busiest first."""
        return [CHANNEL + (server - SERVER) * CHANNELS + number for number in range(CHANNELS)]

    def person(self) -> int:
        """Return somebody, busy people more often."""
        return self.chance.choices(self.people, cum_weights=self.people_sums)[0]

    def server(self) -> int:
        """Return a server, busy ones more often."""
        return self.chance.choices(self.servers, cum_weights=self.server_sums)[0]

    def prompt(self) -> str:
        """Return 3 to 12 words."""
        return " ".join(self.chance.choices(self.words, cum_weights=self.word_sums, k=self.chance.randint(3, 12)))

    def rows(self, first: int, last: int) -> Iterator[tuple[Any, ...]]:
        """Return rows of jobs."""
        for number in range(first, last):
            server = None if self.chance.random() < PRIVATE else self.server()
            place = self.chance.choices(range(CHANNELS), cum_weights=self.channel_sums)[0]
            source = self.chance.randint(max(1, number - 2000), number - 1) if number > 1 and self.chance.random() < 0.3 else None
            person = self.person()
            channel = self.channels(server)[place] if server else PRIVATE_CHANNEL + person - PERSON
            yield (
                number,
                self.prompt(),
                self.chance.randrange(2**32),
                source,
                person,
                channel,
                server,
                MESSAGE + 3 * number,
                MESSAGE + 3 * number + 1,
                MESSAGE + 3 * number + 2,
                self.chance.uniform(1, 20),
                1.7e9 + 60 * number,
                1.7e9 + 60 * number + 5,
                1.7e9 + 60 * number + 20,
                bool(server) and place in ADULT_CHANNELS,
                person if self.chance.random() < 0.03 else None,
                self.chance.random() < 0.005,
            )


def embeddings(count: int, centres: NDArray[np.float32], draw: np.random.Generator) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
    """Return embeddings of so many jobs, each in a cluster, and their signatures."""
    middle = np.repeat(centres[draw.integers(len(centres), size=count)], PER_JOB, axis=0)
    vectors = middle + draw.standard_normal(middle.shape, np.float32)
    halves = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype("<f2")
    # What engine.similar does for one at a time.
    bits = np.packbits(halves.astype(np.float32) @ directions(halves.shape[1]) > 0, axis=1)
    return halves, bits


def fill(path: Path, world: World, width: int) -> None:
    """Write all jobs and pictures."""
    draw = np.random.default_rng(0)
    centres = draw.standard_normal((CLUSTERS, width), np.float32)
    database = sqlite3.connect(path)
    database.execute("PRAGMA journal_mode = OFF")
    database.execute("PRAGMA synchronous = OFF")
    for first in range(1, world.jobs + 1, AT_ONCE):
        rows = list(world.rows(first, min(first + AT_ONCE, world.jobs + 1)))
        database.executemany(JOB, rows)
        words = [(number, searchable(prompt), owners(person, server)) for number, prompt, _, _, person, _, server, *_ in rows]
        database.executemany("INSERT INTO job_words (rowid, prompt, owner) VALUES (?, ?, ?)", words)
        vectors, bits = embeddings(len(rows), centres, draw)
        pictures = [(PER_JOB * (first - 1) + place + 1, first + place // PER_JOB, place % PER_JOB) for place in range(len(vectors))]
        database.executemany(
            "INSERT INTO picture VALUES (?1, ?2, ?3, ?1, 'pictures/' || ?2 || '/' || ?3 || '.png', 256, 256)",
            pictures,
        )
        numbers = [picture for picture, _, _ in pictures]
        database.executemany("INSERT INTO embedding VALUES (?, ?, ?)", ((n, SPACE, v.tobytes()) for n, v in zip(numbers, vectors, strict=True)))
        database.executemany("INSERT INTO signature VALUES (?, ?, ?)", ((n, SPACE, b.tobytes()) for n, b in zip(numbers, bits, strict=True)))
        if first == 1:
            same = sum(signature(vector.tobytes()) == row.tobytes() for vector, row in zip(vectors[:100], bits[:100], strict=True))
            assert same >= 99, same
        database.commit()
    database.close()


async def generate(folder: Path, world: World, width: int) -> None:
    """Make a memory as the bot does, and fill it."""
    await (await History.open(folder)).close()
    await asyncio.to_thread(fill, folder / NAME, world, width)


def memory_mib() -> float:
    """Return what this process holds in memory."""
    return int(re.findall(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[0]) / 1024


class Questions:
    """What people ask, a different question each time."""

    def __init__(self, history: History, world: World) -> None:
        self.history = history
        self.album = Album(history)
        self.world = world
        self.chance = random.Random(1)

    def person(self) -> Scope:
        """Return the jobs of somebody, every other time of the busiest."""
        return Scope(user_id=self.world.people[0] if self.chance.random() < 0.5 else self.world.person())

    def server(self) -> Scope:
        """Return the jobs of a server in all channels or some that one may see, often rarely used ones or one that is new."""
        server = self.world.servers[0] if self.chance.random() < 0.5 else self.world.server()
        channels = self.world.channels(server)
        visible = self.chance.choice((channels, channels[-3:], [CHANNEL - 1], self.chance.sample(channels, self.chance.randint(1, CHANNELS))))
        return Scope(guild_id=server, channels=frozenset(visible), adult=False)

    def page(self, scope: Callable[[], Scope], words: Callable[[], str] = str, skip: int = 0) -> Work:
        """Ask for a page."""
        return lambda: self.album.page(scope(), words(), skip=skip, most=PAGE)

    def lookalikes(self, scope: Callable[[], Scope]) -> Work:
        """Ask what looks like some picture."""

        async def work() -> None:
            job = await self.history.find(self.chance.randint(1, self.world.jobs))
            assert job is not None
            found = await self.album.embedding(job, self.chance.randrange(PER_JOB))
            assert found is not None
            await self.album.lookalikes(*found, scope(), PAGE, without=job)

        return work

    async def family(self) -> None:
        """Ask for the family of some job."""
        job = await self.history.find(self.chance.randint(1, self.world.jobs))
        assert job is not None
        await self.album.family(job)

    def rare(self) -> str:
        """Return one of the rarest words."""
        return self.chance.choice(self.world.words[-1000:])

    def common(self) -> str:
        """Return one of the most common words."""
        return self.chance.choice(self.world.words[:10])

    def two(self) -> str:
        """Return a common word and another one."""
        return f"{self.common()} {self.chance.choice(self.world.words[10:1000])}"

    def beginning(self) -> str:
        """Return the first letters of a word."""
        return self.chance.choice(self.world.words)[: self.chance.randint(1, 3)]

    def rows(self) -> dict[str, Work]:
        """Return everything that is measured."""
        rows: dict[str, Work] = {}
        scopes: dict[str, Callable[[], Scope]] = {"person": self.person, "server": self.server}
        for name, scope in scopes.items():
            rows[f"{name}: first page"] = self.page(scope)
            rows[f"{name}: tenth page"] = self.page(scope, skip=9 * PAGE)
            rows[f"{name}: a rare word"] = self.page(scope, self.rare)
            rows[f"{name}: a common word"] = self.page(scope, self.common)
            rows[f"{name}: two words"] = self.page(scope, self.two)
            rows[f"{name}: the beginning of a word"] = self.page(scope, self.beginning)
            rows[f"{name}: similar pictures"] = self.lookalikes(scope)
        rows["family"] = self.family
        return rows


async def timed(work: Work) -> float:
    """Return how many milliseconds something takes."""
    begun = time.perf_counter()
    await work()
    return 1000 * (time.perf_counter() - begun)


def tell(name: str, took: list[float]) -> None:
    """Print a line."""
    took.sort()
    print(f"{name:36}{took[len(took) // 2]:8.1f}{took[int(len(took) * 0.99)]:8.1f}{took[-1]:8.1f}", flush=True)


async def measure(folder: Path, world: World, calls: int) -> None:
    """Open the memory, ask everything, and print."""
    begun = time.perf_counter()
    history = await History.open(folder)
    print(f"opened in {time.perf_counter() - begun:.1f} s, the database has {(folder / NAME).stat().st_size / 2**20:.0f} MiB")
    try:
        questions = Questions(history, world)
        before = memory_mib()
        loading = asyncio.create_task(timed(questions.lookalikes(questions.person)))
        meanwhile = []
        while not loading.done():
            meanwhile.append(await timed(questions.page(questions.person)))
        print(f"index of likeness in memory after {await loading / 1000:.1f} s: {before:.0f} MiB before, {memory_mib():.0f} MiB with it")
        print(f"{'ms':36}{'p50':>8}{'p99':>8}{'worst':>8}")
        tell("person: first page, while it is read", meanwhile)
        for name, work in questions.rows().items():
            tell(name, [await timed(work) for _ in range(calls)])
        print(f"{memory_mib():.0f} MiB afterwards")
    finally:
        await history.close()


async def run(folder: Path, pictures: int, width: int, calls: int) -> None:
    """Generate where nothing is there yet, and measure."""
    world = World(pictures // PER_JOB)
    print(f"{pictures} pictures of {world.jobs} jobs, embeddings of {width} numbers")
    if not (folder / NAME).exists():
        begun = time.perf_counter()
        await generate(folder, world, width)
        print(f"generated in {time.perf_counter() - begun:.0f} s", flush=True)
    await measure(folder, world, calls)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--calls", type=int, default=200, help="of each question")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        asyncio.run(run(options.folder or Path(temporary), options.pictures, options.width, options.calls))


if __name__ == "__main__":
    main()
