"""Pictures over HTTP: painted, handed in every way there is, fetched again."""

import base64
import io
from typing import Any

import aiohttp
import numpy as np
import pytest
from PIL import Image

from engine.jobs import Kind, Preset
from engine.pictures import encode
from tests.conftest import ScriptedPainter, noise, png
from tests.engine.studio.conftest import BOB, House, Open

RED = png((200, 0, 0), 64)


def half(side: int = 64) -> bytes:
    """Return a mask whose left half is to be repainted."""
    mask = Image.new("L", (side, side))
    mask.paste(255, (0, 0, side // 2, side))
    return encode(mask)


def pixels(picture: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))


def form(**fields: Any) -> aiohttp.FormData:
    """Return a form; bytes are files."""
    data = aiohttp.FormData(default_to_multipart=True)
    for name, value in fields.items():
        data.add_field(name, value, **({"filename": "../../etc/passwd"} if isinstance(value, bytes) else {}))
    return data


async def test_a_dream_comes_back_with_its_pictures_seeds_and_settings(house: House, painter: ScriptedPainter) -> None:
    asked = {"prompt": "a flying cat", "count": 3, "seed": 2**32 - 1, "steps": 9, "guidance": 2, "preset": "best"}
    asked |= {"candidates": 3, "prior_steps": 8, "prior_guidance": 0.5}
    told = await house.ask("POST", "/dream", json={"input": asked})
    output = told["output"]
    assert told["input"] == asked
    assert (output["seed"], output["steps"], output["guidance"], output["model"]) == (2**32 - 1, 9, 2.0, "scripted")
    assert output["unknown_words"] == ["flying"]
    assert [(one["seed"], one["width"], one["height"]) for one in output["pictures"]] == [(2**32 - 1, 8, 8), (0, 8, 8), (1, 8, 8)]
    files = [await house.ask("GET", one["url"]) for one in output["pictures"]]
    assert [pixels(file)[0, 0].tolist() for file in files] == [[255, 100, 50], [0, 100, 50], [1, 100, 50]]
    [request] = painter.painted
    assert (request.kind, request.preset, request.count, request.steps, request.guidance) == (Kind.DREAM, Preset.BEST, 3, 9, 2.0)
    assert (request.candidates, request.prior_steps, request.prior_guidance) == (3, 8, 0.5)
    assert "no such picture" in (await house.ask("GET", f"/pictures/{told['id']}/3.png", 404))["detail"]


async def test_what_was_painted_is_erased_once_it_has_ended_and_by_nobody_else(house: House, painter: ScriptedPainter) -> None:
    told = await house.ask("POST", "/variation", data=form(image=RED))
    [picture, *_] = told["output"]["pictures"]
    await house.ask("DELETE", told["urls"]["get"], 404, key=BOB)
    painter.hold.clear()
    waiting = await house.take("dream", {"prompt": "a cat"})
    assert "Cancel it first" in (await house.ask("DELETE", waiting["urls"]["get"], 409))["detail"]
    painter.hold.set()
    assert not await house.ask("DELETE", told["urls"]["get"], 204)
    for path in (told["urls"]["get"], picture["url"]):
        await house.ask("GET", path, 404)
    await house.ask("DELETE", told["urls"]["get"], 404)
    await house.ended(waiting)
    assert [one["id"] for one in (await house.ask("GET", "/predictions"))["results"]] == [waiting["id"]]
    assert await house.history.database.rows("SELECT * FROM upload") == [] and not (house.history.database.folder / "pictures" / "1").exists()


async def test_a_picture_is_handed_in_as_a_file_as_a_data_address_or_as_base64(house: House, painter: ScriptedPainter) -> None:
    text = base64.b64encode(RED).decode()
    wanted = {"count": "2", "seed": "7", "preset": "fast"}
    told = [await house.ask("POST", "/variation", data=form(image=RED, **wanted))]
    told.append(await house.ask("POST", "/variation", data=form(image=base64.b64encode(png((1, 2, 3))).decode(), **wanted)))
    for image in (f"data:image/png;base64,{text}", text):
        told.append(await house.ask("POST", "/variation", json={"input": {"image": image, "count": 2, "seed": 7, "preset": "fast"}}))
    assert [one["status"] for one in told] == ["succeeded"] * 4
    # What was asked does not hold the picture, but says which it was.
    assert told[0]["input"] == told[2]["input"] == told[3]["input"] != told[1]["input"]
    assert told[0]["input"]["image"].startswith("sha256:")
    assert {(one.kind, one.count, one.seed, one.preset) for one in painter.painted} == {(Kind.VARIATION, 2, 7, Preset.FAST)}
    assert [pixels(one.image or b"")[0, 0].tolist() for one in painter.painted] == [[200, 0, 0], [1, 2, 3], [200, 0, 0], [200, 0, 0]]


async def test_one_of_their_own_pictures_is_named_by_its_address(house: House, painter: ScriptedPainter) -> None:
    dream = await house.ask("POST", "/dream", json={"input": {"prompt": "a cat", "count": 2, "seed": 5}})
    url = dream["output"]["pictures"][1]["url"]
    told = await house.ask("POST", "/variation", json={"input": {"image": url}})
    assert told["input"] == {"image": url}
    # As the very file, by which some models know what they painted; and the memory knows where it comes from.
    assert painter.painted[1].image == await house.ask("GET", url)
    [row] = await house.history.database.rows("SELECT parent, source FROM job WHERE id = 2")
    assert tuple(row) == (2, 1)
    inpaint = await house.ask("POST", "/inpaint", json={"input": {"image": url, "region": "left", "prompt": "a dog"}})
    assert inpaint["status"] == "succeeded"
    for wrong in ("/pictures/nothing/0.png", url.replace("1.png", "7.png"), "/etc/passwd", "/pictures/../../reverie.db"):
        assert "own pictures" in (await house.ask("POST", "/variation", 422, json={"input": {"image": wrong}}))["detail"]


async def test_what_is_to_be_repainted_is_said_by_a_mask_a_region_or_what_is_transparent(house: House, painter: ScriptedPainter) -> None:
    see_through = Image.new("RGBA", (64, 64), (0, 0, 200, 255))
    see_through.paste((0, 0, 0, 0), (0, 0, 32, 64))
    for data in (form(image=RED, mask=half(), prompt="a dog"), form(image=encode(see_through), prompt="a dog")):
        await house.ask("POST", "/inpaint", data=data)
    await house.ask("POST", "/inpaint", json={"input": {"image": base64.b64encode(RED).decode(), "region": "left", "prompt": "a dog"}})
    assert [one.kind for one in painter.painted] == [Kind.INPAINT] * 3
    for request in painter.painted:
        mask = pixels(request.mask or b"")
        assert mask[:, :32].all() and not mask[:, 32:].any()
    refused = await house.ask("POST", "/inpaint", 422, data=form(image=RED, prompt="a dog"))
    assert refused["detail"].startswith("mask must be given")
    refused = await house.ask("POST", "/inpaint", 422, data=form(image=RED, mask=png((0, 0, 0), 64), prompt="a dog"))
    assert refused["detail"].startswith("mask must be white or transparent")


async def test_a_picture_is_enlarged(house: House, painter: ScriptedPainter) -> None:
    told = await house.ask("POST", "/upscale", data=form(image=noise(300), seed="4"))
    assert [one["seed"] for one in told["output"]["pictures"]] == [4]
    assert (painter.painted[0].kind, painter.painted[0].count) == (Kind.UPSCALE, 1)


async def test_large_pictures_are_kept_small(house: House, painter: ScriptedPainter) -> None:
    await house.ask("POST", "/variation", data=form(image=png((1, 2, 3), 3000)))
    assert pixels(painter.painted[0].image or b"").shape == (1024, 1024, 3)


async def test_a_model_is_chosen_by_its_name_and_asked_only_for_what_it_can_do(start: Open, painter: ScriptedPainter) -> None:
    other = ScriptedPainter()
    other.model, other.kinds = "foxes", frozenset({Kind.DREAM})  # type: ignore[assignment]
    async with start(others={"foxes": other}) as house:
        told = await house.ask("POST", "/dream", json={"input": {"prompt": "a cat", "model": "foxes"}})
        assert told["output"]["model"] == "foxes" and len(other.painted) == 1
        refused = await house.ask("POST", "/predictions", 422, json={"input": {"prompt": "a cat", "model": "foxes"}})
        assert refused["detail"] == "model must be one that can do embed; this one cannot."
        refused = await house.ask("POST", "/dream", 422, json={"input": {"prompt": "a cat", "model": "/etc/passwd"}})
        assert refused["detail"].startswith("model must be the name")
        document = await house.ask("GET", "/openapi.json")
        schema = document["paths"]["/dream"]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert schema["properties"]["input"]["properties"]["model"]["enum"] == ["", "scripted", "foxes"]
    assert painter.painted == []


DAMAGED = RED[:60] + b"\0\0\0\0" + RED[64:90]
BOMB = png((0, 0, 0), 8000)


@pytest.mark.parametrize(
    ("file", "says"),
    [
        (b"", "picture must hold something"),
        (b"GIF89a", "picture must be a PNG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "picture must be a PNG"),
        (b"%PDF-1.4\n", "picture must be a PNG"),
        (DAMAGED, "picture must be"),
        (BOMB, "picture must have at most 40 megapixels"),
    ],
    ids=["empty", "gif", "svg", "pdf", "damaged", "bomb"],
)
async def test_what_is_no_picture_is_refused_before_anything_is_queued(house: House, painter: ScriptedPainter, file: bytes, says: str) -> None:
    for path, more in (("/variation", {}), ("/upscale", {}), ("/inpaint", {"prompt": "a dog", "region": "left"})):
        assert (await house.ask("POST", path, 422, data=form(image=file, **more)))["detail"].startswith(says)
        if file:
            text = base64.b64encode(file).decode()
            assert (await house.ask("POST", path, 422, json={"input": {"image": text, **more}}))["detail"].startswith(says)
    assert await house.ask("GET", "/predictions") == {"results": [], "next": None} and painter.painted == []


async def test_without_discord_no_channel_is_offered_and_no_link_leads_anywhere(house: House) -> None:
    assert await house.ask("GET", "/channels") == {"channels": []}
    for path in ("sheet", "picture.png"):
        assert "Ask for a new one in Discord" in (await house.ask("GET", f"/paint/1.{'a' * 32}/{path}", 404, None))["detail"]
    await house.ask("GET", "/channels", 401, None)
