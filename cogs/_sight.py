"""Where a command or a button is used, and what may be seen there."""

import discord

from cogs._replies import OnlyInServers
from engine.album import Scope
from engine.jobs import Job


def is_foreign(interaction: discord.Interaction) -> bool:
    """Tell whether the bot is only here because the person brought it along: it may answer, and do nothing else."""
    return not interaction.is_guild_integration() and (interaction.guild_id is not None or not in_direct_messages(interaction))


def in_direct_messages(interaction: discord.Interaction) -> bool:
    """Tell whether this is between one person and the bot."""
    return interaction.context.dm_channel if interaction.context is not None else False


def above(channel: object) -> tuple[int, ...]:
    """Return the channel above a thread."""
    return (channel.parent_id,) if isinstance(channel, discord.Thread) else ()


def is_age_restricted(channel: object) -> bool:
    """Tell whether a channel is for adults only."""
    tell = getattr(channel, "is_nsfw", None)
    return bool(tell is not None and tell())


def may_show_adult(interaction: discord.Interaction) -> bool:
    """Tell whether what was painted in age-restricted channels may be shown: in such channels, and between one person and the bot."""
    return is_age_restricted(interaction.channel) or in_direct_messages(interaction)


def visible_channels(interaction: discord.Interaction) -> frozenset[int]:
    """Return the channels of a server whose messages somebody may read; private threads count only where they are."""
    guild, member = interaction.guild, interaction.user
    assert guild is not None and isinstance(member, discord.Member)
    readable = {channel.id for channel in guild.channels if may_read(channel.permissions_for(member))}
    threads = {thread.id for thread in guild.threads if thread.parent_id in readable and not thread.is_private()}
    return frozenset(readable | threads | {interaction.channel_id or 0})


def may_read(granted: discord.Permissions) -> bool:
    """Tell whether permissions let somebody read what was written before."""
    return granted.view_channel and granted.read_message_history


def scope_of(interaction: discord.Interaction, whose: str) -> Scope:
    """Return what somebody looks through who asks for their own pictures ("mine"), or for those of the server.

    Raises:
        OnlyInServers: it is the server's, and the bot is a member of none here.
    """
    adult = may_show_adult(interaction)
    if whose == "mine":
        return Scope(user_id=interaction.user.id, adult=adult)
    if interaction.guild is None or is_foreign(interaction):
        raise OnlyInServers
    return Scope(guild_id=interaction.guild.id, channels=visible_channels(interaction), adult=adult)


def may_see(interaction: discord.Interaction, job: Job) -> bool:
    """Tell whether somebody may see a result here: their own, one of this channel, or of another channel of this server that they may read."""
    origin = job.origin
    if origin.is_adult and not may_show_adult(interaction):
        return False
    if origin.user_id == interaction.user.id or origin.channel_id == interaction.channel_id:
        return True
    here = interaction.guild is not None and not is_foreign(interaction) and origin.guild_id == interaction.guild.id
    return here and origin.channel_id in visible_channels(interaction)
