"""The page to paint with in the browser, used in headless Chromium as a person would."""

import asyncio
import contextlib
import io
import json
import re
import shutil
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.async_api import Download, Locator, Page, async_playwright, expect

from engine.errors import TooManyJobs
from engine.history import History
from engine.jobs import Ingredient, Kind, Request
from engine.preferences import Level, Preferences
from engine.uploads import take_in
from tests.conftest import ScriptedPainter, noise
from tests.engine.studio.conftest import ANN, House
from tests.engine.studio.test_program import opened
from tests.loopback.test_page import type_command
from tests.test_bot import ANN as ANN_IN_DISCORD
from tests.test_bot import program, settings

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"
in_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed here, so the page cannot be looked at")
PATIENCE_MS = 60_000
SIDE = 64
NAMELESS = """() => [...document.querySelectorAll("button, input, select, textarea, a, img, [role]")].filter((one) =>
    one.checkVisibility() && !one.ariaLabel && !one.textContent.trim() && !one.querySelector("img[alt]") && !one.labels?.length && !one.alt
    && !one.getAttribute("aria-labelledby")).map((one) => one.outerHTML)"""
"""Finds what people who do not see the page are told nothing of."""


@contextlib.asynccontextmanager
async def looking_at(address: str, complained: tuple[str, ...] = (), **context: object) -> AsyncIterator[Page]:
    """Open a page in a browser of its own until a block is left; anything that it complains about fails the test, but for what is expected."""
    complaints: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET.split())
        page = await browser.new_page(**context)
        page.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
        await page.goto(address)
        yield page
        await browser.close()
    assert [line for line in complaints if not any(part in line for part in complained)] == []


@contextlib.asynccontextmanager
async def studio(house: House, *complained: str, **context: object) -> AsyncIterator[Page]:
    """The studio as ann sees it who has typed her key."""
    credentials = {"username": "ann", "password": ANN}
    async with looking_at(house.address, ("status of 401", *complained), http_credentials=credentials, **context) as page:
        await page.wait_for_selector("body[data-ready=true]")
        yield page


async def dreamt(page: Page, prompt: str = "a cat", count: int = 1) -> None:
    """Dream, and wait until it can be seen."""
    await page.click("[data-tab=dream]")
    await page.fill("#panel-dream [name=prompt]", prompt)
    await page.fill("#panel-dream [name=count]", str(count))
    await page.click("#panel-dream .send")
    await expect(page.locator(".card").first).to_have_attribute("data-status", "succeeded")


async def draw(stage: Locator, *points: tuple[float, float]) -> None:
    """Draw over a picture with the mouse, from point to point of it."""
    await stage.scroll_into_view_if_needed()
    box = await stage.bounding_box()
    assert box is not None
    mouse = stage.page.mouse
    for place, (x, y) in enumerate(points):
        await mouse.move(box["x"] + x * box["width"] / SIDE, box["y"] + y * box["height"] / SIDE)
        if place == 0:
            await mouse.down()
    await mouse.up()


async def saved(download: Awaitable[Download]) -> bytes:
    """Return what a browser saved."""
    path = await (await download).path()
    return await asyncio.to_thread(path.read_bytes)


async def downloaded(page: Page, selector: str) -> bytes:
    """Return the file of the last picture that a selector finds."""
    address = await page.locator(selector).last.evaluate("(image) => image.src")
    answer = await page.request.get(address)
    return await answer.body()


def mask_of(request: Request) -> np.ndarray:
    """Return where a request repaints, (H, W) bool."""
    return np.asarray(Image.open(io.BytesIO(request.mask or b"")).convert("L")) > 127


