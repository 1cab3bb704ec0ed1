"""Make and change messages as a request body asks for it; channels, webhooks and interactions share this."""

import re
from typing import Any

from loopback import limits, wire
from loopback.refusals import invalid, too_large
from loopback.values import COMPONENTS_V2, EPHEMERAL, LOADING, Attachment, Channel, File, Interaction, Json, Message, User
from loopback.world import World

MENTION = re.compile(r"<@!?(\d{1,20})>")
SETTABLE = 1 << 2 | EPHEMERAL | 1 << 12 | COMPONENTS_V2
"""Flags that a bot may set: suppressed embeds, ephemeral, silent, components V2."""


def create(
    world: World,
    channel: Channel,
    author: User,
    body: Json,
    files: dict[int, File],
    use: Interaction | None = None,
    at: str = "",
    reply_to: int | None = None,
    flags: int = 0,
) -> Message:
    """Post a new message. `use` is the interaction that it answers, `flags` are those that the place adds."""
    flags |= (body.get("flags") or 0) & SETTABLE
    thinking = bool(flags & LOADING)
    limits.check_message(body, len(files), at)
    if not thinking:
        limits.check_not_empty(body, len(files))
    check_sizes(world, files)
    hidden = bool(flags & EPHEMERAL)
    message = Message(
        world.snowflake(),
        channel,
        author,
        content=body.get("content") or "",
        embeds=_rich(body.get("embeds")),
        components=numbered(body.get("components") or []),
        flags=flags,
        nonce=None if body.get("nonce") is None else str(body["nonce"]),
        created_at=world.clock.now(),
        reply_to=reply_to,
        visible_to=use.user.id if use and hidden else None,
        origin=wire.origin(use) if use else None,
    )
    message.attachments = _attach(world, message, body.get("attachments"), files, at)
    _mention(world, message, body)
    world.add_message(message)
    return message


def edit(world: World, message: Message, body: Json, files: dict[int, File], at: str = "") -> None:
    """Change a message: what the body does not name stays; attachments stay only if they are listed.

    The first edit of a deferred answer is its answer.
    """
    merged: Json = {"flags": (message.flags & COMPONENTS_V2) | (body.get("flags") or 0)} | {key: body[key] for key in body if key != "flags"}
    limits.check_message(merged, len(files), at)
    check_sizes(world, files)
    kept = message.attachments if body.get("attachments") is None else _listed(message, body["attachments"], at)
    if len(kept) + len(files) > 10:
        raise invalid(f"{at}attachments", "BASE_TYPE_MAX_LENGTH", "Must be 10 or fewer in length.")
    if message.thinking:
        limits.check_not_empty(body, len(files) + len(kept))
    # From here on nothing is refused, so an edit happens wholly or not at all.
    gone = [file for file in message.attachments if file not in kept]
    message.attachments = kept + _attach(world, message, body.get("attachments"), files, at)
    world.drop_files(gone)
    if "content" in body:
        message.content = body["content"] or ""
    if "embeds" in body:
        message.embeds = _rich(body["embeds"])
    if "components" in body:
        message.components = numbered(body["components"] or [])
    message.flags = (message.flags & ~LOADING) | ((body.get("flags") or 0) & (COMPONENTS_V2 | 1 << 2))
    if "content" in body or "allowed_mentions" in body:
        _mention(world, message, body)
    message.edited_at = world.clock.now()
    world.edit_message(message)


def check_sizes(world: World, files: dict[int, File]) -> None:
    if any(len(data) > world.limits.file_bytes for _, data in files.values()):
        raise too_large()


def repeated(world: World, channel: Channel, author: User, body: Json) -> Message | None:
    """Return the message that was posted with the same enforced nonce in the last minutes."""
    if not body.get("enforce_nonce") or body.get("nonce") is None:
        return None
    since = world.clock.now() - 5 * 60
    recent = (message for message in reversed(channel.messages) if message.created_at >= since)
    return next((message for message in recent if message.author is author and message.nonce == str(body["nonce"])), None)


def numbered(components: list[Json]) -> list[Json]:
    """Return the components with the ids that Discord gives to those that have none, and ids of what selects stand at as text."""
    taken = {part["id"] for _, part in limits.walk(components, "") if part.get("id")}
    free = iter(number for number in range(1, 1000) if number not in taken)

    def give(value: Any) -> Any:
        if isinstance(value, list):
            return [give(item) for item in value]
        if not isinstance(value, dict) or not isinstance(value.get("type"), int):
            return value
        own = value if value.get("id") else value | {"id": next(free)}
        if own.get("default_values"):
            own = own | {"default_values": [default | {"id": str(default["id"])} for default in own["default_values"]]}
        return {key: give(item) if key in ("components", "component", "accessory") else item for key, item in own.items()}

    return [give(component) for component in components]


def _rich(embeds: list[Json] | None) -> list[Json]:
    return [{"type": "rich"} | embed for embed in embeds or []]


def _listed(message: Message, listed: list[Json], at: str) -> list[Attachment]:
    """Return the attachments that an edit keeps, with the descriptions it gives them."""
    kept = []
    known = {file.id: file for file in message.attachments}
    for entry in listed:
        file = known.get(int(entry["id"]))
        if file is None:
            continue
        if "description" in entry:
            file.description = entry["description"]
        kept.append(file)
    return kept


def _attach(world: World, message: Message, listed: list[Json] | None, files: dict[int, File], at: str) -> list[Attachment]:
    """Keep the uploads of a request; entries of `attachments` tell their names and descriptions."""
    known = {file.id for file in message.attachments}
    entries = {int(entry["id"]): entry for entry in listed or []}
    for number, entry in entries.items():
        if number not in files and number not in known:
            index = (listed or []).index(entry)
            raise invalid(f"{at}attachments.{index}.id", "ATTACHMENT_NOT_FOUND", f"Attachment data not found for {number}")
    made = []
    for number, (name, data) in sorted(files.items()):
        entry = entries.get(number, {})
        name = entry.get("filename") or name
        made.append(world.keep_file(message.channel, (name, data), entry.get("description"), message.ephemeral))
    return made


def _mention(world: World, message: Message, body: Json) -> None:
    """Work out who is pinged: those named in the text, and in a reply its author, as far as the body allows it."""
    named = [int(found) for found in MENTION.findall(message.content)]
    target = message.channel.find(message.reply_to or 0)
    allowed = body.get("allowed_mentions")
    everyone = "@everyone" in message.content or "@here" in message.content
    if allowed is not None:
        if "users" not in (allowed.get("parse") or []):
            listed = {int(user) for user in allowed.get("users") or []}
            named = [user for user in named if user in listed]
        everyone = everyone and "everyone" in (allowed.get("parse") or [])
        if not allowed.get("replied_user"):
            target = None
    # A reply pings only when it says so, or says nothing about pings at all.
    pinged = named + ([target.author.id] if target else [])
    message.mentions = [world.users[user] for user in dict.fromkeys(pinged) if user in world.users]
    message.mention_everyone = everyone
