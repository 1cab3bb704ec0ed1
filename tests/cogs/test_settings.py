import asyncio
from typing import Any

import pytest

from cogs import _cards as cards
from cogs._client import Reverie
from cogs._language import language
from cogs.settings import NAMES
from engine.preferences import SETTINGS, Form, Level
from loopback import Channel, Interaction, Loopback, Message, User
from loopback.permissions import ADMINISTRATOR, MANAGE_MESSAGES
from tests.cogs.browsing import button
from tests.cogs.conftest import FORGOTTEN, Start, answered, choose, dreamt, results, settled, subject
from tests.conftest import ScriptedPainter, png

MANAGE_GUILD = 1 << 5
MAY_NOT = "You may not do that here. The owner of the server says who may, in `/settings`."
SWITCHED_OFF = "Painting is switched off in this channel. Try another one."
OWN = ["model", "count", "steps", "guidance", "preset", "spoiler", "language"]
BELOW = [*OWN, "max_count", "max_steps"]
OF_AREAS = {
    "settings": [*BELOW, "max_jobs", "channels", "retention_days"],
    "gallery": ["gallery", "gallery_stars"],
    "safety": [
        *("blocked_words", "word_policy", "blocked_concepts", "concept_policy", "strictness", "adult_channels"),
        *("min_days", "reports"),
    ],
    "moderation": [],
    "owner": ["may_settings", "may_gallery", "may_safety", "may_moderation"],
}
"""Settings of a server, by who may change them."""
CHANNELS_OWN = [*BELOW, "painting"]
WRITTEN: dict[str, tuple[Any, str]] = {
    "model": ("scripted", "scripted"),
    "count": ("3", "3"),
    "steps": (" 12 ", "12"),
    "guidance": ("2,5", "2.5"),
    "preset": ("best", "best"),
    "spoiler": ("yes", "yes"),
    "language": ("de", "Deutsch"),
    "max_count": ("2", "2"),
    "max_steps": ("50", "50"),
    "max_jobs": ("4", "4"),
    "painting": ("yes", "yes"),
    "channels": ("allowed", "only those where it is switched on"),
    "retention_days": ("3650", "3650"),
    "gallery": ("general", "<#1000000000000000002>"),
    "gallery_stars": ("0", "0"),
    "blocked_words": ("none", "1 entries"),
    "word_policy": ("remove", "lose these words"),
    "blocked_concepts": ("a snake\nblood", "2 entries"),
    "concept_policy": ("spoiler", "go under a spoiler"),
    "strictness": ("high", "high: rather too many"),
    "adult_channels": ("same", "are blocked there too"),
    "min_days": ("0.5", "0.5"),
    "reports": ("general", "<#1000000000000000002>"),
    **{f"may_{area}": ("role", "<@&{role}>") for area in ("settings", "gallery", "safety", "moderation")},
}
"""Of every setting something to write, and how it is shown."""
BEYOND = {
    "count": ("0", "10", "a whole number from 1 to 9"),
    "steps": ("0", "251", "a whole number from 1 to 250"),
    "guidance": ("-0.01", "20.01", "a number from 0 to 20"),
    "max_count": ("0", "10", "a whole number from 1 to 9"),
    "max_steps": ("0", "251", "a whole number from 1 to 250"),
    "max_jobs": ("0", "1001", "a whole number from 1 to 1000"),
    "retention_days": ("0", "3651", "a whole number from 1 to 3650"),
    "gallery_stars": ("-1", "1001", "a whole number from 0 to 1000"),
    "min_days": ("-0.01", "3650.01", "a number from 0 to 3650"),
}


def menu(level: str) -> str:
    return f"reverie-settings:{level}:defaults"


def offered(message: Message, custom_id: str) -> list[str]:
    """Return what a menu offers, nothing where it is not there."""
    parts = [part for row in message.components for part in row["components"] if part["custom_id"] == custom_id]
    return [option["value"] for part in parts for option in part["options"]]


def offered_of(message: Message, level: str) -> list[str]:
    """Return the settings that the menus of a panel offer, each of which holds as many as Discord allows."""
    menus = [offered(message, menu(level)), offered(message, f"reverie-settings:{level}:rules")]
    assert all(len(names) <= 25 for names in menus)
    return menus[0] + menus[1]


def menu_with(message: Message, level: str, name: str) -> str:
    """Return the menu of a panel that offers a setting."""
    return menu(level) if name in offered(message, menu(level)) else f"reverie-settings:{level}:rules"


