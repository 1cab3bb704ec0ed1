import asyncio

import discord
import pytest

from cogs import _cards as cards
from cogs._client import Reverie
from engine.queue import Limits
from loopback import Loopback
from tests.cogs.browsing import button
from tests.cogs.conftest import Start, answered, choose, dreamt, result, results, settled, states
from tests.conftest import ScriptedPainter


async def test_a_prompt_is_acknowledged_and_its_grid_is_posted_as_a_message_of_the_channel(discord_: Loopback, bot: Reverie) -> None:
    interaction = await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a cat on red", "count": 3, "seed": 7})
    await asyncio.wait_for(interaction.acknowledged.wait(), 1)
    assert interaction.acknowledged_after_s < 1
    message = await result(discord_)
    assert message is not interaction.message
    assert f"<@{discord_.ann.id}>" in message.content
    [embed] = message.embeds
    assert embed["description"] == "a cat on red"
    fields = {field["name"]: field["value"] for field in embed["fields"]}
    assert (fields["Seed"], fields["Model"], fields["Steps"], fields["Guidance"], fields["Seconds"]) == ("7", "scripted", "30", "1.5", "0.5")
    [file] = message.attachments
    assert file.filename == "reverie-1.png" and file.data.startswith(b"\x89PNG")
    assert (file.width, file.height) == (512, 512)
    assert "a cat on red" in file.description
    await settled(bot, "delivered")
    await discord_.wait_for(lambda: len(discord_.general.messages) == 1)


async def test_the_requester_and_nobody_else_is_pinged(discord_: Loopback, bot: Reverie) -> None:
    prompt = f"@everyone @here <@{discord_.ben.id}> <@&1> **bold** `code`"
    await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": prompt})
    message = await result(discord_)
    posts = [request.payload for request in discord_.requests if request.method in ("POST", "PATCH") and "messages" in request.path]
    assert all(post["allowed_mentions"].get("users", []) in ([], [str(discord_.ann.id)], [discord_.ann.id]) for post in posts)
    assert all(set(post["allowed_mentions"].get("parse", [])) == set() for post in posts)
    assert r"\*\*bold\*\*" in message.embeds[0]["description"]


async def test_words_never_seen_are_named_beside_those_that_are_known(discord_: Loopback, bot: Reverie) -> None:
    await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a cat dragon"})
    message = await result(discord_)
    fields = {field["name"]: field["value"] for field in message.embeds[0]["fields"]}
    assert (fields["Words I was never shown"], fields["Words I know"]) == ("dragon", "cat, on, a, red")


async def test_words_lists_what_the_model_knows_to_the_asker_alone(discord_: Loopback, bot: Reverie) -> None:
    await asyncio.wait_for(bot.worker.ready.wait(), 5)
    interaction = await discord_.command(discord_.ann, discord_.general, "words")
    await discord_.wait_for(lambda: interaction.message)
    assert "cat, on, a, red" in interaction.message.content
    assert interaction.message.flags & 64


async def test_words_says_so_while_the_model_is_being_loaded(discord_: Loopback, start: Start) -> None:
    async with start(working=False):
        interaction = await discord_.command(discord_.ann, discord_.general, "words")
        await discord_.wait_for(lambda: interaction.message)
        assert "still being loaded" in interaction.message.content


async def test_a_spoiler_is_hidden(discord_: Loopback, bot: Reverie) -> None:
    await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a cat", "spoiler": True})
    message = await result(discord_)
    assert message.attachments[0].filename == "SPOILER_reverie-1.png"


def named(name: str) -> ScriptedPainter:
    """Return a model of a name."""
    painter = ScriptedPainter()
    painter.model = name
    return painter


async def offered(server: Loopback, typed: str = "") -> list[str]:
    """Return the models that are offered while somebody types."""
    choices = await server.autocomplete(server.ann, server.general, "dream", {"prompt": "a cat", "model": typed}, "model")
    assert all(choice["name"] == choice["value"] for choice in choices)
    return [choice["value"] for choice in choices]


async def test_models_are_offered_by_what_is_typed(discord_: Loopback, start: Start) -> None:
    async with start(others={name: named(name) for name in ("foxes", "Box", "cats")}) as bot:
        await bot.worker.ready.wait()
        assert await offered(discord_) == ["scripted", "foxes", "Box", "cats"]
        assert await offered(discord_, "oX") == ["foxes", "Box"]
        assert await offered(discord_, "dogs") == []
    async with start(others={f"m{number:02}": named("m") for number in range(30)}) as bot:
        await bot.worker.ready.wait()
        assert await offered(discord_) == ["scripted", *(f"m{number:02}" for number in range(24))]
        assert await offered(discord_, "m2") == [f"m{number:02}" for number in range(20, 30)]


