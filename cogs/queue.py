"""/queue: what is being painted, who waits, and where one's own jobs are."""

import discord
from discord import app_commands
from discord.ext import commands

from cogs import _cards as cards
from cogs._address import NOBODY
from cogs._client import Reverie
from cogs._delivery import done_at
from cogs._language import Language, language_of
from engine.jobs import Job, State
from engine.queue import Queue

OWN_SHOWN = 10
"""Own jobs in the list: each has a button to cancel it."""


class Waiting(commands.Cog):
    """Shows the queue. What others ask for is theirs: of them only the number is told."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    @app_commands.command()
    async def queue(self, interaction: discord.Interaction) -> None:
        """Show the queue, and where your own jobs are in it."""
        say, jobs = language_of(interaction), self._queue.unfinished
        painting = sum(job.state is State.PAINTING for job in jobs)
        own = [job for job in jobs if job.origin.user_id == interaction.user.id and job.state in (State.WAITING, State.PAINTING)][:OWN_SHOWN]
        lines = [say("Being painted: {painting}. Waiting: {waiting}.", painting=painting, waiting=self._queue.waiting)]
        lines += [self.line(job, say) for job in own]
        if not own:
            lines.append(say("None of them is yours."))
        cancels = [cards.button(cards.Act.CANCEL, say("Cancel #{number}", number=job.id), job.id) for job in own]
        text = cards.shorten("\n".join(lines), cards.CONTENT_LIMIT)
        await interaction.response.send_message(text, view=cards.buttons(cancels), ephemeral=True, allowed_mentions=NOBODY)

    def line(self, job: Job, say: Language) -> str:
        """Say where one job is."""
        place = self._queue.position(job)
        when = done_at(self._queue, job)
        where = say("number {place}", place=place) if place else say("being painted")
        soon = say(", done {when}", when=f"<t:{when}:R>") if when else ""
        return f"**#{job.id}** {cards.title(job.request, say, 100)}: {where}{soon}"


async def setup(bot: Reverie) -> None:
    """Add the feature to the bot."""
    await bot.add_cog(Waiting(bot.queue))
