"""Who may ask at all, how much at once, and what happens to what nobody can read: nothing, and they are told so in a sentence."""

import asyncio
import base64
import contextlib
import itertools
import json
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from pydantic import IPvAnyAddress, SecretStr, TypeAdapter
from yarl import URL

from engine.errors import Misconfigured
from engine.history import History
from engine.jobs import Origin, Request
from engine.queue import Limits, Queue
from engine.studio import Studio, bodies
from engine.studio.keys import ANYBODY, Keys, Person, Rate
from engine.studio.refusals import SENTENCES, sentence
from engine.studio.server import taken
from engine.worker import Worker
from tests.conftest import ScriptedPainter
from tests.engine.studio.conftest import ANN, BOB, PATIENCE_S, House, Open, settings_with

CAT = {"input": {"prompt": "a cat"}}
GIGABYTE = 2**30


def address(text: str) -> IPvAnyAddress:
    return TypeAdapter(IPvAnyAddress).validate_python(text)


# Keys.


def test_a_person_is_the_same_in_every_run_and_no_snowflake() -> None:
    # Who changes this number takes everybody's predictions away.
    assert Person("ann").id == -1325280412105363468
    people = [Person(f"person-{number}").id for number in range(1000)]
    assert len(set(people)) == 1000 and all(-(2**62) <= number < 0 for number in people)


def test_people_are_told_by_their_keys_alone_or_with_their_names() -> None:
    keys = Keys({"ann": SecretStr(ANN), "bob": SecretStr(BOB)})

    def basic(text: str) -> str:
        return "Basic " + base64.b64encode(text.encode()).decode()

    assert keys.person(f"Bearer {ANN}") == keys.person(f"bearer  {ANN} ") == keys.person(basic(f"ann:{ANN}")) == Person("ann")
    wrong = (None, "", ANN, f"Token {ANN}", f"Bearer {ANN[:-1]}", f"Bearer {ANN}x", "Bearer ", "Bearer", "Basic", "Basic ???", "Basic /w==")
    for told in (*wrong, basic(f"bob:{ANN}"), basic(f":{ANN}"), basic(ANN), basic("ann:"), f"Bearer \udcff{ANN}"):
        assert keys.person(told) is None
    assert Keys({}).person(None) == Keys({}).person("Bearer x") == ANYBODY


async def test_who_has_no_key_gets_nothing_but_what_is_no_secret(house: House) -> None:
    document = await house.ask("GET", "/openapi.json", key=None)
    for path, methods in document["paths"].items():
        for method in methods:
            # Whoever has a link to the brush needs no key.
            if path != "/health-check" and not path.startswith("/paint/"):
                told = await house.ask(method.upper(), path.format(id="x", which="text_embedding", position=0), 401, None, json=CAT)
                assert told == {"detail": "A key is needed, as Authorization: Bearer KEY or as name and password."}
    async with house.session.get(house.address + "predictions") as answer:
        assert answer.headers["WWW-Authenticate"] == 'Basic realm="Reverie"'
    for path in ("/docs", "/health-check"):
        await house.ask("GET", path, key=None)


async def test_without_keys_everybody_on_this_machine_is_one_person(start: Open) -> None:
    async with start(keys={}) as house:
        told = await house.ask("POST", "/predictions", key=None, json=CAT)
        assert await house.ask("GET", told["urls"]["get"], key=None) == told
        assert "security" not in json.dumps((await house.ask("GET", "/openapi.json", key=None))["paths"])


@pytest.mark.parametrize("where", ["0.0.0.0", "::", "192.168.1.7"])
async def test_others_can_reach_it_only_where_there_are_keys(history: History, where: str) -> None:
    queue = Queue(history, Limits(1, 1, 1))
    worker = Worker(queue, history, ScriptedPainter)
    with pytest.raises(Misconfigured, match=rf"^Anybody on the network could use a studio at {where}\. Set STUDIO_KEYS") as refusal:
        Studio(settings_with(keys={}, studio_address=address(where)), queue, history, worker)
    assert "\n" not in str(refusal.value)


