"""How the registry's cost grows with agents and with readers: `python -m benchmarks.discovery_growth`.

Writes the figures to `results/discovery_growth.json` and draws them into `docs/pictures/discovery_growth.svg`.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import plots, report
from benchmarks.contenders import HERE, ROOT
from benchmarks.measures.discovery_events import heard
from benchmarks.registries import asking, counted, ours

AGENTS = (30, 100, 300, 1_000, 3_000, 10_000)
READERS = (1, 100, 300, 1_000, 2_000)
SECONDS = 2.0
OF_AGENTS = (
    "the whole list",
    "the list compressed",
    "the list unchanged (304)",
    "a heartbeat",
    "a changed registration",
)


async def with_agents(count: int, seconds: float = SECONDS) -> list[float]:
    """CPU of the registry in milliseconds, for each of `OF_AGENTS`."""
    with TemporaryDirectory() as folder:
        async with ours(Path(folder) / "registry.db") as registry, asking() as client:
            fleet = {"agents": count, "changing": False}
            changing = {"agents": count, "changing": True}
            await counted(client, registry, "registrations", options=fleet, count=count)
            etag = f'W/"{"0" * 8}-0", *'  # whoever has any has the newest
            asked: list[tuple[str, dict[str, Any]]] = [
                ("reads", {}),
                ("reads", {"accept_encoding": "gzip"}),
                ("reads", {"if_none_match": etag}),
                ("registrations", fleet),
                ("registrations", changing),
            ]
            costs: list[float] = []
            for calls, options in asked:
                await counted(client, registry, calls, options=options, count=1)  # what is kept ready is made once
                told = await counted(client, registry, calls, options=options, seconds=seconds)
                costs.append(told["cpu_us"] / 1000)
            return costs


async def measured(amount: float = 1.0) -> list[dict[str, Any]]:
    """The figures of every panel; with less than the whole `amount`, its first points only."""
    counts, readers = _some(AGENTS, amount), _some(READERS, amount)
    costs = [await with_agents(count, max(0.3, SECONDS * amount)) for count in counts]
    panels = [
        {
            "title": f"{what}, by agents",
            "unit": "ms",
            "points": [(n, c[at]) for n, c in zip(counts, costs, strict=True)],
        }
        for at, what in enumerate(OF_AGENTS)
    ]
    changes = [(count, (await heard(count, 5))[1] * 1000) for count in readers]
    return [*panels, {"title": "a change, by readers of events", "unit": "ms", "points": changes}]


def _some(counts: Sequence[int], amount: float) -> Sequence[int]:
    return counts[: max(1, int(len(counts) * amount))]


def main() -> None:
    """The command."""
    argparse.ArgumentParser(
        prog="python -m benchmarks.discovery_growth", description=__doc__.splitlines()[0]
    ).parse_args()
    panels = asyncio.run(measured())
    report.keep(HERE / "results" / "discovery_growth.json", panels=panels)
    picture = ROOT / "docs" / "pictures" / "discovery_growth.svg"
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.write_text(plots.drawn("CPU of the registry for …", panels), encoding="utf-8")


if __name__ == "__main__":
    main()
