"""/history, /similar and /download: finding what was painted earlier, what it looks like and what it came from."""

from typing import Any

import discord
from discord import app_commands
from discord.ext import commands

from cogs import _cards as cards
from cogs._address import Upload
from cogs._client import Reverie
from cogs._desk import Desk, file_limit
from cogs._language import Language, language_of, mark
from cogs._replies import CannotDo, Forgotten
from cogs._sight import is_foreign, may_see, scope_of
from engine import pictures
from engine.album import Album, Lookalike, Relative
from engine.archives import packed
from engine.errors import InvalidRequest
from engine.jobs import COUNT_LIMIT, Job, Request
from engine.worker import Worker, aside

PAGE = 5
"""Results on a page: each has an embed, of which Discord takes ten, and a button, of which a row takes five."""
THUMBNAIL_PX = 160
ALIKE = 10
"""Pictures that are shown as similar."""
TREE_SHOWN = 20
"""Relatives in the picture of a family; the text names more."""
INDENT = "\u2003"
"""A wide space: Discord swallows ordinary ones."""
MOST_ARCHIVES = 20
MOST_ARCHIVES_ABROAD = 5
"""Messages that Discord takes of a bot in places that it is not a member of."""
MOST_DOWNLOADED = 500
"""Results in one download."""


MINE = app_commands.Choice(name=mark("mine"), value="mine")
SERVER = app_commands.Choice(name=mark("the server's"), value="server")
Number = app_commands.Range[int, 1, 2**53 - 1]


