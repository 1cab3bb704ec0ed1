"""The menu *Report* and /moderate: what people report, what moderators decide, who is banned, and the log of all that."""

from typing import Any

import discord
from discord import app_commands
from discord.ext import commands

from cogs import _cards as cards
from cogs._address import NOBODY, Upload
from cogs._client import Reverie
from cogs._desk import Desk
from cogs._forms import Form, open_form, sent, values
from cogs._house import Place
from cogs._language import Language, language_of, mark
from cogs._replies import FAILURES, Forgotten, MayNot, NoPicture, OnlyInServers, Unreported, log, refuse
from engine import pictures
from engine.gallery import Gallery
from engine.jobs import Job
from engine.moderation import Decision, Entry, Moderation, Report
from engine.preferences import Area
from engine.queue import Queue
from engine.worker import aside

REASON_LIMIT = 300
PAGE = 10
"""Lines of the log, or people who are banned: a message holds them, however long they are."""
LOG, BANS = 0, 1
"""Which list the buttons turn a page of."""
PICTURE_PX = 512
"""Side of the picture that moderators see."""
DECIDED = {
    Decision.DISMISSED: mark("Report {number}: dismissed by {moderator}."),
    Decision.REMOVED: mark("Report {number}: the result was removed by {moderator}."),
    Decision.BANNED: mark("Report {number}: the result was removed and who asked for it banned by {moderator}."),
}
Reason = app_commands.Range[str, 1, REASON_LIMIT]


