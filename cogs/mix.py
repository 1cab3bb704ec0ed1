"""/blend, /morph and /edit: what lies between pictures, on the way from one to another, and with something changed."""

from collections.abc import Sequence
from typing import Any

import discord
from discord import app_commands
from discord.ext import commands

from cogs._client import Reverie
from cogs._desk import Desk, check_place
from cogs._options import DESCRIPTIONS, OF_FIXED_COUNT, PRESETS, Count, Guidance, Prompt, Seed, Share, Steps
from engine.errors import InvalidRequest
from engine.jobs import FRAMES_LIMIT, LEAST_FRAMES, USUAL_FRAMES, Ingredient, Kind
from engine.options import check_ingredients

Frames = app_commands.Range[int, LEAST_FRAMES, FRAMES_LIMIT]
Weights = app_commands.Range[str, 1, 100]
File = discord.Attachment


class Mix(commands.Cog):
    """Paints what there is between pictures and prompts."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @app_commands.command()
    @app_commands.describe(
        picture_1="A picture to blend",
        picture_2="A second picture",
        picture_3="A third picture",
        picture_4="A fourth picture",
        picture_5="A fifth picture",
        prompt_1="A prompt to blend",
        prompt_2="A second prompt",
        prompt_3="A third prompt",
        prompt_4="A fourth prompt",
        prompt_5="A fifth prompt",
        weights="How much each counts, pictures first: 2 1",
        **DESCRIPTIONS,
    )
    @app_commands.choices(preset=PRESETS)
    async def blend(
        self,
        interaction: discord.Interaction,
        picture_1: File | None = None,
        picture_2: File | None = None,
        picture_3: File | None = None,
        picture_4: File | None = None,
        picture_5: File | None = None,
        prompt_1: Prompt | None = None,
        prompt_2: Prompt | None = None,
        prompt_3: Prompt | None = None,
        prompt_4: Prompt | None = None,
        prompt_5: Prompt | None = None,
        weights: Weights | None = None,
        count: Count | None = None,
        seed: Seed | None = None,
        steps: Steps | None = None,
        guidance: Guidance | None = None,
        preset: str | None = None,
        spoiler: bool | None = None,
    ) -> None:
        """Paint what lies between two to five pictures or prompts."""
        files = [one for one in (picture_1, picture_2, picture_3, picture_4, picture_5) if one is not None]
        prompts = [one for one in (prompt_1, prompt_2, prompt_3, prompt_4, prompt_5) if one is not None]
        counts = check_ingredients([*files, *prompts], weights_of(weights))
        asked = {"count": count, "steps": steps, "guidance": guidance, "preset": preset, "spoiler": spoiler}
        await self._mix(interaction, Kind.BLEND, [*files, *prompts], counts, seed, asked)

    @app_commands.command()
    @app_commands.describe(
        from_picture="The picture to begin with",
        from_prompt="Or the prompt to begin with",
        to_picture="The picture to end with",
        to_prompt="Or the prompt to end with",
        frames="How many pictures, with the first and the last",
        **OF_FIXED_COUNT,
    )
    @app_commands.choices(preset=PRESETS)
    async def morph(
        self,
        interaction: discord.Interaction,
        from_picture: File | None = None,
        from_prompt: Prompt | None = None,
        to_picture: File | None = None,
        to_prompt: Prompt | None = None,
        frames: Frames = USUAL_FRAMES,
        seed: Seed | None = None,
        steps: Steps | None = None,
        guidance: Guidance | None = None,
        preset: str | None = None,
        spoiler: bool | None = None,
    ) -> None:
        """Paint the way from one picture or prompt to another."""
        asked = {"steps": steps, "guidance": guidance, "preset": preset, "spoiler": spoiler}
        ends = [end_of("from", from_picture, from_prompt), end_of("to", to_picture, to_prompt)]
        await self._mix(interaction, Kind.MORPH, ends, [1.0, 1.0], seed, asked, count=frames)

    async def _mix(
        self,
        interaction: discord.Interaction,
        kind: Kind,
        parts: Sequence[File | str],
        weights: Sequence[float],
        seed: int | None,
        asked: dict[str, Any],
        **more: Any,
    ) -> None:
        """Take in what is made of several pictures and prompts."""
        check_place(interaction)
        # Fetching pictures may take longer than Discord waits for a first answer.
        await interaction.response.defer(thinking=True)
        ingredients = []
        for part, weight in zip(parts, weights, strict=True):
            known = Ingredient(prompt=part, weight=weight) if isinstance(part, str) else Ingredient(await self._desk.picture(part), weight=weight)
            ingredients.append(known)
        usual = self._desk.defaults(interaction).with_options(**asked)
        request = usual.request("", seed, kind, ingredients=tuple(ingredients), **more)
        await self._desk.accept(interaction, request, spoiler=usual.spoiler)

    @app_commands.command()
    @app_commands.rename(before="from", after="to")
    @app_commands.describe(
        image="The picture to change",
        before="What it shows now",
        after="What it is to show instead",
        strength="How far to turn towards that",
        **DESCRIPTIONS,
    )
    @app_commands.choices(preset=PRESETS)
    async def edit(
        self,
        interaction: discord.Interaction,
        image: File,
        before: Prompt,
        after: Prompt,
        strength: Share | None = None,
        count: Count = 1,
        seed: Seed | None = None,
        steps: Steps | None = None,
        guidance: Guidance | None = None,
        preset: str | None = None,
        spoiler: bool | None = None,
    ) -> None:
        """Change what a picture shows, and keep the rest of it."""
        check_place(interaction)
        await interaction.response.defer(thinking=True)
        picture = await self._desk.picture(image)
        asked = {"count": count, "steps": steps, "guidance": guidance, "preset": preset, "spoiler": spoiler}
        usual = self._desk.defaults(interaction).with_options(**asked)
        request = usual.request(after, seed, Kind.EDIT, picture, before=before, strength=strength)
        await self._desk.accept(interaction, request, spoiler=usual.spoiler)


def weights_of(written: str | None) -> list[float] | None:
    """Read how much each ingredient counts, None where nothing is written.

    Raises:
        InvalidRequest: these are no numbers.
    """
    try:
        return None if written is None else [float(one) for one in written.replace(",", " ").split()]
    except ValueError:
        raise InvalidRequest("weights", "be numbers with spaces between them, such as 2 1") from None


def end_of(name: str, picture: File | None, prompt: str | None) -> File | str:
    """Return one end of a morph.

    Raises:
        InvalidRequest: it is missing, or given twice.
    """
    if picture is not None and prompt is None:
        return picture
    if prompt is not None and picture is None:
        return prompt
    raise InvalidRequest(name, "be a picture or a prompt")


async def setup(bot: Reverie) -> None:
    """Add the feature to the bot."""
    await bot.add_cog(Mix(bot.desk))
