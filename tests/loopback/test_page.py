"""The page, used in headless Chromium as a person would; and kept from pages of other sites."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import discord
import pytest
from discord import app_commands, ui
from playwright.async_api import Page, async_playwright, expect

from loopback import Loopback
from tests.loopback.conftest import Bot, running
from tests.loopback.test_life import PICTURE, Form, file

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"
in_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed here, so the page cannot be looked at")


@pytest.fixture
async def page(discord_: Loopback) -> AsyncIterator[Page]:
    """The page as a person has just opened it; anything it complains about fails the test."""
    complaints: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET.split())
        page = await browser.new_page()
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
        await page.goto(discord_.page)
        await page.wait_for_selector("body[data-connected=true]")
        yield page
        await browser.close()
    expected = ("WebSocket", "status of 400", "ERR_CONNECTION_REFUSED")
    assert [line for line in complaints if not any(part in line for part in expected)] == []


class Controls(ui.View):
    """One of each."""

    def __init__(self) -> None:
        super().__init__(timeout=None)
        self.add_item(ui.Button(label="Site", url="https://example.com/"))

    @ui.button(label="Again", custom_id="again")
    async def again(self, interaction: discord.Interaction, button: object) -> None:
        await interaction.response.send_modal(Form())

    @ui.button(label="Silent", custom_id="silent")
    async def silent(self, interaction: discord.Interaction, button: object) -> None: ...

    @ui.button(label="Off", custom_id="off", disabled=True)
    async def off(self, interaction: discord.Interaction, button: object) -> None: ...

    @ui.select(custom_id="size", placeholder="Size", options=[discord.SelectOption(label=size) for size in ("small", "large")])
    async def size(self, interaction: discord.Interaction, select: ui.Select[ui.View]) -> None:
        await interaction.response.edit_message(content=f"now {select.values[0]}")


@pytest.fixture
async def painter(discord_: Loopback) -> AsyncIterator[Bot]:
    """A bot that pretends to paint."""
    bot = Bot(activity=discord.CustomActivity("Painting"))
    bot.go_on = asyncio.Event()

    @bot.tree.command()
    @app_commands.describe(prompt="What to paint", count="How many")
    @app_commands.choices(sampler=[app_commands.Choice(name="DDIM", value="ddim")])
    async def dream(
        interaction: discord.Interaction,
        prompt: app_commands.Range[str, 1, 1000],
        count: app_commands.Range[int, 1, 9] = 4,
        spoiler: bool = False,
        sampler: str = "none",
        picture: discord.Attachment | None = None,
        friend: discord.Member | None = None,
    ) -> None:
        """Paint a picture from words."""
        await interaction.response.defer(thinking=True)
        await bot.go_on.wait()
        await interaction.edit_original_response(content="50 %")
        names = picture and picture.filename, friend and friend.name
        post = f"{interaction.user.mention} **{count}** × {discord.utils.escape_markdown(prompt)} {sampler} {names}"
        await interaction.channel.send(post, file=file(spoiler=spoiler, description=prompt), view=Controls())

    @bot.tree.command()
    async def secret(interaction: discord.Interaction) -> None:
        """Whisper."""
        await interaction.response.send_message("psst", ephemeral=True)

    @bot.tree.command()
    async def wait(interaction: discord.Interaction) -> None:
        """Never answer."""

    @bot.tree.command()
    async def find(interaction: discord.Interaction, word: str) -> None:
        """Find a picture."""
        await interaction.response.send_message(f"found {word}")

    @find.autocomplete("word")
    async def words(interaction: discord.Interaction, current: str) -> list[app_commands.Choice[str]]:
        return [app_commands.Choice(name=f"{current} in the snow", value="choice-7")]

    @bot.tree.context_menu(name="Vary")
    async def vary(interaction: discord.Interaction, message: discord.Message) -> None:
        await interaction.response.send_message(f"like {message.content}")

    async with running(bot):
        yield bot


async def type_command(page: Page, text: str) -> None:
    """Write a line and send it; where it is a command, not before the page has heard of the bot's commands."""
    if text.startswith("/"):
        await page.fill("#command-box", "/")
        await expect(page.locator(".suggestion").first).to_be_visible()
    await page.fill("#command-box", text)
    await page.press("#command-box", "Enter")


async def miss(discord_: Loopback) -> None:
    """Let the time for an answer run out, once the page's request has come in."""
    await discord_.wait_for(lambda: any(not use.acknowledged.is_set() for use in discord_.world.interactions.values()))
    discord_.clock.advance(3.1)