@in_chromium
async def test_several_prompts_become_a_request_each_and_their_pictures_are_seen(house: House, painter: ScriptedPainter) -> None:
    painter.hold.clear()
    async with studio(house) as page:
        await expect(page.locator("#empty")).to_be_visible()
        await page.fill("#panel-dream [name=prompt]", "a cat\n\n  a red cat  \n")
        await page.fill("#panel-dream [name=count]", "2")
        await page.fill("#panel-dream [name=seed]", "7")
        await page.select_option("#panel-dream [name=preset]", "fast")
        await page.press("#panel-dream [name=prompt]", "Control+Enter")
        cards = page.locator(".card")
        await expect(cards.locator("h3")).to_have_text(["a red cat", "a cat"])
        await expect(cards.nth(1).locator(".preview")).to_be_visible()
        await expect(cards.nth(0).locator(".told")).to_contain_text("Next in the queue")
        painter.hold.set()
        await expect(cards.nth(0)).to_have_attribute("data-status", "succeeded")
        assert [(request.prompt, request.count, request.seed, request.preset) for request in painter.painted] == [
            ("a cat", 2, 7, "fast"),
            ("a red cat", 2, 7, "fast"),
        ]
        await expect(page.locator(".picture img")).to_have_count(4)
        # Pictures are fetched after they are in the page.
        widths = "Promise.all([...document.querySelectorAll('.picture img')].map((image) => image.decode().then(() => image.naturalWidth)))"
        assert await page.evaluate(widths) == [8] * 4
        await expect(cards.nth(0).locator(".facts")).to_contain_text("seed 7")
        await page.reload()
        await expect(cards.locator("h3")).to_have_text(["a red cat", "a cat"])


@in_chromium
async def test_what_is_painted_over_with_the_mouse_is_repainted_and_nothing_else(house: House, painter: ScriptedPainter) -> None:
    async with studio(house) as page:
        await page.click("[data-tab=inpaint]")
        await page.set_input_files("#panel-inpaint input[type=file]", {"name": "cat.png", "mimeType": "image/png", "buffer": noise(SIDE)})
        stage = page.locator(".stage")
        await expect(page.locator(".share")).to_have_text("Nothing would be repainted yet.")
        await page.fill("#panel-inpaint [name=prompt]", "a dog")
        await page.click("#panel-inpaint .send")
        await expect(page.locator("#panel-inpaint .problem").last).to_contain_text("Paint over what is to be repainted")
        await draw(stage, (8, 16), (40, 16))
        await page.click("[data-do=erase]")
        await draw(stage, (30, 16), (50, 16))
        await page.click("[data-do=paint]")
        await draw(stage, (56, 56))
        await page.keyboard.press("Control+z")
        await page.click("#panel-inpaint .send")
        await expect(page.locator(".card")).to_have_attribute("data-status", "succeeded")
        mask = mask_of(painter.painted[0])
        assert (painter.painted[0].kind, painter.painted[0].prompt, mask.shape) == (Kind.INPAINT, "a dog", (SIDE, SIDE))
        # The brush is eight pixels wide, and round at its ends; so is the eraser.
        assert mask[13:19, 8:25].all()
        assert not (mask[:11].any() or mask[21:].any() or mask[:, :3].any() or mask[:, 31:].any())


@in_chromium
async def test_the_mask_has_the_pictures_size_and_every_way_to_paint_it(house: House, painter: ScriptedPainter) -> None:
    async with studio(house) as page:
        await page.click("[data-tab=inpaint]")
        file = io.BytesIO()
        Image.new("RGB", (2000, 1000), (0, 0, 200)).save(file, "PNG")
        await page.set_input_files("#panel-inpaint input[type=file]", {"name": "sea.png", "mimeType": "image/png", "buffer": file.getvalue()})
        share = page.locator(".share")
        for steps, expected in (
            (["left"], 50),
            (["invert"], 50),
            (["top"], 75),
            (["clear"], 0),
            (["centre"], 25),
            (["undo", "undo", "undo"], 50),
            (["redo"], 75),
            (["undo"], 50),
        ):
            for step in steps:
                await page.click(f"[data-do={step}]")
            await expect(share).to_have_text(f"{expected} % would be repainted." if expected else "Nothing would be repainted yet.")
        # What is undone four times is the right half, the inversion of the left one.
        await page.fill("#panel-inpaint [name=prompt]", "a dog")
        await page.click("#panel-inpaint .send")
        await expect(page.locator(".card")).to_have_attribute("data-status", "succeeded")
        mask = mask_of(painter.painted[0])
        assert mask.shape == (512, 1024) and mask[:, 512:].all() and not mask[:, :512].any()
        # All of it has the colour of its border, which would leave nothing.
        await page.click("[data-do=background]")
        await page.click("#panel-inpaint .send")
        await expect(page.locator("#panel-inpaint > form > .problem")).to_contain_text("Leave something")


