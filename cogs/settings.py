"""/settings: one panel for what people, channels and servers choose. Menus and forms say in their ids what they are for: they outlive a restart."""

import re
from typing import Any, Self

import discord
from discord import app_commands
from discord.ext import commands

from cogs import _cards as cards
from cogs._address import NOBODY
from cogs._client import Reverie
from cogs._desk import Desk
from cogs._forms import Form as Sheet
from cogs._forms import open_form, sent_about, values
from cogs._house import Place
from cogs._language import Language, language_of, mark
from cogs._options import PRESET_NAMES
from cogs._replies import Forgotten, refuse
from engine.errors import InvalidRequest
from engine.preferences import LANGUAGE_NAMES, LIST_LIMIT, ROLES_LIMIT, SETTINGS, Area, Form, Level, Preferences, Setting

NAMES = {
    "model": mark("Model"),
    "count": mark("Pictures"),
    "steps": mark("Steps"),
    "guidance": mark("Guidance"),
    "preset": mark("Preset"),
    "spoiler": mark("Spoiler"),
    "language": mark("Language"),
    "max_count": mark("Pictures at most"),
    "max_steps": mark("Steps at most"),
    "max_jobs": mark("Jobs of one person at most"),
    "painting": mark("Painting in this channel"),
    "channels": mark("Channels to paint in"),
    "retention_days": mark("Days that pictures are kept"),
    "gallery": mark("Gallery"),
    "gallery_stars": mark("Stars for the gallery"),
    "blocked_words": mark("Blocked words"),
    "word_policy": mark("Prompts with blocked words"),
    "blocked_concepts": mark("Blocked concepts"),
    "concept_policy": mark("Pictures of blocked concepts"),
    "strictness": mark("Strictness"),
    "adult_channels": mark("Concepts in age-restricted channels"),
    "min_days": mark("Days on the server first"),
    "reports": mark("Channel for reports"),
    "may_settings": mark("Who may change settings"),
    "may_gallery": mark("Who may change the gallery"),
    "may_safety": mark("Who may change safety"),
    "may_moderation": mark("Who may moderate"),
}
HINTS = {
    "count": mark("From {least} to {most}; empty for no choice"),
    "blocked_words": mark("One word or phrase in a line; * allows any ending"),
    "blocked_concepts": mark("One in a line, as pictures show it: blood, a snake"),
}
CHOICES: dict[str, str] = {
    **PRESET_NAMES,
    "yes": mark("yes"),
    "no": mark("no"),
    "all": mark("all but those where it is switched off"),
    "allowed": mark("only those where it is switched on"),
    "refuse": mark("are refused"),
    "remove": mark("lose these words"),
    "withhold": mark("are not posted"),
    "low": mark("low: only clear cases"),
    "middle": mark("middle"),
    "high": mark("high: rather too many"),
    "free": mark("are allowed"),
    "same": mark("are blocked there too"),
}
LEVELS = {Level.USER: mark("For me"), Level.CHANNEL: mark("For this channel"), Level.SERVER: mark("For this server")}
POLICIES = {"spoiler": mark("go under a spoiler"), "withhold": CHOICES["withhold"]}
"""What stands for "spoiler" as a policy; elsewhere that word is a setting's own name."""
NONE = "none"
"""The choice of no choice."""
LABEL_LIMIT, PLACEHOLDER_LIMIT = 45, 100
MENU_LIMIT = 25
"""Choices in one of Discord's menus."""
MENU_ID = re.compile(r"reverie-settings:(?P<level>user|channel|server)(:(defaults|rules))?")


class Menu(discord.ui.DynamicItem[discord.ui.Select[discord.ui.View]], template=MENU_ID):
    """The menu of a panel: at which level something is to be changed, and what."""

    def __init__(self, item: discord.ui.Select[discord.ui.View], level: Level) -> None:
        super().__init__(item)
        self.level = level

    @classmethod
    async def from_custom_id(cls, interaction: discord.Interaction, item: discord.ui.Item, match: re.Match[str], /) -> Self:  # type: ignore[type-arg]
        """Rebuild a menu from what its id says."""
        return cls(item, Level(match["level"]))  # type: ignore[arg-type]

    async def interaction_check(self, interaction: discord.Interaction[Reverie], /) -> bool:  # type: ignore[override]
        """Begin nothing new while the bot stops."""
        return not interaction.client.stopping

    async def callback(self, interaction: discord.Interaction[Reverie]) -> None:  # type: ignore[override]
        """Open the panel of another level, or the form of a setting."""
        panel = interaction.client.get_cog("Panel")
        data: Any = interaction.data or {}
        chosen = str((data.get("values") or [""])[0])
        try:
            if not isinstance(panel, Panel):
                raise Forgotten
            await panel.chosen(interaction, self.level, chosen)
        except Exception as error:
            await refuse(interaction, error)