@in_chromium
async def test_slash_lists_the_commands_and_a_form_sends_one(page: Page, discord_: Loopback, painter: Bot) -> None:
    await page.keyboard.type("/")
    await expect(page.locator(".suggestion strong")).to_have_text(["/dream", "/find", "/secret", "/wait"])
    await page.keyboard.type("dr")
    await expect(page.locator(".suggestion")).to_have_count(1)
    await page.keyboard.press("Enter")
    await expect(page.locator("[data-option=prompt]")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator("#error")).to_contain_text("prompt")
    await page.keyboard.type("a red fox")
    await page.fill("[data-option=count]", "12")
    await page.keyboard.press("Enter")
    await expect(page.locator("#error")).to_contain_text("count")
    await page.fill("[data-option=count]", "2")
    await page.select_option("[data-option=sampler]", label="DDIM")
    await page.select_option("[data-option=friend]", label="ben")
    await page.set_input_files("[data-option=picture]", {"name": "cat.png", "mimeType": "image/png", "buffer": PICTURE})
    await page.keyboard.press("Enter")
    thinking = page.locator(".message[data-thinking=true]")
    await expect(thinking).to_contain_text("is thinking")
    await expect(page.locator("#option-form")).to_be_hidden()
    painter.go_on.set()
    picture = page.locator(".picture img")
    await expect(picture).to_have_attribute("alt", "a red fox")
    await expect(page.locator(".message").nth(0).locator(".content")).to_have_text("50 %")
    await expect(page.locator(".message.pinged .content")).to_have_text("@ann 2 × a red fox ddim ('cat.png', 'ben')")
    await picture.click()
    await expect(page.locator("#lightbox-image")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.locator("#lightbox")).to_be_hidden()


@in_chromium
@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("/dream a red fox", "4 × a red fox none"),
        ("/dream prompt: a fox: red count: 7", "7 × a fox: red none"),
        ("/dream a fox count: 2", "2 × a fox none"),
    ],
)
async def test_a_command_can_be_typed_in_one_line(typed: str, expected: str, page: Page, discord_: Loopback, painter: Bot) -> None:
    painter.go_on.set()
    await expect(page.locator("#bot-status")).to_have_text("Painting")
    await discord_.wait_for(lambda: discord_.find_command(1, "dream"))
    await type_command(page, typed)
    await expect(page.locator(".message").nth(1).locator(".content")).to_contain_text(expected)
    await page.press("#command-box", "ArrowUp")
    await expect(page.locator("#command-box")).to_have_value(typed)


@in_chromium
async def test_a_wrong_value_is_said_and_nothing_is_sent(page: Page, discord_: Loopback, painter: Bot) -> None:
    await type_command(page, "/dream a fox count: 12")
    await expect(page.locator("#error")).to_have_text("count: must be at most 9")
    await type_command(page, "/paint a fox")
    await expect(page.locator("#error")).to_have_text("There is no command /paint.")
    assert discord_.world.interactions == {} and discord_.general.messages == []


@in_chromium
async def test_suggestions_of_the_bot_send_their_values(page: Page, painter: Bot) -> None:
    await type_command(page, "/find")
    await page.fill("[data-option=word]", "a fox")
    await page.wait_for_selector("#option-word-choices option[value='a fox in the snow']", state="attached")
    await page.fill("[data-option=word]", "a fox in the snow")
    await page.keyboard.press("Enter")
    await expect(page.locator(".message .content")).to_have_text("found choice-7")


@in_chromium
async def test_controls_of_a_message_work(page: Page, discord_: Loopback, painter: Bot) -> None:
    await painter.get_channel(discord_.general.id).send("a grid", view=Controls())
    await expect(page.locator("a.button")).to_have_attribute("href", "https://example.com/")
    await expect(page.locator("[data-custom-id=off]")).to_be_disabled()
    await page.click("[data-custom-id=again]")
    await expect(page.locator("#modal-title")).to_have_text("Dream again")
    field = page.locator("#modal input[type=text]")
    await expect(field).to_have_value("a fox")
    await field.fill("")
    await page.click("#modal-submit")
    await expect(page.locator("#modal-error")).to_contain_text("required")
    await field.fill("a wolf")
    await page.set_input_files("#modal input[type=file]", {"name": "wolf.png", "mimeType": "image/png", "buffer": PICTURE})
    await page.click("#modal-submit")
    await expect(page.locator(".message.ephemeral .content")).to_have_text("a wolf ['wolf.png']")
    await expect(page.locator(".only-you")).to_be_visible()
    await page.click("[data-custom-id=silent]")
    await expect(page.locator("[data-custom-id=silent]")).to_have_attribute("aria-busy", "true")
    await miss(discord_)
    await expect(page.locator(".failure").first).to_have_text("This interaction failed")
    await page.select_option("select[data-custom-id=size]", "large")
    await expect(page.locator(".message").nth(0).locator(".content")).to_have_text("now large")


