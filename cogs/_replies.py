"""From what went wrong to a sentence for the person who asked."""

import logging
import secrets
from collections.abc import Sequence

import aiohttp
import discord
from discord import app_commands

from cogs._answers import tell
from cogs._language import Language, language_of, mark
from engine.errors import Broken, Cancelled, EngineError, InvalidRequest, Misconfigured, QueueFull, Refused, Repeated, TooManyJobs

log = logging.getLogger(__name__)

FAILURES = (discord.HTTPException, aiohttp.ClientError, OSError)
"""How a request to Discord fails: it is refused, or it does not come through."""


class PermissionsMissing(Refused):
    """The bot may not post pictures in the place where they were asked for."""

    def __init__(self, permissions: list[str]) -> None:
        super().__init__(f"missing permissions: {', '.join(permissions)}")
        self.names = ", ".join(f"**{name.replace('_', ' ').title()}**" for name in permissions)


class Undeliverable(EngineError):
    """No place takes what was painted: not the channel, not the interaction, not the person's direct messages."""

    def __init__(self, job: int) -> None:
        super().__init__(f"no place takes job {job}")
        self.job = job


class OldCommand(Refused):
    """A person's Discord shows a command as it was before it changed."""


class NotYours(Refused):
    """Only the person who asked for something, or a moderator, may do this with it."""

    def __init__(self, user_id: int) -> None:
        super().__init__(f"it belongs to {user_id}")
        self.owner = f"<@{user_id}>"


class Forgotten(Refused):
    """A picture, job or form that is not remembered any longer."""


class NoPicture(Refused):
    """A message holds no picture that can be used."""


class Hidden(Refused):
    """Discord does not show the bot what is in somebody else's message."""


class CannotDo(Refused):
    """The loaded model lacks the parts for what was asked."""

    def __init__(self, model: str) -> None:
        super().__init__(f"{model} cannot do this")
        self.model = model


class StillLoading(Refused):
    """The usual model is just being loaded, and nothing is known of it yet."""


class AlreadyDone(Refused):
    """There is nothing left to cancel."""


class NotHere(Refused):
    """Who runs a server lets nobody paint in this channel."""


class Banned(Refused):
    """A moderator has banned somebody from using the bot in a server."""


class TooNew(Refused):
    """Somebody has not been in a server for as long as its owner wants. `ready` is when they will have been, in Unix seconds."""

    def __init__(self, ready: int) -> None:
        super().__init__(f"too new until {ready}")
        self.when = f"<t:{ready}:R>"


class WordsBlocked(Refused):
    """A prompt holds what a server has blocked."""

    def __init__(self, rules: Sequence[str]) -> None:
        super().__init__(f"{len(rules)} rules are broken")
        self.words = ", ".join(f"||{discord.utils.escape_markdown(rule)}||" for rule in rules[:5])


class Withheld(Refused):
    """Pictures show what a server does not want to see."""

    def __init__(self, concepts: Sequence[str]) -> None:
        super().__init__(f"{len(concepts)} concepts are shown")
        self.concepts = ", ".join(f"||{discord.utils.escape_markdown(concept)}||" for concept in concepts[:5])


class MayNot(Refused):
    """Somebody may not change or decide something; the server's owner says who may."""


class OnlyInServers(Refused):
    """What is asked for is a server's, and this is none that the bot is in."""


class NoGallery(Refused):
    """A server has no gallery, or its channel is gone."""


class AdultOnly(Refused):
    """What was painted in an age-restricted channel is not shown in others."""


class OwnStar(Refused):
    """Somebody wants to give their own picture a star."""


class NoStudio(Refused):
    """Whoever runs the bot has not opened the studio, and there is nothing to paint on."""


class Unreported(Refused):
    """Another moderator has decided on a report before."""


