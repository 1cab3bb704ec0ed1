"""discord.py, unmodified, through its whole life."""

import asyncio
import io

import discord
import pytest
from discord import app_commands, ui

from loopback import Loopback, permissions
from loopback.options import NotSent
from tests.loopback.conftest import Bot, running

PICTURE = bytes.fromhex("89504e470d0a1a0a0000000d4948445200000003000000020802000000") + bytes(40)
"""Enough of a PNG of 3 × 2 pixels to be recognised."""


def file(name: str = "grid.png", data: bytes = PICTURE, **options: object) -> discord.File:
    return discord.File(io.BytesIO(data), name, **options)


class Again(ui.DynamicItem[ui.Button[ui.View]], template=r"again:(?P<job>\d+)"):
    """A button that carries its job in its id, so that it outlives the process."""

    def __init__(self, job: int) -> None:
        super().__init__(ui.Button(label="Again", custom_id=f"again:{job}"))
        self.job = job

    @classmethod
    async def from_custom_id(cls, interaction: discord.Interaction, item: ui.Item[ui.View], match: "object") -> "Again":
        return cls(int(match["job"]))

    async def callback(self, interaction: discord.Interaction) -> None:
        await interaction.response.edit_message(content=f"again {self.job}")


class Form(ui.Modal, title="Dream again"):
    prompt = ui.Label(text="Prompt", component=ui.TextInput(default="a fox", max_length=50))
    picture = ui.Label(text="Picture", component=ui.FileUpload(required=False))

    async def on_submit(self, interaction: discord.Interaction) -> None:
        names = [upload.filename for upload in self.picture.component.values]
        await interaction.response.send_message(f"{self.prompt.component.value} {names}", ephemeral=True)


def painter() -> Bot:
    """Return a bot with the commands that these tests use."""
    bot = Bot()
    bot.add_dynamic_items(Again)

    @bot.tree.command()
    @app_commands.describe(prompt="What to draw", count="How many")
    async def dream(
        interaction: discord.Interaction, prompt: str, count: app_commands.Range[int, 1, 9] = 4, picture: discord.Attachment | None = None
    ) -> None:
        """Draw a picture."""
        await interaction.response.defer(thinking=True)
        seen = len(await picture.read()) if picture else 0
        await interaction.edit_original_response(content=f"{count} of {prompt} after {seen} bytes", attachments=[file(description=prompt)])
        await interaction.followup.send("more", ephemeral=True)

    @dream.autocomplete("prompt")
    async def suggest(interaction: discord.Interaction, current: str) -> list[app_commands.Choice[str]]:
        return [app_commands.Choice(name=f"{current} in the snow", value=f"{current} snow")]

    @bot.tree.command()
    async def form(interaction: discord.Interaction) -> None:
        """Ask for more."""
        await interaction.response.send_modal(Form())

    @bot.tree.command()
    async def wait(interaction: discord.Interaction) -> None:
        """Never answer."""

    @bot.tree.context_menu(name="Vary")
    async def vary(interaction: discord.Interaction, message: discord.Message) -> None:
        await interaction.response.send_message(f"{message.content} {[one.filename for one in message.attachments]}")

    return bot


async def test_a_bot_logs_in_and_sees_its_guild(discord_: Loopback, bot: Bot) -> None:
    assert [guild.name for guild in bot.guilds] == ["Loopback"]
    assert bot.user and bot.user.id == discord_.bot.id
    assert len(discord_.sessions) == 1


async def test_a_wrong_token_is_refused(discord_: Loopback) -> None:
    async with Bot() as bot:
        with pytest.raises(discord.LoginFailure):
            await bot.login("wrong")


async def test_an_intent_that_is_switched_off_is_refused(discord_: Loopback) -> None:
    async with Bot(intents=discord.Intents(guilds=True, message_content=True)) as bot:
        await bot.login(discord_.token)
        with pytest.raises(discord.PrivilegedIntentsRequired):
            await asyncio.wait_for(bot.connect(), 5)


async def test_a_deferred_command_is_edited_and_followed_up(discord_: Loopback) -> None:
    async with running(painter()):
        use = await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a fox", "count": 2, "picture": PICTURE})
        await discord_.wait_for(lambda: use.followups)
        assert use.response_type == 5
        assert use.acknowledged_after_s is not None and use.acknowledged_after_s < 1
        assert use.message in discord_.general.messages
        assert use.message.content == f"2 of a fox after {len(PICTURE)} bytes" and not use.message.thinking
        assert [(one.filename, one.description, one.width, one.height) for one in use.message.attachments] == [("grid.png", "a fox", 3, 2)]
        assert use.message.attachments[0].data == PICTURE
        assert use.followups[0].ephemeral and use.followups[0].visible_to == discord_.ann.id
    assert discord_.violations == []