@in_chromium
async def test_silence_of_the_bot_is_told(page: Page, discord_: Loopback, painter: Bot) -> None:
    await page.keyboard.type("/wait")
    # The page hears of the bot's commands when it hears of them.
    await expect(page.locator(".suggestion")).to_have_count(1)
    await page.keyboard.press("Enter")
    await page.keyboard.press("Enter")
    await expect(page.locator(".pending")).to_contain_text("Sending")
    await miss(discord_)
    await expect(page.locator(".pending.missed")).to_contain_text("The application did not respond")


@in_chromium
async def test_people_see_only_what_is_for_them(page: Page, discord_: Loopback, painter: Bot) -> None:
    await type_command(page, "/secret")
    await page.press("#option-send", "Enter")
    await expect(page.locator(".message.ephemeral")).to_have_count(1)
    await page.select_option("#user-select", label="ben")
    await expect(page.locator(".message.ephemeral")).to_have_count(0)
    await page.select_option("#user-select", label="ann")
    await page.click(".dismiss")
    await expect(page.locator(".message.ephemeral")).to_have_count(0)
    assert discord_.general.messages == []
    await page.select_option("#user-select", label="ben")
    await page.click("#open-dm")
    await expect(page.locator("#channel-name")).to_have_text("@Reverie")
    await type_command(page, "hello bot")
    await discord_.wait_for(lambda: painter.heard)
    assert (painter.heard[0].content, painter.heard[0].author.name) == ("hello bot", "ben")
    await page.select_option("#user-select", label="ann")
    await expect(page.locator("#channel-name")).to_have_text("#general")


@in_chromium
async def test_messages_are_replied_to_reacted_to_and_varied(page: Page, discord_: Loopback, painter: Bot) -> None:
    sent = await painter.get_channel(discord_.general.id).send("a grid")
    message = page.locator(f".message[data-id='{sent.id}']")
    await message.hover()
    await message.locator(".reply").click()
    await expect(page.locator("#reply-to")).to_have_text("Replying to Reverie")
    await page.set_input_files("#file-input", {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"x"})
    await type_command(page, "bluer")
    await discord_.wait_for(lambda: len(painter.heard) == 2)
    assert painter.heard[1].reference.message_id == sent.id and painter.heard[1].content == "bluer"
    await expect(page.locator(".message .jump")).to_contain_text("Reverie a grid")
    await expect(page.locator("a.file")).to_contain_text("notes.txt")
    await message.hover()
    await message.locator(".react").click()
    await expect(message.locator(".reaction")).to_have_text("👍 1")
    await message.hover()
    await message.locator(".menu[data-name=Vary]").click()
    await expect(page.locator(".message").nth(2).locator(".content")).to_have_text("like a grid")
    await sent.delete()
    await expect(message).to_have_count(0)


@in_chromium
async def test_nothing_that_people_write_becomes_markup(page: Page, discord_: Loopback) -> None:
    nasty = '<img src=x onerror=alert(1)> [a](javascript:alert(1)) [b](https://example.com/?q="><script>) **bold** `<b>` <t:0:R> <@9> ||hid||'
    await discord_.say(discord_.ben, discord_.general, nasty, files=[("<b>.html", b"<script>alert(1)</script>")])
    content = page.locator(".message .content")
    await expect(content).to_contain_text("<img src=x onerror=alert(1)> [a](javascript:alert(1))")
    await expect(content.locator("strong")).to_have_text("bold")
    await expect(content.locator("code")).to_have_text("<b>")
    await expect(content.locator("time")).to_contain_text("years ago")
    await expect(content.locator("a")).to_have_count(1)
    assert await page.evaluate("document.querySelectorAll('.message img, .message script, .message b').length") == 0
    await content.locator(".spoiler").click()
    await expect(content.locator(".spoiler")).to_have_class("spoiler shown")


@in_chromium
async def test_spoilers_stay_covered_until_clicked_and_open_after(page: Page, discord_: Loopback, painter: Bot) -> None:
    sent = await painter.get_channel(discord_.general.id).send(file=file(spoiler=True, description="a fox"))
    await expect(page.locator(".picture")).to_have_class("picture covered")
    await page.click(".picture")
    await expect(page.locator("#lightbox")).to_be_hidden()
    await sent.edit(content="still open")
    await expect(page.locator(".message .content")).to_have_text("still open")
    await expect(page.locator(".picture")).to_have_class("picture")


