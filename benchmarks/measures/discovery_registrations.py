"""`POST /register` on 50 connections: agents that say something new, durable before the answer; and heartbeats.

Beside a registry as a tutorial writes it, which does the same work for both; new words also beside etcd's JSON gateway.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.figures import Row, Scale
from benchmarks.registries import ETCD, OURS, TUTORIAL, asking, counted, errors, other, ours

AGENTS = 1_000
SECONDS = 4.0
MADE_A_SECOND = 30_000  # requests; no server here takes more new words


async def measure(scale: Scale) -> list[Row]:
    """Registrations a second, and CPU for one."""
    return [*await _measured(scale, changing=True), *await _measured(scale, changing=False)]


async def _measured(scale: Scale, *, changing: bool) -> list[Row]:
    agents = scale.count(AGENTS, least=20)
    kept = {"agents": agents, "changing": changing}
    asked: dict[str, tuple[str, dict[str, Any]]] = {
        OURS: ("registrations", kept),
        TUTORIAL: ("registrations", kept),
        **({ETCD: ("puts", {"agents": agents})} if changing and scale.peers else {}),
    }
    everything: dict[str, list[dict[str, Any]]] = {name: [] for name in asked}
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        client = await stack.enter_async_context(asking())
        servers = {
            name: await stack.enter_async_context(
                ours(folder / "ours.db") if name == OURS else other(name, folder / name)
            )
            for name in asked
        }
        for name, (calls, options) in asked.items():  # everybody is known then, and every file has grown once
            await counted(client, servers[name], calls, options=options, count=agents)
        for turn in range(1, scale.rounds + 1):
            for name, (calls, options) in asked.items():
                more = {"first_turn": turn * 10_000} if changing else {}
                seconds = max(0.3, SECONDS * scale.amount)
                made = {"made": int(MADE_A_SECOND * seconds)} if changing else {}
                told = await counted(client, servers[name], calls, options=options | more, seconds=seconds, **made)
                everything[name].append(told)
    assert not any(told["errors"] for told in everything[OURS]), "a registration was refused"
    return _rows(everything, changing=changing)


def _rows(told: dict[str, list[dict[str, Any]]], *, changing: bool) -> list[Row]:
    what = "`POST /register`, durable" if changing else "Heartbeats: the same `POST /register` again"
    kind = "register" if changing else "heartbeat"
    rate = Row(f"{kind}_rate", f"{what}, 1,000 agents", "/s", OURS, TUTORIAL, "more", 3.0 if changing else 5.0)
    wait = Row(f"{kind}_p99", "… 99 of 100 answered within", "ms", OURS, TUTORIAL, "less")
    cpu = Row(f"{kind}_cpu", "… CPU of the server", "µs", OURS, TUTORIAL, "less")
    rows = {"per_second": [rate], "p99_ms": [wait], "cpu_us": [cpu]}
    if ETCD in told:
        rows["per_second"].append(Row("register_etcd", "… beside etcd's JSON gateway", "/s", OURS, ETCD, "more"))
    rate.note = f"requests that were refused: {', '.join(f'{name} {errors(*all_)}' for name, all_ in told.items())}"
    for figure, some in rows.items():
        for row in some:
            for rounds in zip(*told.values(), strict=True):
                row.add({name: one[figure] for name, one in zip(told, rounds, strict=True)})
    return [row for some in rows.values() for row in some]
