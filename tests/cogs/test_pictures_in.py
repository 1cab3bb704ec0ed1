"""Pictures that people hand in: by command, by menu, by form, by writing a message."""

import io

import discord
import numpy as np
import pytest
from PIL import Image

from cogs import _cards as cards
from cogs._client import Reverie
from engine.jobs import Kind, Preset
from loopback import Interaction, Loopback, Message
from tests.cogs.browsing import button
from tests.cogs.conftest import Start, answered, dreamt, results, settled, states
from tests.conftest import ScriptedPainter


def picture(size: tuple[int, int] = (60, 40), kind: str = "PNG") -> bytes:
    """Return a red picture with a blue square in its middle."""
    image = Image.new("RGB", size, (200, 0, 0))
    image.paste((0, 0, 200), (size[0] // 3, size[1] // 3, size[0] * 2 // 3, size[1] * 2 // 3))
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def mask_of(png_: bytes | None) -> np.ndarray:
    assert png_ is not None
    return np.asarray(Image.open(io.BytesIO(png_)).convert("L")) > 127


async def test_variations_of_an_uploaded_picture(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    use = await discord_.command(discord_.ann, discord_.general, "variations", {"image": picture(kind="JPEG"), "count": 3, "seed": 5})
    await settled(bot, "delivered")
    [request] = painter.painted
    assert (request.kind, request.prompt, request.count, request.seed) == (Kind.VARIATION, "", 3, 5)
    assert request.image is not None and request.image.startswith(b"\x89PNG")
    [card] = results(discord_)
    assert card.embeds[0]["description"] == "Variations of a picture"
    assert card.attachments[0].description == "A grid of 3 pictures: Variations of a picture"
    await discord_.wait_for(lambda: use.message.deleted)


async def test_large_pictures_are_kept_small(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    await discord_.command(discord_.ann, discord_.general, "variations", {"image": picture((3000, 1500))})
    await settled(bot, "delivered")
    assert Image.open(io.BytesIO(painter.painted[0].image or b"")).size == (1024, 512)


BROKEN = {
    "no picture": (b"not a picture at all", "be a PNG, JPEG"),
    "half a picture": (picture()[:100], "damaged"),
    "a bomb": (None, "megapixels"),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("command", ["variations", "inpaint"])
async def test_a_picture_that_cannot_be_used_is_told_and_nothing_is_queued(discord_: Loopback, bot: Reverie, name: str, command: str) -> None:
    data, says = BROKEN[name]
    if data is None:
        file = io.BytesIO()
        Image.new("1", (20_000, 20_000)).save(file, "PNG")
        data = file.getvalue()
    options = {"image": ("x.png", data)} | ({"prompt": "a dog", "region": "left"} if command == "inpaint" else {})
    use = await discord_.command(discord_.ann, discord_.general, command, options)
    message = await answered(discord_, use)
    assert says in message.content and "Traceback" not in message.content
    assert await states(bot) == []


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"region": "left"}, (slice(None), slice(0, 30))),
        ({"region": "right"}, (slice(None), slice(30, None))),
        ({"region": "top"}, (slice(0, 20), slice(None))),
        ({"region": "bottom"}, (slice(20, None), slice(None))),
        ({"region": "centre"}, (slice(10, 30), slice(15, 45))),
    ],
)
async def test_a_region_is_shown_confirmed_and_repainted(
    discord_: Loopback, bot: Reverie, painter: ScriptedPainter, options: dict[str, str], expected: tuple[slice, slice]
) -> None:
    wanted = np.zeros((40, 60), dtype=bool)
    wanted[expected] = True
    use = await discord_.command(
        discord_.ann,
        discord_.general,
        "inpaint",
        {"image": picture(), "prompt": "a dog", "count": 2, "seed": 9, "steps": 4, "guidance": 2.0, "preset": "best"} | options,
    )
    preview = await answered(discord_, use)
    assert preview.ephemeral and "a dog" in preview.content and await states(bot) == []
    before, after = (np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int) for data in (picture(), preview.attachments[0].data))
    assert (np.abs(before - after).max(axis=2) > 40)[wanted].mean() > 0.9 and (np.abs(before - after).max(axis=2) > 60)[~wanted].mean() < 0.1
    await discord_.press(discord_.ann, preview, button(cards.Act.CONFIRM))
    await settled(bot, "delivered")
    [request] = painter.painted
    assert (request.kind, request.prompt, request.count, request.seed) == (Kind.INPAINT, "a dog", 2, 9)
    assert (request.steps, request.guidance, request.preset) == (4, 2.0, Preset.BEST)
    assert np.array_equal(mask_of(request.mask), wanted)
    assert results(discord_)[0].embeds[0]["description"] == "Repainted: a dog" and not preview.components


