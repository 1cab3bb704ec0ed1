"""Many people at once: python -m tests.benchmarks.crowd [--jobs 1000] [--users 200] [--pace 0.01]

A bot in a process of its own, with a painter that only takes its time, on Discord of this machine. Everybody asks at once, for one to nine pictures;
what is told: how soon each was acknowledged, whether every job was posted once, how fair the waiting was, and the bot's memory.
"""

import argparse
import asyncio
import collections
import random
import re
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from loopback import Interaction, Loopback

CHANNELS = 10
ROOT = Path(__file__).parents[2]


def start(folder: Path, server: Loopback, pace_s: float) -> subprocess.Popen[bytes]:
    """Start the bot."""
    command = [sys.executable, "-m", "tests.benchmarks.stub", str(folder), server.api, server.gateway, str(pace_s)]
    return subprocess.Popen(command, cwd=ROOT)


def posted(server: Loopback) -> collections.Counter[int]:
    """Count the results of every job, wherever they were posted."""
    names = [file.filename for channel in server.world.channels.values() for message in channel.messages for file in message.attachments]
    return collections.Counter(int(found[1]) for name in names if (found := re.match(r"reverie-(\d+)\.", name)))


def memory_mib(process: subprocess.Popen[bytes]) -> float:
    """Return what a process holds in memory."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024


def jain(values: list[float]) -> float:
    """Return Jain's index of fairness: 1 where all are equal, 1/n where one has everything. Source: Jain et al. 1984, DEC-TR-301."""
    return sum(values) ** 2 / (len(values) * sum(value**2 for value in values))


async def measure(jobs: int, users: int, pace_s: float, folder: Path) -> None:
    """Let everybody ask, wait for everything, and print."""
    chance = random.Random(0)
    async with Loopback() as server:
        bot = start(folder / "data", server, pace_s)
        try:
            # This Discord remembers some hundred messages of each channel.
            places = [server.add_channel(f"channel{number}") for number in range(CHANNELS)]
            people = [server.add_user(f"user{number}") for number in range(users)]
            await server.wait_for(lambda: server.sessions, 60)
            await asyncio.sleep(1)
            before = memory_mib(bot)
            # The pictures of each person's jobs differ, and so do the people.
            asked: list[Interaction] = []
            for number in range(jobs):
                person = people[number % users]
                options = {"prompt": f"a cat {number}", "count": chance.randint(1, 9), "seed": number}
                asked.append(await server.command(person, places[number % CHANNELS], "dream", options))
                # The server shares this process and its one thread: it must come to listen in between.
                await asyncio.sleep(0.005)
            await server.wait_for(lambda: all(use.acknowledged.is_set() for use in asked), 120)
            memory = []
            begun = time.monotonic()
            while sum(posted(server).values()) < jobs and time.monotonic() - begun < 1800:
                memory.append(memory_mib(bot))
                server.requests.clear()
                await asyncio.sleep(1)
            await asyncio.sleep(3)
            told = posted(server)
        finally:
            bot.kill()
            bot.wait()
    late = sorted(1000 * (use.acknowledged_after_s or 99.0) for use in asked)
    print(f"{jobs} jobs of {users} people, {pace_s * 1000:.0f} ms a picture")
    print(f"acknowledged after p50 {late[len(late) // 2]:.0f} ms, p99 {late[int(len(late) * 0.99)]:.0f} ms, worst {late[-1]:.0f} ms")
    print(f"posted {len(told)}, lost {jobs - len(told)}, doubled {sum(count > 1 for count in told.values())}")
    with sqlite3.connect(folder / "data" / "reverie.db") as database:
        rows = database.execute("SELECT user_id, sum(started_at - created_at), sum(seconds) FROM job GROUP BY user_id").fetchall()
    shares = [waited / painted for _, waited, painted in rows]
    spread = f"median {statistics.median(shares):.1f}, {min(shares):.1f} to {max(shares):.1f}"
    print(f"waiting per second of painting: Jain index {jain(shares):.3f} ({spread})")
    halves = [statistics.median(half) for half in (memory[: len(memory) // 2], memory[len(memory) // 2 :])]
    print(f"memory {before:.0f} MiB before, {halves[0]:.0f} in the first half, {halves[1]:.0f} in the second, at most {max(memory):.0f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--pace", type=float, default=0.01)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(options.jobs, options.users, options.pace, Path(folder)))


if __name__ == "__main__":
    main()
