"""How progress and results look: texts, embeds and buttons, each within Discord's limits whatever the prompt."""

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import discord

from cogs._language import Language, mark
from engine.jobs import WHEEL, Job, Kind, Painting, Preset, Request, State
from engine.verdicts import Finding, Verdict

PROMPT_SHOWN = 300
"""Characters of a prompt in a progress message."""
NAME_SHOWN = 100
"""Characters of a model's name in a sentence."""
CONTENT_LIMIT = 2000
EMBED_TEXT_LIMIT = 4096
FIELD_LIMIT = 1024
ALT_TEXT_LIMIT = 1024
WORDS_LEFT_OUT = " … (`/words`)"
BAR_WIDTH = 16
BUTTONS_IN_A_ROW = 5
CHOICES_LIMIT = 25
"""Of a message's buttons, and of a field in a form."""
DRAWS_SHOWN = 20
"""Beside the other buttons of a card."""
PARTS_SHOWN, ENDS_SHOWN = 250, 600
"""Characters of one of five prompts, and of two, so that all fit into a message."""
ARROWS = "↖↑↗←●→↙↓↘"
"""The ways from the middle of a wheel, in reading order."""
VERDICTS = {
    Finding.SAME: mark("It is what its receipt says: not a pixel differs."),
    Finding.ROUNDED: mark("It is what its receipt says: pixels differ by rounding only."),
    Finding.DIFFERENT: mark("It is not what its receipt says: pixels differ."),
    Finding.OTHER_SIZE: mark("It is not what its receipt says: that picture has another size."),
    Finding.OTHER_MODEL: mark("Another model painted it, so it cannot be painted again here."),
}
COLOUR = discord.Colour(0x7C5CFC)
LONG_S = 60.0
"""Whoever waited longer may be doing something else by now."""


Button = discord.ui.Button[discord.ui.View]


class Act(StrEnum):
    """What a button does. These names are in messages that were posted long ago: they stay."""

    ENLARGE = "u"
    VARY = "v"
    AGAIN = "again"
    EDIT = "edit"
    INFO = "info"
    DELETE = "delete"
    CANCEL = "cancel"
    CONFIRM = "confirm"
    DISCARD = "discard"
    SHOW = "show"
    PAGE = "page"
    SIMILAR = "similar"
    FAMILY = "family"
    DOWNLOAD = "download"
    SHARE = "share"
    SHARE_ONE = "share1"
    STAR = "star"
    WITHDRAW = "withdraw"
    FIRST = "first"
    SECOND = "second"
    SKIP = "skip"
    DISMISS = "dismiss"
    REMOVE = "remove"
    BAN = "ban"
    ERASE = "erase"
    LOG = "log"
    EXPLORE = "explore"
    DRAW = "draw"
    VERIFY = "verify"
    PAINT = "paint"


OF_JOBS = (
    *(Act.ENLARGE, Act.VARY, Act.AGAIN, Act.EDIT, Act.INFO, Act.DELETE, Act.CANCEL),
    *(Act.SHOW, Act.SIMILAR, Act.FAMILY, Act.DOWNLOAD, Act.SHARE, Act.SHARE_ONE, Act.EXPLORE, Act.DRAW, Act.VERIFY),
)
"""The number of these is a job's; that of others is a draft's, a picture's, a report's or nobody's."""
BUTTON_ID = re.compile(rf"reverie:(?P<act>{'|'.join(Act)}):(?P<number>\d{{1,18}}):(?P<index>\d{{1,4}})")
"""What a button does, to what, and to which of its pictures or pages."""


def button_of(item: object) -> re.Match[str] | None:
    """Read what a component of a message of ours does, None where it is none of our buttons."""
    return BUTTON_ID.fullmatch(getattr(item, "custom_id", None) or "")


def button_id(act: Act, number: int, index: int = 0) -> str:
    """Name a button so that it is understood for ever."""
    return f"reverie:{act}:{number}:{index}"


def button(act: Act, label: str, number: int, index: int = 0, style: discord.ButtonStyle = discord.ButtonStyle.secondary) -> Button:
    """Return a button with a text on it; what it does is in its id, so that nothing needs to be kept in memory."""
    return discord.ui.Button(style=style, label=label, custom_id=button_id(act, number, index))


def link(label: str, address: str) -> Button:
    """Return a button that opens a page."""
    return discord.ui.Button(style=discord.ButtonStyle.link, label=label, url=address)


