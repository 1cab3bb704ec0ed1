"""The addresses of the HTTP interface: predictions as cog has them, operations with pictures, and what these came to."""

import asyncio
import io
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import Depends, FastAPI, Header, Path, Query, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.security import HTTPBasic, HTTPBearer
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import Match

from engine.errors import EngineError
from engine.jobs import FRAMES_LIMIT, Kind
from engine.neighbour import Neighbour
from engine.predictions import Record
from engine.studio import events
from engine.studio.bodies import read_body
from engine.studio.desk import Desk
from engine.studio.films import FILMS, Film
from engine.studio.guard import Guard
from engine.studio.keys import Keys, Person, Rate
from engine.studio.models import ModelsView, models_view
from engine.studio.next_door import Id, add_next_door
from engine.studio.pages import docs_page
from engine.studio.refusals import Refusal, refusal_of, sentence_of
from engine.studio.schema import body_of, described
from engine.studio.site import add_site
from engine.studio.views import PredictionView, half_of

AT_ONCE = 50
"""Requests of one person that are answered at once; who waits for a picture, or listens, is one of them."""
LISTED = 50
"""Predictions on a page at most."""
CHALLENGE = {"WWW-Authenticate": 'Basic realm="Reverie"'}
"""Has browsers ask for a name and a password, which is the key."""
LARGEST = 2**63 - 1
FOR_EVER = {"Cache-Control": "private, max-age=31536000, immutable"}
"""Of pictures: what is painted does not change."""

Prefer = Annotated[str | None, Header(description="`respond-async` answers at once, with 202; without it, the answer comes when all is done")]


class ErrorView(BaseModel):
    """Why there is no other answer, in one sentence."""

    detail: str


class HealthView(BaseModel):
    """Whether requests are being worked on: `STARTING` while the model is being loaded, else `READY`."""

    status: Literal["STARTING", "READY"]


