"""A real uvicorn for a test: on a port of its own, ready when the block begins, gone when it ends."""

import asyncio
import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.settled = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        finally:
            self.settled.set()

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield  # signals are the test runner's


@asynccontextmanager
async def serve(app: Any, *, host: str = "127.0.0.1", port: int = 0, **config: Any) -> AsyncGenerator[str]:
    """Serve an ASGI application and yield its base URL, like http://127.0.0.1:40123."""
    options = {"log_config": None, "access_log": False, "timeout_graceful_shutdown": 1, "lifespan": "auto"} | config
    # The protocol is named because asyncio leaves Nagle's algorithm on where it is 0: 40 ms a request.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        server = _Server(uvicorn.Config(app, **options))
        serving = asyncio.create_task(server.serve(sockets=[listener]), name="test-server")
        settled = asyncio.create_task(server.settled.wait())
        try:
            async with asyncio.timeout(10):
                # A start-up that fails ends the server, and must not leave the test waiting.
                await asyncio.wait({settled, serving}, return_when=asyncio.FIRST_COMPLETED)
            if not server.started:
                raise RuntimeError("the application did not start; the log says why")
            scheme = "https" if server.config.is_ssl else "http"
            yield f"{scheme}://{host}:{listener.getsockname()[1]}"
        finally:
            settled.cancel()
            server.should_exit = True
            async with asyncio.timeout(10):
                await serving