@in_chromium
async def test_the_brush_works_with_the_keyboard_alone(house: House, painter: ScriptedPainter) -> None:
    async with studio(house) as page:
        await page.click("[data-tab=inpaint]")
        await page.set_input_files("#panel-inpaint input[type=file]", {"name": "cat.png", "mimeType": "image/png", "buffer": noise(SIDE)})
        await page.fill("#panel-inpaint [name=prompt]", "a dog")
        await expect(page.locator(".stage")).to_be_visible()
        await page.locator(".stage").focus()
        for key in ("Space", "ArrowLeft", "ArrowLeft", "[", "]", "Shift+ArrowUp", "e", "Space", "Control+z", "b", "i", "i", "Delete", "Control+z"):
            await page.keyboard.press(key)
        await page.locator("#panel-inpaint [name=prompt]").focus()
        await page.keyboard.press("i")
        await page.keyboard.press("Control+Enter")
        await expect(page.locator(".card")).to_have_attribute("data-status", "succeeded")
        assert painter.painted[0].prompt == "a dogi"
        mask = mask_of(painter.painted[0])
        # A dot in the middle, and a stroke four pixels to its left and up by two.
        assert mask[32, 32] and mask[30, 28] and mask[32, 26] and not mask[:24].any() and not mask[38:].any() and not mask[:, 38:].any()


@in_chromium
async def test_a_picture_goes_on_to_other_tabs_and_keeps_where_it_came_from(house: House, painter: ScriptedPainter) -> None:
    async with studio(house, accept_downloads=True) as page:
        await dreamt(page, count=2)
        own = await page.get_attribute(".picture[data-position='1'] img", "src")
        for tab in ("variation", "upscale"):
            await page.locator(".card[data-kind=dream] .picture[data-position='0']").click()
            await page.keyboard.press("ArrowRight")
            await page.click(f"#viewer [data-send={tab}]")
            await expect(page.locator(f"#panel-{tab} .chosen")).to_have_attribute("src", own or "")
            await page.click(f"#panel-{tab} .send")
            await expect(page.locator(f".card[data-kind={tab}]")).to_have_attribute("data-status", "succeeded")
        assert [request.kind for request in painter.painted] == [Kind.DREAM, Kind.VARIATION, Kind.UPSCALE]
        rows = await house.history.database.rows("SELECT parent FROM job ORDER BY id")
        assert [row["parent"] for row in rows] == [None, 2, 2]
        await page.locator(".card[data-kind=dream] .picture[data-position='1']").click()
        async with page.expect_download() as kept:
            await page.click("#viewer-settings")
        told = json.loads(await saved(kept.value))
        assert (told["kind"], told["position"], told["input"]["prompt"], told["seed"]) == ("dream", 1, "a cat", painter.painted[0].seeds[1])
        async with page.expect_download() as kept:
            await page.click("#viewer-png")
        assert await saved(kept.value) == await house.ask("GET", own or "")
        assert (await kept.value).suggested_filename.endswith("-1.png")


