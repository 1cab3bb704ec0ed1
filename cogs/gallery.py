"""What people share: the button and menu *Share*, stars, the gallery channel, votes, leaderboard and stats."""

import discord
from discord import app_commands
from discord.ext import commands

from cogs import _cards as cards
from cogs._address import NOBODY, Upload
from cogs._answers import answer, tell
from cogs._board import STAR, Board, Wall, entry_text
from cogs._client import Reverie
from cogs._desk import Desk, file_limit
from cogs._language import Language, language_of
from cogs._options import WHOSE
from cogs._replies import AdultOnly, Forgotten, NoGallery, NoPicture, NotYours, OnlyInServers, OwnStar, Withheld
from cogs._sight import is_age_restricted, may_show_adult
from engine import pictures
from engine.gallery import Gallery, Share
from engine.jobs import Job
from engine.preferences import Area
from engine.worker import aside

LISTED = 10
"""Pictures and people on the leaderboard."""


class Sharing(commands.Cog):
    """Pictures are shared by whoever asked for them and nobody else, and can be withdrawn at any time."""

    def __init__(self, bot: Reverie) -> None:
        self._bot = bot
        self._desk: Desk = bot.desk
        self._gallery: Gallery = bot.gallery
        self._board: Board = bot.board
        self.menu = app_commands.ContextMenu(name="Share", callback=self.share_message)
        bot.presses |= {
            cards.Act.SHARE: self.share,
            cards.Act.SHARE_ONE: self.share_one,
            cards.Act.WITHDRAW: self.withdraw,
            cards.Act.STAR: self.star,
            cards.Act.FIRST: self.first,
            cards.Act.SECOND: self.second,
            cards.Act.SKIP: self.skip,
        }

    # Sharing.

    async def share_message(self, interaction: discord.Interaction, message: discord.Message) -> None:
        """Share what a message shows."""
        shown = await self._desk.shown(message)
        if shown is None:
            raise NoPicture
        if shown.index is None:
            await self.share(interaction, shown.job.id, 0)
        else:
            await self.share_picture(interaction, shown.job, shown.index, message)

    async def share(self, interaction: discord.Interaction, number: int, index: int) -> None:
        """Share a picture of a grid; where there are several, ask which."""
        job = await self._desk.remembered(number)
        await self.check_sharing(interaction, job)
        if job.request.count == 1:
            await self.share_picture(interaction, job, 0, interaction.message)
            return
        choices = [cards.button(cards.Act.SHARE_ONE, str(position + 1), number, position) for position in range(cards.choosable(job))]
        say = language_of(interaction)
        await interaction.response.send_message(say("Share which picture?"), view=cards.buttons(choices), ephemeral=True)

    async def share_one(self, interaction: discord.Interaction, number: int, index: int) -> None:
        """Share one picture."""
        await self.share_picture(interaction, await self._desk.remembered(number), index, interaction.message)

    async def check_sharing(self, interaction: discord.Interaction, job: Job) -> Wall:
        """Make sure that somebody may share a result here, and return the gallery.

        Raises:
            Refused: they may not, or there is no gallery for it.
        """
        place = self._desk.place(interaction)
        if place.guild_id is None or job.origin.guild_id != place.guild_id:
            raise OnlyInServers
        if job.origin.user_id != interaction.user.id:
            raise NotYours(job.origin.user_id)
        await self._desk.house.check_person(place)
        wall = self._board.wall(place.guild_id)
        if wall is None:
            raise NoGallery
        if job.origin.is_adult and not is_age_restricted(wall.channel):
            raise AdultOnly
        return wall

    async def share_picture(self, interaction: discord.Interaction, job: Job, index: int, source: discord.Message | None) -> None:
        """Share a picture, and show it to the channel unless the message does that it was shared from.

        Raises:
            Refused: it cannot be shared.
        """
        wall = await self.check_sharing(interaction, job)
        painting = await self._desk.painted_alone(job, index)
        picture = await self._desk.history.picture_id(job, index)
        if picture is None or job.origin.guild_id is None:
            raise Forgotten
        is_adult, guild_id = is_age_restricted(wall.channel), job.origin.guild_id
        if self._desk.house.looks_at(guild_id, is_adult):
            # Looking may have to wait for what is being painted, longer than Discord waits for a first answer.
            await interaction.response.defer(ephemeral=True, thinking=True)
        verdict = await self._desk.house.judge(painting, guild_id, is_adult)
        if verdict.withhold:
            raise Withheld(verdict.concepts)
        say = language_of(interaction)
        new = await self._gallery.share(picture, job.origin.guild_id, interaction.user.id)
        share = await self._gallery.find(picture)
        if share is None:
            raise Forgotten
        how = say("Stars that bring it to {gallery}: {stars}.", stars=wall.stars, gallery=wall.channel.mention)
        if not new:
            view = cards.buttons([cards.button(cards.Act.WITHDRAW, say("Withdraw"), picture, style=discord.ButtonStyle.danger)])
            await tell(interaction, " ".join([say("This picture is shared already."), how]), view)
        elif source is not None and await self.shows_alone(source, job):
            await self._gallery.shown(source.id, source.channel.id, picture)
            await tell(interaction, " ".join([say("Shared."), how]))
        else:
            data, ending = await aside(pictures.fit, painting.pictures[0].png, file_limit(interaction))
            spoiler = job.origin.spoiler or verdict.spoiler
            upload = Upload(data, f"{job.id}-{index + 1}.{ending}", cards.alt_text(job.request, say, 1), spoiler)
            view = cards.gallery_buttons(picture, job, index, say)
            text = self.shared_text(share, job, say)
            if interaction.response.is_done():
                await tell(interaction, " ".join([say("Shared."), how]))
            message_id = await answer(interaction, text, file=upload.file(), view=view, allowed_mentions=NOBODY)
            if message_id is not None:
                await self._gallery.shown(message_id, interaction.channel_id or 0, picture)
        self._board.touch(picture)
        # It may have got stars while nobody listened, or before it was withdrawn the last time.
        self._board.look_at(picture)

    async def shows_alone(self, message: discord.Message, job: Job) -> bool:
        """Tell whether a message shows one picture of a job, and to everybody."""
        shown = await self._desk.shown(message)
        return shown is not None and shown.job.id == job.id and shown.index is not None and not message.flags.ephemeral

    def shared_text(self, share: Share, job: Job, say: Language) -> str:
        """Say of a picture how many stars it has and what they bring."""
        wall = self._board.wall(share.guild_id)
        how = say("Stars that bring it to {gallery}: {stars}.", stars=wall.stars, gallery=wall.channel.mention) if wall else ""
        return f"{entry_text(share, job, say)}\n{how}"

    async def withdraw(self, interaction: discord.Interaction, number: int, index: int) -> None:
        """Share a picture no longer: for who shared it, or a moderator."""
        share = await self._gallery.find(number)
        if share is None:
            raise Forgotten
        place = self._desk.place(interaction)
        if share.user_id != interaction.user.id:
            if share.guild_id != place.guild_id or not self._desk.house.may(place, Area.MODERATION):
                raise NotYours(share.user_id)
            await self._bot.moderation.note(share.guild_id, interaction.user.id, "withdraw", share.user_id, job=share.job)
        await self._gallery.withdraw(number)
        self._board.touch(number)
        say = language_of(interaction)
        await interaction.response.send_message(say("It is shared no longer, and its stars and votes are forgotten."), ephemeral=True)

    # Stars.

    async def star(self, interaction: discord.Interaction, number: int, index: int) -> None:
        """Give a picture a star, or take it back."""
        share = await self._gallery.find(number)
        if share is None:
            raise Forgotten
        if share.user_id == interaction.user.id:
            raise OwnStar
        place = self._desk.place(interaction)
        if share.guild_id != place.guild_id:
            raise OnlyInServers
        await self._desk.house.check_person(place)
        if not await self._gallery.star(number, interaction.user.id):
            await self._gallery.unstar(number, interaction.user.id)
        self._board.touch(number)
        job, now, say = await self._desk.remembered(share.job), await self._gallery.find(number), language_of(interaction)
        if now is None or interaction.message is None:
            raise Forgotten
        if now.message_id == interaction.message.id:
            # What an entry says is the board's to write: two who write would overtake each other.
            await interaction.response.defer()
        else:
            await interaction.response.edit_message(content=self.shared_text(now, job, say), allowed_mentions=NOBODY)

    @commands.Cog.listener()
    async def on_raw_reaction_add(self, payload: discord.RawReactionActionEvent) -> None:
        """Count a star."""
        if str(payload.emoji) != STAR or payload.guild_id is None or (payload.member is not None and payload.member.bot):
            return
        async with self._board.noting(payload.message_id):
            if (picture := await self._gallery.picture_in(payload.message_id)) is None:
                return
            await self._gallery.star(picture, payload.user_id, payload.message_id)
            if await self._gallery.picture_in(payload.message_id) != picture:
                # The message was taken away meanwhile, and its stars with it.
                await self._gallery.unstar(picture, payload.user_id, payload.message_id)
            self._board.touch(picture)

    @commands.Cog.listener()
    async def on_raw_reaction_remove(self, payload: discord.RawReactionActionEvent) -> None:
        """Count a star no longer."""
        if str(payload.emoji) != STAR:
            return
        async with self._board.noting(payload.message_id):
            if (picture := await self._gallery.picture_in(payload.message_id)) is not None:
                await self._gallery.unstar(picture, payload.user_id, payload.message_id)
                self._board.touch(picture)

    @commands.Cog.listener()
    async def on_raw_reaction_clear(self, payload: discord.RawReactionClearEvent) -> None:
        """Count none of a message's stars any longer."""
        await self.cleared(payload.message_id)

    @commands.Cog.listener()
    async def on_raw_reaction_clear_emoji(self, payload: discord.RawReactionClearEmojiEvent) -> None:
        """Count none of a message's stars any longer, where it is stars that were cleared."""
        if str(payload.emoji) == STAR:
            await self.cleared(payload.message_id)

    async def cleared(self, message_id: int) -> None:
        """Forget the stars on a message."""
        async with self._board.noting(message_id):
            if (picture := await self._gallery.picture_in(message_id)) is not None:
                await self._gallery.set_stars(picture, message_id, set())
                self._board.touch(picture)

    @commands.Cog.listener()
    async def on_raw_message_delete(self, payload: discord.RawMessageDeleteEvent) -> None:
        """Forget a message, with its stars; an entry that should be there is posted again."""
        await self.vanished(payload.message_id)

    @commands.Cog.listener()
    async def on_raw_bulk_message_delete(self, payload: discord.RawBulkMessageDeleteEvent) -> None:
        """Forget several messages at once."""
        for message_id in payload.message_ids:
            await self.vanished(message_id)

    async def vanished(self, message_id: int) -> None:
        """Forget a message that showed a picture."""
        async with self._board.noting(message_id):
            if (picture := await self._gallery.message_vanished(message_id)) is not None:
                self._board.touch(picture)

    @commands.Cog.listener()
    async def on_guild_channel_delete(self, channel: discord.abc.GuildChannel) -> None:
        """Look at a server's pictures anew when a channel of it is gone."""
        await self.place_gone(channel.guild.id, channel.id)

    @commands.Cog.listener()
    async def on_raw_thread_delete(self, payload: discord.RawThreadDeleteEvent) -> None:
        """Look at a server's pictures anew when a thread of it is gone, by itself or with the channel above it."""
        await self.place_gone(payload.guild_id, payload.thread_id)

    async def place_gone(self, guild_id: int, place_id: int) -> None:
        """Forget the messages of a channel or thread; entries that should be there are posted where they should be now."""
        for _, message_id in await self._gallery.showings_in(guild_id, place_id):
            await self.vanished(message_id)

    @commands.Cog.listener()
    async def on_guild_channel_update(self, before: discord.abc.GuildChannel, after: discord.abc.GuildChannel) -> None:
        """Look anew at what a channel shows when the bot may see other things there, or when it is for adults only no longer."""
        if before.overwrites != after.overwrites or is_age_restricted(before) != is_age_restricted(after):
            await self._board.look_at_channel(after)

    # What was missed.

    @commands.Cog.listener()
    async def on_ready(self) -> None:
        """Catch up with everything: Discord has begun a new session, and says nothing of what happened before."""
        for guild in self._bot.guilds:
            self._board.look_at_server(guild.id)

    @commands.Cog.listener()
    async def on_guild_available(self, guild: discord.Guild) -> None:
        """Catch up with a server that Discord tells of late."""
        self._board.look_at_server(guild.id)

    @commands.Cog.listener()
    async def on_guild_join(self, guild: discord.Guild) -> None:
        """Catch up with a server that the bot was in before."""
        self._board.look_at_server(guild.id)

    # Votes.

    @app_commands.command()
    @app_commands.guild_only()
    async def vote(self, interaction: discord.Interaction) -> None:
        """Choose the better one of two shared pictures."""
        await self._desk.house.check_person(self._desk.place(interaction))
        await interaction.response.defer(ephemeral=True, thinking=True)
        await self.ask(interaction)

    async def ask(self, interaction: discord.Interaction) -> None:
        """Show two pictures and ask which is better."""
        place, say = self._desk.place(interaction), language_of(interaction)
        if place.guild_id is None:
            raise OnlyInServers
        pair = await self._gallery.pair(place.guild_id, interaction.user.id, may_show_adult(interaction))
        if pair is None:
            await interaction.edit_original_response(content=say("There are no two pictures left for you to compare."), attachments=[], view=None)
            return
        files = []
        for place_, share in enumerate(pair, start=1):
            single = await self._board.alone(share)
            if single is None:
                raise Forgotten
            data, ending = await aside(pictures.fit, single.pictures[0].png, file_limit(interaction) // len(pair))
            files.append(Upload(data, f"vote-{place_}.{ending}", say("Picture {number}", number=place_), share.spoiler).file())
        number = await self._desk.history.add_draft(interaction.user.id, {"pair": [share.picture for share in pair]})
        choices = [
            cards.button(cards.Act.FIRST, say("Picture {number}", number=1), number, style=discord.ButtonStyle.primary),
            cards.button(cards.Act.SECOND, say("Picture {number}", number=2), number, style=discord.ButtonStyle.primary),
            cards.button(cards.Act.SKIP, say("Skip"), number),
        ]
        await interaction.edit_original_response(content=say("Which is better?"), attachments=files, view=cards.buttons(choices))

    async def first(self, interaction: discord.Interaction, number: int, index: int) -> None:
        """Vote for the first picture."""
        await self.decide(interaction, number, 0)

    async def second(self, interaction: discord.Interaction, number: int, index: int) -> None:
        """Vote for the second picture."""
        await self.decide(interaction, number, 1)

    async def skip(self, interaction: discord.Interaction, number: int, index: int) -> None:
        """Vote for neither."""
        await self.decide(interaction, number, None)

    async def decide(self, interaction: discord.Interaction, number: int, winner: int | None) -> None:
        """Note a vote, and show the next pair."""
        draft = await self._desk.history.find_draft(number, interaction.user.id)
        if draft is None or "pair" not in draft.content or not await self._desk.history.drop_draft(number):
            raise Forgotten
        await self._desk.house.check_person(self._desk.place(interaction))
        await interaction.response.defer()
        if winner is not None:
            pair = draft.content["pair"]
            await self._gallery.vote(interaction.user.id, pair[winner], pair[1 - winner])
        await self.ask(interaction)

    # Rankings.

    @app_commands.command()
    @app_commands.guild_only()
    async def leaderboard(self, interaction: discord.Interaction) -> None:
        """Show the best shared pictures and who made them."""
        place, say = self._desk.place(interaction), language_of(interaction)
        if place.guild_id is None:
            raise OnlyInServers
        # For the asking person only: what is withdrawn is not to stand in old messages.
        await interaction.response.defer(ephemeral=True, thinking=True)
        best = await self._gallery.best(place.guild_id, LISTED, may_show_adult(interaction))
        if not best:
            await interaction.edit_original_response(content=say("Nobody has shared a picture yet."))
            return
        lines, people = [], []
        for rank, share in enumerate(best, start=1):
            rating = say("rating {rating}", rating=round(share.rating))
            lines.append(f"**{rank}.** {STAR} {share.stars} · {rating} · #{share.job} <@{share.user_id}>")
        for rank, (user_id, stars, shared) in enumerate(await self._gallery.creators(place.guild_id, LISTED), start=1):
            made = say("{count} shared", count=shared)
            people.append(f"**{rank}.** <@{user_id}> {STAR} {stars} · {made}")
        tiles = []
        for rank, share in enumerate(best, start=1):
            single = await self._board.alone(share)
            tiles.append(pictures.Tile([single.pictures[0].png] if single else [], str(rank), veiled=share.spoiler))
        upload = Upload(await aside(pictures.contact_sheet, tiles), "leaderboard.png", say("The best shared pictures, the best first"), spoiler=False)
        embed = discord.Embed(title=say("Leaderboard"), description="\n".join(lines), colour=cards.COLOUR)
        embed.add_field(name=say("Creators"), value=cards.shorten("\n".join(people), cards.FIELD_LIMIT), inline=False)
        embed.set_image(url=f"attachment://{upload.name}")
        await interaction.edit_original_response(embed=embed, attachments=[upload.file()], allowed_mentions=NOBODY)

    @app_commands.command()
    @app_commands.describe(whose="Your own numbers, or those of this server")
    @app_commands.choices(whose=WHOSE)
    async def stats(self, interaction: discord.Interaction, whose: str = "mine") -> None:
        """Show how much was painted and shared."""
        place, say = self._desk.place(interaction), language_of(interaction)
        if whose == "server" and place.guild_id is None:
            raise OnlyInServers
        await interaction.response.defer(ephemeral=True, thinking=True)
        mine = whose == "mine"
        found = await self._gallery.stats(user_id=interaction.user.id if mine else None, guild_id=None if mine else place.guild_id)
        embed = discord.Embed(title=say("Your numbers") if mine else say("Numbers of this server"), colour=cards.COLOUR)
        embed.add_field(name=say("Results"), value=f"{found.jobs}")
        embed.add_field(name=say("Pictures"), value=f"{found.pictures}")
        embed.add_field(name=say("Minutes of painting"), value=f"{found.seconds / 60:.1f}")
        embed.add_field(name=say("Shared"), value=f"{found.shared}")
        embed.add_field(name=say("Stars"), value=f"{found.stars}")
        if not mine:
            embed.add_field(name=say("People"), value=f"{found.people}")
        await interaction.edit_original_response(embed=embed)


async def setup(bot: Reverie) -> None:
    """Add the feature to the bot."""
    cog = Sharing(bot)
    await bot.add_cog(cog)
    bot.tree.add_command(cog.menu)
