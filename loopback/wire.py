"""Things of the world as JSON that travels to the bot."""

import copy
import datetime
from collections.abc import Iterable
from typing import Any

from loopback import permissions
from loopback.values import Attachment, Channel, Interaction, Json, Message, Role, User
from loopback.world import BOT_ROLE_ID, EPOCH_MS, World

REPLY, CHAT_INPUT, PLAIN = 19, 20, 0
TEXT, DIRECT, GROUP, PUBLIC_THREAD = 0, 1, 3, 11
"""Types of channels."""


def moment(seconds: float) -> str:
    """Return a time as Discord writes it."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat()


def user(person: User) -> Json:
    return {
        "id": str(person.id),
        "username": person.name,
        "global_name": None if person.bot else person.name,
        "discriminator": "0" if not person.bot else "0001",
        "avatar": None,
        "bot": person.bot,
        "public_flags": 0,
    }


def member(world: World, person: User, place: Channel | None = None) -> Json:
    """Return somebody as a member of the guild, or of that which `place` is in."""
    roles = ([BOT_ROLE_ID] if person.bot else []) + sorted(person.roles & world.roles.keys())
    return {
        "user": user(person),
        "nick": None,
        "avatar": None,
        "roles": [] if place and place.foreign else [str(role_id) for role_id in roles],
        "joined_at": moment(person.joined_at),
        "premium_since": None,
        "deaf": False,
        "mute": False,
        "pending": False,
        "flags": 0,
        "communication_disabled_until": None,
    }


def roles(world: World) -> list[Json]:
    """Return the roles of the guild, that of everybody first and then that of the bot."""
    fixed = [Role(world.guild.id, "@everyone", world.guild.everyone), Role(BOT_ROLE_ID, world.bot.name)]
    return [_role(each, position) for position, each in enumerate([*fixed, *world.roles.values()])]


def role(world: World, wanted: Role) -> Json:
    return next(told for told in roles(world) if told["id"] == str(wanted.id))


def _role(each: Role, position: int) -> Json:
    return {
        "id": str(each.id),
        "name": each.name,
        "color": 0,
        "colors": {"primary_color": 0, "secondary_color": None, "tertiary_color": None},
        "hoist": False,
        "icon": None,
        "unicode_emoji": None,
        "position": position,
        "permissions": str(each.permissions),
        "managed": each.id == BOT_ROLE_ID,
        "mentionable": False,
        "flags": 0,
    }


def channel_type(place: Channel) -> int:
    if place.recipient:
        return DIRECT
    if place.parent:
        return PUBLIC_THREAD
    return TEXT if place.guild_id else GROUP


def channel(world: World, place: Channel) -> Json:
    last = place.messages[-1].id if place.messages else None
    if place.recipient:
        return {"id": str(place.id), "type": DIRECT, "flags": 0, "last_message_id": last and str(last), "recipients": [user(place.recipient)]}
    if place.parent:
        return thread(world, place)
    if not place.guild_id:
        owner = str(world.guild.owner_id)
        return {"id": str(place.id), "type": GROUP, "flags": 0, "name": place.name, "icon": None, "owner_id": owner, "recipients": []}
    overwrites = []
    if place.denied or place.allowed:
        overwrites.append({"id": str(world.bot.id), "type": 1, "allow": str(place.allowed), "deny": str(place.denied)})
    hidden = {"type": 1, "allow": "0", "deny": str(permissions.VIEW_CHANNEL)}
    overwrites += [{"id": str(user_id)} | hidden for user_id in sorted(place.hidden_from)]
    return {
        "id": str(place.id),
        "type": TEXT,
        "guild_id": str(place.guild_id),
        "name": place.name,
        "topic": None,
        "position": next((position for position, known in enumerate(world.channels) if known == place.id), 0),
        "parent_id": None,
        "nsfw": place.age_restricted,
        "rate_limit_per_user": 0,
        "flags": 0,
        "last_message_id": last and str(last),
        "permission_overwrites": overwrites,
    }


def thread(world: World, place: Channel) -> Json:
    """Return a public thread below a text channel."""
    assert place.parent is not None
    begun = moment((place.id >> 22) / 1000 + EPOCH_MS / 1000)
    count = sum(not message.ephemeral for message in place.messages)
    told: Json = {
        "id": str(place.id),
        "type": PUBLIC_THREAD,
        "guild_id": str(place.guild_id),
        "parent_id": str(place.parent.id),
        "owner_id": str(world.guild.owner_id),
        "name": place.name,
        "nsfw": place.age_restricted,
        "last_message_id": str(place.messages[-1].id) if place.messages else None,
        "message_count": count,
        "total_message_sent": count,
        "member_count": member_count(place),
        "rate_limit_per_user": 0,
        "flags": 0,
        "thread_metadata": {"archived": False, "auto_archive_duration": 1440, "archive_timestamp": begun, "locked": False, "create_timestamp": begun},
    }
    return told if place.joined_at is None else told | {"member": thread_member(world, place)}


def thread_member(world: World, place: Channel) -> Json:
    """Return the bot as a member of a thread that it has joined."""
    assert place.joined_at is not None
    return {"id": str(place.id), "user_id": str(world.bot.id), "join_timestamp": moment(place.joined_at), "flags": 0}


def member_count(place: Channel) -> int:
    """Return how many are in a thread: its owner and, once it has joined, the bot."""
    return 1 if place.joined_at is None else 2


def guild(world: World) -> Json:
    home = world.guild
    return {
        "id": str(home.id),
        "name": home.name,
        "icon": None,
        "splash": None,
        "discovery_splash": None,
        "owner_id": str(home.owner_id),
        "afk_channel_id": None,
        "afk_timeout": 300,
        "verification_level": 0,
        "default_message_notifications": 1,
        "explicit_content_filter": 0,
        "roles": roles(world),
        "emojis": [],
        "stickers": [],
        "features": [],
        "mfa_level": 0,
        "nsfw_level": 0,
        "premium_tier": 0,
        "premium_subscription_count": 0,
        "preferred_locale": "en-US",
        "system_channel_id": None,
        "system_channel_flags": 0,
        "rules_channel_id": None,
        "vanity_url_code": None,
        "description": None,
        "banner": None,
    }


def guild_create(world: World) -> Json:
    """Return the guild with what is in it, as the bot is told when it connects."""
    places = [place for place in world.channels.values() if place.guild_id == world.guild.id]
    return guild(world) | {
        "joined_at": moment(world.bot.joined_at),
        "large": False,
        "unavailable": False,
        "member_count": len(world.users),
        "members": [member(world, world.bot)],
        "channels": [channel(world, place) for place in places if not place.parent],
        "threads": [channel(world, place) for place in places if place.parent],
        "voice_states": [],
        "presences": [],
        "stage_instances": [],
        "guild_scheduled_events": [],
        "soundboard_sounds": [],
    }


def attachment(world: World, file: Attachment) -> Json:
    address = world.link(file)
    told: Json = {
        "id": str(file.id),
        "filename": file.filename,
        "size": file.size,
        "url": address,
        "proxy_url": address,
        "content_type": file.content_type,
        "flags": 0,
    }
    if file.width:
        told |= {"width": file.width, "height": file.height}
    if file.description is not None:
        told["description"] = file.description
    if file.ephemeral:
        told["ephemeral"] = True
    return told


def message(world: World, post: Message, guild_event: bool = False, deep: bool = True) -> Json:
    """Return a message in full. `guild_event` adds what only the gateway tells."""
    embeds = _with_addresses(world, post, copy.deepcopy(post.embeds))
    shown = [file for file in post.attachments if not _inside(file, post.embeds)]
    told: Json = {
        "id": str(post.id),
        "channel_id": str(post.channel.id),
        "type": PLAIN,
        "author": user(post.author),
        "content": post.content,
        "timestamp": moment(post.created_at),
        "edited_timestamp": moment(post.edited_at) if post.edited_at else None,
        "tts": False,
        "mention_everyone": post.mention_everyone,
        "mentions": [user(person) for person in post.mentions],
        "mention_roles": [],
        "attachments": [attachment(world, file) for file in shown],
        "embeds": embeds,
        "components": _with_addresses(world, post, copy.deepcopy(post.components)),
        "pinned": False,
        "flags": post.flags,
    }
    if post.nonce is not None:
        told["nonce"] = post.nonce
    if post.reactions:
        told["reactions"] = [_reaction(world, emoji, by) for emoji, by in post.reactions.items()]
    if post.reply_to and deep:
        told |= _reference(world, post)
    if post.origin:
        told |= post.origin | {"type": CHAT_INPUT if "interaction" in post.origin else PLAIN}
        told |= {"webhook_id": str(world.bot.id), "application_id": str(world.bot.id)}
    if guild_event:
        if post.channel.guild_id:
            author = {key: value for key, value in member(world, post.author, post.channel).items() if key != "user"}
            told |= {"guild_id": str(post.channel.guild_id), "member": author}
        told["channel_type"] = channel_type(post.channel)
    return told


def hide_content(told: Json, bot: User) -> Json:
    """Empty what a bot without the message content intent may not read, by Discord's rule.

    It may read what it wrote, what mentions it, and direct messages.
    """
    told = dict(told)
    if told.get("referenced_message"):
        told["referenced_message"] = hide_content(told["referenced_message"], bot)
    own = told["author"]["id"] == str(bot.id)
    if not own and all(person["id"] != str(bot.id) for person in told["mentions"]):
        told |= {"content": "", "embeds": [], "attachments": [], "components": []}
    return told


def interaction(world: World, use: Interaction) -> Json:
    """Return what INTERACTION_CREATE carries."""
    place = use.channel
    told: Json = {
        "id": str(use.id),
        "application_id": str(world.bot.id),
        "type": use.type,
        "token": use.token,
        "version": 1,
        "data": use.data,
        "channel_id": str(place.id),
        "channel": channel(world, place),
        "app_permissions": str(permissions.TOLD_OF_DIRECT_MESSAGE if place.recipient else place.permissions),
        "locale": use.locale,
        "entitlements": [],
        "entitlement_sku_ids": [],
        "attachment_size_limit": world.limits.reported_file_bytes,
        "authorizing_integration_owners": owners(use),
    }
    if place.guild_id:
        granted = {"permissions": str(world.rights_in(place, use.user))}
        told |= {
            "guild_id": str(place.guild_id),
            "guild": {"id": str(place.guild_id), "locale": "en-US", "features": []},
            "guild_locale": "en-US",
            "member": member(world, use.user, place) | granted,
            "context": 0,
        }
        told["channel"] |= granted
    else:
        told |= {"user": user(use.user), "context": 2 if place.foreign else 1}
    if use.source:
        told["message"] = message(world, use.source)
    return told


def owners(use: Interaction) -> Json:
    """Return on whose behalf the bot is there: its guild's, or abroad that of who brought it, whoever presses its buttons there."""
    if not use.channel.foreign:
        return {"0": str(use.channel.guild_id or 0)}
    if use.source and use.source.origin:
        brought: Json = use.source.origin["interaction_metadata"]["authorizing_integration_owners"]
        return brought
    return {"1": str(use.user.id)}