async def panel(server: Loopback, user: User, level: str = "user", channel: Channel | None = None) -> Message:
    """Return the panel at a level, as somebody gets it."""
    message = await answered(server, await server.command(user, channel or server.general, "settings"))
    assert message.ephemeral
    if level != "user":
        await answered(server, await server.press(user, message, "reverie-settings:user", [level]))
    return message


async def form_of(server: Loopback, user: User, message: Message, level: str, name: str) -> Interaction:
    """Open the form of a setting."""
    use = await server.press(user, message, menu_with(message, level, name), [name])
    await server.wait_for(lambda: use.modal)
    return use


async def sent(server: Loopback, form: Interaction, value: Any = None) -> Message:
    """Send a form with a value, or as it was opened, and return the answer."""
    written = {} if value is None else {"value": value}
    return await answered(server, await server.submit_modal(form.user, form, written))


def text_of(message: Message) -> str:
    return str(message.embeds[0]["description"])


# The panel, for everybody.


def test_every_setting_has_an_owner_and_an_example_here() -> None:
    on_server = {name for name, setting in SETTINGS.items() if Level.SERVER in setting.levels}
    assert on_server == {name for names in OF_AREAS.values() for name in names}
    assert {name for name, setting in SETTINGS.items() if Level.CHANNEL in setting.levels} == set(CHANNELS_OWN)
    assert {name for name, setting in SETTINGS.items() if Level.USER in setting.levels} == set(OWN)
    assert set(WRITTEN) == set(SETTINGS) and set(BEYOND) == {name for name, setting in SETTINGS.items() if setting.form is Form.NUMBER}


@pytest.mark.parametrize(
    ("who", "areas"),
    [
        ("owner", "settings gallery safety owner"),
        ("administrator", "settings gallery safety"),
        ("manages the server", "settings gallery safety"),
        ("manages messages", ""),
        ("role for settings", "settings"),
        ("role for gallery", "gallery"),
        ("role for safety", "safety"),
        ("role for moderation", ""),
        ("nobody", ""),
    ],
)
async def test_only_what_somebody_may_change_is_offered_and_nothing_else_is_taken(discord_: Loopback, bot: Reverie, who: str, areas: str) -> None:
    granted = {"administrator": ADMINISTRATOR, "manages the server": MANAGE_GUILD, "manages messages": MANAGE_MESSAGES}.get(who, 0)
    role = discord_.add_role("chosen", granted)
    person = discord_.olga if who == "owner" else discord_.ann
    if person is discord_.ann and who != "nobody":
        person.roles.add(role.id)
    if who.startswith("role for"):
        await choose(bot, discord_, **{f"may_{who.split()[-1]}": [role.id]})
    mine = {"user": OWN, "channel": CHANNELS_OWN if "settings" in areas.split() else []}
    mine["server"] = [name for area in areas.split() for name in OF_AREAS[area]]
    owners = {level: await panel(discord_, discord_.olga, level) for level in mine}
    for level, names in mine.items():
        message = await panel(discord_, person, level)
        assert offered_of(message, level) == [name for name in SETTINGS if name in names]
        assert offered(message, f"reverie-settings:{level}") == ["user", "channel", "server"]
        own_form = await form_of(discord_, person, await panel(discord_, person), "user", "count")
        theirs = owners[level]
        forged = Message(theirs.id, discord_.general, discord_.bot, components=theirs.components, render=theirs.render)
        for name in offered_of(theirs, level):
            before = bot.preferences.get(Level(level), subject(discord_, person, level), name)
            # Chosen from the owner's menu, and sent with the owner's form.
            use = await discord_.press(person, forged, menu_with(forged, level, name), [name])
            await discord_.wait_for(lambda use=use: use.modal or use.message)
            assert bool(use.modal) == (name in names), (level, name)
            if use.message:
                assert use.message.content == MAY_NOT and use.message.ephemeral
                assert own_form.modal is not None
                own_form.modal["custom_id"] = f"reverie-form:setting:{level}.{name}"
                assert (await sent(discord_, own_form, "1")).content == MAY_NOT
                assert bot.preferences.get(Level(level), subject(discord_, person, level), name) == before
    assert await bot.moderation.log(discord_.guild.id, 9) == []


