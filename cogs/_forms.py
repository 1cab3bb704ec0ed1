"""Forms that open over a message. discord.py forgets forms with the process, so they are known by their ids alone, like buttons."""

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

import discord

FORM_ID = re.compile(r"reverie-form:(?P<form>[a-z]{1,10}):(?P<about>\d{1,18}|[a-z]{1,10}\.[a-z_]{1,40})")
"""Which form this is, and what it is about: a job, a draft, a setting."""


class Form(StrEnum):
    """A form. These names are on people's screens across a restart: they stay."""

    EDIT = "edit"
    INPAINT = "inpaint"
    REPORT = "report"
    SETTING = "setting"


async def open_form(interaction: discord.Interaction, form: Form, about: int | str, title: str, *fields: discord.ui.Label[Any]) -> None:
    """Show a form; what is written into it comes as an interaction of its own, see `sent`."""
    modal = discord.ui.Modal(title=title, custom_id=f"reverie-form:{form}:{about}")
    for field in fields:
        modal.add_item(field)
    # A stopped form is not kept in memory, where those that nobody sends would stay for ever.
    modal.stop()
    await interaction.response.send_modal(modal)


def sent(interaction: discord.Interaction, form: Form) -> int | None:
    """Return which job or draft a form is about that was just sent; None for other forms and everything else."""
    about = sent_about(interaction, form)
    return int(about) if about is not None and about.isdecimal() else None


def sent_about(interaction: discord.Interaction, form: Form) -> str | None:
    """Return what a form is about that was just sent; None for other forms and everything else."""
    if interaction.type is not discord.InteractionType.modal_submit:
        return None
    data: Any = interaction.data or {}
    found = FORM_ID.fullmatch(str(data.get("custom_id", "")))
    return found["about"] if found and found["form"] == form else None


def values(interaction: discord.Interaction) -> dict[str, Any]:
    """Return what was written and chosen: a text, or a list of what was chosen, under each field's id."""
    data: Any = interaction.data or {}
    return {str(field["custom_id"]): field.get("value", field.get("values")) for field in fields_of(data.get("components"))}


def files(interaction: discord.Interaction, field: str) -> list[discord.Attachment]:
    """Return the files that were put into a field."""
    data: Any = interaction.data or {}
    known = (data.get("resolved") or {}).get("attachments") or {}
    chosen = values(interaction).get(field) or []
    return [discord.Attachment(data=known[number], state=interaction._state) for number in map(str, chosen) if number in known]


def fields_of(components: Any) -> Iterator[dict[str, Any]]:
    """Yield every field, however deep Discord has wrapped it."""
    for part in components if isinstance(components, list) else []:
        if "custom_id" in part:
            yield part
        if "component" in part:
            yield from fields_of([part["component"]])
        yield from fields_of(part.get("components"))
