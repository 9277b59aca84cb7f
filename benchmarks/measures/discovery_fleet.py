"""A fleet of 10,000 agents with a heartbeat every 30 s, and 100 readers of `/events`: how busy the registry is.

The registry runs on one core. Once with direct connections, once as behind a proxy that sends `X-Forwarded-For`.
"""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from benchmarks.figures import Row, Scale
from benchmarks.registries import CONNECTIONS, OURS, asking, ours

AGENTS, HEARTBEAT_SECONDS, READERS = 10_000, 30.0, 100
SECONDS = 20.0  # of measuring, each time
ALLOWED, ALLOWED_BUSY, ALLOWED_MS = "allowed", 35.0, 30.0
FORWARDED = {"x-forwarded-for": "203.0.113.7", "x-forwarded-proto": "https"}


async def measure(scale: Scale) -> list[Row]:
    """The share of a core, and p99 of a heartbeat."""
    rows: list[Row] = []
    for kind, title, headers in (("direct", "", {}), ("forwarded", ", `X-Forwarded-For`", FORWARDED)):
        what = f"10,000 agents, 30 s heartbeats, 100 readers of `/events`{title}"
        busy = Row(f"fleet_{kind}_busy", f"{what}: one core busy", "%", OURS, ALLOWED, "less", 1.0)
        late = Row(f"fleet_{kind}_p99", "\u2026 p99 of a heartbeat", "ms", OURS, ALLOWED, "less", 1.0)
        for _ in range(min(scale.rounds, 3)):
            share, p99_ms = await _measured(scale, headers)
            busy.add({OURS: share, ALLOWED: ALLOWED_BUSY})
            late.add({OURS: p99_ms, ALLOWED: ALLOWED_MS})
        rows += [busy, late]
    return rows


async def _measured(scale: Scale, headers: dict[str, str]) -> tuple[float, float]:
    agents, readers = scale.count(AGENTS, least=20), scale.count(READERS, least=2)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        registry = await stack.enter_async_context(ours(folder / "registry.db"))
        _pin(registry.pid)
        client = await stack.enter_async_context(asking())
        watcher = await stack.enter_async_context(asking())
        kept = {"agents": agents, "changing": False, **headers}
        await client.do(
            "ask", port=registry.port, calls="registrations", connections=CONNECTIONS, options=kept, count=agents
        )
        await watcher.do("watch", port=registry.port, readers=readers)
        before, begun = registry.cpu(), perf_counter()
        told = await client.do(
            "pace",
            port=registry.port,
            options=kept,
            connections=CONNECTIONS,
            per_second=agents / HEARTBEAT_SECONDS,
            seconds=max(1.0, SECONDS * scale.amount),
        )
        share = (registry.cpu() - before) / (perf_counter() - begun) * 100
    assert not told["errors"], "a heartbeat was not answered"
    return share, told["p99_ms"]


def _pin(pid: int) -> None:
    """Keep a process, all its threads included, on one core."""
    core = max(os.sched_getaffinity(pid))
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})
