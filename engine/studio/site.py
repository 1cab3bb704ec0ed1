"""The page to paint with in the browser: its files, and what a browser may load for it. All that it shows comes over the same HTTP interface."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.responses import Response

from engine.studio.refusals import Refusal
from engine.worker import aside

FOLDER = Path(__file__).parent / "page"
TYPES = {".css": "text/css", ".html": "text/html", ".js": "text/javascript", ".svg": "image/svg+xml"}
POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "form-action 'none'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]
)
"""What a browser may load for the page: what is here, and pictures that it made itself or was told as data: URLs."""


def add_site(app: FastAPI, person_of: Callable[..., Any]) -> None:
    """Add the page's addresses to the app; who may see the page is asked of `person_of`."""

    @app.get("/", include_in_schema=False, dependencies=[Depends(person_of)])
    async def page() -> Response:
        return await file("studio.html")

    # Not kept from anybody: they are the same everywhere, and who was sent a link to a single picture has no key.
    @app.get("/page/{name}", include_in_schema=False)
    async def part(name: str) -> Response:
        return await file(name)


async def file(name: str) -> Response:
    """Return a file of the page.

    Raises:
        Refusal: there is none of this name.
    """
    data = await aside(read, name)
    if data is None:
        raise Refusal(404, "There is nothing at this address. /docs says what is where.")
    # Nothing of it is kept by browsers: modules of two versions do not fit together, and none is large.
    return Response(data, media_type=TYPES[Path(name).suffix], headers={"Content-Security-Policy": POLICY})


def read(name: str) -> bytes | None:
    """Read a file of the page; None where there is none of this name. It is looked up, so that no name leads out of the folder."""
    known = {path.name: path for path in FOLDER.iterdir() if path.suffix in TYPES}
    return known[name].read_bytes() if name in known else None
