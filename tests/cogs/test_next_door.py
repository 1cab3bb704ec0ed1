"""The studio beside the whole bot on Discord of this machine: links from there to the brush, and pictures that are posted there."""

import asyncio
import base64
import contextlib
import io
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import discord
import numpy as np
import pytest
from PIL import Image
from playwright.async_api import expect

from cogs import _cards as cards
from cogs import _next_door
from cogs._client import Reverie
from engine.jobs import Kind
from engine.studio import Studio
from loopback import Loopback, Message
from tests.cogs.conftest import Start, answered, choose, dreamt, results, settled, states
from tests.conftest import ScriptedPainter, noise
from tests.engine.studio.conftest import BOB, House, settings_with
from tests.engine.studio.test_page import dreamt as dreamt_on
from tests.engine.studio.test_page import in_chromium, studio

LINK = re.compile(r"http://127\.0\.0\.1:\d+/paint/\d+\.[\w-]{32}")
GONE = "This link was used or is too old. Ask for a new one in Discord."
Both = Callable[..., contextlib.AbstractAsyncContextManager[tuple[Reverie, House]]]


@pytest.fixture
def both(start: Start) -> Both:
    """Return what runs the bot and the studio until a block is left; again and again, as after restarts."""

    @contextlib.asynccontextmanager
    async def running(channels: tuple[int, ...] = (), **changes: Any) -> AsyncIterator[tuple[Reverie, House]]:
        async with start() as bot, aiohttp.ClientSession() as session:
            studio = Studio(settings_with(studio_channels=channels, **changes), bot.queue, bot.history, bot.worker, neighbour=bot.next_door)
            bot.next_door.open(studio.address, channels)
            task = asyncio.create_task(studio.run())
            try:
                yield bot, House(studio, bot.queue, bot.history, session, task.cancel)
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    return running


def mask(side: int = 8) -> str:
    """Return a mask whose left half is white, as data: URL."""
    image = Image.new("L", (side, side))
    image.paste(255, (0, 0, side // 2, side))
    file = io.BytesIO()
    image.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def links_of(message: Message) -> list[str]:
    """Return the addresses that the buttons of a message lead to."""
    return [part["url"] for row in message.components for part in row["components"] if "url" in part]


async def linked(server: Loopback, target: Message, user: Any = None) -> list[str]:
    """Choose the menu on a message, and return the links that come."""
    message = await answered(server, await server.context_menu(user or server.ann, target.channel, target, "Paint the mask"))
    assert message.visible_to == (user or server.ann).id
    found = links_of(message)
    assert all(LINK.fullmatch(link) for link in found)
    return ["/" + link.split("/", 3)[3] for link in found]


async def paint(house: House, path: str, status: int = 200, **changes: Any) -> Any:
    return await house.ask("POST", path, status, None, json={"prompt": "a dog", "mask": mask()} | changes)


async def test_a_link_leads_to_the_brush_for_its_picture_and_its_result_to_the_channel(
    discord_: Loopback,
    both: Both,
    painter: ScriptedPainter,
) -> None:
    async with both() as (bot, house):
        card = await dreamt(discord_, count=1)
        [path] = await linked(discord_, card)
        # Whoever only looks, as scanners of messages do, uses nothing up.
        for _ in range(2):
            page = await house.ask("GET", path, key=None)
            assert b"/page/paint.js" in page
            sheet = await house.ask("GET", f"{path}/sheet", key=None)
            assert (sheet["prompt"], sheet["channel"]) == ("", "#general")
        original = await bot.history.painting_of(await bot.history.find(1))  # type: ignore[arg-type]
        assert original is not None and await house.ask("GET", sheet["picture"], key=None) == original.pictures[0].png
        assert (await paint(house, path))["told"] == "The result will be posted in #general."
        await settled(bot, "delivered", "delivered")
        asked = painter.painted[1]
        assert (asked.kind, asked.prompt, asked.count) == (Kind.INPAINT, "a dog", 4)
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(asked.mask or b""))) > 127, np.arange(8)[None].repeat(8, 0) < 4)
        posted = results(discord_)[1]
        assert f"<@{discord_.ann.id}>" in posted.content and posted.embeds[0]["description"] == "Repainted: a dog"
        # It stands as a reply to the picture that was painted over, and its progress is gone.
        assert posted.raw["message_reference"]["message_id"] == str(card.id)
        await discord_.wait_for(lambda: len([one for one in discord_.general.messages if not one.deleted and one.visible_to is None]) == 2)
        job = await bot.history.find(2)
        assert job is not None and (job.origin.user_id, await bot.history.parent_of(job)) == (discord_.ann.id, 1)
        for method, place in (("GET", f"{path}/sheet"), ("GET", f"{path}/picture.png")):
            assert (await house.ask(method, place, 404, None))["detail"] == GONE
        assert (await paint(house, path, 404))["detail"] == GONE
        assert await states(bot) == ["delivered", "delivered"]


