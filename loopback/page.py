"""What stands behind the page: it shows the world as it changes, over a websocket, and carries out what a person does."""

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import BodyPartReader, web

from loopback import permissions, wire
from loopback.gateway import Gateway
from loopback.line import Line
from loopback.options import NotSent
from loopback.people import People
from loopback.refusals import Refusal
from loopback.values import Channel, File, Interaction, Json, Message, User
from loopback.world import Event

log = logging.getLogger(__name__)

FOLDER = Path(__file__).parent / "page"
FILES = {"/": ("index.html", "text/html"), "/page/page.css": ("page.css", "text/css"), "/page/page.js": ("page.js", "text/javascript")}
FILES |= {f"/page/{name}.js": (f"{name}.js", "text/javascript") for name in ("markup", "messages", "composer", "forms")}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
SHOWN_OF_A_CHANNEL = 200
UPLOAD_LIMIT = 12 * 1024 * 1024
ACTIVITY = {0: "Playing ", 1: "Streaming ", 2: "Listening to ", 3: "Watching ", 5: "Competing in "}


class Page:
    """Serves the page, its websocket and its actions."""

    def __init__(self, people: People, gateway: Gateway) -> None:
        self._people = people
        self._world = people.world
        self._gateway = gateway
        self._lines: set[Line] = set()
        self._actions: dict[str, Callable[[User, Json, list[File]], Awaitable[Json]]] = {
            "command": self._command,
            "autocomplete": self._autocomplete,
            "menu": self._menu,
            "press": self._press,
            "modal": self._modal,
            "say": self._say,
            "react": self._react,
            "delete": self._delete,
            "dismiss": self._dismiss,
            "dm": self._dm,
            "channel": self._open_channel,
            "locale": self._locale,
            "moderator": self._moderator,
            "owner": self._owner,
        }
        self._world.listeners.append(self._hear)

    def add_routes(self, app: web.Application) -> None:
        for path in FILES:
            app.router.add_get(path, self._file)
        app.router.add_get("/page/socket", self._socket)
        app.router.add_post("/page/act", self._act)

    def close(self) -> None:
        """Hang up on every open page."""
        for line in self._lines:
            line.close(1001)

    async def _file(self, request: web.Request) -> web.Response:
        name, content_type = FILES[request.path]
        return web.Response(text=(FOLDER / name).read_text(), content_type=content_type, headers=HEADERS)

    # What the page sees.

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(heartbeat=20)
        await socket.prepare(request)
        line = Line(socket)
        line.send(self._frame() | {"kind": "state", "messages": self._messages()})
        self._lines.add(line)
        writer = asyncio.create_task(line.write())
        try:
            async for _ in socket:
                # The page only listens here; it acts over HTTP.
                continue
        finally:
            self._lines.discard(line)
            writer.cancel()
        return socket

    def _hear(self, event: Event) -> None:
        if not self._lines:
            return
        told = self._told(event.kind, event.subject)
        for line in self._lines:
            line.send(told)

    def _told(self, kind: str, subject: Any) -> Json:
        match kind:
            case "message" | "edit":
                return {"kind": kind, "message": self._message(subject)}
            case "reaction" | "reactions-cleared":
                return {"kind": "edit", "message": self._message(subject[0])}
            case "delete":
                return {"kind": kind, "ids": [str(subject.id)], "channel_id": str(subject.channel.id)}
            case "delete-many":
                return {"kind": "delete", "ids": [str(message.id) for message in subject[1]], "channel_id": str(subject[0].id)}
            case "interaction":
                return {"kind": kind, "interaction": self._interaction(subject)}
            case "typing":
                return {"kind": kind, "channel_id": str(subject[0].id), "name": subject[1].name}
            case _:
                return self._frame() | {"kind": "frame"}

    def _frame(self) -> Json:
        """Return everything but the messages."""
        presence = self._gateway.presence
        return {
            "guild": self._world.guild.name,
            "bot": {
                "id": str(self._world.bot.id),
                "name": self._world.bot.name,
                "online": presence is not None,
                "activity": activity(presence or {}),
            },
            "owner": str(self._world.guild.owner_id),
            "users": [_person(user) for user in self._world.users.values()],
            "roles": [{"id": str(role.id), "name": role.name} for role in self._world.roles.values()],
            "channels": [_place(channel) for channel in self._world.channels.values()],
            "commands": self._world.commands[self._world.guild.id] + self._world.commands[None],
        }

    def _messages(self) -> list[Json]:
        recent = [message for channel in self._world.channels.values() for message in channel.messages[-SHOWN_OF_A_CHANNEL:]]
        return [self._message(message) for message in recent]

    def _message(self, message: Message) -> Json:
        told = wire.message(self._world, message)
        reacted = {emoji: [str(person) for person in by] for emoji, by in message.reactions.items()}
        visible_to = str(message.visible_to) if message.visible_to else None
        return told | {"visible_to": visible_to, "thinking": message.thinking, "reacted": reacted}

    def _interaction(self, use: Interaction) -> Json:
        state = "missed" if use.missed else "answered" if use.acknowledged.is_set() else "waiting"
        return {
            "id": str(use.id),
            "type": use.type,
            "name": use.name,
            "user_id": str(use.user.id),
            "channel_id": str(use.channel.id),
            "source_id": str(use.source.id) if use.source else None,
            "state": state,
            "modal": use.modal,
        }

    # What a person does.

    async def _act(self, request: web.Request) -> web.Response:
        """Carry out one action; what a person did wrong comes back as a sentence."""
        try:
            payload, files = await _form(request)
            user = self._world.users[int(payload["user"])]
            answer = await self._actions[payload["do"]](user, payload, files)
        except NotSent as problem:
            return web.json_response({"error": str(problem)}, status=400)
        except Refusal as refused:
            return web.json_response({"error": _plain(refused)}, status=400)
        except TimeoutError:
            return web.json_response({"error": f"{self._world.bot.name} does not answer."}, status=400)
        except (KeyError, TypeError, ValueError, AttributeError):
            log.exception("the page asked for something that cannot be done")
            return web.json_response({"error": "This cannot be done; reload the page."}, status=400)
        return web.json_response(answer)

    async def _command(self, user: User, payload: Json, files: list[File]) -> Json:
        self._is_online()
        options = _with_files(payload["options"], files)
        return _started(await self._people.command(user, self._channel(payload), payload["name"], options))

    async def _autocomplete(self, user: User, payload: Json, files: list[File]) -> Json:
        self._is_online()
        options = {name: value for name, value in payload["options"].items() if value not in ("", None)}
        with contextlib.suppress(NotSent):
            choices = await self._people.autocomplete(user, self._channel(payload), payload["name"], options, payload["focused"])
            return {"choices": choices}
        # Another option is half typed; there is nothing to offer until it makes sense.
        return {"choices": []}

    async def _menu(self, user: User, payload: Json, files: list[File]) -> Json:
        self._is_online()
        message = self._find(payload)
        return _started(await self._people.context_menu(user, message.channel, message, payload["name"]))

    async def _press(self, user: User, payload: Json, files: list[File]) -> Json:
        self._is_online()
        return _started(await self._people.press(user, self._find(payload), payload["custom_id"], payload.get("values")))

    async def _modal(self, user: User, payload: Json, files: list[File]) -> Json:
        self._is_online()
        use = next((use for use in self._world.interactions.values() if str(use.id) == payload["interaction"]), None)
        if use is None:
            raise NotSent("this form is too old")
        return _started(await self._people.submit_modal(user, use, _with_files(payload["values"], files)))

    async def _say(self, user: User, payload: Json, files: list[File]) -> Json:
        channel = self._channel(payload)
        reply_to = channel.find(int(payload["reply_to"])) if payload.get("reply_to") else None
        message = await self._people.say(user, channel, payload["text"], reply_to, files)
        return {"message": str(message.id)}

    async def _react(self, user: User, payload: Json, files: list[File]) -> Json:
        message, emoji = self._find(payload), str(payload["emoji"])[:32]
        act = self._people.unreact if user.id in message.reactions.get(emoji, []) else self._people.react
        await act(user, message, emoji)
        return {}

    async def _delete(self, user: User, payload: Json, files: list[File]) -> Json:
        message = self._find(payload)
        moderates = message.channel.guild_id and self._world.rights_in(message.channel, user) & permissions.MANAGE_MESSAGES
        if message.author is not user and not moderates:
            raise NotSent("only its author or a moderator can delete this message")
        await self._people.delete(message)
        return {}

    async def _dismiss(self, user: User, payload: Json, files: list[File]) -> Json:
        message = self._find(payload)
        if message.visible_to != user.id:
            raise NotSent("only messages that nobody else sees can be dismissed")
        self._world.delete_message(message)
        return {}

    async def _locale(self, user: User, payload: Json, files: list[File]) -> Json:
        user.locale = str(payload["locale"])[:10]
        self._world.emit("user", user)
        return {}

    async def _moderator(self, user: User, payload: Json, files: list[File]) -> Json:
        user.moderator = not user.moderator
        self._world.emit("user", user)
        return {}

    async def _owner(self, user: User, payload: Json, files: list[File]) -> Json:
        self._world.guild.owner_id = user.id
        return {}

    async def _open_channel(self, user: User, payload: Json, files: list[File]) -> Json:
        name = "-".join(str(payload["name"]).lower().split())[:100]
        if not name:
            raise NotSent("a channel needs a name")
        return {"channel": str(self._world.add_channel(name, bool(payload["nsfw"])).id)}

    async def _dm(self, user: User, payload: Json, files: list[File]) -> Json:
        return {"channel": str(self._world.dm(user).id)}

    def _is_online(self) -> None:
        if not self._gateway.sessions:
            raise NotSent(f"{self._world.bot.name} is offline, so nothing was sent")

    def _channel(self, payload: Json) -> Channel:
        return self._world.channels[int(payload["channel"])]

    def _find(self, payload: Json) -> Message:
        message = self._channel(payload).find(int(payload["message"]))
        if message is None:
            raise NotSent("this message is gone")
        return message


