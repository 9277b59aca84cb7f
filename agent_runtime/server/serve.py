"""Serves agents until a signal: bind the port, open the agents, serve, register; on exit the reverse."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import uvicorn

from agent_runtime.agent_file import AgentFile
from agent_runtime.config import ServerConfig
from agent_runtime.errors import MyAgentError, StartError
from agent_runtime.masking import LOG_MASK
from agent_runtime.models import preload
from agent_runtime.observability import Telemetry
from agent_runtime.server.host import AgentHost, Overrides
from agent_runtime.tls import port_tls
from discovery.contract import is_loopback
from infrastructure.heads import bounded_heads

_log = logging.getLogger(__name__)

COLLECT_AFTER = (20_000, 50, 100)
"""Python's default thresholds (700, 10, 10) suit small programs. With hundreds of runs in progress, the collector would
scan their objects again and again, which was a fifth of the CPU of a request."""
GRACEFUL_SECONDS = 5  # below the 10 s that a container has between SIGTERM and SIGKILL


def run(serving: Coroutine[Any, Any, None]) -> None:
    """Run `serve` to its end, on uvloop if the platform has it."""
    with asyncio.Runner(loop_factory=uvicorn.Config("", loop="auto", log_config=None).get_loop_factory()) as runner:
        runner.run(serving)


async def serve(
    files: Sequence[AgentFile],
    *,
    shared: bool = False,
    allow_anonymous: bool = False,
    reload: bool = False,
    overrides: Overrides | None = None,
    telemetry: Telemetry | None = None,
) -> None:
    """Serve agents until SIGINT or SIGTERM.

    With `shared`, each agent is served below `/NAME/` on the port in `overrides`, and one that cannot be opened is
    logged and left out. With `reload`, an agent is replaced when its file is edited.

    Raises:
        StartError: the port is in use, no agent can be opened, one would be accessible without authentication, or a
            certificate is invalid.
    """
    server = ServerConfig.model_validate((overrides or {}).get("server", {})) if shared else files[0].config.server
    for file in files:
        _check_access(file, server, allow_anonymous=allow_anonymous)
    gc.set_threshold(*COLLECT_AFTER)
    stop = _Stop()
    tls = await port_tls(server.tls, files[0].folder)
    with _bound(server.host, server.port) as listener:
        port: int = listener.getsockname()[1]
        async with AgentHost(port=port, shared=shared, overrides=overrides or {}, telemetry=telemetry) as host:
            await _open(host, files, shared=shared)
            config = uvicorn.Config(
                host,
                log_config=None,
                access_log=False,
                lifespan="on",
                server_header=False,
                timeout_graceful_shutdown=GRACEFUL_SECONDS,
                **bounded_heads(max(file.config.server.limits.max_header_bytes for file in files)),
                **(tls.options if tls else {}),
            )
            uvicorn_server = _Server(config, lambda: _ready(host, server, port, telemetry, shared=shared))
            stop.on_signal(lambda: setattr(uvicorn_server, "should_exit", True))
            watcher = asyncio.create_task(host.watch()) if reload else None
            try:
                await uvicorn_server.serve(sockets=[listener])
            finally:
                if watcher:
                    watcher.cancel()


async def _open(host: AgentHost, files: Sequence[AgentFile], *, shared: bool) -> None:
    if not shared:
        await host.add(files[0])
        return
    outcomes = await asyncio.gather(*(host.add(file) for file in files), return_exceptions=True)
    for file, outcome in zip(files, outcomes, strict=True):
        if isinstance(outcome, MyAgentError):
            _log.error("%s cannot be opened and is not served: %s", file.path, outcome)
        elif isinstance(outcome, BaseException):
            raise outcome
    if not host.agents:
        raise StartError("none of the agents could be started; see the errors above")


def _check_access(file: AgentFile, server: ServerConfig, *, allow_anonymous: bool) -> None:
    if file.config.server.tls != server.tls:
        raise StartError(
            f"{file.path} has server.tls, but several agents share the port: remove it from the file, and use "
            "--tls-certificate and --tls-key for all of them"
        )
    if is_loopback(server.host) or file.config.server.asks or allow_anonymous:
        return
    raise StartError(
        f"{server.host} can be reached from other machines and server.api_keys of {file.path} is empty: add a key, "
        "listen on 127.0.0.1, or start with --allow-anonymous if a proxy authenticates callers"
    )


@contextmanager
def _bound(host: str, port: int) -> Generator[socket.socket]:
    """Bind the port first, so that a port in use is reported before a model is loaded.

    Clients that connect while the agent is being opened wait for it instead of being refused.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise StartError(f"server.host {host} is not an address of this machine: {error.strerror}") from error
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen()  # two processes that start at once may both bind; only one can listen
        except OSError as error:
            raise StartError(
                f"port {port} on {host} is not available ({error.strerror}); choose another one with --port"
            ) from error
        yield listener


class _Stop:
    """Handles SIGINT and SIGTERM: cancels the start-up, and later stops the server."""

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._stop: Callable[[], object] = task.cancel
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, lambda: self._stop())

    def on_signal(self, stop: Callable[[], object]) -> None:
        self._stop = stop


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield  # keep our handlers: uvicorn's would end the process before the agent is closed


def _ready(host: AgentHost, server: ServerConfig, port: int, telemetry: Telemetry | None, *, shared: bool) -> None:
    models = [agent.config.model for agent in host.agents]
    asyncio.get_running_loop().run_in_executor(None, preload, models)  # before the first request
    if telemetry:
        asyncio.get_running_loop().run_in_executor(None, telemetry.load)
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(server.host, server.host)
    scheme = "https" if server.tls else "http"
    for agent in host.agents:
        path = f"/{agent.config.name}" if shared else ""
        ready = f"{agent.config.name} answers at {scheme}://{shown}:{port}{path} with {agent.model_label}"
        print(LOG_MASK(ready), flush=True)
