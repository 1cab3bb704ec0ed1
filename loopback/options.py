"""Turn what a person gives for a command or a modal into the data of an interaction, refusing what Discord's client would not send."""

from enum import IntEnum
from typing import Any

from loopback import wire
from loopback.images import sniff
from loopback.limits import ROW
from loopback.values import Attachment, Channel, File, Json, User
from loopback.world import World


class OptionType(IntEnum):
    """What an option of a command takes."""

    SUBCOMMAND = 1
    GROUP = 2
    STRING = 3
    INTEGER = 4
    BOOLEAN = 5
    USER = 6
    CHANNEL = 7
    ROLE = 8
    MENTIONABLE = 9
    NUMBER = 10
    ATTACHMENT = 11


NESTED = (OptionType.SUBCOMMAND, OptionType.GROUP)
TEXT_INPUT, LABEL, FILE_UPLOAD, RADIO, CHECKBOXES, CHECKBOX = 4, 18, 19, 21, 22, 23


class NotSent(ValueError):
    """The client keeps an interaction back: a value is missing or out of range. The text is for people."""


class Resolver:
    """Collects the things that an interaction refers to by their ids."""

    def __init__(self, world: World, channel: Channel) -> None:
        self._world = world
        self._channel = channel
        self.resolved: Json = {}

    def user(self, person: User) -> str:
        self.resolved.setdefault("users", {})[str(person.id)] = wire.user(person)
        if self._channel.guild_id:
            told = {key: value for key, value in wire.member(self._world, person).items() if key not in ("user", "deaf", "mute")}
            self.resolved.setdefault("members", {})[str(person.id)] = told | {"permissions": str(self._world.guild.everyone)}
        return str(person.id)

    def channel(self, place: Channel) -> str:
        told = wire.channel(self._world, place) | {"permissions": str(self._world.guild.everyone)}
        self.resolved.setdefault("channels", {})[str(place.id)] = told
        return str(place.id)

    def file(self, given: bytes | File) -> str:
        kept = upload(self._world, self._channel, given)
        self.resolved.setdefault("attachments", {})[str(kept.id)] = wire.attachment(self._world, kept)
        return str(kept.id)

    def any_user(self, given: Any) -> User:
        person = given if isinstance(given, User) else self._world.users.get(_number(given, int))
        if person is None:
            raise NotSent("nobody has this id")
        return person

    def any_channel(self, given: Any) -> Channel:
        place = given if isinstance(given, Channel) else self._world.channels.get(_number(given, int))
        if place is None:
            raise NotSent("no channel has this id")
        return place


def upload(world: World, channel: Channel, given: bytes | File) -> Attachment:
    """Put a person's file on the CDN, for one interaction."""
    if isinstance(given, bytes):
        suffix = sniff(given).content_type.partition("/")[2]
        given = (f"upload.{suffix}" if suffix.isalpha() else "upload.bin", given)
    if len(given[1]) > world.limits.file_bytes:
        raise NotSent(f"{given[0]} is larger than {world.limits.file_bytes // 2**20} MiB")
    return world.keep_file(channel, given, ephemeral=True)


def command_data(world: World, channel: Channel, definition: Json, path: list[str], values: dict[str, Any], focused: str | None = None) -> Json:
    """Return the data of a slash command; `path` leads to the subcommand, `focused` is the option being typed."""
    resolver = Resolver(world, channel)
    level, wrapped = definition, []
    for name in path:
        level = next((option for option in level.get("options") or [] if option["name"] == name and option["type"] in NESTED), {})
        if not level:
            raise NotSent(f"/{definition['name']} has no subcommand {name}")
        wrapped.append(level)
    given = _options(resolver, level.get("options") or [], values, focused)
    for part in reversed(wrapped):
        given = [{"type": part["type"], "name": part["name"], "options": given}]
    data: Json = {"id": definition["id"], "name": definition["name"], "type": definition["type"], "options": given}
    data |= {"guild_id": definition["guild_id"]} if "guild_id" in definition else {}
    return data | ({"resolved": resolver.resolved} if resolver.resolved else {})


def _options(resolver: Resolver, known: list[Json], values: dict[str, Any], focused: str | None) -> list[Json]:
    by_name = {option["name"]: option for option in known}
    if any(option["type"] in NESTED for option in known):
        raise NotSent("choose one of " + ", ".join(by_name))
    for name in values:
        if name not in by_name:
            raise NotSent(f"there is no option {name}")
    given = []
    for name, option in by_name.items():
        value = values.get(name)
        if name == focused:
            # What is being typed goes out as it is.
            given.append({"type": option["type"], "name": name, "value": str(value or ""), "focused": True})
        elif value is not None:
            try:
                given.append({"type": option["type"], "name": name, "value": _value(resolver, option, value)})
            except NotSent as problem:
                raise NotSent(f"{name}: {problem}") from None
        elif option.get("required") and focused is None:
            raise NotSent(f"{name} is required")
    return given


