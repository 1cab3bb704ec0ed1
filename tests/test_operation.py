"""The bot as those see it who run it: its logs, its health, its numbers, its end, and the files that put it into a container."""

import asyncio
import contextlib
import json
import logging
import math
import re
import shlex
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

import bot
from cogs._client import Endpoint, Reverie
from engine import logs, models, telemetry
from engine.settings import load
from loopback import Loopback, Message
from tests.conftest import ScriptedPainter
from tests.test_bot import PATIENCE_S, ROOT, jobs, local_bot, program, refusal_of, settings, until

SENTINEL = "a zebrafinch over quicksand"


# Logs.


def formatted(logger: str, level: int, message: str, *arguments: object, **more: object) -> dict[str, object]:
    """Return what a record comes to, read back from its line."""
    line = logs.JsonLines().format(logging.LogRecord(logger, level, __file__, 1, message, arguments, **{"exc_info": None} | more))
    assert "\n" not in line and line.isascii()
    return json.loads(line)


def test_a_line_of_json_names_time_level_logger_and_job() -> None:
    line = formatted("engine.worker", logging.INFO, "job %d: painted in %.1f s\n%s", 7, 1.25, "ü")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line.pop("time"))
    assert line == {"level": "INFO", "logger": "engine.worker", "message": "job 7: painted in 1.2 s\nü", "job": 7}
    assert "job" not in formatted("reverie", logging.INFO, "stopping")


def test_a_traceback_is_a_text_in_its_line() -> None:
    try:
        raise ValueError("a fault")
    except ValueError:
        line = formatted("engine.worker", logging.ERROR, "job %d: failed, reference %s", 7, "7-ab", exc_info=sys.exc_info())
    assert line["traceback"].startswith("Traceback") and line["traceback"].endswith("ValueError: a fault") and line["job"] == 7


async def test_a_run_logs_lines_of_json_and_no_prompt(tmp_path: Path) -> None:
    async with local_bot(settings(tmp_path, log_format="json")) as running, aiohttp.ClientSession() as session:
        await running.dream(session, prompt=SENTINEL, count=1, steps=2)
        await until(lambda: jobs(tmp_path) == ["delivered"])
        running.process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(running.process.wait(), PATIENCE_S)
        lines = [json.loads(line) for line in running.log]
    told = [line["message"] for line in lines if line.get("job") == 1]
    assert [text.split()[2].rstrip(",") for text in told] == ["queued", "painted", "delivered"]
    assert {line["level"] for line in lines} == {"INFO"}
    assert not any(word in line for word in ("zebrafinch", "quicksand") for line in running.log)


BROKEN = """
import sys, bot
def load_painter(config, device, dtype):
    raise RuntimeError("a fault of ours")
bot.models.load_painter = load_painter
sys.exit(bot.main())
"""


async def test_what_ends_the_program_is_a_line_of_json_too(tmp_path: Path) -> None:
    config = settings(tmp_path, log_format="json", model=str(tmp_path / "none.json"))
    async with program("--local", "--config", str(config)) as process:
        _, errors = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    line = json.loads(errors.decode().splitlines()[-1])
    assert process.returncode == 1 and line["level"] == "CRITICAL" and "none.json is missing" in line["message"]
    async with program(BROKEN, "--local", "--config", str(config), program_file="-c") as process:
        _, errors = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    line = json.loads(errors.decode().splitlines()[-1])
    assert process.returncode == 1 and line["traceback"].endswith("RuntimeError: a fault of ours")


# Health and numbers.


