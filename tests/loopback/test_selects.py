"""Selects of every kind in messages and forms, options of every kind, and commands below commands."""

from collections.abc import Callable
from typing import Any

import discord
import pytest
from discord import app_commands, ui

from loopback import Loopback, Message, permissions
from loopback.options import NotSent
from tests.loopback.conftest import Bot, running

SIZES = [discord.SelectOption(label="small"), discord.SelectOption(label="large", default=True)]
TEXT, THREAD = discord.ChannelType.text, discord.ChannelType.public_thread
MANY = {"min_values": 0, "max_values": 3}


def names(values: list[Any]) -> str:
    """Return what was chosen, with its kind as discord.py gives it."""
    return " ".join(f"{type(value).__name__}:{getattr(value, 'name', value)}" for value in values) or "nothing"


class Place(app_commands.Transformer):
    """Gives a text channel as it was resolved."""

    @property
    def type(self) -> discord.AppCommandOptionType:
        return discord.AppCommandOptionType.channel

    @property
    def channel_types(self) -> list[discord.ChannelType]:
        return [TEXT]

    async def transform(self, interaction: discord.Interaction, value: Any, /) -> Any:
        return value


class Menus(ui.View):
    """One select of each kind."""

    def __init__(self, server: Loopback) -> None:
        super().__init__(timeout=None)
        people = [discord.SelectDefaultValue(id=server.ben.id, type=discord.SelectDefaultValueType.user)]
        options = [discord.SelectOption(label=size, value=size[0]) for size in ("small", "large")]
        self.answering(ui.Select(custom_id="text", options=options, min_values=0, max_values=2))
        self.answering(ui.UserSelect(custom_id="user", default_values=people, **MANY))
        self.answering(ui.RoleSelect(custom_id="role", **MANY))
        self.answering(ui.MentionableSelect(custom_id="any", **MANY))
        self.answering(ui.ChannelSelect(custom_id="channel", channel_types=[TEXT], **MANY))

    def answering(self, select: Any) -> None:
        async def callback(interaction: discord.Interaction) -> None:
            resolved = {kind: [*found] for kind, found in sorted(interaction.data.get("resolved", {}).items())}
            await interaction.response.edit_message(content=f"{names(select.values)} {[*resolved]}")

        select.callback = callback
        self.add_item(select)


class Form(ui.Modal, title="Settings"):
    """A select of each kind, labelled."""

    role = ui.Label(text="Role", component=ui.RoleSelect(required=False, custom_id="role"))
    place = ui.Label(text="Place", component=ui.ChannelSelect(custom_id="place", required=True, channel_types=[THREAD]))
    people = ui.Label(text="People", component=ui.MentionableSelect(custom_id="people", required=True, max_values=2))
    size = ui.Label(text="Size", component=ui.Select(custom_id="size", options=SIZES))

    async def on_submit(self, interaction: discord.Interaction) -> None:
        chosen = [label.component.values for label in (self.role, self.place, self.people, self.size)]
        await interaction.response.send_message("; ".join(names(values) for values in chosen))


def chooser(server: Loopback) -> Bot:
    """Return a bot with commands that take things, in groups."""
    bot = Bot()

    @bot.tree.command()
    async def menus(interaction: discord.Interaction) -> None:
        """Show selects."""
        await interaction.response.send_message("choose", view=Menus(server))

    @bot.tree.command()
    async def form(interaction: discord.Interaction) -> None:
        """Show a form."""
        modal = Form()
        modal.people.component.default_values = [
            discord.SelectDefaultValue(id=server.ben.id, type=discord.SelectDefaultValueType.user),
            *(discord.SelectDefaultValue(id=role, type=discord.SelectDefaultValueType.role) for role in server.world.roles),
        ]
        await interaction.response.send_modal(modal)

    @bot.tree.command()
    async def take(
        interaction: discord.Interaction,
        role: discord.Role | None = None,
        who: discord.Member | discord.Role | None = None,
        place: app_commands.Transform[app_commands.AppCommandChannel, Place] | None = None,
        thread: discord.Thread | None = None,
        friend: discord.Member | None = None,
    ) -> None:
        """Take what is given."""
        given = [value for value in (role, who, place, thread, friend) if value is not None]
        rights = [value.permissions.value for value in given if isinstance(value, app_commands.AppCommandChannel)]
        await interaction.response.send_message(names(given) + (f" {rights}" if rights else ""))

    mydata = app_commands.Group(name="mydata", description="Your data")
    share = app_commands.Group(name="share", description="Sharing", parent=mydata)

    @mydata.command()
    async def export(interaction: discord.Interaction, kind: str, limit: int = 3) -> None:
        """Export your data."""
        await interaction.response.send_message(f"{interaction.command.qualified_name} {kind} {limit}")

    @export.autocomplete("kind")
    async def kinds(interaction: discord.Interaction, current: str) -> list[app_commands.Choice[str]]:
        return [app_commands.Choice(name=f"{current}…", value="zip")]

    @share.command()
    async def withdraw(interaction: discord.Interaction, picture: app_commands.Range[int, 1]) -> None:
        """Withdraw a picture."""
        await interaction.response.send_message(f"{interaction.command.qualified_name} {picture}")

    bot.tree.add_command(mydata)
    return bot


