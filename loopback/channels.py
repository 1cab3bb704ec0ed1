"""Endpoints about channels and their messages, for the bot's token: with its permissions, and blind to ephemeral messages."""

from collections.abc import Sequence

from loopback import permissions, posting, wire
from loopback.api import Api, Call
from loopback.refusals import (
    closed_dm,
    invalid,
    missing_access,
    missing_permissions,
    not_yours,
    only_in_guilds,
    unknown_channel,
    unknown_message,
    unknown_user,
    unreadable_reference,
    wrong_channel_type,
)
from loopback.values import EPHEMERAL, Channel, Json, Message
from loopback.world import World

MESSAGE = "/channels/{channel}/messages/{message}"
MEMBERSHIP = "/channels/{channel}/thread-members/@me"


class Channels:
    """Serves /channels."""

    def __init__(self, world: World, api: Api, message_content: bool) -> None:
        self._world = world
        self._message_content = message_content
        api.route("GET", "/channels/{channel}", lambda call: wire.channel(world, self._channel(call)))
        api.route("POST", "/channels/{channel}/typing", self.typing)
        api.route("GET", "/channels/{channel}/messages", self.list)
        api.route("POST", "/channels/{channel}/messages", self.post)
        api.route("GET", MESSAGE, self.get)
        api.route("PATCH", MESSAGE, self.edit)
        api.route("DELETE", MESSAGE, self.delete)
        api.route("PUT", MEMBERSHIP, lambda call: world.join(self._thread(call)))
        api.route("DELETE", MEMBERSHIP, lambda call: world.leave(self._thread(call)))
        api.route("PUT", MESSAGE + "/reactions/{emoji}/@me", self.react)
        api.route("DELETE", MESSAGE + "/reactions/{emoji}/@me", self.unreact)
        api.route("GET", MESSAGE + "/reactions/{emoji}", self.reacted)
        api.route("DELETE", MESSAGE + "/reactions/{emoji}/{user}", self.unreact_of)
        api.route("DELETE", MESSAGE + "/reactions/{emoji}", self.clear_reactions)
        api.route("DELETE", MESSAGE + "/reactions", self.clear_reactions)

    def _channel(self, call: Call, needed: int = 0) -> Channel:
        channel = self._world.channels.get(call.id("channel"))
        if channel is None:
            raise unknown_channel()
        if channel.foreign or not channel.permissions & permissions.VIEW_CHANNEL:
            raise missing_access()
        if channel.parent and needed & permissions.SEND_MESSAGES:
            needed ^= permissions.SEND_MESSAGES | permissions.SEND_MESSAGES_IN_THREADS
        if needed & ~channel.permissions:
            raise missing_permissions()
        return channel

    def _thread(self, call: Call) -> Channel:
        channel = self._channel(call)
        if channel.parent is None:
            raise wrong_channel_type()
        return channel

    def _message(self, call: Call, needed: int = 0) -> Message:
        message = self._channel(call, needed).find(call.id("message"))
        if message is None or message.ephemeral:
            raise unknown_message()
        return message

    def _shown(self, message: Message) -> Json:
        told = wire.message(self._world, message)
        readable = self._message_content or message.channel.recipient
        return told if readable else wire.hide_content(told, self._world.bot)

    def list(self, call: Call) -> list[Json]:
        channel = self._channel(call)
        if not channel.permissions & permissions.READ_MESSAGE_HISTORY:
            return []
        limit = _limit(call, 50)
        before, after = int(call.query.get("before", 1 << 63)), int(call.query.get("after", 0))
        found = [message for message in channel.messages if not message.ephemeral and after < message.id < before]
        # `after` walks forward from its message, everything else back from the latest; the answer has the newest first.
        page = found[:limit] if "after" in call.query else found[-limit:]
        return [self._shown(message) for message in reversed(page)]

    def get(self, call: Call) -> Json:
        return self._shown(self._message(call, permissions.READ_MESSAGE_HISTORY))

    def post(self, call: Call) -> Json:
        body = call.body
        needed = permissions.SEND_MESSAGES
        needed |= permissions.ATTACH_FILES if call.files else 0
        needed |= permissions.EMBED_LINKS if body.get("embeds") else 0
        channel = self._channel(call, needed)
        if channel.recipient and not channel.recipient.dms_open:
            raise closed_dm()
        again = posting.repeated(self._world, channel, self._world.bot, body)
        reply_to = self._reply(channel, body.get("message_reference"))
        flags = (body.get("flags") or 0) & ~EPHEMERAL
        message = again or posting.create(self._world, channel, self._world.bot, body | {"flags": flags}, call.files, reply_to=reply_to)
        if channel.parent:
            # Who writes in a thread joins it.
            self._world.join(channel)
        return wire.message(self._world, message)

    def _reply(self, channel: Channel, reference: Json | None) -> int | None:
        if not reference:
            return None
        if reference.get("type") or int(reference.get("channel_id") or channel.id) != channel.id:
            raise invalid("message_reference", "REPLIES_UNKNOWN_MESSAGE", "Unknown message")
        if not channel.permissions & permissions.READ_MESSAGE_HISTORY:
            raise unreadable_reference()
        target = channel.find(int(reference["message_id"]))
        if target is not None and not target.ephemeral:
            return target.id
        if reference.get("fail_if_not_exists", True):
            raise invalid("message_reference", "REPLIES_UNKNOWN_MESSAGE", "Unknown message")
        return None

    def edit(self, call: Call) -> Json:
        message = self._message(call, permissions.ATTACH_FILES if call.files else 0)
        if message.author is not self._world.bot:
            raise not_yours()
        posting.edit(self._world, message, call.body, call.files)
        return wire.message(self._world, message)

    def delete(self, call: Call) -> None:
        message = self._message(call)
        if message.author is not self._world.bot and not message.channel.permissions & permissions.MANAGE_MESSAGES:
            raise missing_permissions()
        self._world.delete_message(message)

    def typing(self, call: Call) -> None:
        self._world.emit("typing", (self._channel(call, permissions.SEND_MESSAGES), self._world.bot))

    def react(self, call: Call) -> None:
        message = self._message(call, permissions.READ_MESSAGE_HISTORY)
        emoji = call.params["emoji"]
        if emoji not in message.reactions and not message.channel.permissions & permissions.ADD_REACTIONS:
            raise missing_permissions()
        self._world.react(message, emoji, self._world.bot)

    def unreact(self, call: Call) -> None:
        self._world.unreact(self._message(call), call.params["emoji"], self._world.bot)

    def reacted(self, call: Call) -> Sequence[Json]:
        """Return who reacted with an emoji, page by page in the order of their ids."""
        message = self._message(call, permissions.READ_MESSAGE_HISTORY)
        limit, after = _limit(call, 25), int(call.query.get("after", 0))
        # Nobody here has the burst reactions of those who pay.
        by = [] if call.query.get("type") == "1" else message.reactions.get(call.params["emoji"], [])
        return [wire.user(self._world.users[person]) for person in sorted(by) if person > after][:limit]

    def unreact_of(self, call: Call) -> None:
        person = self._world.users.get(call.id("user"))
        if person is None:
            raise unknown_user()
        message = self._message(call) if person is self._world.bot else self._moderated(call)
        self._world.unreact(message, call.params["emoji"], person)

    def clear_reactions(self, call: Call) -> None:
        self._world.clear_reactions(self._moderated(call), call.params.get("emoji"))

    def _moderated(self, call: Call) -> Message:
        """Return a message whose reactions the bot may take from others."""
        if self._channel(call).recipient:
            raise only_in_guilds()
        return self._message(call, permissions.MANAGE_MESSAGES)


def _limit(call: Call, usual: int) -> int:
    limit = int(call.query.get("limit", usual))
    if not 1 <= limit <= 100:
        raise invalid("limit", "NUMBER_TYPE_MAX", "int value should be between 1 and 100.")
    return limit