class Running:
    """A bot inside of this process, on Discord of this machine, and the address of its telemetry. Its model loads once `load` is set."""

    def __init__(self, server: Loopback, port: int) -> None:
        self.server = server
        self.load = threading.Event()
        self.address = f"http://127.0.0.1:{port}"

    async def get(self, path: str, **headers: str) -> tuple[int, str]:
        async with aiohttp.ClientSession() as session, session.get(self.address + path, headers=headers) as answer:
            return answer.status, await answer.text()

    async def failing(self) -> list[str]:
        """Return which parts /health names; the status must fit."""
        status, text = await self.get("/health")
        told = json.loads(text)
        assert (status, told["status"]) == ((503, "failing") if told["failing"] else (200, "ok"))
        return told["failing"]

    async def until_failing(self, *parts: str) -> None:
        async with asyncio.timeout(20):
            while await self.failing() != list(parts):  # noqa: ASYNC110 - nobody tells of a change
                await asyncio.sleep(0.02)

    async def numbers(self) -> dict[str, float]:
        """Return every sample of /metrics, under its name with its labels."""
        status, text = await self.get("/metrics")
        assert status == 200
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return {" ".join([sample.name, *sample.labels.values()]): sample.value for sample in samples}

    async def dream(self) -> Message:
        """Ask for a picture, and return the message that acknowledges it."""
        interaction = await self.server.command(self.server.ann, self.server.general, "dream", {"prompt": SENTINEL, "count": 1})
        await self.server.wait_for(lambda: interaction.message)
        return interaction.message

    async def until_posted(self) -> None:
        await self.server.wait_for(lambda: any(message.attachments for message in self.server.general.messages))


def free_port() -> int:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        return taken.getsockname()[1]


@pytest.fixture
async def running(painter: ScriptedPainter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, addresses: None) -> AsyncIterator[Running]:
    """Run what bot.py runs; its painter waits for `painter.hold`."""
    monkeypatch.setattr(telemetry, "BEAT_S", 0.02)
    painter.hold.clear()
    async with Loopback() as server:
        Endpoint(server.api, server.gateway).use()
        there = Running(server, free_port())

        def load_painter(config: Path, device: str, dtype: str) -> ScriptedPainter:
            there.load.wait(10)
            return painter

        monkeypatch.setattr(models, "load_painter", load_painter)
        config = load(settings(tmp_path, metrics_port=int(there.address.rsplit(":", 1)[1])))
        task = asyncio.create_task(bot.run(config.model_copy(update={"token": SecretStr(server.token)}), local=False))
        await server.wait_for(lambda: task.done() or server.sessions)
        try:
            yield there
        finally:
            there.load.set()
            painter.hold.set()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    with pytest.raises(aiohttp.ClientConnectorError):
        await there.get("/health")


async def test_the_bot_is_well_once_it_is_connected_and_its_model_loaded(running: Running, painter: ScriptedPainter) -> None:
    await running.until_failing("model")
    running.load.set()
    await running.until_failing()
    running.server.drop_gateway()
    await running.until_failing("discord")


