"""How fast discovery is, beside what the machine allows and beside what else keeps such a list.

    python -m benchmarks.discovery                    every row of the table, in about six minutes
    python -m benchmarks.discovery --quick            the same in seconds: that it works, no figures to quote
    python -m benchmarks.discovery --json FILE        write the result, as JSON too

Contenders take turns in every round. A ratio is that of one round; the median of them is told, with least and most.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import urllib.request
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.machine import describe
from benchmarks.processes import Helper, Served, helper, served

CONNECTIONS = 50
OURS, LIMIT, TUTORIAL, ETCD = "myagent", "prepared bytes", "tutorial style", "etcd JSON gateway"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How long and how large."""

    rounds: int = 5
    seconds: float = 3.0
    agents: Sequence[int] = (30, 1_000, 10_000)
    registering: int = 1_000
    readers: Sequence[int] = (100, 300, 1_000, 2_000)


QUICK = Scale(rounds=1, seconds=0.3, agents=(30, 100), registering=30, readers=(10, 20))


@dataclass(slots=True)
class Row:
    """One line of the table: what was measured of us and of a reference, round by round."""

    what: str
    reference: str
    target: float
    ours: list[float] = field(default_factory=list[float])
    theirs: list[float] = field(default_factory=list[float])
    ours_cpu_us: list[float] = field(default_factory=list[float])
    errors: int = 0
    unit: str = "requests/s"

    @property
    def ratios(self) -> list[float]:
        """Of each round."""
        return [ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)] if self.theirs else []

    @property
    def reached(self) -> bool:
        """Whether it is as good as it must be."""
        return not self.errors and (
            median(self.ratios) >= self.target if self.theirs else max(self.ours) <= self.target
        )


Ask = Callable[[], Awaitable[dict[str, Any]]]


async def measured(scale: Scale, folder: Path) -> list[Row]:
    """Every row."""
    rows: list[Row] = []
    async with helper("benchmarks.load") as load:
        for agents in scale.agents:
            say(f"the list of {agents} agents")
            rows += await lists(scale, folder, load, agents)
        for changing in (True, False):
            say("registrations that change" if changing else "registrations that repeat themselves")
            rows += await registrations(scale, folder, load, changing=changing)
    for readers in scale.readers:
        say(f"{readers} readers of events")
        rows.append(await events(scale, folder, readers))
    return rows


async def lists(scale: Scale, folder: Path, load: Helper, agents: int) -> list[Row]:
    """The whole list, plain, compressed and unchanged, beside the same bytes prepared."""
    async with registry(folder / f"list-{agents}.db") as ours:
        await load(
            "ask", port=ours.port, calls="registrations", options=_changing(agents), connections=50, count=agents
        )
        body, headers = await asyncio.to_thread(_fetched, ours.port)
        assert len(json.loads(body)) == agents
        prepared = folder / f"list-{agents}.json"
        prepared.write_bytes(body)
        async with served("benchmarks.registries.prepared", str(prepared)) as limit:
            contenders = {
                "": {},
                ", gzip": {"accept_encoding": "gzip"},
                ", unchanged (304)": {"if_none_match": headers["etag"]},
            }
            targets = {"": 0.75 if agents <= 100 else 0.9, ", gzip": 2.0, ", unchanged (304)": 2.0}
            rows = {name: Row(f"GET /agents, {agents:,} agents{name}", LIMIT, targets[name]) for name in contenders}
            for _ in range(scale.rounds):
                theirs = await asked(load, limit, scale, "reads", {})
                for name, options in contenders.items():
                    await counted(rows[name], load, ours, scale, "reads", options)
                    rows[name].theirs.append(theirs["per_second"])
    wanted = ("", ", gzip", ", unchanged (304)") if agents >= 1_000 or scale is QUICK else ("",)
    return [rows[name] for name in wanted]


async def registrations(scale: Scale, folder: Path, load: Helper, *, changing: bool) -> list[Row]:
    """Durable registrations, or heartbeats, beside a tutorial's registry and, where they change, beside etcd."""
    what = "POST /register, durable" if changing else "heartbeats"
    agents, name = scale.registering, "changing" if changing else "repeating"
    calls, options = "registrations", {"agents": agents, "changing": changing}
    async with AsyncExitStack() as stack:
        ours = await stack.enter_async_context(registry(folder / f"{name}.db"))
        tutorial = served("benchmarks.registries.tutorial", str(folder / f"{name}-tutorial.db"))
        others: dict[str, tuple[Served, str, dict[str, Any], float]] = {}
        target = 10.0 if changing else 15.0
        others[TUTORIAL] = (await stack.enter_async_context(tutorial), calls, options, target)
        if changing:
            etcd = served("benchmarks.registries.etcd", str(folder / "etcd"))
            others[ETCD] = (await stack.enter_async_context(etcd), "puts", {"agents": agents}, 1.5)
        rows = {other: Row(f"{what}, {agents:,} agents", other, place[3]) for other, place in others.items()}
        # Everybody is known, and every file has grown once.
        for server, kind, said, _ in (*others.values(), (ours, calls, options, 0)):
            await load("ask", port=server.port, calls=kind, options=said, connections=CONNECTIONS, count=agents)
        for turn in range(1, scale.rounds + 1):
            again = {"first_turn": turn * 1_000} if changing else {}
            first = next(iter(rows.values()))
            await counted(first, load, ours, scale, calls, options | again)
            for other, (server, kind, said, _) in others.items():
                more = again if kind == calls else {}
                answer = await asked(load, server, scale, kind, said | more)
                rows[other].theirs.append(answer["per_second"])
        for row in rows.values():
            row.ours, row.ours_cpu_us, row.errors = first.ours, first.ours_cpu_us, first.errors
    return list(rows.values())


