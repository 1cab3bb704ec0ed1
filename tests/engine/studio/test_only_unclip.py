"""What only unCLIP can do, over HTTP."""

import base64
import io
from typing import Any

import pytest
from PIL import Image

from engine.jobs import Ingredient, Kind
from engine.pictures import hash_of, write_receipt
from engine.uploads import take_in
from tests.conftest import ScriptedPainter, png
from tests.engine.studio.conftest import BOB, House
from tests.engine.studio.test_pictures import BOMB, form

CAT, DOG = png((200, 0, 0)), png((0, 0, 200))


def text(file: bytes) -> str:
    return base64.b64encode(file).decode()


async def test_pictures_and_prompts_are_blended(house: House, painter: ScriptedPainter) -> None:
    dream = await house.ask("POST", "/dream", json={"input": {"prompt": "a hat", "count": 1}})
    own = dream["output"]["pictures"][0]["url"]
    parts = [{"image": text(CAT), "weight": 2}, {"prompt": "a dog"}, {"image": own, "weight": 0.5}]
    told = await house.ask("POST", "/blend", json={"input": {"ingredients": parts, "count": 2, "seed": 5, "candidates": 3}})
    request = painter.painted[1]
    ours = take_in(await house.ask("GET", own))
    assert request.ingredients == (Ingredient(take_in(CAT), weight=2.0), Ingredient(prompt="a dog"), Ingredient(ours, weight=0.5))
    assert (request.kind, request.count, request.candidates, request.prompt) == (Kind.BLEND, 2, 3, "a dog")
    assert [one["seed"] for one in told["output"]["pictures"]] == [5, 6]
    # What was asked does not hold the picture, but says which it was.
    assert [one.get("image", "")[:7] for one in told["input"]["ingredients"]] == ["sha256:", "", "/pictur"]


async def test_a_morph_is_fetched_as_frames_strip_animation_and_film(house: House, painter: ScriptedPainter) -> None:
    told = await house.ask("POST", "/morph", json={"input": {"start": {"prompt": "a cat"}, "end": {"image": text(DOG)}, "frames": 12, "seed": 5}})
    assert painter.painted[0].ingredients == (Ingredient(prompt="a cat"), Ingredient(take_in(DOG)))
    assert len(told["output"]["pictures"]) == 12 and (await house.ask("GET", f"/pictures/{told['id']}/11.png")).startswith(b"\x89PNG")
    files = {name: await house.ask("GET", told["urls"][name]) for name in ("png", "gif", "mp4")}
    assert Image.open(io.BytesIO(files["png"])).size == (12 * 256, 256)
    assert Image.open(io.BytesIO(files["gif"])).n_frames == 22  # type: ignore[attr-defined] # an animation
    assert files["mp4"][4:8] == b"ftyp"
    await house.ask("GET", told["urls"]["gif"], 404, key=BOB)
    dream = await house.ask("POST", "/dream", json={"input": {"prompt": "a hat"}})
    assert "no morph" in (await house.ask("GET", f"/pictures/{dream['id']}/strip.png", 404))["detail"] and "gif" not in dream["urls"]


async def test_a_picture_is_edited_and_explored(house: House, painter: ScriptedPainter) -> None:
    asked = {"before": "a cat", "after": "a tiger", "strength": "0.75", "seed": "5"}
    told = await house.ask("POST", "/edit", data=form(image=CAT, **asked))
    told = [told, await house.ask("POST", "/explore", json={"input": {"image": text(CAT), "step": 0.25}})]
    edit, wheel = painter.painted
    assert (edit.kind, edit.before, edit.prompt, edit.strength, edit.count, edit.seed) == (Kind.EDIT, "a cat", "a tiger", 0.75, 1, 5)
    assert (wheel.kind, wheel.step, wheel.count, wheel.image) == (Kind.EXPLORE, 0.25, 9, take_in(CAT))
    assert [len(one["output"]["pictures"]) for one in told] == [1, 9]
    # From one of the wheel's pictures further, which is known to go back to it.
    await house.ask("POST", "/explore", json={"input": {"image": told[1]["output"]["pictures"][8]["url"]}})
    assert (await house.history.database.rows("SELECT parent FROM job WHERE id = 3"))[0]["parent"] == 10


async def test_one_of_the_priors_draws_is_painted(house: House, painter: ScriptedPainter) -> None:
    told = await house.ask("POST", "/draws", json={"input": {"prompt": "a cat", "number": 3, "seed": 2**32 - 1}})
    draws = told["output"]["draws"]
    assert {one["seed"] for one in draws} == {2**32 - 1, 0, 1} and draws == sorted(draws, key=lambda one: -one["score"])
    await house.ask("POST", "/dream", json={"input": {"prompt": "a cat", "prior_seed": draws[0]["seed"], "candidates": 1}})
    assert (painter.painted[1].prior_seed, painter.painted[1].candidates) == (draws[0]["seed"], 1)