class Browse(commands.Cog):
    """Finds earlier pictures. What is found is shown to whoever asked and nobody else: only what they made, or could see in its channel."""

    def __init__(self, bot: Reverie) -> None:
        self._desk: Desk = bot.desk
        self._album: Album = bot.album
        self._worker: Worker = bot.worker
        bot.presses |= {
            cards.Act.PAGE: self.turn,
            cards.Act.SIMILAR: self.similar_to,
            cards.Act.FAMILY: self.family,
            cards.Act.DOWNLOAD: self.download_one,
        }

    # Pages.

    @app_commands.command()
    @app_commands.describe(whose="Your own pictures, or those of this server", words="Words of the prompt; the last one may be incomplete")
    @app_commands.choices(whose=[MINE, SERVER])
    async def history(self, interaction: discord.Interaction, whose: str = "mine", words: app_commands.Range[str, 1, 100] = "") -> None:
        """Look through earlier results."""
        scope_of(interaction, whose)
        await interaction.response.defer(ephemeral=True, thinking=True)
        number = await self._desk.history.add_draft(interaction.user.id, {"whose": whose, "words": words, "newest": 2**62})
        await self.show_page(interaction, number, 0)

    async def turn(self, interaction: discord.Interaction, number: int, index: int) -> None:
        """Turn to another page."""
        await interaction.response.defer()
        await self.show_page(interaction, number, index)

    async def show_page(self, interaction: discord.Interaction, number: int, page: int) -> None:
        """Show one page of what a draft remembers to be looked for.

        Raises:
            Forgotten: it is a day old, or somebody else's.
        """
        draft = await self._desk.history.find_draft(number, interaction.user.id)
        if draft is None or "whose" not in draft.content:
            raise Forgotten
        wanted, say = draft.content, language_of(interaction)
        scope = scope_of(interaction, wanted["whose"])
        found = await self._album.page(scope, wanted["words"], newest=wanted["newest"], skip=page * PAGE, most=PAGE + 1)
        jobs, more = found[:PAGE], len(found) > PAGE
        embeds, files = [], []
        for job in jobs:
            embed, file = await self.entry(job, say)
            embeds.append(embed)
            files += [file] if file else []
        newer = cards.button(cards.Act.PAGE, say("Newer"), number, max(page - 1, 0))
        older = cards.button(cards.Act.PAGE, say("Older"), number, page + 1)
        newer.disabled, older.disabled = page == 0, not more
        shows = [cards.button(cards.Act.SHOW, f"#{job.id}", job.id, style=discord.ButtonStyle.primary) for job in jobs]
        view = cards.buttons(shows, [newer, older]) if jobs and (page or more) else cards.buttons(shows)
        text = say("Page {page}", page=page + 1) if jobs else say("Nothing found.")
        await interaction.edit_original_response(content=text, embeds=embeds, attachments=files, view=view)

    async def entry(self, job: Job, say: Language) -> tuple[discord.Embed, discord.File | None]:
        """Return a result as it stands in a list: with a thumbnail, who asked, when, and the way to its message."""
        result_id = await self._album.result_of(job)
        link = cards.result_link(job.origin, result_id) if result_id else None
        embed = discord.Embed(title=f"#{job.id}", url=link, description=cards.title(job.request, say, 200), colour=cards.COLOUR)
        embed.description = f"{embed.description}\n<@{job.origin.user_id}> · <t:{int(job.created_at)}:R>"
        shown = await self._album.thumbnails(job)
        if not shown:
            return embed, None
        small = await aside(lambda: pictures.encode(pictures.thumbnail(shown, THUMBNAIL_PX, job.origin.spoiler)))
        upload = Upload(small, f"thumbnail-{job.id}.png", cards.alt_text(job.request, say), spoiler=False)
        embed.set_thumbnail(url=f"attachment://{upload.name}")
        return embed, upload.file()

    # Likeness.

    @app_commands.command()
    @app_commands.describe(
        number="The number on a card, without #",
        picture="Which picture of that card",
        image="Or any picture",
        whose="Among your own pictures, or those of this server",
    )
    @app_commands.choices(whose=[MINE, SERVER])
    async def similar(
        self,
        interaction: discord.Interaction,
        number: Number | None = None,
        picture: app_commands.Range[int, 1, COUNT_LIMIT] = 1,
        image: discord.Attachment | None = None,
        whose: str | None = None,
    ) -> None:
        """Find pictures that look alike."""
        whose = whose or usual_whose(interaction)
        scope_of(interaction, whose)
        if (number is None) == (image is None):
            raise InvalidRequest("number", "be given, or else an image, and not both")
        await interaction.response.defer(ephemeral=True, thinking=True)
        if number is not None:
            await self.find_alike(interaction, await self._desk.visible(interaction, number), picture - 1, whose)
            return
        assert image is not None
        await self._worker.ready.wait()
        painter = self._worker.painter_of("")
        if painter is None or not painter.space:
            raise CannotDo(self._desk.model.name)
        data = await self._desk.picture(image)
        await self.show_alike(interaction, painter.space, await self._worker.embed_picture(painter, data), whose, None)

    async def similar_to(self, interaction: discord.Interaction, number: int, index: int) -> None:
        """Find pictures that look like one of a card."""
        await interaction.response.defer(ephemeral=True, thinking=True)
        job = await self._desk.visible(interaction, number)
        await self.find_alike(interaction, job, index, usual_whose(interaction))

    async def find_alike(self, interaction: discord.Interaction, job: Job, position: int, whose: str) -> None:
        """Show what looks like one of a job's pictures.

        Raises:
            Forgotten: no CLIP has looked at that picture, or there is none.
        """
        known = await self._album.embedding(job, position)
        if known is None:
            raise Forgotten
        await self.show_alike(interaction, *known, whose, job)

    async def show_alike(self, interaction: discord.Interaction, space: str, embedding: bytes, whose: str, without: Job | None) -> None:
        """Show what an embedding is most like."""
        say = language_of(interaction)
        found = await self._album.lookalikes(space, embedding, scope_of(interaction, whose), ALIKE, without=without)
        lines, tiles = [], []
        for one in found:
            lines.append(await self.line(one.job, say, f"{100 * max(one.cosine, 0):.0f} %"))
            tiles.append(await self.tile(one))
        if not tiles:
            await interaction.edit_original_response(content=say("Nothing found."))
            return
        sheet = Upload(
            await aside(pictures.contact_sheet, tiles), "similar.png", say("Pictures that look alike, the most alike first"), spoiler=False
        )
        embed = discord.Embed(title=say("Similar pictures"), description=cards.shorten("\n".join(lines), cards.EMBED_TEXT_LIMIT), colour=cards.COLOUR)
        embed.set_image(url=f"attachment://{sheet.name}")
        shows = [cards.button(cards.Act.SHOW, f"#{one.job.id}", one.job.id) for one in found]
        await interaction.edit_original_response(embed=embed, attachments=[sheet.file()], view=cards.buttons(shows))

    async def tile(self, one: Lookalike) -> pictures.Tile:
        """Return a picture as it stands on a sheet."""
        shown = (await self._album.thumbnails(one.job))[one.position : one.position + 1]
        return pictures.Tile(shown, f"#{one.job.id}", veiled=one.job.origin.spoiler)

    async def line(self, job: Job, say: Language, *more: str) -> str:
        """Say in one line what a job is, with the way to its message."""
        result_id = await self._album.result_of(job)
        name = f"[#{job.id}]({cards.result_link(job.origin, result_id)})" if result_id else f"#{job.id}"
        return " · ".join([f"**{name}** {cards.title(job.request, say, 120)}", f"<@{job.origin.user_id}>", *more])

    # Families.

    async def family(self, interaction: discord.Interaction, number: int, index: int) -> None:
        """Show what a result came from, and what came from it."""
        await interaction.response.defer(ephemeral=True, thinking=True)
        say = language_of(interaction)
        job = await self._desk.visible(interaction, number)
        relatives = [one for one in await self._album.family(job) if may_see(interaction, one.job)]
        lines = [INDENT * one.depth + ("└ " if one.depth else "") + await self.line(one.job, say) for one in relatives]
        text = "\n".join(lines) or say("Nothing found.")
        embed = discord.Embed(title=say("Family of #{number}", number=number), description=cut_lines(text), colour=cards.COLOUR)
        files = []
        if relatives:
            tiles = [await self.relative(one, number) for one in relatives[:TREE_SHOWN]]
            upload = Upload(await aside(pictures.tree, tiles), "family.png", say("A tree of results, each below what it came from"), spoiler=False)
            embed.set_image(url=f"attachment://{upload.name}")
            files.append(upload.file())
        await interaction.edit_original_response(embed=embed, attachments=files)

    async def relative(self, one: Relative, number: int) -> pictures.Tile:
        """Return a job as it stands in a tree."""
        label = f"#{one.job.id}" + (" *" if one.job.id == number else "")
        return pictures.Tile(await self._album.thumbnails(one.job), label, one.depth, one.job.origin.spoiler)

    # Downloads.

    @app_commands.command()
    @app_commands.describe(
        number="The number on a card, without #; all your pictures where there is none",
        words="Only pictures whose prompts hold these words",
        before="Only pictures with smaller numbers, to go on with a long download",
    )
    async def download(
        self,
        interaction: discord.Interaction,
        number: Number | None = None,
        words: app_commands.Range[str, 1, 100] = "",
        before: Number | None = None,
    ) -> None:
        """Get your pictures and their settings as ZIP files."""
        await interaction.response.defer(ephemeral=True, thinking=True)
        if number is not None:
            await self.send(interaction, [await self._desk.visible(interaction, number)])
            return
        newest = before - 1 if before else 2**62
        jobs = await self._album.page(scope_of(interaction, "mine"), words, newest=newest, most=MOST_DOWNLOADED)
        await self.send(interaction, jobs)

    async def download_one(self, interaction: discord.Interaction, number: int, index: int) -> None:
        """Get the pictures of one card."""
        await interaction.response.defer(ephemeral=True, thinking=True)
        await self.send(interaction, [await self._desk.visible(interaction, number)])

    async def send(self, interaction: discord.Interaction, jobs: list[Job]) -> None:
        """Send results as ZIP files that the place takes, each when it is ready."""
        say = language_of(interaction)
        files: list[tuple[str, Any]] = []
        for job in jobs:
            files += await self._desk.history.files(job)
        if not files:
            await interaction.edit_original_response(content=say("Nothing found."))
            return
        facts = [settings_of(job.request, job) for job in jobs]
        await send_archives(interaction, files, facts, f"reverie-{jobs[0].id}", say)


