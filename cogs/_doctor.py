"""What keeps the bot from serving, found before people find it: one line for each thing. Nothing is changed, neither here nor at Discord."""

import importlib.metadata
import platform
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import aiohttp
import discord
import yarl

from cogs._cards import shorten
from cogs._client import INTENTS, Endpoint, Reverie
from engine.database import MIGRATIONS, Findings, examine
from engine.errors import Misconfigured
from engine.history import History
from engine.jobs import Painter
from engine.queue import Limits, Queue
from engine.settings import TOKEN, Settings
from engine.worker import Worker, aside

NEEDED = {
    "view_channel": "View Channel",
    "send_messages": "Send Messages",
    "send_messages_in_threads": "Send Messages in Threads",
    "embed_links": "Embed Links",
    "attach_files": "Attach Files",
    "read_message_history": "Read Message History",
    "add_reactions": "Add Reactions",
}
"""Permissions that the bot asks for where it is invited, as Discord's settings call them."""
PRIVILEGED = {"members": "gateway_guild_members", "presences": "gateway_presence", "message_content": "gateway_message_content"}
"""Intents that are switched on in the portal, and the application's flag that tells so; smaller bots have the flag with `_limited`."""
CHANNELS_SHOWN = 20
SERVERS_SHOWN = 100
LEAST_BYTES, SCARCE_BYTES = 200 * 2**20, 2 * 2**30
"""Free on the disk: with less nothing can be kept, or soon."""
FEW_SESSIONS = 50
"""Discord takes the token away from a bot that uses up its starts of a day, a thousand."""
HELLO_S = 15.0
FAULTS = (Misconfigured, discord.DiscordException, aiohttp.ClientError, OSError)
"""How a look can fail; a time that is up is among them."""


class Grade(StrEnum):
    """How a thing is; only a problem keeps the bot from serving."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found about one thing, with the remedy where one is needed."""

    grade: Grade
    about: str
    text: str

    def __str__(self) -> str:
        return f"{self.grade:<8} {self.about}: {' '.join(self.text.split())}"


@dataclass(frozen=True, slots=True)
class Looks:
    """What only the composition root can look at. `files` names the model's files that are still to be fetched, `device` what it will paint on.

    Both raise Misconfigured. `remedy` says of an error what the operator can do about it.
    """

    files: Callable[[], list[str]]
    device: Callable[[], str]
    remedy: Callable[[Exception], str | None]


class Visitor(Reverie):
    """The bot as it stands before Discord's door: it has a token and knows its commands, but registers none and never enters."""

    async def setup_hook(self) -> None:
        """Load the features, for the sake of their commands."""
        await self.load_features()


