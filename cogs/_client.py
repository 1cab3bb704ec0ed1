"""The bot itself: what it may see, which commands Discord should know, and who follows its jobs."""

import asyncio
import contextlib
import hashlib
import json
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import discord
import yarl
from discord import app_commands
from discord.ext import commands

from cogs import EXTENSIONS
from cogs._address import FAILURES
from cogs._cards import shorten
from cogs._delivery import Courier
from cogs._replies import OldCommand, sentence
from engine.errors import Broken, EngineError
from engine.history import History
from engine.queue import Queue
from engine.worker import Worker

log = logging.getLogger(__name__)

PRESENCE_EVERY_S = 20.0
"""Between two looks at what the presence should say; Discord takes five presence updates in twenty seconds."""
PRESENCE_LIMIT = 128
"""Characters of a custom status."""
INTENTS = discord.Intents(guilds=True, guild_messages=True, dm_messages=True)
"""No privileged one among them: nothing is to be switched on in the portal, and no message is read that is not for the bot."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Another place than discord.com that speaks its protocol."""

    api: str
    gateway: str

    def use(self) -> None:
        """Point discord.py at it, for this whole process."""
        discord.http.Route.BASE = self.api
        discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(self.gateway)


class Tree(app_commands.CommandTree["Reverie"]):
    """Answers for commands that fail."""

    async def on_error(self, interaction: discord.Interaction["Reverie"], error: app_commands.AppCommandError) -> None:
        """Say in one sentence what was wrong with a request; what is our fault goes to the log, with a reference to it."""
        cause = error.original if isinstance(error, app_commands.CommandInvokeError) else error
        if isinstance(cause, (app_commands.CommandNotFound, app_commands.CommandSignatureMismatch)):
            cause = OldCommand()
        if not isinstance(cause, EngineError):
            cause = Broken(secrets.token_hex(3))
            log.error("command failed, reference %s", cause.reference, exc_info=error)
        answer = interaction.followup.send if interaction.response.is_done() else interaction.response.send_message
        try:
            await answer(sentence(cause), ephemeral=True)
        except FAILURES as failure:
            log.warning("a refusal could not be told: %s", failure)


class Reverie(commands.Bot):
    """Discord's side of the house. Everything it needs is handed in; cogs take it from here."""

    def __init__(self, queue: Queue, history: History, worker: Worker, progress_every_s: float, endpoint: Endpoint | None = None) -> None:
        if endpoint:
            endpoint.use()
        # Nothing here speaks, so nobody needs to hear that the libraries for voice are missing.
        discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False
        super().__init__(
            # Never used, see on_message; discord.py insists on one, and warns of the missing intent for others.
            command_prefix=commands.when_mentioned,
            help_command=None,
            tree_cls=Tree,
            intents=INTENTS,
            allowed_mentions=discord.AllowedMentions.none(),
            allowed_installs=app_commands.AppInstallationType(guild=True, user=False),
            allowed_contexts=app_commands.AppCommandContext(guild=True, dm_channel=True, private_channel=False),
            # Members are never asked for, so there is nothing to wait for.
            guild_ready_timeout=0,
        )
        self.queue = queue
        self.worker = worker
        self.courier = Courier(self, queue, self.known_words, progress_every_s)
        self._history = history
        self._presence: asyncio.Task[None] | None = None

    async def setup_hook(self) -> None:
        """Load the features, tell Discord of changed commands, take up what the run before left."""
        for extension in EXTENSIONS:
            await self.load_extension(extension)
        try:
            await self._sync_if_changed()
        except FAILURES as error:
            # The commands that Discord knows keep working, and what is unfinished must not wait for this.
            log.error("the commands could not be registered, the next start tries again: %s", error)
        for job in await self.queue.restore():
            self.courier.follow(job, restored=True)
        self._presence = asyncio.create_task(self._show_presence())

    async def on_message(self, message: discord.Message, /) -> None:
        """Leave messages alone: there are no text commands."""

    async def close(self) -> None:
        """Stop following jobs and leave Discord."""
        if self._presence:
            self._presence.cancel()
        await self.courier.close()
        await super().close()

    async def _sync_if_changed(self) -> None:
        """Register the commands only when Discord knows others: it allows 200 creations a day, and people's clients reload them."""
        definition = json.dumps([command.to_dict(self.tree) for command in self.tree.get_commands()], sort_keys=True)
        digest = hashlib.sha256(definition.encode()).hexdigest()
        key = f"commands of {self.application_id}"
        known = {command.name for command in await self.tree.fetch_commands()}
        if known == {command.name for command in self.tree.get_commands()} and await self._history.recall(key) == digest:
            return
        await self.tree.sync()
        await self._history.remember(key, digest)
        log.info("commands registered")

    async def _show_presence(self) -> None:
        """Show the model and how many jobs wait."""
        await self.worker.ready.wait()
        await self.wait_until_ready()
        shown = None
        while True:
            assert self.worker.painter is not None
            waiting = self.queue.waiting
            text = f"{self.worker.painter.model} · {waiting} waiting" if waiting else f"{self.worker.painter.model} · /dream"
            if text != shown:
                # Discord forgets it with the session; discord.py says this one again when it makes a new one.
                self.activity = discord.CustomActivity(shorten(text, PRESENCE_LIMIT))
                # Where the connection is away just now, the next look tries again.
                with contextlib.suppress(*FAILURES):
                    await self.change_presence(activity=self.activity)
                    shown = text
            await asyncio.sleep(PRESENCE_EVERY_S)

    def known_words(self) -> Sequence[str] | None:
        """Return the words of a small model, none of a model that knows more than a list can hold, and None while it is being loaded."""
        return self.worker.painter.known_words if self.worker.painter else None
