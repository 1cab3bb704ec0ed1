"""A websocket that is written to from anywhere, in order, without waiting."""

import asyncio
import json

from aiohttp import web

from loopback.values import Json


class Line:
    """A websocket with an outbox, so that whoever sends need not wait and the order holds."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self.socket = socket
        self._outbox: asyncio.Queue[str | int] = asyncio.Queue()

    def send(self, message: str | Json) -> None:
        self._outbox.put_nowait(message if isinstance(message, str) else json.dumps(message))

    def close(self, code: int) -> None:
        """Close after everything before it was sent."""
        self._outbox.put_nowait(code)

    async def write(self) -> None:
        """Send what is in the outbox until the line is closed."""
        while True:
            message = await self._outbox.get()
            if isinstance(message, int):
                await self.socket.close(code=message)
                return
            try:
                await self.socket.send_str(message)
            except ConnectionError:
                return
