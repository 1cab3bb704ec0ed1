"""/dream and /words: from a prompt to a job, and what the model was shown."""

import logging
import secrets
from collections.abc import Callable, Sequence
from typing import Protocol

import discord
from discord import app_commands
from discord.ext import commands

from cogs._address import FAILURES
from cogs._cards import shorten
from cogs._client import Reverie
from cogs._delivery import UPLOAD_LIMIT, Courier
from cogs._replies import GridTooLarge, PermissionsMissing
from engine.jobs import COUNT_LIMIT, GUIDANCE_LIMIT, PROMPT_LIMIT, SEED_LIMIT, STEPS_LIMIT, Job, Origin, Request
from engine.pictures import bytes_at_most

log = logging.getLogger(__name__)

MESSAGE_LIMIT = 2000
TOKEN_MARGIN_S = 30.0
"""An interaction's token is not used in its last seconds: an upload may take longer."""


class Jobs(Protocol):
    """What /dream needs of the queue."""

    async def submit(self, request: Request, origin: Origin) -> Job: ...

    async def show(self, job: Job, message_id: int) -> None: ...


class Dream(commands.Cog):
    """Paints what people describe.

    A request is checked before anything is queued, on disk before it is acknowledged, and acknowledged within a second. From there the
    courier takes it to its end.
    """

    def __init__(self, jobs: Jobs, courier: Courier, known_words: Callable[[], Sequence[str] | None]) -> None:
        self._jobs = jobs
        self._courier = courier
        self._known_words = known_words

    @app_commands.command()
    @app_commands.describe(
        prompt="What to paint",
        count="How many pictures",
        seed="Paint an earlier picture again: equal seeds give equal pictures",
        steps="Denoising steps: more take longer and are finer",
        guidance="How strictly to follow the prompt; 1 is not at all strict",
        spoiler="Hide the pictures until somebody clicks on them",
    )
    async def dream(
        self,
        interaction: discord.Interaction,
        prompt: app_commands.Range[str, 1, PROMPT_LIMIT],
        count: app_commands.Range[int, 1, COUNT_LIMIT] = 4,
        seed: app_commands.Range[int, 0, SEED_LIMIT - 1] | None = None,
        steps: app_commands.Range[int, 1, STEPS_LIMIT] | None = None,
        guidance: app_commands.Range[float, 0.0, GUIDANCE_LIMIT] | None = None,
        spoiler: bool = False,
    ) -> None:
        """Paint what a prompt describes."""
        request = Request(prompt, secrets.randbelow(SEED_LIMIT) if seed is None else seed, count, steps, guidance)
        check_place(interaction, request)
        job = await self._jobs.submit(request, origin_of(interaction, spoiler))
        try:
            # Links in a prompt stay folded, here and in every edit.
            answer = await interaction.response.send_message(self._courier.text(job), suppress_embeds=True)
            if answer.message_id is not None:
                await self._jobs.show(job, answer.message_id)
        except FAILURES as error:
            # Too late, or Discord is not there: the job is accepted all the same and its result is posted.
            log.warning("job %d: could not be acknowledged: %s", job.id, error)
        finally:
            self._courier.follow(job)

    @app_commands.command()
    async def words(self, interaction: discord.Interaction) -> None:
        """Show the words that the loaded model was trained on."""
        words = self._known_words()
        if words is None:
            text = "My model is still being loaded. Ask again in a moment."
        elif words:
            text = f"I was shown these words: {', '.join(words)}."
        else:
            text = "I know more words than a list can hold. Just try."
        await interaction.response.send_message(shorten(text, MESSAGE_LIMIT), ephemeral=True)


def check_place(interaction: discord.Interaction, request: Request) -> None:
    """Make sure that the result can be posted where it was asked for, before anything is painted.

    Raises:
        PermissionsMissing: the bot may not post pictures here.
        GridTooLarge: the largest file that the grid could be is more than this place takes.
    """
    # In direct messages nobody can take a permission away, and Discord names only some of them.
    if interaction.guild_id is not None:
        in_thread = isinstance(interaction.channel, discord.Thread)
        needed = ("view_channel", "send_messages_in_threads" if in_thread else "send_messages", "embed_links", "attach_files")
        missing = [name for name in needed if not getattr(interaction.app_permissions, name)]
        if missing:
            raise PermissionsMissing(missing)
    limit = min(interaction.filesize_limit, UPLOAD_LIMIT)
    if bytes_at_most(request.count) > limit:
        raise GridTooLarge(limit)


def origin_of(interaction: discord.Interaction, spoiler: bool) -> Origin:
    """Note who asked, and where the answer goes."""
    assert interaction.channel_id is not None, "slash commands come from channels"
    return Origin(
        user_id=interaction.user.id,
        channel_id=interaction.channel_id,
        guild_id=interaction.guild_id,
        token=interaction.token,
        token_expires_at=interaction.expires_at.timestamp() - TOKEN_MARGIN_S,
        spoiler=spoiler,
    )


async def setup(bot: Reverie) -> None:
    """Add the feature to the bot."""
    await bot.add_cog(Dream(bot.queue, bot.courier, bot.known_words))
