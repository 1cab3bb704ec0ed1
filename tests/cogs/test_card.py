import asyncio
import re

import pytest

from cogs import _cards as cards
from cogs._client import Reverie
from engine.jobs import Kind
from engine.pictures import write_receipt
from loopback import Loopback, Message
from tests.cogs.browsing import button, labels
from tests.cogs.conftest import FORGOTTEN, Start, answered, asked, choose, dreamt, results, settled
from tests.conftest import ScriptedPainter, png


async def test_one_picture_is_shown_alone_in_its_full_size(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    card = await dreamt(discord_)
    use = await discord_.press(discord_.ben, card, button(cards.Act.ENLARGE, index=2))
    shown = await answered(discord_, use)
    assert (await bot.history.painting_of(await bot.history.find(1))).pictures[2].png == shown.attachments[0].data
    assert "picture 3 of 4" in shown.content and "seed 9" in shown.content and not shown.ephemeral
    assert shown.attachments[0].description == "A picture: a cat"
    assert labels(shown) == ["V3", "Share", "Info"]


async def test_variations_go_back_to_the_picture_that_they_vary(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    card = await dreamt(discord_, count=2)
    await discord_.press(discord_.ben, card, button(cards.Act.VARY, index=1))
    await settled(bot, "delivered", "delivered")
    request = painter.painted[1]
    assert (request.kind, request.count, request.prompt) == (Kind.VARIATION, 2, "a cat")
    assert request.image == (await bot.history.painting_of(await bot.history.find(1))).pictures[1].png
    assert (await bot.history._rows("SELECT parent FROM job ORDER BY id"))[1]["parent"] == 2
    varied = results(discord_)[-1]
    assert f"/{discord_.general.id}/{card.id})" in varied.content and f"<@{discord_.ben.id}>" in varied.content
    assert varied.embeds[0]["description"] == "Variations: a cat"


async def test_reroll_paints_the_same_with_another_seed(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    card = await dreamt(discord_, count=3, steps=9, guidance=2.5, spoiler=True)
    await discord_.press(discord_.ann, card, button(cards.Act.AGAIN))
    await settled(bot, "delivered", "delivered")
    first, second = painter.painted
    assert (second.prompt, second.count, second.steps, second.guidance) == (first.prompt, 3, 9, 2.5) and second.seed != first.seed
    assert results(discord_)[-1].attachments[0].filename.startswith("SPOILER_")


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_prompt_is_edited_in_a_form_also_across_a_restart(
    discord_: Loopback, start: Start, painter: ScriptedPainter, restarted: bool
) -> None:
    async with start():
        card = await dreamt(discord_)
        form = await discord_.press(discord_.ben, card, button(cards.Act.EDIT))
        await discord_.wait_for(lambda: form.modal)
        if not restarted:
            await discord_.submit_modal(discord_.ben, form, {"prompt": "a dog"})
            await discord_.wait_for(lambda: len(results(discord_)) == 2)
    if restarted:
        async with start():
            await discord_.submit_modal(discord_.ben, form, {"prompt": "a dog"})
            await discord_.wait_for(lambda: len(results(discord_)) == 2)
    assert painter.painted[1].prompt == "a dog" and f"<@{discord_.ben.id}>" in results(discord_)[1].content


async def test_buttons_work_after_a_restart(discord_: Loopback, start: Start, painter: ScriptedPainter) -> None:
    async with start():
        card = await dreamt(discord_)
    async with start():
        told = await answered(discord_, await discord_.press(discord_.ben, card, button(cards.Act.INFO)))
        assert "prompt: a cat seed: 7 count: 4 steps: 30 guidance: 1.5" in told.content
        await discord_.press(discord_.ben, card, button(cards.Act.VARY, index=0))
        await discord_.wait_for(lambda: len(results(discord_)) == 2)


async def test_info_is_for_the_presser_alone_pings_nobody_and_is_one_text_to_copy(discord_: Loopback, bot: Reverie) -> None:
    card = await dreamt(discord_, prompt="a `cat` @everyone", steps=30, preset="fast")
    use = await discord_.press(discord_.ben, card, button(cards.Act.INFO))
    told = await answered(discord_, use)
    assert told.ephemeral and told.mentions == [] and not told.mention_everyone
    [command] = re.findall(r"```\n(.*)\n```", told.content)
    assert command == "/dream prompt: a 'cat' @everyone seed: 7 count: 4 steps: 30 guidance: 1.5 preset: fast"
    assert "seeds 7, 8, 9, 10" in told.content
    alone = await answered(discord_, await discord_.press(discord_.ben, card, button(cards.Act.ENLARGE, index=3)))
    told = await answered(discord_, await discord_.press(discord_.ben, alone, button(cards.Act.INFO, index=3)))
    assert "seed: 10 count: 1" in told.content


async def test_only_the_requester_or_a_moderator_deletes_and_hears_whose_it_was(discord_: Loopback, bot: Reverie) -> None:
    mona = discord_.add_user("mona", moderator=True)
    first, second = await dreamt(discord_), await dreamt(discord_)
    refused = await answered(discord_, await discord_.press(discord_.ben, first, button(cards.Act.DELETE)))
    assert refused.ephemeral and f"Only <@{discord_.ann.id}>" in refused.content and not first.deleted
    use = await discord_.press(mona, first, button(cards.Act.DELETE))
    await discord_.wait_for(lambda: first.deleted and use.followups)
    assert use.followups[0].content == f"Deleted. <@{discord_.ann.id}> had asked for it." and use.followups[0].ephemeral
    use = await discord_.press(discord_.ann, second, button(cards.Act.DELETE, number=2))
    await discord_.wait_for(lambda: second.deleted)
    await asyncio.sleep(0.05)
    assert use.followups == []
    rows = await bot.history._rows("SELECT removed_by FROM job ORDER BY id")
    assert [row["removed_by"] for row in rows] == [mona.id, discord_.ann.id]


async def test_a_waiting_and_a_running_job_are_cancelled_from_their_message(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    running = await asked(discord_, painter)
    waiting = await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a dog"})
    await discord_.wait_for(lambda: waiting.message)
    refused = await answered(discord_, await discord_.press(discord_.ben, running.message, button(cards.Act.CANCEL)))
    assert refused.ephemeral and f"<@{discord_.ann.id}>" in refused.content
    await discord_.press(discord_.ann, waiting.message, button(cards.Act.CANCEL, number=2))
    await discord_.wait_for(lambda: waiting.message.content.endswith("Cancelled.") and not waiting.message.components)
    await discord_.press(discord_.add_user("mona", moderator=True), running.message, button(cards.Act.CANCEL))
    await discord_.wait_for(lambda: running.message.content.endswith("Cancelled.") and not running.message.components)
    await settled(bot, "cancelled", "cancelled")
    assert results(discord_) == []


async def test_what_is_done_cannot_be_cancelled(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    use = await asked(discord_, painter)
    progress = use.message
    with_button = progress.components
    painter.hold.set()
    await settled(bot, "delivered")
    stale = Message(progress.id, discord_.general, discord_.bot, components=with_button, render=progress.render)
    told = await answered(discord_, await discord_.press(discord_.ann, stale, button(cards.Act.CANCEL)))
    assert told.content == "There is nothing left to cancel." and told.ephemeral


async def test_pictures_that_are_gone_are_told(discord_: Loopback, bot: Reverie) -> None:
    card = await dreamt(discord_, count=1)
    for path in (bot.history._folder / "pictures").rglob("*.png"):
        path.unlink()
    for act in (cards.Act.ENLARGE, cards.Act.VARY, cards.Act.INFO):
        told = await answered(discord_, await discord_.press(discord_.ben, card, button(act)))
        assert told.content == FORGOTTEN and told.ephemeral


async def test_picture_info_reads_our_messages_and_our_files(discord_: Loopback, bot: Reverie) -> None:
    told = await answered(discord_, await discord_.context_menu(discord_.ben, discord_.general, await dreamt(discord_), "Picture info"))
    assert "seed: 7" in told.content
    with_receipt = write_receipt(png((1, 2, 3)), {"prompt": "a fox", "seed": 3, "tokens": "AAAA" * 170})
    foreign = await discord_.say(discord_.ben, discord_.general, "look", files=[("a.png", with_receipt)])
    use = await discord_.context_menu(discord_.ann, discord_.general, foreign, "Picture info")
    await discord_.wait_for(lambda: use.message and not use.message.thinking)
    assert "prompt: a fox" in use.message.content and use.message.ephemeral
    assert "AAAA" not in use.message.content
    for files in ([("a.png", png((1, 2, 3)))], [("a.png", b"no picture")], []):
        plain = await discord_.say(discord_.ben, discord_.general, "look", files=files)
        use = await discord_.context_menu(discord_.ann, discord_.general, plain, "Picture info")
        await discord_.wait_for(lambda use=use: use.message and not use.message.thinking)
        assert "picture" in use.message.content and "prompt:" not in use.message.content


async def test_what_others_write_is_never_taken_for_our_card(discord_: Loopback, bot: Reverie) -> None:
    card = await dreamt(discord_)
    forged = Message(card.id, discord_.general, discord_.ben, components=card.components, render=card.render)
    use = await discord_.context_menu(discord_.ann, discord_.general, forged, "Picture info")
    assert "I find no picture there" in (await answered(discord_, use)).content


async def test_a_model_without_variations_shows_no_button_for_them_and_refuses_the_command(
    discord_: Loopback, start: Start, painter: ScriptedPainter
) -> None:
    painter.kinds = frozenset({Kind.DREAM})  # type: ignore[assignment]
    async with start() as bot:
        await asyncio.wait_for(bot.worker.ready.wait(), 5)
        card = await dreamt(discord_)
        assert all(label[0] != "V" for label in labels(card))
        use = await discord_.command(discord_.ann, discord_.general, "variations", {"image": png((1, 2, 3))})
        await discord_.wait_for(lambda: use.message and not use.message.thinking)
        assert use.message.content == "The model scripted can't do that."


async def test_repainting_asks_the_model_that_somebody_chose(discord_: Loopback, start: Start, painter: ScriptedPainter) -> None:
    second = ScriptedPainter()
    second.model = "second"
    for able, said in ((True, None), (False, "The model second can't do that.")):
        second.kinds = frozenset(Kind) if able else frozenset({Kind.DREAM})  # type: ignore[assignment]
        painter.kinds = frozenset({Kind.DREAM}) if able else frozenset(Kind)  # type: ignore[assignment]
        async with start(others={"second": second}) as bot:
            await asyncio.wait_for(bot.worker.ready.wait(), 5)
            await choose(bot, discord_, "user", model="second")
            use = await discord_.context_menu(discord_.ann, discord_.general, await dreamt(discord_), "Inpaint…")
            if said is None:
                await discord_.wait_for(lambda use=use: use.modal is not None)
            else:
                assert (await answered(discord_, use)).content == said


async def test_buttons_are_those_of_the_model_that_painted_a_picture(discord_: Loopback, start: Start, painter: ScriptedPainter) -> None:
    second = ScriptedPainter()
    second.model, second.kinds = "second", frozenset({Kind.DREAM})  # type: ignore[assignment]
    async with start(others={"second": second}) as bot:
        await asyncio.wait_for(bot.worker.ready.wait(), 5)
        await choose(bot, discord_, "user", model="second")
        card = await dreamt(discord_)
        assert second.painted and labels(card) == [*(f"U{place}" for place in range(1, 5)), "Reroll", "Edit prompt", "Info", "Share", "Delete"]
        assert labels(await answered(discord_, await discord_.press(discord_.ann, card, button(cards.Act.ENLARGE, index=2)))) == ["Share", "Info"]
        brought = await answered(discord_, await discord_.command(discord_.ann, discord_.general, "show", {"number": 1}))
        assert labels(brought) == labels(card)
        refused = await answered(discord_, await discord_.context_menu(discord_.ann, discord_.general, card, "Variations"))
        assert refused.content == "The model second can't do that." and refused.ephemeral
    # And the other way round.
    painter.kinds, second.kinds = second.kinds, painter.kinds  # type: ignore[assignment]
    async with start(others={"second": second}) as bot:
        await asyncio.wait_for(bot.worker.ready.wait(), 5)
        asked_which = await answered(discord_, await discord_.context_menu(discord_.ann, discord_.general, card, "Variations"))
        assert labels(asked_which) == ["V1", "V2", "V3", "V4"]


async def test_views_and_forms_are_not_kept_in_memory(discord_: Loopback, bot: Reverie) -> None:
    card = await dreamt(discord_)
    for _ in range(3):
        await answered(discord_, await discord_.press(discord_.ben, card, button(cards.Act.ENLARGE)))
        use = await discord_.press(discord_.ben, card, button(cards.Act.EDIT))
        await discord_.wait_for(lambda use=use: use.modal)
    store = bot._connection._view_store
    assert not store._views and not store._modals and not store._synced_message_views


async def test_where_a_person_brings_the_bot_along_it_answers_by_the_interaction_alone(
    discord_: Loopback, bot: Reverie, painter: ScriptedPainter
) -> None:
    for away in (discord_.add_foreign_channel("away"), discord_.add_foreign_channel("group", guild=False)):
        use = await discord_.command(discord_.ann, away, "dream", {"prompt": "a cat"})
        await discord_.wait_for(lambda away=away: results(discord_, away))
        [card] = results(discord_, away)
        assert card in use.followups
        await discord_.press(
            discord_.ann, card, next(part["custom_id"] for row in card.components for part in row["components"] if part["label"] == "V1")
        )
        await discord_.wait_for(lambda away=away: len(results(discord_, away)) == 2)
        refused = [request for request in discord_.requests if request.status == 403]
        assert refused == []


async def test_in_threads_everything_works_with_the_threads_own_permission(discord_: Loopback, bot: Reverie) -> None:
    thread = discord_.add_thread(discord_.general, "side")
    await discord_.command(discord_.ann, thread, "dream", {"prompt": "a cat"})
    await discord_.wait_for(lambda: results(discord_, thread))
    discord_.general.deny(1 << 38)
    use = await discord_.command(discord_.ann, thread, "dream", {"prompt": "a cat"})
    assert "Send Messages In Threads" in (await answered(discord_, use)).content
