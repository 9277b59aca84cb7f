"""All benchmarks, one command: `benchmarks/run`, or `python -m benchmarks.run`.

    --smoke         a bounded run of everything without the peers: that it works, nothing of its speed
    --only NAME …   some of them
    --without-peers ours and the references only
    --rounds N      how often each is measured; 5

Writes `results/NAME.json` and the tables of all that was ever measured to `RESULTS.md`.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import sys
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.contenders import HERE, PEERS
from benchmarks.figures import Row, Scale

MEASURES = (
    "runs",
    "streaming",
    "served",
    "starting",
    "vector",
    "discovery_lists",
    "discovery_registrations",
    "discovery_events",
    "discovery_fleet",
)
SMOKE = Scale(rounds=1, amount=0.02)


def main() -> None:
    """The command."""
    arguments = _parser().parse_args()
    scale = SMOKE if arguments.smoke else Scale(arguments.rounds, 1.0, () if arguments.without_peers else PEERS)
    results = None if arguments.smoke else HERE / "results"
    asyncio.run(run(arguments.only or MEASURES, scale, results))


async def run(names: list[str] | tuple[str, ...], scale: Scale, results: Path | None) -> None:
    """Measure, and keep what came out where there is a folder for it."""
    for name in names:
        print(f"--- {name}", file=sys.stderr)
        told = [row.to_json() for row in await measured(name, scale)]
        print(report.table(told), flush=True)
        if results:
            report.keep(results / f"{name}.json", rows=told)
    if results:
        report.write_page(HERE / "RESULTS.md", results, MEASURES)


async def measured(name: str, scale: Scale) -> list[Row]:
    """The rows of one file of `measures`."""
    measure: Any = importlib.import_module(f"benchmarks.measures.{name}").measure
    return await measure(scale)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks/run", description="Measure the product beside its peers.")
    parser.add_argument("--smoke", action="store_true", help="a bounded run: that it works, nothing of its speed")
    parser.add_argument("--only", nargs="+", choices=MEASURES, metavar="NAME", help=f"some of: {', '.join(MEASURES)}")
    parser.add_argument("--without-peers", action="store_true", help="ours and the references only")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured (5)")
    return parser


if __name__ == "__main__":
    main()
