"""Reverie, put together: settings → history → queue → worker → bot. No behaviour of its own.

python bot.py            joins Discord with DISCORD_TOKEN, or, without one, opens a page on this machine that behaves like Discord
"""

import argparse
import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import aiohttp
import discord

from cogs._client import Endpoint, Reverie
from engine import settings as settings_module
from engine.errors import Misconfigured
from engine.history import History
from engine.jobs import Painter
from engine.queue import Limits, Queue
from engine.settings import Settings
from engine.worker import Worker

log = logging.getLogger("reverie")

CONFIG = Path(__file__).parent / "configs" / "bot.toml"
PORTAL = "https://discord.com/developers/applications"


def main() -> int:
    """Run the bot until it is told to stop, and return its exit code."""
    parser = argparse.ArgumentParser(description="Reverie, a Discord bot that paints with DALL-E 2.")
    parser.add_argument("--config", type=Path, default=CONFIG, help="settings file (default: configs/bot.toml)")
    parser.add_argument("--local", action="store_true", help="open the page on this machine even where there is a token")
    options = parser.parse_args()
    try:
        settings = settings_module.load(options.config)
        start_logging(settings.log_level)
        asyncio.run(run(settings, local=options.local or settings.token is None))
    except (Misconfigured, discord.DiscordException, aiohttp.ClientConnectionError) as error:
        if (sentence := remedy(error)) is None:
            raise
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


def start_logging(level: str) -> None:
    """Log to stderr: this program from `level` on, libraries from warnings on, since their details hold prompts and tokens."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    for name in ("reverie", "cogs", "engine", "loopback"):
        logging.getLogger(name).setLevel(level)


async def run(settings: Settings, local: bool) -> None:
    """Hold everything open while the bot runs; the first part that ends, ends the rest."""
    history = await History.open(settings.data)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(history.close)
        endpoint = await stack.enter_async_context(this_machine(settings)) if local else None
        token = LOCAL_TOKEN if settings.token is None or local else settings.token.get_secret_value()
        queue = Queue(history, Limits(settings.waiting, settings.per_user, settings.per_server))
        worker = Worker(queue, history, lambda: load_painter(settings), settings.progress_every_s)
        bot = await stack.enter_async_context(Reverie(queue, history, worker, settings.progress_every_s, endpoint))
        await first_of(bot.start(token), worker.run(), told_to_stop())


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


def load_painter(settings: Settings) -> Painter:
    """Load the model. Runs on the engine thread, so that the bot is in Discord before torch is even imported."""
    from engine.unclip.painter import Painter as Unclip

    return Unclip.from_config(settings.model, settings.device, settings.dtype)


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
