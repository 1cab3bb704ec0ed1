"""Messages that are for the bot: replies to its pictures, and pictures it is shown. Works without the message content intent."""

import logging
import re

import discord
from discord.ext import commands

from cogs._client import Reverie
from cogs._desk import Desk, Shown, origin_of_message, uploaded_picture
from cogs._house import place_of_message
from cogs._language import Language, language, mark
from cogs._replies import FAILURES, Forgotten, Hidden, NoPicture, known, sentence
from cogs.card import note_single, rerolled, reworded, single
from cogs.variations import variation_of
from engine.jobs import PROMPT_LIMIT, Kind

log = logging.getLogger(__name__)

PICK = re.compile(r"(?P<act>[uv]?)\s*(?P<number>[1-9])", re.IGNORECASE)
AGAIN = ("again", "reroll")
HINT = mark("Use `/dream` to paint, or mention me in a reply to a picture for variations of it.")


class Replies(commands.Cog):
    """Answers messages that reply to a picture or show one."""

    def __init__(self, bot: Reverie) -> None:
        self._bot = bot
        self._desk: Desk = bot.desk

    @commands.Cog.listener("on_message")
    async def heard(self, message: discord.Message) -> None:
        """Do what a message asks for; say why not where it cannot be done."""
        me = self._bot.user
        if me is None or message.author.bot or message.type not in (discord.MessageType.default, discord.MessageType.reply):
            return
        if message.guild is not None and me not in message.mentions:
            return
        try:
            await self.answer(message, words_of(message, me.id))
        except Exception as error:
            # Not as a reply: the permission for that may be what is missing.
            try:
                told = sentence(known(error), self.say_to(message))
                await message.channel.send(f"<@{message.author.id}> {told}")
            except FAILURES as failure:
                log.info("a message could not be answered: %s", failure)

    def say_to(self, message: discord.Message) -> Language:
        """Return the language to answer a message in."""
        return language(self._desk.locale_of_message(message))

    async def answer(self, message: discord.Message, words: str) -> None:
        """Find the picture that a message is about, and do what its words say."""
        if message.attachments:
            await self.vary_upload(message, message, words)
            return
        if message.reference is None or message.reference.message_id is None:
            if message.guild is not None or words:
                await message.reply(self.say_to(message)(HINT), mention_author=False)
            return
        source = message.reference.resolved
        if not isinstance(source, discord.Message):
            raise Forgotten
        shown = await self._desk.shown(source)
        if shown is not None:
            await self.follow(message, shown, words)
        elif source.attachments:
            await self.vary_upload(message, source, words)
        elif is_hidden(source, message.guild, self._bot):
            raise Hidden
        else:
            raise NoPicture

    async def vary_upload(self, message: discord.Message, source: discord.Message, words: str) -> None:
        """Paint variations of the picture that a message holds."""
        attachment = uploaded_picture(source.attachments)
        picture = await self._desk.picture(attachment)
        usual = self._desk.defaults_of_message(message)
        request = usual.request(words[:PROMPT_LIMIT], kind=Kind.VARIATION, image=picture)
        await self._desk.accept_message(message, request, spoiler=usual.spoiler or attachment.is_spoiler())

    async def follow(self, message: discord.Message, shown: Shown, words: str) -> None:
        """Go on from one of our own pictures: vary or enlarge one, paint again, or with more words."""
        job = shown.job
        desk, spoiler = self._desk, job.origin.spoiler
        picked = PICK.fullmatch(words)
        if picked and int(picked["number"]) <= job.request.count:
            index = int(picked["number"]) - 1
            if picked["act"].lower() == "u":
                limit_bytes = origin_of_message(message, spoiler).file_limit
                file, text, view = await single(desk, job, index, place_of_message(message), self.say_to(message), limit_bytes)
                answer = await message.reply(text, file=file, view=view, mention_author=False, suppress_embeds=True)
                await note_single(desk, self._bot.gallery, job, index, message.channel.id, answer.id)
            else:
                parent = await desk.history.picture_id(job, index)
                await desk.accept_message(message, await variation_of(desk, job, index), spoiler=spoiler, parent=parent)
        elif words.lower() in AGAIN:
            parent = await desk.history.parent_of(job)
            await desk.accept_message(message, rerolled(job.request), spoiler=spoiler, parent=parent, source=job.id)
        elif words:
            prompt = f"{job.request.prompt} {words}".strip()
            await desk.accept_message(message, reworded(job.request, prompt), spoiler=spoiler, source=job.id)


def words_of(message: discord.Message, bot_id: int) -> str:
    """Return the words of a message without the mention of the bot."""
    return " ".join(re.sub(rf"<@!?{bot_id}>", " ", message.content).split())


def is_hidden(source: discord.Message, guild: discord.Guild | None, bot: discord.Client) -> bool:
    """Tell whether Discord may keep from us what is in a message: somebody else's, in a server, and it looks empty."""
    return guild is not None and source.author != bot.user and not (source.content or source.embeds or source.components)


async def setup(bot: Reverie) -> None:
    """Add the feature to the bot."""
    await bot.add_cog(Replies(bot))
