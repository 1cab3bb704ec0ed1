"""How a command, a button or a form is answered, whether or not Discord was told before to wait for it."""

from typing import Any

import discord


async def answer(interaction: discord.Interaction, text: str, **content: Any) -> int | None:
    """Post an answer for everybody, and return its id where it is known. Links in a text stay folded, also when it is edited later."""
    if interaction.response.is_done():
        return (await interaction.followup.send(text, suppress_embeds=True, wait=True, **content)).id
    return (await interaction.response.send_message(text, suppress_embeds=True, **content)).message_id


async def tell(interaction: discord.Interaction, text: str, view: discord.ui.View = discord.utils.MISSING) -> None:
    """Answer the person who asked and nobody else."""
    if interaction.response.type is discord.InteractionResponseType.deferred_channel_message:
        # What was promised to all, or to one, is answered where it was promised.
        await interaction.edit_original_response(content=text, view=view)
    elif interaction.response.is_done():
        await interaction.followup.send(text, view=view, ephemeral=True)
    else:
        await interaction.response.send_message(text, view=view, ephemeral=True)