def _value(resolver: Resolver, option: Json, value: Any) -> Any:
    kind = option["type"]
    if option.get("choices") and kind in (OptionType.STRING, OptionType.INTEGER, OptionType.NUMBER):
        for choice in option["choices"]:
            if str(value) in (str(choice["value"]), choice["name"]):
                return choice["value"]
        raise NotSent("choose one of " + ", ".join(choice["name"] for choice in option["choices"]))
    match kind:
        case OptionType.STRING:
            return _text(option, str(value))
        case OptionType.INTEGER | OptionType.NUMBER:
            return _in_range(option, _number(value, int if kind == OptionType.INTEGER else float))
        case OptionType.BOOLEAN:
            return value if isinstance(value, bool) else _boolean(str(value))
        case OptionType.CHANNEL:
            return resolver.channel(resolver.any_channel(value))
        case OptionType.USER | OptionType.MENTIONABLE:
            return resolver.user(resolver.any_user(value))
        case OptionType.ATTACHMENT:
            return resolver.file(value)
        case _:
            raise NotSent("options of this type cannot be given here")


def _text(option: Json, value: str) -> str:
    least, most = option.get("min_length") or 0, option.get("max_length") or 6000
    if not value and option.get("required"):
        raise NotSent("is required")
    if not least <= len(value) <= most:
        raise NotSent(f"must have {least} to {most} characters; this has {len(value)}")
    return value


def _number(value: Any, kind: type) -> Any:
    try:
        return kind(str(value).strip())
    except ValueError:
        raise NotSent(f"must be a {'whole ' if kind is int else ''}number") from None


def _in_range(option: Json, value: float) -> float:
    if option.get("min_value") is not None and value < option["min_value"]:
        raise NotSent(f"must be at least {option['min_value']}")
    if option.get("max_value") is not None and value > option["max_value"]:
        raise NotSent(f"must be at most {option['max_value']}")
    # Integers beyond what a JavaScript number holds are refused by Discord's client too.
    if abs(value) > 2**53:
        raise NotSent("is too large a number")
    return value


def _boolean(text: str) -> bool:
    if text.lower() in ("true", "yes", "on", "1"):
        return True
    if text.lower() in ("false", "no", "off", "0"):
        return False
    raise NotSent("must be true or false")


def context_data(definition: Json, target_id: str, resolver: Resolver) -> Json:
    """Return the data of a context menu command."""
    data: Json = {key: definition[key] for key in ("id", "name", "type")}
    data |= {"guild_id": definition["guild_id"]} if "guild_id" in definition else {}
    return data | {"target_id": target_id, "resolved": resolver.resolved}


def modal_data(world: World, channel: Channel, modal: Json, values: dict[str, Any]) -> Json:
    """Return the data of a filled-in modal: every field with its value, wrapped as it was laid out."""
    resolver = Resolver(world, channel)
    fields = [part["component"] for part in modal["components"] if part["type"] == LABEL]
    fields += [inner for part in modal["components"] if part["type"] == ROW for inner in part["components"]]
    for name in values:
        if name not in {field["custom_id"] for field in fields}:
            raise NotSent(f"there is no field {name}")
    parts: list[Json] = []
    for part in modal["components"]:
        own = {"type": part["type"], "id": part["id"]}
        if part["type"] == LABEL:
            parts.append(own | {"component": _filled(resolver, part["component"], values)})
        elif part["type"] == ROW:
            parts.append(own | {"components": [_filled(resolver, inner, values) for inner in part["components"]]})
        else:
            parts.append(own)
    data: Json = {"custom_id": modal["custom_id"], "components": parts}
    return data | ({"resolved": resolver.resolved} if resolver.resolved else {})


def _filled(resolver: Resolver, field: Json, values: dict[str, Any]) -> Json:
    name, kind = field["custom_id"], field["type"]
    value = values.get(name)
    told: Json = {"type": kind, "id": field["id"], "custom_id": name}
    if kind == TEXT_INPUT:
        text = str(field.get("value") or "") if value is None else str(value)
        try:
            _text({"max_length": 4000, "required": True} | field, text)
        except NotSent as problem:
            raise NotSent(f"{name}: {problem}") from None
        return told | {"value": text}
    if kind == CHECKBOX:
        return told | {"value": bool(field.get("default")) if value is None else bool(value)}
    if kind == RADIO:
        return told | {"value": value}
    chosen = [] if value is None else list(value) if isinstance(value, list | tuple) and kind != FILE_UPLOAD else value
    if kind == FILE_UPLOAD:
        files = chosen if isinstance(chosen, list) else [chosen]
        return told | {"values": [resolver.file(file) for file in files]}
    return told | {"values": selected(resolver, field, chosen)}


def selected(resolver: Resolver, select: Json, chosen: list[Any]) -> list[str]:
    """Return the values of a select menu, checked."""
    least = select.get("min_values", 1)
    most = select.get("max_values", 1) if select["type"] != CHECKBOXES else select.get("max_values") or 10
    if not least <= len(chosen) <= most and select.get("required", True):
        raise NotSent(f"{select['custom_id']}: choose {least} to {most}")
    if select["type"] in (5, 7):
        return [resolver.user(resolver.any_user(item)) for item in chosen]
    if select["type"] == 8:
        return [resolver.channel(resolver.any_channel(item)) for item in chosen]
    known = {option["value"] for option in select.get("options") or []}
    for item in chosen:
        if item not in known:
            raise NotSent(f"{select['custom_id']}: there is no choice {item}")
    return list(chosen)
