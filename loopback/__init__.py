"""Discord on this machine: enough of its REST API, gateway and CDN for the unmodified discord.py, and a page for people.

    async with Loopback() as discord_:
        Route.BASE = discord_.api; DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(discord_.gateway)

Nothing here knows the bot: it imports neither discord.py nor cogs nor engine.
"""

from loopback.server import Loopback
from loopback.values import Attachment, Channel, Interaction, Message, Role, User

__all__ = ["Attachment", "Channel", "Interaction", "Loopback", "Message", "Role", "User"]
