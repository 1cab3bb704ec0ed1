"""Refuse bodies that Discord would refuse, with its codes."""

import re
from collections.abc import Iterator, Sized
from typing import Any

from loopback.refusals import Refusal, empty_message, invalid
from loopback.values import COMPONENTS_V2, Json

ROW, BUTTON, SELECT, TEXT_INPUT, TEXT_DISPLAY, LABEL = 1, 2, 3, 4, 10, 18
LINK = 5
USER_SELECT, ROLE_SELECT, MENTIONABLE_SELECT, CHANNEL_SELECT = 5, 6, 7, 8
SELECTS = (SELECT, USER_SELECT, ROLE_SELECT, MENTIONABLE_SELECT, CHANNEL_SELECT)
DEFAULTS = {"user": (USER_SELECT, MENTIONABLE_SELECT), "role": (ROLE_SELECT, MENTIONABLE_SELECT), "channel": (CHANNEL_SELECT,)}
"""Which selects may stand at something of each kind."""
EMBED_LENGTHS = {"title": 256, "description": 4096}
NAME = re.compile(r"[-_'\w]{1,32}")


def too_long(path: str, limit: int) -> Refusal:
    return invalid(path, "BASE_TYPE_MAX_LENGTH", f"Must be {limit} or fewer in length.")


def missing(path: str) -> Refusal:
    return invalid(path, "BASE_TYPE_REQUIRED", "This field is required")


def at_most(path: str, value: Any, limit: int) -> None:
    """Refuse a text that is longer than `limit`."""
    if isinstance(value, str) and len(value) > limit:
        raise too_long(path, limit)


def few(path: str, items: Sized, least: int, most: int) -> None:
    """Refuse a list, or a text, that is too short or too long."""
    if not least <= len(items) <= most:
        raise invalid(path, "BASE_TYPE_BAD_LENGTH", f"Must be between {least} and {most} in length.")


def check_message(body: Json, files: int, at: str = "") -> None:
    """Refuse a message that is too long, too full or badly built. `at` is where the message is in the request, as "data."."""
    at_most(f"{at}content", body.get("content"), 2000)
    check_embeds(f"{at}embeds", body.get("embeds") or [])
    listed = body.get("attachments") or []
    if files > 10 or len(listed) > 10:
        raise invalid(f"{at}attachments", "BASE_TYPE_MAX_LENGTH", "Must be 10 or fewer in length.")
    for index, item in enumerate(listed):
        at_most(f"{at}attachments.{index}.description", item.get("description"), 1024)
        at_most(f"{at}attachments.{index}.filename", item.get("filename"), 1024)
    v2 = bool((body.get("flags") or 0) & COMPONENTS_V2)
    if v2 and (body.get("content") or body.get("embeds")):
        raise invalid(f"{at}content", "MESSAGE_CANNOT_USE_LEGACY_FIELDS_WITH_COMPONENTS_V2", "content and embeds cannot be used with components V2")
    check_components(f"{at}components", body.get("components") or [], v2)


def check_not_empty(body: Json, files: int) -> None:
    """Refuse a new message that shows nothing."""
    if not files and not any(body.get(key) for key in ("content", "embeds", "components", "sticker_ids", "poll")):
        raise empty_message()


def check_embeds(path: str, embeds: list[Json]) -> None:
    if len(embeds) > 10:
        raise invalid(path, "BASE_TYPE_MAX_LENGTH", "Must be 10 or fewer in length.")
    total = 0
    for index, embed in enumerate(embeds):
        here = f"{path}.{index}"
        fields = embed.get("fields") or []
        texts = [(key, embed.get(key) or "", limit) for key, limit in EMBED_LENGTHS.items()]
        texts.append(("footer.text", (embed.get("footer") or {}).get("text") or "", 2048))
        texts.append(("author.name", (embed.get("author") or {}).get("name") or "", 256))
        if len(fields) > 25:
            raise invalid(f"{here}.fields", "BASE_TYPE_MAX_LENGTH", "Must be 25 or fewer in length.")
        for number, entry in enumerate(fields):
            for key, limit in (("name", 256), ("value", 1024)):
                if not entry.get(key):
                    raise missing(f"{here}.fields.{number}.{key}")
                texts.append((f"fields.{number}.{key}", entry[key], limit))
        for key, text, limit in texts:
            at_most(f"{here}.{key}", text, limit)
            total += len(text)
    if total > 6000:
        raise invalid(path, "MAX_EMBED_SIZE_EXCEEDED", "Embed size exceeds maximum size of 6000")


