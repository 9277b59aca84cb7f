"""Serve agents until a signal says stop: bind, open, answer, announce, and all of it back in reverse."""

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
from agent_runtime.server.host import Fleet, Overrides
from agent_runtime.tls import port_tls
from discovery.contract import is_loopback
from infrastructure.heads import bounded_heads

_log = logging.getLogger(__name__)

COLLECT_AFTER = (20_000, 50, 100)
"""Python's own 700, 10, 10 are for small programs: what hundreds of runs under way hold would be looked through over
and over, and none of it is garbage before its run is over. That was a fifth of a request's CPU."""
GRACEFUL_SECONDS = 5  # below the ten seconds that a container is given between SIGTERM and SIGKILL


def run(serving: Coroutine[Any, Any, None]) -> None:
    """Run `serve` to its end, on uvloop where the platform has it."""
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
    """Serve agents until SIGINT or SIGTERM: one as its file says, several that are `shared` under their names.

    Where several share a port, `overrides` say which; an agent that cannot be opened is then reported and left out.
    With `reload` an edited file is swapped in.

    Raises:
        StartError: the port is taken, no agent can be opened, one would be open to everybody, or a certificate
            cannot be used.
    """
    server = ServerConfig.model_validate((overrides or {}).get("server", {})) if shared else files[0].config.server
    for file in files:
        _check_door(file, server, allow_anonymous=allow_anonymous)
    gc.set_threshold(*COLLECT_AFTER)
    stop = _Stop()
    tls = await port_tls(server, files[0].folder)
    with _bound(server.host, server.port) as listener:
        port: int = listener.getsockname()[1]
        async with Fleet(port=port, shared=shared, overrides=overrides or {}, telemetry=telemetry) as fleet:
            await _open(fleet, files, shared=shared)
            config = uvicorn.Config(
                fleet,
                log_config=None,
                access_log=False,
                lifespan="on",
                server_header=False,
                timeout_graceful_shutdown=GRACEFUL_SECONDS,
                **bounded_heads(max(file.config.server.limits.max_header_bytes for file in files)),
                **(tls.options if tls else {}),
            )
            uvicorn_server = _Server(config, lambda: _ready(fleet, server, port, telemetry, shared=shared))
            stop.then(lambda: setattr(uvicorn_server, "should_exit", True))
            watching = asyncio.create_task(fleet.watch()) if reload else None
            try:
                await uvicorn_server.serve(sockets=[listener])
            finally:
                if watching:
                    watching.cancel()


async def _open(fleet: Fleet, files: Sequence[AgentFile], *, shared: bool) -> None:
    if not shared:
        await fleet.add(files[0])
        return
    outcomes = await asyncio.gather(*(fleet.add(file) for file in files), return_exceptions=True)
    for file, outcome in zip(files, outcomes, strict=True):
        if isinstance(outcome, MyAgentError):
            _log.error("%s is left out: %s", file.path, outcome)
        elif isinstance(outcome, BaseException):
            raise outcome
    if not fleet.agents:
        raise StartError("none of the agents could be started; the lines above say why")


def _check_door(file: AgentFile, server: ServerConfig, *, allow_anonymous: bool) -> None:
    if file.config.server.tls != server.tls:
        raise StartError(
            f"{file.path} has server.tls, and several agents share a port: give --tls-certificate and --tls-key, "
            "which are for all of them, and leave it out of the file"
        )
    if is_loopback(server.host) or file.config.server.asks or allow_anonymous:
        return
    raise StartError(
        f"{server.host} can be reached from other machines and server.api_keys of {file.path} is empty: add a key, "
        "listen on 127.0.0.1, or start with --allow-anonymous if a proxy in front does the asking"
    )


@contextmanager
def _bound(host: str, port: int) -> Generator[socket.socket]:
    """A socket that has the port already, so that a taken one is known before a model is loaded.

    Whoever asks while the agent is opened waits for it, instead of being turned away.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise StartError(f"server.host {host} is no address of this machine: {error.strerror}") from error
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen()  # only now it is ours alone: two that start at once may both bind
        except OSError as error:
            raise StartError(
                f"port {port} on {host} cannot be used ({error.strerror}); choose another with --port"
            ) from error
        yield listener


class _Stop:
    """What SIGINT and SIGTERM do: end the start-up at first, and the server once there is one."""

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._stop: Callable[[], object] = task.cancel
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, lambda: self._stop())

    def then(self, stop: Callable[[], object]) -> None:
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
        yield  # ours stay: uvicorn's would end the process before the agent is closed


def _ready(fleet: Fleet, server: ServerConfig, port: int, telemetry: Telemetry | None, *, shared: bool) -> None:
    models = [agent.config.model for agent in fleet.agents]
    asyncio.get_running_loop().run_in_executor(None, preload, models)  # while nobody has asked yet
    if telemetry:
        asyncio.get_running_loop().run_in_executor(None, telemetry.load)
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(server.host, server.host)
    scheme = "https" if server.tls else "http"
    for agent in fleet.agents:
        path = f"/{agent.config.name}" if shared else ""
        ready = f"{agent.config.name} answers at {scheme}://{shown}:{port}{path} with {agent.model_label}"
        print(LOG_MASK(ready), flush=True)
