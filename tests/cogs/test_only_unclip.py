"""What only unCLIP can do, by command and by button, from Discord to the request and back to the card."""

import io

import pytest
from PIL import Image

from cogs import _cards as cards
from cogs import _desk
from cogs._client import Reverie
from engine.jobs import Drawn, Ingredient, Kind, Request
from engine.pictures import hash_of, write_receipt
from engine.uploads import take_in
from loopback import Loopback
from tests.cogs.browsing import button, labels
from tests.cogs.conftest import answered, choose, dreamt, result, results, settled
from tests.conftest import ScriptedPainter, png

CAT, DOG = png((200, 0, 0)), png((0, 0, 200))


async def asked(server: Loopback, bot: Reverie, painter: ScriptedPainter, name: str, **options: object) -> Request:
    """Use a command and return the request that it came to."""
    await server.command(server.ann, server.general, name, options)
    await settled(bot, "delivered")
    return painter.painted[0]


async def test_pictures_and_prompts_are_blended_by_weight(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    request = await asked(discord_, bot, painter, "blend", picture_2=CAT, prompt_1="a dog", prompt_4="a *hat*", weights="2, 1 0.5", count=2, seed=5)
    parts = (Ingredient(take_in(CAT), weight=2.0), Ingredient(prompt="a dog"), Ingredient(prompt="a *hat*", weight=0.5))
    assert (request.kind, request.ingredients, request.count, request.seed) == (Kind.BLEND, parts, 2, 5)
    card = await result(discord_)
    assert card.embeds[0]["description"] == r"Blend: a dog + a \*hat\*" and labels(card)[:2] == ["U1", "U2"]
    told = await answered(discord_, await discord_.press(discord_.ann, card, button(cards.Act.INFO)))
    assert "/blend prompt_1: a dog prompt_2: a *hat* weights: 2 1 0.5 seed: 5 count: 2" in told.content


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("blend", {"prompt_1": "a dog"}, "ingredients must be two to 5"),
        ("blend", {"prompt_1": "a dog", "prompt_2": "a cat", "weights": "1"}, "weights must be as many as there are ingredients: 2, not 1"),
        ("blend", {"prompt_1": "a dog", "prompt_2": "a cat", "weights": "much more"}, "weights must be numbers"),
        ("blend", {"prompt_1": "a dog", "prompt_2": "a cat", "weights": "1 0"}, "weights must be above 0"),
        ("blend", {"prompt_1": "a dog", "prompt_2": "a cat", "weights": "1 nan"}, "weights must be above 0"),
        ("morph", {"from_prompt": "a dog"}, "to must be a picture or a prompt"),
        ("morph", {"from_prompt": "a dog", "from_picture": CAT, "to_prompt": "a cat"}, "from must be a picture or a prompt"),
        ("blend", {"prompt_1": "a dog", "picture_1": b"no picture"}, "picture must be a PNG"),
        ("verify", {"image": CAT}, "no picture"),
        ("edit", {"image": b"no picture", "from": "a cat", "to": "a dog"}, "picture must be a PNG"),
    ],
)
async def test_what_cannot_be_asked_for_is_told_and_nothing_is_queued(
    discord_: Loopback, bot: Reverie, name: str, options: dict[str, object], says: str
) -> None:
    message = await answered(discord_, await discord_.command(discord_.ann, discord_.general, name, options))
    assert says.lower() in message.content.lower()
    await settled(bot)