async def test_any_address_will_do_where_there_are_keys(start: Open) -> None:
    async with start(studio_address=address("0.0.0.0")) as house:
        house.address = house.address.replace("0.0.0.0", "127.0.0.1")
        assert (await house.ask("POST", "/predictions", json=CAT))["status"] == "succeeded"


async def test_a_taken_port_is_named(house: House) -> None:
    port = int(house.address.rstrip("/").rpartition(":")[2])
    with pytest.raises(Misconfigured, match=f"Port {port} of 127.0.0.1 cannot be had"):
        Studio(settings_with(studio_port=port), house.queue, house.history, Worker(house.queue, house.history, ScriptedPainter))


def test_an_answer_does_not_wait_for_the_receipt_of_its_head() -> None:
    with taken("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()[:2]), listening.accept()[0] as accepted:
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


# Names and pages.


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost:8421", "LOCALHOST", "[::1]:80", "192.168.1.7", "studio.example", "Studio.Example:443"])
async def test_this_machine_is_called_by_numbers_by_localhost_and_by_its_names(start: Open, name: str) -> None:
    async with start(studio_names=("studio.example",), studio_url="https://paint.example:8443") as house:
        await house.ask("GET", "/health-check", headers={"Host": "paint.example"})
        assert (await house.ask("POST", "/predictions", json=CAT, headers={"Host": name}))["status"] == "succeeded"


@pytest.mark.parametrize("name", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8421", "a@127.0.0.1", "[::1", "0x7f.1", "127.1"])
async def test_by_no_other_name_so_that_no_web_page_can_make_one_point_here(house: House, painter: ScriptedPainter, name: str) -> None:
    for method, path in (("GET", "/predictions"), ("POST", "/predictions"), ("GET", "/docs")):
        assert "not known by that name" in (await house.ask(method, path, 403, json=CAT, headers={"Host": name}))["detail"]
    assert painter.painted == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://localhost"},
        {"Origin": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
async def test_no_other_web_page_can_have_a_browser_change_anything(house: House, painter: ScriptedPainter, headers: dict[str, str]) -> None:
    told = await house.ask("POST", "/predictions", json=CAT)
    for method, path in (("POST", "/predictions"), ("PUT", "/predictions/mine"), ("POST", told["urls"]["cancel"]), ("POST", "/dream")):
        assert (await house.ask(method, path, 403, json=CAT, headers=headers))["detail"] == "Another web page may not ask for this."
    assert len(painter.painted) == 1


async def test_its_own_pages_may_and_no_answer_may_be_shown_elsewhere(house: House) -> None:
    own = {"Origin": house.address.rstrip("/"), "Sec-Fetch-Site": "same-origin"}
    told = await house.ask("POST", "/dream", json=CAT, headers=own)
    for path in ("/docs", told["urls"]["get"], told["output"]["pictures"][0]["url"], "/nothing"):
        async with house.session.get(house.address.rstrip("/") + path, headers={"Authorization": f"Bearer {ANN}"}) as answer:
            assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin" and answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; frame-ancestors 'none'")
            assert "Access-Control-Allow-Origin" not in answer.headers and "Server" not in answer.headers
            assert answer.headers["Cache-Control"] == ("private, max-age=31536000, immutable" if path.endswith(".png") else "no-store")


# How much.


async def raw(house: House, head: str, body: AsyncIterator[bytes] | None = None) -> tuple[bytes, int]:
    """Send a request as it is written, and a body piece by piece; return the answer, and how many bytes of the body were taken."""
    host, port = house.address.removeprefix("http://").rstrip("/").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    sent = 0
    try:
        writer.write(f"{head}\r\nHost: {host}:{port}\r\nAuthorization: Bearer {ANN}\r\n\r\n".encode())
        answer = asyncio.create_task(everything(reader))
        try:
            async for piece in body or nothing():
                writer.write(piece)
                await writer.drain()
                sent += len(piece)
                if answer.done():
                    break
        except ConnectionError:
            pass
        return await asyncio.wait_for(answer, PATIENCE_S), sent
    finally:
        writer.close()


async def everything(reader: asyncio.StreamReader) -> bytes:
    """Read until the other side has closed, in whichever way."""
    read = b""
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(2**16):
            read += piece
    return read


async def nothing() -> AsyncIterator[bytes]:
    return
    yield b""


async def megabytes(count: int, chunked: bool) -> AsyncIterator[bytes]:
    """Yield the beginning of a form, and zeros of a file in it."""
    for piece in (HEAD + b'name="image"; filename="a"\r\n\r\n', *itertools.repeat(bytes(2**20), count)):
        yield b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece
        await asyncio.sleep(0)


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=b"])
@pytest.mark.parametrize("path", ["/variation", "/inpaint", "/upscale", "/dream", "/predictions", "/blend", "/verify"])
async def test_a_gigabyte_is_refused_without_being_read(house: House, painter: ScriptedPainter, path: str, kind: str) -> None:
    head = f"POST {path} HTTP/1.1\r\nContent-Type: {kind}\r\nContent-Length: {GIGABYTE}"
    began = time.monotonic()
    answer, _ = await raw(house, head)
    assert answer.split(b"\r\n")[0] in (
        b"HTTP/1.1 413 Request Entity Too Large",
        b"HTTP/1.1 413 Content Too Large",
        b"HTTP/1.1 415 Unsupported Media Type",
    )
    assert time.monotonic() - began < 20 and b"connection: close" in answer.lower()
    assert painter.painted == [] and house.queue.unfinished == []


async def test_who_sends_more_than_is_taken_hears_so_and_is_not_listened_to_for_long(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.studio.guard.LINGER_S", 0.3)
    monkeypatch.setattr(bodies, "FORM_BYTES", 2**20)
    for length, chunked in ((f"Content-Length: {GIGABYTE}", False), ("Transfer-Encoding: chunked", True)):
        head = f"POST /variation HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=b\r\n{length}"
        answer, sent = await raw(house, head, megabytes(1024, chunked))
        assert b"413" in answer.split(b"\r\n")[0] and b'{"detail":"The body must have at most 1048576 bytes."}' in answer
        assert sent < GIGABYTE


async def test_who_first_sends_everything_and_then_listens_hears_the_refusal_too(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "FORM_BYTES", 2**20)
    place = URL(house.address)

    def send_and_listen() -> bytes:
        with socket.create_connection((str(place.host), place.port or 0), PATIENCE_S) as connection:
            head = f"POST /variation HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {ANN}\r\nContent-Length: {2**25}\r\n"
            connection.sendall(f"{head}Content-Type: multipart/form-data; boundary=b\r\n\r\n".encode() + bytes(2**25))
            return connection.recv(2**16)

    assert (await asyncio.to_thread(send_and_listen)).split()[1] == b"413"


async def test_a_body_that_does_not_come_is_not_waited_for(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_S", 0.2)
    monkeypatch.setattr("engine.studio.guard.LINGER_S", 0.1)
    answer, _ = await raw(house, "POST /predictions HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 100")
    assert b"408" in answer.split(b"\r\n")[0] and b"must come within" in answer


async def test_who_asks_for_work_too_often_waits_and_others_do_not(start: Open, painter: ScriptedPainter) -> None:
    async with start(studio_per_minute=3) as house:
        told = [await house.ask("POST", "/predictions", json=CAT) for _ in range(3)]
        refused = await house.ask("POST", "/dream", 429, json=CAT)
        assert refused["detail"] == "You ask for work too often. Ask again in a moment."
        # Looking is not work.
        for one in told:
            await house.ask("GET", one["urls"]["get"])
        await house.ask("POST", "/predictions", key=BOB, json=CAT)


def test_a_rate_is_made_up_for_by_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("engine.studio.keys.time.monotonic", lambda: now[0])
    rate, ann = Rate(60), Person("ann")
    assert [rate.wait_s(ann) for _ in range(60)] == [0.0] * 60
    assert rate.wait_s(ann) == pytest.approx(1.0) and rate.wait_s(Person("bob")) == 0.0
    now[0] += 0.5
    assert rate.wait_s(ann) == pytest.approx(0.5)
    now[0] += 0.5
    assert rate.wait_s(ann) == 0.0 and rate.wait_s(ann) == pytest.approx(1.0)
    now[0] += 3600
    assert [rate.wait_s(ann) for _ in range(61)] == [0.0] * 60 + [pytest.approx(1.0)]


async def test_nobody_keeps_more_than_so_many_answers_waiting(house: House, painter: ScriptedPainter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.studio.app.AT_ONCE", 2)
    painter.hold.clear()
    try:
        told = await house.take("dream", CAT["input"])
        stories = [asyncio.create_task(house.events(told)) for _ in range(2)]
        await asyncio.sleep(1)
        assert "2 requests that wait" in (await house.ask("GET", "/predictions", 429))["detail"]
        await house.ask("GET", "/predictions", key=BOB)
    finally:
        painter.hold.set()
    await asyncio.gather(*stories)
    await house.ask("GET", "/predictions")


async def test_the_line_and_its_limits_are_those_of_everybody(start: Open, painter: ScriptedPainter) -> None:
    painter.hold.clear()
    try:
        async with start(Limits(waiting=8, per_user=2, per_server=9)) as house:
            first = await house.take("dream", CAT["input"])
            await asyncio.to_thread(painter.started.wait, PATIENCE_S)
            mine = [await house.take("dream", CAT["input"]) for _ in range(4)]
            refused = await house.take("dream", CAT["input"], 429)
            assert refused["detail"].startswith("You have 5 unfinished jobs")
            # Somebody who asks in Discord is before what one person asked over HTTP beyond the first.
            discord_job = await house.queue.submit(Request("a cat", 1), Origin(123, 4))
            assert house.queue.position(discord_job) == 1
            bobs = [await house.take("dream", CAT["input"], key=BOB) for _ in range(2)]
            assert (await house.ask("GET", bobs[0]["urls"]["get"], key=BOB))["progress"]["position"] < 5
            await house.queue.submit(Request("a cat", 1), Origin(124, 4))
            assert (await house.take("dream", CAT["input"], 429, key=BOB))["detail"].startswith("8 jobs are waiting already")
            for one in (*mine, first):
                await house.ask("POST", one["urls"]["cancel"])
    finally:
        painter.hold.set()


# What cannot be read.

JSON = "application/json"
FORM = "multipart/form-data; boundary=b"
NO_JSON = "The body must be JSON in UTF-8."
NO_FORM = "The body must be a form that can be read: whole, and with no more than one file for each picture."
TWICE = "Every field must be given once only."
NO_PICTURE = "image must be a data: URL, base64, a public https address or one of your own pictures."
HEAD = b"--b\r\nContent-Disposition: form-data; "
UNREADABLE = {
    JSON: [b"", b"{", b"\xff\xfe", b"[" * 50_000, b'{"input": ' + b"9" * 5000 + b"}", b'{"input": {"prompt": "a", "cond_scale": NaN}}', b'{"a": 1,}'],
    FORM: [b"x", b"--b\r\n\r\nx\r\n--b--\r\n", HEAD + b'name="prompt"\r\n\r\n' + b"x" * 9000 + b"\r\n--b--\r\n"],
    "multipart/form-data": [b"x"],
}


@pytest.mark.parametrize(("media", "body"), [(media, body) for media, bodies in UNREADABLE.items() for body in bodies], ids=range(11))
async def test_a_body_that_cannot_be_read_is_refused_in_one_sentence(house: House, painter: ScriptedPainter, media: str, body: bytes) -> None:
    told = await house.ask("POST", "/variation", 400, data=body, headers={"Content-Type": media})
    assert told == {"detail": NO_JSON if media == JSON else NO_FORM}
    assert painter.painted == [] and (await house.ask("GET", "/predictions"))["results"] == []


EMBED: list[tuple[str, int, str]] = [
    ("[]", 422, "The body must be an object."),
    ("null", 422, "The body must be an object."),
    ("{}", 422, "input must be given, and be an object."),
    ('{"input": [1]}', 422, "input must be given, and be an object."),
    ('{"input": {"prompt": "a"}, "input": {"prompt": "b"}}', 400, TWICE),
    ('{"input": {"prompt": "a"}, "output_file_prefix": "x"}', 422, "output_file_prefix is not known here."),
    ('{"input": {"prompt": "a"}, "webhook_events_filter": "start"}', 422, "webhook_events_filter must be a valid list."),
    ('{"input": {"prompt": "a"}, "webhook": 5}', 422, "webhook must be a valid string."),
]
INPUTS: list[tuple[str, str, str]] = [
    ("/predictions", "", "prompt must be given."),
    ("/predictions", '"prompt": ""', "prompt must have at least 1 character."),
    ("/predictions", r'"prompt": " \u001c"', "prompt must hold at least one word."),
    ("/predictions", r'"prompt": "\ud83e"', "prompt must be a valid string, unable to parse raw data as a unicode string."),
    ("/predictions", f'"prompt": "{"x" * 1001}"', "prompt must have at most 1000 characters."),
    ("/predictions", '"prompt": 7', "prompt must be a valid string."),
    ("/predictions", '"prompt": "a", "cond_scale": 1e999', "cond_scale must be a finite number."),
    ("/predictions", '"prompt": "a", "candidates": true', "candidates must be a valid integer."),
    ("/predictions", '"prompt": "a", "candidates": 33', "candidates must be less than or equal to 32."),
    ("/predictions", '"prompt": "a", "candidates": "2.5"', "candidates must be a valid integer."),
    ("/predictions", '"prompt": "a", "<script>": 1', "<script> is not known here."),
    ("/predictions", r'"prompt": "a", "\ud83e": 1', "The body must be a valid string, unable to parse raw data as a unicode string."),
    ("/dream", '"prompt": "a", "count": "4"', "count must be a valid integer."),
    ("/dream", '"prompt": "a", "count": 2.5', "count must be a valid integer."),
    ("/dream", '"prompt": "a", "seed": 4294967296', "seed must be less than 4294967296."),
    ("/dream", '"prompt": "a", "preset": "x"', "preset must be 'fast', 'balanced' or 'best'."),
    ("/dream", '"prompt": "a", "image": "aGk="', "image is not known here."),
    ("/inpaint", '"image": "aGk=", "prompt": "a", "region": "x"', "region must be 'left', 'right', 'top', 'bottom', 'centre' or 'background'."),
    ("/variation", '"image": "!"', NO_PICTURE),
    ("/variation", '"image": "file:///etc/passwd"', NO_PICTURE),
    ("/variation", '"image": "sha256:00"', NO_PICTURE),
    ("/variation", '"image": "data:image/png,abc"', "image must be in base64, in a data: URL too."),
    ("/variation", '"image": 5', "image must be a valid string."),
]
FORMS: list[tuple[bytes, str]] = [
    (b"", "image must be given."),
    ((HEAD + b'name="count"\r\n\r\n2\r\n') * 2, TWICE),
    ((HEAD + b'name="image"; filename="a"\r\n\r\n2\r\n') * 2, TWICE),
    (HEAD + b'name="prompt"; filename="a"\r\n\r\n2\r\n', "Only image and mask may be files."),
    (HEAD + b'name="image"\r\n\r\n!\r\n', NO_PICTURE),
]


@pytest.mark.parametrize(
    ("path", "media", "body", "status", "says"),
    [
        *(("/predictions", JSON, body, status, says) for body, status, says in EMBED),
        *((path, JSON, f'{{"input": {{{fields}}}}}', 422, says) for path, fields, says in INPUTS),
        *(("/variation", FORM, body + b"--b--\r\n", 422, says) for body, says in FORMS),
        ("/predictions", "text/plain", "a cat", 415, "The body must be application/json."),
        ("/dream", FORM, b"--b--\r\n", 415, "The body must be application/json."),
        ("/variation", "", b"", 415, "The body must be application/json or multipart/form-data."),
    ],
    ids=range(len(EMBED) + len(INPUTS) + len(FORMS) + 3),
)
async def test_a_field_that_is_wrong_is_named_in_one_sentence(
    house: House, painter: ScriptedPainter, path: str, media: str, body: str | bytes, status: int, says: str
) -> None:
    sent = body.encode() if isinstance(body, str) else body
    assert await house.ask("POST", path, status, data=sent, headers={"Content-Type": media}) == {"detail": says}
    assert painter.painted == [] and (await house.ask("GET", "/predictions"))["results"] == []


@pytest.mark.parametrize(
    ("method", "path", "status", "says"),
    [
        ("GET", "/nothing", 404, "There is nothing at this address. /docs says what is where."),
        ("GET", "/pictures/../../etc/passwd", 404, "There is nothing at this address."),
        ("GET", "/pictures/%2e%2e%2f%2e%2e/0.png", 404, "There is nothing at this address."),
        ("GET", "/pictures/a%00b/0.png", 422, "id must match pattern"),
        ("GET", "/pictures/abc/32.png", 422, "position must be less than 32."),
        ("GET", "/pictures/abc/-1.png", 422, "position must be greater than or equal to 0."),
        ("GET", "/predictions/" + "x" * 65, 422, "id must match pattern"),
        ("GET", "/predictions/unknown", 404, "There is no prediction of this id."),
        ("GET", "/predictions?limit=0", 422, "limit must be greater than or equal to 1."),
        ("GET", f"/predictions?before={2**63}", 422, "before must be less than or equal to"),
        ("DELETE", "/predictions", 405, "This address takes GET and POST only."),
        ("GET", "/dream", 405, "This address takes POST only."),
        ("PATCH", "/predictions/x", 405, "This address takes DELETE and GET and PUT only."),
    ],
)
async def test_addresses_that_lead_nowhere_say_so(house: House, method: str, path: str, status: int, says: str) -> None:

    async with house.session.request(
        method, URL(house.address.rstrip("/") + path, encoded=True), headers={"Authorization": f"Bearer {ANN}"}
    ) as answer:
        told = await answer.json()
        assert (answer.status, told["detail"][: len(says)]) == (status, says)
        if status == 405:
            assert set(answer.headers["Allow"].split(", ")) == set(says.removeprefix("This address takes ").removesuffix(" only.").split(" and "))


async def test_what_breaks_in_here_is_told_by_a_reference_and_nothing_else(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object) -> None:
        raise ZeroDivisionError("/secret/path")

    monkeypatch.setattr(house.queue, "submit", fail)
    told = (await house.ask("POST", "/predictions", 500, json=CAT))["detail"]
    reference = told.rstrip(".").rpartition(" ")[2]
    assert told.startswith("Something broke here") and "secret" not in told
    assert any(reference in record.getMessage() and record.exc_info for record in caplog.records)
    assert await house.ask("GET", "/health-check") == {"status": "READY"}


def test_every_sentence_is_one_and_can_be_said() -> None:
    for kind, text in SENTENCES.items():
        error = kind.__new__(kind)
        vars(error).update(limit=5, reference="abc")
        assert sentence(error) == text.format(limit=5, reference="abc") and text.endswith(".")


async def test_prompts_and_keys_are_in_no_log(house: House, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    await house.ask("POST", "/predictions", json={"input": {"prompt": "a hush-hush cat"}})
    await house.ask("POST", "/predictions", 422, json={"input": {"prompt": "a hush-hush cat", "seed": -1}})
    ours = [record for record in caplog.records if not record.name.startswith(("aiosqlite", "asyncio"))]
    assert not any("hush" in record.getMessage() or ANN in record.getMessage() for record in ours)


async def test_the_model_may_still_be_loading(start: Open) -> None:
    async with start(working=False) as house:
        assert await house.ask("GET", "/health-check") == {"status": "STARTING"}
        told: dict[str, Any] = await house.take("dream", CAT["input"])
        assert told["status"] == "starting" and told["progress"]["eta_s"] is None
        async with aiohttp.ClientSession() as session, session.get(f"{house.address}docs") as answer:
            told = await answer.text()
            assert "POST /dream" in told and "/pictures/{id}/{position}/post" in told and "with_prompt" in told
