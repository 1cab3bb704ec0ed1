"""As much of the Hub on this machine as its client needs to fetch a file."""

import contextlib
import hashlib
import http.server
from collections.abc import Iterator

from tests.engine.fileserver import Shelf, damaged, listening

COMMIT = "0" * 39 + "1"


@contextlib.contextmanager
def serving_hub(shelf: Shelf) -> Iterator[str]:
    """Serve a shelf's files as the repository laion/model; large ones as LFS has them. Of the kind "lying", contents are not their checksums'."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            shelf.asked.append((self.path, self.headers.get("Range")))
            start, _, name = self.path.split("?")[0].rpartition("/")
            content = shelf.files.get(name)
            if content is None or not start.startswith("/laion/model/resolve/"):
                self.answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found", "X-Repo-Commit": COMMIT})
                return
            large = not name.endswith(".json")
            etag = hashlib.sha256(content).hexdigest() if large else hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            if shelf.kind == "lying":
                content = damaged(content)
            headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
            self.answer(200, content, headers | ({"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(content))} if large else {}))

        def answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *ignored: object) -> None:
            """Say nothing."""

    with listening(Handler) as shelf.address:
        yield shelf.address