async def send_archives(interaction: discord.Interaction, files: list[tuple[str, Any]], facts: Any, name: str, say: Language) -> None:
    """Answer with ZIP files of at most the size that the place takes."""
    most = MOST_ARCHIVES_ABROAD if is_foreign(interaction) else MOST_ARCHIVES
    archives = packed(files, facts, file_limit(interaction))
    for part in range(1, most + 1):
        data = await aside(next, archives, None)
        if data is None:
            return
        upload = Upload(data, f"{name}-{part}.zip", say("Pictures and their settings"), spoiler=False)
        text = say("Part {part}", part=part)
        if part == 1:
            await interaction.edit_original_response(content=text, attachments=[upload.file()])
        else:
            await interaction.followup.send(text, file=upload.file(), ephemeral=True)
    if await aside(next, archives, None) is not None:
        await interaction.followup.send(say("That is not all. Go on with `/download before:` and the last number that you got."), ephemeral=True)


def settings_of(request: Request, job: Job) -> dict[str, Any]:
    """Return what paints a job again, and who asked for it when."""
    return {
        "number": job.id,
        "kind": request.kind,
        "prompt": request.prompt,
        "seeds": list(request.seeds),
        "steps": request.steps,
        "guidance": request.guidance,
        "asked_by": str(job.origin.user_id),
        "asked_at": job.created_at,
    }


def usual_whose(interaction: discord.Interaction) -> str:
    """Return among whose pictures to look where nobody says."""
    return "mine" if interaction.guild is None or is_foreign(interaction) else "server"


def cut_lines(text: str) -> str:
    """Return as many whole lines as an embed takes, for half a link is none."""
    return text if len(text) <= cards.EMBED_TEXT_LIMIT else text[: cards.EMBED_TEXT_LIMIT - 1].rpartition("\n")[0] + "\n…"


async def setup(bot: Reverie) -> None:
    """Add the feature to the bot."""
    await bot.add_cog(Browse(bot))
