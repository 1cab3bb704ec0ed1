"""Threads, moderators, languages, and places that the bot is only brought to."""

import asyncio

import discord
import pytest
from discord import app_commands, ui
from discord.http import Route

from loopback import Loopback, permissions, wire
from loopback.options import NotSent
from tests.loopback.conftest import Bot, running


def traveller() -> Bot:
    """Return a bot that answers anywhere, with as many messages as it is asked for."""
    bot = Bot()
    # discord.py keeps the first tree of a client.
    bot._connection._command_tree = None
    installs = app_commands.AppInstallationType(guild=True, user=True)
    contexts = app_commands.AppCommandContext(guild=True, dm_channel=True, private_channel=True)
    bot.tree = app_commands.CommandTree(bot, allowed_installs=installs, allowed_contexts=contexts)

    @bot.tree.command()
    async def talk(interaction: discord.Interaction, more: int = 0) -> None:
        """Talk."""
        place = type(interaction.channel).__name__
        await interaction.response.send_message(f"{place} {interaction.locale} {interaction.permissions.manage_messages}")
        for _ in range(more):
            try:
                await interaction.followup.send("more")
            except discord.HTTPException as refusal:
                await interaction.edit_original_response(content=str(refusal.code))

    @talk.autocomplete("more")
    async def suggest(interaction: discord.Interaction, current: int | str) -> list[app_commands.Choice[int]]:
        return [app_commands.Choice(name="twice", value=2)]

    return bot


async def said(server: Loopback, user: object, channel: object, **options: object) -> str:
    use = await server.command(user, channel, "talk", options)  # type: ignore[arg-type]  # any person and place
    message = await server.wait_for(lambda: use.message)
    return message.content


async def test_people_speak_languages_and_some_may_manage_messages(discord_: Loopback) -> None:
    async with running(traveller()):
        discord_.ben.locale = "ja"
        mona = discord_.add_user("mona", moderator=True)
        assert await said(discord_, discord_.ben, discord_.general) == "TextChannel ja False"
        assert await said(discord_, mona, discord_.general) == "TextChannel en-US True"
        assert await said(discord_, discord_.ann, discord_.general) == "TextChannel en-US False"
        discord_.ann.moderator = True
        assert await said(discord_, discord_.ann, discord_.general) == "TextChannel en-US True"


@pytest.mark.parametrize("connected", [True, False])
async def test_a_thread_is_a_place_below_a_channel_with_a_permission_of_its_own(discord_: Loopback, connected: bool) -> None:
    thread = None if connected else discord_.add_thread(discord_.general, "side")
    async with running(traveller()) as bot:
        thread = thread or discord_.add_thread(discord_.general, "side")
        known = await discord_.wait_for(lambda: bot.guilds[0].get_thread(thread.id))
        assert known.parent is not None and known.parent.id == discord_.general.id
        assert await said(discord_, discord_.ann, thread) == "Thread en-US False"
        await discord_.say(discord_.ann, thread, f"<@{discord_.bot.id}> hello")
        await discord_.wait_for(lambda: bot.heard)
        discord_.general.deny(permissions.SEND_MESSAGES)
        await known.send("hi")
        discord_.general.allow(permissions.SEND_MESSAGES)
        discord_.general.deny(permissions.SEND_MESSAGES_IN_THREADS)
        with pytest.raises(discord.Forbidden):
            await known.send("hi")
        assert isinstance(await bot.fetch_channel(thread.id), discord.Thread)


async def test_the_bot_is_a_member_of_threads_that_it_joins_or_writes_in(discord_: Loopback) -> None:
    joined, written, left = (discord_.add_thread(discord_.general, name) for name in ("joined", "written", "left"))
    async with running(Bot()) as bot:
        threads = {thread.id: bot.guilds[0].get_thread(thread.id) for thread in (joined, written, left)}
        assert [thread.me for thread in threads.values()] == [None] * 3
        await threads[joined.id].join()
        await threads[written.id].send("hi")
        await threads[left.id].join()
        await discord_.wait_for(lambda: threads[joined.id].me and threads[written.id].me and threads[left.id].me)
        removed: list[discord.Thread] = []
        bot.on_thread_remove = lambda thread: asyncio.sleep(0, removed.append(thread))
        await threads[left.id].leave()
        await discord_.wait_for(lambda: removed == [threads[left.id]])
        fresh = await bot.fetch_channel(written.id)
        assert fresh.me is not None and (fresh.member_count, fresh.message_count) == (2, 1)
        with pytest.raises(discord.HTTPException) as refused:
            await bot.http.join_thread(discord_.general.id)
        assert refused.value.code == 50024
    async with running(Bot()) as bot:
        assert [bot.guilds[0].get_thread(thread.id).me is not None for thread in (joined, written, left)] == [True, True, False]


