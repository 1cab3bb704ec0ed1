"""Reverie, put together: settings → history → queue → worker → bot. No behaviour of its own.

python bot.py            joins Discord with DISCORD_TOKEN, or, without one, opens a page on this machine that behaves like Discord
python bot.py --studio   answers over HTTP as well
python bot.py --backup FOLDER   copies the database and the pictures, also while the bot runs
python bot.py --doctor   looks at everything that the bot needs, and says what is wrong with it and what can be done
"""

import argparse
import asyncio
import contextlib
import json
import logging
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import discord

from cogs._client import Endpoint, Reverie
from cogs._next_door import NextDoor
from engine import logs, models
from engine import settings as settings_module
from engine.errors import Misconfigured
from engine.history import History
from engine.jobs import Painter
from engine.queue import Limits, Queue
from engine.rights import back_up
from engine.settings import Settings
from engine.telemetry import CountingQueue, Counts, Telemetry
from engine.worker import Lane, Worker

log = logging.getLogger("reverie")

CONFIG = Path(__file__).parent / "configs" / "bot.toml"
PORTAL = "https://discord.com/developers/applications"


def main() -> int:
    """Run the bot until it is told to stop, and return its exit code."""
    parser = argparse.ArgumentParser(description="Reverie, a Discord bot that paints with DALL-E 2.")
    parser.add_argument("--config", type=Path, default=CONFIG, help="settings file (default: configs/bot.toml)")
    parser.add_argument("--local", action="store_true", help="open the page on this machine even where there is a token")
    parser.add_argument("--studio", action="store_true", help="answer over HTTP as well, at studio_address and studio_port of the settings")
    parser.add_argument("--backup", type=Path, metavar="FOLDER", help="copy the database and the pictures there, also while a bot runs, and end")
    parser.add_argument("--doctor", action="store_true", help="look at everything that the bot needs, say what is wrong, and end")
    options = parser.parse_args()
    settings = None
    try:
        if options.doctor:
            return asyncio.run(check_up(options.config, options.local))
        settings = settings_module.load(options.config)
        if options.backup is not None:
            pictures = back_up(settings.data, options.backup, print)
            print(f"{options.backup} holds the database and {pictures} pictures.")
            return 0
        logs.start(settings.log_level, settings.log_format)
        asyncio.run(run(settings, options.local or settings.token is None, options.studio))
    except (Misconfigured, discord.DiscordException, aiohttp.ClientConnectionError) as error:
        if (sentence := remedy(error)) is None:
            raise
        if settings is not None and settings.log_format == "json":
            log.critical("%s", sentence)
        else:
            print(sentence, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def remedy(error: Exception) -> str | None:
    """Say what keeps the bot from running and what the operator can do about it; None where nobody but us can."""
    match error:
        case Misconfigured():
            return str(error)
        case discord.LoginFailure() | discord.ConnectionClosed(code=4004):
            return f"Discord does not accept {settings_module.TOKEN}. Reset the token on the Bot page of {PORTAL} and put the new one into .env."
        case discord.PrivilegedIntentsRequired():
            return f"Discord wants the bot's privileged intents switched on. Do so on the Bot page of {PORTAL}, or take them out of cogs/_client.py."
        case discord.DiscordServerError():
            return f"Discord is out of order just now ({error.status}). Start again in some minutes; https://discordstatus.com knows more."
        case aiohttp.ClientConnectionError():
            return f"Discord cannot be reached ({error}). Check this machine's network and start again."
        case _:
            return None


async def run(settings: Settings, local: bool, studio: bool = False) -> None:
    """Hold everything open while the bot runs; the first part that ends, ends the rest."""
    history = await History.open(settings.data)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(history.close)
        endpoint = await stack.enter_async_context(this_machine(settings)) if local else None
        token = LOCAL_TOKEN if settings.token is None or local else settings.token.get_secret_value()
        counts = Counts()
        queue = CountingQueue(history, Limits(settings.waiting, settings.per_user, settings.per_server), counts)
        first, *others = (
            Lane(partial(models.load_painter, settings.model, device, settings.dtype), Others(settings, device)) for device in devices_of(settings)
        )
        worker = Worker(queue, history, first.load, settings.progress_every_s, first.others, others)
        bot = await stack.enter_async_context(Reverie(queue, history, worker, settings.progress_every_s, endpoint))
        await stack.enter_async_context(Telemetry(counts, queue, worker, bot, settings.data).served(settings.metrics_port))
        more = [open_studio(settings, queue, history, worker, bot.next_door)] if studio else []
        await first_of(bot.start(token), worker.run(), told_to_stop(), *more)


def open_studio(settings: Settings, queue: Queue, history: History, worker: Worker, next_door: NextDoor) -> Coroutine[Any, Any, None]:
    """Take the studio's port, say where it is, and let Discord's side know; what is returned answers there.

    Raises:
        Misconfigured: the port cannot be had, or others could reach it and there are no keys.
    """
    # What only the studio needs is not loaded without it.
    from engine.studio import Studio

    opened = Studio(settings, queue, history, worker, neighbour=next_door)
    next_door.open(settings.studio_url or opened.address, settings.studio_channels)
    print(f"\n  The studio is at  {opened.address}\n", flush=True)
    return opened.run()


LOCAL_TOKEN = "loopback"
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.asynccontextmanager
async def this_machine(settings: Settings) -> AsyncIterator[Endpoint]:
    """Put Discord on this machine and say where its page is."""
    from loopback import Loopback

    server = Loopback(port=settings.page_port, folder=settings.data / "loopback")
    try:
        await server.start()
    except OSError as error:
        raise Misconfigured(
            f"Port {settings.page_port} of this machine is taken ({error.strerror}). Set another page_port, or 0 for any free one."
        ) from None
    try:
        print(f"\n  The bot is on this machine only: open  {server.page}  and type /dream\n", flush=True)
        yield Endpoint(server.api, server.gateway)
    finally:
        await server.stop()


async def check_up(config: Path, local: bool) -> int:
    """Print what the doctor finds, and return 1 where something keeps the bot from serving."""
    from cogs._doctor import Doctor, Finding, Grade, Looks

    # What the doctor finds is all that is to be said.
    logging.basicConfig(level=logging.CRITICAL)
    try:
        settings = settings_module.load(config)
    except Misconfigured as error:
        print(Finding(Grade.PROBLEM, "settings", str(error)))
        return 1
    print(Finding(Grade.OK, "settings", str(config)))
    token = LOCAL_TOKEN if local else settings.token.get_secret_value() if settings.token else None
    looks = Looks(lambda: missing_files(settings), lambda: device_of(settings), remedy)
    grades = set()
    async with contextlib.AsyncExitStack() as stack:
        endpoint = await stack.enter_async_context(copy_of_this_machine(settings)) if local else None
        async for finding in Doctor(settings, token, endpoint, looks).examine():
            print(finding, flush=True)
            grades.add(finding.grade)
    return int(Grade.PROBLEM in grades)


@contextlib.asynccontextmanager
async def copy_of_this_machine(settings: Settings) -> AsyncIterator[Endpoint]:
    """Put a copy of this machine's Discord beside it, so that nobody disturbs a bot that runs there."""
    from loopback import Loopback

    with tempfile.TemporaryDirectory() as folder:
        for path in (settings.data / "loopback").glob("*.json"):
            shutil.copy(path, folder)
        async with Loopback(folder=Path(folder)) as server:
            yield Endpoint(server.api, server.gateway)


def missing_files(settings: Settings) -> list[str]:
    """Return which files of the models are still to be fetched.

    Raises:
        Misconfigured: a model config is wrong, or a file that should be on this machine is missing.
    """
    from engine.files import kept

    configs = (settings.model, *settings.other_models().values())
    return [file.path for config in configs for file in models.read_config(config).files if kept(file, config.parent) is None]


def device_of(settings: Settings) -> str:
    """Say what the model will paint on.

    Raises:
        Misconfigured: there is no such device.
    """
    from engine.unclip.memory import described
    from engine.unclip.model import choose_device

    return described(choose_device(settings.device, models.read_config(settings.model).devices))


@dataclass(frozen=True, slots=True)
class Loader:
    """Loads a model; equal to another one while its config is the same file. `changed_ns` is when that was written, 0 where it is missing."""

    settings: Settings
    config: Path
    device: str
    changed_ns: int

    def __call__(self) -> Painter:
        """Load it, on its device's thread."""
        return models.load_painter(self.config, self.device, self.settings.dtype)


class Others(Mapping[str, Loader]):
    """What loads the models that people may choose beside the usual one, by their names, as they are whenever somebody asks."""

    def __init__(self, settings: Settings, device: str) -> None:
        self._settings, self._device = settings, device

    def __getitem__(self, name: str) -> Loader:
        config = self._settings.other_models()[name]
        try:
            changed_ns = config.stat().st_mtime_ns
        except OSError:
            changed_ns = 0
        return Loader(self._settings, config, self._device, changed_ns)

    def __iter__(self) -> Iterator[str]:
        return iter(self._settings.other_models())

    def __len__(self) -> int:
        return len(self._settings.other_models())


def devices_of(settings: Settings) -> list[str]:
    """Name the devices to paint on: all that the model config lists, where the settings leave it to that; one is chosen by who loads it."""
    try:
        # Read without torch, and whatever is wrong with it is told by who loads it.
        listed = json.loads(settings.model.read_bytes()).get("devices")
    except (OSError, ValueError, AttributeError):
        listed = None
    several = isinstance(listed, list) and len(listed) > 1 and all(isinstance(name, str) for name in listed)
    return listed if several and settings.device == "auto" else [settings.device]


async def told_to_stop() -> None:
    """Wait for SIGINT or SIGTERM. Who sends a second one does not want to wait for an orderly stop, and need not."""
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    for number in SIGNALS:
        loop.add_signal_handler(number, told.set)
    await told.wait()
    for number in SIGNALS:
        loop.remove_signal_handler(number)
    log.info("stopping")


async def first_of(*parts: Coroutine[Any, Any, None]) -> None:
    """Run parts side by side until one ends, stop the others in order, and raise what the first one raised."""
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    sys.exit(main())
