"""The things of this small Discord: people, channels, messages, files, interactions."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loopback import permissions

Json = dict[str, Any]
"""A JSON object, as it travels."""
File = tuple[str, bytes]
"""Name and content of an upload."""

EPHEMERAL = 1 << 6
LOADING = 1 << 7
COMPONENTS_V2 = 1 << 15

ACK_LIMIT_S = 3.0
"""An interaction must be answered within this."""
TOKEN_LIFE_S = 15 * 60.0
"""After this, an interaction's token opens nothing any more."""
NEW_YEAR_2026 = 1_767_225_600.0
"""When everybody joined of whom nothing else is said, in Unix seconds."""


@dataclass(eq=False, slots=True)
class Role:
    """A role of the guild, which grants `permissions` to whoever has it."""

    id: int
    name: str
    permissions: int = 0

    @property
    def mention(self) -> str:
        return f"<@&{self.id}>"


@dataclass(eq=False, slots=True)
class User:
    """A person, or the bot."""

    id: int
    name: str
    bot: bool = False
    dms_open: bool = True
    moderator: bool = False
    """May manage messages."""
    locale: str = "en-US"
    roles: set[int] = field(default_factory=set)
    """Ids of roles of the guild."""
    joined_at: float = NEW_YEAR_2026
    rights: "Callable[[User], int]" = field(default=lambda user: 0, repr=False)

    @property
    def permissions(self) -> int:
        """What this person may do in the guild."""
        return self.rights(self)

    @property
    def mention(self) -> str:
        return f"<@{self.id}>"


@dataclass(eq=False, slots=True)
class Attachment:
    """A file on the CDN. Its bytes are in memory or, with a folder, on disk."""

    id: int
    channel_id: int
    filename: str
    size: int
    content_type: str
    width: int | None = None
    height: int | None = None
    description: str | None = None
    ephemeral: bool = False
    path: Path | None = field(default=None, repr=False)
    kept: bytes | None = field(default=None, repr=False)

    @property
    def data(self) -> bytes:
        """The bytes that were uploaded."""
        return self.path.read_bytes() if self.path else self.kept or b""


@dataclass(eq=False, slots=True)
class Message:
    """A message as everybody, or with the flag EPHEMERAL one person, sees it.

    `embeds` and `components` hold what was sent; `raw` is the message as it travels, with addresses filled in.
    """

    id: int
    channel: "Channel" = field(repr=False)
    author: User
    content: str = ""
    embeds: list[Json] = field(default_factory=list)
    attachments: list[Attachment] = field(default_factory=list)
    components: list[Json] = field(default_factory=list)
    flags: int = 0
    nonce: str | None = None
    created_at: float = 0.0
    edited_at: float | None = None
    reply_to: int | None = None
    mentions: list[User] = field(default_factory=list)
    mention_everyone: bool = False
    reactions: dict[str, list[int]] = field(default_factory=dict)
    visible_to: int | None = None
    origin: Json | None = None
    deleted: bool = False
    render: "Callable[[Message], Json]" = field(default=lambda message: {}, repr=False)

    @property
    def author_id(self) -> int:
        return self.author.id

    @property
    def channel_id(self) -> int:
        return self.channel.id

    @property
    def ephemeral(self) -> bool:
        return bool(self.flags & EPHEMERAL)

    @property
    def thinking(self) -> bool:
        """A deferred answer that is still to come."""
        return bool(self.flags & LOADING)

    @property
    def raw(self) -> Json:
        return self.render(self)


@dataclass(eq=False, slots=True)
class Channel:
    """A text channel of the guild, a thread below one (`parent`), or the direct messages between a person (`recipient`) and the bot.

    One that is `foreign`, in another guild or a group, the bot is not in: people who installed it bring it along.
    """

    id: int
    name: str
    guild_id: int | None
    nsfw: bool = False
    recipient: User | None = None
    messages: list[Message] = field(default_factory=list, repr=False)
    denied: int = 0
    allowed: int = 0
    hidden_from: set[int] = field(default_factory=set, repr=False)
    """Ids of people who may not see this channel, nor the threads below it."""
    parent: "Channel | None" = field(default=None, repr=False)
    foreign: bool = False
    joined_at: float | None = None
    """When the bot became a member of this thread."""
    deleted: bool = False
    changed: "Callable[[Channel], None]" = field(default=lambda channel: None, repr=False)

    @property
    def permissions(self) -> int:
        """What the bot may do here."""
        if self.parent:
            return self.parent.permissions
        if self.recipient:
            return permissions.DIRECT_MESSAGE
        if self.foreign and not self.guild_id:
            return (permissions.TOLD_OF_GROUP & ~self.denied) | self.allowed
        granted = (permissions.EVERYONE & ~self.denied) | self.allowed
        return granted if granted & permissions.VIEW_CHANNEL else 0

    @property
    def age_restricted(self) -> bool:
        """Whether only adults come here; a thread is what its channel is."""
        return self.parent.nsfw if self.parent else self.nsfw

    def deny(self, bits: int) -> None:
        """Take permissions from the bot, by an overwrite for it alone."""
        self.denied |= bits
        self.allowed &= ~bits
        self.changed(self)

    def allow(self, bits: int) -> None:
        """Grant permissions to the bot, by an overwrite for it alone."""
        self.allowed |= bits
        self.denied &= ~bits
        self.changed(self)

    def hide_from(self, user: User) -> None:
        """Take the permission to see this channel from somebody, by an overwrite for them alone."""
        self.hidden_from.add(user.id)
        self.changed(self)

    def find(self, message_id: int) -> Message | None:
        """Return the message with this id, if it is still here."""
        return next((message for message in reversed(self.messages) if message.id == message_id), None)


@dataclass(eq=False, slots=True)
class Interaction:
    """One use of a command, button, select, modal or autocomplete, and what the bot made of it."""

    id: int
    token: str
    type: int
    user: User
    channel: Channel
    created_at: float
    data: Json
    name: str = ""
    source: Message | None = None
    """The message whose button was pressed."""
    acknowledged: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    acknowledged_after_s: float | None = None
    response_type: int | None = None
    message: Message | None = None
    """The original response, once it exists; for an answer that updates, the message with the button."""
    followups: list[Message] = field(default_factory=list)
    modal: Json | None = None
    choices: list[Json] | None = None
    dead: bool = False
    missed: bool = False
    """Nobody answered within the limit."""
    locale: str = "en-US"

    def expire(self) -> None:
        """End the life of the token now."""
        self.dead = True


class Guild:
    """The one server that the bot is in. Who becomes its owner, with `owner_id`, is told to everybody."""

    def __init__(self, guild_id: int, name: str, owner_id: int) -> None:
        self.id = guild_id
        self.name = name
        self.everyone = permissions.EVERYONE
        self.changed: Callable[[Guild], None] = lambda guild: None
        self._owner_id = owner_id

    @property
    def owner_id(self) -> int:
        return self._owner_id

    @owner_id.setter
    def owner_id(self, user_id: int) -> None:
        self._owner_id = user_id
        self.changed(self)


@dataclass(slots=True)
class Limits:
    """How much may be uploaded. Discord's interactions have been seen to report more than it accepts, so the two differ here."""

    file_bytes: int = 10 * 1024 * 1024
    reported_file_bytes: int = 10 * 1024 * 1024
    request_bytes: int = 25 * 1024 * 1024
