"""`GET /agents`: whole, compressed and unchanged, beside uvicorn answering the same bytes from memory."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.contenders import Contender
from benchmarks.figures import Row, Scale
from benchmarks.registries import CONNECTIONS, LIMIT, OURS, Served, asking, counted, other, ours

FLEETS = {30: 0.3, 1_000: 0.75, 10_000: 0.75}  # agents, and what must be reached with the whole list
LARGE = 1_000  # from here on compression and tags are held against a bound
SECONDS = 3.0


async def measure(scale: Scale) -> list[Row]:
    """Requests a second on 50 connections, and our CPU for one."""
    rows: list[Row] = []
    async with asking() as client:
        for agents, bound in FLEETS.items():
            with TemporaryDirectory() as folder:
                rows += await _of(scale, client, Path(folder), agents, scale.count(agents, least=10), bound)
    return rows


async def _of(scale: Scale, client: Contender, folder: Path, agents: int, count: int, bound: float) -> list[Row]:
    large = 2.0 if agents >= LARGE else None
    whole = Row(f"list_{agents}", f"`GET /agents`, {agents:,} agents", "/s", OURS, LIMIT, "more", bound)
    packed = Row(f"list_gzip_{agents}", "… compressed (gzip)", "/s", OURS, LIMIT, "more", large)
    same = Row(f"list_304_{agents}", "… unchanged (304)", "/s", OURS, LIMIT, "more", large)
    cpu = Row(f"list_cpu_{agents}", "… CPU of the server for the whole list", "µs", OURS, LIMIT, "less")
    async with ours(folder / "registry.db") as registry:
        told = {"agents": count, "changing": True}
        await client.do(
            "ask", port=registry.port, calls="registrations", connections=CONNECTIONS, options=told, count=count
        )
        body, etag = await asyncio.to_thread(_fetched, registry.port)
        assert len(json.loads(body)) == count
        (folder / "list.json").write_bytes(body)
        async with other(LIMIT, folder / "list.json") as limit:
            for _ in range(scale.rounds):
                theirs = await _asked(client, limit, scale)
                plain = await _asked(client, registry, scale)
                whole.add({OURS: plain["per_second"], LIMIT: theirs["per_second"]})
                cpu.add({OURS: plain["cpu_us"], LIMIT: theirs["cpu_us"]})
                for row, header in ((packed, {"accept_encoding": "gzip"}), (same, {"if_none_match": etag})):
                    figures = await _asked(client, registry, scale, **header)
                    row.add({OURS: figures["per_second"], LIMIT: theirs["per_second"]})
    whole.note = f"{len(body) / 1024:,.0f} KiB"
    return [whole, packed, same, cpu]


async def _asked(client: Contender, server: Served, scale: Scale, **headers: str) -> dict[str, Any]:
    told = await counted(client, server, "reads", options=headers, seconds=max(0.2, SECONDS * scale.amount))
    assert not told["errors"], f"{told['errors']} requests were not answered as they should"
    return told


def _fetched(port: int) -> tuple[bytes, str]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/agents", timeout=30) as answer:
        return answer.read(), answer.headers["etag"]