@in_chromium
async def test_the_page_comes_back_when_the_server_does(page: Page, discord_: Loopback, tmp_path: Path) -> None:
    port = discord_.port
    await discord_.stop()
    await expect(page.locator("#connection")).to_be_visible()
    await type_command(page, "hello?")
    await expect(page.locator("#error")).to_have_text("The server is not answering.")
    async with Loopback(port) as again:
        await again.say(again.ben, again.general, "welcome back")
        await expect(page.locator(".message .content")).to_have_text("welcome back")
        await expect(page.locator("#connection")).to_be_hidden()
        await expect(page.locator("#bot-status")).to_have_text("Offline")
        await page.press("#command-box", "Enter")
        await expect(page.locator(".message").nth(1).locator(".content")).to_have_text("hello?")


# Doors that stay shut, without a browser.


async def status(method: str, address: str, **headers: str) -> int:
    async with aiohttp.ClientSession() as session, session.request(method, address, headers=headers) as response:
        return response.status


async def test_pages_of_other_sites_are_refused(discord_: Loopback) -> None:
    home = f"127.0.0.1:{discord_.port}"
    for path in ("", "page/page.js", "page/socket", "gateway/", "api/v10/gateway"):
        assert await status("GET", discord_.page + path, Host="evil.example") == 403, path
        assert await status("GET", discord_.page + path, Host=home, Origin="http://evil.example") == 403, path
        assert await status("GET", discord_.page + path, Host=home, Origin="http://127.0.0.1:1") == 403, path
        assert await status("GET", discord_.page + path, Host=home, Origin="null") == 403, path
    assert await status("POST", f"{discord_.page}page/act", Host=home, Origin="http://evil.example") == 403
    assert await status("GET", discord_.page, Host=f"localhost:{discord_.port}") == 200
    assert await status("GET", discord_.page, Host=home, Origin=f"http://{home}") == 200


async def test_only_this_machine_is_listened_to(discord_: Loopback) -> None:
    assert discord_._runner
    assert [address[0] for address in discord_._runner.addresses] == ["127.0.0.1"]


async def test_uploads_never_run_as_pages(discord_: Loopback) -> None:
    files = [("a.html", b"<script>alert(1)</script>"), ("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>"), ("a.png", PICTURE)]
    message = await discord_.say(discord_.ann, discord_.general, "", files=files)
    async with aiohttp.ClientSession() as session:
        for attachment, shown in zip(message.raw["attachments"], (False, False, True), strict=True):
            async with session.get(attachment["url"]) as response:
                assert response.headers["X-Content-Type-Options"] == "nosniff"
                assert "sandbox" in response.headers["Content-Security-Policy"]
                assert ("Content-Disposition" not in response.headers) == shown
                assert ("image" in response.content_type) == shown
        async with session.get(message.raw["attachments"][0]["url"].replace("hm=", "hm=0")) as response:
            assert response.status == 404


async def test_the_page_says_so_when_the_bot_is_offline(discord_: Loopback) -> None:
    form = aiohttp.FormData(default_to_multipart=True)
    form.add_field(
        "payload", f'{{"do": "command", "user": "{discord_.ann.id}", "channel": "{discord_.general.id}", "name": "dream", "options": {{}}}}'
    )
    async with aiohttp.ClientSession() as session, session.post(f"{discord_.page}page/act", data=form) as response:
        assert (response.status, await response.json()) == (400, {"error": "Reverie is offline, so nothing was sent"})


@in_chromium
async def test_everybody_chooses_a_language(page: Page, discord_: Loopback, painter: Bot) -> None:
    await page.select_option("#locale-select", "de")
    await discord_.wait_for(lambda: discord_.ann.locale == "de")
    await page.select_option("#user-select", label="ben")
    await expect(page.locator("#locale-select")).to_have_value("en-US")
    await page.select_option("#user-select", label="ann")
    await expect(page.locator("#locale-select")).to_have_value("de")


@in_chromium
async def test_threads_stand_below_their_channel_and_places_without_the_bot_are_shown(page: Page, discord_: Loopback) -> None:
    attic = discord_.add_channel("attic")
    side = discord_.add_thread(discord_.general, "side")
    away, group = discord_.add_foreign_channel("away"), discord_.add_foreign_channel("friends", guild=False)
    await expect(page.locator(".channel[data-id]")).to_have_text(["# general", "↳ side", "# attic", "# away", "👥 friends"])
    await expect(page.locator(".channel.thread")).to_have_attribute("data-id", str(side.id))
    for place, name in ((side, "#side"), (attic, "#attic"), (away, "#away"), (group, "friends")):
        await page.click(f".channel[data-id='{place.id}']")
        await expect(page.locator("#channel-name")).to_have_text(name)
        await type_command(page, f"hello {name}")
        await expect(page.locator(".message .content")).to_have_text([f"hello {name}"])
        assert [message.content for message in place.messages] == [f"hello {name}"]
