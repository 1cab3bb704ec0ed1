"""/mydata: everything that is known of a person, to keep or to erase; and what servers let be forgotten after a while."""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import discord
from discord import app_commands
from discord.ext import commands

from cogs import _cards as cards
from cogs._archives import Parcel, send_archives
from cogs._client import Reverie
from cogs._desk import Desk
from cogs._language import language_of
from engine.queue import Queue
from engine.rights import Erased, Rights

log = logging.getLogger(__name__)

EXPIRE_EVERY_S = 24 * 3600.0
ENDING_S = 60.0
"""How long a job that is called off may take to its next step."""


class MyData(commands.GroupCog, group_name="mydata", group_description="Everything I know of you, to keep or to erase"):
    """What is a person's is theirs: they get it whole, and it is gone when they say so."""

    def __init__(self, bot: Reverie) -> None:
        self._bot = bot
        self._desk: Desk = bot.desk
        self._queue: Queue = bot.queue
        self._rights: Rights = bot.rights
        self._expiring: asyncio.Task[None] | None = None
        # Two that erase the same would each take the words of a prompt out of the index.
        self._erasing = asyncio.Lock()
        bot.presses[cards.Act.ERASE] = self.erase

    @commands.Cog.listener()
    async def on_ready(self) -> None:
        """Begin to forget what servers want to be forgotten; only once, for Discord begins a new session now and then."""
        if self._expiring is None:
            self._expiring = asyncio.create_task(self.expire(), name="retention")

    async def cog_unload(self) -> None:
        """Stop forgetting."""
        if self._expiring is not None:
            self._expiring.cancel()
            await asyncio.gather(self._expiring, return_exceptions=True)

    @app_commands.command()
    async def export(self, interaction: discord.Interaction) -> None:
        """Get everything I know of you as ZIP files."""
        await interaction.response.defer(ephemeral=True, thinking=True)
        facts, files = await self._rights.export(interaction.user.id)
        await send_archives(interaction, parcels(facts, files), lambda count: facts, "mydata")

    @app_commands.command()
    async def delete(self, interaction: discord.Interaction) -> None:
        """Erase everything I know of you, for ever."""
        say = language_of(interaction)
        text = say(
            "This erases all your pictures, prompts, settings, stars and votes, and my messages that show your pictures. It cannot be undone. "
            "`/mydata export` gives you a copy first."
        )
        view = cards.buttons([cards.button(cards.Act.ERASE, say("Erase everything"), 0, style=discord.ButtonStyle.danger)])
        await interaction.response.send_message(text, view=view, ephemeral=True)

    async def erase(self, interaction: discord.Interaction, number: int, index: int) -> None:
        """Erase everything of whoever pressed the button."""
        await interaction.response.defer()
        say, user_id = language_of(interaction), interaction.user.id
        if user_id in self._bot.house.leaving:
            return
        self._bot.house.leaving.add(user_id)
        try:
            erased = await self.erase_user(user_id)
        finally:
            self._bot.house.leaving.discard(user_id)
        log.info("everything of a person was erased: %d jobs", erased.jobs)
        text = say("Erased: {jobs} results, and everything else of yours.", jobs=erased.jobs)
        await interaction.edit_original_response(content=text, view=None)

    async def erase_user(self, user_id: int) -> Erased:
        """Erase everything of a person, from memory too."""
        async with self._erasing:
            await self.call_off(user_id)
            self._bot.preferences.forget_user(user_id)
            erased = await self._rights.erase_user(user_id)
        await self.forget(erased)
        return erased

    async def call_off(self, user_id: int) -> None:
        """End every job of a person, and wait until each has ended and nobody tells of it any longer."""
        async with asyncio.timeout(ENDING_S):
            while mine := [job for job in self._queue.unfinished if job.origin.user_id == user_id]:
                for job in mine:
                    await self._queue.cancel(job)
                for job in mine:
                    while self._queue.find(job.id) is not None:
                        await job.change()
                # Who cannot change a message that is deleted meanwhile posts another one. Some may have begun to tell only now.
                told = [task for task in asyncio.all_tasks() if task.get_name() in {f"job {job.id}" for job in mine}]
                await asyncio.gather(*map(asyncio.shield, told), return_exceptions=True)

    async def forget(self, erased: Erased) -> None:
        """Let nothing in memory know what was erased, delete the messages that showed it, and show what has fewer stars now."""
        await self._bot.album.forget(erased.pictures)
        self._bot.board.touch(*erased.starred)

    # Retention.

    async def expire(self) -> None:
        """Forget, at the start and every day, what servers do not want to be kept any longer."""
        while True:
            await self.expire_once()
            await asyncio.sleep(EXPIRE_EVERY_S)

    async def expire_once(self) -> None:
        """Forget what servers do not want to be kept any longer; where one server's cannot be forgotten, the others' are all the same."""
        for guild_id, days in self._bot.preferences.servers_with("retention_days").items():
            try:
                async with self._erasing:
                    erased = await self._rights.expire(guild_id, days)
                await self.forget(erased)
                if erased.jobs:
                    log.info("%d jobs of a server are older than %d days and forgotten", erased.jobs, days)
            except Exception:
                log.exception("old jobs of a server cannot be forgotten")


def parcels(facts: dict[str, Any], files: Sequence[tuple[str, Path | bytes]]) -> list[Parcel]:
    """Put the files of an export in order: first what only an export holds, then results as `/download` goes on with them, the latest first."""
    kept = {job["id"] for job in facts["jobs"] if job["seconds"] is not None and job["removed_by"] is None and not job["withheld"]}
    numbers = {picture["path"]: picture["job"] for picture in facts["pictures"] if picture["job"] in kept}
    of_job: dict[int, list[tuple[str, Path | bytes]]] = {}
    for name, data in files:
        of_job.setdefault(numbers.get(name, 0), []).append((name, data))
    first = Parcel(0, of_job.pop(0, []))
    return [first, *(Parcel(number, of_job[number]) for number in sorted(of_job, reverse=True))]


async def setup(bot: Reverie) -> None:
    """Add the feature to the bot."""
    await bot.add_cog(MyData(bot))