class Doctor:
    """Looks at everything that the bot needs, first on this machine, then at Discord."""

    def __init__(self, settings: Settings, token: str | None, endpoint: Endpoint | None, looks: Looks) -> None:
        self._settings = settings
        self._token = token
        self._endpoint = endpoint
        self._looks = looks
        self._memory: Mapping[str, str] = {}

    async def examine(self) -> AsyncIterator[Finding]:
        """Look at one thing after the other."""
        for about, look in (
            ("versions", self._versions),
            ("data", self._data),
            ("disk", self._disk),
            ("model", self._model),
            ("device", self._device),
        ):
            async for finding in self._guarded(about, look):
                yield finding
        if self._token is None:
            yield Finding(Grade.PROBLEM, "token", f"there is none. Put {TOKEN}=… into .env, or look at the bot on this machine with --local.")
            return
        async with self._visiting() as visitor:
            try:
                await visitor.login(self._token)
            except FAULTS as error:
                yield self._problem("token", error)
                return
            yield Finding(Grade.OK, "token", f"accepted, the bot is {visitor.user}")
            for about, check in (
                ("application", application),
                ("intents", intents),
                ("gateway", gateway),
                ("servers", servers),
                ("commands", self._commands),
                ("invite", invite),
            ):

                async def visit(check: Callable[[Visitor], Awaitable[list[Finding]]] = check) -> list[Finding]:
                    return await check(visitor)

                async for finding in self._guarded(about, visit):
                    yield finding

    async def _guarded(self, about: str, look: Callable[[], Awaitable[list[Finding]]]) -> AsyncIterator[Finding]:
        try:
            for finding in await look():
                yield finding
        except FAULTS as error:
            yield self._problem(about, error)

    def _problem(self, about: str, error: Exception) -> Finding:
        match error:
            case discord.HTTPException() if self._looks.remedy(error) is None:
                text = f"Discord answers {error.status} {error.text or error.response.reason} (code {error.code})."
            case TimeoutError():
                text = "Discord does not answer in time. Check this machine's network and look again."
            case _:
                text = self._looks.remedy(error) or str(error) or type(error).__name__
        return Finding(Grade.PROBLEM, about, text)

    # On this machine.

    async def _versions(self) -> list[Finding]:
        found = {"Python": platform.python_version()} | {name: importlib.metadata.version(name) for name in ("discord.py", "torch")}
        return [Finding(Grade.OK, "versions", ", ".join(f"{name} {version}" for name, version in found.items()))]

    async def _data(self) -> list[Finding]:
        folder = self._settings.data
        found: Findings = await aside(examine, folder)
        self._memory = found.memory
        writable = f"{folder} can be written" + (", and a bot is running on it" if found.is_in_use else "")
        return [Finding(Grade.OK, "data", writable), Finding(Grade.OK, "database", schema(found.schema))]

    async def _disk(self) -> list[Finding]:
        place = next(folder for folder in (self._settings.data, *self._settings.data.parents) if folder.is_dir())
        free = shutil.disk_usage(place).free
        grade = Grade.PROBLEM if free < LEAST_BYTES else Grade.WARNING if free < SCARCE_BYTES else Grade.OK
        advice = "" if grade is Grade.OK else ". Make room, or set another 'data' in the settings."
        return [Finding(grade, "disk", f"{free / 1e9:.1f} GB are free at {place}{advice}")]

    async def _model(self) -> list[Finding]:
        missing = await aside(self._looks.files)
        if not missing:
            return [Finding(Grade.OK, "model", f"every file of {self._settings.model} is here")]
        text = f"{len(missing)} files of {self._settings.model} are fetched by the first start, which may be gigabytes: {', '.join(missing)}"
        return [Finding(Grade.WARNING, "model", text)]

    async def _device(self) -> list[Finding]:
        return [Finding(Grade.OK, "device", await aside(self._looks.device))]

    # At Discord.

    @asynccontextmanager
    async def _visiting(self) -> AsyncIterator[Visitor]:
        """Make a bot with a memory that is thrown away."""
        async with AsyncExitStack() as stack:
            history = await History.open(Path(stack.enter_context(tempfile.TemporaryDirectory())))
            stack.push_async_callback(history.close)
            queue = Queue(history, Limits(1, 1, 1))
            worker = Worker(queue, history, no_painter)
            yield await stack.enter_async_context(Visitor(queue, history, worker, self._settings.progress_every_s, self._endpoint))

    async def _commands(self, visitor: Visitor) -> list[Finding]:
        remembered = self._memory.get(visitor.commands_key)
        known = {command.name for command in await visitor.tree.fetch_commands()}
        ours = {command.name for command in visitor.tree.get_commands()}
        if await visitor.are_commands_registered(remembered):
            text = f"all {len(ours)} are registered as they are in the code"
        elif not known and remembered is None:
            text = f"the first start registers all {len(ours)}"
        else:
            parts = (("missing", ours - known), ("no longer there", known - ours))
            differences = "; ".join(f"{what}: {', '.join(sorted(names))}" for what, names in parts if names) or "described otherwise"
            text = f"Discord knows others than the code has ({differences}). Start the bot anew, it registers them."
            return [Finding(Grade.WARNING, "commands", text)]
        return [Finding(Grade.OK, "commands", text)]


def no_painter() -> Painter:
    """Stand where a painter is loaded; a visitor paints nothing."""
    raise AssertionError("a visitor loads no model")


def schema(version: int) -> str:
    """Say how far a sound database is."""
    if version == 0:
        return "there is none yet, the first start makes it"
    return f"sound, schema {version}" + ("" if version == len(MIGRATIONS) else f"; the next start brings it to {len(MIGRATIONS)}")


async def application(visitor: Visitor) -> list[Finding]:
    """Look at what is set in the developer portal."""
    facts = await visitor.application_info()
    findings = [Finding(Grade.OK, "application", f"{facts.name}, id {facts.id}" + ("" if facts.bot_public else "; only its owner can invite it"))]
    if facts.interactions_endpoint_url:
        text = "an Interactions Endpoint URL is set, so Discord sends the bot nothing. Empty it on the application's General Information page."
        findings.append(Finding(Grade.PROBLEM, "application", text))
    if facts.bot_require_code_grant:
        text = "it requires a code grant, so the invite link does not work. Switch 'Requires OAuth2 Code Grant' off on its Bot page."
        findings.append(Finding(Grade.PROBLEM, "application", text))
    in_servers, by_people = facts.guild_integration_config, facts.user_integration_config
    if by_people and not in_servers:
        text = "only people can install it. Switch Guild Install on on its Installation page."
        findings.append(Finding(Grade.PROBLEM, "application", text))
    if in_servers and not by_people:
        text = "servers can install it, people for themselves cannot; User Install on its Installation page is what switches that on"
        findings.append(Finding(Grade.OK, "application", text))
    return findings


