"""Every text that people see is there in every language, with the same values in it."""

import ast
import string
from collections.abc import Iterator
from pathlib import Path

import pytest
from babel.messages.extract import extract_from_file
from discord import app_commands

from cogs._client import Reverie
from cogs._language import LANGUAGES, language, read
from cogs.settings import CHOICES, HINTS, LEVELS, NAMES, POLICIES
from engine.history import History
from loopback import Loopback
from tests.cogs.conftest import featured, result

ROOT = Path(__file__).parents[2]
SAID_BY = {"say": None, "_say": None, "mark": None, "say_to": None, "InvalidRequest": (2,)}
"""Functions whose arguments are said to people."""
FORM_LABEL_LIMIT, DESCRIPTION_LIMIT, OPTION_LIMIT, BUTTON_LIMIT, MENU_LIMIT = 45, 100, 100, 80, 32


def sources() -> list[Path]:
    """Return the files whose texts are said to people."""
    rooms = ("cogs", "engine", "engine/unclip", "engine/mini")
    return [path for room in rooms for path in ROOT.glob(f"{room}/*.py") if path.name != "__main__.py"]


def said() -> set[str]:
    """Collect the texts in the code."""
    found = [text for path in sources() for _, text, _, _ in extract_from_file("python", str(path), keywords=SAID_BY)]
    return {text if isinstance(text, str) else text[-1] for text in found}


async def described(history: History) -> set[str]:
    """Collect what Discord is told of the commands."""
    bot = await featured(history)
    texts = set()
    menus = [command for command in bot.tree.get_commands() if isinstance(command, app_commands.ContextMenu)]
    for command in [*menus, *bot.tree.walk_commands()]:
        parameters = getattr(command, "parameters", [])
        texts |= {getattr(command, "description", command.name)}
        texts |= {str(parameter.description) for parameter in parameters}
        texts |= {choice.name for parameter in parameters for choice in parameter.choices}
    return texts


