"""The rules of a place: who may ask there, what a request becomes there, and what of its pictures may be seen."""

import asyncio
import string
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import discord

from cogs._language import Language, language, mark
from cogs._replies import Banned, Forgotten, MayNot, NotHere, TooNew, WordsBlocked
from cogs._sight import above, is_age_restricted, is_foreign
from engine.concepts import STRICTNESS, shown
from engine.errors import TooManyJobs
from engine.jobs import STEPS_LIMIT, Job, Painter, Painting, Request
from engine.moderation import Moderation
from engine.preferences import Area, Defaults, Preferences

DAY_S = 24 * 3600
USUAL_STRICTNESS = "middle"
NO_WORDS = string.punctuation + string.whitespace
"""What is left of a prompt where there is nothing left to paint."""
OPTIONS = {"count": mark("count"), "steps": mark("steps")}


class Looks(Protocol):
    """What judging requests and pictures needs of the worker. `ready` is set when the usual painter is loaded."""

    @property
    def ready(self) -> asyncio.Event: ...

    def painter_of(self, model: str) -> Painter | None: ...

    def painter_in(self, space: str) -> Painter | None: ...

    async def embed_texts(self, painter: Painter, texts: Sequence[str]) -> list[bytes]: ...


class Waiting(Protocol):
    """What limits need of the queue."""

    @property
    def unfinished(self) -> list[Job]: ...


@dataclass(frozen=True, slots=True)
class Place:
    """Who asks, and where. `channel_ids` are the channel's, and for a thread then that of the channel above it; `guild_id` is None abroad too.

    `joined_at` is when the person came to the server, in Unix seconds, where that is known.
    """

    user_id: int
    channel_ids: tuple[int, ...]
    guild_id: int | None
    is_adult: bool = False
    joined_at: float | None = None
    roles: frozenset[int] = frozenset()
    permissions: discord.Permissions = discord.Permissions.none()
    is_owner: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be done with a picture: `concepts` are those that it shows and that are not wanted where it is to be seen."""

    concepts: tuple[str, ...] = ()
    withhold: bool = False
    spoiler: bool = False


class House:
    """Answers what holds in a place."""

    def __init__(self, preferences: Preferences, moderation: Moderation, looks: Looks, waiting: Waiting) -> None:
        self.preferences = preferences
        self.moderation = moderation
        self._looks = looks
        self._waiting = waiting
        self.leaving: set[int] = set()
        """People of whom everything is just being erased: nothing new of theirs is begun."""
        self._embedded: dict[tuple[str, str], bytes] = {}
        """Embeddings of texts, by space and text."""

    def defaults(self, place: Place) -> Defaults:
        """Return what a request is here that says nothing else."""
        return self.preferences.defaults(place.user_id, place.channel_ids, place.guild_id)

    def locale(self, place: Place, own: str) -> str:
        """Return the locale to answer in; `own` is that of the person's Discord."""
        return self.preferences.language(place.user_id, place.channel_ids, place.guild_id) or own

    def server_language(self, guild: discord.Guild) -> Language:
        """Return the language for what all of a server read: what the server chose, else its Discord's."""
        return language(self.preferences.server(guild.id, "language") or str(guild.preferred_locale))

    # Who may.

    def may(self, place: Place, area: Area) -> bool:
        """Tell whether somebody may change what belongs to an area of the server."""
        if area is Area.OWN:
            return True
        if place.guild_id is None:
            return False
        if place.is_owner:
            return True
        if area is Area.OWNER:
            return False
        if place.permissions.administrator:
            return True
        if chosen := self.preferences.roles(place.guild_id, area):
            return bool(chosen & place.roles)
        return place.permissions.manage_messages if area is Area.MODERATION else place.permissions.manage_guild

    def check_may(self, place: Place, area: Area) -> None:
        """Make sure that somebody may change what belongs to an area of the server.

        Raises:
            MayNot: they may not.
        """
        if not self.may(place, area):
            raise MayNot

    async def check_person(self, place: Place) -> None:
        """Make sure that somebody may use the bot in the server.

        Raises:
            Banned, TooNew: they may not.
        """
        if place.guild_id is None:
            return
        if await self.moderation.is_banned(place.guild_id, place.user_id):
            raise Banned
        least_days = self.preferences.server(place.guild_id, "min_days")
        if least_days and place.joined_at is not None and time.time() < (ready := place.joined_at + least_days * DAY_S):
            raise TooNew(round(ready))

    # What a request becomes.

    async def admit(self, place: Place, request: Request, say: Language) -> tuple[Request, tuple[str, ...]]:
        """Return a request as it may be painted here, and what the card says of what was changed.

        Raises:
            Refused: it may not.
        """
        if place.user_id in self.leaving:
            raise Forgotten
        await self.check_person(place)
        if not self.preferences.may_paint(place.channel_ids, place.guild_id):
            raise NotHere
        most = self.preferences.server(place.guild_id, "max_jobs")
        if most is not None and self._jobs_here(place) >= most:
            raise TooManyJobs(most)
        request, notes = self.cleaned(place, request, say)
        painter, asked = self._looks.painter_of(request.model), request
        # How many steps a model takes that is not loaded yet nobody knows, so a limit is what it gets.
        usual_steps = painter.usual_steps(request.preset) if painter else STEPS_LIMIT
        for change in self.preferences.limit(asked, place.channel_ids, place.guild_id, usual_steps):
            changes: dict[str, Any] = {change.option: change.most}
            request = replace(request, **changes)
            if change.option == "steps" and asked.steps is None and painter is None:
                continue
            notes.append(
                say(
                    "{option}: {most} instead of {asked}, which is the limit here.",
                    option=say(OPTIONS[change.option]),
                    most=change.most,
                    asked=change.asked,
                )
            )
        return request, tuple(notes)

    def cleaned(self, place: Place, request: Request, say: Language) -> tuple[Request, list[str]]:
        """Return a request without words that are blocked here, and what the card says of that.

        Raises:
            WordsBlocked: the server wants such requests refused, or nothing is left of it.
        """
        words = self.preferences.filter(place.guild_id)
        broken = [rule for text in request.texts for rule in words.find(text)]
        if not broken:
            return request, []
        is_left = all(words.censored(text).strip(NO_WORDS) for text in request.texts)
        if self.preferences.server(place.guild_id, "word_policy") != "remove" or not is_left:
            raise WordsBlocked(list(dict.fromkeys(broken)))
        return request.worded(words.censored), [say("Words that are not allowed here were taken out.")]

    def _jobs_here(self, place: Place) -> int:
        origins = [job.origin for job in self._waiting.unfinished]
        return sum(origin.user_id == place.user_id and origin.guild_id == place.guild_id for origin in origins)

    # What may be seen.

    def previews(self, job: Job) -> bool:
        """Tell whether half-painted pictures may be shown: not where finished ones would be looked at first."""
        return not self.looks_at(job.origin.guild_id, job.origin.is_adult)

    def looks_at(self, guild_id: int | None, is_adult: bool) -> bool:
        """Tell whether pictures are looked at before they are posted in a place, which may take as long as painting does."""
        return bool(self._concepts(guild_id, is_adult))

    def _concepts(self, guild_id: int | None, is_adult: bool) -> list[str]:
        """Return the concepts that are not wanted in a place."""
        free = is_adult and self.preferences.server(guild_id, "adult_channels") != "same"
        return [] if free else self.preferences.server(guild_id, "blocked_concepts") or []

    async def judge(self, painting: Painting, guild_id: int | None, is_adult: bool) -> Verdict:
        """Look at pictures before they are posted in a place. Those of the run before wait until the usual model is loaded.

        Where no CLIP has looked at them, or it is that of another model that is not loaded, they go under a spoiler.
        """
        unwanted = self._concepts(guild_id, is_adult)
        if not unwanted:
            return Verdict()
        if painting.space:
            await self._looks.ready.wait()
        painter = self._looks.painter_in(painting.space)
        if painter is None:
            return Verdict(spoiler=True)
        phrases = {text: phrase(text) for text in unwanted}
        known = await self._embeddings(painter, [*phrases.values(), *painter.everyday])
        concepts = {text: known[phrases[text]] for text in unwanted}
        everyday = [known[text] for text in painter.everyday]
        threshold = STRICTNESS[self.preferences.server(guild_id, "strictness") or USUAL_STRICTNESS]
        found = [text for picture in painting.pictures if picture.embedding for text in shown(picture.embedding, concepts, everyday, threshold)]
        if not found:
            return Verdict(spoiler=any(picture.embedding is None for picture in painting.pictures))
        withhold = self.preferences.server(guild_id, "concept_policy") != "spoiler"
        return Verdict(tuple(dict.fromkeys(found)), withhold, spoiler=not withhold)

    async def _embeddings(self, painter: Painter, texts: Sequence[str]) -> dict[str, bytes]:
        space = painter.space
        missing = [text for text in dict.fromkeys(texts) if (space, text) not in self._embedded]
        if missing:
            for text, embedding in zip(missing, await self._looks.embed_texts(painter, missing), strict=True):
                self._embedded[space, text] = embedding
        return {text: self._embedded[space, text] for text in texts}


