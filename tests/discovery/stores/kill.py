"""Kill a registry with SIGKILL again and again while clients register: what was acknowledged must be there.

python -m tests.discovery.stores.kill 1000
"""

import asyncio
import multiprocessing
import os
import random
import socket
import sys
import tempfile
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.discovery.conftest import MINIMAL, eventually

CLIENTS = 8
AGENTS_EACH = 5

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["discovery.__main__"])  # a child begins where the imports are done


def serve(database: str, port: int) -> None:
    """One life of the registry."""
    from discovery.__main__ import main

    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):  # each life would say where it serves
        main(["--port", str(port), "--database-url", database, "--log-level", "error"])


@dataclass(slots=True)
class Outcome:
    """What the clients were told, and what the registry knows in the end."""

    acknowledged: dict[str, int] = field(default_factory=dict[str, int])
    answers: int = 0
    kept: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def lost(self) -> list[str]:
        """Names whose acknowledged registration is not there."""
        return [name for name, version in self.acknowledged.items() if self.kept.get(name, -1) < version]


async def survive(kills: int, folder: Path) -> Outcome:
    """Run it: each life ends as soon as it has acknowledged a few registrations more."""
    outcome, port, database = Outcome(), _free_port(), f"sqlite:///{folder / 'registry.db'}"
    stop = asyncio.Event()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=5) as http:
        clients = [asyncio.create_task(_register(http, outcome, number, stop)) for number in range(CLIENTS)]
        try:
            for life in range(kills):
                await _one_life(http, outcome, database, port, random.Random(life))
        finally:
            stop.set()
            await asyncio.wait(clients)
        for client in clients:
            client.result()
        last = context.Process(target=serve, args=(database, port), daemon=True)
        await asyncio.to_thread(last.start)
        try:
            await _answers(http)
            agents: list[dict[str, Any]] = (await http.get("/agents")).json()
        finally:
            await _killed(last)
    outcome.kept = {agent["name"]: int(agent["version"]) for agent in agents}
    return outcome


async def _one_life(http: httpx.AsyncClient, outcome: Outcome, database: str, port: int, chance: random.Random) -> None:
    process = context.Process(target=serve, args=(database, port), daemon=True)
    await asyncio.to_thread(process.start)
    try:
        await _answers(http)
        wanted = outcome.answers + chance.randint(1, 40)
        await eventually(lambda: outcome.answers >= wanted, 30)
    finally:
        await _killed(process)


async def _register(http: httpx.AsyncClient, outcome: Outcome, client: int, stop: asyncio.Event) -> None:
    version = 0
    while not stop.is_set():
        version += 1
        name = f"agent-{client}-{version % AGENTS_EACH}"
        try:
            answer = await http.post("/register", json=MINIMAL | {"name": name, "version": str(version)})
        except httpx.HTTPError:
            await asyncio.sleep(0.005)
            continue
        if answer.status_code in {200, 201}:
            outcome.acknowledged[name] = version
            outcome.answers += 1


async def _answers(http: httpx.AsyncClient) -> None:
    async def is_ready() -> bool:
        try:
            return (await http.get("/readyz")).status_code == 200
        except httpx.HTTPError:
            return False

    await eventually(is_ready, 30)


async def _killed(process: Any) -> None:
    process.kill()
    await asyncio.to_thread(process.join, 10)
    process.close()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        done = asyncio.run(survive(int(sys.argv[1]), Path(name)))
    print(f"{sys.argv[1]} kills, {done.answers:,} acknowledged registrations, {len(done.lost)} lost")
    sys.exit(bool(done.lost))