@in_chromium
async def test_pictures_are_dropped_and_pasted(house: House, painter: ScriptedPainter) -> None:
    hand_over = """([bytes, kind]) => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([new Uint8Array(bytes)], "x.png", { type: "image/png" }));
        const event = kind === "drop" ? new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true })
            : new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true, cancelable: true });
        document.body.dispatchEvent(event);
    }"""
    async with studio(house) as page:
        await page.evaluate(hand_over, [list(noise(SIDE)), "drop"])
        await expect(page.locator("[data-tab=variation]")).to_have_attribute("aria-selected", "true")
        await expect(page.locator("#panel-variation .chosen")).to_be_visible()
        await page.click("[data-tab=upscale]")
        await page.evaluate(hand_over, [list(noise(SIDE, 2)), "paste"])
        await expect(page.locator("#panel-upscale .chosen")).to_be_visible()
        await page.click("#panel-upscale .send")
        await expect(page.locator(".card")).to_have_attribute("data-status", "succeeded")
        with Image.open(io.BytesIO(painter.painted[0].image or b"")) as taken, Image.open(io.BytesIO(noise(SIDE, 2))) as given:
            assert np.array_equal(np.asarray(taken), np.asarray(given))


@in_chromium
async def test_words_stay_words_whatever_they_say(house: House, painter: ScriptedPainter) -> None:
    evil = "<img src=x onerror=\"document.body.dataset.evil = 'yes'\"><script>document.body.dataset.evil = 'yes'</script>"
    async with studio(house) as page:
        await dreamt(page, evil)
        await expect(page.locator(".card h3")).to_have_text(evil)
        await page.click(".picture")
        await expect(page.locator("#viewer-title")).to_have_text(evil)
        assert await page.evaluate("document.body.dataset.evil ?? null") is None
        assert await page.locator("h3 *, h2 *").count() == 0


@in_chromium
async def test_sliders_ask_each_unet_and_the_prior_only_where_they_were_moved(house: House, painter: ScriptedPainter) -> None:
    async with studio(house) as page:
        await expect(page.locator("#panel-dream .slider label")).to_have_text(["Guidance of the prior", "Guidance of unet 1", "Guidance of unet 2"])
        await page.locator("#panel-dream [name='guidance-1']").fill("4.5")
        await page.locator("#panel-dream [name=prior_guidance]").fill("3")
        await page.fill("#panel-dream [name=steps]", "12")
        await page.fill("#panel-dream [name=candidates]", "2")
        await dreamt(page)
        await page.locator("#panel-dream .slider").nth(2).get_by_role("button").click()
        await page.locator("#panel-dream [name='guidance-0']").fill("2")
        await dreamt(page)
        await expect(page.locator(".card[data-status=succeeded]")).to_have_count(2)
        first, second = painter.painted
        assert (first.guidance, first.prior_guidance, first.steps, first.candidates) == ((None, 4.5), 3, 12, 2)
        assert (second.guidance, second.prior_guidance) == (2, 3)
        await page.fill("#panel-dream [name=count]", "12")
        await page.click("#panel-dream .send")
        await expect(page.locator("#panel-dream > form > .problem")).to_have_text("Pictures must be a whole number from 1 to 9.")


@in_chromium
async def test_what_is_under_way_can_be_called_off_and_failures_say_why(house: House, painter: ScriptedPainter) -> None:
    async with studio(house) as page:
        painter.failures.append(RuntimeError("out of paint"))
        await page.fill("#panel-dream [name=prompt]", "a dog")
        await page.click("#panel-dream .send")
        await expect(page.locator(".card .problem")).to_contain_text("Something broke here; it is not your fault.")
        painter.hold.clear()
        await page.fill("#panel-dream [name=prompt]", "a cat")
        await page.click("#panel-dream .send")
        await expect(page.locator(".card")).to_have_count(2)
        await page.locator(".card").first.locator(".cancel").click()
        await expect(page.locator(".card").first).to_have_attribute("data-status", "canceled")
        await expect(page.locator(".card").first.locator(".way")).to_be_hidden()
        painter.hold.set()