async def test_the_model_that_is_asked_for_paints_and_the_usual_one_where_none_is(discord_: Loopback, start: Start, painter: ScriptedPainter) -> None:
    foxes, cats = named("foxes"), named("cats")
    async with start(others={"foxes": foxes, "cats": cats}) as bot:
        await bot.worker.ready.wait()
        card = await dreamt(discord_, model="foxes")
        assert card.embeds[0]["fields"][1]["value"] == "foxes" and "Note" not in [field["name"] for field in card.embeds[0]["fields"]]
        await choose(bot, discord_, "user", model="cats")
        assert (await dreamt(discord_)).embeds[0]["fields"][1]["value"] == "cats"
        # The usual one has a name too.
        assert (await dreamt(discord_, model="scripted")).embeds[0]["fields"][1]["value"] == "scripted"
        assert [len(one.painted) for one in (painter, foxes, cats)] == [1, 1, 1]


async def test_a_model_that_comes_while_the_bot_runs_can_be_asked_for_at_once(discord_: Loopback, start: Start) -> None:
    others: dict[str, ScriptedPainter] = {}
    async with start(others=others) as bot:
        await bot.worker.ready.wait()
        assert await offered(discord_) == ["scripted"]
        others["foxes"] = named("foxes")
        assert await offered(discord_) == ["scripted", "foxes"]
        assert (await dreamt(discord_, model="foxes")).embeds[0]["fields"][1]["value"] == "foxes"


