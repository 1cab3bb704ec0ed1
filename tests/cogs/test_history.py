import asyncio
import re
import sys
from io import BytesIO

import discord
import numpy as np
import pytest
from PIL import Image

from cogs import _archives as archives_module
from cogs import _cards as cards
from cogs._client import Reverie
from engine.jobs import Job
from loopback import Channel, Interaction, Loopback, Message, User
from tests.cogs.browsing import (
    archives,
    button,
    labels,
    link,
    listed,
    noisy,
    painted,
    part,
    pressed,
    refused,
    similar,
    told,
    turned,
    unpacked,
    used,
    varied,
)
from tests.cogs.conftest import FORGOTTEN, Start, choose, result, settled
from tests.conftest import ScriptedPainter, noise, png

ONLY_IN_SERVERS = "That is only there in servers that I am a member of."
NOTHING = "Nothing found."


async def history(server: Loopback, user: User, channel: Channel | None = None, **options: str) -> Message:
    return await told(server, user, channel or server.general, "history", **options)


async def removed(bot: Reverie, job: Job) -> None:
    await bot.remove(job, job.origin.user_id)


async def withheld(bot: Reverie, job: Job) -> None:
    """Let a result be withheld, as it is before it is delivered."""
    await bot.history.withheld(job)
    await bot.album.forget(await bot.history.picture_ids(job))


def lose(bot: Reverie, job: Job, position: int = 0) -> None:
    (bot.history._folder / "pictures" / str(job.id) / f"{position}.png").unlink()


# Pages.


async def test_what_was_painted_is_listed_with_who_asked_when_and_the_way_there(discord_: Loopback, bot: Reverie) -> None:
    await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a *cat*", "count": 2, "seed": 200})
    card = await result(discord_)
    await settled(bot, "delivered")
    page = await history(discord_, discord_.ann)
    [embed] = page.embeds
    job = await bot.history.find(1)
    assert page.ephemeral and page.content == "Page 1" and labels(page) == ["#1"]
    assert (embed["title"], embed["url"]) == ("#1", link(job, card.id))
    assert embed["description"] == f"a \\*cat\\*\n<@{discord_.ann.id}> · <t:{int(job.created_at)}:R>"
    [file] = page.attachments
    assert embed["thumbnail"]["url"] == f"attachment://{file.filename}" and file.description == "A grid of 2 pictures: a *cat*"
    small = Image.open(BytesIO(file.data))
    assert small.size == (160, 80) and [small.getpixel((x, 40)) for x in (40, 120)] == [(200, 100, 50), (201, 100, 50)]


async def test_pages_are_turned_and_stay_the_same_while_more_is_painted(discord_: Loopback, bot: Reverie) -> None:
    for _ in range(12):
        await painted(bot, discord_.ann, discord_.general)
    page = await history(discord_, discord_.ann)
    assert listed(page) == [12, 11, 10, 9, 8] and labels(page)[5:] == ["Newer", "Older"]
    assert (part(page, "Newer")["disabled"], part(page, "Older")["disabled"]) == (True, False)
    assert [embed["thumbnail"]["url"] for embed in page.embeds] == [f"attachment://thumbnail-{number}.png" for number in (12, 11, 10, 9, 8)]
    for _ in range(3):
        await painted(bot, discord_.ann, discord_.general)
    await turned(discord_, discord_.ann, page, "Older")
    assert page.content == "Page 2" and listed(page) == [7, 6, 5, 4, 3] and len(page.attachments) == 5
    await turned(discord_, discord_.ann, page, "Older")
    assert page.content == "Page 3" and listed(page) == [2, 1] and part(page, "Older")["disabled"]
    await turned(discord_, discord_.ann, page, "Newer")
    await turned(discord_, discord_.ann, page, "Newer")
    assert page.content == "Page 1" and listed(page) == [12, 11, 10, 9, 8]
    assert listed(await history(discord_, discord_.ann))[0] == 15


async def test_a_page_that_is_full_has_no_other_one_to_turn_to(discord_: Loopback, bot: Reverie) -> None:
    for _ in range(5):
        await painted(bot, discord_.ann, discord_.general)
    assert labels(await history(discord_, discord_.ann)) == ["#5", "#4", "#3", "#2", "#1"]


async def test_words_are_looked_for_on_every_page_and_an_empty_page_can_be_left(discord_: Loopback, bot: Reverie) -> None:
    cats = [await painted(bot, discord_.ann, discord_.general, "a red cat") for _ in range(6)]
    for prompt in ("a dog", "a red house", "a cattle"):
        await painted(bot, discord_.ann, discord_.general, prompt)
    assert listed(await history(discord_, discord_.ann, words="red cat")) == [6, 5, 4, 3, 2]
    assert listed(await history(discord_, discord_.ann, words="ca"))[:2] == [9, 6]
    assert (await history(discord_, discord_.ann, words="fox")).content == NOTHING
    page = await history(discord_, discord_.ann, words="RED ca")
    await painted(bot, discord_.ann, discord_.general, "a red cat")
    for job in cats[1:]:
        await removed(bot, job)
    await turned(discord_, discord_.ann, page, "Older")
    assert page.content == NOTHING and not page.embeds and not page.attachments and labels(page) == ["Newer", "Older"]
    await turned(discord_, discord_.ann, page, "Newer")
    assert listed(page) == [1]


async def test_before_anything_was_painted_nothing_is_found(discord_: Loopback, bot: Reverie) -> None:
    for whose in ("mine", "server"):
        page = await history(discord_, discord_.ann, whose=whose)
        assert page.content == NOTHING and not page.components and not page.embeds
    await painted(bot, discord_.ben, discord_.general)
    assert (await history(discord_, discord_.ann)).content == NOTHING