def walk(components: list[Json], path: str) -> Iterator[tuple[str, Json]]:
    """Yield every component with its path, parents first."""
    for index, component in enumerate(components):
        here = f"{path}.{index}"
        yield here, component
        yield from walk(component.get("components") or [], f"{here}.components")
        for key in ("component", "accessory"):
            if component.get(key):
                yield f"{here}.{key}", component[key]


def check_components(path: str, components: list[Json], v2: bool) -> None:
    everything = list(walk(components, path))
    if v2 and len(everything) > 40:
        raise invalid(path, "BASE_TYPE_MAX_LENGTH", "Must be 40 or fewer in length.")
    if v2 and sum(len(part.get("content") or "") for _, part in everything if part.get("type") == TEXT_DISPLAY) > 4000:
        raise invalid(path, "COMPONENT_TEXT_TOO_LONG", "The text of all components exceeds 4000 characters")
    if not v2:
        if len(components) > 5:
            raise invalid(path, "BASE_TYPE_BAD_LENGTH", "Must be between 1 and 5 in length.")
        for index, row in enumerate(components):
            if row.get("type") != ROW:
                raise invalid(f"{path}.{index}.type", "UNION_TYPE_CHOICES", 'Value of field "type" must be one of (1,).')
    seen: set[str] = set()
    for here, part in everything:
        _check_component(here, part)
        custom_id = part.get("custom_id")
        if custom_id in seen:
            raise invalid(f"{here}.custom_id", "COMPONENT_CUSTOM_ID_DUPLICATED", "Component custom id cannot be duplicated")
        if custom_id:
            seen.add(custom_id)


def _check_component(here: str, part: Json) -> None:
    kind = part.get("type")
    if kind == ROW:
        inner = part.get("components") or []
        few(f"{here}.components", inner, 1, 5)
        if len(inner) > 1 and any(item.get("type") in SELECTS for item in inner):
            raise invalid(f"{here}.components", "COMPONENT_LAYOUT_WIDTH_EXCEEDED", "The specified component exceeds the maximum width")
    at_most(f"{here}.custom_id", part.get("custom_id"), 100)
    if kind == BUTTON:
        at_most(f"{here}.label", part.get("label"), 80)
        if not part.get("label") and not part.get("emoji"):
            raise invalid(here, "BUTTON_COMPONENT_LABEL_OR_EMOJI_REQUIRED", "A button needs a label or an emoji")
        wanted = "url" if part.get("style") == LINK else "custom_id"
        if not part.get(wanted) and part.get("style") != 6:
            raise missing(f"{here}.{wanted}")
    elif kind in SELECTS:
        if not part.get("custom_id"):
            raise missing(f"{here}.custom_id")
        _check_select(here, part)
    elif kind == LABEL:
        at_most(f"{here}.label", part.get("label"), 45)
        at_most(f"{here}.description", part.get("description"), 100)
    elif kind == TEXT_INPUT:
        at_most(f"{here}.placeholder", part.get("placeholder"), 100)
        at_most(f"{here}.value", part.get("value"), 4000)


