"""Sharing and starring as people do it, and what a gallery channel shows."""

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest

from cogs import _cards as cards
from cogs._client import Reverie
from loopback import Channel, Interaction, Loopback, Message, User
from tests.cogs import conftest
from tests.cogs.conftest import answered, choose

STAR = "⭐"
COUNTED = re.compile(r"⭐ \*\*(\d+)\*\* · #(\d+) by <@(\d+)>")
ENTRY = re.compile(r"(SPOILER_)?gallery-(\d+)\.\w+")


async def opened(server: Loopback, bot: Reverie, stars: int = 1, channel: Channel | None = None) -> Channel:
    """Return the server's gallery, chosen without a form."""
    channel = channel or server.add_channel("gallery")
    await server.wait_for(lambda: bot.get_channel(channel.id))
    await choose(bot, server, gallery=str(channel.id), gallery_stars=str(stars))
    await bot.board.touch_server(server.guild.id)
    return channel


async def chosen(server: Loopback, user: User, name: str, value: Any) -> Message:
    """Change a choice of the server in /settings, and return what came of it."""
    use = await server.command(user, server.general, "settings", {})
    panel = await answered(server, use)
    await answered(server, await server.press(user, panel, "reverie-settings:user", ["server"]))
    form = await server.press(user, panel, "reverie-settings:server:defaults", [name])
    await server.wait_for(lambda: form.modal)
    return await answered(server, await server.submit_modal(user, form, {"value": value}))


async def told(server: Loopback, use: Interaction) -> str:
    """Return what nobody but the person who pressed or commanded is told."""
    message: Message = await server.wait_for(lambda: next((one for one in (use.message, *use.followups) if one and is_told(one)), None))
    return message.content


def is_told(message: Message) -> bool:
    return message.ephemeral and not message.thinking and bool(message.content)


def named(message: Message, *acts: cards.Act) -> str:
    """Return the id of the first of a message's buttons that do something."""
    ids = [part["custom_id"] for row in message.components for part in row["components"]]
    return str([custom_id for custom_id in ids if custom_id.split(":")[1] in acts][0])


async def pressed(server: Loopback, user: User, message: Message, act: cards.Act, custom_id: str = "") -> Interaction:
    """Press a button, and return when it was answered."""
    use = await server.press(user, message, custom_id or named(message, act))
    await server.wait_for(lambda: use.acknowledged.is_set())
    return use


async def dreamt(server: Loopback, count: int = 1, user: User | None = None, channel: Channel | None = None, **options: Any) -> Message:
    """Return the card of a finished dream, of one picture mostly."""
    card = await conftest.dreamt(server, count, user, channel, **options)
    # The card is there before its job is known to be done.
    await asyncio.sleep(0.05)
    return card


async def shared(server: Loopback, card: Message, index: int = 0, user: User | None = None) -> Message:
    """Share a picture of a grid, and return the message that tells everybody."""
    person = user or server.ann
    which = await answered(server, await server.press(person, card, named(card, cards.Act.SHARE)))
    use = await server.press(person, which, [part["custom_id"] for row in which.components for part in row["components"]][index])
    # Where it had to be looked at first, the sharer is told before everybody else is.
    return await server.wait_for(lambda: next((one for one in (use.message, *use.followups) if one and not one.ephemeral and one.attachments), None))


def entries(channel: Channel) -> dict[int, list[int]]:
    """Return how many stars each entry of a gallery says its picture has."""
    found: dict[int, list[int]] = {}
    for message in channel.messages:
        for file in message.attachments:
            if entry := ENTRY.fullmatch(file.filename):
                counted = COUNTED.match(message.content)
                assert counted is not None, message.content
                found.setdefault(int(entry[2]), []).append(int(counted[1]))
    return found


async def shows(server: Loopback, bot: Reverie, channel: Channel, **expected: int) -> None:
    """Wait until a gallery shows exactly these pictures ("p1") with so many stars, and the board has nothing left to do."""
    wanted = {int(name.removeprefix("p")): [stars] for name, stars in expected.items()}
    await becomes(server, lambda: entries(channel), wanted)
    await bot.board.settled()
    assert entries(channel) == wanted


async def becomes(server: Loopback, look: Callable[[], Any], wanted: Any) -> None:
    """Wait until something looks as it should."""
    try:
        await server.wait_for(lambda: look() == wanted, 8)
    except TimeoutError:
        pytest.fail(f"{look()} instead of {wanted}")