async def test_what_is_under_a_spoiler_is_veiled_and_lost_files_leave_the_rest(discord_: Loopback, bot: Reverie) -> None:
    await painted(bot, discord_.ann, discord_.general, "a red cat")
    await painted(bot, discord_.ann, discord_.general, spoiler=True)
    lose(bot, await painted(bot, discord_.ann, discord_.general, count=2), 1)
    page = await history(discord_, discord_.ann)
    assert listed(page) == [3, 2, 1] and "thumbnail" not in page.embeds[0]
    veiled, bare = (np.asarray(Image.open(BytesIO(file.data)).convert("RGB")) for file in page.attachments)
    assert [file.filename for file in page.attachments] == ["thumbnail-2.png", "thumbnail-1.png"]
    assert tuple(bare[80, 80]) == (7, 100, 50) and tuple(veiled[5, 5]) == (25, 72, 49)


@pytest.mark.parametrize("policy", ["spoiler", "withhold"])
async def test_what_a_server_does_not_want_to_see_is_veiled_there_and_nowhere_else(
    discord_: Loopback, bot: Reverie, painter: ScriptedPainter, policy: str
) -> None:
    """It was painted before there was a rule, or elsewhere."""
    for prompt in ("a cat", "a snake"):
        await painted(bot, discord_.ann, discord_.general, prompt, source=1 if prompt == "a snake" else None)
    await choose(bot, discord_, blocked_concepts="snake", concept_policy=policy)
    adult = discord_.add_channel("adult", nsfw=True)
    for place, veiled in ((discord_.general, True), (discord_.dm(discord_.ann), False), (adult, False)):
        page = await history(discord_, discord_.ann, place)
        assert listed(page) == [2, 1]
        corners = [Image.open(BytesIO(file.data)).convert("RGB").getpixel((5, 5)) for file in page.attachments]
        assert [corner != (7, 100, 50) for corner in corners] == [veiled, False], place.name
    sheet = (await told(discord_, discord_.ann, discord_.general, "similar", number=1)).attachments[0]
    assert Image.open(BytesIO(sheet.data)).convert("RGB").getpixel((20, 20)) != (7, 100, 50)
    shown = await told(discord_, discord_.ann, discord_.general, "show", number=1)
    info = await pressed(discord_, discord_.ann, shown, button(cards.Act.INFO, 1))
    tree = (await pressed(discord_, discord_.ann, info, button(cards.Act.FAMILY, 1))).attachments[0]
    drawn = Image.open(BytesIO(tree.data)).convert("RGB")
    assert drawn.getpixel((20, 20)) == (7, 100, 50) and drawn.getpixel((8 + 44 + 8, 8 + 80 + 8)) != (7, 100, 50)


async def test_a_result_without_a_message_has_no_link(discord_: Loopback, bot: Reverie) -> None:
    job = await painted(bot, discord_.ann, discord_.general)
    await bot.history.delivered(job, 0)
    assert "url" not in (await history(discord_, discord_.ann)).embeds[0]


async def test_a_list_with_the_longest_prompts_is_taken_by_discord(discord_: Loopback, bot: Reverie) -> None:
    for _ in range(6):
        await painted(bot, discord_.ann, discord_.general, "_*" * 500, count=9)
    page = await history(discord_, discord_.ann)
    assert listed(page) == [6, 5, 4, 3, 2]
    info = await pressed(discord_, discord_.ann, await told(discord_, discord_.ann, discord_.general, "show", number=6), button(cards.Act.INFO, 6))
    alike = await pressed(discord_, discord_.ann, info, button(cards.Act.SIMILAR, 6))
    assert similar(alike) == [1, 2, 3, 4, 5]


# Who may see what.


async def everywhere(server: Loopback, bot: Reverie) -> dict[str, Job]:
    """Let Ann and Ben have painted in all kinds of places, of which Ben does not see some."""
    hidden, adult, quiet = server.add_channel("hidden"), server.add_channel("adult", nsfw=True), server.add_channel("quiet")
    places = {
        "general": server.general,
        "thread": server.add_thread(server.general, "side"),
        "private": server.add_thread(server.general, "private"),
        "hidden": hidden,
        "hidden thread": server.add_thread(hidden, "below"),
        "adult": adult,
        "quiet": quiet,
        "away": server.add_foreign_channel("away"),
        "dm": server.dm(server.ann),
    }
    hidden.hide_from(server.ben)
    quiet.hide_from(server.ann)
    found = {name: await painted(bot, server.ann, place, "a cat", seed=number) for number, (name, place) in enumerate(places.items())}
    await server.wait_for(lambda: all(bot.get_channel(places[name].id) for name in ("thread", "private", "hidden thread")))
    await server.wait_for(lambda: hidden.id in {place.id for place in bot.guilds[0].channels if place.overwrites})
    # The small Discord knows public threads only.
    bot.get_channel(places["private"].id)._type = discord.ChannelType.private_thread  # type: ignore[union-attr]
    return found


def names(found: dict[str, Job], numbers: list[int]) -> set[str]:
    return {name for name, job in found.items() if job.id in numbers}


async def of_server(server: Loopback, user: User, channel: Channel, found: dict[str, Job], whose: str = "server") -> set[str]:
    """Return where the results were made that are listed, over all pages."""
    page = await history(server, user, channel, whose=whose)
    numbers = listed(page)
    while "Older" in labels(page) and not part(page, "Older").get("disabled"):
        await turned(server, user, page, "Older")
        numbers += listed(page)
    assert len(set(numbers)) == len(numbers)
    return names(found, numbers)