class Panel(commands.Cog):
    """Shows what is chosen and lets those change it who may. Every change of a server's choices goes into the audit log."""

    def __init__(self, bot: Reverie) -> None:
        self._bot = bot
        self._desk: Desk = bot.desk
        self._preferences: Preferences = bot.preferences

    @app_commands.command()
    async def settings(self, interaction: discord.Interaction) -> None:
        """Show and change what is usual for you, this channel and this server."""
        place = self._desk.place(interaction)
        await interaction.response.send_message(**self.panel(place, Level.USER, language_of(interaction)), ephemeral=True)

    # The panel.

    def panel(self, place: Place, level: Level, say: Language) -> dict[str, Any]:
        """Return the message that shows one level: what is chosen, and menus to change it."""
        levels = [one for one in Level if one is Level.USER or place.guild_id is not None]
        there = [setting for setting in SETTINGS.values() if level in setting.levels]
        chosen_here = {setting.name: self._preferences.get(level, subject_of(place, level), setting.name) for setting in there}
        names = {one.name: say(NAMES[one.name]) for one in there}
        lines = [f"**{names[one.name]}**: {shown(one, chosen_here[one.name], say)}" for one in there if chosen_here[one.name] is not None]
        unset = ", ".join(names[one.name] for one in there if chosen_here[one.name] is None)
        lines += [" ".join([say("Not chosen:"), unset])] if unset else []
        embed = discord.Embed(title=say(LEVELS[level]), description=cards.shorten("\n".join(lines), cards.EMBED_TEXT_LIMIT), colour=cards.COLOUR)
        view = discord.ui.View(timeout=None)
        if len(levels) > 1:
            options = [discord.SelectOption(label=say(LEVELS[one]), value=one, default=one is level) for one in levels]
            view.add_item(discord.ui.Select(custom_id=f"reverie-settings:{level}", options=options))
        mine = [one for one in there if self._desk.house.may(place, area_of(one, level))]
        # Where one menu cannot hold them all, what is a matter of taste and what is a matter of order have one each.
        rules = [one for one in mine if one.area in (Area.SAFETY, Area.OWNER)] if len(mine) > MENU_LIMIT else []
        parts = {"defaults": [one for one in mine if one not in rules], "rules": rules}
        for part, settings in parts.items():
            if settings:
                options = [discord.SelectOption(label=names[one.name], value=one.name) for one in settings]
                placeholder = say("Change …")
                view.add_item(discord.ui.Select(custom_id=f"reverie-settings:{level}:{part}", options=options, placeholder=placeholder))
        view.stop()
        return {"embed": embed, "view": view, "allowed_mentions": NOBODY}

    async def chosen(self, interaction: discord.Interaction, level: Level, chosen: str) -> None:
        """Show another level, or ask for the value of a setting.

        Raises:
            Forgotten: there is no such level or setting here.
            MayNot: it is not for this person to change.
        """
        place, say = self._desk.place(interaction), language_of(interaction)
        if chosen in set(Level):
            if chosen != Level.USER and place.guild_id is None:
                raise Forgotten
            await interaction.response.edit_message(**self.panel(place, Level(chosen), say))
            return
        setting = self.allowed(place, level, chosen)
        old = self._preferences.get(level, subject_of(place, level), setting.name)
        label = discord.ui.Label(
            text=say(NAMES[setting.name])[:LABEL_LIMIT], description=hint(setting, say), component=field(setting, old, self.models, say)
        )
        await open_form(interaction, Sheet.SETTING, f"{level}.{setting.name}", say(LEVELS[level]), label)

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models that can be chosen."""
        return self._bot.worker.models

    def allowed(self, place: Place, level: Level, name: str) -> Setting:
        """Return a setting that somebody may change.

        Raises:
            Forgotten: there is none of this name at this level.
            MayNot: it is not for them to change.
        """
        setting = SETTINGS.get(name)
        if setting is None or level not in setting.levels or (level is not Level.USER and place.guild_id is None):
            raise Forgotten
        self._desk.house.check_may(place, area_of(setting, level))
        return setting

    @commands.Cog.listener("on_interaction")
    async def written(self, interaction: discord.Interaction) -> None:
        """Remember what was written into a form, which may have been opened before a restart, or by who may no longer."""
        name = sent_about(interaction, Sheet.SETTING)
        if name is None:
            return
        try:
            level_name, _, setting_name = name.partition(".")
            if level_name not in set(Level):
                raise Forgotten
            level, place = Level(level_name), self._desk.place(interaction)
            setting = self.allowed(place, level, setting_name)
            written = values(interaction).get("value")
            if setting.form in (Form.CHOICE, Form.CHANNEL) and isinstance(written, list):
                written = written[0] if written else None
            if setting.form is Form.CHOICE and (written == NONE or (setting.name == "model" and written not in self.models)):
                written = None
            if setting.form is Form.CHANNEL and written is not None:
                check_channel(interaction, written)
            value = await self._preferences.choose(level, subject_of(place, level), setting.name, written)
            if level is not Level.USER and place.guild_id is not None:
                await self._bot.moderation.note(place.guild_id, interaction.user.id, f"set {setting.name}", None, level=level, value=value)
            if setting.name.startswith("gallery") and place.guild_id is not None:
                await self._bot.board.touch_server(place.guild_id)
            if interaction.message is not None:
                await interaction.response.edit_message(**self.panel(place, level, language_of(interaction)))
            else:
                await interaction.response.send_message(**self.panel(place, level, language_of(interaction)), ephemeral=True)
        except Exception as error:
            await refuse(interaction, error)


def check_channel(interaction: discord.Interaction, written: Any) -> None:
    """Make sure that a channel is one of this server.

    Raises:
        InvalidRequest: it is not.
    """
    number = str(written)
    if interaction.guild is None or not number.isdecimal() or interaction.guild.get_channel_or_thread(int(number)) is None:
        raise InvalidRequest("value", "be one channel")


def area_of(setting: Setting, level: Level) -> Area:
    """Return who may change a setting at a level: everybody their own."""
    return Area.OWN if level is Level.USER else setting.area


def subject_of(place: Place, level: Level) -> int:
    """Return whose choices a level's are."""
    return {Level.USER: place.user_id, Level.CHANNEL: place.channel_ids[0], Level.SERVER: place.guild_id or 0}[level]