async def test_messages_tell_in_what_kind_of_place_they_are(discord_: Loopback) -> None:
    places = (discord_.general, discord_.dm(discord_.ann), discord_.add_thread(discord_.general, "side"))
    said_there = [await discord_.say(discord_.ann, place, "hi") for place in places]
    assert [wire.message(discord_.world, message, guild_event=True)["channel_type"] for message in said_there] == [0, 1, 11]


@pytest.mark.parametrize(("guild", "place"), [(True, "PartialMessageable"), (False, "GroupChannel")])
async def test_where_the_bot_is_only_brought_along_it_may_answer_and_nothing_else(discord_: Loopback, guild: bool, place: str) -> None:
    async with running(traveller()) as bot:
        away = discord_.add_foreign_channel("away", guild)
        assert (await said(discord_, discord_.ann, away, more=6)).split()[1:] == ["en-US", "False"]
        await discord_.wait_for(lambda: away.messages[0].content == "40094")
        assert [message.content for message in away.messages] == ["40094", *["more"] * 5]
        with pytest.raises(discord.Forbidden) as refused:
            await bot.get_partial_messageable(away.id).send("hello")
        assert refused.value.code == 50001
        await discord_.say(discord_.ann, away, f"<@{discord_.bot.id}> hello")
        await discord_.say(discord_.ann, discord_.general, f"<@{discord_.bot.id}> hello")
        await discord_.wait_for(lambda: bot.heard)
        assert [message.channel.id for message in bot.heard] == [discord_.general.id]
        assert away.id not in {channel.id for channel in bot.get_all_channels()}


async def test_interactions_tell_who_brought_the_bot(discord_: Loopback) -> None:
    async with running(traveller()):
        guild, group = discord_.add_foreign_channel("away"), discord_.add_foreign_channel("group", guild=False)
        guild.deny(permissions.ATTACH_FILES)
        group.deny(permissions.ATTACH_FILES)
        for place, context, granted in (
            (guild, 0, permissions.EVERYONE & ~permissions.ATTACH_FILES),
            (group, 2, permissions.EMBED_LINKS | permissions.MENTION_EVERYONE),
        ):
            use = await discord_.command(discord_.ann, place, "talk")
            told = wire.interaction(discord_.world, use)
            assert (told["context"], told["app_permissions"]) == (context, str(granted))
            assert told["authorizing_integration_owners"] == {"1": str(discord_.ann.id)}
            message = await discord_.wait_for(lambda use=use: use.message)
            assert message.raw["interaction_metadata"]["authorizing_integration_owners"] == {"1": str(discord_.ann.id)}
        assert told["user"]["username"] == "ann" and "guild_id" not in told and told["channel"]["type"] == 3
        told = wire.interaction(discord_.world, await discord_.command(discord_.ben, guild, "talk"))
        assert (told["guild_id"], told["guild"]["id"]) == (str(guild.guild_id),) * 2 and told["member"]["user"]["username"] == "ben"
        assert told["guild_id"] != str(discord_.guild.id)
        told = wire.interaction(discord_.world, await discord_.command(discord_.ben, discord_.add_thread(guild, "side"), "talk"))
        assert (told["channel"]["type"], told["authorizing_integration_owners"]) == (11, {"1": str(discord_.ben.id)})


async def test_a_button_abroad_is_pressed_on_behalf_of_who_brought_the_bot(discord_: Loopback) -> None:
    bot = traveller()

    @bot.tree.command()
    async def offer(interaction: discord.Interaction) -> None:
        """Offer a button."""
        view = ui.View(timeout=None)
        view.add_item(ui.Button(label="Go", custom_id="go"))
        await interaction.response.send_message("offered", view=view)

    async with running(bot):
        use = await discord_.command(discord_.ann, discord_.add_foreign_channel("away"), "offer")
        message = await discord_.wait_for(lambda: use.message)
        told = wire.interaction(discord_.world, await discord_.press(discord_.ben, message, "go"))
        assert told["member"]["user"]["username"] == "ben" and told["authorizing_integration_owners"] == {"1": str(discord_.ann.id)}


async def test_no_route_opens_a_foreign_channel_to_the_bot_token(discord_: Loopback) -> None:
    async with running(traveller()) as bot:
        away = discord_.add_foreign_channel("away")
        side = discord_.add_thread(away, "side")
        await said(discord_, discord_.ann, away)
        message = f"/messages/{away.messages[0].id}"
        asked = [("GET", ""), ("GET", "/messages"), ("POST", "/messages"), ("POST", "/typing"), ("PUT", "/thread-members/@me")]
        asked += [("GET", message), ("PATCH", message), ("DELETE", message), ("PUT", f"{message}/reactions/x/@me")]
        for place in (away, side):
            for method, path in asked:
                with pytest.raises(discord.Forbidden) as refused:
                    await bot.http.request(
                        Route(method, f"/channels/{place.id}{path}"), json={"content": "x"} if method in ("POST", "PATCH") else None
                    )
                assert refused.value.code == 50001, (method, path)


