"""From nothing to an agent: imports, the first agent ready, and what idle agents hold."""

from __future__ import annotations

from tempfile import TemporaryDirectory

from benchmarks.contenders import ALL, OURS, PEERS, REFERENCE, contender, once, output_of
from benchmarks.figures import Row, Scale

_IMPORT = "import time; began = time.process_time(); {line}; print(time.process_time() - began)"
_LEANEST = "google_adk"


async def measure(scale: Scale) -> list[Row]:
    """CPU of the import; CPU from the start of a process to its first agent; CPU and memory of an idle agent."""
    return [await _imports(scale), await _first_agent(scale), *await _idle(scale)]


async def _imports(scale: Scale) -> Row:
    row = Row("import", "CPU of the import", "ms", OURS, REFERENCE, "less", 0.15)
    row.note = "`from agent_runtime import Agent`, so that nothing is put off by the name alone; `import openai`"
    lines = {OURS: "from agent_runtime import Agent", REFERENCE: "import openai"}
    for _ in range(scale.rounds):
        row.add({n: float(await output_of(n, _IMPORT.format(line=line))) * 1000 for n, line in lines.items()})
    return row


async def _first_agent(scale: Scale) -> Row:
    row = Row("first_agent", "CPU from start to first agent ready", "ms", OURS, REFERENCE, "less", 0.6)
    row.note = "whole process; ours is opened from its file, the reference is a client that is built"
    for _ in range(scale.rounds):
        everybody = [*ALL[:2], *scale.peers]
        row.add({n: (await once(n, "http://127.0.0.1:9/v1"))["cpu"] * 1000 for n in everybody})
    return row


async def _idle(scale: Scale) -> list[Row]:
    """In a process of its own each time: memory that was freed before would be used again and not be seen."""
    reference = _LEANEST if _LEANEST in scale.peers else OURS
    bound = 1.0 if reference == _LEANEST else None
    memory = Row("idle_memory", "Memory per idle agent, 1,000 in one process", "KiB", OURS, reference, "less", bound)
    cpu = Row("idle_cpu", "CPU per idle agent, 1,000 in one process", "µs", OURS, reference, "less", bound)
    ready = Row("ready_cpu", "CPU per agent opened from its file", "µs", OURS, OURS, "less")
    kept = Row("ready_memory", "Memory per agent opened from its file", "KiB", OURS, OURS, "less")
    memory.note = cpu.note = "an agent as its constructor leaves it; it opens at its first question"
    ready.note = "file read and checked, tool imported, model and rooms open"
    count = scale.count(1000)
    for _ in range(max(1, scale.rounds // 2)):
        made = {
            name: await _of_one(name, count, opened=False) for name in (OURS, *(p for p in PEERS if p in scale.peers))
        }
        memory.add({name: told["bytes"] / 1024 for name, told in made.items()})
        cpu.add({name: told["cpu"] * 1e6 for name, told in made.items()})
        opened = await _of_one(OURS, count, opened=True)
        ready.add({OURS: opened["cpu"] * 1e6})
        kept.add({OURS: opened["bytes"] / 1024})
    return [memory, cpu, ready, kept]


async def _of_one(name: str, count: int, *, opened: bool) -> dict[str, float]:
    with TemporaryDirectory() as folder:
        async with contender(name) as one:
            return await one.do("idle", count=count, folder=folder, opened=opened)
