"""Pictures at other people's addresses: only what is on the internet is looked at, however an address is written."""

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from engine.studio import fetching
from engine.studio.fetching import Fetcher, is_public
from engine.studio.refusals import BadPicture
from tests.conftest import ScriptedPainter, png
from tests.engine.studio.conftest import House, Open

HERE = "127.0.0.1"
UNANSWERED = "image must be at a public https address that answers with a picture; this one is not, or does not"


@pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "93.184.216.34", "2606:4700:4700::1111", "2a00:1450:4001:81b::200e"])
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.9.1", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
        *("192.0.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255"),
        *("::1", "::", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1"),
        *("64:ff9b::7f00:1", "64:ff9b:1::1", "2002:7f00:1::", "2001::1", "2001:db8::1", "3fff::1", "100::1", "fec0::1"),
    ],
)
def test_addresses_of_this_machine_and_of_its_networks_are_not(address: str) -> None:
    assert not is_public(address)


@given(st.ip_addresses(v=4))
def test_nothing_that_python_calls_private_is_public(address: ipaddress.IPv4Address) -> None:
    if address.is_private or address.is_loopback or address.is_link_local or address.is_multicast or address.is_reserved:
        assert not is_public(str(address)) and not is_public(f"::ffff:{address}")


class Site:
    """Somebody's web server; `answer` is what it does."""

    def __init__(self) -> None:
        self.port = 0
        self.asked: list[str] = []
        self.answer: Callable[[web.Request], web.StreamResponse] = lambda request: web.Response(body=png((1, 2, 3)))

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        if request.path == "/slow":
            await asyncio.sleep(60)
        return self.answer(request)

    def at(self, path: str = "/a.png", host: str = HERE) -> str:
        return f"http://{host}:{self.port}{path}"

    def fetcher(self, allows: Callable[[str], bool] = lambda address: True) -> Fetcher:
        return Fetcher(allows, "http", self.port)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    serving = Site()
    app = web.Application()
    app.router.add_get("/{path:.*}", serving.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, HERE, 0).start()
    serving.port = runner.addresses[0][1]
    yield serving
    await runner.cleanup()


async def refused(fetcher: Fetcher, address: str) -> str:
    with pytest.raises(BadPicture) as refusal:
        await fetcher.fetch(address)
    return str(refusal.value)


async def test_a_picture_is_fetched_and_redirects_are_followed_to_public_places(site: Site) -> None:
    assert await site.fetcher().fetch(site.at()) == png((1, 2, 3))
    site.answer = lambda request: web.Response(status=302, headers={"Location": "/b.png"}) if request.path == "/a.png" else web.Response(body=b"b")
    assert await site.fetcher().fetch(site.at()) == b"b" and site.asked == ["/a.png", "/a.png", "/b.png"]
    site.answer = lambda request: web.Response(status=301, headers={"Location": "/a.png"})
    assert "more than 3 times" in await refused(site.fetcher(), site.at())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1", "0"])
async def test_nothing_of_this_machine_is_asked_however_it_is_written(site: Site, host: str) -> None:
    assert await refused(site.fetcher(is_public), site.at(host=host)) == UNANSWERED
    assert site.asked == []


async def test_the_address_that_is_connected_to_is_the_one_that_is_checked_at_redirects_too(site: Site) -> None:
    checked = []

    def allows_once(address: str) -> bool:
        checked.append(address)
        return len(checked) == 1

    site.answer = lambda request: web.Response(status=307, headers={"Location": site.at("/secret", "localhost")})
    assert await refused(site.fetcher(allows_once), site.at()) == UNANSWERED
    assert site.asked == ["/a.png"] and set(checked) <= {HERE, "::1"}


@pytest.mark.parametrize(
    ("address", "says"),
    [
        *((address, "without a port, name or password in it") for address in (
            "http://example.com/a.png", "https://example.com:8443/a.png", "https://example.com:80/", "https://ann:secret@example.com/a.png",
            "https://ann@example.com/", "file:///etc/passwd", "ftp://example.com/a", "gopher://example.com", "/a.png", "", "https://",
        )),
        *((address, "this one is not, or does not") for address in ("https://[::1", "https://example.com:99999/", "https://" + "a" * 300)),
        ("https://" + "a" * 3000, "at most 2000 characters"),
    ],
)  # fmt: skip
async def test_only_plain_https_is_asked(address: str, says: str) -> None:
    def never(address: str) -> bool:
        pytest.fail(f"{address} is connected to")

    assert says in await refused(Fetcher(never), address)


async def test_what_is_too_large_too_slow_or_no_answer_is_let_go(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "LIMIT_BYTES", 10_000)
    monkeypatch.setattr(fetching, "FETCH_S", 1.0)
    fetcher = site.fetcher()

    site.answer = lambda request: web.Response(body=bytes(10_001))
    assert "MB large" in await refused(fetcher, site.at())
    site.answer = lambda request: web.Response(status=404, text="the secret of this network")
    said = await refused(fetcher, site.at())
    assert said == UNANSWERED
    assert await refused(fetcher, site.at("/slow")) == said
    assert await refused(Fetcher(lambda address: True, "http", 9), "http://127.0.0.1:9/") == said


async def test_what_is_packed_is_not_unpacked(site: Site) -> None:
    def packed(request: web.Request) -> web.StreamResponse:
        assert request.headers["Accept-Encoding"] == "identity" and "Cookie" not in request.headers
        return web.Response(body=b"not gzip at all", headers={"Content-Encoding": "gzip"})

    site.answer = packed
    assert await site.fetcher().fetch(site.at()) == b"not gzip at all"


async def test_an_address_stands_for_the_picture_that_is_there(start: Open, painter: ScriptedPainter, site: Site) -> None:
    # The app hands over https only; here the fetcher speaks http.
    class Here(Fetcher):
        async def fetch(self, address: str) -> bytes:
            return await super().fetch(address.replace("https://example.com/", site.at("/")))

    async with start(fetcher=Here(lambda address: True, "http", site.port)) as house:
        told = await house.ask("POST", "/variation", json={"input": {"image": "https://example.com/a.png"}})
        assert told["status"] == "succeeded" and told["input"] == {"image": "https://example.com/a.png"}
        assert painter.painted[0].image is not None and site.asked == ["/a.png"]
        site.answer = lambda request: web.Response(text="<html>")
        assert "picture must be a PNG" in (await house.ask("POST", "/upscale", 422, json={"input": {"image": "https://example.com/a"}}))["detail"]
    async with start() as house:
        await nothing_of_this_machine(house, site)


async def nothing_of_this_machine(house: House, site: Site) -> None:
    before = list(site.asked)
    for address in (f"https://127.0.0.1:{site.port}/", "https://localhost/", "https://[::1]/", "http://169.254.169.254/latest/meta-data"):
        told = await house.ask("POST", "/variation", 422, json={"input": {"image": address}})
        assert told["detail"].startswith("image must be at a public https address")
    assert site.asked == before