async def test_options_that_the_client_would_not_send_are_kept_back(discord_: Loopback) -> None:
    async with running(painter()):
        for options in ({}, {"prompt": "a fox", "count": 10}, {"prompt": "a fox", "count": "many"}, {"prompt": "a fox", "size": 3}):
            with pytest.raises(NotSent):
                await discord_.command(discord_.ann, discord_.general, "dream", options)


async def test_autocomplete_offers_choices(discord_: Loopback) -> None:
    async with running(painter()):
        choices = await discord_.autocomplete(discord_.ann, discord_.general, "dream", {"prompt": "a fo"}, "prompt")
        assert [(choice["name"], choice["value"]) for choice in choices] == [("a fo in the snow", "a fo snow")]


async def test_a_context_menu_shows_the_bot_a_message_it_could_not_read(discord_: Loopback) -> None:
    async with running(painter()) as bot:
        said = await discord_.say(discord_.ben, discord_.general, "my cat", files=[("cat.png", PICTURE)])
        use = await discord_.context_menu(discord_.ann, discord_.general, said, "Vary")
        await discord_.wait_for(lambda: use.message)
        assert use.message.content == "my cat ['cat.png']"
        assert bot.heard[0].content == ""


async def test_a_modal_comes_back_filled_in(discord_: Loopback) -> None:
    async with running(painter()):
        use = await discord_.command(discord_.ann, discord_.general, "form")
        await discord_.wait_for(lambda: use.modal)
        labels = [part["component"]["custom_id"] for part in use.modal["components"]]
        sent = await discord_.submit_modal(discord_.ann, use, {labels[0]: "a wolf", labels[1]: [("wolf.png", PICTURE)]})
        await discord_.wait_for(lambda: sent.message)
        assert sent.message.content == "a wolf ['wolf.png']" and sent.message.ephemeral
    assert discord_.violations == []


async def test_a_button_outlives_its_bot(discord_: Loopback) -> None:
    async with running(painter()) as bot:
        view = ui.View(timeout=None)
        view.add_item(Again(7))
        await bot.get_channel(discord_.general.id).send("done", view=view)
    async with running(painter()):
        [message] = discord_.general.messages
        use = await discord_.press(discord_.ann, message, "again:7")
        await use.acknowledged.wait()
        assert message.content == "again 7" and use.response_type == 7


async def test_an_interaction_without_answer_is_missed_after_three_seconds(discord_: Loopback) -> None:
    async with running(painter()):
        use = await discord_.command(discord_.ann, discord_.general, "wait")
        discord_.clock.advance(2.9)
        assert not use.missed
        discord_.clock.advance(0.2)
        assert use.missed


async def test_a_token_is_dead_after_fifteen_minutes(discord_: Loopback) -> None:
    bot = Bot()
    uses: list[discord.Interaction] = []

    @bot.tree.command()
    async def hold(interaction: discord.Interaction) -> None:
        """Keep the interaction."""
        await interaction.response.defer()
        uses.append(interaction)

    async with running(bot):
        use = await discord_.command(discord_.ann, discord_.general, "hold")
        await discord_.wait_for(lambda: uses and use.message)
        discord_.clock.advance(15 * 60 + 1)
        with pytest.raises(discord.HTTPException) as caught:
            await uses[0].edit_original_response(content="late")
        assert (caught.value.status, caught.value.code) == (401, 50027)
        assert (await bot.get_channel(discord_.general.id).send("in time")).content == "in time"


async def test_an_edit_keeps_only_the_files_it_lists(discord_: Loopback, bot: Bot) -> None:
    sent = await bot.get_channel(discord_.general.id).send("two", files=[file("a.png"), file("b.png")])
    kept = await sent.edit(content="one and a new one", attachments=[sent.attachments[1], file("c.png")])
    assert [one.filename for one in kept.attachments] == ["b.png", "c.png"]
    assert await kept.attachments[0].read() == PICTURE
    with pytest.raises(discord.NotFound):
        await sent.attachments[0].read()
    assert [one.filename for one in (await kept.edit(content="still")).attachments] == ["b.png", "c.png"]
    assert discord_.violations == []