async def shown(server: Loopback, name: str, channel: Any = None, **options: Any) -> Message:
    """Use a command and return what it answers."""
    use = await server.command(server.ann, channel or server.general, name, options)
    return await server.wait_for(lambda: use.message)


CHOICES: dict[str, tuple[str, Callable[[Loopback], list[Any]], str]] = {
    "texts": ("text", lambda server: ["l", "s"], "str:l str:s []"),
    "no text": ("text", lambda server: [], "nothing []"),
    "people": ("user", lambda server: [server.ben, str(server.ann.id)], "Member:ben Member:ann ['members', 'users']"),
    "nobody": ("user", lambda server: [], "nothing []"),
    "roles": ("role", lambda server: [*server.world.roles.values()], "Role:helpers Role:guests ['roles']"),
    "a role by its id": ("role", lambda server: [str(min(server.world.roles))], "Role:helpers ['roles']"),
    "somebody and a role": (
        "any",
        lambda server: [server.world.roles[min(server.world.roles)], server.ben],
        "Member:ben Role:helpers ['members', 'roles', 'users']",
    ),
    "ids of both": (
        "any",
        lambda server: [str(server.ben.id), str(min(server.world.roles))],
        "Member:ben Role:helpers ['members', 'roles', 'users']",
    ),
    "channels": ("channel", lambda server: [server.general], "AppCommandChannel:general ['channels']"),
}


@pytest.mark.parametrize("what", CHOICES)
async def test_a_select_gives_the_bot(what: str, discord_: Loopback) -> None:
    discord_.add_role("helpers")
    discord_.add_role("guests", permissions.MANAGE_MESSAGES)
    select, chosen, expected = CHOICES[what]
    async with running(chooser(discord_)):
        message = await shown(discord_, "menus")
        use = await discord_.press(discord_.ann, message, select, chosen(discord_))
        await discord_.wait_for(lambda: use.acknowledged.is_set())
        assert message.content == expected
    assert discord_.violations == []


async def test_what_a_select_does_not_offer_cannot_be_chosen(discord_: Loopback) -> None:
    role, attic = discord_.add_role("helpers"), discord_.add_channel("attic")
    side, away = discord_.add_thread(attic, "side"), discord_.add_foreign_channel("away")
    bad = [
        ("text", ["m"]),
        ("text", ["s", "s"]),
        ("text", ["s", "l", "s"]),
        ("user", [role]),
        ("user", ["1"]),
        ("user", ["ann"]),
        ("role", [discord_.ann]),
    ]
    bad += [("role", ["7"]), ("any", [attic]), ("channel", [side]), ("channel", [away]), ("channel", [discord_.dm(discord_.ann)])]
    async with running(chooser(discord_)):
        message = await shown(discord_, "menus")
        for select, values in bad:
            with pytest.raises(NotSent):
                await discord_.press(discord_.ann, message, select, values)
        discord_.remove_channel(attic)
        with pytest.raises(NotSent):
            await discord_.press(discord_.ann, message, "channel", [attic])
        private = await shown(discord_, "menus", discord_.dm(discord_.ann))
        with pytest.raises(NotSent):
            await discord_.press(discord_.ann, private, "role", [role])
        use = await discord_.press(discord_.ann, private, "user", [discord_.ann])
        await discord_.wait_for(lambda: use.acknowledged.is_set())
        assert private.content == "User:ann ['users']"


