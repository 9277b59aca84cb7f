"""A model hub on loopback: the routes that the hub's library uses, over real HTTP."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REPO = "someone/tiny-model-GGUF"
COMMIT = "1" * 40


class Hub:
    """Serves `files` of one repository, with the checksums of `stated` where that is given.

    With `break_after`, the next download is cut after so many bytes, and the one after it gets the status `then`.
    """

    def __init__(self, files: Mapping[str, bytes], *, stated: Mapping[str, bytes] | None = None) -> None:
        self.files = dict(files)
        self.stated = {name: hashlib.sha256((stated or files)[name]).hexdigest() for name in files}
        self.asked: list[str] = []
        self.break_after: int | None = None
        self.then = 200
        self.url = ""

    def listing(self) -> dict[str, object]:
        siblings = [
            {
                "rfilename": name,
                "size": len(data),
                "lfs": {"sha256": self.stated[name], "size": len(data), "pointerSize": 1},
            }
            for name, data in self.files.items()
        ]
        return {"id": REPO, "sha": COMMIT, "private": False, "tags": [], "downloads": 0, "siblings": siblings}


class Server(ThreadingHTTPServer):
    def __init__(self, hub: Hub) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.hub = hub
        self.broken = False


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        return None

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub, path = self.server.hub, self.path.split("?")[0]
        hub.asked.append(f"{self.command} {path}")
        name = path.removeprefix(f"/{REPO}/resolve/main/")
        if path == f"/api/models/{REPO}":
            self._send(200, json.dumps(hub.listing()).encode(), {"Content-Type": "application/json"})
        elif name in hub.files:
            self._file(name)
        else:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def _file(self, name: str) -> None:
        hub, data = self.server.hub, self.server.hub.files[name]
        headers = {"ETag": f'"{hub.stated[name]}"', "X-Repo-Commit": COMMIT}
        if self.command == "GET" and self.server.broken and hub.then != 200:
            self._send(hub.then, b"{}", {})
        elif self.command == "GET" and hub.break_after is not None:
            cut, hub.break_after, self.server.broken = hub.break_after, None, True
            self._send(200, data, headers, sent=cut)
            self.close_connection = True
        elif self.headers["Range"]:
            start = int(self.headers["Range"].removeprefix("bytes=").split("-")[0])
            self._send(206, data[start:], headers | {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"})
        else:
            self._send(200, data, headers)

    def _send(self, status: int, data: bytes, headers: Mapping[str, str], *, sent: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data[:sent])


@contextmanager
def running(hub: Hub) -> Iterator[Hub]:
    """The hub on a port of its own, whose address is then in `hub.url`."""
    with Server(hub) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        hub.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join(5)
