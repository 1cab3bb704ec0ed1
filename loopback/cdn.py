"""The CDN: gives files to whoever has a signed address that is still good."""

from aiohttp import web

from loopback.world import World

SHOWN = ("image/png", "image/jpeg", "image/gif", "image/webp")
"""Types that a browser may show. Everything else is only saved, so that no upload runs as a page of this site."""


class Cdn:
    """Serves /attachments."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def serve(self, request: web.Request) -> web.Response:
        name = request.match_info["file"]
        file = self._world.attachments.get(int(name)) if name.isascii() and name.isdigit() else None
        if file is None or not self._world.opens(file, request.query.get("ex", ""), request.query.get("hm", "")):
            return _gone()
        try:
            data = file.data
        except FileNotFoundError:
            return _gone()
        headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "private, max-age=86400"}
        headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
        if file.content_type not in SHOWN:
            headers["Content-Disposition"] = "attachment"
        return web.Response(body=data, headers=headers | {"Content-Type": file.content_type})


def _gone() -> web.Response:
    return web.Response(status=404, text="This content is no longer available.")