async def test_every_picture_of_a_grid_and_whatever_was_uploaded_has_a_link_of_its_own(
    discord_: Loopback,
    both: Both,
    painter: ScriptedPainter,
) -> None:
    async with both() as (bot, house):
        paths = await linked(discord_, await dreamt(discord_, count=3))
        pictures = [await house.ask("GET", f"{path}/picture.png", key=None) for path in paths]
        assert len(set(paths)) == len(set(pictures)) == 3
        upload = await discord_.say(discord_.ann, discord_.general, "", files=[("SPOILER_x.png", noise(32))])
        [path] = await linked(discord_, upload, discord_.ben)
        await paint(house, path, mask=mask(32))
        await settled(bot, "delivered", "delivered")
        posted = results(discord_)[1]
        assert f"<@{discord_.ben.id}>" in posted.content and posted.attachments[0].filename.startswith("SPOILER_")


async def test_nobody_gets_in_with_another_token(discord_: Loopback, both: Both) -> None:
    async with both() as (bot, house):
        mine, other = await linked(discord_, await dreamt(discord_, count=2))
        number, secret = mine.removeprefix("/paint/").split(".")
        another = other.removeprefix("/paint/").split(".")[1]
        usual = await bot.history.add_draft(discord_.ann.id, {"prompt": "a dog"}, noise(8))
        for token in (f"{number}.{another}", f"{int(number) + 50}.{secret}", f"{usual}.{secret}", f"{'9' * 18}.{secret}"):
            assert (await house.ask("GET", f"/paint/{token}/sheet", 404, None))["detail"] == GONE
            await paint(house, f"/paint/{token}", 404)
        for token in ("x", f"{number}.", f"{number}.{secret}A", f"-1.{secret}"):
            assert (await house.ask("GET", f"/paint/{token}/sheet", 422, None))["detail"].startswith("token")
        # The secret itself is not in the memory.
        rows = await bot.history._rows("SELECT content FROM draft")
        assert rows and not any(secret in row["content"] for row in rows)
        await paint(house, mine)


