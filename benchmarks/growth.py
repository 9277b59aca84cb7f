"""How cost grows with agents, sessions, history and tools: `python -m benchmarks.growth`.

Writes the figures to `results/growth.json` and draws them into `docs/pictures/growth.svg`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import uvloop

from agent_runtime import Agent
from agent_runtime.events import Message
from agent_runtime.sessions import SessionKey
from agent_runtime.sessions.sqlite import SqliteSessions
from benchmarks import plots, report
from benchmarks.contenders import HERE, ROOT, fake_openai
from benchmarks.subjects.myagent import TOOL, write

QUESTION = "What is 17 plus 25?"
RUNS, REPEATS = 60, 5
MEMORY = {"session": {"history_messages": 1_000, "history_tokens": 1_000_000}}
TURN = (Message("user", QUESTION), Message("assistant", "The sum of the two numbers is 42."))

_LOOKING_UP = '''\
def tool_{0}(question: str, limit: int = 10) -> str:
    """Look something up in place {0}."""
    return question
'''

Measure = Callable[[str, Path, int], Awaitable[float]]


async def with_agents(url: str, folder: Path, count: int) -> float:
    """So many open agents in one process, asked in turns."""
    async with AsyncExitStack() as stack:
        files = [write(folder, url, name=f"agent-{number}") for number in range(count)]
        agents = [await stack.enter_async_context(Agent(file)) for file in files]
        asked = agents[:: max(1, count // RUNS)][:RUNS]
        for agent in asked:
            await agent.run(QUESTION)  # the first question makes an agent's client
        return await _cpu_ms(lambda number: asked[number % len(asked)].run(QUESTION))


async def with_sessions(url: str, folder: Path, count: int) -> float:
    """A new session of an agent that remembers so many others."""
    async with _remembering(url, folder) as (agent, store):
        for number in range(count):
            await store.append(_key(f"before-{number}"), TURN)
        return await _cpu_ms(lambda _: agent.run(QUESTION))


async def with_history(url: str, folder: Path, count: int) -> float:
    """A turn of sessions that have so many messages, all of them shown to the model."""
    async with _remembering(url, folder) as (agent, store):
        for number in range(RUNS):
            await store.append(_key(f"s{number}"), TURN * (count // 2))
        return await _cpu_ms(lambda number: agent.run(QUESTION, session_id=f"s{number % RUNS}"), repeats=1)


async def with_tools(url: str, folder: Path, count: int) -> float:
    """A run of an agent with so many tools."""
    names = [TOOL, *(f"growing:tool_{number}" for number in range(count - 1))]
    (folder / "growing.py").write_text("\n\n".join(_LOOKING_UP.format(number) for number in range(count - 1)))
    async with Agent(write(folder, url, tools=", ".join(names))) as agent:
        return await _cpu_ms(lambda _: agent.run(QUESTION))


PANELS: dict[str, tuple[Measure, Sequence[int]]] = {
    "open agents in the process": (with_agents, (1, 10, 100, 1_000)),
    "sessions in the store": (with_sessions, (0, 100, 1_000, 10_000)),
    "messages of history": (with_history, (0, 50, 100, 200, 400)),
    "tools of the agent": (with_tools, (1, 10, 50, 100)),
}


@asynccontextmanager
async def _remembering(url: str, folder: Path) -> AsyncGenerator[tuple[Agent, SqliteSessions]]:
    async with (
        Agent(write(folder, url, kind="stateful"), overrides=MEMORY) as agent,
        SqliteSessions(folder / "sessions.db") as store,
    ):
        yield agent, store


def _key(session_id: str) -> SessionKey:
    return SessionKey("adder", "", session_id)


async def _cpu_ms(run: Callable[[int], Awaitable[Any]], *, repeats: int = REPEATS) -> float:
    """CPU of this process for one run: the median of several rounds."""
    await run(0)
    rounds: list[float] = []
    for _ in range(repeats):
        began = time.process_time()
        for number in range(RUNS):
            await run(number)
        rounds.append((time.process_time() - began) / RUNS * 1000)
    return median(rounds)


async def measured(amount: float = 1.0) -> list[dict[str, Any]]:
    """The figures of every panel; with less than the whole `amount`, its first points only."""
    panels: list[dict[str, Any]] = []
    async with fake_openai() as fake:
        for title, (measure, counts) in PANELS.items():
            points: list[tuple[int, float]] = []
            for count in counts[: max(1, int(len(counts) * amount))]:
                with TemporaryDirectory() as folder:
                    points.append((count, await measure(f"{fake}/v1", Path(folder), count)))
            panels.append({"title": title, "unit": "ms", "points": points})
    return panels


def main() -> None:
    """The command."""
    argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__.splitlines()[0]).parse_args()
    panels = uvloop.run(measured())
    report.keep(HERE / "results" / "growth.json", panels=panels)
    picture = ROOT / "docs" / "pictures" / "growth.svg"
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.write_text(plots.drawn("CPU of one run, as it grows with …", panels), encoding="utf-8")


if __name__ == "__main__":
    main()