async def test_a_form_that_was_opened_while_one_might_changes_nothing_once_one_may_not(discord_: Loopback, bot: Reverie) -> None:
    role = discord_.add_role("keepers")
    await choose(bot, discord_, may_settings=[role.id])
    discord_.ann.roles.add(role.id)
    message = await panel(discord_, discord_.ann, "server")
    form = await form_of(discord_, discord_.ann, message, "server", "max_count")
    assert "**Pictures at most**: 3" in text_of(await sent(discord_, form, "3"))
    discord_.ann.roles.clear()
    assert (await sent(discord_, form, "9")).content == MAY_NOT
    use = await discord_.press(discord_.ann, message, menu("server"), ["max_count"])
    assert (await answered(discord_, use)).content == MAY_NOT
    assert bot.preferences.server(discord_.guild.id, "max_count") == 3
    assert len(await bot.moderation.log(discord_.guild.id, 9)) == 1


@pytest.mark.parametrize("unknown", ["server.painting", "user.max_count", "user.nonsense", "planet.count", "channel.gallery"])
async def test_forms_for_what_cannot_be_chosen_are_refused(discord_: Loopback, bot: Reverie, unknown: str) -> None:
    form = await form_of(discord_, discord_.olga, await panel(discord_, discord_.olga), "user", "count")
    assert form.modal is not None
    form.modal["custom_id"] = f"reverie-form:setting:{unknown}"
    assert (await sent(discord_, form, "1")).content == FORGOTTEN
    assert await bot.history.database.rows("SELECT * FROM preference") == []


# Every setting.


@pytest.mark.parametrize("level", ["user", "channel", "server"])
async def test_every_setting_is_chosen_shown_kept_by_an_untouched_form_and_cleared(discord_: Loopback, bot: Reverie, level: str) -> None:
    await asyncio.wait_for(bot.worker.ready.wait(), 5)
    role = discord_.add_role("keepers")
    given = {"general": discord_.general, "role": [role]}
    nothing = {Form.CHOICE: ["none"], Form.CHANNEL: [], Form.ROLES: []}
    message = await panel(discord_, discord_.olga, level)
    names = offered_of(message, level)
    assert set(names) == {name for name, setting in SETTINGS.items() if Level(level) in setting.levels}
    for name in names:
        written, expected = WRITTEN[name]
        say = language("de" if name == "language" else "en-US")
        line = f"**{say(NAMES[name])}**: {expected.format(role=role.id)}"
        form = await form_of(discord_, discord_.olga, message, level, name)
        assert text_of(await sent(discord_, form, given.get(written, written))).splitlines()[0] == line
        value = bot.preferences.get(Level(level), subject(discord_, discord_.olga, level), name)
        assert value is not None
        again = await form_of(discord_, discord_.olga, message, level, name)
        await sent(discord_, again)
        assert bot.preferences.get(Level(level), subject(discord_, discord_.olga, level), name) == value
        shown = await sent(discord_, again, nothing.get(SETTINGS[name].form, ""))
        assert text_of(shown).startswith("Not chosen: ") and shown.ephemeral
        assert bot.preferences.get(Level(level), subject(discord_, discord_.olga, level), name) is None
    log = [(entry.user_id, entry.act, entry.details["level"]) for entry in await bot.moderation.log(discord_.guild.id, 500)]
    changes = [(discord_.olga.id, f"set {name}", level) for name in reversed(names) for _ in range(3)]
    assert log == ([] if level == "user" else changes)


async def test_a_number_beyond_its_border_is_refused_in_a_plain_sentence_and_changes_nothing(discord_: Loopback, bot: Reverie) -> None:
    message = await panel(discord_, discord_.olga, "server")
    for name, (least, most, range_) in BEYOND.items():
        form = await form_of(discord_, discord_.olga, message, "server", name)
        assert form.modal is not None
        assert form.modal["components"][0]["description"] == f"From {range_.split()[-3]} to {range_.split()[-1]}; empty for no choice"
        for written, sentence in ((least, range_), (most, range_), ("none", "a number, not none"), ("1 2", "a number, not 1 2")):
            told = await sent(discord_, form, written)
            assert told.ephemeral and told.content == f"The value must be {sentence}."
            assert bot.preferences.server(discord_.guild.id, name) is None
        # The border itself is taken.
        for written in (range_.split()[-3], range_.split()[-1]):
            assert f"**{NAMES[name]}**: {written}" in text_of(await sent(discord_, form, written))