async def events(scale: Scale, folder: Path, readers: int) -> Row:
    """One change until every reader has it, p99; readers are in processes of their own."""
    row = Row(f"one change to {readers:,} readers of GET /events, p99", "–", 250.0, unit="ms")
    async with AsyncExitStack() as stack:
        ours = await stack.enter_async_context(registry(folder / f"events-{readers}.db"))
        load = await stack.enter_async_context(helper("benchmarks.load"))
        halves = [await stack.enter_async_context(helper("benchmarks.load")) for _ in range(2)]
        await asyncio.gather(*(half("watch", port=ours.port, readers=readers // 2) for half in halves))
        for turn in range(2 * scale.rounds):
            mark = f'"version":"1.0.{turn}"'
            waiting = [asyncio.ensure_future(half("heard", mark=mark)) for half in halves]
            options = {"agents": 1, "changing": True, "first_turn": turn}
            sent = await load("ask", port=ours.port, calls="registrations", options=options, connections=1, count=1)
            heard = [at for half in waiting for at in (await half)["at"]]
            took = sorted(at - sent["begun"] for at in heard)
            row.ours.append(took[int(len(took) * 0.99)] * 1e3)
            row.errors += sent["errors"]
    return row


async def asked(load: Helper, server: Served, scale: Scale, calls: str, options: dict[str, Any]) -> dict[str, Any]:
    """Ask a server for the time of one round."""
    return await load(
        "ask", port=server.port, calls=calls, options=options, connections=CONNECTIONS, seconds=scale.seconds
    )


async def counted(row: Row, load: Helper, server: Served, scale: Scale, calls: str, options: dict[str, Any]) -> None:
    """Ask ours, and note what it took."""
    before = server.cpu()
    answer = await asked(load, server, scale, calls, options)
    row.ours.append(answer["per_second"])
    row.ours_cpu_us.append((server.cpu() - before) / max(1, answer["per_second"] * scale.seconds) * 1e6)
    row.errors += answer["errors"]


@asynccontextmanager
async def registry(file: Path) -> AsyncGenerator[Served]:
    """Our registry as an operator starts it."""
    async with served(
        "discovery", "--port", "0", "--database-url", f"sqlite:///{file}", "--log-level", "warning"
    ) as it:
        yield it


def markdown(rows: Sequence[Row]) -> str:
    """The table of the documentation."""
    lines = [
        "| what | reference | ours | theirs | × (least – most) | at least | our CPU µs | reached |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ours = f"{median(row.ours):,.0f} {row.unit}"
        cpu = f"{median(row.ours_cpu_us):,.0f}" if row.ours_cpu_us else "–"
        reached = "yes" if row.reached else "no"
        theirs, ratio, target = "–", f"({min(row.ours):,.0f} – {max(row.ours):,.0f})", f"≤ {row.target:g} {row.unit}"
        if row.theirs:
            theirs = f"{median(row.theirs):,.0f}"
            ratio = f"{median(row.ratios):.2f} ({min(row.ratios):.2f} – {max(row.ratios):.2f})"
            target = f"≥ {row.target:g}"
        lines.append(f"| {row.what} | {row.reference} | {ours} | {theirs} | {ratio} | {target} | {cpu} | {reached} |")
    return "\n".join(lines)


def say(text: str) -> None:
    """Tell the person who waits."""
    print(f"… {text}", file=sys.stderr, flush=True)


def _changing(agents: int) -> dict[str, Any]:
    return {"agents": agents, "changing": True}


def _fetched(port: int) -> tuple[bytes, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/agents", timeout=30) as answer:
        return answer.read(), answer.headers


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.discovery", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes: that it works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        rows = asyncio.run(measured(QUICK if arguments.quick else Scale(), Path(folder)))
    if arguments.json:
        told = {"machine": describe(), "rows": [asdict(row) for row in rows]}
        arguments.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    print(markdown(rows))


if __name__ == "__main__":
    main()