@in_chromium
async def test_what_is_refused_stays_to_be_asked_again(house: House, painter: ScriptedPainter, monkeypatch: pytest.MonkeyPatch) -> None:
    submit, asked = house.queue.submit, []

    async def second_is_too_many(*args: object) -> object:
        asked.append(args)
        if len(asked) == 2:
            raise TooManyJobs(5)
        return await submit(*args)  # type: ignore[arg-type] # as they came

    monkeypatch.setattr(house.queue, "submit", second_is_too_many)
    async with studio(house, "status of 429") as page:
        await page.fill("#panel-dream [name=prompt]", "a cat\na dog\na house")
        await page.click("#panel-dream .send")
        await expect(page.locator("#panel-dream > form > .problem")).to_contain_text("You have 5 unfinished jobs")
        await expect(page.locator("#panel-dream [name=prompt]")).to_have_value("a dog\na house")
        await page.click("#panel-dream .send")
        await expect(page.locator(".card h3")).to_have_text(["a house", "a dog", "a cat"])


@in_chromium
async def test_older_requests_come_when_they_are_asked_for(house: House) -> None:
    for number in range(23):
        await house.take("dream", {"prompt": f"cat {number}", "count": 1})
        if number % 8 == 7 or number == 22:
            await house.ended((await house.ask("GET", "/predictions?limit=1"))["results"][0])
    async with studio(house) as page:
        await page.click("[data-tab=gallery]")
        await expect(page.locator(".card")).to_have_count(20)
        await page.click("#more")
        await expect(page.locator(".card")).to_have_count(23)
        await expect(page.locator("#more")).to_be_hidden()
        await expect(page.locator(".card h3").last).to_have_text("cat 0")


@in_chromium
async def test_many_requests_leave_the_page_its_connections(house: House, painter: ScriptedPainter) -> None:
    painter.hold.clear()
    async with studio(house) as page:
        await page.fill("#panel-dream [name=prompt]", "\n".join(f"cat {number}" for number in range(8)))
        await page.fill("#panel-dream [name=count]", "1")
        await page.click("#panel-dream .send")
        await expect(page.locator(".card")).to_have_count(8)
        # A browser has six connections to one server; the page still gets answers.
        await page.locator(".card").first.locator(".cancel").click()
        await expect(page.locator(".card").first).to_have_attribute("data-status", "canceled")
        painter.hold.set()
        await expect(page.locator(".card[data-status=succeeded]")).to_have_count(7)


@in_chromium
@pytest.mark.parametrize("width", [360, 1280])
async def test_everything_has_a_name_and_fits_on_a_phone(house: House, width: int) -> None:
    async with studio(house, viewport={"width": width, "height": 800}, color_scheme="dark") as page:
        await dreamt(page)
        for tab in ("dream", "variation", "inpaint", "upscale", "gallery"):
            await page.click(f"[data-tab={tab}]")
            if tab == "inpaint":
                picture = {"name": "cat.png", "mimeType": "image/png", "buffer": noise(SIDE)}
                await page.set_input_files("#panel-inpaint input[type=file]", picture)
                await expect(page.locator(".stage")).to_be_visible()
            assert await page.evaluate("document.documentElement.scrollWidth") <= width
            assert await page.evaluate(NAMELESS) == []
        await page.locator("[data-tab=gallery]").focus()
        await page.keyboard.press("Home")
        await expect(page.locator("[data-tab=dream]")).to_be_focused()
        await page.keyboard.press("ArrowRight")
        await expect(page.locator("#panel-variation")).to_be_visible()


