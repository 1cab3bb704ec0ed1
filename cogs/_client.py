"""The bot itself: what it may see, which commands Discord should know, and who follows its jobs."""

import asyncio
import contextlib
import hashlib
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import discord
import yarl
from discord import app_commands
from discord.ext import commands

from cogs import EXTENSIONS
from cogs._board import Board
from cogs._cards import shorten
from cogs._delivery import GRACE_S, Courier
from cogs._desk import Desk
from cogs._house import House
from cogs._language import Translator
from cogs._next_door import NextDoor
from cogs._replies import FAILURES, refuse
from engine.album import Album
from engine.gallery import Gallery
from engine.history import History
from engine.jobs import Job, Kind
from engine.moderation import Moderation
from engine.preferences import Preferences
from engine.queue import Queue
from engine.rights import Rights
from engine.worker import Worker

log = logging.getLogger(__name__)

PRESENCE_EVERY_S = 20.0
"""Between two looks at what the presence should say; Discord takes five presence updates in twenty seconds."""
MENUS_LIMIT = 15
"""Menus of messages that Discord takes."""
PRESENCE_LIMIT = 128
"""Characters of a custom status."""
EVENTS = ("message", "interaction", "app_command_completion", "raw_", "guild_channel_")
"""How events begin that the features act on."""
ANSWERING = ("CommandTree-invoker", "discord-ui-", *(f"discord.py: on_{event}" for event in EVENTS))
"""How discord.py's tasks begin in which commands, buttons, forms and events are answered."""
INTENTS = discord.Intents(guilds=True, guild_messages=True, guild_reactions=True, dm_messages=True)
"""No privileged one among them: nothing is to be switched on in the portal, and no message is read that is not for the bot."""


Press = Callable[[discord.Interaction, int, int], Awaitable[None]]
"""What a button does with the number and the index in its id."""


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

    def add_command(self, command: Any, /, *args: Any, **options: Any) -> None:
        """Add a command. Since 2025 Discord takes fifteen menus of messages; discord.py 2.7 still stops at five."""
        try:
            super().add_command(command, *args, **options)
        except app_commands.CommandLimitReached:
            menus = [menu for menu in self.get_commands() if isinstance(menu, app_commands.ContextMenu)]
            if not isinstance(command, app_commands.ContextMenu) or len(menus) >= MENUS_LIMIT:
                raise
            self._context_menus[command.name, None, command.type.value] = command

    async def interaction_check(self, interaction: discord.Interaction["Reverie"], /) -> bool:
        """Begin nothing new while the bot stops."""
        return not interaction.client.stopping

    async def on_error(self, interaction: discord.Interaction["Reverie"], error: app_commands.AppCommandError) -> None:
        """Say in one sentence what was wrong with a request."""
        await refuse(interaction, error)


class Loaded:
    """The worker's model, as far as people are to know it."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    @property
    def name(self) -> str:
        """Name shown to people; empty while it is being loaded."""
        return self._worker.painter.model if self._worker.painter else ""

    @property
    def known_words(self) -> Sequence[str] | None:
        """The words of a small model, none of a model that knows more than a list can hold, and None while it is being loaded."""
        return self._worker.painter.known_words if self._worker.painter else None

    @property
    def kinds(self) -> frozenset[Kind]:
        """What the model can do; while it is being loaded, nothing is ruled out."""
        return self.kinds_of("")

    def kinds_of(self, model: str) -> frozenset[Kind]:
        """What a model can do that was asked for by name; while it is not loaded, nothing is ruled out."""
        painter = self._worker.painter_of(model)
        return painter.kinds if painter else frozenset(Kind)

    def can_be_seamless(self, model: str) -> bool:
        """Tell whether a model's pictures may go on in their neighbours; while it is not loaded, nothing is ruled out."""
        painter = self._worker.painter_of(model)
        return painter is None or painter.can_be_seamless


