"""How progress and results look: texts and embeds, each within Discord's limits whatever the prompt."""

from collections.abc import Sequence

import discord

from engine.jobs import Job, Painting, State

PROMPT_SHOWN = 300
"""Characters of a prompt in a progress message."""
EMBED_TEXT_LIMIT = 4096
FIELD_LIMIT = 1024
ALT_TEXT_LIMIT = 1024
WORDS_LEFT_OUT = " … (`/words` lists all)"
BAR_WIDTH = 16
COLOUR = discord.Colour(0x7C5CFC)


def shorten(text: str, limit: int) -> str:
    """Cut a text to a number of characters, and show that it was cut."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def quote(prompt: str, limit: int) -> str:
    """Show a prompt as it was typed: no markdown, no line breaks, no longer than `limit`."""
    one_line = " ".join(prompt.split())
    # Escaping may double the length, so the cut is made before and, for texts full of markup, once more.
    escaped = discord.utils.escape_markdown(shorten(one_line, limit))
    return escaped if len(escaped) <= limit else escaped[: limit - 1].rstrip("\\") + "…"


def progress(job: Job, position: int, done_at: int | None) -> str:
    """Say how far a job is. `done_at` is when it should be done, in Unix seconds, where that is known."""
    when = f", done <t:{done_at}:R>" if done_at else ""
    if job.state is State.WAITING:
        place = "next" if position == 1 else f"number {position} in the queue"
        return f"**{quote(job.request.prompt, PROMPT_SHOWN)}**\nYou are {place}{when}."
    if job.progress is None:
        return f"**{quote(job.request.prompt, PROMPT_SHOWN)}**\nPainting{when} …"
    done, total = job.progress.done, job.progress.total
    filled = round(BAR_WIDTH * done / total)
    bar = "█" * filled + "░" * (BAR_WIDTH - filled)
    return f"**{quote(job.request.prompt, PROMPT_SHOWN)}**\n`{bar}` {100 * done // total}% · {job.progress.stage}{when}"


def ending(job: Job, text: str) -> str:
    """Say how a job ended that has no result."""
    return f"**{quote(job.request.prompt, PROMPT_SHOWN)}**\n{text}"


def result(job: Job, painting: Painting, known_words: Sequence[str] = ()) -> discord.Embed:
    """Describe what was painted and how to paint it again; where the model did not know a word, say which ones it knows."""
    embed = discord.Embed(description=quote(job.request.prompt, EMBED_TEXT_LIMIT), colour=COLOUR)
    embed.add_field(name="Seed", value=str(job.request.seed))
    embed.add_field(name="Model", value=shorten(painting.model, FIELD_LIMIT))
    embed.add_field(name="Steps", value=str(painting.steps))
    embed.add_field(name="Guidance", value=f"{painting.guidance:g}")
    embed.add_field(name="Seconds", value=f"{painting.seconds:.1f}")
    if painting.unknown_words:
        unknown = shorten(", ".join(quote(word, 50) for word in painting.unknown_words), FIELD_LIMIT)
        embed.add_field(name="Words I was never shown", value=unknown, inline=False)
        if known_words:
            embed.add_field(name="Words I know", value=listed(known_words, FIELD_LIMIT), inline=False)
    return embed


def listed(words: Sequence[str], limit: int) -> str:
    """List words, as many as fit, and say where the others are."""
    text = ", ".join(words)
    if len(text) <= limit:
        return text
    return text[: limit - len(WORDS_LEFT_OUT)].rpartition(", ")[0] + WORDS_LEFT_OUT


def alt_text(job: Job) -> str:
    """Describe the grid to those who don't see it."""
    count = job.request.count
    pictures = "A picture" if count == 1 else f"A grid of {count} pictures"
    return shorten(f"{pictures} painted from the prompt: {' '.join(job.request.prompt.split())}", ALT_TEXT_LIMIT)


def file_name(job: Job, ending: str = "png") -> str:
    """Name the file of a result. Never made of the prompt: that may be too long, or say what a file name should not."""
    return f"reverie-{job.id}.{ending}"