class ListView(BaseModel):
    """Predictions, the latest first; `next` is where those before begin, null where there are none."""

    results: list[PredictionView]
    next: str | None


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the answers that say why there is no other one; some may be given anywhere."""
    # Not as models: FastAPI would say that they come in the form of the answer that there is none of.
    content = {"application/json": {"schema": ErrorView.model_json_schema()}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in sorted({*statuses, 401, 403, 422, 429})}


def studio_app(
    desk: Desk, keys: Keys, rate: Rate, names: frozenset[str], webhook_hosts: tuple[str, ...], neighbour: Neighbour | None = None
) -> FastAPI:
    """Return the app; `names` are those that this machine may be called by, `neighbour` is Discord's side of the house."""
    app = FastAPI(
        title="Reverie",
        version="1",
        description="Paints with DALL-E 2, over HTTP. What is asked here waits in one line with what is asked in Discord.",
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(Guard, names=names)
    app.add_exception_handler(Refusal, refused)
    app.add_exception_handler(EngineError, refused_by_engine)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, no_such_address)
    busy: dict[int, int] = {}

    async def person_of(request: Request) -> AsyncIterator[Person]:
        person = keys.person(request.headers.get("authorization"))
        if person is None:
            raise Refusal(401, "A key is needed, as Authorization: Bearer KEY or as name and password.", CHALLENGE)
        if busy.get(person.id, 0) >= AT_ONCE:
            raise Refusal(429, f"You have {AT_ONCE} requests that wait for their answers. Close some first.", {"Retry-After": "1"})
        busy[person.id] = busy.get(person.id, 0) + 1
        try:
            yield person
        finally:
            busy[person.id] -= 1
            if not busy[person.id]:
                del busy[person.id]

    Asker = Annotated[Person, Depends(person_of)]

    async def counted(person: Asker) -> Person:
        if wait_s := rate.wait_s(person):
            raise Refusal(429, "You ask for work too often. Ask again in a moment.", {"Retry-After": str(int(wait_s) + 1)})
        return person

    async def known(id: Id, person: Asker) -> Record:
        return await desk.known(person, id)

    Counted = Annotated[Person, Depends(counted)]
    Known = Annotated[Record, Depends(known)]
    locks = [Security(HTTPBearer(auto_error=False)), Security(HTTPBasic(auto_error=False))] if keys else []
    made: dict[str, Any] = {
        "dependencies": locks,
        "response_model": PredictionView,
        "responses": {202: {"model": PredictionView, "description": "Accepted"}} | errors(400, 408, 409, 413, 415),
    }
    seen: dict[str, Any] = {"dependencies": locks, "responses": errors(404)}

    async def take(request: Request, person: Person, kind: Kind, prefer: str | None, name: str | None = None) -> Response:
        asked = await read_body(request, kind)
        record = await desk.take(person, kind, asked, name)
        if "respond-async" not in [part.strip().lower() for part in (prefer or "").split(",")]:
            await wait_for(request, desk, record, may_cancel=name is None)
            record = await desk.again(record)
        view = desk.view(record)
        is_done = view.status in ("succeeded", "failed", "canceled")
        return JSONResponse(view.model_dump(mode="json"), 200 if is_done else 202)

    # Cog's addresses.

    @app.get("/health-check", tags=["cog"])
    async def health_check() -> HealthView:
        """Tell whether the model is loaded."""
        return HealthView(status="READY" if desk.models.painter is not None else "STARTING")

    @app.post("/predictions", tags=["cog"], openapi_extra=body_of(Kind.EMBED), **made)
    async def predict(request: Request, person: Counted, prefer: Prefer = None) -> Response:
        """Embed a prompt: CLIP's text embedding, and the picture embedding that the prior draws for it."""
        return await take(request, person, Kind.EMBED, prefer)

    @app.put("/predictions/{id}", tags=["cog"], openapi_extra=body_of(Kind.EMBED), **made)
    async def predict_once(request: Request, id: Id, person: Counted, prefer: Prefer = None) -> Response:
        """Embed a prompt under an id of your own: asked again, it is the same prediction."""
        return await take(request, person, Kind.EMBED, prefer, id)

    @app.get("/predictions", tags=["cog"], **seen)
    async def predictions(
        person: Asker,
        before: Annotated[int, Query(ge=1, le=LARGEST, description="As `next` says")] = LARGEST,
        limit: Annotated[int, Query(ge=1, le=LISTED)] = 20,
    ) -> ListView:
        """List your predictions of every kind, the latest first."""
        records = await desk.latest(person, before, limit)
        following = f"/predictions?before={records[-1].number}&limit={limit}" if len(records) == limit else None
        return ListView(results=[desk.view(record) for record in records], next=following)

    @app.get("/predictions/{id}", tags=["cog"], **seen)
    async def prediction(record: Known) -> PredictionView:
        """Tell what has become of a prediction, of whatever kind; results stay."""
        return desk.view(record)

    @app.delete("/predictions/{id}", tags=["results"], status_code=204, dependencies=locks, responses=errors(404, 409))
    async def erase(record: Known) -> None:
        """Erase a prediction that has ended, with its pictures."""
        await desk.erase(record)

    @app.post("/predictions/{id}/cancel", tags=["cog"], **seen)
    async def cancel(record: Known) -> PredictionView:
        """Call a prediction off: at once while it waits, between two steps while it is worked on. One that has ended stays as it is."""
        await desk.cancel(record)
        return desk.view(await desk.again(record))

    # What is our own.

    @app.get("/models", tags=["pictures"], dependencies=locks, responses=errors())
    async def models(person: Asker) -> ModelsView:
        """List the models that may be asked for, the usual one first, and how each usually paints."""
        return models_view(desk.models)

    @app.get("/predictions/{id}/events", tags=["results"], response_class=EventSourceResponse, **seen)
    async def follow(record: Known) -> AsyncIterator[ServerSentEvent]:
        """Tell as it happens: `progress`, `preview` (a picture as data: URL) and at last `completed`, the prediction."""
        async for event in events.events(desk, record):
            yield event

    @app.get(
        "/predictions/{id}/{which}.npy",
        tags=["results"],
        response_class=Response,
        dependencies=locks,
        responses=errors(404) | {200: {"content": {"application/octet-stream": {}}}},
    )
    async def embedding(record: Known, which: Literal["text_embedding", "image_embedding"]) -> Response:
        """Fetch an embedding for NumPy, (D,) float32."""
        if record.embedding is None:
            raise Refusal(404, "This prediction has no embedding, or none yet.")
        file = io.BytesIO()
        np.save(file, half_of(record.embedding, which))
        name = f"{record.prediction.name}-{which}.npy"
        return Response(file.getvalue(), media_type="application/octet-stream", headers={"Content-Disposition": f'attachment; filename="{name}"'})

    def moving(name: str, film: Film) -> None:
        async def fetch(record: Known) -> Response:
            made = await desk.film(record, name)
            if made is None:
                raise Refusal(404, "This prediction is no morph, or is not painted yet.")
            return Response(made, media_type=film.media, headers=FOR_EVER)

        answers = errors(404) | {200: {"content": {film.media: {}}}}
        more: dict[str, Any] = {"response_class": Response, "dependencies": locks, "responses": answers}
        app.get(f"/pictures/{{id}}/{name}", tags=["results"], name=name, summary=film.summary, **more)(fetch)

    for name, film in FILMS.items():
        moving(name, film)

    @app.get(
        "/pictures/{id}/{position}.png",
        tags=["results"],
        response_class=Response,
        dependencies=locks,
        responses=errors(404) | {200: {"content": {"image/png": {}}}},
    )
    async def picture(id: Id, person: Asker, position: Annotated[int, Path(ge=0, lt=FRAMES_LIMIT)]) -> Response:
        """Fetch a picture, as PNG; its settings are in its text chunks."""
        found = await desk.picture(person, id, position)
        if found is None:
            raise Refusal(404, "There is no such picture of yours, or not yet.")
        return Response(found[0], media_type="image/png", headers=FOR_EVER)

    def operation(kind: Kind, summary: str) -> None:
        async def perform(request: Request, person: Counted, prefer: Prefer = None) -> Response:
            return await take(request, person, kind, prefer)

        app.post(f"/{kind}", tags=["pictures"], name=kind, summary=summary, openapi_extra=body_of(kind), **made)(perform)

    operation(Kind.DREAM, "Paint what a prompt describes.")
    operation(Kind.VARIATION, "Paint other pictures with the meaning of a given one.")
    operation(Kind.INPAINT, "Repaint a part of a picture.")
    operation(Kind.UPSCALE, "Enlarge a picture.")
    operation(Kind.BLEND, "Paint what lies between pictures and prompts.")
    operation(Kind.MORPH, "Paint the way from one picture or prompt to another.")
    operation(Kind.EDIT, "Change what a picture shows, and keep the rest of it.")
    operation(Kind.EXPLORE, "Paint what lies around a picture.")
    operation(Kind.DRAWS, "See how near the prior's draws come to a prompt.")
    operation(Kind.VERIFY, "Paint a picture again from its receipt, and compare.")

    # Pages.

    add_site(app, person_of)
    add_next_door(app, desk, neighbour, rate, person_of, counted, locks, errors)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        page, policy = docs_page(app.openapi())
        return HTMLResponse(page, headers={"Content-Security-Policy": policy})

    plain = app.openapi

    def openapi() -> dict[str, Any]:
        # Which models there are changes while the bot runs.
        return described(plain(), desk.models, webhook_hosts)

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's documentation has it
    return app


