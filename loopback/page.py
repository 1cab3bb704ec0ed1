"""placeholder"""

from aiohttp import web


class Page:
    def __init__(self, people, gateway):
        pass

    def add_routes(self, app: web.Application) -> None:
        pass

    def close(self) -> None:
        pass
