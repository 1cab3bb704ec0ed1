"""What happens to a request, told while it happens."""

import asyncio
import base64
from collections.abc import AsyncIterator

from fastapi.sse import ServerSentEvent

from engine.predictions import Record
from engine.studio.desk import ON_THE_WAY, Desk, first_of
from engine.worker import aside

EVERY_S = 0.2
"""Between two looks: nobody reads faster."""
BEAT_S = 1.0
"""After so long a look is worth it where nothing is heard: places in the queue move without a word."""


async def events(desk: Desk, record: Record) -> AsyncIterator[ServerSentEvent]:
    """Yield how far a request is, previews of it, and its end; a stop ends the story in the middle, and the next start tells it on."""
    job = desk.job_of(record)
    told, shown = None, None
    while job is not None and job.state in ON_THE_WAY and not desk.stopping.is_set():
        view = desk.view(await desk.again(record))
        now = {"status": view.status} | (view.progress.model_dump() if view.progress else {})
        if now != told:
            told = now
            yield ServerSentEvent(event="progress", data=now)
        if job.preview is not None and job.preview is not shown:
            shown = job.preview
            encoded = await aside(base64.b64encode, shown)
            yield ServerSentEvent(event="preview", data={"image": f"data:image/png;base64,{encoded.decode()}"})
        if job.state in ON_THE_WAY:
            await first_of(job.change(), desk.stopping.wait(), asyncio.sleep(BEAT_S))
            await asyncio.sleep(EVERY_S)
    await desk.ended(record)
    if not desk.stopping.is_set():
        yield ServerSentEvent(event="completed", data=desk.view(await desk.again(record)))