def _check_select(here: str, select: Json) -> None:
    at_most(f"{here}.placeholder", select.get("placeholder"), 150)
    least, most = select.get("min_values"), select.get("max_values") or 1
    if not 0 <= (least or 0) <= 25 or not most <= 25:
        raise invalid(f"{here}.max_values", "NUMBER_TYPE_MAX", "int value should be less than or equal to 25.")
    defaults = select.get("default_values") or []
    if defaults:
        few(f"{here}.default_values", defaults, 1 if least is None else least, most)
    for index, default in enumerate(defaults):
        if select["type"] not in DEFAULTS[default["type"]]:
            raise invalid(f"{here}.default_values.{index}.type", "BASE_TYPE_CHOICES", "Value must be one of the kinds that can be chosen here.")
    if select["type"] == SELECT:
        few(f"{here}.options", select.get("options") or [], 1, 25)
        for index, option in enumerate(select["options"]):
            for key in ("label", "value", "description"):
                at_most(f"{here}.options.{index}.{key}", option.get(key), 100)


def check_modal(data: Json) -> None:
    """Refuse a modal that Discord would not show."""
    for key, limit in (("custom_id", 100), ("title", 45)):
        if not data.get(key):
            raise missing(f"data.{key}")
        at_most(f"data.{key}", data[key], limit)
    parts = data.get("components") or []
    few("data.components", parts, 1, 5)
    seen: set[str] = set()
    for here, part in walk(parts, "data.components"):
        _check_component(here, part)
        if part.get("custom_id") in seen:
            raise invalid(f"{here}.custom_id", "COMPONENT_CUSTOM_ID_DUPLICATED", "Component custom id cannot be duplicated")
        if part.get("custom_id"):
            seen.add(part["custom_id"])


def check_choices(path: str, choices: list[Json]) -> None:
    if len(choices) > 25:
        raise invalid(path, "BASE_TYPE_MAX_LENGTH", "Must be 25 or fewer in length.")
    for index, choice in enumerate(choices):
        few(f"{path}.{index}.name", choice.get("name") or "", 1, 100)


def check_commands(commands: list[Json]) -> None:
    """Refuse definitions that could not be registered."""
    for kind, limit in ((1, 100), (2, 15), (3, 15)):
        names = [command.get("name") for command in commands if (command.get("type") or 1) == kind]
        if len(names) > limit:
            raise Refusal(400, 30032, f"Maximum number of application commands reached ({limit}).")
        if len(set(names)) != len(names):
            raise invalid("", "APPLICATION_COMMANDS_DUPLICATE_NAME", "Application command names must be unique")
    for index, command in enumerate(commands):
        if (command.get("type") or 1) == 1:
            if _letters(command) > 8000:
                raise invalid(str(index), "APPLICATION_COMMAND_TOO_LARGE", "Command exceeds maximum size (8000)")
            _check_described(str(index), command)
        else:
            few(f"{index}.name", command.get("name") or "", 1, 32)


def _letters(part: Json) -> int:
    own = sum(len(str(part.get(key) or "")) for key in ("name", "description", "value"))
    return own + sum(_letters(inner) for key in ("options", "choices") for inner in part.get(key) or [])


def _check_described(here: str, part: Json) -> None:
    name = part.get("name") or ""
    if not NAME.fullmatch(name) or name != name.lower():
        raise invalid(f"{here}.name", "APPLICATION_COMMAND_INVALID_NAME", "Command name is invalid")
    few(f"{here}.description", part.get("description") or "", 1, 100)
    options = part.get("options") or []
    few(f"{here}.options", options, 0, 25)
    if len({option.get("name") for option in options}) != len(options):
        raise invalid(f"{here}.options", "APPLICATION_COMMAND_OPTIONS_NAME_DUPLICATED", "Option names must be unique")
    optional = False
    for number, option in enumerate(options):
        if option.get("required") and optional:
            raise invalid(f"{here}.options.{number}", "APPLICATION_COMMAND_OPTIONS_REQUIRED_INVALID", "Required options must come first")
        optional = optional or not option.get("required")
        check_choices(f"{here}.options.{number}.choices", option.get("choices") or [])
        _check_described(f"{here}.options.{number}", option)
