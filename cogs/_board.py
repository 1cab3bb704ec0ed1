"""The gallery channels: what is shown there always equals what the stars say, whatever vanished or happened while the bot was away."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from typing import Any

import discord

from cogs import _cards as cards
from cogs._address import NOBODY, UNKNOWN_MESSAGE, Upload, passing
from cogs._house import House
from cogs._language import Language
from cogs._replies import FAILURES
from cogs._sight import is_age_restricted
from engine import pictures
from engine.gallery import Gallery, Share
from engine.history import History
from engine.jobs import Job, Painting
from engine.preferences import Preferences
from engine.worker import aside

log = logging.getLogger(__name__)

STAR = "⭐"
USUAL_STARS = 3
"""Stars that bring a picture to the gallery where a server says nothing else."""
RETRY_S = 30.0
"""Before Discord is asked again when it does not answer."""
LOOK_THROUGH = 50
"""Latest messages of a gallery among which an entry is looked for that was posted just before a crash."""


@dataclass(frozen=True, slots=True)
class Wall:
    """A server's gallery: its channel, and how many stars bring a picture there."""

    channel: discord.TextChannel | discord.Thread
    stars: int


class Board:
    """Looks after every shared picture of which anything changed. One task, one picture at a time: nothing can overtake anything.

    What happened while nobody listened, because the bot or its connection was away, Discord is asked for when nothing else is to be done. Nobody else
    edits entries. Where a server or channel cannot be seen just now, everything there is believed to be as it was.
    """

    def __init__(self, bot: discord.Client, gallery: Gallery, history: History, preferences: Preferences, house: House) -> None:
        self._bot = bot
        self._gallery = gallery
        self._history = history
        self._preferences = preferences
        self._house = house
        self._arrived: set[int] = set()
        """Servers that have just come into sight."""
        self._changed: dict[int, None] = {}
        self._unseen: dict[int, None] = {}
        """Pictures of which Discord is to be asked what was missed, the latest first."""
        self._held: set[int | None] = set()
        """Pictures that wait for Discord to answer again; None stands for everything else that does."""
        self._stuck: set[int] = set()
        """Messages to be deleted that cannot be reached just now."""
        self._gone: set[int] = set()
        """Channels that are known to be no more."""
        self._texts: dict[int, str] = {}
        """What entries say, as far as this run has seen or written it."""
        self._nonces: dict[int, str] = {}
        """Under what entries are being posted: Discord posts a nonce once, also when it was asked twice because its first answer was lost."""
        self._compared: int | None = None
        """The message whose stars are just being asked for; None when something happened to it meanwhile."""
        self._noting = asyncio.Lock()
        self._wanted = asyncio.Event()
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, with a look at everything that is shared: stars may have come and messages vanished meanwhile."""
        self._quiet.clear()
        self._task = asyncio.create_task(self._run(), name="gallery")

    async def close(self) -> None:
        """Stop; what is not done yet is found by the look at the next start."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def touch(self, *pictures_: int) -> None:
        """Note that something about pictures has changed, or that messages are to be deleted."""
        self._changed.update(dict.fromkeys(pictures_))
        self._wake()

    async def touch_server(self, guild_id: int) -> None:
        """Note that a server's gallery has changed."""
        self.touch(*[share.picture for share in await self._gallery.of_server(guild_id)])

    def look_at(self, *pictures_: int) -> None:
        """Ask Discord for the stars on pictures that may have been missed."""
        self._unseen.update(dict.fromkeys(pictures_))
        self._wake()

    def look_at_server(self, guild_id: int) -> None:
        """Ask Discord for everything that may have been missed in a server."""
        self._arrived.add(guild_id)
        self._stuck.clear()
        self._wake()

    async def look_at_channel(self, channel: discord.abc.GuildChannel) -> None:
        """Ask Discord for what may have been missed in a channel that was out of sight, or do what is now to be done where others may see it."""
        guild, ids = channel.guild, {channel.id, *(thread.id for thread in channel.guild.threads if thread.parent_id == channel.id)}
        found = [picture for place in ids for picture, _ in await self._gallery.showings_in(guild.id, place)]
        self._stuck.clear()
        self.touch(*found)
        self.look_at(*found)
        if self._preferences.server(guild.id, "gallery") in ids:
            await self.touch_server(guild.id)

    @contextlib.asynccontextmanager
    async def noting(self, message_id: int) -> AsyncIterator[None]:
        """Let what happens to messages be noted in the order in which it happened, however long each takes."""
        if self._compared == message_id:
            # What Discord is just telling of its stars may be out of date.
            self._compared = None
        async with self._noting:
            yield

    async def settled(self) -> None:
        """Wait until everything is as it should be."""
        await self._quiet.wait()

    def _wake(self) -> None:
        self._quiet.clear()
        self._wanted.set()

    async def _run(self) -> None:
        await self._bot.wait_until_ready()
        self._arrived.update(guild.id for guild in self._bot.guilds)
        while True:
            self._wanted.clear()
            while self._arrived:
                await self._safely(self._arrive(self._arrived.pop()))
            while self._changed:
                picture = next(iter(self._changed))
                del self._changed[picture]
                await self._safely(self._refresh(picture), picture)
            await self._safely(self._sweep())
            if self._wanted.is_set():
                continue
            if self._unseen and not self._held:
                picture = next(iter(self._unseen))
                del self._unseen[picture]
                if not await self._safely(self._catch_up(picture), picture):
                    self._unseen[picture] = None
                continue
            if not self._held:
                self._quiet.set()
            await self._wanted.wait()

    async def _arrive(self, guild_id: int) -> None:
        self.look_at(*[share.picture for share in reversed(await self._gallery.of_server(guild_id))])

    async def _safely(self, work: Coroutine[Any, Any, None], picture: int | None = None) -> bool:
        """Do something, and tell whether Discord answered; where it did not, go on later, and where anything else fails, with other pictures."""
        try:
            await work
        except FAILURES as error:
            if passing(error):
                log.warning("the gallery waits: %s", error)
                if not self._held:
                    asyncio.get_running_loop().call_later(RETRY_S, self._resume)
                self._held.add(picture)
                return False
            log.info("the gallery may not show a picture: %s", error)
        except Exception:
            log.exception("the gallery cannot show picture %s", picture)
        return True

    def _resume(self) -> None:
        """Try again what Discord did not answer."""
        self.touch(*[picture for picture in self._held if picture is not None])
        self._held.clear()

    # What should be.

    def is_in_sight(self, guild_id: int) -> bool:
        """Tell whether Discord has told of a server what is in it: not for a moment after every start, and not while Discord has lost it."""
        guild = self._bot.get_guild(guild_id)
        return guild is not None and not guild.unavailable

    def wall(self, guild_id: int) -> Wall | None:
        """Return a server's gallery, None where it has none or its channel is gone or cannot be seen just now."""
        return self._wall_in(self._bot.get_channel(self._preferences.server(guild_id, "gallery") or 0), guild_id)

    def _wall_in(self, channel: object, guild_id: int) -> Wall | None:
        if not isinstance(channel, (discord.TextChannel, discord.Thread)) or channel.guild.id != guild_id:
            return None
        stars = self._preferences.server(guild_id, "gallery_stars")
        return Wall(channel, USUAL_STARS if stars is None else stars)

    async def _find_wall(self, guild_id: int) -> Wall | None:
        """Return a server's gallery, None where it has none or its channel is gone for good.

        Raises:
            discord.Forbidden: it is there, and cannot be seen.
        """
        chosen = self._preferences.server(guild_id, "gallery")
        if chosen is None or chosen in self._gone:
            return None
        if (wall := self.wall(guild_id)) is not None:
            return wall
        try:
            # Discord does not tell of threads that were archived before.
            return self._wall_in(await self._bot.fetch_channel(chosen), guild_id)
        except discord.NotFound:
            self._gone.add(chosen)
            return None

    async def _refresh(self, picture: int) -> None:
        """Post, edit or take away the entry of a picture."""
        share = await self._gallery.find(picture)
        if share is None or not self.is_in_sight(share.guild_id):
            return
        wall = await self._find_wall(share.guild_id)
        if share.message_id is None and share.channel_id is not None:
            await self._find_stray(share.picture, share.channel_id)
            share = await self._gallery.find(picture)
        if share is not None and share.message_id is not None and (wall is None or share.channel_id != wall.channel.id):
            await self._gallery.unlisted(share)
            # Stars on the message go with it.
            share = await self._gallery.find(picture)
        job = await self._history.find(share.job) if share is not None else None
        if share is None or wall is None or job is None:
            return
        if not await self._belongs(share, wall):
            await self._gallery.unlisted(share)
            return
        text = entry_text(share, job, self._house.server_language(wall.channel.guild))
        if share.message_id is None:
            await self._post(wall, share, job, text)
        elif self._texts.get(share.message_id) != text and not await self._edited(wall, share.message_id, text):
            await self._gallery.vanished(picture)
            self.touch(picture)

    async def _belongs(self, share: Share, wall: Wall) -> bool:
        adult = is_age_restricted(wall.channel)
        return share.stars >= wall.stars and (adult or not share.is_adult) and await self._gallery.is_visible(share)

    async def _edited(self, wall: Wall, message_id: int, text: str) -> bool:
        """Change what an entry says; tell whether it is still there."""
        try:
            await wall.channel.get_partial_message(message_id).edit(content=text, allowed_mentions=NOBODY)
        except discord.NotFound as refusal:
            if refusal.code != UNKNOWN_MESSAGE:
                raise
            return False
        self._texts[message_id] = text
        return True

    async def _post(self, wall: Wall, share: Share, job: Job, text: str) -> None:
        single = await self.alone(share)
        if single is None:
            return
        verdict = await self._house.judge(single, share.guild_id, is_age_restricted(wall.channel))
        if verdict.withhold:
            return
        say = self._house.server_language(wall.channel.guild)
        data, ending = await aside(pictures.fit, single.pictures[0].png, wall.channel.guild.filesize_limit)
        spoiler = share.spoiler or verdict.spoiler
        upload = Upload(data, f"gallery-{share.picture}.{ending}", cards.alt_text(job.request, say, 1), spoiler)
        view = cards.gallery_buttons(share.picture, job, share.position, say)
        nonce = self._nonces.setdefault(share.picture, secrets.token_hex(8))
        await self._gallery.posting(share.picture, wall.channel.id)
        sent = await wall.channel.send(text, file=upload.file(), view=view, nonce=nonce, suppress_embeds=True, allowed_mentions=NOBODY)
        self._texts[sent.id] = text
        await self._gallery.posted(share.picture, wall.channel.id, sent.id)
        del self._nonces[share.picture]

    async def alone(self, share: Share) -> Painting | None:
        """Return a shared picture without its siblings, None where it is lost."""
        job = await self._history.find(share.job)
        painting = await self._history.painting_of(job) if job is not None else None
        return painting.only(share.position) if painting is not None else None

    async def _find_stray(self, picture: int, channel_id: int) -> None:
        """Find the entry that was being posted when the bot crashed, or Discord's answer got lost, before its id could be noted."""
        doomed = {message_id for _, message_id in await self._gallery.doomed()}
        try:
            async for message in self._bot.get_partial_messageable(channel_id).history(limit=LOOK_THROUGH):
                mine = self._bot.user is not None and message.author.id == self._bot.user.id and message.id not in doomed
                if mine and any(f"gallery-{picture}." in attachment.filename for attachment in message.attachments):
                    await self._gallery.posted(picture, channel_id, message.id)
                    self._nonces.pop(picture, None)
                    # It may have got stars since.
                    self.look_at(picture)
                    return
        except discord.NotFound:
            log.info("the channel %d is gone, and an entry with it", channel_id)
        await self._gallery.vanished(picture)

    async def _sweep(self) -> None:
        """Delete the messages that are to be deleted."""
        for channel_id, message_id in await self._gallery.doomed():
            if message_id in self._stuck:
                continue
            try:
                await self._bot.get_partial_messageable(channel_id).get_partial_message(message_id).delete()
            except discord.NotFound:
                log.debug("message %d is gone already", message_id)
            except discord.HTTPException as refusal:
                if passing(refusal):
                    raise
                log.info("message %d cannot be deleted: %s", message_id, refusal)
                self._stuck.add(message_id)
                continue
            await self._gallery.gone(message_id)
            self._texts.pop(message_id, None)

    # What was missed.

    async def _catch_up(self, picture: int) -> None:
        """Compare what is remembered of a picture with what Discord shows."""
        share = await self._gallery.find(picture)
        if share is None or not self.is_in_sight(share.guild_id):
            return
        for channel_id, message_id in await self._gallery.showings(picture):
            while not await self._compare(picture, channel_id, message_id):
                log.debug("message %d changed while it was looked at", message_id)
        self.touch(picture)

    async def _compare(self, picture: int, channel_id: int, message_id: int) -> bool:
        """Catch up with the stars on a message, and with its end; tell whether nothing happened to it meanwhile."""
        self._compared = message_id
        try:
            message = await self._bot.get_partial_messageable(channel_id).fetch_message(message_id)
        except discord.NotFound:
            await self._gallery.message_vanished(message_id)
            return True
        except discord.Forbidden:
            # What cannot be read is believed to be as it was.
            return True
        people = set()
        for reaction in message.reactions:
            if str(reaction.emoji) == STAR:
                counts = {discord.ReactionType.normal: reaction.normal_count, discord.ReactionType.burst: reaction.burst_count}
                for kind in (kind for kind, count in counts.items() if count):
                    people |= {user.id async for user in reaction.users(type=kind) if not user.bot}
        async with self._noting:
            if self._compared is None:
                return False
            self._texts[message_id] = message.content
            await self._gallery.set_stars(picture, message_id, people)
            if await self._gallery.picture_in(message_id) != picture:
                # It was taken away meanwhile.
                await self._gallery.set_stars(picture, message_id, set())
        return True


def entry_text(share: Share, job: Job, say: Language) -> str:
    """Say whose picture this is and how many stars it has."""
    what = cards.title(job.request, say, cards.PROMPT_SHOWN)
    credit = say("by {owner}", owner=f"<@{share.user_id}>")
    return f"{STAR} **{share.stars}** · #{share.job} {credit}\n{what}"
