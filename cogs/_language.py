"""What is said to people, in their language. English stands in the code; translations are in cogs/languages, in gettext's format."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import discord
from babel.messages.pofile import read_po
from discord import app_commands

FOLDER = Path(__file__).parent / "languages"
LANGUAGES = {"de": "de", "es-ES": "es", "es-419": "es", "fr": "fr", "ja": "ja", "zh-CN": "zh_CN"}
"""Discord's locales and the catalogue for each; others read English."""


class Language:
    """Says texts in one language; what its catalogue lacks is said in English."""

    def __init__(self, catalogue: Mapping[str, str]) -> None:
        self._catalogue = catalogue

    def __call__(self, text: str, **values: object) -> str:
        """Say a text, with values in the places of {names}."""
        return self._catalogue.get(text, text).format_map(values)

    def translation(self, text: str) -> str | None:
        """Return what a text is in this language, None where the catalogue does not say."""
        return self._catalogue.get(text)


@functools.cache
def language(locale: str) -> Language:
    """Return the language for one of Discord's locales."""
    name = LANGUAGES.get(locale)
    return Language(read(name)) if name else Language({})


def language_of(interaction: discord.Interaction) -> Language:
    """Return the language for whoever uses a command or a button: what they, the channel or the server chose, else their Discord's."""
    bot: Any = interaction.client
    return language(bot.desk.locale(interaction))


@functools.cache
def read(name: str) -> dict[str, str]:
    """Read a catalogue: English text → translation."""
    with (FOLDER / f"{name}.po").open("rb") as file:
        return {str(entry.id): str(entry.string) for entry in read_po(file, locale=name) if entry.id and entry.string}


def mark(text: str) -> str:
    """Mark a text that is said later, for the tools that collect what is to be translated."""
    return text


class Translator(app_commands.Translator):
    """Tells Discord the descriptions of commands and options in all languages; slash commands and options keep their names."""

    async def translate(self, string: app_commands.locale_str, locale: discord.Locale, context: app_commands.TranslationContextTypes) -> str | None:
        """Return one text of a command in one language, None where it stays as it is."""
        named = (app_commands.TranslationContextLocation.command_name, app_commands.TranslationContextLocation.parameter_name)
        if context.location in named and not isinstance(context.data, app_commands.ContextMenu):
            return None
        return language(locale.value).translation(string.message)