async def test_a_variation_goes_as_far_as_is_asked(house: House, painter: ScriptedPainter) -> None:
    await house.ask("POST", "/variation", json={"input": {"image": text(CAT), "strength": 0.25, "drift": 1}})
    assert (painter.painted[0].strength, painter.painted[0].drift) == (0.25, 1.0)


async def test_a_picture_is_verified_with_what_a_person_handed_in_and_with_nothing_of_others(house: House, painter: ScriptedPainter) -> None:
    await house.ask("POST", "/variation", json={"input": {"image": text(CAT)}})
    await house.ask("POST", "/variation", json={"input": {"image": text(DOG)}}, key=BOB)
    names = [hash_of(take_in(file)) for file in (CAT, DOG)]
    receipt = write_receipt(png((9, 9, 9)), {"seed": 7, "model": "scripted", "picture_1": names[0], "picture_2": names[1]})
    told = await house.ask("POST", "/verify", data=form(image=receipt))
    assert painter.painted[2].image == receipt and painter.painted[2].ingredients == (Ingredient(take_in(CAT)),)
    output = told["output"]
    assert (output["finding"], output["largest"], output["mean"], output["same_model"], output["differs"]) == ("rounded", 2, 0.25, True, ["version"])
    assert output["sentence"].startswith("This is the picture") and len(output["pictures"]) == 1
    await house.ask("POST", "/verify", json={"input": {"image": text(receipt), "sources": [text(DOG)]}})
    assert painter.painted[3].ingredients == (Ingredient(take_in(CAT)), Ingredient(take_in(DOG)))


WORDS, FILE = {"prompt": "a cat"}, {"image": text(CAT)}
HOLD = "must hold an image or a prompt"


@pytest.mark.parametrize(
    ("path", "input", "says"),
    [
        ("/blend", {}, "ingredients must be given"),
        ("/blend", {"ingredients": [WORDS]}, "ingredients must have at least 2"),
        ("/blend", {"ingredients": [WORDS] * 6}, "ingredients must have at most 5"),
        ("/blend", {"ingredients": "a cat"}, "ingredients must be a valid list"),
        ("/blend", {"ingredients": [WORDS, {}]}, f"ingredients {HOLD}"),
        ("/blend", {"ingredients": [WORDS, WORDS | FILE]}, f"ingredients {HOLD}"),
        ("/blend", {"ingredients": [WORDS, {"prompt": " "}]}, f"ingredients {HOLD}"),
        ("/blend", {"ingredients": [WORDS, FILE | {"weight": 0}]}, "ingredients must be greater than 0"),
        ("/blend", {"ingredients": [WORDS, {"image": "%%%"}]}, "ingredients.1.image must be a data: URL"),
        ("/blend", {"ingredients": [WORDS, {"image": "/pictures/a/0.png"}]}, "ingredients.1.image must be one of your own"),
        ("/blend", {"ingredients": [WORDS, {"image": text(BOMB)}]}, "picture must have at most 40 megapixels"),
        ("/morph", {"start": WORDS}, "end must be given"),
        ("/morph", {"start": WORDS, "end": "a dog"}, "end must be"),
        ("/morph", {"start": WORDS, "end": FILE, "frames": 33}, "frames must be less than or equal to 32"),
        ("/morph", {"start": WORDS, "end": FILE, "count": 4}, "count is not known here"),
        ("/edit", {**FILE, "before": "a cat", "after": "\u00a0"}, "after must"),
        ("/edit", {**FILE, "before": "a cat", "after": "a dog", "strength": 1.5}, "strength must be less than or equal to 1"),
        ("/explore", {**FILE, "step": -1}, "step must be greater than or equal to 0"),
        ("/explore", {"image": text(b"no picture")}, "picture must be a PNG"),
        ("/draws", {"prompt": "a cat", "number": 33}, "number must be less than or equal to 32"),
        ("/verify", {**FILE, "sources": [text(CAT)] * 6}, "sources must have at most 5"),
        ("/verify", {**FILE, "sources": [7]}, "sources must be a valid string"),
        ("/verify", {"image": text(b"no picture")}, "picture must be a PNG"),
        ("/variation", {**FILE, "drift": "far"}, "drift must be a valid number"),
    ],
)
async def test_what_cannot_be_asked_for_is_told_in_a_sentence(
    house: House, painter: ScriptedPainter, path: str, input: dict[str, Any], says: str
) -> None:
    assert (await house.ask("POST", path, 422, json={"input": input}))["detail"].startswith(says)
    assert painter.painted == [] and house.queue.unfinished == []
