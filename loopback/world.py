"""The state of this small Discord, and word of every change to whoever listens."""

import asyncio
import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from loopback import permissions
from loopback.clock import Clock
from loopback.images import sniff
from loopback.values import ACK_LIMIT_S, Attachment, Channel, File, Guild, Interaction, Json, Limits, Message, Role, User

log = logging.getLogger(__name__)

EPOCH_MS = 1_420_070_400_000
"""The first millisecond of 2015, from which snowflakes count."""
GUILD_ID, GENERAL_ID, BOT_ID, ANN_ID, BEN_ID, BOT_ROLE_ID, OWNER_ID = (1_000_000_000_000_000_000 + n for n in range(1, 8))
"""Fixed, so that what the bot remembers of an earlier run still fits."""
LINK_LIFE_S = 24 * 3600
"""Addresses on the CDN are signed for this long, as Discord's are."""

FORGOTTEN_AFTER_S = 3600
"""Interactions are kept somewhat longer than their tokens live."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something changed, and what it was.

    Of messages: message, edit, delete, delete-many, reaction, reactions-cleared, interaction, typing. Of places and people: channel,
    channel-edit, channel-delete, membership, guild, role, user. Of the bot: commands, bot.
    """

    kind: str
    subject: Any = None


class World:
    """Guild, people, channels, messages, commands and interactions. Knows nothing of sockets."""

    def __init__(self, folder: Path | None = None) -> None:
        self.clock = Clock()
        self.limits = Limits()
        self.folder = folder
        self.base_url = ""
        self.bot = User(BOT_ID, "Reverie", bot=True)
        self.users: dict[int, User] = {}
        self.guild = Guild(GUILD_ID, "Loopback", OWNER_ID)
        self.guild.changed = lambda guild: self.emit("guild", guild)
        self.roles: dict[int, Role] = {}
        self.channels: dict[int, Channel] = {}
        self.attachments: dict[int, Attachment] = {}
        self.interactions: dict[str, Interaction] = {}
        self.commands: dict[int | None, list[Json]] = {None: [], GUILD_ID: []}
        self.listeners: list[Callable[[Event], None]] = []
        self.render: Callable[[Message], Json] = lambda message: {}
        self.last_snowflake = 0
        self._secret = secrets.token_bytes(16)
        self._changed = asyncio.Event()
        for user in (self.bot, User(ANN_ID, "ann"), User(BEN_ID, "ben"), User(OWNER_ID, "olga")):
            self.take_user(user)
        self.take_channel(Channel(GENERAL_ID, "general", GUILD_ID))

    # Telling of changes.

    def emit(self, kind: str, subject: Any = None) -> None:
        """Tell everybody who listens or waits that something changed."""
        event = Event(kind, subject)
        for listener in self.listeners:
            listener(event)
        self.touch()

    def touch(self) -> None:
        """Wake everybody who waits for a change."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def change(self) -> None:
        """Wait until anything changes."""
        await self._changed.wait()

    # People and places.

    def snowflake(self) -> int:
        """Return an id that is larger than all before it, and holds the time."""
        now = int(self.clock.now() * 1000) - EPOCH_MS
        self.last_snowflake = max(self.last_snowflake + 1, now << 22)
        return self.last_snowflake

    def add_user(self, name: str, dms_open: bool = True, moderator: bool = False) -> User:
        user = User(self.snowflake(), name, dms_open=dms_open, moderator=moderator)
        self.take_user(user)
        self.emit("user", user)
        return user

    def add_role(self, name: str, granted: int = 0) -> Role:
        role = Role(self.snowflake(), name, granted)
        self.roles[role.id] = role
        self.emit("role", role)
        return role

    def rights(self, person: User) -> int:
        """Return what somebody may do in the guild: what all may, what comes with roles, and everything for its owner and administrators."""
        granted = self.guild.everyone | (permissions.MANAGE_MESSAGES if person.moderator else 0)
        for role in person.roles & self.roles.keys():
            granted |= self.roles[role].permissions
        return permissions.ALL if person.id == self.guild.owner_id or granted & permissions.ADMINISTRATOR else granted

    def rights_in(self, place: Channel, person: User) -> int:
        """Return what somebody may do in a place of a guild. In another one neither roles nor ownership of this one count."""
        if not place.foreign:
            return self.rights(person)
        return permissions.EVERYONE | (permissions.MANAGE_MESSAGES if person.moderator else 0)

    def add_channel(self, name: str, nsfw: bool = False) -> Channel:
        return self._announced(Channel(self.snowflake(), name, self.guild.id, nsfw))

    def add_thread(self, parent: Channel, name: str) -> Channel:
        return self._announced(Channel(self.snowflake(), name, parent.guild_id, parent=parent, foreign=parent.foreign))

    def join(self, thread: Channel) -> None:
        """Make the bot a member of a thread."""
        if thread.joined_at is None:
            thread.joined_at = self.clock.now()
            self.emit("membership", thread)

    def leave(self, thread: Channel) -> None:
        if thread.joined_at is not None:
            thread.joined_at = None
            self.emit("membership", thread)

    def remove_channel(self, channel: Channel) -> None:
        """Remove a channel with the threads below it and everything that was said there.

        Raises:
            ValueError: direct messages stay for ever.
        """
        if channel.recipient:
            raise ValueError("direct messages cannot be removed")
        for place in [place for place in self.channels.values() if channel in (place, place.parent)]:
            del self.channels[place.id]
            place.deleted = True
            for message in place.messages:
                message.deleted = True
                self.drop_files(message.attachments)
        self.emit("channel-delete", channel)

    def restrict(self, channel: Channel, nsfw: bool) -> None:
        """Make a channel, or the one that a thread is below, age-restricted or open to all."""
        place = channel.parent or channel
        place.nsfw = nsfw
        place.changed(place)

    def add_foreign_channel(self, name: str, guild: bool = True) -> Channel:
        return self._announced(Channel(self.snowflake(), name, self.snowflake() if guild else None, foreign=True))

    def _announced(self, channel: Channel) -> Channel:
        self.take_channel(channel)
        self.emit("channel", channel)
        return channel

    def dm(self, user: User) -> Channel:
        """Return the direct messages between `user` and the bot, opened if they were not."""
        for channel in self.channels.values():
            if channel.recipient is user:
                return channel
        channel = Channel(self.snowflake(), user.name, None, recipient=user)
        self.take_channel(channel)
        self.emit("channel", channel)
        return channel

    def people(self) -> list[User]:
        return [user for user in self.users.values() if not user.bot]

    def take_user(self, user: User) -> None:
        """Add somebody without a word, in place of one with the same id."""
        user.rights = self.rights
        self.users[user.id] = user

    def take_channel(self, channel: Channel) -> Channel:
        """Add a channel without a word, in place of one with the same id."""
        channel.changed = lambda changed: self.emit("channel-edit", changed)
        self.channels[channel.id] = channel
        return channel

    def adopt(self, other: "World") -> None:
        """Take over everything that `other` holds."""
        self.attachments, self.commands, self.interactions, self.roles = other.attachments, other.commands, other.interactions, other.roles
        self.guild.owner_id = other.guild.owner_id
        self.users = {}
        for user in other.users.values():
            self.take_user(user)
        self.channels = {}
        for channel in other.channels.values():
            self.take_channel(channel)
            for message in channel.messages:
                message.render = self.render
        self.last_snowflake = other.last_snowflake

    # Messages.

    def add_message(self, message: Message) -> None:
        message.render = self.render
        message.channel.messages.append(message)
        self.emit("message", message)

    def edit_message(self, message: Message) -> None:
        self.emit("edit", message)

    def delete_message(self, message: Message) -> None:
        self._take_away(message)
        self.emit("delete", message)

    def delete_messages(self, channel: Channel, messages: list[Message]) -> None:
        """Delete several messages of one channel at a stroke."""
        for message in messages:
            self._take_away(message)
        self.emit("delete-many", (channel, messages))

    def _take_away(self, message: Message) -> None:
        message.deleted = True
        if message in message.channel.messages:
            message.channel.messages.remove(message)
        self.drop_files(message.attachments)

    def react(self, message: Message, emoji: str, person: User) -> None:
        by = message.reactions.setdefault(emoji, [])
        if person.id not in by:
            by.append(person.id)
            self.emit("reaction", (message, emoji, person, True))

    def unreact(self, message: Message, emoji: str, person: User) -> None:
        by = message.reactions.get(emoji, [])
        if person.id in by:
            by.remove(person.id)
            if not by:
                del message.reactions[emoji]
            self.emit("reaction", (message, emoji, person, False))

    def clear_reactions(self, message: Message, emoji: str | None = None) -> None:
        """Remove everybody's reactions, or those with one emoji."""
        gone = [name for name in message.reactions if emoji in (None, name)]
        for name in gone:
            del message.reactions[name]
        if gone:
            self.emit("reactions-cleared", (message, emoji))

    # Interactions.

    def add_interaction(self, use: Interaction) -> None:
        """Send an interaction to the bot, which has three seconds to answer."""
        for token in [token for token, old in self.interactions.items() if self.clock.now() - old.created_at > FORGOTTEN_AFTER_S]:
            del self.interactions[token]
        self.interactions[use.token] = use
        self.emit("interaction", use)
        self.clock.call_at(use.created_at + ACK_LIMIT_S, lambda: self._missed(use))

    def _missed(self, use: Interaction) -> None:
        if not use.acknowledged.is_set():
            use.missed = True
            self.emit("interaction", use)

    # Files.

    def keep_file(self, channel: Channel, file: File, description: str | None = None, ephemeral: bool = False) -> Attachment:
        """Put an upload on the CDN."""
        name, data = file
        kind = sniff(data)
        filename = re.sub(r"[^\w.\-]+", "_", name).strip("_.")[-200:] or "unknown"
        attachment = Attachment(self.snowflake(), channel.id, filename, len(data), kind.content_type, kind.width, kind.height, description, ephemeral)
        if self.folder:
            attachment.path = self.folder / "attachments" / str(attachment.id)
            attachment.path.parent.mkdir(parents=True, exist_ok=True)
            attachment.path.write_bytes(data)
        else:
            attachment.kept = data
        self.attachments[attachment.id] = attachment
        return attachment

    def drop_files(self, attachments: list[Attachment]) -> None:
        """Take files off the CDN."""
        for attachment in attachments:
            self.attachments.pop(attachment.id, None)
            if attachment.path:
                attachment.path.unlink(missing_ok=True)

    def link(self, attachment: Attachment) -> str:
        """Return an address of the file that is good for a day and at most an hour more."""
        # Whole hours, so that the address, which browsers cache by, stays the same for a while.
        expires = f"{(int(self.clock.now()) // 3600 + 1) * 3600 + LINK_LIFE_S:x}"
        path = f"/attachments/{attachment.channel_id}/{attachment.id}/{quote(attachment.filename)}"
        return f"{self.base_url}{path}?ex={expires}&hm={self._signature(attachment.id, expires)}"

    def opens(self, attachment: Attachment, expires: str, signature: str) -> bool:
        """Tell whether a signed address still opens the file."""
        genuine = hmac.compare_digest(self._signature(attachment.id, expires).encode(), signature.encode())
        return genuine and int(expires, 16) > self.clock.now()

    def _signature(self, attachment_id: int, expires: str) -> str:
        return hmac.new(self._secret, f"{attachment_id} {expires}".encode(), hashlib.sha256).hexdigest()