SENTENCES: dict[type[EngineError], str] = {
    EngineError: mark("Something went wrong on my side. Try again in a minute."),
    Refused: mark("I can't do that."),
    InvalidRequest: mark("The {field} must {expectation}."),
    PermissionsMissing: mark("I can't post pictures here. Ask a moderator to give me, in this channel: {names}."),
    OldCommand: mark("This command has changed. Reload Discord (Ctrl+R, or close and open the app), then try again."),
    NotYours: mark("Only {owner}, who asked for it, or a moderator can do that."),
    Forgotten: mark("I don't remember this any longer. Ask for it anew."),
    NoPicture: mark("I find no picture there. Use a message that a PNG, JPEG, WebP, GIF, BMP or TIFF file was uploaded to."),
    Hidden: mark("Discord doesn't show me pictures in other people's messages. Right-click or long-press that message → Apps → **Variations**."),
    CannotDo: mark("The model {model} can't do that."),
    StillLoading: mark("My model is still being loaded. Ask again in a moment."),
    AlreadyDone: mark("There is nothing left to cancel."),
    NotHere: mark("Painting is switched off in this channel. Try another one."),
    Banned: mark("The moderators of this server have banned you from using me here."),
    TooNew: mark("This server wants people to have been here for a while first. You can use me {when}."),
    WordsBlocked: mark("This server does not allow this in a prompt: {words}. Say it otherwise."),
    Withheld: mark("The result seems to show what this server does not allow: {concepts}. It is not posted."),
    MayNot: mark("You may not do that here. The owner of the server says who may, in `/settings`."),
    OnlyInServers: mark("That is only there in servers that I am a member of."),
    NoGallery: mark("This server has no gallery yet. Who runs it can choose a channel in `/settings`."),
    AdultOnly: mark("This was painted in an age-restricted channel, and the gallery is not one."),
    OwnStar: mark("Stars for your own pictures do not count."),
    NoStudio: mark("There is nothing to paint on here: whoever runs me has not opened the studio. Use **Inpaint…**, with a region or a mask."),
    Unreported: mark("Somebody has decided on this already."),
    QueueFull: mark("So many people are waiting ({limit} jobs) that I can't take another one just now. Try again in some minutes."),
    TooManyJobs: mark("You already have {limit} jobs on the way, and others are waiting too. Wait for one to be finished."),
    Misconfigured: mark("I am not set up right. The operator finds the reason in my log."),
    Cancelled: mark("Cancelled."),
    Undeliverable: mark("Your pictures are painted, but I may post neither here nor to you directly. `/show {job}` brings them."),
    Broken: mark(
        "Something broke on my side; it is not your fault. Try again, and if it happens again, tell the operator the reference `{reference}`."
    ),
}


def sentence(error: EngineError, say: Language) -> str:
    """Return the most specific sentence for an error."""
    kind = next(kind for kind in type(error).__mro__ if kind in SENTENCES)
    values = vars(error)
    if isinstance(error, InvalidRequest):
        values = {"field": error.field, "expectation": say(error.expectation, **error.values)}
    return say(SENTENCES[kind], **values)


def known(error: Exception) -> EngineError:
    """Return what can be told of an error; what is our fault goes to the log, with a reference to it."""
    cause = error.original if isinstance(error, app_commands.CommandInvokeError) else error
    if isinstance(cause, (app_commands.CommandNotFound, app_commands.CommandSignatureMismatch)):
        return OldCommand()
    if isinstance(cause, EngineError):
        return cause
    broken = Broken(secrets.token_hex(3))
    log.error("a request failed, reference %s", broken.reference, exc_info=error)
    return broken


async def refuse(interaction: discord.Interaction, error: Exception) -> None:
    """Tell the person who used a command or a button, and nobody else, why nothing comes of it."""
    cause = known(error)
    if isinstance(cause, Repeated):
        return
    text = sentence(cause, language_of(interaction))
    try:
        await tell(interaction, text)
    except FAILURES as failure:
        log.warning("a refusal could not be told: %s", failure)