@app_commands.guild_only()
class Moderate(commands.GroupCog, group_name="moderate", group_description="Look after what is painted here"):
    """For moderators, and for who reports to them. Who is one is up to the server's owner; every decision is in the log."""

    def __init__(self, bot: Reverie) -> None:
        self._bot = bot
        self._desk: Desk = bot.desk
        self._moderation: Moderation = bot.moderation
        self._gallery: Gallery = bot.gallery
        self._queue: Queue = bot.queue
        self.menu = app_commands.ContextMenu(name="Report", callback=self.ask_why)
        bot.presses |= {
            cards.Act.DISMISS: self.dismiss,
            cards.Act.REMOVE: self.remove,
            cards.Act.BAN: self.ban_for,
            cards.Act.LOG: self.turn,
        }

    def moderator(self, interaction: discord.Interaction) -> tuple[Place, int]:
        """Return where somebody moderates, and the server.

        Raises:
            OnlyInServers, MayNot: they do not.
        """
        place = self._desk.place(interaction)
        if place.guild_id is None:
            raise OnlyInServers
        self._desk.house.check_may(place, Area.MODERATION)
        return place, place.guild_id

    # Reports.

    async def ask_why(self, interaction: discord.Interaction, message: discord.Message) -> None:
        """Ask what is wrong with a result."""
        shown = await self._desk.shown(message)
        if shown is None:
            raise NoPicture
        place = self._desk.place(interaction)
        if place.guild_id is None or shown.job.origin.guild_id != place.guild_id:
            raise OnlyInServers
        await self._desk.house.check_person(place)
        content = {"report": shown.job.id, "message": message.id, "channel": message.channel.id}
        number = await self._desk.history.add_draft(interaction.user.id, content)
        say = language_of(interaction)
        reason = discord.ui.TextInput[discord.ui.Modal](custom_id="reason", style=discord.TextStyle.paragraph, max_length=REASON_LIMIT)
        label = discord.ui.Label(text=say("What is wrong with it?"), component=reason)
        await open_form(interaction, Form.REPORT, number, say("Report to the moderators"), label)

    @commands.Cog.listener("on_interaction")
    async def reported(self, interaction: discord.Interaction) -> None:
        """Put a report into the moderators' queue, and into their channel where they have one."""
        number = sent(interaction, Form.REPORT)
        if number is None:
            return
        try:
            draft = await self._desk.history.find_draft(number, interaction.user.id)
            place, say = self._desk.place(interaction), language_of(interaction)
            if draft is None or "report" not in draft.content or place.guild_id is None:
                raise Forgotten
            await self._desk.house.check_person(place)
            job = await self._desk.remembered(draft.content["report"])
            reason = " ".join(str(values(interaction).get("reason") or "").split())[:REASON_LIMIT]
            where = (draft.content["channel"], draft.content["message"])
            report = await self._moderation.report(place.guild_id, job, interaction.user.id, reason, *where)
            await self._desk.history.drop_draft(number)
            await interaction.response.send_message(say("Thank you. The moderators will look at it."), ephemeral=True)
            if report is not None:
                await self.tell_moderators(place.guild_id, report)
        except Exception as error:
            await refuse(interaction, error)

    async def tell_moderators(self, guild_id: int, number: int) -> None:
        """Post a report to the moderators' channel, where there is one."""
        channel = self._bot.get_channel(self._bot.preferences.server(guild_id, "reports") or 0)
        report = await self._moderation.reported(number)
        if report is None or not isinstance(channel, (discord.TextChannel, discord.Thread)) or channel.guild.id != guild_id:
            return
        say = self._bot.house.server_language(channel.guild)
        text, files, view = await self.card(report, say)
        try:
            message = await channel.send(text, files=files, view=view, allowed_mentions=NOBODY, suppress_embeds=True)
            await self._moderation.posted(number, channel.id, message.id)
        except FAILURES as error:
            log.warning("report %d cannot be posted to the moderators' channel: %s", number, error)

    async def card(self, report: Report, say: Language) -> tuple[str, list[discord.File], discord.ui.View]:
        """Return a report as moderators see it."""
        job = await self._desk.history.find(report.job)
        link = cards.message_link(report.guild_id, report.channel_id, report.message_id)
        person = f"<@{report.user_id}>" if report.user_id else say("somebody")
        lines = [say("**Report {number}** by {person}: [the message]({link})", number=report.id, person=person, link=link)]
        lines.append(cards.quote(report.reason, REASON_LIMIT))
        files = []
        if job is not None:
            lines.append(say("Asked for by {owner}: {prompt}", owner=f"<@{job.origin.user_id}>", prompt=cards.title(job.request, say)))
            painting = await self._desk.history.painting_of(job)
            if painting is not None:
                shown = [picture.png for picture in painting.pictures]
                data = await aside(lambda: pictures.encode(pictures.thumbnail(shown, PICTURE_PX)))
                files.append(Upload(data, f"report-{report.id}.png", cards.alt_text(job.request, say), spoiler=True).file())
        danger = discord.ButtonStyle.danger
        view = cards.buttons(
            [
                cards.button(cards.Act.DISMISS, say("Dismiss"), report.id),
                cards.button(cards.Act.REMOVE, say("Remove"), report.id, style=danger),
                cards.button(cards.Act.BAN, say("Remove and ban"), report.id, style=danger),
            ]
        )
        return cards.shorten("\n".join(lines), cards.CONTENT_LIMIT), files, view

    async def dismiss(self, interaction: discord.Interaction, number: int, index: int) -> None:
        """Decide that nothing is wrong."""
        await self.decide(interaction, number, Decision.DISMISSED)

    async def remove(self, interaction: discord.Interaction, number: int, index: int) -> None:
        """Decide that a result must go."""
        await self.decide(interaction, number, Decision.REMOVED)

    async def ban_for(self, interaction: discord.Interaction, number: int, index: int) -> None:
        """Decide that a result must go, and who asked for it too."""
        await self.decide(interaction, number, Decision.BANNED)

    async def decide(self, interaction: discord.Interaction, number: int, decision: Decision) -> None:
        """Write a decision down and do what it says.

        Raises:
            Refused: it is not theirs to decide, or somebody has decided already.
        """
        _, guild_id = self.moderator(interaction)
        report = await self._moderation.reported(number)
        if report is None or report.guild_id != guild_id:
            raise Forgotten
        job = await self._desk.history.find(report.job)
        owner = job.origin.user_id if job is not None else None
        if decision is Decision.BANNED and owner == interaction.user.id:
            raise MayNot
        if not await self._moderation.decide(report, interaction.user.id, decision, owner):
            raise Unreported
        if decision is not Decision.DISMISSED and job is not None:
            await self.take_down(job, report, interaction.user.id)
        say = language_of(interaction)
        text = say(DECIDED[decision], number=report.id, moderator=f"<@{interaction.user.id}>")
        await interaction.response.edit_message(content=text, attachments=[], view=None, allowed_mentions=NOBODY)

    async def take_down(self, job: Job, report: Report, user_id: int) -> None:
        """Delete every message that shows a result, and let nobody find it again; what is not painted yet is called off."""
        if (unfinished := self._queue.find(job.id)) is not None:
            await self._queue.cancel(unfinished)
        await self._gallery.doom(job, (report.channel_id, report.message_id))
        await self._bot.remove(job, user_id)
        self._bot.board.touch()

    @app_commands.command()
    async def reports(self, interaction: discord.Interaction) -> None:
        """Decide on what was reported, the oldest first."""
        _, guild_id = self.moderator(interaction)
        await interaction.response.defer(ephemeral=True, thinking=True)
        say = language_of(interaction)
        found = await self._moderation.open_reports(guild_id, 1)
        if not found:
            await interaction.edit_original_response(content=say("Nothing is waiting for a decision."))
            return
        text, files, view = await self.card(found[0], say)
        waiting = say("Waiting for a decision: {count}", count=await self._moderation.count_open(guild_id))
        await interaction.edit_original_response(content=f"{waiting}\n{text}"[: cards.CONTENT_LIMIT], attachments=files, view=view)

    # Bans.

    @app_commands.command()
    @app_commands.describe(user="Who may no longer use me here", reason="Why; moderators see it")
    async def ban(self, interaction: discord.Interaction, user: discord.User, reason: Reason = "") -> None:
        """Let somebody no longer use me in this server."""
        _, guild_id = self.moderator(interaction)
        if user.id == interaction.user.id:
            raise MayNot
        say = language_of(interaction)
        new = await self._moderation.ban(guild_id, user.id, interaction.user.id, reason)
        text = say("{person} may no longer use me here.", person=user.mention) if new else say("{person} is banned already.", person=user.mention)
        await interaction.response.send_message(text, ephemeral=True, allowed_mentions=NOBODY)

    @app_commands.command()
    @app_commands.describe(user="Who may use me again")
    async def unban(self, interaction: discord.Interaction, user: discord.User) -> None:
        """Let somebody use me again."""
        _, guild_id = self.moderator(interaction)
        say = language_of(interaction)
        gone = await self._moderation.unban(guild_id, user.id, interaction.user.id)
        text = say("{person} may use me again.", person=user.mention) if gone else say("{person} is not banned.", person=user.mention)
        await interaction.response.send_message(text, ephemeral=True, allowed_mentions=NOBODY)

    @app_commands.command()
    async def bans(self, interaction: discord.Interaction) -> None:
        """Show who may not use me in this server."""
        self.moderator(interaction)
        await interaction.response.send_message(**await self.bans_page(interaction, 0), ephemeral=True)

    async def bans_page(self, interaction: discord.Interaction, page: int) -> dict[str, Any]:
        """Return one page of who is banned, the latest first."""
        _, guild_id = self.moderator(interaction)
        say = language_of(interaction)
        found = (await self._moderation.bans(guild_id, (page + 1) * PAGE + 1))[page * PAGE :]
        lines = []
        for user_id, reason, created_at in found:
            person = f"<@{user_id}>" if user_id else say("somebody")
            lines.append(f"{person} · <t:{int(created_at)}:R> · {cards.quote(reason, 100)}")
        return listed(lines, say("Nobody is banned."), BANS, page, say)

    # The log.

    @app_commands.command(name="log")
    async def audit(self, interaction: discord.Interaction) -> None:
        """Show who decided and changed what."""
        self.moderator(interaction)
        await interaction.response.send_message(**await self.log_page(interaction, 0), ephemeral=True)

    async def turn(self, interaction: discord.Interaction, number: int, index: int) -> None:
        """Turn to another page of the log, or of who is banned."""
        turned = self.bans_page if number == BANS else self.log_page
        await interaction.response.edit_message(**await turned(interaction, index))

    async def log_page(self, interaction: discord.Interaction, page: int) -> dict[str, Any]:
        """Return one page of the log."""
        _, guild_id = self.moderator(interaction)
        say = language_of(interaction)
        found = await self._moderation.log(guild_id, PAGE + 1, page * PAGE)
        return listed([line(entry, say) for entry in found], say("Nothing found."), LOG, page, say)