async def test_a_link_ends_after_a_quarter_of_an_hour_and_survives_a_restart_before(
    discord_: Loopback,
    both: Both,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with both() as (bot, house):
        card = await dreamt(discord_, count=1)
        [lasting] = await linked(discord_, card)
        with monkeypatch.context() as patch:
            patch.setattr(_next_door, "LINK_S", -0.01)
            [old] = await linked(discord_, card)
        await house.ask("GET", f"{old}/sheet", 404, None)
        await paint(house, old, 404)
    async with both() as (bot, house):
        await paint(house, lasting)
        await settled(bot, "delivered", "delivered")
        assert _next_door.LINK_S == 15 * 60


async def test_what_is_refused_leaves_the_link_and_says_why_in_the_persons_language(
    discord_: Loopback,
    both: Both,
    painter: ScriptedPainter,
) -> None:
    async with both() as (bot, house):
        card = await dreamt(discord_, count=1)
        discord_.ann.locale = "de"
        [path] = await linked(discord_, card)
        await choose(bot, discord_, blocked_words="dog")
        refused = await paint(house, path, 409)
        assert "Dieser Server erlaubt" in refused["detail"]
        black = io.BytesIO()
        Image.new("L", (8, 8)).save(black, "PNG")
        nothing = f"data:image/png;base64,{base64.b64encode(black.getvalue()).decode()}"
        for wrong, status in (
            ({"mask": nothing}, 409),
            ({"mask": mask(8).replace("iVBOR", "AAAAA")}, 409),
            ({"mask": "data:image/png;base64,A"}, 422),
            ({"mask": "/pictures/x/0.png"}, 422),
            ({"prompt": " "}, 422),
            ({"prompt": "x" * 1001}, 422),
            ({"more": 1}, 422),
        ):
            assert (await paint(house, path, status, **{"prompt": "a cat"} | wrong))["detail"]
        assert (await house.ask("POST", path, 415, None, data=b"prompt=a"))["detail"]
        large = await house.ask("POST", path, 413, None, data=io.BytesIO(b" " * 5 * 2**20), headers={"Content-Type": "application/json"})
        assert large["detail"]
        foreign = await house.ask("POST", path, 403, None, json={}, headers={"Origin": "https://evil.example"})
        assert "Another web page" in foreign["detail"]
        await paint(house, path, prompt="a cat")
        await settled(bot, "delivered", "delivered")
        assert painter.painted[1].prompt == "a cat"


async def test_two_who_confirm_at_once_get_one_result(discord_: Loopback, both: Both) -> None:
    async with both() as (bot, house):
        [path] = await linked(discord_, await dreamt(discord_, count=1))
        body = {"prompt": "a dog", "mask": mask()}
        answers = await asyncio.gather(*(house.session.post(house.address.rstrip("/") + path, json=body) for _ in range(4)))
        assert sorted(answer.status for answer in answers)[0] == 200 and sum(answer.status == 200 for answer in answers) == 1
        for answer in answers:
            answer.release()
        await settled(bot, "delivered", "delivered")


async def test_where_the_bot_may_no_longer_post_nothing_is_painted(discord_: Loopback, both: Both) -> None:
    async with both() as (bot, house):
        [path] = await linked(discord_, await dreamt(discord_, count=1))
        discord_.general.deny(discord.Permissions(attach_files=True).value)
        await discord_.wait_for(lambda: not bot.get_channel(discord_.general.id).permissions_for(bot.guilds[0].me).attach_files)  # type: ignore[union-attr]
        assert "Attach Files" in (await paint(house, path, 409))["detail"]
        assert await states(bot) == ["delivered"]


async def test_without_a_studio_the_menu_says_so(discord_: Loopback, start: Start) -> None:
    async with start():
        card = await dreamt(discord_, count=1)
        message = await answered(discord_, await discord_.context_menu(discord_.ann, discord_.general, card, "Paint the mask"))
        assert message.content.startswith("There is nothing to paint on here") and not links_of(message)


async def test_a_part_that_was_proposed_can_be_painted_instead(discord_: Loopback, both: Both, painter: ScriptedPainter) -> None:
    async with both() as (bot, house):
        options = {"image": noise(32), "prompt": "a dog", "region": "left", "count": 2, "seed": 5}
        proposed = await answered(discord_, await discord_.command(discord_.ann, discord_.general, "inpaint", options))
        message = await answered(discord_, await discord_.press(discord_.ann, proposed, cards.button_id(cards.Act.PAINT, 1)))
        [link] = links_of(message)
        path = "/" + link.split("/", 3)[3]
        assert (await house.ask("GET", f"{path}/sheet", key=None))["prompt"] == "a dog"
        await paint(house, path, prompt="a red dog", mask=mask(32))
        await settled(bot, "delivered")
        [asked] = painter.painted
        assert (asked.prompt, asked.count, asked.seed) == ("a red dog", 2, 5)


# Pictures from the studio.


async def test_a_picture_is_posted_where_the_operator_lets_it(discord_: Loopback, both: Both) -> None:
    elsewhere = discord_.add_channel("elsewhere")
    async with both((discord_.general.id, 123)) as (_, house):
        assert (await house.ask("GET", "/channels"))["channels"] == [{"id": str(discord_.general.id), "name": f"#general · {discord_.guild.name}"}]
        told = await house.ask("POST", "/dream", json={"input": {"prompt": "a **cat** @everyone", "count": 2, "seed": 7}})
        place = f"/pictures/{told['id']}/1/post"
        assert await house.ask("POST", place, json={"channel": str(discord_.general.id)}) == {"told": "Posted."}
        await house.ask("POST", place, json={"channel": str(discord_.general.id), "with_prompt": False})
        first, second = discord_.general.messages
        assert (first.content, second.content) == ("**a \\*\\*cat\\*\\* @everyone**", "")
        assert first.raw["mention_everyone"] is False and first.attachments[0].description == "A picture: a **cat** @everyone"
        async with house.session.get(first.raw["attachments"][0]["url"]) as answer:
            assert await answer.read() == await house.ask("GET", told["output"]["pictures"][1]["url"])
        for channel in (elsewhere.id, 123, 0):
            assert "no such channel" in (await house.ask("POST", place, 404, json={"channel": str(channel)}))["detail"]
        here = {"channel": str(discord_.general.id)}
        await house.ask("POST", place, 404, BOB, json=here)
        await house.ask("POST", place.replace("/1/", "/2/"), 404, json=here)
        await house.ask("POST", place, 401, None, json=here)
        await house.ask("POST", place, 422, json={"channel": discord_.general.id})
        assert len(discord_.general.messages) == 2


async def test_the_servers_rules_hold_for_pictures_from_the_studio(discord_: Loopback, both: Both) -> None:
    async with both((discord_.general.id,)) as (bot, house):
        here = {"channel": str(discord_.general.id)}
        told = await house.ask("POST", "/dream", json={"input": {"prompt": "a snake", "count": 1}})
        place = f"/pictures/{told['id']}/0/post"
        await choose(bot, discord_, blocked_words="snake")
        assert "does not allow" in (await house.ask("POST", place, 409, json=here))["detail"]
        await choose(bot, discord_, blocked_words="", blocked_concepts="snake")
        assert "does not allow" in (await house.ask("POST", place, 409, json=here))["detail"]
        await choose(bot, discord_, concept_policy="spoiler")
        await house.ask("POST", place, json=here)
        assert discord_.general.messages[0].attachments[0].filename.startswith("SPOILER_")
        discord_.general.deny(discord.Permissions(attach_files=True).value)
        await discord_.wait_for(lambda: not bot.next_door.channels())
        assert (await house.ask("GET", "/channels"))["channels"] == []
        await house.ask("POST", place, 404, json=here)


@in_chromium
async def test_a_picture_is_posted_from_the_page(discord_: Loopback, both: Both) -> None:
    async with both((discord_.general.id,)) as (_, house), studio(house) as page:
        await dreamt_on(page, "a cat", count=2)
        await page.locator(".picture").last.click()
        await page.click("#post-send")
        await expect(page.locator("#post-told")).to_have_text(f"Posted to #general · {discord_.guild.name}.")
        [message] = discord_.general.messages
        assert message.content == "**a cat**" and len(message.attachments) == 1


async def test_a_link_works_where_the_bot_itself_is_not(discord_: Loopback, both: Both) -> None:
    away = discord_.add_foreign_channel("away")
    async with both() as (bot, house):
        upload = await discord_.say(discord_.ann, away, "", files=[("x.png", noise(32))])
        [path] = await linked(discord_, upload)
        await paint(house, path, mask=mask(32))
        await settled(bot, "delivered")
        assert len(results(discord_, away)) == 1
