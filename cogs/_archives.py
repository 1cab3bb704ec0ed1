"""Answering with ZIP files: as many as a place takes, each of a size that it takes, and then how to go on."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import discord

from cogs._address import Upload
from cogs._desk import file_limit
from cogs._language import language_of
from cogs._sight import is_foreign
from engine.archives import packed
from engine.worker import aside

MOST = 20
MOST_ABROAD = 5
"""Messages that Discord takes of a bot in places that it is not a member of."""
OF_ARCHIVE_BYTES, OF_FILE_BYTES = 1000, 300
"""Of an archive and of a file in it, beside the file and its name: somewhat more than it is."""

Files = Sequence[tuple[str, Path | bytes]]


@dataclass(frozen=True, slots=True)
class Parcel:
    """Files of one result, which are sent together or not at all."""

    number: int
    files: Files


async def send_archives(
    interaction: discord.Interaction, parcels: Sequence[Parcel], facts: Callable[[int], Any], name: str, *, words: str = "", more: bool = False
) -> None:
    """Answer with ZIP files of at most the size that the place takes, each when it is ready.

    `facts` returns what is told of the first so many parcels. Where not all can be sent, or there are `more` beyond them, the last message says how
    to go on without gap or repetition, among those whose prompts hold the `words`.
    """
    say, limit_bytes = language_of(interaction), file_limit(interaction)
    most = MOST_ABROAD if is_foreign(interaction) else MOST
    facts_bytes = await aside(lambda: len(json.dumps(facts(len(parcels)), indent=1)))
    count = await aside(fitting, parcels, facts_bytes, limit_bytes, most)
    more = more or count < len(parcels)
    before = parcels[count].number + 1 if count < len(parcels) else parcels[-1].number
    archives = packed([file for parcel in parcels[:count] for file in parcel.files], facts(count), limit_bytes)
    part, data = 1, await aside(next, archives, None)
    while data is not None:
        following = await aside(next, archives, None)
        text = say("Part {part}", part=part)
        if following is None and more:
            text += "\n" + say("That is not all. Go on with {command}.", command=going_on(words, before))
        upload = Upload(data, f"{name}-{part}.zip", say("Pictures and their settings"), spoiler=False)
        if part == 1:
            await interaction.edit_original_response(content=text, attachments=[upload.file()])
        else:
            await interaction.followup.send(text, file=upload.file(), ephemeral=True)
        part, data = part + 1, following


def going_on(words: str, before: int) -> str:
    """Return the command that gets what comes after a number."""
    only = f"words:{words.replace('`', ' ')} " if words else ""
    return f"`/download {only}before:{before}`"


def fitting(parcels: Sequence[Parcel], facts_bytes: int, limit_bytes: int, most: int) -> int:
    """Return how many parcels surely go into so many archives, at least one: a result of nine pictures does in every real place."""
    full, filled = divmod(facts_bytes, limit_bytes - OF_ARCHIVE_BYTES)
    for place, parcel in enumerate(parcels):
        for name, data in parcel.files:
            # What is larger than an archive is made to fit.
            takes = min(size_of(data), limit_bytes - OF_ARCHIVE_BYTES) + OF_FILE_BYTES + 2 * len(name.encode())
            if filled and filled + takes > limit_bytes - OF_ARCHIVE_BYTES:
                full, filled = full + 1, 0
            filled += takes
        if full >= most:
            return max(place, 1)
    return len(parcels)


def size_of(data: Path | bytes) -> int:
    """Return the bytes of a file, 0 where it is lost."""
    try:
        return len(data) if isinstance(data, bytes) else data.stat().st_size
    except OSError:
        return 0