def listed(lines: list[str], nothing: str, which: int, page: int, say: Language) -> dict[str, Any]:
    """Return a page of a list; where there is one line more than it holds, there is an older page."""
    newer, older = cards.button(cards.Act.LOG, say("Newer"), which, max(page - 1, 0)), cards.button(cards.Act.LOG, say("Older"), which, page + 1)
    newer.disabled, older.disabled = page == 0, len(lines) <= PAGE
    text = cards.shorten("\n".join(lines[:PAGE]) or nothing, cards.CONTENT_LIMIT)
    return {"content": text, "view": cards.buttons([newer, older]), "allowed_mentions": NOBODY}


def line(entry: Entry, say: Language) -> str:
    """Return a line of the log."""
    who = f"<@{entry.user_id}>" if entry.user_id else say("somebody")
    whom = f" → <@{entry.subject_id}>" if entry.subject_id else ""
    details = ", ".join(f"{key} {cards.quote(str(value), 60)}" for key, value in entry.details.items() if value not in (None, ""))
    return f"<t:{int(entry.created_at)}:f> {who} **{entry.act}**{whom} {details}".rstrip()


async def setup(bot: Reverie) -> None:
    """Add the feature to the bot."""
    cog = Moderate(bot)
    await bot.add_cog(cog)
    bot.tree.add_command(cog.menu)
