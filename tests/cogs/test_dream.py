import asyncio

import discord
import pytest

from cogs._client import Reverie
from engine.queue import Limits
from loopback import Loopback
from tests.cogs.conftest import Start, result, results, settled, states
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