async def intents(visitor: Visitor) -> list[Finding]:
    """Look whether the portal allows what the bot asks to see."""
    flags = (await visitor.application_info()).flags
    allowed = {intent for intent, flag in PRIVILEGED.items() if getattr(flags, flag) or getattr(flags, f"{flag}_limited")}
    refused = [intent for intent in PRIVILEGED if getattr(INTENTS, intent) and intent not in allowed]
    if refused:
        text = f"Discord does not allow {', '.join(refused)}. Switch them on on the application's Bot page, or take them out of cogs/_client.py."
        return [Finding(Grade.PROBLEM, "intents", text)]
    content = "on" if "message_content" in allowed else "off"
    needs = "needed" if INTENTS.message_content else "not needed"
    return [Finding(Grade.OK, "intents", f"all that the bot asks for are allowed; the message content intent is {content}, and {needs}")]


async def gateway(visitor: Visitor) -> list[Finding]:
    """Knock at the gateway without beginning a session, and look how many may be begun today."""
    shards, address, limit = await visitor.http.get_bot_gateway()
    async with aiohttp.ClientSession() as session, session.ws_connect(yarl.URL(address).with_query(v="10", encoding="json")) as socket:
        try:
            hello = await socket.receive_json(timeout=HELLO_S)
        except (TypeError, ValueError):
            # It hangs up, or says what is no JSON.
            hello = None
    if not isinstance(hello, dict) or hello.get("op") != discord.gateway.DiscordWebSocket.HELLO:
        return [Finding(Grade.PROBLEM, "gateway", "what answers is not Discord's gateway. See what stands between this machine and the internet.")]
    left = limit["remaining"]
    text = f"reachable, {shards} shard(s); {left} of {limit['total']} starts are left for today"
    if left < FEW_SESSIONS:
        hours = limit["reset_after"] / 3_600_000
        grade = Grade.WARNING if left else Grade.PROBLEM
        return [Finding(grade, "gateway", f"{text}. Find out why the bot starts so often; there are more in {hours:.1f} hours.")]
    return [Finding(Grade.OK, "gateway", text)]


async def servers(visitor: Visitor) -> list[Finding]:
    """Look at what the bot may do, channel by channel."""
    places = [guild async for guild in visitor.fetch_guilds(limit=None)]
    if not places:
        return [Finding(Grade.WARNING, "servers", "the bot is in none. Open the link below and choose one.")]
    findings = [await server(visitor, place.id) for place in places[:SERVERS_SHOWN]]
    if len(places) > SERVERS_SHOWN:
        findings.append(Finding(Grade.OK, "servers", f"and {len(places) - SERVERS_SHOWN} more, which are not looked at"))
    return findings


async def server(visitor: Visitor, guild_id: int) -> Finding:
    """Look at one server: a problem where the bot can post in none of its text channels."""
    assert visitor.user is not None, "it has logged in"
    guild = await visitor.fetch_guild(guild_id)
    me = await guild.fetch_member(visitor.user.id)
    channels = [channel for channel in await guild.fetch_channels() if isinstance(channel, discord.TextChannel)]
    lacking = {channel: names for channel in channels if (names := list(missing(channel.permissions_for(me))))}
    about = f"server {shorten(guild.name, 60)}"
    if not lacking:
        return Finding(Grade.OK, about, f"nothing is missing in {len(channels)} text channel(s)")
    shown = "; ".join(f"#{channel.name} ({', '.join(names)})" for channel, names in list(lacking.items())[:CHANNELS_SHOWN])
    more = f"; and {len(lacking) - CHANNELS_SHOWN} more" if len(lacking) > CHANNELS_SHOWN else ""
    found = f"permissions are missing in {len(lacking)} of {len(channels)} text channel(s): {shown}{more}"
    text = f"{found}. Grant them to the bot's role where it is to paint."
    return Finding(Grade.PROBLEM if len(lacking) == len(channels) else Grade.WARNING, about, text)


def missing(granted: discord.Permissions) -> Iterator[str]:
    """Name what the bot may not do in a channel; of one that it does not see, only that."""
    if not granted.view_channel:
        yield NEEDED["view_channel"]
        return
    yield from (words for name, words in NEEDED.items() if not getattr(granted, name))


async def invite(visitor: Visitor) -> list[Finding]:
    """Give the address that brings the bot into a server."""
    assert visitor.application_id is not None, "it has logged in"
    permissions = discord.Permissions(**dict.fromkeys(NEEDED, True))
    return [
        Finding(Grade.OK, "invite", discord.utils.oauth_url(visitor.application_id, permissions=permissions, scopes=("bot", "applications.commands")))
    ]
