"""Turn what a person gives for a command or a modal into the data of an interaction, refusing what Discord's client would not send."""

from enum import IntEnum
from typing import Any, TypeVar

from loopback import limits, wire
from loopback.images import sniff
from loopback.values import Attachment, Channel, File, Json, Role, User
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


T = TypeVar("T")

NESTED = (OptionType.SUBCOMMAND, OptionType.GROUP)
TEXT_INPUT, LABEL, FILE_UPLOAD, RADIO, CHECKBOXES, CHECKBOX = 4, 18, 19, 21, 22, 23

REFERRING = {
    limits.USER_SELECT: OptionType.USER,
    limits.ROLE_SELECT: OptionType.ROLE,
    limits.MENTIONABLE_SELECT: OptionType.MENTIONABLE,
    limits.CHANNEL_SELECT: OptionType.CHANNEL,
}
"""Selects of what options take too."""


class NotSent(ValueError):
    """The client keeps an interaction back: a value is missing or out of range. The text is for people."""


class Resolver:
    """Collects the things that somebody's interaction in a channel refers to by their ids."""

    def __init__(self, world: World, channel: Channel, asker: User) -> None:
        self._world = world
        self._channel = channel
        self._asker = asker
        self.resolved: Json = {}

    def refer(self, kind: OptionType, given: Any, types: list[int] | None) -> str:
        """Refer to what an option of a kind takes; where that is a channel, to one of the `types` if any are named."""
        match kind:
            case OptionType.CHANNEL:
                return self.channel(given, types)
            case OptionType.ROLE:
                return self.role(given)
            case OptionType.MENTIONABLE:
                return self.mentionable(given)
            case _:
                return self.user(given)

    def user(self, given: Any) -> str:
        """Refer to somebody, given themselves or by id."""
        return self._person(self._found(given, User, self._world.users, "nobody"))

    def role(self, given: Any) -> str:
        """Refer to a role of the guild. There are none elsewhere."""
        if not self._channel.guild_id or self._channel.foreign:
            raise NotSent("there are no roles here")
        role = self._found(given, Role, self._world.roles, "no role")
        self.resolved.setdefault("roles", {})[str(role.id)] = wire.role(self._world, role)
        return str(role.id)

    def mentionable(self, given: Any) -> str:
        """Refer to somebody or to a role."""
        is_role = isinstance(given, Role) or (not isinstance(given, User) and _number(given, int) in self._world.roles)
        return self.role(given) if is_role else self.user(given)

    def channel(self, given: Any, types: list[int] | None = None) -> str:
        """Refer to a channel or thread of the server that one is in, of one of the `types` if any are named."""
        place = self._found(given, Channel, self._world.channels, "no channel")
        if place.deleted or not place.guild_id or place.guild_id != self._channel.guild_id:
            raise NotSent("no channel has this id here")
        if types and wire.channel_type(place) not in types:
            raise NotSent("channels of this kind cannot be chosen")
        told = wire.channel(self._world, place) | {"permissions": str(self._world.rights_in(place, self._asker))}
        self.resolved.setdefault("channels", {})[str(place.id)] = told | {"app_permissions": str(place.permissions)}
        return str(place.id)

    def file(self, given: bytes | File) -> str:
        kept = upload(self._world, self._channel, given)
        self.resolved.setdefault("attachments", {})[str(kept.id)] = wire.attachment(self._world, kept)
        return str(kept.id)

    def _person(self, person: User) -> str:
        self.resolved.setdefault("users", {})[str(person.id)] = wire.user(person)
        if self._channel.guild_id:
            told = wire.member(self._world, person, self._channel) | {"permissions": str(self._world.rights_in(self._channel, person))}
            shown = {key: value for key, value in told.items() if key not in ("user", "deaf", "mute")}
            self.resolved.setdefault("members", {})[str(person.id)] = shown
        return str(person.id)

    @staticmethod
    def _found(given: Any, kind: type[T], known: dict[int, T], nothing: str) -> T:
        found = given if isinstance(given, kind) else known.get(_number(given, int))
        if found is None:
            raise NotSent(f"{nothing} has this id")
        return found


def upload(world: World, channel: Channel, given: bytes | File) -> Attachment:
    """Put a person's file on the CDN, for one interaction."""
    if isinstance(given, bytes):
        suffix = sniff(given).content_type.partition("/")[2]
        given = (f"upload.{suffix}" if suffix.isalpha() else "upload.bin", given)
    if len(given[1]) > world.limits.file_bytes:
        raise NotSent(f"{given[0]} is larger than {world.limits.file_bytes // 2**20} MiB")
    return world.keep_file(channel, given, ephemeral=True)


def command_data(resolver: Resolver, definition: Json, path: list[str], values: dict[str, Any], focused: str | None = None) -> Json:
    """Return the data of a slash command; `path` leads to the subcommand, `focused` is the option being typed."""
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
        case OptionType.CHANNEL | OptionType.USER | OptionType.ROLE | OptionType.MENTIONABLE:
            return resolver.refer(kind, value, option.get("channel_types"))
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


def modal_data(resolver: Resolver, modal: Json, values: dict[str, Any]) -> Json:
    """Return the data of a filled-in modal: every field with its value, wrapped as it was laid out."""
    fields = [part["component"] for part in modal["components"] if part["type"] == LABEL]
    fields += [inner for part in modal["components"] if part["type"] == limits.ROW for inner in part["components"]]
    for name in values:
        if name not in {field["custom_id"] for field in fields}:
            raise NotSent(f"there is no field {name}")
    parts: list[Json] = []
    for part in modal["components"]:
        own = {"type": part["type"], "id": part["id"]}
        if part["type"] == LABEL:
            parts.append(own | {"component": _filled(resolver, part["component"], values)})
        elif part["type"] == limits.ROW:
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
    if kind == FILE_UPLOAD:
        files = [] if value is None else value if isinstance(value, list) else [value]
        return told | {"values": [resolver.file(file) for file in files]}
    # Who does not touch a select sends what it stood at.
    chosen = _preset(field) if value is None else [*value] if isinstance(value, list | tuple | set) else [value]
    return told | {"values": selected(resolver, field, chosen)}


def _preset(select: Json) -> list[Any]:
    named = [default["id"] for default in select.get("default_values") or []]
    return named + [option["value"] for option in select.get("options") or [] if option.get("default")]


def selected(resolver: Resolver, select: Json, chosen: list[Any]) -> list[str]:
    """Return the values of a select menu, checked."""
    kind = select["type"]
    least, most = select.get("min_values"), select.get("max_values") or (10 if kind == CHECKBOXES else 1)
    least = 1 if least is None else least
    optional = select.get("required") is False and not chosen
    if not least <= len(chosen) <= most and not optional:
        raise NotSent(f"{select['custom_id']}: choose {least} to {most}")
    try:
        values = [_choice(resolver, select, item) for item in chosen]
    except NotSent as problem:
        raise NotSent(f"{select['custom_id']}: {problem}") from None
    if len({*values}) != len(values):
        raise NotSent(f"{select['custom_id']}: nothing can be chosen twice")
    return values


def _choice(resolver: Resolver, select: Json, item: Any) -> str:
    if select["type"] in REFERRING:
        return resolver.refer(REFERRING[select["type"]], item, select.get("channel_types"))
    if any(item == option["value"] for option in select.get("options") or []):
        return str(item)
    raise NotSent(f"there is no choice {item}")