async def test_the_background_is_what_has_the_colour_of_the_border(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    use = await discord_.command(discord_.ann, discord_.general, "inpaint", {"image": picture(), "prompt": "a dog", "region": "background"})
    preview = await answered(discord_, use)
    await discord_.press(discord_.ann, preview, button(cards.Act.CONFIRM))
    await settled(bot, "delivered")
    wanted = np.ones((40, 60), dtype=bool)
    wanted[13:26, 20:40] = False
    assert (mask_of(painter.painted[0].mask) != wanted).mean() < 0.02


async def test_a_mask_file_or_a_transparent_part_says_what_to_repaint(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    wanted = np.zeros((40, 60), dtype=bool)
    wanted[:10] = True
    mask = Image.fromarray(np.uint8(wanted) * 255)
    see_through = Image.open(io.BytesIO(picture())).convert("RGBA")
    see_through.putalpha(Image.fromarray(np.uint8(~wanted) * 255))
    files = []
    for image in (mask, see_through):
        file = io.BytesIO()
        image.save(file, "PNG")
        files.append(file.getvalue())
    for number, options in enumerate(({"image": picture(), "mask": files[0]}, {"image": files[1]}), start=1):
        use = await discord_.command(discord_.ann, discord_.general, "inpaint", {"prompt": "a dog"} | options)
        preview = await answered(discord_, use)
        await discord_.press(discord_.ann, preview, button(cards.Act.CONFIRM, number=number))
        await settled(bot, *["delivered"] * number)
        assert np.array_equal(mask_of(painter.painted[-1].mask), wanted)
    use = await discord_.command(discord_.ann, discord_.general, "inpaint", {"prompt": "a dog", "image": picture()})
    assert "mask must be given" in (await answered(discord_, use)).content


async def test_what_was_shown_is_queued_once_only_by_its_owner_or_not_at_all(discord_: Loopback, bot: Reverie) -> None:
    use = await discord_.command(discord_.ann, discord_.general, "inpaint", {"image": picture(), "prompt": "a dog", "region": "left"})
    preview = await answered(discord_, use)
    visible = Message(preview.id, discord_.general, discord_.bot, components=preview.components, render=preview.render)
    other = await answered(discord_, await discord_.press(discord_.ben, visible, button(cards.Act.CONFIRM)))
    assert "don't remember" in other.content
    both = [await discord_.press(discord_.ann, preview, button(cards.Act.CONFIRM)) for _ in range(2)]
    await discord_.wait_for(lambda: all(one.acknowledged.is_set() for one in both))
    await settled(bot, "delivered")
    use = await discord_.command(discord_.ann, discord_.general, "inpaint", {"image": picture(), "prompt": "a dog", "region": "left"})
    preview = await answered(discord_, use)
    await discord_.press(discord_.ann, preview, button(cards.Act.DISCARD, number=2))
    await discord_.wait_for(lambda: preview.content == "Cancelled." and not preview.components and not preview.attachments)
    assert await states(bot) == ["delivered"]


@pytest.mark.parametrize("restarted", [False, True])
async def test_the_menu_asks_in_a_form_what_to_repaint(discord_: Loopback, start: Start, painter: ScriptedPainter, restarted: bool) -> None:
    async with start() as bot:
        foreign = await discord_.say(discord_.ben, discord_.general, "look", files=[("a.png", picture())])
        form = await discord_.context_menu(discord_.ann, discord_.general, foreign, "Inpaint…")
        await discord_.wait_for(lambda: form.modal)
        if not restarted:
            await finish(discord_, bot, form, painter)
    if restarted:
        async with start() as bot:
            await finish(discord_, bot, form, painter)


async def finish(server: Loopback, bot: Reverie, form: Interaction, painter: ScriptedPainter) -> None:
    """Send the form, confirm, and look at what was asked of the painter."""
    use = await server.submit_modal(server.ann, form, {"prompt": "a dog", "region": ["left"]})
    preview = await answered(server, use)
    [[confirm, _]] = [[part["custom_id"] for part in row["components"]] for row in preview.components]
    await server.press(server.ann, preview, confirm)
    await settled(bot, "delivered")
    assert painter.painted[0].kind is Kind.INPAINT and mask_of(painter.painted[0].mask)[:, :30].all()


async def test_of_a_grid_the_form_asks_which_picture(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    card = await dreamt(discord_, count=2)
    form = await discord_.context_menu(discord_.ann, discord_.general, card, "Inpaint…")
    await discord_.wait_for(lambda: form.modal)
    use = await discord_.submit_modal(discord_.ann, form, {"prompt": "a dog", "region": ["top"], "which": ["1"]})
    preview = await answered(discord_, use)
    [[confirm, _]] = [[part["custom_id"] for part in row["components"]] for row in preview.components]
    await discord_.press(discord_.ann, preview, confirm)
    await settled(bot, "delivered", "delivered")
    source = (await bot.history.painting_of(await bot.history.find(1))).pictures[1].png
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(painter.painted[1].image))), np.asarray(Image.open(io.BytesIO(source))))
    assert (await bot.history._rows("SELECT parent FROM job ORDER BY id"))[1]["parent"] == 2


