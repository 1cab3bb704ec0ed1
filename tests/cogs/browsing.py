"""What tests of looking back share: results that were painted earlier, and what people are shown of them."""

import asyncio
import io
import json
import zipfile
from typing import Any

from cogs import _cards as cards
from cogs._client import Reverie
from engine.jobs import Job, Kind, Origin, Painting, Picture, Request
from loopback import Channel, Interaction, Loopback, Message, User
from tests.conftest import ScriptedPainter, png


def button(act: cards.Act, number: int = 1, index: int = 0) -> str:
    return cards.button_id(act, number, index)


async def painted(bot: Reverie, user: User, channel: Channel, prompt: str = "a cat", count: int = 1, **more: Any) -> Job:
    """Let something have been painted earlier, as if by the bot; `parent` and `source` are what it goes back to."""
    goes_back = {key: more.pop(key) for key in ("parent", "source") if key in more}
    options = {key: more.pop(key) for key in ("kind", "image", "mask") if key in more}
    noise = more.pop("noise", False)
    seed = more.pop("seed", 7)
    origin = Origin(user.id, channel.id, channel.guild_id, is_adult=channel.age_restricted, is_foreign=channel.foreign)
    for name, value in more.items():
        object.__setattr__(origin, name, value)
    job = await bot.history.add(Request(prompt, seed, count, **options), origin, **goes_back)
    seen = ScriptedPainter().seen(prompt)
    files = [noisy(job.id, position) if noise else png((seed_ % 256, 100, 50)) for position, seed_ in enumerate(job.request.seeds)]
    pictures = tuple(Picture(file, seed_, 8, 8, seen) for file, seed_ in zip(files, job.request.seeds, strict=True))
    painting = Painting(pictures, "scripted", 30, 1.5, 0.5, (), "scripted")
    await bot.history.start(job)
    bot.history.store(job, painting)
    await bot.history.painted(job, painting)
    await bot.history.delivered(job, 5000 + job.id)
    await bot.album.painted(job)
    return job


def noisy(job: int, position: int) -> bytes:
    """Return a file of some 4,000 bytes that is like no other and cannot be made smaller."""
    return png((job % 256, position, 0)) + b"".join((job * 1000 + position * 100 + part).to_bytes(40, "big") for part in range(100))


async def varied(bot: Reverie, user: User, channel: Channel, of: Job, position: int = 0, prompt: str = "a cat", **more: Any) -> Job:
    """Let a picture have been varied earlier."""
    parent = await bot.history.picture_id(of, position)
    return await painted(bot, user, channel, prompt, kind=Kind.VARIATION, image=png((1, 2, 3)), parent=parent, **more)


async def used(server: Loopback, user: User, channel: Channel, name: str, /, **options: Any) -> Interaction:
    """Use a command, and return it when it is answered."""
    use = await server.command(user, channel, name, options)
    await server.wait_for(lambda: use.message and not use.message.thinking)
    return use


async def told(server: Loopback, user: User, channel: Channel, name: str, /, **options: Any) -> Message:
    """Return what a command was answered with."""
    message: Message = (await used(server, user, channel, name, **options)).message  # type: ignore[assignment] # it is waited for
    assert message.ephemeral
    return message


async def pressed(server: Loopback, user: User, message: Message, custom_id: str) -> Message:
    """Press a button, and return the new message that it was answered with."""
    use = await server.press(user, message, custom_id)
    await server.wait_for(lambda: use.message and use.message is not message and not use.message.thinking)
    assert use.message is not None and use.message.ephemeral
    return use.message


async def refused(server: Loopback, user: User, message: Message, custom_id: str) -> str:
    """Press a button that changes its message, and return why it did not."""
    use = await server.press(user, message, custom_id)
    await server.wait_for(lambda: use.followups)
    assert use.followups[0].ephemeral
    return use.followups[0].content


async def turned(server: Loopback, user: User, message: Message, label: str) -> None:
    """Turn to another page by its button."""
    before = message.content
    await server.press(user, message, part(message, label)["custom_id"])
    await server.wait_for(lambda: message.content != before)


def part(message: Message, label: str) -> dict[str, Any]:
    """Return the button that says this."""
    [found] = [part for row in message.components for part in row["components"] if part["label"] == label]
    return found


def labels(message: Message) -> list[str]:
    return [part["label"] for row in message.components for part in row["components"]]


def listed(message: Message) -> list[int]:
    """Return the numbers of the results that a page lists, which have buttons too."""
    numbers = [int(embed["title"].removeprefix("#")) for embed in message.embeds]
    assert [label for label in labels(message) if label.startswith("#")] == [f"#{number}" for number in numbers]
    return numbers


def link(job: Job, result_id: int | None = None) -> str:
    return f"https://discord.com/channels/{job.origin.guild_id or '@me'}/{job.origin.channel_id}/{result_id or 5000 + job.id}"


def similar(message: Message) -> list[int]:
    """Return the numbers of the results that are said to look alike."""
    return [int(label.removeprefix("#")) for label in labels(message)]


async def archives(server: Loopback, use: Interaction, parts: int) -> list[bytes]:
    """Wait until so many archives have come and no more, and return them."""
    await server.wait_for(lambda: use.message is not None and use.message.content and 1 + len(use.followups) == parts)
    await asyncio.sleep(0.1)
    assert use.message is not None
    messages = [use.message, *use.followups]
    assert len(messages) == parts and all(message.ephemeral for message in messages)
    assert [message.content.splitlines()[0] for message in messages] == [f"Part {number}" for number in range(1, parts + 1)]
    return [file.data for message in messages for file in message.attachments]


def unpacked(found: list[bytes]) -> tuple[Any, dict[str, bytes]]:
    """Return the facts and the files in archives, each of which is sound, and each file of which there is once."""
    entries = []
    for archive in found:
        with zipfile.ZipFile(io.BytesIO(archive)) as file:
            assert file.testzip() is None
            entries += [(name, file.read(name)) for name in file.namelist()]
    assert len(dict(entries)) == len(entries)
    facts = b"".join(data for name, data in entries if name.startswith("everything.json"))
    return json.loads(facts), {name: data for name, data in entries if not name.startswith("everything.json")}
