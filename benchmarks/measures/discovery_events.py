"""`GET /events`: one change until a thousand readers have it, each a connection, in two processes of their own."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.figures import Row, Scale
from benchmarks.registries import OURS, asking, ours

READERS = 1_000
ALLOWED, ALLOWED_MS = "allowed", 250.0
CHANGES = 5  # of one round


async def measure(scale: Scale) -> list[Row]:
    """From the moment an agent sends its change until 99 of 100 readers have it, and all of them."""
    readers = scale.count(READERS, least=4)
    most = Row("events_p99", "One change to 1,000 readers of `GET /events`, p99", "ms", OURS, ALLOWED, "less", 1.0)
    last = Row("events_last", "… the last of them", "ms", OURS, ALLOWED, "less")
    for _ in range(scale.rounds):
        took = sorted(one for change in (await heard(readers, scale.count(CHANGES)))[0] for one in change)
        most.add({OURS: took[int(len(took) * 0.99)] * 1e3, ALLOWED: ALLOWED_MS})
        last.add({OURS: took[-1] * 1e3, ALLOWED: ALLOWED_MS})
    return [most, last]


async def heard(readers: int, changes: int) -> tuple[list[list[float]], float]:
    """Of each change, how long it took to each reader; and the CPU of the registry for one change."""
    took: list[list[float]] = []
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory())
        registry = await stack.enter_async_context(ours(Path(folder) / "registry.db"))
        agent = await stack.enter_async_context(asking())
        watchers = [await stack.enter_async_context(asking()) for _ in range(2)]
        shares = (readers // 2, readers - readers // 2)
        for watcher, share in zip(watchers, shares, strict=True):
            await watcher.do("watch", port=registry.port, readers=share)
        before = registry.cpu()
        for turn in range(1, changes + 1):
            waiting = [asyncio.ensure_future(one.do("heard", mark=f'"version":"1.0.{turn}"')) for one in watchers]
            options = {"agents": 1, "changing": True, "first_turn": turn}
            sent = await agent.do(
                "ask", port=registry.port, calls="registrations", connections=1, options=options, count=1
            )
            took.append([at - sent["begun"] for one in waiting for at in (await one)["at"]])
        return took, (registry.cpu() - before) / changes
