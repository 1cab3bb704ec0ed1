"""Every text that people see is there in every language, with the same values in it."""

import string
from pathlib import Path

import pytest
from babel.messages.extract import extract_from_file

from cogs import EXTENSIONS
from cogs._client import Reverie
from cogs._language import LANGUAGES, language, read
from engine.history import History
from engine.queue import Limits, Queue
from engine.worker import Worker
from loopback import Loopback
from tests.cogs.conftest import result

ROOT = Path(__file__).parents[2]
SAID_BY = {"say": None, "_say": None, "mark": None, "say_to": None, "InvalidRequest": (2,)}
"""Functions whose arguments are said to people."""
FORM_LABEL_LIMIT, DESCRIPTION_LIMIT, BUTTON_LIMIT = 45, 100, 80


def said() -> set[str]:
    """Collect the texts in the code."""
    sources = [*ROOT.glob("cogs/*.py"), *(path for path in ROOT.glob("engine/*.py") if path.name != "__main__.py")]
    found = [text for path in sources for _, text, _, _ in extract_from_file("python", str(path), keywords=SAID_BY)]
    return {text if isinstance(text, str) else text[-1] for text in found}


async def described(history: History) -> set[str]:
    """Collect what Discord is told of the commands."""
    queue = Queue(history, Limits(1, 1, 1))
    bot = Reverie(queue, history, Worker(queue, history, lambda: pytest.fail("no painter is needed")), 2.0)
    for extension in EXTENSIONS:
        await bot.load_extension(extension)
    texts = set()
    for command in bot.tree.get_commands():
        parameters = getattr(command, "parameters", [])
        texts |= {getattr(command, "description", command.name)}
        texts |= {str(parameter.description) for parameter in parameters}
        texts |= {choice.name for parameter in parameters for choice in parameter.choices}
    return texts


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
    labels = (
        "What to paint",
        "What the whole picture shows afterwards",
        "The part to repaint",
        "Mask",
        "Which picture",
        "Edit prompt",
        "Repaint a part",
    )
    assert [text for text in labels if len(catalogue[text]) > FORM_LABEL_LIMIT] == []


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