async def test_of_the_servers_results_everybody_is_shown_those_of_channels_that_they_may_read(discord_: Loopback, bot: Reverie) -> None:
    found = await everywhere(discord_, bot)
    channels = {name: discord_.world.channels[job.origin.channel_id] for name, job in found.items()}
    carla = discord_.add_user("carla")
    assert await of_server(discord_, discord_.ben, discord_.general, found) == {"general", "thread", "quiet"}
    assert await of_server(discord_, discord_.ann, discord_.general, found) == {"general", "thread", "hidden", "hidden thread"}
    assert await of_server(discord_, carla, channels["hidden"], found) == {"general", "thread", "hidden", "hidden thread", "quiet"}
    assert await of_server(discord_, carla, channels["private"], found) == {"general", "thread", "private", "hidden", "hidden thread", "quiet"}
    assert await of_server(discord_, discord_.ben, channels["adult"], found) == {"general", "thread", "quiet", "adult"}
    # The owner sees everything, but for threads that the bot cannot tell whether they are in, and other places.
    assert await of_server(discord_, discord_.olga, discord_.general, found) == {"general", "thread", "hidden", "hidden thread", "quiet"}


async def test_ones_own_results_are_found_everywhere_but_age_restricted_ones(discord_: Loopback, bot: Reverie) -> None:
    found = await everywhere(discord_, bot)
    adult = discord_.world.channels[found["adult"].origin.channel_id]
    everything = set(found)
    for place, seen in (
        (discord_.general, everything - {"adult"}),
        (adult, everything),
        (discord_.add_thread(adult, "below"), everything),
        (discord_.dm(discord_.ann), everything),
        (discord_.add_foreign_channel("far"), everything - {"adult"}),
        (discord_.add_foreign_channel("group", guild=False), everything - {"adult"}),
    ):
        assert await of_server(discord_, discord_.ann, place, found, "mine") == seen, place.name


@pytest.mark.parametrize("place", ["dm", "away", "group"])
async def test_outside_of_servers_there_are_only_ones_own(discord_: Loopback, bot: Reverie, place: str) -> None:
    channel = discord_.dm(discord_.ann) if place == "dm" else discord_.add_foreign_channel(place, guild=place == "away")
    await painted(bot, discord_.ben, discord_.general)
    # In a server that the bot was only brought to, what others painted there is not for everybody either.
    await painted(bot, discord_.ben, channel)
    mine = await painted(bot, discord_.ann, discord_.general)
    other = await painted(bot, discord_.ann, discord_.general)
    for name, options in (("history", {}), ("similar", {"number": mine.id})):
        assert (await told(discord_, discord_.ann, channel, name, **options, whose="server")).content == ONLY_IN_SERVERS
    assert listed(await history(discord_, discord_.ann, channel)) == [other.id, mine.id]
    alike = await told(discord_, discord_.ann, channel, "similar", number=mine.id)
    assert similar(alike) == [other.id]


async def test_what_another_server_has_is_not_shown(discord_: Loopback, bot: Reverie) -> None:
    here = await painted(bot, discord_.ben, discord_.general)
    away = await painted(bot, discord_.ben, discord_.general, guild_id=77)
    same_channel = await painted(bot, discord_.ben, discord_.add_foreign_channel("away"))
    assert listed(await history(discord_, discord_.ann, whose="server")) == [here.id]
    shown = await told(discord_, discord_.ann, discord_.general, "show", number=same_channel.id)
    assert shown.content == FORGOTTEN
    assert similar(await told(discord_, discord_.ann, discord_.general, "similar", image=png((1, 2, 3)), whose="server")) == [here.id]
    assert away.id not in listed(await history(discord_, discord_.ann, whose="server", words="cat"))


async def test_somebody_elses_page_is_not_turned_and_one_of_another_day_neither(discord_: Loopback, bot: Reverie) -> None:
    for _ in range(6):
        await painted(bot, discord_.ann, discord_.general)
    page = await history(discord_, discord_.ann)
    forged = Message(page.id, discord_.general, discord_.bot, components=page.components, render=page.render)
    older = part(page, "Older")["custom_id"]
    assert await refused(discord_, discord_.ben, forged, older) == FORGOTTEN
    # A number that is a draft of one's own, but of another kind.
    number = await bot.history.add_draft(discord_.ann.id, {"pair": [1, 2]})
    other = button(cards.Act.PAGE, number)
    forged.components = [{"type": 1, "id": 1, "components": [part(page, "Older") | {"custom_id": other}]}]
    assert await refused(discord_, discord_.ann, forged, other) == FORGOTTEN
    await bot.history.database.change("UPDATE draft SET created_at = created_at - 86401")
    await history(discord_, discord_.ben)
    assert await refused(discord_, discord_.ann, page, older) == FORGOTTEN


async def test_a_page_shows_what_may_be_seen_when_it_is_turned(discord_: Loopback, bot: Reverie) -> None:
    side = discord_.add_channel("side")
    for place in (side, discord_.general):
        for _ in range(5):
            await painted(bot, discord_.ann, place)
    page = await history(discord_, discord_.ben, whose="server")
    side.hide_from(discord_.ben)
    await discord_.wait_for(lambda: bot.get_channel(side.id).overwrites)
    await turned(discord_, discord_.ben, page, "Older")
    assert page.content == NOTHING and not page.embeds