class Reverie(commands.AutoShardedBot):
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
            allowed_installs=app_commands.AppInstallationType(guild=True, user=True),
            allowed_contexts=app_commands.AppCommandContext(guild=True, dm_channel=True, private_channel=True),
            # Members are never asked for, so there is nothing to wait for.
            guild_ready_timeout=0,
        )
        self.queue = queue
        self.worker = worker
        model = Loaded(worker)
        self.preferences = Preferences(history.database)
        self.moderation = Moderation(history)
        self.house = House(self.preferences, self.moderation, worker, queue)
        self.courier = Courier(self, queue, model, self.house, history, progress_every_s)
        self.desk = Desk(self, queue, history, self.courier, model, self.house)
        self.next_door = NextDoor(self, self.desk, history, self.house)
        self.album = Album(history)
        self.gallery = Gallery(history)
        self.rights = Rights(history)
        self.board = Board(self, self.gallery, history, self.preferences, self.house)
        self.stopping = False
        self.presses: dict[str, Press] = {}
        """What each button does, filled in by the features."""
        self.history = history
        self._presence: asyncio.Task[None] | None = None

    async def setup_hook(self) -> None:
        """Load the features, tell Discord of changed commands, take up what the run before left."""
        await self.preferences.load()
        await self.moderation.load()
        await self.load_features()
        try:
            await self._sync_if_changed()
        except FAILURES as error:
            # The commands that Discord knows keep working, and what is unfinished must not wait for this.
            log.error("the commands could not be registered, the next start tries again: %s", error)
        for job in await self.queue.restore():
            if job.origin.prediction is None:
                # What came over HTTP is answered there.
                self.courier.follow(job, restored=True)
        self.courier.followers.append(self.album.painted)
        self.board.start()
        self._presence = asyncio.create_task(self._show_presence())

    async def load_features(self) -> None:
        """Load what people can do, and its translations."""
        await self.tree.set_translator(Translator())
        for extension in EXTENSIONS:
            await self.load_extension(extension)

    @property
    def connected(self) -> bool:
        """Tell whether every connection to Discord stands; discord.py counts as ready also while it connects again."""
        return self.is_ready() and not any(shard.is_closed() for shard in self.shards.values())

    async def remove(self, job: Job, user_id: int) -> None:
        """Forget a result that somebody deleted: it is found, shared and shown no more."""
        await self.history.removed(job, user_id)
        shared = await self.gallery.of_job(job)
        for share in shared:
            await self.gallery.withdraw(share.picture)
        self.board.touch(*[share.picture for share in shared])
        await self.album.forget(await self.history.picture_ids(job))

    async def on_message(self, message: discord.Message, /) -> None:
        """Look for no text commands: there are none. What messages ask for is in cogs/replies.py."""

    def dispatch(self, event: str, /, *args: Any, **kwargs: Any) -> None:
        """Tell the features of an event; nothing new is begun any more once the bot stops."""
        if not (self.stopping and event.startswith(EVENTS)):
            super().dispatch(event, *args, **kwargs)

    async def close(self) -> None:
        """Answer those who are just being answered, stop following jobs and leave Discord."""
        self.stopping = True
        if self._presence:
            self._presence.cancel()
        answering = [task for task in asyncio.all_tasks() if task.get_name().startswith(ANSWERING) and task is not asyncio.current_task()]
        if answering:
            await asyncio.wait(answering, timeout=GRACE_S)
        await self.courier.close()
        await self.board.close()
        await super().close()

    @property
    def commands_key(self) -> str:
        """Under what the digest of the registered commands is remembered."""
        return f"commands of {self.application_id}"

    async def are_commands_registered(self, remembered: str | None) -> bool:
        """Tell whether Discord knows the commands as they are in the code: by the same names, and from the definition that is remembered."""
        known = {command.name for command in await self.tree.fetch_commands()}
        return known == {command.name for command in self.tree.get_commands()} and remembered == await self._digest()

    async def _digest(self) -> str:
        """Return what all that Discord is told of the commands comes to."""
        translator = self.tree.translator
        assert translator is not None
        definition = json.dumps([await command.get_translated_payload(self.tree, translator) for command in self.tree.get_commands()], sort_keys=True)
        return hashlib.sha256(definition.encode()).hexdigest()

    async def _sync_if_changed(self) -> None:
        """Register the commands only when Discord knows others: it allows 200 creations a day, and people's clients reload them."""
        if await self.are_commands_registered(await self.history.recall(self.commands_key)):
            return
        await self.tree.sync()
        await self.history.remember(self.commands_key, await self._digest())
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