def buttons(*rows: Sequence[Button]) -> discord.ui.View:
    """Lay buttons out in rows, of five at most."""
    view = discord.ui.View(timeout=None)
    row = 0
    for wanted in rows:
        for place, item in enumerate(wanted):
            item.row = row + place // BUTTONS_IN_A_ROW
            view.add_item(item)
        row += -(-len(wanted) // BUTTONS_IN_A_ROW)
    # discord.py would keep every view that it sends, for ever; a stopped one it forgets.
    view.stop()
    return view


def choosable(job: Job) -> int:
    """Return how many of a job's pictures can be chosen between: of many, the first."""
    return 0 if job.request.kind in (Kind.DRAWS, Kind.VERIFY) else min(job.request.count, CHOICES_LIMIT)


def card_buttons(job: Job, painting: Painting, kinds: frozenset[Kind], say: Language) -> discord.ui.View:
    """Return what can be done with a result."""
    last = [button(Act.INFO, say("Info"), job.id), button(Act.DELETE, say("Delete"), job.id, style=discord.ButtonStyle.danger)]
    if is_shareable(job) and choosable(job):
        last.insert(1, button(Act.SHARE, say("Share"), job.id))
    if Kind.DREAM in kinds and job.request.kind is not Kind.VERIFY:
        last.insert(0, button(Act.EDIT, say("Edit prompt"), job.id))
    if job.request.kind in kinds and job.request.kind is not Kind.VERIFY:
        last.insert(0, button(Act.AGAIN, say("Reroll"), job.id))
    match job.request.kind:
        case Kind.MORPH | Kind.VERIFY:
            return buttons(last)
        case Kind.DRAWS:
            shown = painting.draws[:DRAWS_SHOWN] if Kind.DREAM in kinds else ()
            return buttons([button(Act.DRAW, f"{index + 1} · {draw.score:.3f}", job.id, index) for index, draw in enumerate(shown)], last)
        case Kind.EXPLORE:
            return buttons(*wheel(job), last)
        case _:
            enlarge = [button(Act.ENLARGE, f"U{index + 1}", job.id, index) for index in range(job.request.count)]
            return buttons(enlarge, variation_buttons(job, kinds), last)


def wheel(job: Job) -> list[list[Button]]:
    """Return a button for each picture of a wheel: those around go on from there, the one in the middle is enlarged."""
    ways = [button(Act.ENLARGE if index == WHEEL // 2 else Act.EXPLORE, arrow, job.id, index) for index, arrow in enumerate(ARROWS)]
    return [ways[start : start + 3] for start in range(0, WHEEL, 3)]


def variation_buttons(job: Job, kinds: frozenset[Kind]) -> list[Button]:
    """Return a button for variations of each picture, none where the model makes none."""
    primary = discord.ButtonStyle.primary
    return [button(Act.VARY, f"V{index + 1}", job.id, index, primary) for index in range(choosable(job))] if Kind.VARIATION in kinds else []


def single_buttons(job: Job, index: int, kinds: frozenset[Kind], say: Language) -> discord.ui.View:
    """Return what can be done with one picture of a grid."""
    share = [button(Act.SHARE_ONE, say("Share"), job.id, index)] if is_shareable(job) else []
    return buttons([*variation_buttons(job, kinds)[index : index + 1], *share, button(Act.INFO, say("Info"), job.id, index)])


def info_buttons(job: Job, index: int | None, say: Language) -> discord.ui.View:
    """Return what can be found from a result."""
    similar = button(Act.SIMILAR, say("Similar pictures"), job.id, index or 0)
    found = [similar, button(Act.FAMILY, say("Family"), job.id), button(Act.DOWNLOAD, say("Download"), job.id)]
    if choosable(job):
        found += [button(Act.EXPLORE, say("Explore"), job.id, index or 0), button(Act.VERIFY, say("Verify"), job.id, index or 0)]
    return buttons(found)


def gallery_buttons(picture: int, job: Job, index: int, say: Language) -> discord.ui.View:
    """Return what can be done with a shared picture."""
    name = say("Star")
    star = button(Act.STAR, f"⭐ {name}", picture, style=discord.ButtonStyle.primary)
    return buttons([star, button(Act.INFO, say("Info"), job.id, index), button(Act.WITHDRAW, say("Withdraw"), picture)])


def is_shareable(job: Job) -> bool:
    """Tell whether a result was made in a server that may have a gallery."""
    return job.origin.guild_id is not None and not job.origin.is_foreign


def cancel_button(job: Job, say: Language) -> discord.ui.View:
    """Return what can be done with a job that is on its way."""
    return buttons([button(Act.CANCEL, say("Cancel"), job.id)])


def shorten(text: str, limit: int) -> str:
    """Cut a text to a number of characters, and show that it was cut."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def quote(prompt: str, limit: int) -> str:
    """Show a prompt as it was typed: no markdown, no line breaks, no longer than `limit`."""
    one_line = " ".join(prompt.split())
    # Escaping may double the length, so the cut is made before and, for texts full of markup, once more.
    escaped = discord.utils.escape_markdown(shorten(one_line, limit))
    return escaped if len(escaped) <= limit else escaped[: limit - 1].rstrip("\\") + "…"


def title(request: Request, say: Language, limit: int = PROMPT_SHOWN) -> str:
    """Say what was asked for."""
    prompt = quote(request.prompt, limit - 50)
    match request.kind:
        case Kind.DREAM | Kind.EMBED | Kind.UPSCALE:
            return prompt
        case Kind.DRAWS:
            return say("Draws of the prior: {prompt}", prompt=prompt)
        case Kind.BLEND:
            return say("Blend: {prompt}", prompt=prompt) if prompt else say("Blend of pictures")
        case Kind.MORPH:
            return say("Morph: {prompt}", prompt=prompt) if prompt else say("Morph between two pictures")
        case Kind.EDIT:
            return say("Edit: {before} → {prompt}", before=quote(request.before, (limit - 50) // 2), prompt=quote(request.prompt, (limit - 50) // 2))
        case Kind.EXPLORE:
            return say("What lies around a picture")
        case Kind.VERIFY:
            return say("Painted again from its receipt")
        case Kind.INPAINT:
            return say("Repainted: {prompt}", prompt=prompt)
        case Kind.VARIATION:
            return say("Variations: {prompt}", prompt=prompt) if prompt else say("Variations of a picture")


def progress(job: Job, position: int, done_at: int | None, say: Language) -> str:
    """Say how far a job is. `done_at` is when it should be done, in Unix seconds, where that is known."""
    when = say(", done {when}", when=f"<t:{done_at}:R>") if done_at else ""
    if job.state is State.WAITING and position == 1:
        line = say("You are next{when}.", when=when)
    elif job.state is State.WAITING:
        line = say("You are number {place} in the queue{when}.", place=position, when=when)
    elif job.progress is None:
        line = say("Painting{when} …", when=when)
    else:
        done, total = job.progress.done, job.progress.total
        filled = round(BAR_WIDTH * done / total)
        line = f"`{'█' * filled}{'░' * (BAR_WIDTH - filled)}` {100 * done // total}% · {job.progress.stage}{when}"
    return "\n".join([f"**{title(job.request, say)}**", line, *job.origin.notes])


def ending(job: Job, text: str, say: Language) -> str:
    """Say how a job ended that has no result."""
    return f"**{title(job.request, say)}**\n{text}"


def headline(job: Job, waited_s: float, say: Language) -> str:
    """Say to whom a result belongs, and where it was asked for; who waited long hears how long."""
    parts = [f"<@{job.origin.user_id}>"]
    if waited_s > LONG_S:
        parts.append(say("done after {minutes} min", minutes=round(waited_s / 60)))
    if job.origin.asked_in is not None or waited_s > LONG_S:
        here, origin = say("asked here"), job.origin
        parts.append(f"[{here}]({message_link(origin.guild_id, origin.channel_id, origin.asked_in)})")
    return " · ".join(parts)


def message_link(guild_id: int | None, channel_id: int, message_id: int | None) -> str:
    """Return the address of a message, or of its channel where there is no message."""
    place = f"https://discord.com/channels/{guild_id or '@me'}/{channel_id}"
    return place if message_id is None else f"{place}/{message_id}"


def result(job: Job, painting: Painting, known_words: Sequence[str], say: Language) -> discord.Embed:
    """Describe what was painted and how to paint it again; where the model did not know a word, say which ones it knows."""
    embed = discord.Embed(description=title(job.request, say, EMBED_TEXT_LIMIT), colour=COLOUR)
    if painting.verdict is not None:
        embed.add_field(name=say("Verdict"), value=verdict(painting.verdict, say), inline=False)
    else:
        embed.add_field(name=say("Seed"), value=str(job.request.seed))
    embed.add_field(name=say("Model"), value=shorten(painting.model, FIELD_LIMIT))
    if painting.verdict is None:
        embed.add_field(name=say("Steps"), value=str(painting.steps))
        embed.add_field(name=say("Guidance"), value=f"{painting.guidance:g}")
    embed.add_field(name=say("Seconds"), value=f"{painting.seconds:.1f}")
    embed.add_field(name=say("Number"), value=f"#{job.id}")
    notes = [*job.origin.notes]
    if painting.draws:
        notes.append(say("The higher, the nearer the prior's draw is to the prompt. Press one to paint it."))
    if job.request.model not in ("", painting.model):
        gone, stand_in = quote(job.request.model, NAME_SHOWN), quote(painting.model, NAME_SHOWN)
        notes.append(say("The model {model} is gone; {other} painted this.", model=gone, other=stand_in))
    if notes:
        embed.add_field(name=say("Note"), value=shorten("\n".join(notes), FIELD_LIMIT), inline=False)
    if painting.unknown_words:
        unknown = shorten(", ".join(quote(word, 50) for word in painting.unknown_words), FIELD_LIMIT)
        embed.add_field(name=say("Words I was never shown"), value=unknown, inline=False)
        if known_words:
            embed.add_field(name=say("Words I know"), value=listed(known_words, FIELD_LIMIT), inline=False)
    return embed


def verdict(told: Verdict, say: Language) -> str:
    """Say what painting a picture again came to."""
    text = say(VERDICTS[told.finding])
    if told.largest:
        text += " " + say("Channels differ by {largest} of 255 at most, {mean} on average.", largest=told.largest, mean=f"{told.mean or 0:.2g}")
    if told.differs:
        text += " " + say("Not as it was then: {facts}.", facts=", ".join(told.differs))
    return text


def info(job: Job, painting: Painting, index: int | None, say: Language) -> str:
    """Say how to paint pictures again, as one text that a phone copies whole."""
    request = job.request
    seed = request.seed if index is None else request.seeds[index]
    command, own = typed(request, shorten(one_line(request.prompt), CONTENT_LIMIT - 500))
    values = own | {
        "seed": seed,
        "count": "" if request.kind.counts != Kind.DREAM.counts else request.count if index is None else 1,
        "steps": painting.steps,
        "guidance": f"{painting.guidance:g}",
        "preset": request.preset if request.preset is not Preset.BALANCED else "",
        "seamless": True if request.seamless else "",
        "model": painting.model if request.model and request.kind is Kind.DREAM else "",
    }
    options = " ".join(f"{name}: {value}" for name, value in values.items() if value != "")
    seeds = ", ".join(map(str, dict.fromkeys(request.seeds)))
    facts = say(
        "#{number} · {model} · seeds {seeds} · asked by {owner}", number=job.id, model=painting.model, seeds=seeds, owner=f"<@{job.origin.user_id}>"
    )
    return f"```\n{command} {options}\n```{facts}"


def typed(request: Request, prompt: str) -> tuple[str, dict[str, Any]]:
    """Return the command that asks for something, and those of its options that others have not; files are not among them."""
    match request.kind:
        case Kind.INPAINT:
            return "/inpaint", {"prompt": prompt}
        case Kind.VARIATION:
            return "/variations", {"prompt": prompt} | of_shares(request)
        case Kind.EDIT:
            texts = (("from", request.before), ("to", request.prompt))
            return "/edit", {name: shorten(one_line(text), ENDS_SHOWN) for name, text in texts} | of_shares(request)
        case Kind.EXPLORE:
            return "/explore", {"step": "" if request.step is None else f"{request.step:g}"}
        case Kind.DRAWS:
            return "/draws", {"prompt": prompt, "number": request.count}
        case Kind.VERIFY:
            return "/verify", {}
        case Kind.MORPH:
            ends = zip(("from_prompt", "to_prompt"), request.ingredients, strict=True)
            return "/morph", {name: shorten(one_line(end.prompt), ENDS_SHOWN) for name, end in ends} | {"frames": request.count}
        case Kind.BLEND:
            prompts = [one.prompt for one in request.ingredients if one.prompt]
            weights = [f"{one.weight:g}" for one in sorted(request.ingredients, key=lambda one: bool(one.prompt))]
            named = {f"prompt_{number}": shorten(one_line(text), PARTS_SHOWN) for number, text in enumerate(prompts, start=1)}
            return "/blend", named | {"weights": " ".join(weights) if len(set(weights)) > 1 else ""}
        case _:
            return "/dream", {"prompt": prompt, "prior_seed": "" if request.prior_seed is None else request.prior_seed}


def of_shares(request: Request) -> dict[str, str]:
    """Return how far from a picture something was to go."""
    return {"strength": "" if request.strength is None else f"{request.strength:g}", "drift": f"{request.drift:g}" if request.drift else ""}


def one_line(prompt: str) -> str:
    """Return a prompt as it can stand in a block of code."""
    return " ".join(prompt.replace("`", "'").split())


def listed(words: Sequence[str], limit: int) -> str:
    """List words, as many as fit, and say where the others are."""
    text = ", ".join(words)
    if len(text) <= limit:
        return text
    return text[: limit - len(WORDS_LEFT_OUT)].rpartition(", ")[0] + WORDS_LEFT_OUT


def alt_text(request: Request, say: Language, count: int | None = None) -> str:
    """Describe a grid, or so many pictures of it, to those who don't see it."""
    count = request.count if count is None else count
    what = " ".join(request.prompt.split()) or title(request, say)
    text = say("A picture: {what}", what=what) if count == 1 else say("A grid of {count} pictures: {what}", count=count, what=what)
    return shorten(text, ALT_TEXT_LIMIT)


def file_name(job: Job, ending: str = "png") -> str:
    """Name the file of a result. Never made of the prompt: that may be too long, or say what a file name should not."""
    return f"reverie-{job.id}.{ending}"