@in_chromium
async def test_pictures_and_prompts_are_mixed_where_the_studio_can(house: House, painter: ScriptedPainter) -> None:
    async with studio(house) as page:
        await dreamt(page, count=9)
        await page.locator(".card .picture").first.click()
        await page.click("#viewer [data-send=blend]")
        await expect(page.locator("#panel-blend .chosen").first).to_be_visible()
        await page.locator("#panel-blend [type=text]").nth(1).fill("a dog")
        await page.fill("#panel-blend [name=count]", "2")
        await page.click("#panel-blend .send")
        await expect(page.locator(".card[data-kind=blend] h3")).to_have_text("a picture + a dog")
        await page.click("[data-mix=morph]")
        for place, words in enumerate(("a cat", "a dog")):
            await page.locator("#panel-morph [type=text]").nth(place).fill(words)
        await page.fill("#panel-morph [name=frames]", "5")
        await page.click("#panel-morph .send")
        await expect(page.locator(".card[data-kind=morph] a[href$='/morph.gif']")).to_be_visible()
        await page.locator(".card[data-kind=dream] .picture").first.click()
        await page.click("#viewer [data-send=edit]")
        await page.fill("#panel-edit [name=before]", "a cat")
        await page.fill("#panel-edit [name=after]", "a fox")
        await page.locator("#panel-edit [name=strength]").fill("0.7")
        await page.click("#panel-edit .send")
        await expect(page.locator(".card[data-kind=edit] h3")).to_have_text("a cat → a fox")
        await page.locator(".card[data-kind=dream] .picture").first.click()
        await page.click("#viewer [data-send=explore]")
        await page.locator("#panel-explore [name=step]").fill("0.5")
        await page.click("#panel-explore .send")
        await page.locator(".card[data-kind=explore] .picture[data-position='2']").click()
        await expect(page.locator(".card[data-kind=explore]")).to_have_count(2)
        await page.locator(".card[data-kind=explore] .picture[data-position='4']").first.click()
        await expect(page.locator("#viewer")).to_be_visible()
    dream, blend, morph, edit, wheel, further = painter.painted
    own = take_in(await house.ask("GET", (await house.ask("GET", "/predictions"))["results"][-1]["output"]["pictures"][0]["url"]))
    assert (blend.ingredients, blend.count) == ((Ingredient(own), Ingredient(prompt="a dog")), 2)
    assert (morph.prompt, morph.count) == ("a cat → a dog", 5)
    assert (edit.image is not None, edit.before, edit.prompt, edit.strength) == (True, "a cat", "a fox", 0.7)
    assert (wheel.kind, wheel.step, wheel.count) == (Kind.EXPLORE, 0.5, 9)
    assert (further.kind, further.step, further.image != wheel.image) == (Kind.EXPLORE, 0.5, True) and dream.count == 9


async def test_a_browser_may_load_nothing_from_elsewhere_for_the_page(house: House) -> None:
    key = {"Authorization": f"Bearer {ANN}"}
    for path in ("/", "/page/studio.html", "/page/studio.js", "/page/page.css", "/page/icon.svg", f"/paint/1.{'a' * 32}"):
        async with house.session.get(house.address.rstrip("/") + path, headers=key) as answer:
            policy = dict(part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; "))
            assert answer.status == 200
            assert policy == {
                "default-src": "'none'",
                "script-src": "'self'",
                "style-src": "'self'",
                "img-src": "'self' blob: data:",
                "connect-src": "'self'",
                "form-action": "'none'",
                "base-uri": "'none'",
                "frame-ancestors": "'none'",
            }
            text = await answer.text()
            assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text) and " style=" not in text and "innerHTML" not in text
    # The page itself is for who has a key; its parts are the same everywhere.
    async with house.session.get(house.address) as answer:
        assert answer.status == 401 and answer.headers["WWW-Authenticate"].startswith("Basic")
    await house.ask("GET", "/page/studio.js", key=None)
    for path in ("/page/nothing.js", "/page/..%2fapp.py", "/page/%2e%2e%2fapp.py", "/page/", "/page/studio.js/x"):
        await house.ask("GET", path, 404)


# The program itself, with the bundled model.


