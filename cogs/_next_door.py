"""What Discord's side does for the studio: it posts pictures from there, and gives people links to the brush there."""

import hashlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import discord

from cogs import _cards as cards
from cogs._address import NOBODY, Upload
from cogs._desk import REQUEST_LIMIT, Desk, check_permissions, origin_of
from cogs._house import House, Place
from cogs._language import language
from cogs._replies import FAILURES, Forgotten, NoStudio, NotHere, Withheld, sentence
from cogs._sight import above, in_direct_messages, is_age_restricted
from engine import pictures, uploads
from engine.errors import EngineError
from engine.history import Draft, History
from engine.jobs import Kind, Origin, check_prompt
from engine.neighbour import Channel, Declined, Sheet
from engine.preferences import Defaults
from engine.worker import aside

log = logging.getLogger(__name__)

LINK_S = 15 * 60.0
"""A link that nobody used for so long leads nowhere."""
SECRET_BYTES = 24
TOKEN = re.compile(r"(?P<number>[0-9]{1,18})\.(?P<secret>[A-Za-z0-9_-]{32})")
"""The number of a draft, which anybody may know, and what only the link holds: 192 random bits."""
ENGLISH = language("en-US")
"""What the studio speaks."""

Postable = discord.TextChannel | discord.VoiceChannel | discord.StageChannel | discord.Thread


