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
    """Serves `files` of one repository. `break_after` cuts the first download there, `then` is what later ones get."""

    def __init__(self, files: Mapping[str, bytes], *, stated: Mapping[str, bytes] | None = None) -> None:
        self.files = dict(files)
        self.stated = {name: hashlib.sha256((stated or files)[name]).hexdigest() for name in files}
        self.asked: list[str] = []
        self.break_after: int | None = None
        self.then = 206
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
        return {
            "id": REPO,
            "modelId": REPO,
            "sha": COMMIT,
            "private": False,
            "tags": [],
            "downloads": 0,
            "siblings": siblings,
        }


@contextmanager
def running(hub: Hub) -> Iterator[Hub]:
    """The hub on a port of its own, whose address is then in `hub.url`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            return None

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            path = self.path.split("?")[0]
            hub.asked.append(f"{self.command} {path}")
            name = path.removeprefix(f"/{REPO}/resolve/main/")
            if path == f"/api/models/{REPO}":
                self._send(200, json.dumps(hub.listing()).encode(), {"Content-Type": "application/json"}, body)
            elif name in hub.files:
                self._file(name, body)
            else:
                self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body)

        def _file(self, name: str, body: bool) -> None:
            data = hub.files[name]
            start = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").split("-")[0])
            headers = {"ETag": f'"{hub.stated[name]}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
            if start and hub.then != 206:
                self._send(hub.then, b"{}", {}, body)
            elif body and hub.break_after is not None:
                cut, hub.break_after = hub.break_after, None
                self._send(200, data, headers, body, sent=cut)
                self.close_connection = True
            else:
                span = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
                self._send(206 if start else 200, data[start:], headers | span, body)

        def _send(
            self, status: int, data: bytes, headers: Mapping[str, str], body: bool, *, sent: int | None = None
        ) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if body:
                self.wfile.write(data[:sent])

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join(5)
        server.server_close()
