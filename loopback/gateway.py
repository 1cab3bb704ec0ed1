"""The gateway: a websocket on which the bot hears of everything, and takes up again what it missed."""

import asyncio
import json
import logging
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from aiohttp import WSMsgType, web

from loopback import permissions, wire
from loopback.line import Line
from loopback.values import Channel, Guild, Interaction, Json, Message, Role, User
from loopback.world import Event, World

log = logging.getLogger(__name__)

HEARTBEAT_MS = 41_250
"""Discord's usual interval."""
ACK_AFTER_S = 0.05
"""About as long as Discord's answer takes on its way."""
REPLAYED = 2_000
"""Events kept for a session that may come back."""
SESSIONS_KEPT = 4
AUTHENTICATION_FAILED, NOT_AUTHENTICATED, INVALID_SEQUENCE, DISALLOWED_INTENTS, DECODE_ERROR = 4004, 4003, 4007, 4014, 4002


class Op(IntEnum):
    """Gateway opcodes."""

    DISPATCH = 0
    HEARTBEAT = 1
    IDENTIFY = 2
    PRESENCE = 3
    RESUME = 6
    RECONNECT = 7
    REQUEST_MEMBERS = 8
    INVALID_SESSION = 9
    HELLO = 10
    ACK = 11


class Intent(IntEnum):
    """Gateway intents: what a bot wants to hear of."""

    GUILDS = 1 << 0
    GUILD_MEMBERS = 1 << 1
    GUILD_PRESENCES = 1 << 8
    GUILD_MESSAGES = 1 << 9
    GUILD_REACTIONS = 1 << 10
    DM_MESSAGES = 1 << 12
    DM_REACTIONS = 1 << 13
    MESSAGE_CONTENT = 1 << 15


@dataclass(eq=False, slots=True)
class Session:
    """One life of a bot on the gateway, over any number of connections."""

    id: str
    intents: int
    sequence: int = 0
    sent: deque[tuple[int, str]] = field(default_factory=lambda: deque(maxlen=REPLAYED), repr=False)
    line: Line | None = field(default=None, repr=False)
    presence: Json = field(default_factory=dict)

    def dispatch(self, event: str, data: Json) -> None:
        """Send an event now, or when the bot comes back."""
        self.sequence += 1
        text = json.dumps({"op": Op.DISPATCH, "t": event, "s": self.sequence, "d": data})
        self.sent.append((self.sequence, text))
        if self.line:
            self.line.send(text)


