"""Predictions as cog has them: asked for, asked after, called off, promised across restarts."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from cogs._client import Endpoint, Reverie
from engine.errors import InvalidRequest, Misconfigured
from engine.history import History
from engine.jobs import Kind, Origin, Prediction, Request, State
from engine.queue import Queue
from engine.studio import webhooks
from engine.studio.keys import Person
from engine.worker import Worker
from loopback import Loopback
from tests.conftest import ScriptedPainter
from tests.engine.studio.conftest import BOB, PATIENCE_S, WIDE, House, Open

CAT = {"prompt": "a cat"}


async def begun(painter: ScriptedPainter) -> None:
    """Wait until something is being painted."""
    async with asyncio.timeout(PATIENCE_S):
        while not painter.started.is_set():  # noqa: ASYNC110 - another thread sets it
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def let_go(painter: ScriptedPainter) -> Iterator[None]:
    """Leave no thread behind that waits to go on."""
    yield
    painter.hold.set()


async def test_a_prompt_is_embedded_as_conditioned_prior_did(house: House, painter: ScriptedPainter) -> None:
    # The very body of its README: numbers as texts.
    told = await house.ask("POST", "/predictions", json={"input": {"prompt": "a cat", "candidates": "2", "cond_scale": "1.0"}})
    assert told["status"] == "succeeded" and told["error"] is None and told["logs"] == ""
    assert told["input"] == {"prompt": "a cat", "candidates": 2, "cond_scale": 1.0}
    assert sorted(told["output"]) == ["image_embedding", "text_embedding"]
    assert np.allclose(told["output"]["text_embedding"], np.frombuffer(painter.seen("a cat"), "<f2"))
    assert told["metrics"] == {"predict_time": 0.5}
    times = [datetime.fromisoformat(told[name]) for name in ("created_at", "started_at", "completed_at")]
    assert times == sorted(times) and all(time.tzinfo for time in times)
    [asked] = painter.painted
    assert (asked.kind, asked.count, asked.candidates, asked.prior_guidance, asked.prior_steps) == (Kind.EMBED, 1, 2, 1.0, None)


@pytest.mark.parametrize(
    ("input", "expected"),
    [
        ({}, (2, 1.0, None)),
        ({"candidates": 5, "cond_scale": 3, "sample_timesteps": 250}, (5, 3.0, 250)),
        ({"candidates": "32", "cond_scale": "0.5", "sample_timesteps": "1000"}, (32, 0.5, 1000)),
        ({"candidates": 4.0, "sample_timesteps": None, "overwrite": True}, (4, 1.0, None)),
    ],
)
async def test_the_prior_works_as_it_is_asked_to(house: House, painter: ScriptedPainter, input: dict[str, Any], expected: tuple[object, ...]) -> None:
    await house.ask("POST", "/predictions", json={"input": CAT | input | {"seed": 7}})
    [asked] = painter.painted
    assert (asked.candidates, asked.prior_guidance, asked.prior_steps, asked.seed) == (*expected, 7)


async def test_each_unet_can_be_asked_for_steps_and_guidance_of_its_own(house: House, painter: ScriptedPainter) -> None:
    asked = {"steps": [8, None], "guidance": [None, 1.5, 0]}
    told = await house.ask("POST", "/dream", json={"input": CAT | asked})
    assert (told["kind"], told["input"]) == ("dream", CAT | asked)
    assert (painter.painted[0].steps, painter.painted[0].guidance) == ((8, None), (None, 1.5, 0))
    for wrong, said in (({"steps": []}, "at least 1"), ({"steps": [300]}, "less than or equal to 250"), ({"guidance": [1, "x"]}, "valid number")):
        refused = await house.ask("POST", "/dream", 422, json={"input": CAT | wrong})
        assert refused["detail"].startswith(f"{next(iter(wrong))} must") and said in refused["detail"]


async def test_models_say_what_they_can_do_and_how_they_usually_paint(start: Open, painter: ScriptedPainter) -> None:
    other = ScriptedPainter()
    other.kinds, other.can_be_seamless = frozenset({Kind.DREAM}), True
    async with start(others={"other": other}) as house:
        told = (await house.ask("GET", "/models"))["models"]
        assert [(one["model"], one["name"], one["is_loaded"], one["kinds"]) for one in told] == [
            ("", "scripted", True, sorted(Kind)),
            ("other", "other", False, None),
        ]
        assert told[0]["steps"] == {"fast": 15, "balanced": 30, "best": 75}
        assert (told[0]["guidance"], told[0]["prior_guidance"], told[0]["seamless"]) == ([1.5, 2.0], 1.0, False)
        await house.ask("POST", "/dream", json={"input": CAT | {"model": "other"}})
        [_, told] = (await house.ask("GET", "/models"))["models"]
        assert (told["is_loaded"], told["kinds"], told["seamless"]) == (True, ["dream"], True)


async def test_who_does_not_want_to_wait_asks_after_it(house: House, painter: ScriptedPainter) -> None:
    painter.hold.clear()
    first, second = await house.take("predictions", CAT), await house.take("predictions", CAT | {"seed": 1})
    await begun(painter)
    now = await house.ask("GET", first["urls"]["get"])
    assert now["status"] == "processing" and now["started_at"] and now["completed_at"] is None and now["output"] is None
    waiting = await house.ask("GET", second["urls"]["get"])
    assert waiting["status"] == "starting" and waiting["progress"]["position"] == 1 and waiting["started_at"] is None
    painter.hold.set()
    done = await house.ended(first)
    assert done["status"] == "succeeded" and done["progress"] is None and done["completed_at"]
    listed = await house.ask("GET", "/predictions")
    assert [one["id"] for one in listed["results"]] == [second["id"], first["id"]] and listed["next"] is None
    page = await house.ask("GET", "/predictions?limit=1")
    assert [one["id"] for one in (await house.ask("GET", page["next"]))["results"]] == [first["id"]]


async def test_an_embedding_is_a_file_for_numpy(house: House) -> None:
    told = await house.ask("POST", "/predictions", json={"input": CAT})
    for which in ("text_embedding", "image_embedding"):
        loaded = np.load(io.BytesIO(await house.ask("GET", told["urls"][which])), allow_pickle=False)
        assert loaded.dtype == np.float32 and loaded.tolist() == told["output"][which]
    assert "embedding" in (await house.ask("GET", f"/predictions/{told['id']}/other.npy", 422))["detail"]
    painted = await house.ask("POST", "/dream", json={"input": CAT})
    assert "no embedding" in (await house.ask("GET", f"/predictions/{painted['id']}/text_embedding.npy", 404))["detail"]


async def test_what_is_put_again_under_an_id_is_the_same_prediction(house: House, painter: ScriptedPainter) -> None:
    put = {"method": "PUT", "path": "/predictions/my-own_id", "json": {"input": CAT}}
    both = await asyncio.gather(house.ask(**put), house.ask(**put))
    later = await house.ask(**put)
    assert both[0] == both[1] == later and later["id"] == "my-own_id" and len(painter.painted) == 1
    assert "taken" in (await house.ask("PUT", "/predictions/my-own_id", 409, json={"input": {"prompt": "a dog"}}))["detail"]
    # Bob's is another one, of which Ann knows nothing.
    bobs = await house.ask("PUT", "/predictions/my-own_id", key=BOB, json={"input": {"prompt": "a dog"}})
    assert bobs["input"] == {"prompt": "a dog"} and len(painter.painted) == 2
    assert (await house.ask("GET", "/predictions/my-own_id"))["input"] == CAT


async def test_nobody_sees_or_stops_what_is_somebody_elses(house: House, painter: ScriptedPainter) -> None:
    painter.hold.clear()
    told = await house.take("dream", CAT)
    for method, path in (("GET", ""), ("POST", "/cancel"), ("GET", "/events"), ("GET", "/text_embedding.npy")):
        await house.ask(method, f"/predictions/{told['id']}{path}", 404, BOB)
    assert (await house.ask("GET", "/predictions", key=BOB))["results"] == []
    painter.hold.set()
    await house.ended(told)
    await house.ask("GET", f"/pictures/{told['id']}/0.png", 404, BOB)
    await house.ask("POST", "/variation", 422, BOB, json={"input": {"image": f"/pictures/{told['id']}/0.png"}})


async def test_a_prediction_is_called_off_while_it_waits_and_while_it_is_worked_on(house: House, painter: ScriptedPainter) -> None:
    painter.hold.clear()
    first, second = await house.take("dream", CAT), await house.take("dream", CAT)
    await begun(painter)
    for told in (second, first):
        assert (await house.ask("POST", told["urls"]["cancel"]))["status"] == "canceled"
    assert house.queue.unfinished == [] and painter.painted == []
    painter.hold.set()
    done = await house.ask("POST", "/predictions", json={"input": CAT})
    assert (await house.ask("POST", done["urls"]["cancel"])) == done
    again = await house.ask("POST", first["urls"]["cancel"])
    assert again["status"] == "canceled" and again["output"] is None and again["error"] is None


@pytest.mark.parametrize(
    ("failure", "says"),
    [
        (InvalidRequest("model", "have a prior; {model} has none", model="x"), "model must have a prior; x has none."),
        (Misconfigured("/secret/path is broken"), "The model is not set up right. The operator finds the reason in the log."),
        (ZeroDivisionError("in /secret/path"), "Something broke here"),
    ],
)
async def test_a_failure_is_told_in_one_sentence_then_and_after_a_restart(
    start: Open, painter: ScriptedPainter, failure: Exception, says: str
) -> None:
    painter.failures.append(failure)
    async with start() as house:
        told = await house.ask("POST", "/predictions", json={"input": CAT})
        assert told["status"] == "failed" and told["error"].startswith(says) and "secret" not in json.dumps(told)
        assert told["output"] is None and told["completed_at"]
    async with start() as house:
        assert await house.ask("GET", told["urls"]["get"]) == told


async def test_what_was_accepted_is_finished_and_what_was_finished_stays_after_a_restart(start: Open, painter: ScriptedPainter) -> None:
    painter.hold.clear()
    async with start() as house:
        running, waiting = await house.take("dream", CAT | {"seed": 3}), await house.take("predictions", CAT)
        await begun(painter)
    painter.hold.set()
    async with start() as house:
        done = [await house.ended(told) for told in (running, waiting)]
        assert [one["status"] for one in done] == ["succeeded"] * 2
        assert [picture["seed"] for picture in done[0]["output"]["pictures"]] == [3, 4, 5, 6]
        file = await house.ask("GET", done[0]["output"]["pictures"][0]["url"])
    async with start() as house:
        assert await house.ask("GET", running["urls"]["get"]) == done[0]
        assert await house.ask("GET", done[0]["output"]["pictures"][0]["url"]) == file
        assert [event for event, _ in await house.events(running)] == ["completed"]
    assert len(painter.painted) == 2


async def test_what_was_painted_when_the_power_went_is_theirs_after_a_restart(start: Open, tmp_path: Path, painter: ScriptedPainter) -> None:
    history = await History.open(tmp_path / "data")
    job = await history.add(Request("a cat", 1, 1), Origin(Person("ann").id, 0, prediction=Prediction("mine", '{"prompt": "a cat"}')))
    painting = painter.paint(job.request, lambda progress: None)
    history.store(job, painting)
    await history.painted(job, painting)
    await history.close()
    async with start() as house:
        done = await house.ended({"urls": {"get": "/predictions/mine"}})
        assert done["status"] == "succeeded" and len(painter.painted) == 1


async def test_who_goes_away_while_they_wait_no_longer_wants_it(house: House, painter: ScriptedPainter) -> None:
    painter.hold.clear()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2):
            await house.ask("POST", "/dream", json={"input": CAT})
    async with asyncio.timeout(PATIENCE_S):
        while house.queue.unfinished:  # noqa: ASYNC110 - another task's work
            await asyncio.sleep(0.01)
    [told] = (await house.ask("GET", "/predictions"))["results"]
    assert told["status"] == "canceled"
    # What has a name of theirs can be asked after.
    painter.started.clear()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2):
            await house.ask("PUT", "/predictions/mine", json={"input": CAT})
    painter.hold.set()
    assert (await house.ended({"urls": {"get": "/predictions/mine"}}))["status"] == "succeeded"


async def test_a_stop_tells_those_who_wait_that_it_goes_on(start: Open, painter: ScriptedPainter) -> None:
    painter.hold.clear()
    async with start() as house:
        waits = asyncio.create_task(house.ask("POST", "/dream", 202, json={"input": CAT}))
        await begun(painter)
        house.stop()
        told = await waits
        assert told["status"] == "processing"
    painter.hold.set()
    async with start() as house:
        assert (await house.ended(told))["status"] == "succeeded"


async def test_what_happens_is_told_while_it_happens(house: House, painter: ScriptedPainter) -> None:
    painter.hold.clear()
    told = await house.take("dream", CAT | {"count": 1})
    story = asyncio.create_task(house.events(told))
    await begun(painter)
    await asyncio.sleep(1)
    painter.hold.set()
    events = await asyncio.wait_for(story, PATIENCE_S)
    names = [name for name, _ in events]
    assert names[0] == "progress" and "preview" in names and names[-1] == "completed" and names.count("completed") == 1
    preview = json.loads(dict(events)["preview"])
    assert preview["image"].startswith("data:image/png;base64,iVBOR")
    steps = [json.loads(data) for name, data in events if name == "progress"]
    assert {step["status"] for step in steps} <= {"starting", "processing"} and steps[-1]["total"] == 3
    assert json.loads(events[-1][1]) == await house.ask("GET", told["urls"]["get"])


# Webhooks.


class Listener:
    """A program of somebody's that is told how their predictions fare; `answers` are the statuses that it gives, then 200."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        self.answers: list[int] = []
        self.methods: list[str] = []
        self.address = ""

    async def hear(self, request: web.Request) -> web.Response:
        self.methods.append(request.method)
        self.heard.append(await request.json() if request.method == "POST" else {})
        status = self.answers.pop(0) if self.answers else 200
        return web.Response(status=status, headers={"Location": "/elsewhere"} if status == 302 else {})

    async def until(self, count: int) -> list[dict[str, Any]]:
        """Wait until so much was heard."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.heard) < count:  # noqa: ASYNC110 - heard over HTTP
                await asyncio.sleep(0.01)
        return self.heard


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    listening = Listener()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", listening.hear)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    listening.address = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield listening
    await runner.cleanup()


async def test_a_webhook_hears_of_start_output_and_end(start: Open, listener: Listener) -> None:
    async with start(webhook_hosts=(listener.address,)) as house:
        told = await house.take("dream", CAT, webhook=f"{listener.address}/hook?for=me")
        heard = await listener.until(3)
        assert [one["status"] for one in heard] == ["starting", "succeeded", "succeeded"] or heard[0]["status"] == "processing"
        assert heard[2] == await house.ended(told)
        await house.take("dream", CAT, webhook=listener.address, webhook_events_filter=["completed"])
        assert (await listener.until(4))[3]["status"] == "succeeded"
        await house.ended(await house.take("dream", CAT, webhook=listener.address, webhook_events_filter=[]))
    assert len(listener.heard) == 4


async def test_an_end_is_told_until_it_is_heard_and_no_redirect_is_followed(start: Open, listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "PATIENCE_S", (0.01, 0.01, 0.01))
    listener.answers = [500, 302]
    async with start(webhook_hosts=(listener.address,)) as house:
        await house.take("dream", CAT, webhook=listener.address, webhook_events_filter=["completed"])
        await listener.until(3)
    assert listener.methods == ["POST"] * 3


async def test_an_end_that_nobody_heard_is_told_after_a_restart(start: Open, listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    listener.answers = [503]
    async with start(webhook_hosts=(listener.address,)) as house:
        monkeypatch.setattr(webhooks, "PATIENCE_S", (PATIENCE_S,))
        told = await house.take("dream", CAT, webhook=listener.address, webhook_events_filter=["completed"])
        await listener.until(1)
    async with start(webhook_hosts=(listener.address,)) as house:
        assert (await listener.until(2))[1] == await house.ended(told)
        await asyncio.sleep(0.1)
    async with start(webhook_hosts=(listener.address,)):
        await asyncio.sleep(0.2)
    assert len(listener.heard) == 2


@pytest.mark.parametrize("path", ["http://127.0.0.1:1/", "https://127.0.0.1/", "HTTP://127.0.0.1:9@evil.example/", "ftp://x", "x", "http://[", ""])
async def test_a_webhook_goes_only_where_the_operator_allows(start: Open, painter: ScriptedPainter, path: str) -> None:
    async with start(webhook_hosts=("http://127.0.0.1:9", "https://hooks.example")) as house:
        told = await house.take("dream", CAT, 422, webhook=path)
        assert "webhook must be" in told["detail"] and house.queue.unfinished == []
    assert painter.painted == []


# Beside Discord.


async def test_nothing_that_came_over_http_goes_to_discord(addresses: None, tmp_path: Path, painter: ScriptedPainter) -> None:
    async with Loopback() as server:
        history = await History.open(tmp_path)
        for state in (State.WAITING, State.PAINTED):
            job = await history.add(Request("a cat", 1, 1), Origin(-7, 0, prediction=Prediction(state, "{}")))
            if state is State.PAINTED:
                painting = painter.paint(job.request, lambda progress: None)
                history.store(job, painting)
                await history.painted(job, painting)
        queue = Queue(history, WIDE)
        worker = Worker(queue, history, lambda: painter)
        async with Reverie(queue, history, worker, 0.2, Endpoint(server.api, server.gateway)) as bot:
            tasks = [asyncio.create_task(bot.start(server.token)), asyncio.create_task(worker.run())]
            await server.wait_for(bot.is_ready)
            await server.wait_for(lambda: all(job.state is State.PAINTED for job in queue.unfinished))
            await asyncio.sleep(0.5)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await history.close()
        assert [message for channel in server.world.channels.values() for message in channel.messages] == []
        assert [job.state for job in queue.unfinished] == [State.PAINTED] * 2