def phrase(concept: str) -> str:
    """Return a concept as pictures of it are described."""
    return concept if concept.lower().startswith(("a ", "an ", "the ")) else f"a {concept}"


def place_of(interaction: discord.Interaction) -> Place:
    """Return who uses a command or a button, and where."""
    channel, member = interaction.channel, interaction.user
    channel_ids = (interaction.channel_id or 0, *above(channel))
    guild = None if is_foreign(interaction) else interaction.guild
    if guild is None or not isinstance(member, discord.Member):
        return Place(member.id, channel_ids, None, is_age_restricted(channel))
    return place_of_member(member, channel_ids, guild, channel)


def place_of_message(message: discord.Message) -> Place:
    """Return who wrote a message, and where."""
    channel_ids = (message.channel.id, *above(message.channel))
    if message.guild is None or not isinstance(message.author, discord.Member):
        return Place(message.author.id, channel_ids, None, is_age_restricted(message.channel))
    return place_of_member(message.author, channel_ids, message.guild, message.channel)


def place_of_member(member: discord.Member, channel_ids: tuple[int, ...], guild: discord.Guild, channel: object) -> Place:
    """Return the place of a member of a server that the bot is in too. What one may do in a single channel only makes nobody a moderator."""
    joined_at = member.joined_at.timestamp() if member.joined_at else None
    roles = frozenset(member._roles)
    return Place(
        member.id, channel_ids, guild.id, is_age_restricted(channel), joined_at, roles, member.guild_permissions, guild.owner_id == member.id
    )
