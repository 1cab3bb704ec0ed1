"""Files at other people's addresses, fetched so that nobody can make this machine look where only it may (SSRF).

The address that is connected to is checked when it is connected to, after the name was looked up and at every redirect: there is no time between
the check and the use in which a name could come to mean something else.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Callable
from typing import Any

import aiohttp
import yarl

from engine.studio.refusals import BadPicture
from engine.uploads import LIMIT_BYTES

FETCH_S = 20.0
"""For all of it: looking the name up, redirects, every byte."""
REDIRECTS = 3
CHUNK_BYTES = 1 << 16
ADDRESS_LIMIT = 2000
"""Characters."""
MOVED = (301, 302, 303, 307, 308)
GLOBAL_V6 = ipaddress.ip_network("2000::/3")
OTHERS_V6 = [ipaddress.ip_network(block) for block in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")]
"""What of it leads elsewhere: Teredo and other protocols, examples, IPv4 in disguise (6to4), examples."""


def is_public(address: str) -> bool:
    """Tell whether an address, in numbers, is one of the internet."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        return ip in GLOBAL_V6 and not any(ip in block for block in OTHERS_V6)
    return ip.is_global and not ip.is_multicast


class Fetcher:
    """Fetches files. `allows` tells of an address in numbers whether it may be connected to; `scheme` and `port` are the only ones that are asked."""

    def __init__(self, allows: Callable[[str], bool] = is_public, scheme: str = "https", port: int = 443) -> None:
        self._allows = allows
        self._scheme = scheme
        self._port = port

    async def fetch(self, address: str) -> bytes:
        """Return the file at an address.

        Raises:
            BadPicture: it is no address of the internet, or what is there cannot be had, or is too large.
        """
        try:
            async with asyncio.timeout(FETCH_S), self._session() as session:
                url = self._checked(address)
                for _ in range(REDIRECTS + 1):
                    async with session.get(url, allow_redirects=False) as answer:
                        if answer.status not in MOVED:
                            return await content(answer)
                        url = self._checked(str(url.join(yarl.URL(answer.headers.get("Location", "")))))
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            # How it failed would tell what is where in networks that only this machine sees, and which names mean something there.
            raise unanswered() from None
        raise BadPicture("image", "be at an address that does not lead to another one more than {most} times", most=REDIRECTS)

    def _checked(self, address: str) -> yarl.URL:
        """Read an address.

        Raises:
            BadPicture: it is none that is fetched from.
            ValueError: it is none at all.
        """
        if len(address) > ADDRESS_LIMIT:
            raise BadPicture("image", "be at an address of at most {most} characters", most=ADDRESS_LIMIT)
        url = yarl.URL(address)
        if url.scheme != self._scheme or not url.host or url.port != self._port or url.user is not None or url.password is not None:
            raise BadPicture("image", "be at a public https address, without a port, name or password in it")
        return url

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(socket_factory=self._socket, use_dns_cache=False, force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "Reverie", "Accept": "image/*", "Accept-Encoding": "identity"},
            # What is small when it comes may be large when it is unpacked.
            auto_decompress=False,
            trust_env=False,
        )

    def _socket(self, found: tuple[Any, ...]) -> socket.socket:
        """Make the socket for a connection to an address that a name was found to mean.

        Raises:
            OSError: nobody may be connected to there.
        """
        family, kind, protocol, _, address = found
        if not self._allows(address[0]):
            raise OSError("not public")
        return socket.socket(family, kind, protocol)


def unanswered() -> BadPicture:
    """Return what is said of an address that no picture comes from, whyever."""
    return BadPicture("image", "be at a public https address that answers with a picture; this one is not, or does not")


async def content(answer: aiohttp.ClientResponse) -> bytes:
    """Read what a server answers with.

    Raises:
        BadPicture: it is a refusal, or too much.
    """
    if answer.status != 200:
        raise unanswered()
    read = bytearray()
    async for chunk in answer.content.iter_chunked(CHUNK_BYTES):
        read += chunk
        if len(read) > LIMIT_BYTES:
            raise BadPicture("image", "be at most {most} MB large", most=LIMIT_BYTES // 2**20)
    return bytes(read)
