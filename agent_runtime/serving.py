"""Serve one agent until a signal says stop: bind, open, answer, announce, and all of it back in reverse."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager

import uvicorn

from agent_runtime.agent import Agent
from agent_runtime.errors import StartError
from agent_runtime.loading import AgentFile
from agent_runtime.server import create_app
from discovery.contract import is_loopback

_log = logging.getLogger(__name__)

GRACEFUL_SECONDS = 5  # below the ten seconds that a container is given between SIGTERM and SIGKILL


async def serve(file: AgentFile, *, allow_anonymous: bool = False) -> None:
    """Serve an agent until SIGINT or SIGTERM.

    Raises:
        StartError: the port is taken, a part of the agent cannot be opened, or it would be open to everybody.
    """
    _check_door(file, allow_anonymous=allow_anonymous)
    stop = _Stop()
    with _bound(file.config.server.host, file.config.server.port) as listener:
        port: int = listener.getsockname()[1]
        async with Agent(file) as agent:
            app = create_app(agent, port=port)
            config = uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="on",
                server_header=False,
                timeout_graceful_shutdown=GRACEFUL_SECONDS,
            )
            server = _Server(config, lambda: _print_ready(agent, port))
            stop.then(lambda: setattr(server, "should_exit", True))
            await server.serve(sockets=[listener])


def _check_door(file: AgentFile, *, allow_anonymous: bool) -> None:
    server = file.config.server
    if is_loopback(server.host) or server.api_keys or allow_anonymous:
        return
    raise StartError(
        f"{server.host} can be reached from other machines and server.api_keys is empty: add a key, "
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


def _print_ready(agent: Agent, port: int) -> None:
    host = agent.config.server.host
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)
    print(f"{agent.config.name} answers at http://{shown}:{port} with {agent.model_label}", flush=True)
