"""The page to paint with in the browser, used in headless Chromium as a person would."""

import contextlib
import io
import shutil
from collections.abc import AsyncIterator

import numpy as np
import pytest
from PIL import Image
from playwright.async_api import Locator, Page, async_playwright, expect

from engine.jobs import Kind, Request
from tests.conftest import ScriptedPainter, noise
from tests.engine.studio.conftest import ANN, House

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"
in_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed here, so the page cannot be looked at")
PATIENCE_MS = 30_000
SIDE = 64


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
        assert await page.evaluate("[...document.querySelectorAll('.picture img')].every((image) => image.complete && image.naturalWidth === 8)")
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