async def test_the_menu_varies_other_peoples_pictures_and_asks_which_of_ours(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    foreign = await discord_.say(discord_.ben, discord_.general, "look", files=[("SPOILER_a.png", picture())])
    await discord_.context_menu(discord_.ann, discord_.general, foreign, "Variations")
    await settled(bot, "delivered")
    assert painter.painted[0].kind is Kind.VARIATION and results(discord_)[0].attachments[0].filename.startswith("SPOILER_")
    use = await discord_.context_menu(discord_.ann, discord_.general, results(discord_)[0], "Variations")
    question = await answered(discord_, use)
    assert question.ephemeral and [part["label"] for part in question.components[0]["components"]] == ["V1", "V2", "V3", "V4"]
    await discord_.press(discord_.ann, question, button(cards.Act.VARY, index=2))
    await settled(bot, "delivered", "delivered")
    nothing = await discord_.say(discord_.ben, discord_.general, "only words")
    use = await discord_.context_menu(discord_.ann, discord_.general, nothing, "Variations")
    assert "I find no picture there" in (await answered(discord_, use)).content


# Messages.


async def last_reply(server: Loopback, to: Message) -> Message:
    """Wait for the bot's reply to a message."""
    message: Message = await server.wait_for(
        lambda: next((one for one in to.channel.messages if one.author is server.bot and one.reply_to == to.id), None)
    )
    return message


async def test_a_mention_in_a_reply_to_a_picture_makes_variations_or_says_how(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    me = f"<@{discord_.bot.id}>"
    shown_to_us = await discord_.say(discord_.ben, discord_.general, f"{me} look", files=[("a.png", picture())])
    await settled(bot, "delivered")
    assert (painter.painted[0].kind, painter.painted[0].prompt) == (Kind.VARIATION, "look")
    asking = await discord_.say(discord_.ann, discord_.general, f"{me} in blue", reply_to=shown_to_us)
    await settled(bot, "delivered", "delivered")
    assert painter.painted[1].prompt == "in blue"
    card = results(discord_)[-1]
    assert card.reply_to == asking.id and f"<@{discord_.ann.id}>" in card.content
    hidden = await discord_.say(discord_.ben, discord_.general, "look", files=[("a.png", picture())])
    asking = await discord_.say(discord_.ann, discord_.general, f"{me} in blue", reply_to=hidden)
    await discord_.wait_for(lambda: "**Variations**" in discord_.general.messages[-1].content)
    assert discord_.general.messages[-1].content.startswith(f"<@{discord_.ann.id}>")
    assert len(await states(bot)) == 2


@pytest.mark.parametrize(("words", "kind", "index"), [("2", Kind.VARIATION, 1), ("v3", Kind.VARIATION, 2), ("V 1", Kind.VARIATION, 0)])
async def test_a_number_in_a_reply_varies_that_picture(
    discord_: Loopback, bot: Reverie, painter: ScriptedPainter, words: str, kind: Kind, index: int
) -> None:
    card = await dreamt(discord_)
    await discord_.say(discord_.ben, discord_.general, f"<@{discord_.bot.id}> {words}", reply_to=card)
    await settled(bot, "delivered", "delivered")
    assert painter.painted[1].kind is kind
    assert painter.painted[1].image == (await bot.history.painting_of(await bot.history.find(1))).pictures[index].png


async def test_other_words_in_a_reply_enlarge_repeat_or_extend(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    card, me = await dreamt(discord_), f"<@{discord_.bot.id}>"
    asking = await discord_.say(discord_.ben, discord_.general, f"{me} u3", reply_to=card)
    enlarged = await last_reply(discord_, asking)
    assert "picture 3 of 4" in enlarged.content
    await discord_.say(discord_.ben, discord_.general, f"{me} again", reply_to=card)
    await settled(bot, "delivered", "delivered")
    assert painter.painted[1].prompt == "a cat" and painter.painted[1].seed != 7
    await discord_.say(discord_.ben, discord_.general, f"{me} on red", reply_to=card)
    await settled(bot, "delivered", "delivered", "delivered")
    assert painter.painted[2].prompt == "a cat on red"
    await discord_.say(discord_.ben, discord_.general, f"{me} v3", reply_to=enlarged)
    await settled(bot, *["delivered"] * 4)
    assert painter.painted[3].kind is Kind.VARIATION


async def test_in_direct_messages_a_picture_is_enough_and_words_get_a_hint(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    direct = discord_.dm(discord_.ann)
    await discord_.say(discord_.ann, direct, "", files=[("a.png", picture())])
    await settled(bot, "delivered")
    hello = await discord_.say(discord_.ann, direct, "hello")
    assert "/dream" in (await last_reply(discord_, hello)).content


async def test_messages_that_are_not_for_the_bot_are_left_alone(discord_: Loopback, bot: Reverie) -> None:
    card = await dreamt(discord_)
    before = len(discord_.general.messages)
    await discord_.say(discord_.ben, discord_.general, "2", reply_to=card)
    await discord_.say(discord_.ben, discord_.general, "look", files=[("a.png", picture())])
    await discord_.command(discord_.ann, discord_.general, "words")
    await discord_.wait_for(lambda: len(discord_.general.messages) == before + 3)
    assert await states(bot) == ["delivered"]


async def test_a_message_is_refused_where_the_bot_may_not_reply(discord_: Loopback, bot: Reverie) -> None:
    discord_.general.deny(discord.Permissions(read_message_history=True).value)
    await discord_.say(discord_.ann, discord_.general, f"<@{discord_.bot.id}>", files=[("a.png", picture())])
    await discord_.wait_for(lambda: "**Read Message History**" in discord_.general.messages[-1].content)
    assert await states(bot) == []


async def test_a_message_that_is_told_twice_is_one_job(discord_: Loopback, bot: Reverie) -> None:
    said = await discord_.say(discord_.ann, discord_.general, f"<@{discord_.bot.id}>", files=[("a.png", picture())])
    discord_.world.emit("message", said)
    await settled(bot, "delivered")
    assert len(results(discord_)) == 1


async def test_the_queue_shows_ones_own_jobs_and_cancels_them(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    painter.hold.clear()
    for person, prompt in ((discord_.ann, "a cat"), (discord_.ben, "a secret"), (discord_.ann, "a dog")):
        use = await discord_.command(person, discord_.general, "dream", {"prompt": prompt})
        await discord_.wait_for(lambda use=use: use.message)
    await discord_.wait_for(lambda: bot.queue.waiting == 2)
    shown = await answered(discord_, await discord_.command(discord_.ann, discord_.general, "queue"))
    lines = shown.content.split("\n")
    assert shown.ephemeral and lines[0] == "Being painted: 1. Waiting: 2."
    assert lines[1].startswith("**#1** a cat: being painted") and lines[2].startswith("**#3** a dog: number 2")
    assert "secret" not in shown.content
    await discord_.press(discord_.ann, shown, button(cards.Act.CANCEL, number=3))
    painter.hold.set()
    await settled(bot, "delivered", "delivered", "cancelled")
    empty = await answered(discord_, await discord_.command(discord_.ann, discord_.general, "queue"))
    assert empty.content.endswith("None of them is yours.")


async def test_a_yes_that_cannot_be_answered_is_painted_all_the_same(discord_: Loopback, bot: Reverie) -> None:
    use = await discord_.command(discord_.ann, discord_.general, "inpaint", {"image": picture(), "prompt": "a dog", "region": "left"})
    preview = await answered(discord_, use)
    discord_.fail_next(2, status=404, path="/interactions/.*/callback")
    await discord_.press(discord_.ann, preview, button(cards.Act.CONFIRM))
    await settled(bot, "delivered")
