"""Figures as people read them: a Markdown table, and the page of all of them."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.contenders import HERE

_HEAD = """\
| what | ours | reference | ratio (spread) | must be | | best peer | its ratio |
|---|--:|--:|--:|--:|---|---|--:|"""
_PAGE = """\
# Benchmarks

Made by `benchmarks/run`; `benchmarks/run --help` says how to measure less. Everything that is compared was measured in
one run, in turns, each in a process and an environment of its own, against a stand-in for the model's API in a further
process. Figures are medians over the rounds; a ratio is taken within each round, so that whatever else the machine did
weighs on both sides. CPU is that of the whole process. The spread is the least and the greatest ratio of all rounds.
"""


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows of one file."""
    notes = [f"{row['title'].lstrip('… ')}: {row['note']}." for row in rows if row["note"]]
    return "\n".join([_HEAD, *map(_line, rows)]) + "".join(f"\n\n{note}" for note in notes)


def _line(row: dict[str, Any]) -> str:
    ours, reference = row["contenders"][row["ours"]], row["contenders"][row["reference"]]
    low, high = ours["ratios"]
    same = row["ours"] == row["reference"]
    sign = "≤" if row["better"] == "less" else "≥"
    bound = "" if row["bound"] is None else f"{sign} {row['bound']:g} ×"
    kept = {None: "", True: "✓", False: "✗"}[row["holds"]]
    peer = row["best_peer"]
    beside = [peer, f"{row['contenders'][peer]['ratio']:.2f} ×"] if peer else ["", ""]
    cells = [
        row["title"],
        _amount(ours["median"], row["unit"]),
        "" if same else f"{row['reference']} {_amount(reference['median'], row['unit'])}",
        "" if same else f"{ours['ratio']:.2f} × ({low:.2f}–{high:.2f})",
        bound,
        kept,
        *beside,
    ]
    return "| " + " | ".join(cells) + " |"


def _amount(value: float, unit: str) -> str:
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f} {unit}".replace(" /s", "/s")


def keep(file: Path, **told: Any) -> None:
    """Write what was measured, `rows` for a table or `panels` for a picture, and the machine it was measured on."""
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"machine": machine(), **told}, indent=2) + "\n", encoding="utf-8")


def write_page(file: Path, results: Path, order: Sequence[str]) -> None:
    """All tables of a folder of results, those that are listed first."""
    file.write_text(_page(results, order), encoding="utf-8")


def _page(results: Path, order: Sequence[str]) -> str:
    kept = ((file.stem, json.loads(file.read_text(encoding="utf-8"))) for file in results.glob("*.json"))
    files = {name: told for name, told in kept if "rows" in told}  # the others are pictures
    names = [*(name for name in order if name in files), *sorted(files.keys() - set(order))]
    parts = [_PAGE]
    for name in names:
        told = files[name]
        parts.append(
            f"\n## {name.replace('_', ' ').capitalize()}\n\n{table(told['rows'])}\n\n{_measured(told['machine'])}\n"
        )
    parts.append(_everybody({name: files[name]["rows"] for name in names}))
    return "".join(parts)


def _everybody(measured: Mapping[str, Sequence[dict[str, Any]]]) -> str:
    """The ratios of all contenders, for those who want to see more than the best peer."""
    lines = ["\n## Every contender\n", "\nRatio to the reference of the row.\n"]
    for name, all_rows in measured.items():
        rows = [row for row in all_rows if len(row["contenders"]) > 2]
        if not rows:
            continue
        everybody = list(dict.fromkeys(contender for row in rows for contender in row["contenders"]))
        lines.append(f"\n| {name} | {' | '.join(everybody)} |\n|---|{'--:|' * len(everybody)}\n")
        for row in rows:
            told = (row["contenders"].get(contender) for contender in everybody)
            cells = (f"{one['ratio']:.2f}" if one else "" for one in told)
            lines.append(f"| {row['title']} | {' | '.join(cells)} |\n")
    return "".join(lines)


def _measured(machine: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    host = f"{machine['cpus']} × {machine['cpu']}, {machine['system']}, Python {machine['python']}"
    return f"{machine['date']}, {host}; {versions}."


def machine() -> dict[str, Any]:
    """Where it was measured, and of what versions."""
    pins = [line for file in sorted((HERE / "requirements").glob("*.txt")) for line in file.read_text().splitlines()]
    named = dict(
        sorted({line.split("==")[0].split("[")[0]: line.split("==")[1] for line in pins if "==" in line}.items())
    )
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": _cpu(),
        "cpus": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {"myagent": version("myagent"), **named},
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