async def test_an_engine_that_hangs_is_named(running: Running, painter: ScriptedPainter, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hanging(ScriptedPainter):
        def paint(self, *_: object) -> None:
            self.started.set()
            self.hold.wait(10)
            raise RuntimeError("it was held up")

    painter.__class__ = Hanging
    running.load.set()
    await running.until_failing()
    monkeypatch.setattr(telemetry, "SILENT_S", 0.3)
    await running.dream()
    await running.until_failing("engine")
    assert (await running.numbers())["reverie_engine_silent_seconds"] > 0.3
    painter.hold.set()
    await running.until_failing()


async def test_an_engine_that_paints_slowly_is_well(running: Running, painter: ScriptedPainter, monkeypatch: pytest.MonkeyPatch) -> None:
    running.load.set()
    await running.until_failing()
    monkeypatch.setattr(telemetry, "SILENT_S", 0.3)
    painter.steps, painter.pause_s = 8, 0.1
    painter.hold.set()
    await running.dream()
    while not painter.painted:
        assert await running.failing() == []
        await asyncio.sleep(0.02)


async def test_a_loop_that_was_stuck_is_named_for_a_while(running: Running, painter: ScriptedPainter, monkeypatch: pytest.MonkeyPatch) -> None:
    running.load.set()
    await running.until_failing()
    monkeypatch.setattr(telemetry, "LATE_S", 0.3)
    time.sleep(0.5)  # noqa: ASYNC251 - this is what is tested
    assert await running.failing() == ["loop"]
    await asyncio.sleep(0.2)
    assert await running.failing() == ["loop"] and (await running.numbers())["reverie_event_loop_latest_minute_seconds"] > 0.4
    await asyncio.sleep(telemetry.BEATS * telemetry.BEAT_S)
    await running.until_failing()


async def test_the_numbers_follow_a_job_from_asking_to_posting(running: Running, painter: ScriptedPainter) -> None:
    await running.until_failing("model")
    before = await running.numbers()
    assert before["reverie_jobs_total dream delivered"] == before["reverie_painting_seconds_count dream"] == 0
    assert before["reverie_discord_connected"] == 1
    running.load.set()
    await running.dream()
    await asyncio.to_thread(painter.started.wait)
    while_painting = await running.numbers()
    assert while_painting["reverie_unfinished_jobs painting"] == 1 and while_painting["reverie_queue_wait_seconds_count"] == 1
    painter.hold.set()
    await running.until_posted()
    await running.until_failing()
    after = await running.numbers()
    assert [after[f"reverie_jobs_total dream {state}"] for state in ("waiting", "painting", "painted")] == [1, 1, 1]
    assert after["reverie_painting_seconds_count dream"] == 1 and after["reverie_painting_seconds_sum dream"] == 0.5
    assert after["reverie_model_info scripted"] == 1 and after["reverie_database_bytes"] > 0 and after["reverie_disk_free_bytes"] > 0
    assert (after["reverie_cache_asked_total texts"], after["reverie_cache_known_total texts"]) == (5, 3)
    assert after["process_resident_memory_bytes"] > 1e7 and "process_cpu_seconds_total" in after
    assert SENTINEL not in str(after)


async def test_the_latency_is_no_number_before_the_first_heartbeat(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not math.isinf((await running.numbers())["reverie_discord_latency_seconds"])
    monkeypatch.setattr(Reverie, "latency", math.inf)
    assert math.isnan((await running.numbers())["reverie_discord_latency_seconds"])
    monkeypatch.setattr(Reverie, "latency", 0.25)
    assert (await running.numbers())["reverie_discord_latency_seconds"] == 0.25


@pytest.mark.parametrize(("arrange", "state"), [("fail", "failed"), ("cancel", "cancelled"), ("deliver", "delivered"), ("close", "kept")])
async def test_every_end_of_a_job_is_counted(running: Running, painter: ScriptedPainter, arrange: str, state: str) -> None:
    running.load.set()
    await running.until_failing()
    if arrange == "fail":
        painter.failures.append(RuntimeError("a fault"))
    message = await running.dream()
    await asyncio.to_thread(painter.started.wait)
    if arrange == "cancel":
        await running.server.press(running.server.ann, message, message.components[0]["components"][0]["custom_id"])
    if arrange == "close":
        running.server.fail_next(100, status=403, path=r"messages|webhooks|users/@me/channels")
    if arrange != "cancel":
        painter.hold.set()
    async with asyncio.timeout(10):
        while (await running.numbers())[f"reverie_jobs_total dream {state}"] != 1:  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.02)


async def test_who_calls_this_machine_by_another_name_is_not_answered(running: Running) -> None:
    for host, status in (("localhost:9420", 503), ("127.0.0.1", 503), ("evil.example", 403), ("127.0.0.1.evil.example:9420", 403), ("", 403)):
        for path in ("/health", "/metrics"):
            assert (await running.get(path, Host=host))[0] == (200 if status == 503 and path == "/metrics" else status)


async def test_only_this_machine_can_connect(running: Running) -> None:
    # All of 127.0.0.0/8 is this machine, but nobody listens at its other addresses where it is only the one.
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.2", int(running.address.rsplit(":", 1)[1]))


async def test_a_taken_port_for_the_numbers_is_one_sentence(tmp_path: Path) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        code, said = await refusal_of("import sys, bot; sys.exit(bot.main())", "--local", "--config", str(settings(tmp_path, metrics_port=port)))
    assert code == 1 and f"Port {port}" in said and "metrics_port" in said


# The end.


SLOWLY = """
import sys, bot
from tests.conftest import ScriptedPainter
painter = ScriptedPainter(steps=40)
painter.pause_s = 0.3
bot.models.load_painter = lambda config, device, dtype: painter
sys.exit(bot.main())
"""


async def test_a_stop_waits_for_the_step_and_no_longer_and_the_next_start_finishes_the_job(tmp_path: Path) -> None:
    config = settings(tmp_path)
    async with aiohttp.ClientSession() as session:
        async with local_bot(config, SLOWLY) as running:
            await running.dream(session, prompt="a cat", count=1)
            await until(lambda: jobs(tmp_path) == ["painting"])
            await asyncio.sleep(1)
            told = time.monotonic()
            running.process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(running.process.wait(), 20) == 0
            took_s = time.monotonic() - told
        assert took_s < 5.3, f"{took_s:.1f} s"
        assert jobs(tmp_path) == ["painting"]
        async with local_bot(config, SLOWLY.replace("0.3", "0")):
            await until(lambda: jobs(tmp_path) == ["delivered"])


# The container.


DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())