def origin(use: Interaction) -> Json:
    """Return what a message that answers an interaction tells about it."""
    metadata: Json = {"id": str(use.id), "type": use.type, "user": user(use.user), "authorizing_integration_owners": owners(use)}
    if use.source:
        return {"interaction_metadata": metadata | {"interacted_message_id": str(use.source.id)}}
    return {"interaction_metadata": metadata, "interaction": {"id": str(use.id), "type": use.type, "name": use.name, "user": user(use.user)}}


def _reaction(world: World, emoji: str, by: list[int]) -> Json:
    mine = world.bot.id in by
    told = {"emoji": {"id": None, "name": emoji}, "count": len(by), "me": mine, "me_burst": False, "burst_colors": []}
    return told | {"count_details": {"burst": 0, "normal": len(by)}}


def _reference(world: World, post: Message) -> Json:
    target = post.channel.find(post.reply_to or 0)
    reference = {"type": 0, "channel_id": str(post.channel.id), "message_id": str(post.reply_to)}
    if post.channel.guild_id:
        reference["guild_id"] = str(post.channel.guild_id)
    return {"type": REPLY, "message_reference": reference, "referenced_message": message(world, target, deep=False) if target else None}


def _inside(file: Attachment, embeds: list[Json]) -> bool:
    """Tell whether an embed shows this file; Discord then leaves it out of the list of attachments."""
    return any(address == f"attachment://{file.filename}" for address in _addresses(embeds))


def _addresses(value: Any) -> Iterable[str]:
    if isinstance(value, dict):
        yield from (value[key] for key in ("url", "icon_url") if isinstance(value.get(key), str))
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _addresses(item)


def _with_addresses(world: World, post: Message, value: Any) -> Any:
    """Turn attachment://name into the file's address, in place, wherever embeds or components show a file."""
    if isinstance(value, list):
        for item in value:
            _with_addresses(world, post, item)
    elif isinstance(value, dict):
        name = str(value.get("url", "")).removeprefix("attachment://")
        file = next((file for file in post.attachments if file.filename == name), None)
        if file and value["url"] != name:
            known = attachment(world, file)
            value |= {key: known[key] for key in ("url", "proxy_url", "content_type", "width", "height") if key in known}
        icon = next((file for file in post.attachments if value.get("icon_url") == f"attachment://{file.filename}"), None)
        if icon:
            value |= {"icon_url": world.link(icon), "proxy_icon_url": world.link(icon)}
        for item in value.values():
            _with_addresses(world, post, item)
    return value
