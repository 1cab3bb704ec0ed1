"""/inpaint and the menu *Inpaint…*: choose a part, see what it is, confirm, and have it repainted."""

import contextlib
import io
from dataclasses import asdict
from typing import Any

import discord
from discord import app_commands
from discord.ext import commands
from PIL import Image

from cogs import _cards as cards
from cogs._address import Upload
from cogs._client import Reverie
from cogs._desk import uploaded_picture
from cogs._forms import Form, files, open_form, sent, values
from cogs._language import Language, language_of, mark
from cogs._options import DESCRIPTIONS, PRESETS, Count, Guidance, Prompt, Seed, Steps
from cogs._replies import FAILURES, Forgotten, refuse
from engine import uploads
from engine.jobs import PROMPT_LIMIT, Kind, Request, check_prompt
from engine.preferences import Defaults
from engine.uploads import Region

REGIONS = {
    Region.LEFT: mark("Left half"),
    Region.RIGHT: mark("Right half"),
    Region.TOP: mark("Top half"),
    Region.BOTTOM: mark("Bottom half"),
    Region.CENTRE: mark("Centre"),
    Region.BACKGROUND: mark("Background, by its colour"),
}
BY_MASK = "mask"
"""What is chosen in the form where a file, or what is transparent, says what to repaint."""


class Inpaint(commands.Cog):
    """Repaints parts of pictures."""

    def __init__(self, bot: Reverie) -> None:
        self._desk = bot.desk
        self._next_door = bot.next_door
        self.menu = app_commands.ContextMenu(name="Inpaint…", callback=self.from_message)
        bot.presses |= {cards.Act.CONFIRM: self.confirm, cards.Act.DISCARD: self.discard}

    @app_commands.command()
    @app_commands.describe(
        image="The picture to repaint a part of",
        prompt="What the whole picture shows afterwards",
        mask="A picture that is white or transparent where to repaint",
        region="The part to repaint, where there is no mask",
        **DESCRIPTIONS,
    )
    @app_commands.choices(region=[app_commands.Choice(name=name, value=region.value) for region, name in REGIONS.items()], preset=PRESETS)
    async def inpaint(
        self,
        interaction: discord.Interaction,
        image: discord.Attachment,
        prompt: Prompt,
        mask: discord.Attachment | None = None,
        region: str | None = None,
        count: Count | None = None,
        seed: Seed | None = None,
        steps: Steps | None = None,
        guidance: Guidance | None = None,
        preset: str | None = None,
        spoiler: bool | None = None,
    ) -> None:
        """Repaint a part of a picture."""
        check_prompt(prompt)
        self._desk.check(interaction, Kind.INPAINT)
        await interaction.response.defer(ephemeral=True, thinking=True)
        picture = await self._desk.read(image)
        mask_file = None if mask is None else await self._desk.read(mask)
        asked = {"count": count, "steps": steps, "guidance": guidance, "preset": preset, "spoiler": spoiler}
        wanted = {"prompt": prompt, "seed": seed} | self.usual(interaction, **asked)
        await self.propose(interaction, wanted, picture, mask_file, Region(region) if region and mask is None else None)

    def usual(self, interaction: discord.Interaction, **asked: Any) -> dict[str, Any]:
        """Return the options of a request, those that were not asked for as they are usual here."""
        return asdict(self._desk.defaults(interaction).with_options(**asked))

    async def propose(
        self, interaction: discord.Interaction, wanted: dict[str, Any], picture: bytes, mask: bytes | None, region: Region | None
    ) -> None:
        """Show the presser what would be repainted, and ask.

        Raises:
            InvalidRequest: picture or mask cannot be used, or nothing or everything would be repainted.
            WordsBlocked: the prompt holds what is not allowed here.
        """
        say = language_of(interaction)
        # What is not allowed here is not even repeated.
        asked, _ = self._desk.house.cleaned(self._desk.place(interaction), Request(wanted["prompt"], 0), say)
        wanted = wanted | {"prompt": asked.prompt}
        made: dict[str, bytes] = {}

        def prepare() -> bytes:
            made["picture"], made["mask"] = uploads.take_in_part(picture, mask, region)
            return shown(made["picture"], made["mask"])

        seen = await self._desk.decoded(prepare)
        number = await self._desk.history.add_draft(interaction.user.id, wanted, made["picture"], made["mask"])
        choices = [cards.button(cards.Act.CONFIRM, say("Repaint this"), number, style=discord.ButtonStyle.success)]
        if self._next_door.is_open:
            choices.append(cards.button(cards.Act.PAINT, say("Paint the mask"), number))
        view = cards.buttons([*choices, cards.button(cards.Act.DISCARD, say("Cancel"), number)])
        upload = Upload(seen, f"overlay-{number}.jpg", say("The picture, with the part to repaint under a veil"), bool(wanted.get("spoiler")))
        text = say("What is veiled would be repainted: {prompt}", prompt=cards.quote(wanted["prompt"], cards.PROMPT_SHOWN))
        await interaction.edit_original_response(content=text, attachments=[upload.file()], view=view)

    async def confirm(self, interaction: discord.Interaction, number: int, index: int) -> None:
        """Queue what was shown."""
        draft = await self._desk.history.find_draft(number, interaction.user.id)
        if draft is None or not draft.image or not draft.mask:
            raise Forgotten
        wanted = draft.content
        usual = Defaults.written(wanted)
        self._desk.check(interaction, Kind.INPAINT, usual.model)
        request = usual.request(wanted["prompt"], wanted["seed"], Kind.INPAINT, draft.image, draft.mask)
        if not await self._desk.history.drop_draft(number):
            # Two presses at once: the other one has it.
            raise Forgotten
        # Said yes is said yes: where the question cannot be taken away, the job is queued all the same.
        with contextlib.suppress(*FAILURES):
            await interaction.response.edit_message(content=cards.title(request, language_of(interaction)), attachments=[], view=None)
        await self._desk.accept(interaction, request, spoiler=usual.spoiler, parent=wanted.get("parent"))

    async def discard(self, interaction: discord.Interaction, number: int, index: int) -> None:
        """Forget what was shown."""
        if await self._desk.history.find_draft(number, interaction.user.id) is not None:
            await self._desk.history.drop_draft(number)
        say = language_of(interaction)
        await interaction.response.edit_message(content=say("Cancelled."), attachments=[], view=None)

    # The menu.

    async def from_message(self, interaction: discord.Interaction, message: discord.Message) -> None:
        """Ask in a form what to repaint in the picture of a message, and how."""
        self._desk.check(interaction, Kind.INPAINT)
        found = await self._desk.shown(message)
        if found is None:
            attachment = uploaded_picture(message.attachments)
            content: dict[str, Any] = {"attachment": attachment.to_dict(), "spoiler": attachment.is_spoiler()}
            choices = 1
        else:
            content = {"job": found.job.id, "index": found.index, "spoiler": found.job.origin.spoiler}
            choices = 1 if found.index is not None else cards.choosable(found.job)
        number = await self._desk.history.add_draft(interaction.user.id, content)
        say = language_of(interaction)
        await open_form(interaction, Form.INPAINT, number, say("Repaint a part"), *form_fields(choices, say))

    @commands.Cog.listener("on_interaction")
    async def filled_in(self, interaction: discord.Interaction) -> None:
        """Show what would be repainted, as the form says; it may have been opened before a restart."""
        number = sent(interaction, Form.INPAINT)
        if number is None:
            return
        try:
            draft = await self._desk.history.find_draft(number, interaction.user.id)
            if draft is None:
                raise Forgotten
            written = values(interaction)
            prompt = str(written.get("prompt") or "")
            check_prompt(prompt)
            self._desk.check(interaction, Kind.INPAINT)
            await interaction.response.defer(ephemeral=True, thinking=True)
            picture, parent = await self.source(interaction, draft.content, written)
            masks = files(interaction, "mask")
            chosen = chosen_of(written, "region")
            region = Region(chosen) if chosen in set(Region) and not masks else None
            wanted = {"prompt": prompt, "seed": None, "parent": parent} | self.usual(interaction, spoiler=draft.content.get("spoiler") or None)
            await self.propose(interaction, wanted, picture, await self._desk.read(masks[0]) if masks else None, region)
        except Exception as error:
            await refuse(interaction, error)

    async def source(self, interaction: discord.Interaction, content: dict[str, Any], written: dict[str, Any]) -> tuple[bytes, int | None]:
        """Return the picture that a form is about, and its id where it is one of ours.

        Raises:
            Forgotten: it is gone.
        """
        if "attachment" in content:
            attachment = discord.Attachment(data=content["attachment"], state=interaction._state)
            return await self._desk.read(attachment), None
        job = await self._desk.remembered(content["job"])
        index = content["index"] if content["index"] is not None else int(chosen_of(written, "which") or 0)
        alone = await self._desk.painted_alone(job, index)
        return alone.pictures[0].png, await self._desk.history.picture_id(job, index)