async def wait_for(request: Request, desk: Desk, record: Record, *, may_cancel: bool) -> None:
    """Wait until a request has ended. Where whoever asked has gone and nobody else can know of it, it is called off."""
    gone = asyncio.create_task(has_gone(request))
    ended = asyncio.create_task(desk.ended(record))
    try:
        await asyncio.wait([gone, ended], return_when=asyncio.FIRST_COMPLETED)
        if gone.done() and not ended.done() and may_cancel:
            await desk.cancel(record)
    finally:
        for task in (gone, ended):
            task.cancel()
        await asyncio.gather(gone, ended, return_exceptions=True)


async def has_gone(request: Request) -> None:
    """Wait until whoever asked no longer listens."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


# Answers that say why there is no other one.


async def refused(request: Request, error: Exception) -> Response:
    """Answer with a refusal."""
    assert isinstance(error, Refusal)
    return JSONResponse({"detail": error.sentence}, error.status, error.headers)


async def refused_by_engine(request: Request, error: Exception) -> Response:
    """Answer with what the engine says."""
    assert isinstance(error, EngineError)
    return await refused(request, refusal_of(error))


async def invalid(request: Request, error: Exception) -> Response:
    """Answer with what is wrong with an address or a header."""
    assert isinstance(error, RequestValidationError)
    findings = [finding | {"loc": finding["loc"][1:]} for finding in error.errors()]
    return JSONResponse({"detail": sentence_of(findings)}, 422)


async def no_such_address(request: Request, error: Exception) -> Response:
    """Answer where there is nothing, or nothing that takes this method."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code != 405:
        sentence = "There is nothing at this address. /docs says what is where." if error.status_code == 404 else str(error.detail)
        return JSONResponse({"detail": sentence}, error.status_code, headers)
    routes = [route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE]
    methods = sorted({method for route in routes for method in getattr(route, "methods", None) or ()})
    return JSONResponse({"detail": f"This address takes {' and '.join(methods)} only."}, 405, headers | {"Allow": ", ".join(methods)})
