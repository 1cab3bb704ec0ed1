"""The studio: what the bot can do, over HTTP. Only who wants it imports this, and FastAPI with it."""

from engine.studio.server import Studio

__all__ = ["Studio"]