def chosen_of(written: dict[str, Any], field: str) -> str:
    """Return the first thing chosen in a field, empty where there is none."""
    chosen = written.get(field)
    return str(chosen[0]) if isinstance(chosen, list) and chosen else ""


def form_fields(choices: int, say: Language) -> list[discord.ui.Label[Any]]:
    """Return the fields of the form; a grid has a choice of so many pictures."""
    by_mask = discord.SelectOption(label=say("What the mask says, or what is transparent"), value=BY_MASK)
    options = [discord.SelectOption(label=say(name), value=region) for region, name in REGIONS.items()]
    which = [discord.SelectOption(label=str(index + 1), value=str(index), default=index == 0) for index in range(choices)]
    style = discord.TextStyle.paragraph
    labels = [
        discord.ui.Label(
            text=say("What the whole picture shows afterwards")[:45],
            component=discord.ui.TextInput[Any](custom_id="prompt", style=style, max_length=PROMPT_LIMIT),
        ),
        discord.ui.Label(text=say("The part to repaint"), component=discord.ui.Select[Any](custom_id="region", options=[*options, by_mask])),
        discord.ui.Label(
            text=say("Mask"),
            description=say("White or transparent where to repaint"),
            component=discord.ui.FileUpload[Any](custom_id="mask", required=False, min_values=0, max_values=1),
        ),
    ]
    if choices > 1:
        labels.insert(0, discord.ui.Label(text=say("Which picture"), component=discord.ui.Select[Any](custom_id="which", options=which)))
    return labels


def shown(picture: bytes, mask: bytes) -> bytes:
    """Return a JPEG that shows what would be repainted."""
    with Image.open(io.BytesIO(picture)) as original, Image.open(io.BytesIO(mask)) as wanted:
        file = io.BytesIO()
        uploads.overlay(original, wanted.convert("L")).convert("RGB").save(file, "JPEG", quality=85)
    return file.getvalue()


async def setup(bot: Reverie) -> None:
    """Add the feature to the bot."""
    cog = Inpaint(bot)
    await bot.add_cog(cog)
    bot.tree.add_command(cog.menu)