async def test_a_link_to_a_file_expires(discord_: Loopback, bot: Bot) -> None:
    channel = bot.get_channel(discord_.general.id)
    sent = await channel.send(file=file())
    discord_.clock.advance(26 * 3600)
    with pytest.raises(discord.NotFound):
        await sent.attachments[0].read()
    fresh = await channel.fetch_message(sent.id)
    assert await fresh.attachments[0].read() == PICTURE


async def test_an_embed_shows_the_file_it_names(discord_: Loopback, bot: Bot) -> None:
    picture = file()
    sent = await bot.get_channel(discord_.general.id).send(file=picture, embed=discord.Embed(title="A grid").set_image(url=picture.uri))
    assert sent.attachments == [] and sent.embeds[0].image.url.startswith(discord_.page + "attachments/")


async def test_a_nonce_is_good_for_one_message(discord_: Loopback, bot: Bot) -> None:
    channel = bot.get_channel(discord_.general.id)
    first, second = await channel.send("done", nonce="job-7"), await channel.send("done", nonce="job-7")
    other = await channel.send("done", nonce="job-8")
    assert first.id == second.id != other.id
    assert len(discord_.general.messages) == 2
    discord_.clock.advance(6 * 60)
    assert (await channel.send("done", nonce="job-7")).id != first.id


async def test_a_reply_is_a_mention_and_therefore_readable(discord_: Loopback, bot: Bot) -> None:
    sent = await bot.get_channel(discord_.general.id).send("a grid")
    await discord_.say(discord_.ann, discord_.general, "secret")
    await discord_.say(discord_.ann, discord_.general, "as a fox", reply_to=discord_.general.find(sent.id), files=[("fox.png", PICTURE)])
    await discord_.say(discord_.ann, discord_.general, f"hello {discord_.bot.mention}")
    await discord_.say(discord_.ann, discord_.dm(discord_.ann), "in private")
    await discord_.wait_for(lambda: len(bot.heard) == 5)
    assert [heard.content for heard in bot.heard] == ["a grid", "", "as a fox", f"hello {discord_.bot.mention}", "in private"]
    assert [len(heard.attachments) for heard in bot.heard] == [0, 0, 1, 0, 0]
    assert bot.heard[2].reference.resolved.content == "a grid"