async def test_a_list_that_is_too_long_or_no_rule_is_refused(discord_: Loopback, bot: Reverie) -> None:
    message = await panel(discord_, discord_.olga, "server")
    for name, written in (("blocked_words", "***"), ("blocked_concepts", "\n".join(map(str, range(51))))):
        form = await form_of(discord_, discord_.olga, message, "server", name)
        assert (await sent(discord_, form, written)).content.startswith("The ")
        assert bot.preferences.server(discord_.guild.id, name) is None


@pytest.mark.parametrize("name", ["gallery", "reports"])
async def test_a_channel_of_another_server_is_refused(discord_: Loopback, bot: Reverie, name: str) -> None:
    form = await form_of(discord_, discord_.olga, await panel(discord_, discord_.olga, "server"), "server", name)
    words = await form_of(discord_, discord_.olga, await panel(discord_, discord_.olga, "server"), "server", "blocked_words")
    # Discord's client offers none; who writes the request themselves may send any number.
    assert words.modal is not None and form.modal is not None
    words.modal["custom_id"] = form.modal["custom_id"]
    for number in ("1234567890123456789", "x", "-1"):
        assert (await sent(discord_, words, number)).content == "The value must be one channel."
    assert bot.preferences.server(discord_.guild.id, name) is None
    thread = discord_.add_thread(discord_.general, "side")
    await discord_.wait_for(lambda: bot.get_channel(thread.id))
    assert f"<#{thread.id}>" in text_of(await sent(discord_, form, [thread]))