class NextDoor:
    """Discord's side as the studio knows it, see `engine.neighbour`. Links are drafts: they survive a restart."""

    def __init__(self, bot: discord.Client, desk: Desk, history: History, house: House) -> None:
        self._bot = bot
        self._desk = desk
        self._history = history
        self._house = house
        self._address = ""
        self._channels: tuple[int, ...] = ()
        self._used: set[int] = set()
        """Drafts whose links are just being used."""

    def open(self, address: str, channels: Sequence[int]) -> None:
        """Note where people reach the studio, now that it runs, and which channels it may post to."""
        self._address = address.rstrip("/")
        self._channels = tuple(channels)

    @property
    def is_open(self) -> bool:
        """Whether there is a studio that links could lead to."""
        return bool(self._address)

    # Links.

    async def link(self, interaction: discord.Interaction, picture: bytes, wanted: Mapping[str, Any]) -> str:
        """Return a link to the brush for a picture. `wanted` are the options of the request, its prompt and its parent as far as there are any.

        Raises:
            NoStudio: it would lead nowhere.
        """
        if not self.is_open:
            raise NoStudio
        secret = secrets.token_urlsafe(SECRET_BYTES)
        place = self._desk.place(interaction)
        origin = replace(origin_of(interaction, bool(wanted.get("spoiler"))), locale=self._desk.locale(interaction))
        if not origin.is_foreign:
            # What is said in the channel is a message of the bot's own, which no interaction's token can change.
            origin = replace(origin, token=None)
        name = getattr(interaction.channel, "name", None)
        content = {
            "digest": digest_of(secret),
            "expires_at": time.time() + LINK_S,
            "channel": f"#{name}" if name else "your direct messages" if in_direct_messages(interaction) else "your group",
            "origin": asdict(origin),
            "channel_ids": place.channel_ids,
            "guild_id": place.guild_id,
            "joined_at": place.joined_at,
        }
        number = await self._history.add_draft(interaction.user.id, dict(wanted) | content, picture)
        return f"{self._address}/paint/{number}.{secret}"

    async def _found(self, token: str) -> tuple[int, int, Draft] | None:
        """Return the number of the draft that a link leads to, whose it is, and the draft."""
        told = TOKEN.fullmatch(token)
        found = await self._history.find_linked(int(told["number"])) if told else None
        if told is None or found is None or found[1].image is None:
            return None
        user_id, draft = found
        if not hmac.compare_digest(draft.content.get("digest", ""), digest_of(told["secret"])) or draft.content["expires_at"] < time.time():
            return None
        return int(told["number"]), user_id, draft

    async def sheet(self, token: str) -> Sheet | None:
        """Return what a link leads to."""
        found = await self._found(token)
        if found is None:
            return None
        _, user_id, draft = found
        content = draft.content
        return Sheet(user_id, draft.image or b"", content.get("prompt") or "", content["channel"], content["expires_at"])

    async def paint(self, token: str, prompt: str, mask: bytes) -> None:
        """Have what was painted over repainted where the link was shown.

        Raises:
            Declined: it cannot be done; the link stays as it is.
        """
        found = await self._found(token)
        if found is None or found[0] in self._used:
            raise Declined(sentence(Forgotten(), ENGLISH))
        number, _, draft = found
        self._used.add(number)
        try:
            await self._queue(draft, prompt, mask)
            await self._history.drop_draft(number)
        except EngineError as error:
            raise Declined(sentence(error, language(draft.content["origin"]["locale"]))) from None
        finally:
            self._used.discard(number)

    async def _queue(self, draft: Draft, prompt: str, mask: bytes) -> None:
        content = draft.content
        check_prompt(prompt)
        usual = Defaults.written(content)
        picture, wanted = await self._desk.decoded(uploads.take_in_part, draft.image, mask, None)
        request = usual.request(prompt, content.get("seed"), Kind.INPAINT, picture, wanted)
        origin = Origin(**content["origin"] | {"notes": ()})
        place = Place(origin.user_id, tuple(content["channel_ids"]), content["guild_id"], origin.is_adult, content["joined_at"])
        await self._desk.accept_link(origin, place, request, content.get("parent"))

    # Pictures from the studio.

    def channels(self) -> list[Channel]:
        """Return the channels that people of the studio may post to, and where the bot may."""
        found = [(channel_id, self._channel(channel_id)) for channel_id in self._channels]
        return [Channel(channel_id, f"#{channel.name} · {channel.guild.name}") for channel_id, channel in found if channel is not None]

    def _channel(self, channel_id: int) -> Postable | None:
        channel = self._bot.get_channel(channel_id)
        if not isinstance(channel, Postable):
            return None
        try:
            check_permissions(channel.permissions_for(channel.guild.me), in_thread=isinstance(channel, discord.Thread))
        except EngineError:
            return None
        return channel

    async def post(self, channel_id: int, job_id: int, position: int, with_prompt: bool) -> None:
        """Post a picture of the studio's by the rules of the channel's server.

        Raises:
            Declined: it may not be posted there, or Discord does not take it.
        """
        channel = self._channel(channel_id) if channel_id in self._channels else None
        if channel is None:
            raise Declined("I can't post pictures there any longer.")
        try:
            await self._post(channel, job_id, position, with_prompt)
        except EngineError as error:
            raise Declined(sentence(error, ENGLISH)) from None
        except FAILURES as error:
            log.warning("a picture from the studio could not be posted: %s", error)
            raise Declined("Discord does not take it just now. Try again in a minute.") from None
        log.info("job %d: picture %d was posted from the studio", job_id, position + 1)

    async def _post(self, channel: Postable, job_id: int, position: int, with_prompt: bool) -> None:
        job = await self._desk.remembered(job_id)
        painting = (await self._desk.painted(job)).only(position)
        if painting is None:
            raise Forgotten
        guild, is_adult, say = channel.guild, is_age_restricted(channel), self._house.server_language(channel.guild)
        place = Place(job.origin.user_id, (channel.id, *above(channel)), guild.id, is_adult)
        if not self._house.preferences.may_paint(place.channel_ids, guild.id):
            raise NotHere
        request, _ = self._house.cleaned(place, job.request, say)
        verdict = await self._house.judge(painting, guild.id, is_adult)
        if verdict.withhold:
            raise Withheld(verdict.concepts)
        data, ending = await aside(pictures.fit, painting.pictures[0].png, min(guild.filesize_limit, REQUEST_LIMIT))
        upload = Upload(data, cards.file_name(job, ending), cards.alt_text(request, say, 1), job.origin.spoiler or verdict.spoiler)
        title = cards.title(request, say) if with_prompt else ""
        await channel.send(f"**{title}**" if title else None, file=upload.file(), allowed_mentions=NOBODY, suppress_embeds=True)


def digest_of(secret: str) -> str:
    """Return what is kept of a secret: who reads the database does not learn the links."""
    return hashlib.sha256(secret.encode()).hexdigest()