@pytest.mark.parametrize("gone", [removed, withheld])
async def test_what_is_deleted_or_withheld_is_nowhere(discord_: Loopback, bot: Reverie, gone: object) -> None:
    first = await painted(bot, discord_.ann, discord_.general)
    job = await painted(bot, discord_.ann, discord_.general, source=first.id)
    last = await painted(bot, discord_.ann, discord_.general, source=job.id)
    before = await told(discord_, discord_.ann, discord_.general, "similar", number=job.id)
    info = await pressed(discord_, discord_.ann, await told(discord_, discord_.ann, discord_.general, "show", number=2), button(cards.Act.INFO, 2))
    assert similar(before) == [1, 3]
    await gone(bot, job)  # type: ignore[operator]
    for user in (discord_.ann, discord_.ben):
        for options in ({"whose": "server"}, {"whose": "server", "words": "cat"}):
            assert listed(await history(discord_, user, **options)) == [3, 1]
        assert similar(await told(discord_, user, discord_.general, "similar", number=1)) == [3]
        for name in ("show", "similar"):
            assert (await told(discord_, user, discord_.general, name, number=2)).content == FORGOTTEN
        assert (await told(discord_, user, discord_.general, "download", number=2)).content == NOTHING
    assert listed(await history(discord_, discord_.ann)) == [3, 1]
    use = await used(discord_, discord_.ann, discord_.general, "download")
    facts, files = unpacked(await archives(discord_, use, 1))
    assert [fact["number"] for fact in facts] == [3, 1] and set(files) == {"pictures/3/0.png", "pictures/1/0.png"}
    family = await pressed(discord_, discord_.ann, info, button(cards.Act.FAMILY, 2))
    assert "#2" not in family.embeds[0]["description"] and [line[:6] for line in family_lines(family)] == [
        f"**[#{first.id}]",
        f"└ **[#{last.id}]"[:6],
    ]
    for act in (cards.Act.SIMILAR, cards.Act.DOWNLOAD):
        assert (await pressed(discord_, discord_.ann, info, button(act, 2))).content in (FORGOTTEN, NOTHING)


# One result.


async def test_a_result_of_another_channel_is_brought_to_who_may_read_it(discord_: Loopback, bot: Reverie) -> None:
    found = await everywhere(discord_, bot)
    channels = {name: discord_.world.channels[job.origin.channel_id] for name, job in found.items()}

    async def brought(user: User, channel: Channel) -> set[str]:
        seen = set()
        for name, job in found.items():
            shown = await told(discord_, user, channel, "show", number=job.id)
            if shown.content != FORGOTTEN:
                assert [file.data for file in shown.attachments] == [png((job.request.seed, 100, 50))] and shown.embeds
                seen.add(name)
        return seen

    assert await brought(discord_.ben, discord_.general) == {"general", "thread", "quiet"}
    assert await brought(discord_.ben, channels["adult"]) == {"general", "thread", "quiet", "adult"}
    assert await brought(discord_.ben, discord_.dm(discord_.ben)) == set()
    assert await brought(discord_.ben, channels["away"]) == {"away"}
    assert await brought(discord_.ann, discord_.general) == set(found) - {"adult"}


async def test_the_buttons_of_a_list_bring_results(discord_: Loopback, bot: Reverie) -> None:
    for seed in (1, 2, 3):
        await painted(bot, discord_.ben, discord_.general, seed=seed)
    page = await history(discord_, discord_.ann, whose="server")
    shown = await pressed(discord_, discord_.ann, page, part(page, "#2")["custom_id"])
    assert shown.attachments[0].data == png((2, 100, 50)) and shown is not page and listed(page) == [3, 2, 1]
    await removed(bot, await bot.history.find(2))
    assert (await pressed(discord_, discord_.ann, page, part(page, "#2")["custom_id"])).content == FORGOTTEN


# Likeness.


