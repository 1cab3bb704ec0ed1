"""/history, /similar and /download: finding what was painted earlier, what it looks like and what it came from."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import discord
from discord import app_commands
from discord.ext import commands

from cogs import _cards as cards
from cogs._address import Upload
from cogs._archives import Parcel, send_archives
from cogs._client import Reverie
from cogs._desk import Desk
from cogs._language import Language, language_of
from cogs._options import WHOSE
from cogs._replies import CannotDo, Forgotten
from cogs._sight import is_foreign, may_see, scope_of
from engine import pictures
from engine.album import Album, Lookalike, Relative
from engine.errors import InvalidRequest
from engine.jobs import COUNT_LIMIT, Job
from engine.worker import Worker, aside

PAGE = 5
"""Results on a page: each has an embed, of which Discord takes ten, and a button, of which a row takes five."""
THUMBNAIL_PX = 160
ALIKE = 10
"""Pictures that are shown as similar."""
TREE_SHOWN = 20
"""Relatives in the picture of a family, those around the one that is asked for; the text names more."""
INDENT = "\u2003"
"""A wide space: Discord swallows ordinary ones."""
MOST_DOWNLOADED = 500
"""Results in one download."""

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
    @app_commands.choices(whose=WHOSE)
    async def history(self, interaction: discord.Interaction, whose: str = "mine", words: app_commands.Range[str, 1, 100] = "") -> None:
        """Look through earlier results."""
        scope = scope_of(interaction, whose)
        await interaction.response.defer(ephemeral=True, thinking=True)
        # What comes later would move the pages under the reader's eyes.
        newest = max([job.id for job in await self._album.page(scope, words, most=1)], default=0)
        number = await self._desk.history.add_draft(interaction.user.id, {"whose": whose, "words": words, "newest": newest})
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
            embed, file = await self.entry(interaction, job)
            embeds.append(embed)
            files += [file] if file else []
        newer = cards.button(cards.Act.PAGE, say("Newer"), number, max(page - 1, 0))
        older = cards.button(cards.Act.PAGE, say("Older"), number, page + 1)
        newer.disabled, older.disabled = page == 0, not more
        shows = [cards.button(cards.Act.SHOW, f"#{job.id}", job.id, style=discord.ButtonStyle.primary) for job in jobs]
        view = cards.buttons(shows, [newer, older]) if page or more else cards.buttons(shows)
        text = say("Page {page}", page=page + 1) if jobs else say("Nothing found.")
        await interaction.edit_original_response(content=text, embeds=embeds, attachments=files, view=view)

    async def entry(self, interaction: discord.Interaction, job: Job) -> tuple[discord.Embed, discord.File | None]:
        """Return a result as it stands in a list: with a thumbnail, who asked, when, and the way to its message."""
        say = language_of(interaction)
        embed = discord.Embed(title=f"#{job.id}", url=await self.link(job), description=cards.title(job.request, say, 200), colour=cards.COLOUR)
        embed.description = f"{embed.description}\n<@{job.origin.user_id}> · <t:{int(job.created_at)}:R>"
        shown, veiled = await self.seen(interaction, job)
        if not shown:
            return embed, None
        small = await aside(lambda: pictures.encode(pictures.thumbnail(shown, THUMBNAIL_PX, veiled)))
        upload = Upload(small, f"thumbnail-{job.id}.png", cards.alt_text(job.request, say), spoiler=False)
        embed.set_thumbnail(url=f"attachment://{upload.name}")
        return embed, upload.file()

    async def seen(self, interaction: discord.Interaction, job: Job) -> tuple[list[bytes], bool]:
        """Return the pictures of a result, none where their files are lost, and whether they are veiled here: by who asked, or by the rules here."""
        painting = await self._desk.history.painting_of(job)
        if painting is None:
            return [], job.origin.spoiler
        place = self._desk.place(interaction)
        verdict = await self._desk.house.judge(painting, place.guild_id, place.is_adult)
        return [picture.png for picture in painting.pictures], job.origin.spoiler or verdict.spoiler or verdict.withhold

    # Likeness.

    @app_commands.command()
    @app_commands.describe(
        number="The number on a card, without #",
        picture="Which picture of that card",
        image="Or any picture",
        whose="Among your own pictures, or those of this server",
    )
    @app_commands.choices(whose=WHOSE)
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
            Forgotten: no CLIP has looked at that picture, or it is gone.
        """
        known = await self._album.embedding(job, position)
        if known is None or not await self._desk.history.files(job):
            raise Forgotten
        await self.show_alike(interaction, *known, whose, job)

    async def show_alike(self, interaction: discord.Interaction, space: str, embedding: bytes, whose: str, without: Job | None) -> None:
        """Show what an embedding is most like."""
        say = language_of(interaction)
        found = await self._album.lookalikes(space, embedding, scope_of(interaction, whose), ALIKE, without=without)
        lines, tiles = [], []
        for one in found:
            lines.append(await self.line(one.job, say, f"{100 * max(one.cosine, 0):.0f} %"))
            tiles.append(await self.tile(interaction, one))
        if not tiles:
            await interaction.edit_original_response(content=say("Nothing found."))
            return
        sheet = Upload(
            await aside(pictures.contact_sheet, tiles), "similar.png", say("Pictures that look alike, the most alike first"), spoiler=False
        )
        embed = discord.Embed(title=say("Similar pictures"), description=cut_lines("\n".join(lines)), colour=cards.COLOUR)
        embed.set_image(url=f"attachment://{sheet.name}")
        shows = [cards.button(cards.Act.SHOW, f"#{one.job.id}", one.job.id) for one in found]
        await interaction.edit_original_response(embed=embed, attachments=[sheet.file()], view=cards.buttons(shows))

    async def tile(self, interaction: discord.Interaction, one: Lookalike) -> pictures.Tile:
        """Return a picture as it stands on a sheet."""
        shown, veiled = await self.seen(interaction, one.job)
        return pictures.Tile(shown[one.position : one.position + 1], f"#{one.job.id}", veiled=veiled)

    async def line(self, job: Job, say: Language, *more: str) -> str:
        """Say in one line what a job is, with the way to its message."""
        link = await self.link(job)
        name = f"[#{job.id}]({link})" if link else f"#{job.id}"
        return " · ".join([f"**{name}** {cards.title(job.request, say, 120)}", f"<@{job.origin.user_id}>", *more])

    async def link(self, job: Job) -> str | None:
        """Return the address of the message that shows a job's result, where there is one."""
        result_id = await self._album.result_of(job)
        return cards.message_link(job.origin.guild_id, job.origin.channel_id, result_id) if result_id else None

    # Families.

    async def family(self, interaction: discord.Interaction, number: int, index: int) -> None:
        """Show what a result came from, and what came from it."""
        await interaction.response.defer(ephemeral=True, thinking=True)
        say = language_of(interaction)
        job = await self._desk.visible(interaction, number)
        relatives = placed(await self._album.family(job), lambda one: may_see(interaction, one))
        lines = [INDENT * one.depth + ("└ " if one.depth else "") + await self.line(one.job, say) for one in relatives]
        text = "\n".join(lines) or say("Nothing found.")
        embed = discord.Embed(title=say("Family of #{number}", number=number), description=cut_lines(text), colour=cards.COLOUR)
        files = []
        if relatives:
            tiles = [await self.relative(interaction, one, number) for one in around(relatives, number)]
            upload = Upload(await aside(pictures.tree, tiles), "family.png", say("A tree of results, each below what it came from"), spoiler=False)
            embed.set_image(url=f"attachment://{upload.name}")
            files.append(upload.file())
        await interaction.edit_original_response(embed=embed, attachments=files)

    async def relative(self, interaction: discord.Interaction, one: Relative, number: int) -> pictures.Tile:
        """Return a job as it stands in a tree."""
        shown, veiled = await self.seen(interaction, one.job)
        return pictures.Tile(shown, f"#{one.job.id}", one.depth, veiled, one.job.id == number)

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
        jobs = await self._album.page(scope_of(interaction, "mine"), words, newest=newest, most=MOST_DOWNLOADED + 1)
        await self.send(interaction, jobs[:MOST_DOWNLOADED], words, more=len(jobs) > MOST_DOWNLOADED)

    async def download_one(self, interaction: discord.Interaction, number: int, index: int) -> None:
        """Get the pictures of one card."""
        await interaction.response.defer(ephemeral=True, thinking=True)
        await self.send(interaction, [await self._desk.visible(interaction, number)])

    async def send(self, interaction: discord.Interaction, jobs: list[Job], words: str = "", more: bool = False) -> None:
        """Send results as ZIP files, or say that there are none."""
        parcels, settings = [], []
        for job in jobs:
            if files := await self._desk.history.files(job):
                parcels.append(Parcel(job.id, files))
                settings.append(settings_of(job, await self._desk.history.facts(job), [name for name, _ in files]))
        if not parcels:
            say = language_of(interaction)
            await interaction.edit_original_response(content=say("Nothing found."))
            return
        await send_archives(interaction, parcels, lambda count: settings[:count], f"reverie-{parcels[0].number}", words=words, more=more)


