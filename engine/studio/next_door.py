"""The addresses that lead to Discord: channels to post to, and links from there to the brush."""

import base64
import binascii
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import Depends, FastAPI, Path, Request
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.jobs import FRAMES_LIMIT, PROMPT_LIMIT
from engine.neighbour import Declined, Neighbour, Sheet
from engine.studio.bodies import SMALL_BYTES, read_object
from engine.studio.desk import Desk
from engine.studio.inputs import NOT_BLANK
from engine.studio.keys import Person, Rate
from engine.studio.refusals import Refusal, plain, sentence_of
from engine.studio.site import file
from engine.studio.views import written

T = TypeVar("T", bound=BaseModel)

MASK_BYTES = 4 * 2**20
"""Of a mask as text: black and white, it is small as PNG."""
PNG_URL = "data:image/png;base64,"
GONE = "This link was used or is too old. Ask for a new one in Discord."

Id = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="The id of a prediction of yours")]
Token = Annotated[str, Path(pattern=r"^[0-9]{1,18}\.[A-Za-z0-9_-]{32}$", description="As the link says that Discord showed")]


class ChannelView(BaseModel):
    """A channel of Discord; its id is a text, for no number of JavaScript's is large enough."""

    id: str
    name: str


class ChannelsView(BaseModel):
    """The channels that pictures may be posted to."""

    channels: list[ChannelView]


class PostInput(BaseModel):
    """Where to post a picture."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    channel: Annotated[str, Field(pattern=r"^[0-9]{1,19}$", description="The id of one of /channels")]
    with_prompt: bool = Field(True, description="Whether to say what was asked for")


class SheetView(BaseModel):
    """A picture that waits to be painted over."""

    prompt: str
    channel: str
    picture: str
    expires_at: str


class PaintInput(BaseModel):
    """What to repaint, and as what."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: Annotated[str, Field(min_length=1, max_length=PROMPT_LIMIT, pattern=NOT_BLANK, description="What the whole picture shows afterwards")]
    mask: Annotated[str, Field(pattern=r"^data:image/png;base64,[A-Za-z0-9+/]+=*$", description="PNG of the picture's shape, white where to repaint")]


class DoneView(BaseModel):
    """That it was done."""

    told: str


def add_next_door(
    app: FastAPI,
    desk: Desk,
    neighbour: Neighbour | None,
    rate: Rate,
    asker: Callable[..., Any],
    counted: Callable[..., Any],
    locks: Sequence[Any],
    errors: Callable[..., dict[int | str, dict[str, Any]]],
) -> None:
    """Add the addresses to the app; `asker` and `counted` say who asks, `locks` and `errors` describe that and answers that say no."""
    Counted = Annotated[Person, Depends(counted)]
    asked_wrongly = (400, 404, 408, 409, 413, 415)

    async def shown(token: Token) -> Sheet:
        sheet = None if neighbour is None else await neighbour.sheet(token)
        if sheet is None:
            raise Refusal(404, GONE)
        return sheet

    Shown = Annotated[Sheet, Depends(shown)]

    @app.get("/channels", tags=["discord"], dependencies=[*locks, Depends(asker)], responses=errors())
    async def channels() -> ChannelsView:
        """List the channels of Discord that pictures may be posted to."""
        found = [] if neighbour is None else neighbour.channels()
        return ChannelsView(channels=[ChannelView(id=str(channel.id), name=channel.name) for channel in found])

    @app.post(
        "/pictures/{id}/{position}/post", tags=["discord"], dependencies=locks, openapi_extra=body_of(PostInput), responses=errors(*asked_wrongly)
    )
    async def post(request: Request, id: Id, position: Annotated[int, Path(ge=0, lt=FRAMES_LIMIT)], person: Counted) -> DoneView:
        """Post one of your pictures to a channel of Discord."""
        asked = await read(request, PostInput, SMALL_BYTES)
        record = await desk.known(person, id)
        if neighbour is None or asked.channel not in {str(channel.id) for channel in neighbour.channels()}:
            raise Refusal(404, "There is no such channel that you may post to.")
        if await desk.picture(person, id, position) is None:
            raise Refusal(404, "There is no such picture of yours, or not yet.")
        await done(neighbour.post(int(asked.channel), record.number, position, asked.with_prompt))
        return DoneView(told="Posted.")

    # Whoever has the link needs no key. Looking does not use it up: Discord, and many a scanner of messages, look before people do.

    @app.get("/paint/{token}", tags=["discord"], response_class=HTMLResponse, responses=errors(404))
    async def page(token: str) -> Response:
        """Show the brush for the picture that a link leads to, as a page; it says so where the link leads nowhere."""
        return await file("paint.html")

    @app.get("/paint/{token}/sheet", tags=["discord"], responses=errors(404))
    async def sheet(token: Token, found: Shown) -> SheetView:
        """Tell what a link that Discord showed leads to."""
        return SheetView(prompt=found.prompt, channel=found.channel, picture=f"/paint/{token}/picture.png", expires_at=written(found.expires_at))

    @app.get(
        "/paint/{token}/picture.png",
        tags=["discord"],
        response_class=Response,
        responses=errors(404) | {200: {"content": {"image/png": {}}}},
    )
    async def picture(found: Shown) -> Response:
        """Fetch the picture that a link leads to."""
        return Response(found.picture, media_type="image/png")

    @app.post("/paint/{token}", tags=["discord"], openapi_extra=body_of(PaintInput), responses=errors(*asked_wrongly))
    async def paint(request: Request, token: Token, found: Shown) -> DoneView:
        """Have a part of the picture repainted, and the result posted where the link was shown. This uses the link up."""
        if wait_s := rate.wait_s(Person(f"discord/{found.user_id}")):
            raise Refusal(429, "You ask for work too often. Ask again in a moment.", {"Retry-After": str(int(wait_s) + 1)})
        asked = await read(request, PaintInput, MASK_BYTES)
        try:
            mask = base64.b64decode(asked.mask.removeprefix(PNG_URL), validate=True)
        except (binascii.Error, ValueError):
            raise Refusal(422, "mask must be a PNG file in base64.") from None
        assert neighbour is not None
        await done(neighbour.paint(token, asked.prompt, mask))
        return DoneView(told=f"The result will be posted in {found.channel}.")


async def done(work: Awaitable[None]) -> None:
    """Wait until Discord's side has done something.

    Raises:
        Refusal: it says no.
    """
    try:
        await work
    except Declined as declined:
        raise Refusal(409, plain(str(declined))) from None


async def read(request: Request, model: type[T], limit_bytes: int) -> T:
    """Read a body that is JSON.

    Raises:
        Refusal: it is not, or says something else than what can be asked.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refusal(415, "The body must be application/json.")
    try:
        return model.model_validate(await read_object(request, limit_bytes), strict=True)
    except ValidationError as error:
        raise Refusal(422, sentence_of(error.errors(include_url=False, include_input=False, include_context=False))) from None


def body_of(model: type[BaseModel]) -> dict[str, Any]:
    """Describe a body."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": model.model_json_schema()}}}}