async def test_pictures_that_look_alike_are_found_by_number_and_picture(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    cat = await painted(bot, discord_.ann, discord_.general, "a cat")
    dog = await painted(bot, discord_.ben, discord_.general, "a dog")
    other_cat = await painted(bot, discord_.ben, discord_.general, "a cat", count=2, spoiler=True)
    found = await told(discord_, discord_.ann, discord_.general, "similar", number=cat.id, whose="server")
    [embed], [sheet] = found.embeds, found.attachments
    assert similar(found) == [other_cat.id, dog.id] and embed["title"] == "Similar pictures"
    first, second = embed["description"].splitlines()
    assert first == f"**[#{other_cat.id}]({link(other_cat)})** a cat · <@{discord_.ben.id}> · 100 %"
    assert re.fullmatch(rf"\*\*\[#{dog.id}\]\({re.escape(link(dog))}\)\*\* a dog · <@{discord_.ben.id}> · \d\d? %", second)
    assert embed["image"]["url"] == f"attachment://{sheet.filename}" and sheet.description
    drawn = Image.open(BytesIO(sheet.data)).convert("RGB")
    # One picture of each: the spoilered one veiled, the other as it is.
    assert drawn.size == (408, 232) and drawn.getpixel((20, 20)) == (25, 72, 49) and drawn.getpixel((220, 20)) == (7, 100, 50)
    # The most alike picture of a result with several is shown; where that one asked for is unknown, that is told.
    assert similar(await told(discord_, discord_.ann, discord_.general, "similar", number=other_cat.id, picture=2)) == [cat.id, dog.id]
    assert (await told(discord_, discord_.ann, discord_.general, "similar", number=other_cat.id, picture=3)).content == FORGOTTEN
    assert (await told(discord_, discord_.ann, discord_.general, "similar", number=99)).content == FORGOTTEN


async def test_whose_pictures_are_looked_through_is_said_or_usual(discord_: Loopback, bot: Reverie) -> None:
    hidden = discord_.add_channel("hidden")
    hidden.hide_from(discord_.ann)
    await discord_.wait_for(lambda: (known := bot.get_channel(hidden.id)) and known.overwrites)
    mine = [await painted(bot, discord_.ann, discord_.general) for _ in range(2)]
    theirs = await painted(bot, discord_.ben, discord_.general)
    secret = await painted(bot, discord_.ben, hidden)
    for options, seen in (({}, {mine[1].id, theirs.id}), ({"whose": "server"}, {mine[1].id, theirs.id}), ({"whose": "mine"}, {mine[1].id})):
        assert set(similar(await told(discord_, discord_.ann, discord_.general, "similar", number=mine[0].id, **options))) == seen
    assert set(similar(await told(discord_, discord_.ann, discord_.dm(discord_.ann), "similar", number=mine[0].id))) == {mine[1].id}
    assert (await told(discord_, discord_.ann, discord_.general, "similar", number=secret.id)).content == FORGOTTEN


async def test_any_image_can_be_compared(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    cat = await painted(bot, discord_.ann, discord_.general, "a cat")
    dog = await painted(bot, discord_.ann, discord_.general, "a dog")
    painter.embed_picture = lambda picture: painter.seen("a dog")  # type: ignore[method-assign]
    found = await told(discord_, discord_.ben, discord_.general, "similar", image=png((1, 2, 3)))
    assert similar(found) == [dog.id, cat.id]
    assert (await told(discord_, discord_.ben, discord_.general, "similar", image=png((1, 2, 3)), whose="mine")).content == NOTHING
    broken = await told(discord_, discord_.ben, discord_.general, "similar", image=("a.png", b"no picture"))
    assert "picture" in broken.content and not broken.embeds


async def test_either_a_number_or_an_image_is_needed(discord_: Loopback, bot: Reverie) -> None:
    for options in ({}, {"number": 1, "image": png((1, 2, 3))}):
        answer = await told(discord_, discord_.ann, discord_.general, "similar", **options)
        assert answer.content == "The number must be given, or else an image, and not both."


async def test_a_model_without_clip_compares_no_images_and_its_pictures_are_not_found(
    discord_: Loopback, start: Start, painter: ScriptedPainter
) -> None:
    async with start() as bot:
        seen = await painted(bot, discord_.ann, discord_.general)
    painter.space = ""
    painter.seen = lambda prompt: None  # type: ignore[method-assign,assignment,return-value]
    async with start() as bot:
        await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a cat", "count": 1})
        await settled(bot, "delivered", "delivered")
        answer = await told(discord_, discord_.ann, discord_.general, "similar", image=png((1, 2, 3)))
        assert answer.content == "The model scripted can't do that."
        assert (await told(discord_, discord_.ann, discord_.general, "similar", number=2)).content == FORGOTTEN
        assert (await told(discord_, discord_.ann, discord_.general, "similar", number=seen.id)).content == NOTHING


async def test_while_the_model_is_being_loaded_an_image_waits_for_it(discord_: Loopback, start: Start) -> None:
    async with start(working=False) as bot:
        await painted(bot, discord_.ann, discord_.general)
        use = await discord_.command(discord_.ann, discord_.general, "similar", {"image": png((1, 2, 3))})
        await discord_.wait_for(lambda: use.message)
        await asyncio.sleep(0.1)
        assert use.message.thinking
        work = asyncio.create_task(bot.worker.run())
        await discord_.wait_for(lambda: not use.message.thinking)
        assert similar(use.message) == [1]
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def test_a_lost_file_leaves_its_place_on_the_sheet_empty(discord_: Loopback, bot: Reverie) -> None:
    await painted(bot, discord_.ann, discord_.general)
    lose(bot, await painted(bot, discord_.ann, discord_.general))
    found = await told(discord_, discord_.ann, discord_.general, "similar", number=1)
    assert similar(found) == [2]
    sheet = Image.open(BytesIO(found.attachments[0].data)).convert("RGB")
    assert sheet.getpixel((100, 100)) == (43, 45, 49)


# Families.


def family_lines(message: Message) -> list[str]:
    return [line.strip("\u2003") for line in message.embeds[0]["description"].splitlines()]


def family_tree(message: Message) -> list[tuple[int, int]]:
    """Return the depth and number of every relative that is told of."""
    lines = message.embeds[0]["description"].splitlines()
    return [(len(line) - len(line.lstrip("\u2003")), int(re.search(r"#(\d+)", line)[1])) for line in lines]


async def info_of(server: Loopback, user: User, channel: Channel, number: int) -> Message:
    """Return what the button Info of a result says."""
    shown = await told(server, user, channel, "show", number=number)
    return await pressed(server, user, shown, button(cards.Act.INFO, number))


async def test_the_buttons_of_info_work_also_after_a_restart(discord_: Loopback, start: Start) -> None:
    async with start() as bot:
        await painted(bot, discord_.ann, discord_.general, count=2)
        for _ in range(6):
            await painted(bot, discord_.ann, discord_.general)
        info = await info_of(discord_, discord_.ann, discord_.general, 1)
        page = await history(discord_, discord_.ann)
        found = await pressed(discord_, discord_.ann, info, part(info, "Similar pictures")["custom_id"])
    async with start() as bot:
        again = await pressed(discord_, discord_.ann, info, part(info, "Similar pictures")["custom_id"])
        assert similar(again) == similar(found) == [2, 3, 4, 5, 6, 7]
        family = await pressed(discord_, discord_.ann, info, part(info, "Family")["custom_id"])
        assert family_tree(family) == [(0, 1)]
        use = await discord_.press(discord_.ann, info, part(info, "Download")["custom_id"])
        _, files = unpacked(await archives(discord_, use, 1))
        assert set(files) == {"pictures/1/0.png", "pictures/1/1.png"}
        await turned(discord_, discord_.ann, page, "Older")
        assert listed(page) == [2, 1]
        assert (await pressed(discord_, discord_.ann, again, part(again, "#2")["custom_id"])).attachments


async def test_a_family_is_told_over_variations_rerolls_edits_and_repaintings(discord_: Loopback, bot: Reverie) -> None:
    await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a cat", "count": 2, "seed": 7})
    card = await result(discord_)
    for done, (act, index) in enumerate(((cards.Act.VARY, 1), (cards.Act.AGAIN, 0)), start=2):
        await discord_.press(discord_.ben, card, button(act, 1, index))
        await settled(bot, *["delivered"] * done)
    form = await discord_.press(discord_.ann, card, button(cards.Act.EDIT, 1))
    await discord_.wait_for(lambda: form.modal)
    await discord_.submit_modal(discord_.ann, form, {"prompt": "a dog"})
    await settled(bot, *["delivered"] * 4)
    varied_card = next(message for message in discord_.general.messages if any("reverie-2." in file.filename for file in message.attachments))
    form = await discord_.context_menu(discord_.ann, discord_.general, varied_card, "Inpaint…")
    await discord_.wait_for(lambda: form.modal)
    question = await discord_.submit_modal(discord_.ann, form, {"prompt": "a fox", "region": ["left"], "which": ["0"]})
    await discord_.wait_for(lambda: question.message and not question.message.thinking)
    await discord_.press(discord_.ann, question.message, part(question.message, "Repaint this")["custom_id"])
    await settled(bot, *["delivered"] * 5)
    info = await pressed(discord_, discord_.ben, varied_card, button(cards.Act.INFO, 2))
    family = await pressed(discord_, discord_.ben, info, button(cards.Act.FAMILY, 2))
    assert family.embeds[0]["title"] == "Family of #2"
    assert family_tree(family) == [(0, 1), (1, 2), (2, 5), (1, 3), (1, 4)]
    results = {
        int(file.filename.removeprefix("reverie-").removesuffix(".png")): message.id
        for message in discord_.general.messages
        for file in message.attachments
        if file.filename.startswith("reverie-")
    }
    titles = ["a cat", "Variations: a cat", "Repainted: a fox", "a cat", "a dog"]
    owners = [discord_.ann, discord_.ben, discord_.ann, discord_.ben, discord_.ann]
    for line, number, title, owner in zip(family_lines(family), (1, 2, 5, 3, 4), titles, owners, strict=True):
        assert line.removeprefix("└ ") == f"**[#{number}]({link(await bot.history.find(number), results[number])})** {title} · <@{owner.id}>"
    [tree] = family.attachments
    drawn = Image.open(BytesIO(tree.data)).convert("RGB")
    assert family.embeds[0]["image"]["url"] == f"attachment://{tree.filename}" and tree.description
    # The one that was asked for is framed, and no other.
    frames = [drawn.getpixel((8 + depth * 44 - 2, 8 + row * 80 + 36)) == (124, 92, 252) for row, depth in enumerate((0, 1, 2, 1, 1))]
    assert frames == [False, True, False, False, False]


async def test_hidden_relatives_are_left_out_and_what_came_from_them_stands_below_what_is_left(discord_: Loopback, bot: Reverie) -> None:
    hidden, adult = discord_.add_channel("hidden"), discord_.add_channel("adult", nsfw=True)
    hidden.hide_from(discord_.ben)
    await discord_.wait_for(lambda: (known := bot.get_channel(hidden.id)) and known.overwrites)
    first = await painted(bot, discord_.ann, discord_.general)
    secret = await varied(bot, discord_.ann, hidden, first)
    sibling = await varied(bot, discord_.ann, discord_.general, first)
    below_secret = await varied(bot, discord_.ann, discord_.general, secret)
    deleted = await varied(bot, discord_.ann, discord_.general, first)
    below_deleted = await varied(bot, discord_.ann, discord_.general, deleted)
    grown = await varied(bot, discord_.ann, adult, sibling)
    await removed(bot, deleted)

    async def seen(user: User, channel: Channel) -> list[tuple[int, int]]:
        info = await info_of(discord_, user, channel, first.id)
        return family_tree(await pressed(discord_, user, info, button(cards.Act.FAMILY, first.id)))

    left = [(0, first.id), (1, below_secret.id), (1, sibling.id), (1, below_deleted.id)]
    assert await seen(discord_.ben, discord_.general) == left
    assert await seen(discord_.ann, discord_.general) == [left[0], (1, secret.id), (2, below_secret.id), *left[2:]]
    assert await seen(discord_.ben, adult) == [*left[:3], (2, grown.id), left[3]]
    # Where the oldest is hidden, those below it are the oldest.
    info = await info_of(discord_, discord_.ben, discord_.general, below_secret.id)
    await removed(bot, first)
    family = await pressed(discord_, discord_.ben, info, button(cards.Act.FAMILY, below_secret.id))
    assert family_tree(family) == [(0, below_secret.id), (0, sibling.id), (0, below_deleted.id)]


async def test_a_large_family_is_shown_around_the_one_that_is_asked_for(discord_: Loopback, bot: Reverie) -> None:
    jobs = [await painted(bot, discord_.ann, discord_.general, "a cat " * 20)]
    for _ in range(49):
        jobs.append(await painted(bot, discord_.ann, discord_.general, "a cat " * 20, source=jobs[-1].id))
    info = await info_of(discord_, discord_.ann, discord_.general, 40)
    family = await pressed(discord_, discord_.ann, info, button(cards.Act.FAMILY, 40))
    text = family.embeds[0]["description"]
    assert len(text) <= 4096 and text.endswith("\n…") and text.splitlines()[-2].endswith(f"<@{discord_.ann.id}>")
    drawn = Image.open(BytesIO(family.attachments[0].data)).convert("RGB")
    assert drawn.size == (280 + 19 * 44, 20 * 80 + 8)
    # Ten stand above it: 30 … 39.
    assert drawn.getpixel((8 + 10 * 44 - 2, 8 + 10 * 80 + 36)) == (124, 92, 252)


async def test_somebody_who_may_not_see_a_result_is_not_told_of_its_family(discord_: Loopback, bot: Reverie) -> None:
    hidden = discord_.add_channel("hidden")
    job = await painted(bot, discord_.ann, hidden)
    hidden.hide_from(discord_.ben)
    await discord_.wait_for(lambda: (known := bot.get_channel(hidden.id)) and known.overwrites)
    info = await info_of(discord_, discord_.ann, hidden, job.id)
    forged = Message(info.id, discord_.general, discord_.bot, components=info.components, render=info.render)
    for act in (cards.Act.FAMILY, cards.Act.SIMILAR, cards.Act.DOWNLOAD):
        assert (await pressed(discord_, discord_.ben, forged, button(act, job.id))).content == FORGOTTEN


# Downloads.


async def test_a_download_holds_the_pictures_as_they_are_and_what_paints_them_again(
    discord_: Loopback, bot: Reverie, painter: ScriptedPainter
) -> None:
    options = {"prompt": "a “cat” 🦊", "count": 3, "seed": 2**32 - 2, "steps": 9, "guidance": 2.5, "spoiler": True}
    await discord_.command(discord_.ann, discord_.general, "dream", options)
    card = await result(discord_)
    await settled(bot, "delivered")
    await discord_.press(discord_.ben, card, button(cards.Act.VARY, 1, 2))
    await settled(bot, "delivered", "delivered")
    await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a dog", "count": 1})
    await settled(bot, *["delivered"] * 3)
    use = await used(discord_, discord_.ben, discord_.general, "download", number=1)
    facts, files = unpacked(await archives(discord_, use, 1))
    job = await bot.history.find(1)
    assert facts == [
        {
            "number": 1,
            "kind": "dream",
            "prompt": "a “cat” 🦊",
            "files": [f"pictures/1/{position}.png" for position in range(3)],
            "seeds": [2**32 - 2, 2**32 - 1, 0],
            "model": "scripted",
            "steps": 9,
            "guidance": 2.5,
            "source": None,
            "parent": None,
            "spoiler": True,
            "asked_by": str(discord_.ann.id),
            "asked_at": job.created_at,
        }
    ]
    assert list(files.values()) == [picture.png for picture in (await bot.history.painting_of(job)).pictures]
    [attachment] = use.message.attachments
    assert attachment.filename == "reverie-1-1.zip" and attachment.description == "Pictures and their settings"
    use = await used(discord_, discord_.ben, discord_.general, "download", number=2)
    [fact] = unpacked(await archives(discord_, use, 1))[0]
    assert (fact["kind"], fact["source"], fact["parent"]) == ("variation", 1, {"number": 1, "picture": 3})
    # What is left to the model is told as it was used.
    use = await used(discord_, discord_.ann, discord_.general, "download", number=3)
    [fact] = unpacked(await archives(discord_, use, 1))[0]
    assert (fact["steps"], fact["guidance"]) == (30, 1.5)


async def test_only_ones_own_are_downloaded_together_by_words_and_before_a_number(discord_: Loopback, bot: Reverie) -> None:
    for prompt in ("a cat", "a dog", "a red cat", "a cat"):
        await painted(bot, discord_.ann, discord_.general, prompt)
    await painted(bot, discord_.ben, discord_.general, "a cat")
    await painted(bot, discord_.ann, discord_.add_channel("adult", nsfw=True), "a cat")

    async def numbers(**options: object) -> list[int]:
        use = await used(discord_, discord_.ann, discord_.general, "download", **options)
        facts, files = unpacked(await archives(discord_, use, 1))
        assert set(files) == {f"pictures/{fact['number']}/0.png" for fact in facts}
        return [fact["number"] for fact in facts]

    assert await numbers() == [4, 3, 2, 1]
    assert await numbers(words="cat") == [4, 3, 1]
    assert await numbers(before=3) == [2, 1]
    assert await numbers(words="cat", before=4) == [3, 1]
    for options in ({"words": "fox"}, {"before": 1}, {"words": "dog", "before": 2}):
        assert (await told(discord_, discord_.ann, discord_.general, "download", **options)).content == NOTHING


async def test_archives_are_as_large_as_the_place_takes_and_no_larger(discord_: Loopback, bot: Reverie) -> None:
    for _ in range(12):
        await painted(bot, discord_.ann, discord_.general, count=2, noise=True)
    discord_.limits.file_bytes = discord_.limits.reported_file_bytes = 30_000
    use = await used(discord_, discord_.ann, discord_.general, "download")
    found = await archives(discord_, use, 4)
    assert max(map(len, found)) <= 30_000 < min(len(one) for one in found[:-1]) + 5_000
    facts, files = unpacked(found)
    assert [fact["number"] for fact in facts] == [*range(12, 0, -1)]
    assert files == {f"pictures/{job}/{position}.png": noisy(job, position) for job in range(1, 13) for position in range(2)}
    assert [message.content for message in use.followups][-1] == "Part 4"
    sent = [file.filename for message in [use.message, *use.followups] for file in message.attachments]
    assert sent == [f"reverie-12-{number}.zip" for number in range(1, 5)]


async def everything(server: Loopback, user: User, channel: Channel, most: int, words: str = "") -> list[tuple[list[int], dict[str, bytes]]]:
    """Download all there is, going on as it is said each time; return the numbers and files that came each time."""
    came = []
    options: dict[str, object] = {"words": words} if words else {}
    while True:
        use = await used(server, user, channel, "download", **options)
        await server.wait_for(lambda use=use: any("That is not all" in m.content for m in sent(use)) or len(sent(use)[-1].attachments) == 1)
        await asyncio.sleep(0.3)
        messages = sent(use)
        assert len(messages) <= most and not any("That is not all" in message.content for message in messages[:-1])
        facts, files = unpacked([file.data for message in messages for file in message.attachments])
        came.append(([fact["number"] for fact in facts], files))
        how = re.fullmatch(r"Part \d+\nThat is not all\. Go on with `/download (?:words:(.+) )?before:(\d+)`\.", messages[-1].content)
        if how is None:
            assert re.fullmatch(r"Part \d+", messages[-1].content)
            return came
        assert (how[1] or "") == words
        options["before"] = int(how[2])


def sent(use: Interaction) -> list[Message]:
    assert use.message is not None
    return [use.message, *use.followups]


@pytest.mark.parametrize(("place", "most"), [("general", 3), ("away", 5), ("group", 5)])
async def test_a_long_download_goes_on_without_gap_or_repetition(
    discord_: Loopback, bot: Reverie, monkeypatch: pytest.MonkeyPatch, place: str, most: int
) -> None:
    channel = discord_.general if place == "general" else discord_.add_foreign_channel(place, guild=place == "away")
    if channel is discord_.general:
        monkeypatch.setattr(archives_module, "MOST", most)
    discord_.limits.file_bytes = discord_.limits.reported_file_bytes = 14_000
    for number in range(14):
        await painted(bot, discord_.ann, discord_.general, "a cat" if number % 4 else "a dog", count=1 + number % 3, noise=True)
    for words in ("", "cat"):
        came = await everything(discord_, discord_.ann, channel, most, words)
        numbers = [number for part_numbers, _ in came for number in part_numbers]
        wanted = [job.id for number in range(13, -1, -1) if (number % 4 or not words) and (job := await bot.history.find(number + 1))]
        assert numbers == wanted and len(came) > 1
        files = [name for _, part_files in came for name in part_files]
        assert sorted(files) == sorted(f"pictures/{number}/{position}.png" for number in wanted for position in range(1 + (number - 1) % 3))
        for part_numbers, part_files in came:
            assert {int(name.split("/")[1]) for name in part_files} == set(part_numbers)


async def test_beyond_the_results_of_one_download_it_is_said_how_to_go_on(discord_: Loopback, bot: Reverie, monkeypatch: pytest.MonkeyPatch) -> None:
    # discord.py imports a feature anew for every bot.
    monkeypatch.setattr(sys.modules["cogs.history"], "MOST_DOWNLOADED", 4)
    for _ in range(8):
        await painted(bot, discord_.ann, discord_.general)
    came = await everything(discord_, discord_.ann, discord_.general, 1)
    assert [numbers for numbers, _ in came] == [[8, 7, 6, 5], [4, 3, 2, 1]]


async def test_lost_picture_files_leave_the_others(discord_: Loopback, bot: Reverie) -> None:
    lose(bot, await painted(bot, discord_.ann, discord_.general, count=3), 1)
    lose(bot, await painted(bot, discord_.ann, discord_.general))
    (bot.history._folder / "pictures" / "1" / "2.png").write_bytes(b"damaged")
    use = await used(discord_, discord_.ann, discord_.general, "download")
    facts, files = unpacked(await archives(discord_, use, 1))
    assert [fact["number"] for fact in facts] == [2, 1]
    assert files == {"pictures/1/0.png": png((7, 100, 50)), "pictures/1/2.png": b"damaged"}


async def test_a_picture_beyond_the_limit_is_made_to_fit(discord_: Loopback, bot: Reverie) -> None:
    job = await painted(bot, discord_.ann, discord_.general, count=2)
    (bot.history._folder / "pictures" / str(job.id) / "0.png").write_bytes(noise(200))
    discord_.limits.file_bytes = discord_.limits.reported_file_bytes = 20_000
    use = await used(discord_, discord_.ann, discord_.general, "download")
    _, files = unpacked(await archives(discord_, use, 1))
    assert list(files) == ["pictures/1/0.jpg", "pictures/1/1.png"]


def test_what_surely_fits_is_all_whole_results_that_do() -> None:
    parcels = [archives_module.Parcel(number, [(f"{number}/{place}.png", bytes(4_000)) for place in range(2)]) for number in range(9, 0, -1)]
    assert archives_module.fitting(parcels, 100, 10**6, 1) == 9
    # Three files in an archive: one result and a half.
    assert [archives_module.fitting(parcels, 100, 15_000, most) for most in (1, 2, 3, 6)] == [1, 3, 4, 9]
    assert archives_module.fitting(parcels, 12_000, 15_000, 2) < 3
    assert archives_module.fitting(parcels, 100, 4_500, 1) == 1, "one at least"
    assert archives_module.fitting([], 100, 4_500, 1) == 0


def test_the_command_to_go_on_is_one_text_to_copy() -> None:
    assert archives_module.going_on("", 5) == "`/download before:5`"
    assert archives_module.going_on("a `cat", 5) == "`/download words:a  cat before:5`"
