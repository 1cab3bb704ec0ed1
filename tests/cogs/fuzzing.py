"""What strangers may send: commands with odd options, stale and forged buttons, forms that nobody opened, messages, broken pictures."""

import asyncio
import io
import logging
import secrets
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from PIL import Image

from cogs import _cards as cards
from cogs._forms import FORM_ID, Form
from engine.pictures import write_receipt
from engine.preferences import SETTINGS
from loopback import Channel, Interaction, Loopback, Message, User
from loopback.options import NotSent
from loopback.refusals import Refusal
from tests.cogs.conftest import results

COMPONENT, MODAL_SUBMIT, BUTTON = 3, 5, 2


def png(size: tuple[int, int] = (8, 8), mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, "PNG")
    return file.getvalue()


WHOLE = png()
FILES = {
    "whole": ("a.png", WHOLE),
    "half": ("a.png", WHOLE[:40]),
    "empty": ("a.png", b""),
    "page": ("a.png", b"<html>"),
    "bomb": ("bomb.png", png((30_000, 30_000), "1")),
    "words": ("a.txt", b"words"),
    "receipt": ("a.png", write_receipt(WHOLE, {"seed": "7", "model": "\ud7ff", "sources": f"{'0' * 16}, {'f' * 16}", "picture_1": "'; --"})),
}
texts = st.one_of(
    st.sampled_from(["a cat", " ", "v1", "u9", "again", "2", "@everyone", "`" * 50, "{prompt}", "🦊" * 30, "\u202e", "\0", "x" * 1000]),
    st.text(max_size=60),
)
numbers = st.one_of(st.integers(-2, 12), st.sampled_from([2**31, 2**53 - 1, 2**63, 10**18]))
files = st.sampled_from([*FILES])
acts = st.sampled_from([*cards.Act])
button_ids = st.one_of(
    st.builds(lambda act, number, index: f"reverie:{act}:{number}:{index}", acts, numbers, st.integers(0, 12)),
    st.builds(lambda text: f"reverie:{text}"[:100], texts),
    st.sampled_from(["", "x" * 100, "reverie:v:1", "reverie-form:edit:1"]),
)
form_ids = st.one_of(
    st.builds(lambda form, number: f"reverie-form:{form}:{number}", st.sampled_from(["edit", "inpaint", "report", "x"]), numbers),
    st.builds(
        lambda level, name: f"reverie-form:setting:{level}.{name}",
        st.sampled_from(["user", "channel", "server", "x"]),
        st.sampled_from([*SETTINGS, "x"]),
    ),
    st.sampled_from(["", "a" * 100]),
)
shares = st.floats(-0.5, 1.5)
FILE_OPTIONS = ("image", "mask", "picture_1", "picture_2", "from_picture", "to_picture", "source", "second_source")
options = {
    "dream": st.fixed_dictionaries(
        {"prompt": texts},
        optional={
            "count": numbers,
            "seed": numbers,
            "steps": numbers,
            "guidance": st.floats(-1, 30),
            "preset": st.sampled_from(("fast", "balanced", "best", "none", "")),
            "spoiler": st.booleans(),
            "model": st.one_of(st.just("scripted"), texts),
        },
    ),
    "variations": st.fixed_dictionaries({"image": files}, optional={"prompt": texts, "count": numbers, "strength": shares, "drift": shares}),
    "blend": st.fixed_dictionaries(
        {}, optional={"picture_1": files, "picture_2": files, "prompt_1": texts, "prompt_2": texts, "weights": st.one_of(texts, st.just("2 1"))}
    ),
    "morph": st.fixed_dictionaries(
        {}, optional={"from_picture": files, "from_prompt": texts, "to_picture": files, "to_prompt": texts, "frames": st.integers(0, 6)}
    ),
    "edit": st.fixed_dictionaries({"image": files, "from": texts, "to": texts}, optional={"strength": shares}),
    "explore": st.fixed_dictionaries({"image": files}, optional={"step": shares}),
    "draws": st.fixed_dictionaries({"prompt": texts}, optional={"number": numbers, "seed": numbers}),
    "verify": st.fixed_dictionaries({"image": files}, optional={"source": files, "second_source": files}),
    "inpaint": st.fixed_dictionaries(
        {"image": files, "prompt": texts}, optional={"mask": files, "region": st.sampled_from(["left", "background", "nowhere"])}
    ),
    "queue": st.just({}),
    "words": st.just({}),
    "show": st.fixed_dictionaries({"number": numbers}),
    "history": st.fixed_dictionaries({}, optional={"whose": st.sampled_from(["mine", "server", "x"]), "words": texts}),
    "similar": st.fixed_dictionaries({}, optional={"number": numbers, "picture": numbers, "image": files}),
    "download": st.fixed_dictionaries({}, optional={"number": numbers, "words": texts, "before": numbers}),
    "vote": st.just({}),
    "leaderboard": st.just({}),
    "stats": st.fixed_dictionaries({}, optional={"whose": st.sampled_from(["mine", "server", "x"])}),
    "settings": st.just({}),
    "moderate reports": st.just({}),
    "moderate bans": st.just({}),
    "moderate log": st.just({}),
    "mydata export": st.just({}),
    "mydata delete": st.just({}),
}
people = st.integers(0, 2)
places = st.integers(0, 3)
actions = st.one_of(
    *(st.tuples(st.just("command"), people, places, st.just(name), values) for name, values in options.items()),
    st.tuples(st.just("press"), people, places, button_ids, st.booleans()),
    st.tuples(
        st.just("form"),
        people,
        places,
        form_ids,
        st.dictionaries(st.sampled_from(["prompt", "region", "which", "mask", "value", "reason"]), texts, max_size=3),
    ),
    st.tuples(st.just("say"), people, places, texts, st.tuples(st.booleans(), st.lists(files, max_size=2), st.integers(0, 5))),
    st.tuples(st.just("menu"), people, places, st.sampled_from(["Variations", "Inpaint…", "Picture info", "Share", "Report"]), st.integers(0, 5)),
)