def instructions(name: str) -> list[str]:
    """Return what stands behind every instruction of this name."""
    return re.findall(rf"^{name} +(.*)$", DOCKERFILE, re.MULTILINE)


def test_everything_that_is_copied_into_the_image_exists_and_is_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    sources = [source for line in instructions("COPY") for source in shlex.split(line)[:-1] if not source.startswith("--")]
    assert {"bot.py", "cogs", "engine", "loopback", "configs"} < set(sources)
    assert all((ROOT / source).exists() and source not in ignored for source in sources)
    # Nothing that bot.py needs is left out.
    rooms = set(re.findall(r"^\s*(?:from|import) (cogs|engine|loopback)", (ROOT / "bot.py").read_text(), re.MULTILINE))
    assert rooms <= set(sources)


def test_secrets_and_what_the_bot_remembers_stay_out_of_the_image() -> None:
    ignored = set((ROOT / ".dockerignore").read_text().split())
    assert {".env", "data", ".git", ".venv"} <= ignored
    assert not re.search(r"TOKEN *=", DOCKERFILE.replace("TORCH_INDEX", ""))


def test_the_container_runs_the_bot_without_a_shell_and_not_as_root() -> None:
    assert [json.loads(line) for line in instructions("ENTRYPOINT")] == [["python", "bot.py"]]
    assert instructions("STOPSIGNAL") == ["SIGTERM"] and instructions("USER") == ["reverie"]
    assert instructions("VOLUME") == ['["/data"]'] and instructions("FROM")[0].startswith("python:3.11-slim")


def test_compose_keeps_the_data_and_gives_the_bot_time_to_stop() -> None:
    service = COMPOSE["services"]["reverie"]
    assert service["env_file"] == ".env" and service["restart"] == "unless-stopped" and service["stop_grace_period"] == "30s"
    named = [volume.split(":")[0] for volume in service["volumes"] if volume.split(":")[1] == "/data"]
    assert named and set(named) <= set(COMPOSE["volumes"])
    mounted = [volume.split(":") for volume in service["volumes"] if volume.startswith("./")]
    assert all((ROOT / source).exists() and target.startswith("/app/") for source, target, *_ in mounted)


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1), (None, 1)])
async def test_the_health_check_of_the_container_asks_the_bot(tmp_path: Path, status: int | None, code: int) -> None:
    async def health(request: web.Request) -> web.Response:
        assert request.headers["Host"].startswith("127.0.0.1:")
        return web.Response(status=status)

    app = web.Application()
    app.router.add_get("/health", health)
    async with TestServer(app) as server:
        (tmp_path / "configs").mkdir()
        settings(tmp_path, metrics_port=server.port if status else free_port()).rename(tmp_path / "configs" / "bot.toml")
        command = json.loads(re.search(r"CMD (\[.*\])", instructions("HEALTHCHECK")[0])[1])
        assert command[0] == "python"
        process = await asyncio.create_subprocess_exec(sys.executable, *command[1:], cwd=tmp_path, stderr=asyncio.subprocess.DEVNULL)
        assert await asyncio.wait_for(process.wait(), 30) == code