def calls(tree: ast.AST, *names: str) -> Iterator[ast.Call]:
    """Yield every call of a function or method of one of these names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func
            name = called.id if isinstance(called, ast.Name) else called.attr if isinstance(called, ast.Attribute) else None
            if name in names:
                yield node


def is_text(node: ast.AST) -> bool:
    """Tell whether an argument is a plain text, as the collector reads it."""
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def uncollected(code: str) -> list[int]:
    """Return the lines that say something where the collector does not look for it."""
    tree = ast.parse(code)
    formatted = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    found = [node for text in formatted for node in calls(text, "say", "_say", "mark", "say_to")]
    # What a variable holds was marked where it was written.
    plain = (ast.Name, ast.Attribute, ast.Subscript)
    found += [call for call in calls(tree, "say", "_say", "mark") if not call.args or not (is_text(call.args[0]) or isinstance(call.args[0], plain))]
    found += [call for call in calls(tree, "InvalidRequest") if len(call.args) < 2 or not is_text(call.args[1])]
    # The collector knows functions by their names, and what a function returns has none.
    nameless = [call for call in ast.walk(tree) if isinstance(call, ast.Call) and isinstance(call.func, ast.Call) and call.args]
    found += [call for call in nameless if is_text(call.args[0]) and list(calls(call.func, "language", "language_of", "say_to"))]
    return sorted({node.lineno for node in found})


def button_labels() -> set[str]:
    """Collect what is said on buttons."""
    buttons = [call for path in ROOT.glob("cogs/*.py") for call in calls(ast.parse(path.read_text("utf-8")), "button") if len(call.args) > 1]
    labels = [say.args[0] for call in buttons for say in calls(call.args[1], "say")]
    return {str(label.value) for label in labels if isinstance(label, ast.Constant)}


def test_every_text_stands_where_the_collector_sees_it() -> None:
    lines = {f"{path.relative_to(ROOT)}:{line}" for path in sources() for line in uncollected(path.read_text("utf-8"))}
    assert sorted(lines) == []


@pytest.mark.parametrize(
    "code",
    [
        """f"{say('Star')}" """,
        """f"{', '.join(self._say('Star') for _ in range(2))}" """,
        """f"{f'{mark(NAMES[one])}'}" """,
        """say("Star" if one else "Stars")""",
        """say(f"{one} stars")""",
        """mark("Star".title())""",
        """cards.say()""",
        """f"{self.say_to(message)}" """,
        """self.say_to(message)("Star")""",
        """InvalidRequest("value", kind, least=1)""",
    ],
)
def test_texts_where_the_collector_does_not_look_are_found(code: str) -> None:
    assert uncollected(code) == [1]


@pytest.mark.parametrize(
    "code",
    [
        """say("Star")""",
        """say("One " "text", one=f"{two}")""",
        """self._say(NAMES[one])""",
        """say(job.text) + mark(text)""",
        """say_to(message)(HINT)""",
    ],
)
def test_texts_where_the_collector_looks_are_not_found(code: str) -> None:
    assert uncollected(code) == []


def values(text: str) -> set[tuple[str, str]]:
    """Return the names of the values in a text, and how they are written."""
    return {(name, form or "") for _, name, form, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize("name", sorted(set(LANGUAGES.values())))
async def test_every_text_is_there_in_every_language_and_no_other(name: str, history: History) -> None:
    catalogue, wanted = read(name), said() | await described(history)
    assert len(wanted) > 100
    assert sorted(wanted - catalogue.keys()) == [] and sorted(catalogue.keys() - wanted) == []
    assert {text: values(text) for text in catalogue} == {text: values(translation) for text, translation in catalogue.items()}


@pytest.mark.parametrize("name", sorted(set(LANGUAGES.values())))
async def test_descriptions_are_as_short_as_discord_wants_them(name: str, history: History) -> None:
    catalogue = read(name)
    assert [text for text in await described(history) if not 0 < len(catalogue[text]) <= DESCRIPTION_LIMIT] == []


@pytest.mark.parametrize("name", sorted(set(LANGUAGES.values())))
async def test_labels_are_as_short_as_discord_wants_them(name: str, bot: Reverie) -> None:
    catalogue = read(name)
    on_forms = {
        "What to paint",
        "What the whole picture shows afterwards",
        "The part to repaint",
        "Mask",
        "Which picture",
        "Edit prompt",
        "Repaint a part",
        "What is wrong with it?",
        "Report to the moderators",
        *NAMES.values(),
        *LEVELS.values(),
    }
    limits = dict.fromkeys(on_forms, FORM_LABEL_LIMIT)
    in_menus = {"No choice", "Change …", *HINTS.values(), *CHOICES.values(), *POLICIES.values()}
    limits |= dict.fromkeys(in_menus, OPTION_LIMIT)
    on_buttons = button_labels()
    assert {"Delete", "Share", "Remove and ban", "Erase everything"} <= on_buttons
    limits |= dict.fromkeys(on_buttons, BUTTON_LIMIT)
    limits |= {command.name: MENU_LIMIT for command in bot.tree.get_commands() if isinstance(command, app_commands.ContextMenu)}
    assert {"Share", "Report", "Variations"} <= limits.keys()
    lengths = {text: (len(text), len(catalogue[text])) for text in limits}
    assert {text: both for text, both in lengths.items() if not 0 < min(both) <= max(both) <= limits[text]} == {}


def test_languages_that_nobody_wrote_are_english() -> None:
    assert language("pt-BR")("Delete") == "Delete" and language("de")("Delete") == "Löschen"
    assert language("es-419")("Delete") == language("es-ES")("Delete") == "Borrar"


async def test_cards_errors_and_commands_are_in_the_language_of_who_asks(discord_: Loopback, bot: Reverie) -> None:
    discord_.ann.locale = "de"
    await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a cat"})
    message = await result(discord_)
    labels = [button["label"] for row in message.components for button in row["components"]]
    assert "Löschen" in labels and "Delete" not in labels
    assert [field["name"] for field in message.embeds[0]["fields"]][:3] == ["Seed", "Modell", "Schritte"]
    refused = await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": " "})
    await discord_.wait_for(lambda: refused.message)
    assert refused.message.content == "„prompt“ muss mindestens ein Wort enthalten."
    [dream] = [command for command in discord_.world.commands[None] if command["name"] == "dream"]
    assert dream["description_localizations"]["ja"] == "文章の内容を描きます。"
    [menu] = [command for command in discord_.world.commands[None] if command["name"] == "Variations"]
    assert menu["name_localizations"]["de"] == "Varianten"