def settings_of(job: Job, facts: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Return what paints a job's pictures again, one seed for each; the result that they go back to and the very picture, where there is one."""
    request = job.request
    return {
        "number": job.id,
        "kind": request.kind,
        "prompt": request.prompt,
        "files": names,
        "seeds": list(request.seeds),
        "model": facts["model"],
        "steps": facts["used_steps"],
        "guidance": facts["used_guidance"],
        "source": facts["source"],
        "parent": {"number": facts["parent"], "picture": facts["position"] + 1} if facts["parent"] is not None else None,
        "spoiler": job.origin.spoiler,
        "asked_by": str(job.origin.user_id),
        "asked_at": job.created_at,
    }


def placed(family: list[Relative], is_shown: Callable[[Job], bool]) -> list[Relative]:
    """Return those of a family that are shown, with the number of those above each that are shown too: what is between may be hidden or gone."""
    sources = {one.job.id: one.source for one in family}
    depths: dict[int, int] = {}
    for one in family:
        if is_shown(one.job):
            above = one.source
            while above is not None and above not in depths:
                above = sources.get(above)
            depths[one.job.id] = 0 if above is None else depths[above] + 1
    return [replace(one, depth=depths[one.job.id]) for one in family if one.job.id in depths]


def around(relatives: list[Relative], number: int) -> list[Relative]:
    """Return those of a family that fit into a picture, a certain one among them, indented no deeper than they need."""
    place = next((place for place, one in enumerate(relatives) if one.job.id == number), 0)
    start = max(0, min(place - TREE_SHOWN // 2, len(relatives) - TREE_SHOWN))
    shown = relatives[start : start + TREE_SHOWN]
    shallowest = min(one.depth for one in shown)
    return [replace(one, depth=one.depth - shallowest) for one in shown]


def usual_whose(interaction: discord.Interaction) -> str:
    """Return among whose pictures to look where nobody says."""
    return "mine" if interaction.guild is None or is_foreign(interaction) else "server"


def cut_lines(text: str) -> str:
    """Return as many whole lines as an embed takes, for half a link is none."""
    return text if len(text) <= cards.EMBED_TEXT_LIMIT else text[: cards.EMBED_TEXT_LIMIT - 1].rpartition("\n")[0] + "\n…"


async def setup(bot: Reverie) -> None:
    """Add the feature to the bot."""
    await bot.add_cog(Browse(bot))
