"""The page by hand: cards, reactions, deleting, channels, rights, and selects of every kind."""

import discord
from discord import ui
from playwright.async_api import Page, expect

from loopback import Loopback, permissions
from tests.conftest import png
from tests.loopback.conftest import Bot, running
from tests.loopback.test_life import file
from tests.loopback.test_page import in_chromium, page, type_command
from tests.loopback.test_selects import Menus, chooser

__all__ = ["page"]

pytestmark = in_chromium
RED = (200, 30, 30)


async def test_cards_show_their_pictures_authors_and_footers(page: Page, discord_: Loopback, bot: Bot) -> None:
    grid, small, face = (file(name, png(colour, 64)) for name, colour in (("grid.png", (200, 90, 30)), ("small.png", RED), ("face.png", RED)))
    first = discord.Embed(title="A fox", description="in the *snow*", colour=0x2B8A4B).set_image(url=grid.uri).set_thumbnail(url=small.uri)
    first.set_author(name="ann", url="https://example.com/ann", icon_url=face.uri).set_footer(text="seed 7", icon_url=face.uri)
    second = discord.Embed(description="with <@&1> and elsewhere").set_image(url="https://example.com/a.png").add_field(name="steps", value="25")
    sent = await bot.get_channel(discord_.general.id).send(embeds=[first, second], files=[grid, small, face])
    cards = page.locator(f".message[data-id='{sent.id}'] .embed")
    await expect(cards).to_have_count(2)
    await expect(cards.nth(0).locator(".embed-author a")).to_have_text("ann")
    await expect(cards.nth(0).locator("footer")).to_have_text("seed 7")
    await expect(cards.nth(0).locator("img.icon")).to_have_count(2)
    await expect(cards.nth(0).locator("img.thumbnail")).to_be_visible()
    await cards.nth(0).locator(".picture").click()
    await expect(page.locator("#lightbox-image")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(cards.nth(1).locator("dt")).to_have_text("steps")
    await expect(cards.nth(1).locator(".mention")).to_have_text("@role")
    await expect(cards.nth(1).locator("img")).to_have_count(0)
    assert await page.evaluate("[...document.querySelectorAll('.embed img')].every((image) => image.src.startsWith(location.origin))")
    assert sent.attachments == []


async def test_reactions_are_chips_that_count_and_toggle(page: Page, discord_: Loopback, bot: Bot) -> None:
    said = await discord_.say(discord_.ben, discord_.general, "look")
    message = page.locator(f".message[data-id='{said.id}']")
    await discord_.react(discord_.ben, said, "🎉")
    chip = message.locator(".reaction[data-emoji='🎉']")
    await expect(chip).to_have_text("🎉 1")
    await expect(chip).to_have_attribute("aria-pressed", "false")
    await chip.click()
    await expect(chip).to_have_text("🎉 2")
    await expect(chip).to_have_attribute("aria-pressed", "true")
    await expect(chip).to_have_attribute("title", "ben, ann")
    await chip.click()
    await expect(chip).to_have_text("🎉 1")
    await message.hover()
    await message.locator(".star").click()
    await expect(message.locator(".reaction[data-emoji='⭐']")).to_have_text("⭐ 1")
    assert said.reactions == {"🎉": [discord_.ben.id], "⭐": [discord_.ann.id]}
    await discord_.clear_reactions(said)
    await expect(message.locator(".reaction")).to_have_count(0)


async def test_authors_and_moderators_delete(page: Page, discord_: Loopback, bot: Bot) -> None:
    mine, theirs, more, last = [await discord_.say(person, discord_.general, "x") for person in (discord_.ann, *[discord_.ben] * 3)]
    of_mine, of_theirs = (page.locator(f".message[data-id='{message.id}']") for message in (mine, theirs))
    await expect(of_theirs).to_have_count(1)
    await expect(of_theirs.locator(".delete")).to_have_count(0)
    await of_mine.hover()
    await of_mine.locator(".delete").click()
    await expect(of_mine).to_have_count(0)
    await page.click("#moderator")
    await expect(page.locator("#moderator")).to_have_attribute("aria-pressed", "true")
    assert discord_.ann.moderator
    await of_theirs.hover()
    await of_theirs.locator(".delete").click()
    await expect(of_theirs).to_have_count(0)
    await page.click("#moderator")
    await expect(page.locator(".message .delete")).to_have_count(0)
    await page.click("#owner")
    await expect(page.locator(".message .delete")).to_have_count(2)
    await expect(page.locator("#owner")).to_have_attribute("aria-pressed", "true")
    await discord_.wait_for(lambda: bot.guilds[0].owner_id == discord_.ann.id)
    await discord_.delete_many([more, last])
    await expect(page.locator(".message")).to_have_count(0)
    assert discord_.general.messages == []


async def test_who_may_not_delete_is_refused_by_the_server_too(page: Page, discord_: Loopback) -> None:
    theirs = await discord_.say(discord_.ben, discord_.general, "x")
    payload = f'{{"do": "delete", "user": "{discord_.ann.id}", "channel": "{discord_.general.id}", "message": "{theirs.id}"}}'
    answer = await page.evaluate(
        "async (payload) => { const form = new FormData(); form.append('payload', payload);"
        " return (await fetch('/page/act', { method: 'POST', body: form })).json(); }",
        payload,
    )
    assert answer == {"error": "only its author or a moderator can delete this message"} and not theirs.deleted


async def test_a_channel_is_opened_marked_and_removed(page: Page, discord_: Loopback, bot: Bot) -> None:
    await page.click("#add-channel")
    await page.click("#channel-create")
    await expect(page.locator("#channel-error")).to_have_text("a channel needs a name")
    await page.fill("#channel-new-name", "Red Room")
    await page.check("#channel-new-nsfw")
    await page.keyboard.press("Enter")
    await expect(page.locator("#channel-name")).to_have_text("#red-room")
    await expect(page.locator("#channel-mark")).to_be_visible()
    await expect(page.locator(".channel[aria-current] .badge")).to_have_text("18+")
    room = next(channel for channel in discord_.world.channels.values() if channel.name == "red-room")
    await discord_.wait_for(lambda: bot.get_channel(room.id))
    assert bot.get_channel(room.id).is_nsfw()
    side = discord_.add_thread(room, "side")
    await expect(page.locator(f".channel[data-id='{side.id}'] .badge")).to_have_count(1)
    discord_.restrict(room, False)
    await expect(page.locator(".badge:visible")).to_have_count(0)
    await discord_.say(discord_.ben, room, "here")
    await expect(page.locator(".message")).to_have_count(1)
    discord_.remove_channel(room)
    await expect(page.locator("#channel-name")).to_have_text("#general")
    await expect(page.locator(".message")).to_have_count(0)
    await expect(page.locator(".channel[data-id]")).to_have_count(1)
    discord_.remove_channel(discord_.general)
    await expect(page.locator("#channel-name")).to_have_text("#nowhere")


async def test_selects_of_every_kind_offer_what_there_is(page: Page, discord_: Loopback) -> None:
    helpers, attic = discord_.add_role("helpers"), discord_.add_channel("attic")
    discord_.add_thread(attic, "side")
    discord_.add_foreign_channel("away")
    people = ["ann", "ben", "olga"]
    offered = {"text": ["small", "large"], "user": ["Reverie", *people], "role": ["@helpers"], "channel": ["#general", "#attic"]}
    offered["any"] = offered["user"] + offered["role"]
    async with running(chooser(discord_)) as bot:
        sent = await bot.get_channel(discord_.general.id).send("choose", view=Menus(discord_))
        message = page.locator(f".message[data-id='{sent.id}']")
        for kind, labels in offered.items():
            await expect(message.locator(f"select[data-custom-id={kind}] option")).to_have_text(labels)
        assert await message.locator("select[data-custom-id=user]").evaluate("(select) => select.selectedOptions[0].label") == "ben"
        for kind, values, expected in (
            ("role", [str(helpers.id)], "Role:helpers ['roles']"),
            ("any", [str(discord_.ann.id), str(helpers.id)], "Member:ann Role:helpers ['members', 'roles', 'users']"),
            ("channel", [str(attic.id)], "AppCommandChannel:attic ['channels']"),
            ("text", [], "nothing []"),
            ("user", [str(discord_.olga.id)], "Member:olga ['members', 'users']"),
        ):
            await message.locator(f"select[data-custom-id={kind}]").select_option(values)
            await message.locator(f".row:has(> select[data-custom-id={kind}]) > .button").click()
            await expect(message.locator(".content")).to_have_text(expected)


async def test_one_choice_is_sent_at_once_and_may_be_taken_back(page: Page, discord_: Loopback, bot: Bot) -> None:
    heard: list[list[str]] = []
    view = ui.View(timeout=None)
    select: ui.RoleSelect[ui.View] = ui.RoleSelect(custom_id="role", min_values=0)

    async def callback(interaction: discord.Interaction) -> None:
        heard.append([role.name for role in select.values])
        await interaction.response.defer()

    select.callback = callback
    role = discord_.add_role("helpers")
    await bot.get_channel(discord_.general.id).send("choose", view=view.add_item(select))
    await page.select_option("select[data-custom-id=role]", str(role.id))
    await discord_.wait_for(lambda: heard == [["helpers"]])
    await page.select_option("select[data-custom-id=role]", "")
    await discord_.wait_for(lambda: heard == [["helpers"], []])


async def test_forms_and_commands_offer_roles_people_and_channels(page: Page, discord_: Loopback) -> None:
    role, side = discord_.add_role("helpers", permissions.MANAGE_MESSAGES), discord_.add_thread(discord_.general, "side")
    content = page.locator(".message .content")
    async with running(chooser(discord_)):
        await discord_.wait_for(lambda: discord_.find_command(1, "take"))
        await type_command(page, "/take role: helpers who: @olga")
        await expect(content.last).to_have_text("Role:helpers Member:olga")
        await type_command(page, "/mydata share withdraw picture: 3")
        await expect(content.last).to_have_text("mydata share withdraw 3")
        await page.fill("#command-box", "/take")
        await page.press("#command-box", "Enter")
        await expect(page.locator("[data-option=role] option")).to_have_text(["—", "@helpers"])
        await expect(page.locator("[data-option=thread] option")).to_have_text(["—", "#side"])
        await page.select_option("[data-option=who]", str(role.id))
        await page.select_option("[data-option=thread]", str(side.id))
        await page.click("#option-send")
        await expect(content.last).to_have_text("Role:helpers Thread:side")
        await page.fill("#command-box", "/form")
        await page.press("#command-box", "Enter")
        await page.click("#option-send")
        await expect(page.locator("#modal-title")).to_have_text("Settings")
        await expect(page.locator("#modal [data-custom-id=place] option")).to_have_text(["Choose", "#side"])
        await page.click("#modal-submit")
        await expect(page.locator("#modal-error")).to_contain_text("place: choose")
        await page.select_option("#modal [data-custom-id=place]", str(side.id))
        await page.click("#modal-submit")
        await expect(content.last).to_have_text("nothing; AppCommandThread:side; Member:ben Role:helpers; str:large")