async def test_what_a_model_is_called_is_shown_as_it_is(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    await asyncio.wait_for(bot.worker.ready.wait(), 5)
    painter.model = "my_best_model *2*"
    form = await form_of(discord_, discord_.ann, await panel(discord_, discord_.ann), "user", "model")
    assert form.modal is not None
    options = form.modal["components"][0]["component"]["options"]
    assert [option["label"] for option in options] == ["No choice", "my_best_model *2*"]
    assert r"my\_best\_model \*2\*" in text_of(await sent(discord_, form, [painter.model]))
    painter.model = "all"
    form = await form_of(discord_, discord_.ann, await panel(discord_, discord_.ann), "user", "model")
    assert "**Model**: all\n" in text_of(await sent(discord_, form, ["all"]))


# Places and restarts.


async def test_where_the_server_is_not_the_bots_only_ones_own_can_be_chosen(discord_: Loopback, bot: Reverie) -> None:
    own = await panel(discord_, discord_.olga, "server")
    for place in (discord_.dm(discord_.olga), discord_.add_foreign_channel("away"), discord_.add_foreign_channel("group", guild=False)):
        message = await panel(discord_, discord_.olga, channel=place)
        assert offered(message, "reverie-settings:user") == [] and offered(message, menu("user")) == OWN
        form = await form_of(discord_, discord_.olga, message, "user", "count")
        assert "**Pictures**: 2" in text_of(await sent(discord_, form, "2"))
        forged = Message(own.id, place, discord_.bot, components=own.components, render=own.render)
        for custom_id, value in (("reverie-settings:server", "channel"), ("reverie-settings:server", "server"), (menu("server"), "max_count")):
            told = await answered(discord_, await discord_.press(discord_.olga, forged, custom_id, [value]))
            assert told.content == FORGOTTEN and told.ephemeral
        assert form.modal is not None
        for about in ("server.max_count", "channel.count"):
            form.modal["custom_id"] = f"reverie-form:setting:{about}"
            assert (await sent(discord_, form, "1")).content == FORGOTTEN
    rows = await bot.history.database.rows("SELECT scope, subject, name, value FROM preference")
    assert [tuple(row) for row in rows] == [("user", discord_.olga.id, "count", "2")]


async def test_panels_and_forms_work_after_a_restart(discord_: Loopback, start: Start) -> None:
    async with start():
        message = await panel(discord_, discord_.olga, "server")
        form = await form_of(discord_, discord_.olga, message, "server", "max_count")
        await sent(discord_, await form_of(discord_, discord_.olga, message, "server", "max_steps"), "50")
    async with start() as bot:
        assert text_of(await sent(discord_, form, "3")).startswith("**Pictures at most**: 3\n**Steps at most**: 50")
        assert "**Steps at most**: 7" in text_of(await sent(discord_, await form_of(discord_, discord_.olga, message, "server", "max_steps"), "7"))
        await answered(discord_, await discord_.press(discord_.olga, message, "reverie-settings:server", ["channel"]))
        assert message.embeds[0]["title"] == "For this channel"
        assert not bot._connection._view_store._views and not bot._connection._view_store._modals


async def test_a_thread_chooses_for_itself(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    thread = discord_.add_thread(discord_.general, "side")
    message = await panel(discord_, discord_.olga, "channel", thread)
    await sent(discord_, await form_of(discord_, discord_.olga, message, "channel", "painting"), ["no"])
    refused = await answered(discord_, await discord_.command(discord_.ann, thread, "dream", {"prompt": "a cat"}))
    assert refused.content == SWITCHED_OFF
    await dreamt(discord_)
    await choose(bot, discord_, "channel", painting="no")
    await bot.preferences.choose(Level.CHANNEL, thread.id, "painting", None)
    refused = await answered(discord_, await discord_.command(discord_.ann, thread, "dream", {"prompt": "a cat"}))
    assert refused.content == SWITCHED_OFF


# What comes of it.


async def reply(server: Loopback, words: str, to: Message | None = None, **more: Any) -> Message:
    return await server.say(server.ann, server.general, f"<@{server.bot.id}> {words}", reply_to=to, **more)


@pytest.mark.parametrize("level", ["user", "channel", "server"])
async def test_what_is_usual_holds_for_commands_and_messages(discord_: Loopback, bot: Reverie, painter: ScriptedPainter, level: str) -> None:
    await choose(bot, discord_, level, count=2, steps=7, guidance=0, preset="best", spoiler="yes")
    await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a cat"})
    await settled(bot, "delivered")
    await reply(discord_, "", files=[("a.png", png((1, 2, 3)))])
    await settled(bot, "delivered", "delivered")
    for request in painter.painted:
        assert (request.count, request.steps, request.guidance, request.preset) == (2, 7, 0, "best")
    assert all(card.attachments[0].filename.startswith("SPOILER_") for card in results(discord_))
    await dreamt(discord_, count=1, steps=3, guidance=2.5, preset="fast", spoiler=False)
    asked = painter.painted[2]
    assert (asked.count, asked.steps, asked.guidance, asked.preset) == (1, 3, 2.5, "fast")
    assert results(discord_)[2].attachments[0].filename.startswith("reverie-")


async def test_a_chosen_language_is_that_of_cards_and_refusals(discord_: Loopback, bot: Reverie) -> None:
    say = language("de")
    await choose(bot, discord_, "server", language="de")
    card = await dreamt(discord_)
    assert [field["name"] for field in card.embeds[0]["fields"]][1:3] == [say("Model"), say("Steps")] != ["Model", "Steps"]
    await choose(bot, discord_, "user", language="en-US")
    assert [field["name"] for field in (await dreamt(discord_)).embeds[0]["fields"]][1:3] == ["Model", "Steps"]
    refused = await answered(discord_, await discord_.press(discord_.ben, card, button(cards.Act.DELETE)))
    assert refused.content == say("Only {owner}, who asked for it, or a moderator can do that.", owner=f"<@{discord_.ann.id}>")
    # Discord does not tell a writer's own language; what the server chose is known.
    await discord_.say(discord_.ben, discord_.general, f"<@{discord_.bot.id}> hello")
    hint = say("Use `/dream` to paint, or mention me in a reply to a picture for variations of it.")
    await discord_.wait_for(lambda: discord_.general.messages[-1].content == hint)


async def test_limits_clamp_and_the_card_says_so_also_when_it_is_painted_again(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    before = await dreamt(discord_, count=4, steps=40)
    assert "Note" not in [field["name"] for field in before.embeds[0]["fields"]]
    await choose(bot, discord_, "channel", max_count=2)
    await choose(bot, discord_, "server", max_count=3, max_steps=20)
    note = "count: 2 instead of 4, which is the limit here.\nsteps: 20 instead of 40, which is the limit here."
    use = await discord_.press(discord_.ben, before, button(cards.Act.AGAIN))
    assert note in (await answered(discord_, use)).content
    await settled(bot, "delivered", "delivered")
    await reply(discord_, "again", before)
    await settled(bot, *["delivered"] * 3)
    await discord_.press(discord_.ben, before, button(cards.Act.VARY, index=1))
    await settled(bot, *["delivered"] * 4)
    assert [(request.count, request.steps) for request in painter.painted[1:]] == [(2, 20)] * 3
    for card in results(discord_)[1:]:
        assert {"name": "Note", "value": note, "inline": False} in card.embeds[0]["fields"]
        assert [part["label"] for part in card.components[0]["components"]] == ["U1", "U2"]
    card = await dreamt(discord_, count=2)
    # The model's own thirty are more than the limit too.
    assert painter.painted[-1].steps == 20 and "steps: 20 instead of 30" in card.embeds[0]["fields"][-1]["value"]


async def test_where_painting_is_switched_off_nothing_paints(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    card = await dreamt(discord_)
    form = await discord_.press(discord_.ben, card, button(cards.Act.EDIT))
    await discord_.wait_for(lambda: form.modal)
    await choose(bot, discord_, "channel", painting="no")
    for use in (
        await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a cat"}),
        await discord_.press(discord_.ben, card, button(cards.Act.AGAIN)),
        await discord_.press(discord_.ben, card, button(cards.Act.VARY)),
        await discord_.submit_modal(discord_.ben, form, {"prompt": "a dog"}),
    ):
        told = await answered(discord_, use)
        assert told.content == SWITCHED_OFF and told.ephemeral
    for words, more in (("again", {}), ("v2", {}), ("in red", {}), ("", {"files": [("a.png", png((1, 2, 3)))]})):
        said = await reply(discord_, words, None if more else card, **more)
        await discord_.wait_for(
            lambda said=said: discord_.general.messages[-1].id > said.id and SWITCHED_OFF in discord_.general.messages[-1].content
        )
    upload = await discord_.command(discord_.ann, discord_.general, "variations", {"image": png((1, 2, 3))})
    await discord_.wait_for(lambda: upload.message and upload.message.content == SWITCHED_OFF)
    # What only looks still does.
    assert (await answered(discord_, await discord_.press(discord_.ben, card, button(cards.Act.ENLARGE)))).attachments
    assert len(painter.painted) == 1
    other = discord_.add_channel("studio")
    await discord_.command(discord_.ann, other, "dream", {"prompt": "a cat"})
    await discord_.wait_for(lambda: results(discord_, other))


async def test_who_has_as_many_jobs_as_the_server_allows_waits(discord_: Loopback, bot: Reverie, painter: ScriptedPainter) -> None:
    await choose(bot, discord_, max_jobs=1)
    painter.hold.clear()
    first = await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a cat"})
    await answered(discord_, first)
    second = await answered(discord_, await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a dog"}))
    assert second.content.startswith("You already have 1 jobs on the way") and second.ephemeral
    await answered(discord_, await discord_.command(discord_.ben, discord_.general, "dream", {"prompt": "a dog"}))
    painter.hold.set()
    await settled(bot, "delivered", "delivered")
    await dreamt(discord_)


# Models.


async def test_a_model_is_chosen_and_one_that_is_gone_falls_back_to_the_usual_one(discord_: Loopback, start: Start, painter: ScriptedPainter) -> None:
    second = ScriptedPainter()
    second.model = "second"
    async with start(others={"second": second}) as bot:
        await bot.worker.ready.wait()
        form = await form_of(discord_, discord_.ann, await panel(discord_, discord_.ann), "user", "model")
        assert "**Model**: second" in text_of(await sent(discord_, form, ["second"]))
        card = await dreamt(discord_)
        assert [request.model for request in second.painted] == ["second"] and painter.painted == []
        assert card.embeds[0]["fields"][1]["value"] == "second"
        # Who chose nothing has the usual one.
        assert (await dreamt(discord_, user=discord_.ben)).embeds[0]["fields"][1]["value"] == "scripted"
        assert bot.preferences.get(Level.USER, discord_.ann.id, "model") == "second"
        shown = await answered(discord_, await discord_.press(discord_.ann, card, button(cards.Act.AGAIN)))
        assert shown.content
        await settled(bot, *["delivered"] * 3)
        assert len(second.painted) == 2
    async with start() as bot:
        await bot.worker.ready.wait()
        assert (await dreamt(discord_)).embeds[0]["fields"][1]["value"] == "scripted"
        await discord_.press(discord_.ann, card, button(cards.Act.AGAIN))
        await settled(bot, *["delivered"] * 5)
        assert [request.model for request in painter.painted] == ["", "second", "second"]
        # Its form stands at nothing that can be chosen; sent without a choice, or with the old name, it chooses none.
        assert form.modal is not None
        assert "Not chosen: Model" in text_of(await sent(discord_, form, ["second"]))