def pixels(png: bytes) -> np.ndarray:
    """Return a picture, (H, W, 3)."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def assert_repainted(before: np.ndarray, after: np.ndarray) -> None:
    """Make sure that a picture changed in the upper left, where the mouse was, and nowhere else."""
    changed = (before != after).any(-1)
    assert before.shape == after.shape and changed[:20, :34].sum() > 50
    assert not changed[24:].any() and not changed[:, 40:].any()


STROKE = ((6, 8), (14, 10), (22, 8), (30, 12))


@in_chromium
async def test_the_bundled_model_repaints_what_the_mouse_painted_over(tmp_path: Path) -> None:
    config = settings(tmp_path, studio_port=0)
    async with program("--local", "--studio", "--config", str(config)) as process:
        async with looking_at(await opened(process)) as page:
            await page.wait_for_selector("body[data-ready=true]")
            await page.fill("#panel-dream [name=steps]", "8")
            await dreamt(page, "a fox on a blue background")
            before = await downloaded(page, ".card[data-kind=dream] .picture img")
            await page.click(".card[data-kind=dream] .picture")
            await page.click("#viewer [data-send=inpaint]")
            await draw(page.locator(".stage"), *STROKE)
            await page.fill("#panel-inpaint [name=prompt]", "a fox on a red background")
            await page.fill("#panel-inpaint [name=count]", "1")
            await page.fill("#panel-inpaint [name=steps]", "4")
            await page.click("#panel-inpaint .send")
            await expect(page.locator(".card[data-kind=inpaint]")).to_have_attribute("data-status", "succeeded")
            after = await downloaded(page, ".card[data-kind=inpaint] .picture img")
            assert_repainted(*(pixels(png)[1::2, 1::2] for png in (before, after)))


@in_chromium
async def test_a_mask_is_painted_from_discords_menu_to_the_result_in_the_channel(tmp_path: Path) -> None:
    config = settings(tmp_path, studio_port=0)
    history = await History.open(tmp_path / "data")
    for name, value in (("count", 1), ("steps", 4)):
        await Preferences(history.database).choose(Level.USER, int(ANN_IN_DISCORD), name, value)
    await history.close()
    async with program("--local", "--studio", "--config", str(config)) as process:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE_MS / 1000):
            lines = [(await process.stdout.readline()).decode() for _ in range(6)]
        [channel, _] = re.findall(r"http://127\.0\.0\.1:\d+/", "".join(lines))
        async with looking_at(channel) as page:
            await page.wait_for_selector("body[data-connected=true]")
            await type_command(page, "/dream prompt: a fox on a blue background count: 1 steps: 8 seed: 7")
            card = page.locator(".message", has=page.locator(".picture img")).filter(has=page.locator(".embed"))
            await expect(card).to_have_count(1)
            before = await downloaded(page, ".message .picture img")
            await card.hover()
            await card.locator(".menu[data-name='Paint the mask']").click()
            link = page.locator(".message a.link", has_text="Open the brush")
            async with page.context.expect_page() as opening:
                await link.click()
            brush = await opening.value
            await expect(brush.locator("#where")).to_contain_text("posted in #general")
            await draw(brush.locator(".stage"), *STROKE)
            await brush.fill("#prompt", "a fox on a red background")
            await brush.click(".send")
            await expect(brush.locator("#told")).to_contain_text("The result will be posted in #general.")
            address = brush.url
            await brush.goto(address)
            await expect(brush.locator("#told")).to_have_text("This link was used or is too old. Ask for a new one in Discord.")
            await page.bring_to_front()
            await expect(card).to_have_count(2)
            await expect(card.last.locator(".embed")).to_contain_text("Repainted: a fox on a red background")
            # In Discord, pictures as small as these are shown four times as large.
            after = await downloaded(page, ".message:last-of-type .picture img")
            assert_repainted(*(pixels(png)[2::4, 2::4] for png in (before, after)))