class Gateway:
    """Keeps the sessions of the bot and tells them what happens in the world."""

    def __init__(self, world: World, token: str, allowed_intents: int) -> None:
        self._world = world
        self._token = token
        self._allowed_intents = allowed_intents
        self._known: dict[str, Session] = {}
        self.address = ""
        world.listeners.append(self.hear)

    @property
    def sessions(self) -> list[Session]:
        """Sessions with an open connection."""
        return [session for session in self._known.values() if session.line]

    @property
    def presence(self) -> Json | None:
        """What the bot shows of itself; None while it is offline."""
        return next((session.presence for session in self.sessions), None)

    def drop(self, resumable: bool = True) -> None:
        """Cut every connection without a word; the bot may take the session up again, or not."""
        for session in self.sessions:
            assert session.line
            session.line.close(4000)
            self._hang_up(session)
            if not resumable:
                del self._known[session.id]

    def reconnect(self) -> None:
        """Ask the bot to connect again and resume (op 7)."""
        for session in self.sessions:
            assert session.line
            session.line.send({"op": Op.RECONNECT, "d": None})

    def invalidate(self) -> None:
        """Tell the bot that its session is over and must begin anew (op 9)."""
        for session in self.sessions:
            assert session.line
            del self._known[session.id]
            session.line.send({"op": Op.INVALID_SESSION, "d": False})

    def close(self) -> None:
        """Hang up for good: the server goes away."""
        for session in self.sessions:
            assert session.line
            session.line.close(1001)

    # A connection.

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Talk with the bot until it or the server hangs up."""
        socket = web.WebSocketResponse(max_msg_size=1 << 16)
        await socket.prepare(request)
        line = Line(socket)
        line.send({"op": Op.HELLO, "d": {"heartbeat_interval": HEARTBEAT_MS, "_trace": []}})
        writer = asyncio.create_task(line.write())
        session: Session | None = None
        try:
            async for message in socket:
                if message.type is not WSMsgType.TEXT:
                    line.close(DECODE_ERROR)
                    continue
                session = self._receive(line, session, json.loads(message.data))
        except (ValueError, KeyError, TypeError):
            log.exception("the bot sent what is no gateway message")
            await socket.close(code=DECODE_ERROR)
        finally:
            writer.cancel()
            if session and session.line is line:
                self._hang_up(session)
                # Who closes with these codes ends the session, as on Discord.
                if socket.close_code in (1000, 1001):
                    self._known.pop(session.id, None)
        return socket

    def _receive(self, line: Line, session: Session | None, message: Json) -> Session | None:
        op: int = message["op"]
        data: Any = message.get("d")
        if op == Op.HEARTBEAT:
            # discord.py notes the time of its heartbeat after sending it: an answer as fast as this one could be would come before that.
            asyncio.get_running_loop().call_later(ACK_AFTER_S, line.send, {"op": Op.ACK})
        elif op == Op.IDENTIFY and session is None:
            return self._identify(line, data)
        elif op == Op.RESUME and session is None:
            return self._resume(line, data)
        elif session is None:
            line.close(NOT_AUTHENTICATED)
        elif op == Op.PRESENCE:
            session.presence = data
            self._world.emit("bot")
        elif op == Op.REQUEST_MEMBERS:
            self._members(session, data)
        return session

    def _identify(self, line: Line, data: Json) -> Session | None:
        if data.get("token") != self._token:
            line.close(AUTHENTICATION_FAILED)
            return None
        if data["intents"] & ~self._allowed_intents:
            line.close(DISALLOWED_INTENTS)
            return None
        session = Session(secrets.token_hex(8), data["intents"], line=line, presence=data.get("presence") or {})
        self._known[session.id] = session
        for old in [old for old in self._known.values() if not old.line][:-SESSIONS_KEPT]:
            del self._known[old.id]
        home = str(self._world.guild.id)
        session.dispatch(
            "READY",
            {
                "v": 10,
                "user": wire.user(self._world.bot) | {"flags": 0, "mfa_enabled": True, "verified": True},
                "guilds": [{"id": home, "unavailable": True}],
                "session_id": session.id,
                "resume_gateway_url": self.address,
                "application": {"id": str(self._world.bot.id), "flags": 0},
                "shard": data.get("shard") or [0, 1],
            },
        )
        if session.intents & Intent.GUILDS:
            session.dispatch("GUILD_CREATE", wire.guild_create(self._world))
        log.info("the bot has connected")
        self._world.emit("bot")
        return session

    def _resume(self, line: Line, data: Json) -> Session | None:
        if data.get("token") != self._token:
            line.close(AUTHENTICATION_FAILED)
            return None
        session = self._known.get(data["session_id"])
        first = session.sent[0][0] if session and session.sent else 1
        if session is None or data["seq"] is None or data["seq"] > session.sequence or data["seq"] < first - 1:
            line.send({"op": Op.INVALID_SESSION, "d": False})
            return None
        for number, text in session.sent:
            if number > data["seq"]:
                line.send(text)
        session.line = line
        session.dispatch("RESUMED", {"_trace": []})
        self._world.emit("bot")
        return session

    def _hang_up(self, session: Session) -> None:
        session.line = None
        self._world.emit("bot")

    def _members(self, session: Session, data: Json) -> None:
        wanted = data.get("user_ids")
        ids = {int(user) for user in (wanted if isinstance(wanted, list) else [wanted])} if wanted else None
        people = [wire.member(self._world, person) for person in self._world.users.values() if ids is None or person.id in ids]
        home = str(self._world.guild.id)
        chunk = {"guild_id": home, "members": people, "chunk_index": 0, "chunk_count": 1, "not_found": [], "nonce": data.get("nonce")}
        session.dispatch("GUILD_MEMBERS_CHUNK", chunk)

    # What the bot hears.

    def hear(self, event: Event) -> None:
        """Tell every session what happened, as far as its intents and permissions go."""
        tellers: dict[str, Callable[[Any], None]] = {
            "message": self._tell_message,
            "edit": self._tell_edit,
            "delete": self._tell_delete,
            "delete-many": self._tell_delete_many,
            "reaction": self._tell_reaction,
            "reactions-cleared": self._tell_cleared,
            "interaction": self._tell_interaction,
            "channel": lambda channel: self._tell_channel(channel, "CHANNEL_CREATE"),
            "channel-edit": lambda channel: self._tell_channel(channel, "CHANNEL_UPDATE"),
            "channel-delete": lambda channel: self._tell_channel(channel, "CHANNEL_DELETE"),
            "membership": self._tell_membership,
            "guild": self._tell_guild,
            "role": self._tell_role,
        }
        if event.kind in tellers:
            tellers[event.kind](event.subject)

    def _tell(self, intent: int, name: str, data: Json) -> None:
        for session in self._known.values():
            if session.intents & intent:
                session.dispatch(name, data)

    def _tell_message(self, message: Message, name: str = "MESSAGE_CREATE") -> None:
        direct = message.channel.recipient is not None
        if message.ephemeral or not self._sees(message.channel):
            return
        told = wire.message(self._world, message, guild_event=True)
        hidden = wire.hide_content(told, self._world.bot)
        for session in self._known.values():
            if session.intents & (Intent.DM_MESSAGES if direct else Intent.GUILD_MESSAGES):
                session.dispatch(name, told if direct or session.intents & Intent.MESSAGE_CONTENT else hidden)

    def _tell_edit(self, message: Message) -> None:
        self._tell_message(message, "MESSAGE_UPDATE")

    def _tell_delete(self, message: Message) -> None:
        if not message.ephemeral and self._sees(message.channel):
            intent = Intent.DM_MESSAGES if message.channel.recipient else Intent.GUILD_MESSAGES
            self._tell(intent, "MESSAGE_DELETE", self._place(message.channel) | {"id": str(message.id)})

    def _tell_delete_many(self, change: tuple[Channel, list[Message]]) -> None:
        channel, messages = change
        ids = [str(message.id) for message in messages if not message.ephemeral]
        if ids and self._sees(channel):
            self._tell(Intent.GUILD_MESSAGES, "MESSAGE_DELETE_BULK", self._place(channel) | {"ids": ids})

    def _tell_reaction(self, change: tuple[Message, str, User, bool]) -> None:
        message, emoji, person, added = change
        data = {"user_id": str(person.id), "emoji": {"id": None, "name": emoji}, "burst": False, "type": 0}
        if added:
            data |= {"message_author_id": str(message.author.id)}
            data |= {"member": wire.member(self._world, person)} if message.channel.guild_id else {}
        self._tell_of_reactions(message, "MESSAGE_REACTION_ADD" if added else "MESSAGE_REACTION_REMOVE", data)

    def _tell_cleared(self, change: tuple[Message, str | None]) -> None:
        message, emoji = change
        if emoji is None:
            self._tell_of_reactions(message, "MESSAGE_REACTION_REMOVE_ALL", {})
        else:
            self._tell_of_reactions(message, "MESSAGE_REACTION_REMOVE_EMOJI", {"emoji": {"id": None, "name": emoji}})

    def _tell_of_reactions(self, message: Message, name: str, data: Json) -> None:
        if not message.ephemeral and self._sees(message.channel):
            intent = Intent.DM_REACTIONS if message.channel.recipient else Intent.GUILD_REACTIONS
            self._tell(intent, name, self._place(message.channel) | {"message_id": str(message.id)} | data)

    def _tell_interaction(self, use: Interaction) -> None:
        if not use.acknowledged.is_set() and not use.missed:
            # Interactions need no intent.
            for session in self._known.values():
                session.dispatch("INTERACTION_CREATE", wire.interaction(self._world, use))

    def _tell_channel(self, channel: Channel, name: str) -> None:
        if channel.foreign or channel.recipient:
            return
        told = wire.channel(self._world, channel)
        if channel.parent:
            name = name.replace("CHANNEL", "THREAD")
            told |= {"newly_created": True} if name == "THREAD_CREATE" else {}
            told = {key: told[key] for key in ("id", "guild_id", "parent_id", "type")} if name == "THREAD_DELETE" else told
        self._tell(Intent.GUILDS, name, told)

    def _tell_guild(self, guild: Guild) -> None:
        self._tell(Intent.GUILDS, "GUILD_UPDATE", wire.guild(self._world))

    def _tell_role(self, role: Role) -> None:
        self._tell(Intent.GUILDS, "GUILD_ROLE_CREATE", {"guild_id": str(self._world.guild.id), "role": wire.role(self._world, role)})

    def _tell_membership(self, thread: Channel) -> None:
        told = self._place(thread) | {"member_count": wire.member_count(thread)}
        told["id"] = told.pop("channel_id")
        if thread.joined_at is None:
            told["removed_member_ids"] = [str(self._world.bot.id)]
        else:
            person = {"member": wire.member(self._world, self._world.bot), "presence": None}
            told["added_members"] = [wire.thread_member(self._world, thread) | person]
        self._tell(Intent.GUILDS, "THREAD_MEMBERS_UPDATE", told)

    @staticmethod
    def _sees(channel: Channel) -> bool:
        """Tell whether the bot hears of what happens in a place."""
        return not channel.foreign and bool(channel.permissions & permissions.VIEW_CHANNEL)

    @staticmethod
    def _place(channel: Channel) -> dict[str, Any]:
        place = {"channel_id": str(channel.id)}
        return place | ({"guild_id": str(channel.guild_id)} if channel.guild_id else {})