async def test_a_form_with_selects_comes_back_filled_in(discord_: Loopback) -> None:
    role = discord_.add_role("helpers")
    side = discord_.add_thread(discord_.general, "side")
    async with running(chooser(discord_)):
        use = await discord_.command(discord_.ann, discord_.general, "form")
        await discord_.wait_for(lambda: use.modal)
        for values in ({}, {"place": discord_.general}, {"place": side, "people": []}, {"place": [side, side]}):
            with pytest.raises(NotSent):
                await discord_.submit_modal(discord_.ann, use, values)
        sent = await discord_.submit_modal(discord_.ann, use, {"place": [side]})
        message = await discord_.wait_for(lambda: sent.message)
        assert message.content == "nothing; AppCommandThread:side; Member:ben Role:helpers; str:large", "what was preset is sent"
        use = await discord_.command(discord_.ann, discord_.general, "form")
        await discord_.wait_for(lambda: use.modal)
        values = {"role": role, "place": str(side.id), "people": [discord_.olga], "size": "small"}
        sent = await discord_.submit_modal(discord_.ann, use, values)
        message = await discord_.wait_for(lambda: sent.message)
        assert message.content == "Role:helpers; AppCommandThread:side; Member:olga; str:small"
    assert discord_.violations == []


async def test_commands_take_roles_channels_and_people(discord_: Loopback) -> None:
    role, attic = discord_.add_role("helpers"), discord_.add_channel("attic", nsfw=True)
    side = discord_.add_thread(attic, "side")
    async with running(chooser(discord_)):
        for options, expected in (
            ({"role": role}, "Role:helpers"),
            ({"role": str(role.id), "who": discord_.ben}, "Role:helpers Member:ben"),
            ({"who": role, "friend": discord_.olga}, "Role:helpers Member:olga"),
            ({"place": attic}, f"AppCommandChannel:attic [{permissions.EVERYONE}]"),
            ({"thread": side}, "Thread:side"),
        ):
            assert (await shown(discord_, "take", **options)).content == expected
        for options in ({"role": discord_.ann}, {"role": "1"}, {"place": side}, {"thread": attic}, {"friend": role}, {"who": attic}):
            with pytest.raises(NotSent):
                await discord_.command(discord_.ann, discord_.general, "take", options)
        use = await discord_.command(discord_.ann, discord_.general, "take", {"place": attic, "role": role})
        told = use.data["resolved"]
        assert told["channels"][str(attic.id)]["nsfw"] and told["channels"][str(attic.id)]["app_permissions"] == str(permissions.EVERYONE)
        assert told["roles"][str(role.id)]["name"] == "helpers"
        use = await discord_.command(discord_.olga, discord_.general, "take", {"thread": side})
        assert use.data["resolved"]["channels"][str(side.id)]["permissions"] == str(permissions.ALL)


async def test_commands_below_commands_are_used_by_their_whole_names(discord_: Loopback) -> None:
    async with running(chooser(discord_)):
        assert (await shown(discord_, "mydata export", kind="all", limit="5")).content == "mydata export all 5"
        assert (await shown(discord_, "mydata share withdraw", picture=7)).content == "mydata share withdraw 7"
        choices = await discord_.autocomplete(discord_.ann, discord_.general, "mydata export", {"kind": "z"}, "kind")
        assert [(choice["name"], choice["value"]) for choice in choices] == [("z…", "zip")]
        for name in ("mydata", "mydata share", "mydata forget", "mydata export more"):
            with pytest.raises(NotSent):
                await discord_.command(discord_.ann, discord_.general, name)


async def test_a_badly_built_select_is_refused(discord_: Loopback, bot: Bot) -> None:
    channel = bot.get_channel(discord_.general.id)
    everybody = [discord.SelectDefaultValue(id=person.id, type=discord.SelectDefaultValueType.user) for person in (discord_.ann, discord_.ben)]
    for select in (
        {"type": 5, "custom_id": "s", "default_values": [{"id": "1", "type": "role"}]},
        {"type": 8, "custom_id": "s", "default_values": [default.to_dict() for default in everybody], "max_values": 1},
        {"type": 6, "custom_id": "s", "max_values": 26},
        {"type": 6, "custom_id": "s", "min_values": -1},
    ):
        with pytest.raises(discord.HTTPException) as refused:
            route = discord.http.Route("POST", f"/channels/{channel.id}/messages")
            await bot.http.request(route, json={"components": [{"type": 1, "components": [select]}]})
        assert refused.value.code == 50035
    assert discord_.general.messages == []