async def test_content_is_readable_with_the_intent(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.loopback.conftest import point_at

    async with Loopback(message_content=True) as discord_:
        point_at(discord_, monkeypatch)
        intents = discord.Intents(guilds=True, messages=True, message_content=True)
        async with running(Bot(intents=intents)) as bot:
            await discord_.say(discord_.ann, discord_.general, "hello")
            await discord_.wait_for(lambda: bot.heard)
            assert bot.heard[0].content == "hello"


async def test_a_direct_message_arrives_unless_they_are_closed(discord_: Loopback, bot: Bot) -> None:
    shut = discord_.add_user("carol", dms_open=False)
    await (await bot.fetch_user(discord_.ann.id)).send("done")
    assert [message.content for message in discord_.dm(discord_.ann).messages] == ["done"]
    with pytest.raises(discord.Forbidden) as caught:
        await (await bot.fetch_user(shut.id)).send("done")
    assert caught.value.code == 50007


async def test_permissions_are_told_and_enforced(discord_: Loopback, bot: Bot) -> None:
    channel = bot.get_channel(discord_.general.id)
    changed = asyncio.get_running_loop().create_future()
    bot.on_guild_channel_update = lambda before, after: asyncio.sleep(0, changed.set_result(after))
    discord_.general.deny(permissions.ATTACH_FILES)
    await asyncio.wait_for(changed, 5)
    assert not channel.permissions_for(channel.guild.me).attach_files
    await channel.send("words are fine")
    with pytest.raises(discord.Forbidden) as caught:
        await channel.send(file=file())
    assert caught.value.code == 50013
    discord_.general.deny(permissions.VIEW_CHANNEL)
    with pytest.raises(discord.Forbidden) as caught:
        await channel.send("hello?")
    assert caught.value.code == 50001
    discord_.general.allow(permissions.VIEW_CHANNEL | permissions.ATTACH_FILES)
    await channel.send(file=file())


async def test_the_bot_may_edit_and_delete_only_its_own(discord_: Loopback, bot: Bot) -> None:
    channel = bot.get_channel(discord_.general.id)
    said = await discord_.say(discord_.ann, discord_.general, "mine")
    theirs = channel.get_partial_message(said.id)
    for act, code in ((theirs.edit(content="x"), 50005), (theirs.delete(), 50013)):
        with pytest.raises(discord.Forbidden) as caught:
            await act
        assert caught.value.code == code
    own = await channel.send("own")
    await own.delete()
    with pytest.raises(discord.NotFound) as missing:
        await channel.fetch_message(own.id)
    assert missing.value.code == 10008
    assert [message async for message in channel.history()] == [theirs]


async def test_history_walks_both_ways(discord_: Loopback, bot: Bot) -> None:
    channel = bot.get_channel(discord_.general.id)
    ids = [(await channel.send(str(number))).id for number in range(5)]
    assert [message.content async for message in channel.history(limit=2)] == ["4", "3"]
    assert [message.content async for message in channel.history(limit=2, after=discord.Object(ids[0]))] == ["1", "2"]
    assert [message.content async for message in channel.history(before=discord.Object(ids[2]))] == ["1", "0"]


async def test_reactions_reach_both_sides(discord_: Loopback, bot: Bot) -> None:
    seen: list[str] = []

    async def on_raw_reaction_add(event: discord.RawReactionActionEvent) -> None:
        seen.append(f"{event.user_id} {event.emoji}")

    bot.on_raw_reaction_add = on_raw_reaction_add
    sent = await bot.get_channel(discord_.general.id).send("vote")
    await sent.add_reaction("👍")
    message = discord_.general.find(sent.id)
    await discord_.react(discord_.ann, message, "👍")
    await bot.get_channel(discord_.general.id).fetch_message(sent.id)
    assert message.reactions == {"👍": [discord_.bot.id, discord_.ann.id]}
    assert seen == [f"{discord_.bot.id} 👍", f"{discord_.ann.id} 👍"]
    await sent.remove_reaction("👍", bot.user)
    assert message.reactions == {"👍": [discord_.ann.id]}


async def test_an_ephemeral_message_is_out_of_reach_of_the_bot_token(discord_: Loopback) -> None:
    async with running(painter()) as bot:
        use = await discord_.command(discord_.ann, discord_.general, "dream", {"prompt": "a fox"})
        await discord_.wait_for(lambda: use.followups)
        with pytest.raises(discord.NotFound):
            await bot.get_channel(discord_.general.id).fetch_message(use.followups[0].id)
        assert use.followups[0].id not in [heard.id for heard in bot.heard]


async def test_a_rate_limit_is_waited_out(discord_: Loopback, bot: Bot) -> None:
    discord_.fail_next(2, status=429, path=r"/messages$", retry_after=0.01)
    await bot.get_channel(discord_.general.id).send("at last")
    assert [request.status for request in discord_.requests if request.path.endswith("/messages")] == [429, 429, 200]


async def test_other_failures_are_told(discord_: Loopback, bot: Bot) -> None:
    discord_.fail_next(1, status=503, path=r"/messages$")
    with pytest.raises(discord.DiscordServerError):
        await bot.get_channel(discord_.general.id).send("no")


async def test_a_session_is_resumed_and_misses_nothing(discord_: Loopback, bot: Bot) -> None:
    discord_.drop_gateway()
    assert discord_.sessions == []
    await discord_.say(discord_.ann, discord_.dm(discord_.ann), "while you were out")
    await discord_.wait_for(lambda: bot.heard and bot.resumed)
    assert [heard.content for heard in bot.heard] == ["while you were out"]
    discord_.reconnect()
    await discord_.wait_for(lambda: bot.resumed == 2)
    assert bot.readied == 1


async def test_an_invalid_session_begins_anew(discord_: Loopback, bot: Bot) -> None:
    before = discord_.sessions[0].id
    discord_.invalidate()
    await discord_.wait_for(lambda: bot.readied == 2)
    assert discord_.sessions[0].id != before and bot.resumed == 0


async def test_a_session_that_is_forgotten_begins_anew(discord_: Loopback, bot: Bot) -> None:
    discord_.drop_gateway(resumable=False)
    await discord_.wait_for(lambda: bot.readied == 2)


async def test_commands_keep_their_ids_when_they_are_synced_again(discord_: Loopback) -> None:
    async with running(painter()) as bot:
        before = {command.name: command.id for command in await bot.tree.fetch_commands()}
        assert {command.name: command.id for command in await bot.tree.sync()} == before
        assert set(before) == {"dream", "form", "wait", "Vary"}