async def test_a_model_that_is_gone_before_its_job_begins_is_stood_in_for_and_the_card_says_so(
    discord_: Loopback, start: Start, painter: ScriptedPainter
) -> None:
    others = {"red_foxes": named("red_foxes")}
    async with start(others=others) as bot:
        await bot.worker.ready.wait()
        painter.hold.clear()
        await answered(discord_, await discord_.command(discord_.ben, discord_.general, "dream", {"prompt": "a dog"}))
        await answered(discord_, await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a cat", "model": "red_foxes"}))
        del others["red_foxes"]
        painter.hold.set()
        await settled(bot, "delivered", "delivered")
        first, second = ({field["name"]: field["value"] for field in card.embeds[0]["fields"]} for card in results(discord_))
        assert "Note" not in first
        assert second["Model"] == "scripted" and second["Note"] == r"The model red\_foxes is gone; scripted painted this."


async def test_an_unknown_model_is_refused_with_those_that_there_are(discord_: Loopback, start: Start) -> None:
    async with start(others={"foxes": named("foxes")}) as bot:
        await bot.worker.ready.wait()
        for unknown in ("fox", "Foxes", " ", "@everyone"):
            use = await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a cat", "model": unknown})
            told = await answered(discord_, use)
            assert told.content == "The model must be one of these: scripted, foxes." and told.ephemeral
        assert await states(bot) == []
    async with start(others={f"{number:03}{'x' * 97}": named("m") for number in range(50)}) as bot:
        await bot.worker.ready.wait()
        told = await answered(discord_, await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a cat", "model": "fox"}))
        assert told.content.startswith("The model must be one of these: scripted, 000x") and told.content.endswith("….")


async def test_while_the_usual_model_is_being_loaded_others_can_be_asked_for(discord_: Loopback, start: Start) -> None:
    async with start(others={"foxes": named("foxes")}, working=False) as bot:
        assert await offered(discord_) == ["foxes"]
        told = await answered(discord_, await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a cat", "model": "scripted"}))
        assert "still being loaded" in told.content and told.ephemeral and await states(bot) == []
        await answered(discord_, await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a cat", "model": "foxes"}))
        assert await states(bot) == ["waiting"]


async def test_pictures_go_on_in_their_neighbours_where_the_model_can_do_that(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    await asyncio.wait_for(bot.worker.ready.wait(), 5)
    use = await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a cat", "seamless": True})
    assert "The model scripted can't do that." in (await answered(discord_, use)).content
    painter.can_be_seamless = True
    await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a cat", "seamless": True})
    card = await result(discord_)
    assert [request.seamless for request in painter.painted] == [True]
    told = await answered(discord_, await discord_.press(discord_.ann, card, button(cards.Act.INFO)))
    assert "seamless: True" in told.content


async def test_one_person_with_many_jobs_does_not_delay_another(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    painter.hold.clear()
    for n in range(4):
        await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": f"ann {n}"})
    await discord_.command(discord_.ben, discord_.general, "dream", {"prompt": "ben"})
    await discord_.wait_for(lambda: bot.queue.waiting == 4)
    painter.hold.set()
    await discord_.wait_for(lambda: len(results(discord_)) == 5)
    assert [request.prompt for request in painter.painted][:2] == ["ann 0", "ben"]


@pytest.mark.parametrize(
    ("permission", "name"),
    [("attach_files", "Attach Files"), ("send_messages", "Send Messages"), ("embed_links", "Embed Links")],
)
async def test_a_missing_permission_is_named_before_anything_is_queued(discord_: Loopback, bot: Reverie, permission: str, name: str) -> None:
    discord_.general.deny(discord.Permissions(**{permission: True}).value)
    interaction = await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a cat"})
    await discord_.wait_for(lambda: interaction.message)
    assert name in interaction.message.content and interaction.message.flags & 64
    assert await states(bot) == []


async def test_an_empty_prompt_is_refused_in_one_sentence(discord_: Loopback, bot: Reverie) -> None:
    interaction = await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "   "})
    await discord_.wait_for(lambda: interaction.message)
    assert interaction.message.content == "The prompt must hold at least one word."
    assert interaction.message.flags & 64 and await states(bot) == []


async def test_more_jobs_of_one_person_than_are_in_line_wait_and_are_painted(discord_: Loopback, start: Start, painter: ScriptedPainter) -> None:
    painter.hold.clear()
    async with start(limits=Limits(waiting=9, per_user=1, per_server=1000)) as bot:
        for n in range(3):
            await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": f"ann {n}"})
        await discord_.wait_for(lambda: bot.queue.waiting == 2)
        painter.hold.set()
        await discord_.wait_for(lambda: len(results(discord_)) == 3)


async def test_nobody_fills_the_queue_alone(discord_: Loopback, start: Start, painter: ScriptedPainter) -> None:
    painter.hold.clear()
    async with start(limits=Limits(waiting=6, per_user=1, per_server=1000)) as bot:
        told = []
        for user in [discord_.ann] * 5 + [discord_.ben]:
            interaction = await discord_.command(user, discord_.general, "dream", {"prompt": "a cat"})
            await discord_.wait_for(lambda use=interaction: use.message)
            told.append("You already have" in interaction.message.content and bool(interaction.message.flags & 64))
        assert told[-2:] == [True, False] and sum(told) <= 2
        painter.hold.set()
        await settled(bot, *["delivered"] * told.count(False))


async def test_an_interaction_that_is_replayed_is_one_job(discord_: Loopback, bot: Reverie) -> None:
    interaction = await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a cat"})
    discord_.world.emit("interaction", interaction)
    await settled(bot, "delivered")
    await discord_.wait_for(lambda: len(discord_.general.messages) == 1)
    assert len(results(discord_)) == 1


async def test_in_direct_messages_discord_does_not_name_every_permission(discord_: Loopback, bot: Reverie) -> None:
    channel = discord_.dm(discord_.ann)
    await discord_.command(discord_.ann, channel, "dream", {"prompt": "a cat"})
    await settled(bot, "delivered")
    assert len(results(discord_, channel)) == 1


async def test_a_link_in_a_prompt_is_not_unfolded(discord_: Loopback, bot: Reverie) -> None:
    interaction = await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "https://example.com/a.png"})
    await discord_.wait_for(lambda: interaction.message)
    assert interaction.message.flags & 4


async def test_who_cannot_be_answered_in_time_gets_the_pictures_all_the_same(discord_: Loopback, bot: Reverie) -> None:
    discord_.fail_next(1, status=404, path="/interactions/.*/callback")
    interaction = await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a cat"})
    await settled(bot, "delivered")
    assert interaction.message is None and len(results(discord_)) == 1


async def test_every_request_keeps_to_discords_own_document(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    if discord_.contract is None:
        pytest.skip("Discord's OpenAPI document is not here: put its path into DISCORD_OPENAPI")
    painter.hold.clear()
    interaction = await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a cat", "spoiler": True})
    await discord_.wait_for(lambda: interaction.message and interaction.message.attachments)
    painter.hold.set()
    await result(discord_)
    assert {request.method for request in discord_.requests} >= {"GET", "PUT", "POST", "PATCH"}
    assert discord_.violations == []