async def test_the_gateway_is_silent_about_foreign_channels(discord_: Loopback) -> None:
    async with running(traveller()) as bot:
        [session] = discord_.sessions
        before = session.sequence
        for guild in (True, False):
            away = discord_.add_foreign_channel("away", guild)
            away.deny(permissions.ATTACH_FILES)
            message = await discord_.say(discord_.ann, away, f"{discord_.bot.mention} hello")
            await discord_.react(discord_.ann, message, "👍")
            await discord_.unreact(discord_.ann, message, "👍")
            discord_.world.edit_message(message)
            discord_.world.delete_message(message)
        assert session.sequence == before and bot.heard == []


async def test_a_token_edits_and_deletes_what_it_posted_abroad_while_it_lives(discord_: Loopback) -> None:
    bot = traveller()
    uses: list[discord.Interaction] = []

    @bot.tree.command()
    async def hold(interaction: discord.Interaction) -> None:
        """Keep the interaction."""
        await interaction.response.defer()
        uses.append(interaction)

    async with running(bot):
        away = discord_.add_foreign_channel("away", guild=False)
        await discord_.command(discord_.ann, away, "hold")
        [use] = await discord_.wait_for(lambda: uses)
        await use.edit_original_response(content="first")
        more = await use.followup.send("more", wait=True)
        await more.edit(content="even more")
        assert [message.content for message in away.messages] == ["first", "even more"]
        await more.delete()
        await use.delete_original_response()
        assert away.messages == []
        last = await use.followup.send("last", wait=True)
        discord_.clock.advance(15 * 60 + 1)
        for late in (last.edit(content="late"), last.delete(), use.followup.send("late")):
            with pytest.raises(discord.HTTPException) as refused:
                await late
            assert (refused.value.status, refused.value.code) == (401, 50027)
        assert [message.content for message in away.messages] == ["last"]


@pytest.mark.parametrize(("contexts", "guild", "offered"), [([0], True, True), ([0], False, False), ([1, 2], True, False), ([2], False, True)])
async def test_a_command_is_offered_only_in_the_contexts_it_names(discord_: Loopback, contexts: list[int], guild: bool, offered: bool) -> None:
    async with running(traveller()):
        [command] = discord_.world.commands[None]
        command["contexts"] = contexts
        away = discord_.add_foreign_channel("away", guild)
        if offered:
            assert (await discord_.autocomplete(discord_.ann, away, "talk", {}, "more"))[0]["value"] == 2
            return
        for attempt in (discord_.command(discord_.ann, away, "talk"), discord_.autocomplete(discord_.ann, away, "talk", {}, "more")):
            with pytest.raises(NotSent, match="not installed"):
                await attempt


async def test_commands_of_the_guild_stay_in_it(discord_: Loopback) -> None:
    async with running(traveller()) as bot:
        bot.tree.copy_global_to(guild=discord.Object(discord_.guild.id))
        await bot.tree.sync(guild=discord.Object(discord_.guild.id))
        away = discord_.add_foreign_channel("away")
        ids = [(await discord_.command(discord_.ann, place, "talk")).data["id"] for place in (discord_.general, away)]
        assert ids == [discord_.world.commands[scope][0]["id"] for scope in (discord_.guild.id, None)]
        discord_.world.commands[None].clear()
        with pytest.raises(NotSent, match="not installed"):
            await discord_.command(discord_.ann, away, "talk")


async def test_a_command_that_nobody_installed_for_themselves_is_not_offered_abroad(discord_: Loopback) -> None:
    bot = Bot()

    @bot.tree.command()
    async def talk(interaction: discord.Interaction) -> None:
        """Talk."""

    async with running(bot):
        with pytest.raises(NotSent, match="not installed"):
            await discord_.command(discord_.ann, discord_.add_foreign_channel("away"), "talk")


@pytest.mark.parametrize("connected", [True, False])
async def test_a_channel_may_be_hidden_from_somebody_with_the_threads_below_it(discord_: Loopback, connected: bool) -> None:
    secret = discord_.add_channel("secret")
    thread = discord_.add_thread(secret, "side")
    if not connected:
        secret.hide_from(discord_.ben)
    async with running(traveller()) as bot:
        if connected:
            secret.hide_from(discord_.ben)
        known = await discord_.wait_for(lambda: (channel := bot.get_channel(secret.id)) and channel.overwrites and channel)
        uses: list[discord.Interaction] = []
        bot.tree.interaction_check = lambda use: asyncio.sleep(0, uses.append(use) or True)
        for user, visible in ((discord_.ben, False), (discord_.ann, True)):
            await said(discord_, user, discord_.general)
            member = uses[-1].user
            assert [place.permissions_for(member).view_channel for place in (known, bot.get_channel(thread.id))] == [visible] * 2
            assert bot.get_channel(discord_.general.id).permissions_for(member).view_channel
        assert known.permissions_for(known.guild.me).view_channel
