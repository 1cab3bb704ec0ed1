"""The gallery channels: what is shown there always equals what the stars say, whatever vanished or happened while the bot was away."""

import asyncio
import logging
from dataclasses import dataclass

import discord

from cogs import _cards as cards
from cogs._address import NOBODY, UNKNOWN_MESSAGE, Upload, passing
from cogs._house import House, Verdict
from cogs._language import Language, language
from cogs._replies import FAILURES
from cogs._sight import is_age_restricted
from engine import pictures
from engine.gallery import Gallery, Share
from engine.history import History
from engine.jobs import Job, Painting, Picture
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
    """Looks after every shared picture of which anything changed. One task, one picture at a time: nothing can overtake anything."""

    def __init__(self, bot: discord.Client, gallery: Gallery, history: History, preferences: Preferences, house: House) -> None:
        self._bot = bot
        self._gallery = gallery
        self._history = history
        self._preferences = preferences
        self._house = house
        self._changed: set[int] = set()
        self._texts: dict[int, str] = {}
        """What entries say, as far as this run has seen or written it."""
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
        self._changed.update(pictures_)
        self._quiet.clear()
        self._wanted.set()

    async def touch_server(self, guild_id: int) -> None:
        """Note that a server's gallery has changed."""
        self.touch(*[share.picture for share in await self._gallery.of_server(guild_id)])

    async def settled(self) -> None:
        """Wait until everything is as it should be."""
        await self._quiet.wait()

    async def _run(self) -> None:
        await self._bot.wait_until_ready()
        await self._safely(self._catch_up())
        while True:
            while self._changed:
                picture = self._changed.pop()
                await self._safely(self._refresh(picture), picture)
            await self._safely(self._sweep())
            if not self._changed:
                self._quiet.set()
                await self._wanted.wait()
            self._wanted.clear()

    async def _safely(self, work: "asyncio.Future[None] | object", picture: int | None = None) -> None:
        """Do something; where Discord does not answer, look at the picture again later, and where anything else fails, go on with others."""
        try:
            await work  # type: ignore[misc] # a coroutine
        except FAILURES as error:
            if passing(error):
                log.warning("the gallery waits: %s", error)
                asyncio.get_running_loop().call_later(RETRY_S, self.touch, *([] if picture is None else [picture]))
            else:
                log.info("the gallery may not show a picture: %s", error)
        except Exception:
            log.exception("the gallery cannot show picture %s", picture)

    # What should be.

    def wall(self, guild_id: int) -> Wall | None:
        """Return a server's gallery, None where it has none or its channel is gone."""
        channel = self._bot.get_channel(self._preferences.server(guild_id, "gallery") or 0)
        if not isinstance(channel, (discord.TextChannel, discord.Thread)):
            return None
        stars = self._preferences.server(guild_id, "gallery_stars")
        return Wall(channel, USUAL_STARS if stars is None else stars)

    async def _refresh(self, picture: int) -> None:
        """Post, edit or take away the entry of a picture."""
        share = await self._gallery.find(picture)
        if share is None:
            return
        wall = self.wall(share.guild_id)
        job = await self._history.find(share.job)
        if wall is None or job is None or not await self._belongs(share, job, wall):
            await self._gallery.unlisted(share)
            return
        if share.message_id is not None and share.channel_id != wall.channel.id:
            await self._gallery.unlisted(share)
            share = await self._gallery.find(picture)
            assert share is not None
        text = entry_text(share, job, self._language(share.guild_id))
        if share.message_id is not None:
            if self._texts.get(share.message_id) == text or await self._edited(wall, share.message_id, text):
                return
            await self._gallery.vanished(picture)
            # Stars on the message went with it.
            self.touch(picture)
            return
        await self._post(wall, share, job, text)

    async def _belongs(self, share: Share, job: Job, wall: Wall) -> bool:
        adult = is_age_restricted(wall.channel)
        return share.stars >= wall.stars and (adult or not share.is_adult) and await self._gallery.is_visible(share)

    def _language(self, guild_id: int) -> Language:
        guild = self._bot.get_guild(guild_id)
        return language(self._preferences.server(guild_id, "language") or (str(guild.preferred_locale) if guild else "en-US"))

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
        message_id = await self._posted_before(wall, share)
        if message_id is None:
            single = await self.alone(share)
            if single is None:
                return
            verdict = await self.judged(single, share, wall)
            if verdict.withhold:
                return
            say = self._language(share.guild_id)
            data, ending = await aside(pictures.fit, single.pictures[0].png, wall.channel.guild.filesize_limit)
            spoiler = share.spoiler or verdict.spoiler
            upload = Upload(data, f"gallery-{share.picture}.{ending}", cards.alt_text(job.request, say, 1), spoiler)
            view = cards.gallery_buttons(share.picture, job, share.position, say)
            nonce = f"gallery-{share.picture}"
            sent = await wall.channel.send(text, file=upload.file(), view=view, nonce=nonce, suppress_embeds=True, allowed_mentions=NOBODY)
            message_id = sent.id
            self._texts[message_id] = text
        await self._gallery.posted(share.picture, wall.channel.id, message_id)
        # What changed meanwhile is looked at once more.
        self.touch(share.picture)

    async def judged(self, single: Painting, share: Share, wall: Wall) -> Verdict:
        """Look at a picture before it is shown in a gallery."""
        return await self._house.judge(single, share.guild_id, is_age_restricted(wall.channel))

    async def alone(self, share: Share) -> Painting | None:
        """Return a shared picture without its siblings, None where it is lost."""
        job = await self._history.find(share.job)
        painting = await self._history.painting_of(job) if job is not None else None
        return only(painting, share.position) if painting is not None else None

    async def _posted_before(self, wall: Wall, share: Share) -> int | None:
        """Find an entry that was posted just before a crash, and whose id could not be noted."""
        doomed = {message_id for _, message_id in await self._gallery.doomed()}
        async for message in wall.channel.history(limit=LOOK_THROUGH):
            mine = self._bot.user is not None and message.author.id == self._bot.user.id and message.id not in doomed
            if mine and any(f"gallery-{share.picture}." in attachment.filename for attachment in message.attachments):
                return message.id
        return None

    async def _sweep(self) -> None:
        """Delete the messages that are to be deleted."""
        for channel_id, message_id in await self._gallery.doomed():
            try:
                await self._bot.get_partial_messageable(channel_id).get_partial_message(message_id).delete()
            except discord.HTTPException as refusal:
                if passing(refusal):
                    raise
                log.info("message %d cannot be deleted: %s", message_id, refusal)
            await self._gallery.gone(message_id)
            self._texts.pop(message_id, None)

    # What was missed.

    async def _catch_up(self) -> None:
        """Compare what is remembered of every shared picture with what Discord shows, the latest first."""
        for guild_id in await self._gallery.servers():
            for share in reversed(await self._gallery.of_server(guild_id)):
                for channel_id, message_id in await self._gallery.showings(share.picture):
                    await self._safely(self._compare(share.picture, channel_id, message_id), share.picture)
                self._changed.add(share.picture)

    async def _compare(self, picture: int, channel_id: int, message_id: int) -> None:
        """Catch up with the stars on a message, and with its end."""
        try:
            message = await self._bot.get_partial_messageable(channel_id).fetch_message(message_id)
        except discord.NotFound:
            await self._gallery.message_vanished(message_id)
            return
        except discord.Forbidden:
            # What cannot be read is believed to be as it was.
            return
        self._texts[message_id] = message.content
        reaction = next((one for one in message.reactions if str(one.emoji) == STAR), None)
        people = {user.id async for user in reaction.users()} if reaction is not None else set()
        await self._gallery.set_stars(picture, message_id, people - {self._bot.user.id if self._bot.user else 0})


def only(painting: Painting, position: int) -> Painting | None:
    """Return a painting of one of its pictures, None where there is no such one."""
    if not 0 <= position < len(painting.pictures):
        return None
    kept: tuple[Picture, ...] = (painting.pictures[position],)
    return Painting(kept, painting.model, painting.steps, painting.guidance, painting.seconds, painting.unknown_words, painting.space)


def entry_text(share: Share, job: Job, say: Language) -> str:
    """Say whose picture this is and how many stars it has."""
    what = cards.title(job.request, say, cards.PROMPT_SHOWN)
    credit = say("by {owner}", owner=f"<@{share.user_id}>")
    return f"{STAR} **{share.stars}** · #{share.job} {credit}\n{what}"
