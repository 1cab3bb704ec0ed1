"""A file server on this machine that can misbehave: cut connections, lie about sizes, change files, answer with pages."""

import contextlib
import hashlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Shelf:
    """What the server does. `files` are its paths and contents; the rest is how it goes wrong, for all of them."""

    files: dict[str, bytes]
    cut_after: list[int] = field(default_factory=list)
    length: int | None = None
    with_ranges: bool = True
    with_etag: bool = True
    status: int = 200
    kind: str = "application/octet-stream"
    redirect: str | None = None
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    address: str = ""

    def etag(self, content: bytes) -> str:
        return f'"{hashlib.md5(content).hexdigest()}"'


def damaged(content: bytes) -> bytes:
    """Return a content whose last byte is another one, whatever it was."""
    return content[:-1] + bytes([content[-1] ^ 1])


@contextlib.contextmanager
def serving(shelf: Shelf) -> Iterator[str]:
    """Serve a shelf and give its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            shelf.asked.append((self.path, self.headers.get("Range")))
            if shelf.redirect is not None:
                self.answer(302, b"", {"Location": shelf.redirect})
                return
            content = shelf.files.get(self.path.split("?")[0])
            if content is None:
                self.answer(404, b"none")
                return
            if shelf.status != 200:
                self.answer(shelf.status, b"no")
                return
            headers = {"ETag": shelf.etag(content)} if shelf.with_etag else {}
            wanted = self.headers.get("Range")
            if wanted and shelf.with_ranges and self.headers.get("If-Range") == headers.get("ETag"):
                start = int(wanted.removeprefix("bytes=").rstrip("-"))
                self.answer(206, content[start:], headers | {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"})
            else:
                self.answer(200, content, headers)

        def answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for key, value in (headers or {}).items():
                self.send_header(key, value)
            self.send_header("Content-Type", shelf.kind)
            self.send_header("Content-Length", str(len(content) if shelf.length is None else shelf.length))
            self.send_header("Connection", "close")
            self.end_headers()
            cut = shelf.cut_after.pop(0) if shelf.cut_after and status in (200, 206) else len(content)
            self.wfile.write(content[:cut])
            self.close_connection = True

        def log_message(self, *ignored: object) -> None:
            """Say nothing."""

    with listening(Handler) as shelf.address:
        yield shelf.address


@contextlib.contextmanager
def listening(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    """Answer requests on any free port of this machine and give the address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