@dataclass(eq=False)
class Faults(logging.Handler):
    """Collects what the log should never hold: errors, and their tracebacks."""

    records: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(logging.ERROR)

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(self.format(record))


async def play(server: Loopback, script: list[tuple[Any, ...]]) -> None:
    """Do what a script says, one thing after the other, and wait until everything has been answered."""
    begun = []
    crowd = [server.ann, server.ben, server.add_user("mona", moderator=True)]
    spots = [server.general, server.dm(server.ann), server.add_thread(server.general, "side"), server.add_foreign_channel("away")]
    for kind, person, place, what, how in script:
        try:
            use = await act(server, kind, crowd[person], spots[place], what, how)
        except (NotSent, Refusal):
            # Discord's own client or server keeps this from the bot.
            continue
        if use is not None:
            begun.append(use)
        await asyncio.sleep(0)
    await server.wait_for(lambda: all(use.acknowledged.is_set() or is_nobodys(use) for use in begun), 30)


async def act(server: Loopback, kind: str, user: User, channel: Channel, what: Any, how: Any) -> Interaction | None:
    """Do one thing."""
    match kind:
        case "command":
            return await server.command(user, channel, what, {key: FILES[value] if key in FILE_OPTIONS else value for key, value in how.items()})
        case "press":
            source = forged(server, channel, what, theirs=how)
            return start(server, user, channel, COMPONENT, {"custom_id": what, "component_type": BUTTON, "id": 1}, source)
        case "form":
            parts = [{"type": 18, "id": 1, "component": {"type": 4, "id": 2, "custom_id": key, "value": value}} for key, value in how.items()]
            return start(server, user, channel, MODAL_SUBMIT, {"custom_id": what, "components": parts}, None)
        case "say":
            mentions, attached, back = how
            text = f"<@{server.bot.id}> {what}" if mentions else what
            if not (text.strip() or attached) or channel.foreign:
                return None
            replied = channel.messages[-back] if 0 < back <= len(channel.messages) else None
            await server.say(user, channel, text[:2000], reply_to=replied, files=[FILES[name] for name in attached])
            return None
        case _:
            if not channel.messages:
                return None
            return await server.context_menu(user, channel, channel.messages[-min(how + 1, len(channel.messages))], what)


def forged(server: Loopback, channel: Channel, custom_id: str, *, theirs: bool) -> Message:
    """Return a message with a button that nobody posted."""
    part = {"type": BUTTON, "style": 2, "label": "Go", "custom_id": custom_id, "id": 2}
    author = server.ben if theirs else server.bot
    message = Message(server.world.snowflake(), channel, author, components=[{"type": 1, "id": 1, "components": [part]}], render=server.world.render)
    channel.messages.append(message)
    return message


def start(server: Loopback, user: User, channel: Channel, kind: int, data: dict[str, Any], source: Message | None) -> Interaction:
    """Send an interaction as it is, past everything that Discord's client would check."""
    use = Interaction(server.world.snowflake(), secrets.token_urlsafe(48), kind, user, channel, server.clock.now(), data, "", source)
    server.world.add_interaction(use)
    return use


def is_nobodys(use: Interaction) -> bool:
    """Tell whether an interaction is about no button and no form of ours, which the bot leaves alone."""
    if use.type == COMPONENT:
        return cards.BUTTON_ID.fullmatch(use.data["custom_id"]) is None
    found = FORM_ID.fullmatch(use.data.get("custom_id", ""))
    return use.type == MODAL_SUBMIT and (found is None or found["form"] not in set(Form))


async def still_serves(server: Loopback) -> None:
    """Make sure that the next good request is painted."""
    before = len(results(server))
    await server.command(server.ann, server.general, "dream", {"prompt": "a cat"})
    await server.wait_for(lambda: len(results(server)) > before, 30)