async def test_a_morph_comes_as_an_animation_a_film_and_a_strip(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    request = await asked(discord_, bot, painter, "morph", from_picture=CAT, to_prompt="a dog", frames=4, seed=5)
    assert (request.kind, request.ingredients, request.count) == (Kind.MORPH, (Ingredient(take_in(CAT)), Ingredient(prompt="a dog")), 4)
    card = await result(discord_)
    assert [file.filename for file in card.attachments] == ["reverie-1.gif", "reverie-1.mp4", "reverie-1.png"]
    assert Image.open(io.BytesIO(card.attachments[0].data)).n_frames > 1  # type: ignore[attr-defined] # an animation
    assert Image.open(io.BytesIO(card.attachments[2].data)).size == (4 * 256, 256)
    assert labels(card) == ["Reroll", "Edit prompt", "Info", "Share", "Delete"]


async def test_where_there_is_no_room_a_morph_comes_as_a_strip_alone(discord_: Loopback, bot: Reverie, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_desk, "REQUEST_LIMIT", 3000)
    await discord_.command(discord_.ann, discord_.general, "morph", {"from_prompt": "a cat", "to_prompt": "a dog", "frames": 32})
    await settled(bot, "delivered")
    [file] = (await result(discord_)).attachments
    assert len(file.data) <= 3000


async def test_a_picture_is_edited_from_one_text_to_another(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    request = await asked(discord_, bot, painter, "edit", image=CAT, **{"from": "a cat", "to": "a tiger"}, strength=0.75)
    assert (request.kind, request.before, request.prompt, request.strength, request.count) == (Kind.EDIT, "a cat", "a tiger", 0.75, 1)
    card = await result(discord_)
    assert card.embeds[0]["description"] == "Edit: a cat → a tiger"
    told = await answered(discord_, await discord_.press(discord_.ann, card, button(cards.Act.INFO)))
    assert "/edit from: a cat to: a tiger strength: 0.75" in told.content


async def test_a_wheel_is_explored_from_picture_to_picture(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    request = await asked(discord_, bot, painter, "explore", image=CAT, step=0.25, seed=5)
    assert (request.kind, request.step, request.count, request.image) == (Kind.EXPLORE, 0.25, 9, take_in(CAT))
    card = await result(discord_)
    await discord_.press(discord_.ben, card, button(cards.Act.EXPLORE, index=8))
    await settled(bot, "delivered", "delivered")
    further = painter.painted[1]
    assert (further.kind, further.step, further.seed) == (Kind.EXPLORE, 0.25, 5)
    assert further.image == (await bot.history.painting_of(await bot.history.find(1))).pictures[8].png
    assert [row["parent"] for row in await bot.history._rows("SELECT parent FROM job ORDER BY id")] == [None, 9]


async def test_any_picture_is_explored_and_verified_from_what_is_told_of_it(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    card = await dreamt(discord_, count=2)
    told = await answered(discord_, await discord_.press(discord_.ben, card, button(cards.Act.INFO)))
    assert labels(told) == ["Similar pictures", "Family", "Download", "Explore", "Verify"]
    await discord_.press(discord_.ben, told, button(cards.Act.EXPLORE))
    await discord_.press(discord_.ben, told, button(cards.Act.VERIFY))
    await settled(bot, "delivered", "delivered", "delivered")
    first = (await bot.history.painting_of(await bot.history.find(1))).pictures[0].png
    asked = {(request.kind, request.image, request.prompt) for request in painter.painted[1:]}
    assert asked == {(Kind.EXPLORE, first, ""), (Kind.VERIFY, first, "")}


async def test_one_of_the_priors_draws_is_chosen_and_painted(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    request = await asked(discord_, bot, painter, "draws", prompt="a cat", number=3, seed=2**32 - 1)
    assert (request.kind, request.count, request.seeds) == (Kind.DRAWS, 3, (2**32 - 1, 0, 1))
    card = await result(discord_)
    drawn: tuple[Drawn, ...] = (await bot.history.painting_of(await bot.history.find(1))).draws
    assert labels(card) == [*(f"{place} · {one.score:.3f}" for place, one in enumerate(drawn, start=1)), "Reroll", "Edit prompt", "Info", "Delete"]
    assert drawn[0].score > drawn[2].score and Image.open(io.BytesIO(card.attachments[0].data)).width == 512
    await discord_.press(discord_.ben, card, button(cards.Act.DRAW, index=2))
    await settled(bot, "delivered", "delivered")
    dream = painter.painted[1]
    assert (dream.kind, dream.prompt, dream.prior_seed, dream.candidates, dream.count) == (Kind.DREAM, "a cat", drawn[2].seed, 1, 4)
    told = await answered(discord_, await discord_.press(discord_.ben, results(discord_)[1], button(cards.Act.INFO, 2)))
    assert f"prior_seed: {drawn[2].seed}" in told.content
    await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a cat", "prior_seed": drawn[2].seed})
    await settled(bot, "delivered", "delivered", "delivered")
    assert (painter.painted[2].prior_seed, painter.painted[2].candidates) == (drawn[2].seed, 1)


async def test_a_picture_is_verified_with_what_a_person_handed_in_and_with_nothing_of_others(
    discord_: Loopback, bot: Reverie, painter: ScriptedPainter
) -> None:
    for person, file in ((discord_.ann, CAT), (discord_.ben, DOG)):
        await discord_.command(person, discord_.general, "variations", {"image": file})
    await settled(bot, "delivered", "delivered")
    sources = ", ".join(hash_of(take_in(file)) for file in (CAT, DOG))
    receipt = write_receipt(png((9, 9, 9)), {"seed": 7, "model": "scripted", "sources": sources})
    await discord_.command(discord_.ann, discord_.general, "verify", {"image": receipt})
    await settled(bot, "delivered", "delivered", "delivered")
    assert painter.painted[2].image == receipt and painter.painted[2].ingredients == (Ingredient(take_in(CAT)),)
    await discord_.command(discord_.ann, discord_.general, "verify", {"image": receipt, "source": DOG})
    await settled(bot, *["delivered"] * 4)
    assert painter.painted[3].ingredients == (Ingredient(take_in(CAT)), Ingredient(take_in(DOG)))
    card = results(discord_)[-1]
    [verdict] = [field["value"] for field in card.embeds[0]["fields"] if field["name"] == "Verdict"]
    assert verdict.startswith("It is what its receipt says: pixels differ by rounding only. Channels differ by 2 of 255 at most, 0.25 on average.")
    assert verdict.endswith("Not as it was then: version.")
    assert Image.open(io.BytesIO(card.attachments[0].data)).size == (3 * 256, 256) and labels(card) == ["Info", "Delete"]


async def test_words_that_are_blocked_are_found_in_every_text(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    await choose(bot, discord_, blocked_words=["stupid"])
    for name, options in (
        ("edit", {"image": CAT, "from": "a stupid cat", "to": "a dog"}),
        ("morph", {"from_prompt": "a cat", "to_prompt": "a stupid dog"}),
        ("blend", {"picture_1": CAT, "prompt_1": "stupid"}),
    ):
        message = await answered(discord_, await discord_.command(discord_.ann, discord_.general, name, options))
        assert "does not allow this" in message.content
    await choose(bot, discord_, word_policy="remove")
    await discord_.command(discord_.ann, discord_.general, "morph", {"from_prompt": "a cat", "to_prompt": "a stupid dog"})
    await settled(bot, "delivered")
    assert painter.painted[0].prompt == "a cat → a dog"


async def test_a_variation_goes_as_far_as_is_asked(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    request = await asked(discord_, bot, painter, "variations", image=CAT, strength=0.25, drift=0.5)
    assert (request.strength, request.drift) == (0.25, 0.5)
    told = await answered(discord_, await discord_.press(discord_.ann, await result(discord_), button(cards.Act.INFO)))
    assert "strength: 0.25 drift: 0.5" in told.content