def activity(presence: Json) -> str:
    """Return what a presence says the bot does, as one line."""
    doing = presence.get("game") or next(iter(presence.get("activities") or []), None) or {}
    if doing.get("type") == 4:
        return str(doing.get("state") or "")
    return ACTIVITY.get(doing.get("type", 0), "") + doing["name"] if doing.get("name") else ""


def _place(channel: Channel) -> Json:
    recipient = str(channel.recipient.id) if channel.recipient else None
    kind = wire.channel_type(channel)
    return {
        "id": str(channel.id),
        "name": channel.name,
        "nsfw": channel.age_restricted,
        "recipient": recipient,
        "foreign": channel.foreign,
        "parent": str(channel.parent.id) if channel.parent else None,
        "guild": str(channel.guild_id) if channel.guild_id else None,
        "type": kind,
        "group": kind == wire.GROUP,
    }


def _person(user: User) -> Json:
    told = {"id": str(user.id), "name": user.name, "bot": user.bot, "locale": user.locale, "moderator": user.moderator}
    return told | {"manages": bool(user.permissions & permissions.MANAGE_MESSAGES)}


def _started(use: Interaction) -> Json:
    return {"interaction": str(use.id)}


def _plain(refused: Refusal) -> str:
    """Return the innermost sentence of a refusal."""
    errors = refused.body.get("errors")
    while isinstance(errors, dict) and "_errors" not in errors:
        errors = next(iter(errors.values()))
    return str(errors["_errors"][0]["message"] if errors else refused.body["message"])


def _with_files(values: Json, files: list[File]) -> Json:
    """Put uploads where values say {"file": index} or {"files": [index, …]}; drop what was not chosen."""

    def put(value: Any) -> Any:
        if isinstance(value, dict):
            return files[value["file"]] if "file" in value else [files[index] for index in value["files"]]
        return value

    return {name: put(value) for name, value in values.items() if value is not None}


async def _form(request: web.Request) -> tuple[Json, list[File]]:
    """Read the payload and the files of an action."""
    payload: Json = {}
    files: list[File] = []
    async for part in await request.multipart():
        if not isinstance(part, BodyPartReader):
            continue
        data = bytearray()
        while chunk := await part.read_chunk(1 << 16):
            data += chunk
            if len(data) > UPLOAD_LIMIT:
                raise NotSent("this file is too large")
        if part.name == "payload":
            payload = json.loads(bytes(data))
        else:
            files.append((part.filename or "unknown", bytes(data)))
    return payload, files
