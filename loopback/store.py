"""Keep the world in a folder, so that a server that is killed and started again still shows its channels."""

import asyncio
import json
import logging
import os
from pathlib import Path
from typing import Any

from loopback.values import TOKEN_LIFE_S, Attachment, Channel, Interaction, Json, Message, Role, User
from loopback.world import Event, World

log = logging.getLogger(__name__)

VERSION = 1
MESSAGES_KEPT = 500
"""Of each channel; the oldest go first, with their files."""
DELAY_S = 0.2
"""Changes are written together, this long after the first of them."""
PASSING = ("typing", "bot")


class Store:
    """Writes the world to `folder`/world.json, all or nothing."""

    def __init__(self, world: World, folder: Path) -> None:
        self._world = world
        self._path = folder / "world.json"
        self._due: asyncio.TimerHandle | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def open(self) -> None:
        """Take up what an earlier run left, and keep what changes from now on."""
        if self._path.exists():
            try:
                self._world.adopt(_restored(json.loads(self._path.read_bytes()), self._world))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                aside = self._path.with_suffix(".damaged.json")
                os.replace(self._path, aside)
                log.warning("%s could not be read (%s); it was renamed to %s and the channels start empty", self._path, error, aside.name)
        self._sweep()
        self._world.listeners.append(self._hear)

    def save(self) -> None:
        """Write now, if anything has changed."""
        if self._due:
            self._due.cancel()
            self._due = None
            self._write()

    def _sweep(self) -> None:
        """Remove files that no message shows: uploads of commands, and those of a process that was killed in between."""
        for path in self._path.parent.glob("attachments/*"):
            if path.name.isdigit() and int(path.name) not in self._world.attachments:
                path.unlink(missing_ok=True)

    def _hear(self, event: Event) -> None:
        if event.kind not in PASSING and self._due is None:
            self._due = asyncio.get_running_loop().call_later(DELAY_S, self.save)

    def _write(self) -> None:
        for channel in self._world.channels.values():
            for message in channel.messages[:-MESSAGES_KEPT]:
                self._world.drop_files(message.attachments)
            del channel.messages[:-MESSAGES_KEPT]
        partial = self._path.with_suffix(".part")
        partial.write_text(json.dumps(_snapshot(self._world)))
        os.replace(partial, self._path)


def _snapshot(world: World) -> Json:
    return {
        "version": VERSION,
        "last_snowflake": world.last_snowflake,
        "owner_id": world.guild.owner_id,
        "roles": [{key: getattr(role, key) for key in ROLE} for role in world.roles.values()],
        "users": [{key: getattr(user, key) for key in USER} | {"roles": sorted(user.roles)} for user in world.people()],
        "channels": [_channel(channel) for channel in world.channels.values()],
        "commands": [[scope, commands] for scope, commands in world.commands.items()],
        "interactions": [_interaction(use) for use in world.interactions.values() if _lives(world, use)],
    }


def _lives(world: World, use: Interaction) -> bool:
    return not use.channel.deleted and world.clock.now() - use.created_at < TOKEN_LIFE_S


def _channel(channel: Channel) -> Json:
    return {
        "id": channel.id,
        "name": channel.name,
        "guild_id": channel.guild_id,
        "nsfw": channel.nsfw,
        "recipient": channel.recipient and channel.recipient.id,
        "denied": channel.denied,
        "allowed": channel.allowed,
        "parent": channel.parent and channel.parent.id,
        "foreign": channel.foreign,
        "joined_at": channel.joined_at,
        "messages": [_message(message) for message in channel.messages],
    }


SIMPLE = "id content embeds components flags nonce created_at edited_at reply_to mention_everyone reactions visible_to origin".split()
USER = "id name dms_open moderator locale joined_at".split()
ROLE = "id name permissions".split()
FILE = "id filename size content_type width height description ephemeral".split()
USE = "id token type created_at data name acknowledged_after_s response_type modal choices dead missed".split()


def _message(message: Message) -> Json:
    told = {key: getattr(message, key) for key in SIMPLE}
    files = [{key: getattr(file, key) for key in FILE} for file in message.attachments]
    return told | {"author": message.author.id, "mentions": [user.id for user in message.mentions], "attachments": files}


def _interaction(use: Interaction) -> Json:
    told = {key: getattr(use, key) for key in USE}
    places = {"user": use.user.id, "channel": use.channel.id, "acknowledged": use.acknowledged.is_set()}
    return (
        told
        | places
        | {
            "source": use.source and use.source.id,
            "message": use.message and use.message.id,
            "followups": [message.id for message in use.followups],
        }
    )


def _restored(saved: Json, present: World) -> World:
    """Return the world that was saved, complete, so that a damaged file changes nothing in the present one."""
    if saved["version"] != VERSION:
        raise ValueError(f"version {saved['version']}, expected {VERSION}")
    world = World(present.folder)
    # One bot, known by identity.
    world.bot = world.users[present.bot.id] = present.bot
    world.last_snowflake = saved["last_snowflake"]
    # Files of earlier versions know neither roles nor another owner than the usual.
    world.guild.owner_id = saved.get("owner_id", world.guild.owner_id)
    world.roles = {told["id"]: Role(**told) for told in saved.get("roles", [])}
    for told in saved["users"]:
        world.take_user(User(**told | {"roles": {*told.get("roles", [])}}))
    # Channels that were removed stay so, the first one too.
    world.channels.clear()
    for told in saved["channels"]:
        messages = told.pop("messages")
        recipient = told.pop("recipient")
        # A thread comes after the channel that it is below; files of earlier versions know no threads.
        parent = world.channels.get(told.pop("parent", None))
        channel = world.take_channel(Channel(**told, recipient=world.users[recipient] if recipient else None, parent=parent))
        for message in messages:
            _restore_message(world, channel, message)
    for scope, commands in saved["commands"]:
        world.commands[scope] = commands
    for told in saved["interactions"]:
        _restore_interaction(world, told)
    return world


def _restore_message(world: World, channel: Channel, told: Json) -> None:
    assert world.folder is not None
    files = []
    for known in told.pop("attachments"):
        path = world.folder / "attachments" / str(int(known["id"]))
        if path.is_file():
            files.append(Attachment(channel_id=channel.id, path=path, **known))
    world.attachments |= {file.id: file for file in files}
    author = world.users[told.pop("author")]
    mentions = [world.users[user] for user in told.pop("mentions")]
    channel.messages.append(Message(channel=channel, author=author, mentions=mentions, attachments=files, **told))


def _restore_interaction(world: World, told: Json) -> None:
    channel = world.channels[told.pop("channel")]

    def message(key: str) -> Message | None:
        known: Any = told.pop(key)
        return channel.find(known) if known else None

    followups = [found for known in told.pop("followups") if (found := channel.find(known))]
    acknowledged = told.pop("acknowledged")
    source, answer = message("source"), message("message")
    use = Interaction(user=world.users[told.pop("user")], channel=channel, source=source, message=answer, followups=followups, **told)
    if acknowledged:
        use.acknowledged.set()
    else:
        use.missed = True
    world.interactions[use.token] = use