def shown(setting: Setting, value: Any, say: Language) -> str:
    """Say what was chosen."""
    match setting.form:
        case Form.CHANNEL:
            return f"<#{value}>"
        case Form.ROLES:
            return ", ".join(f"<@&{role}>" for role in value)
        case Form.LINES:
            # Nobody is to read them who only looks.
            return say("{count} entries", count=len(value))
        case Form.CHOICE:
            return discord.utils.escape_markdown(choice_name(setting, value, say))
        case _:
            return f"{value:g}"


def choice_name(setting: Setting, value: str, say: Language) -> str:
    """Say one of a setting's few values."""
    if setting.name == "language":
        return LANGUAGE_NAMES[value]
    if setting.name == "concept_policy":
        return say(POLICIES[value])
    # A model's name is its own, whatever word it is.
    return say(CHOICES[value]) if setting.choices and value in CHOICES else value


def hint(setting: Setting, say: Language) -> str | None:
    """Say what can be written into a form."""
    if setting.form is Form.NUMBER and setting.bounds is not None:
        least, most = setting.bounds
        return say(HINTS["count"], least=f"{least:g}", most=f"{most:g}")[:PLACEHOLDER_LIMIT]
    return say(HINTS[setting.name])[:PLACEHOLDER_LIMIT] if setting.name in HINTS else None


def field(setting: Setting, old: Any, models: tuple[str, ...], say: Language) -> discord.ui.Item[Any]:
    """Return what a setting's value is asked for with, at its present value."""
    match setting.form:
        case Form.CHANNEL:
            kinds = [discord.ChannelType.text, discord.ChannelType.public_thread]
            return discord.ui.ChannelSelect[Any](
                custom_id="value",
                required=False,
                min_values=0,
                channel_types=kinds,
                default_values=[discord.SelectDefaultValue(id=old, type=discord.SelectDefaultValueType.channel)] if old else [],
            )
        case Form.ROLES:
            defaults = [discord.SelectDefaultValue(id=role, type=discord.SelectDefaultValueType.role) for role in old or ()]
            return discord.ui.RoleSelect[Any](custom_id="value", required=False, min_values=0, max_values=ROLES_LIMIT, default_values=defaults)
        case Form.CHOICE:
            choices = models if setting.name == "model" else setting.choices
            options = [discord.SelectOption(label=say("No choice"), value=NONE, default=old is None)]
            options += [
                discord.SelectOption(label=choice_name(setting, one, say)[:100], value=one, default=one == old) for one in choices[: MENU_LIMIT - 1]
            ]
            return discord.ui.Select[Any](custom_id="value", options=options)
        case Form.LINES:
            text, style = "\n".join(old or ()), discord.TextStyle.paragraph
            return discord.ui.TextInput[Any](custom_id="value", style=style, required=False, max_length=LIST_LIMIT, default=text or None)
        case _:
            default = None if old is None else f"{old:g}"
            return discord.ui.TextInput[Any](custom_id="value", required=False, max_length=20, default=default)


async def setup(bot: Reverie) -> None:
    """Add the feature to the bot."""
    bot.add_dynamic_items(Menu)
    await bot.add_cog(Panel(bot))
