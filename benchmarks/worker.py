"""One contender in a process of its own, in its own environment: told what to do line by line, answers with figures.

    python -m benchmarks.worker NAME

Needs nothing but the standard library and the contender itself. A line on standard input is a JSON object whose `do`
names a method of `Worker`; the answer is a line on standard output. CPU is that of the whole process, all threads.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import sys
import time
from collections.abc import Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Any

ANSWER = "42"
QUESTION = "What is 17 plus 25?"
CHAT = "Talk to me."


class Worker:
    """What can be asked of a contender."""

    def __init__(self, subject: Any) -> None:
        self._subject = subject
        self._serving: asyncio.Task[None] | None = None

    async def open(self, url: str) -> dict[str, float]:
        """Make its agent; CPU since the process began."""
        await self._subject.open(url)
        return {"cpu": time.process_time()}

    async def runs(self, count: int, at_once: int) -> dict[str, float]:
        """So many whole runs: a question, a tool call, an answer."""
        left = iter(range(count))

        async def some() -> None:
            for _ in left:
                answer = await self._subject.run(QUESTION)
                assert ANSWER in answer, f"not the answer: {answer!r}"

        return await _measured(asyncio.gather(*(some() for _ in range(at_once))))

    async def streams(self, count: int) -> dict[str, Any]:
        """So many streamed answers, one after the other; when the first text of each came."""
        firsts: list[float] = []
        chunks = 0

        async def all_of_them() -> None:
            nonlocal chunks
            for _ in range(count):
                begun, first = time.perf_counter(), 0.0
                async with aclosing(self._subject.stream(CHAT)) as deltas:
                    async for delta in deltas:
                        if delta:
                            first = first or time.perf_counter() - begun
                            chunks += 1
                firsts.append(first)

        measured = await _measured(all_of_them())
        return {**measured, "chunks": chunks, "firsts": firsts}

    async def idle(self, count: int, folder: str, opened: bool) -> dict[str, float]:
        """So many agents beside each other; `opened` where a contender knows a difference."""
        make = self._subject.opened if opened else self._subject.idle
        await make(20, Path(folder) / "warm")
        gc.collect()
        before, began = _resident_bytes(), time.process_time()
        agents = await make(count, Path(folder) / "all")
        cpu = time.process_time() - began
        gc.collect()
        used = _resident_bytes() - before
        assert len(agents) == count
        return {"cpu": cpu / count, "bytes": used / count}

    async def serve(self, port: int, folder: str) -> dict[str, bool]:
        """Serve `POST /chat` on a port of loopback, until the process ends."""
        self._serving = asyncio.create_task(self._subject.serve(port, Path(folder)))
        while not self._serving.done():
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
                continue
            writer.close()
            return {"served": True}
        await self._serving
        raise AssertionError("the server ended")

    async def usage(self) -> dict[str, float]:
        """CPU and memory of the process so far."""
        return {"cpu": time.process_time(), "bytes": _resident_bytes()}


async def _measured(work: Any) -> dict[str, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    await work
    return {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def _obey(worker: Worker, answers: Any) -> None:
    while line := await asyncio.to_thread(sys.stdin.readline):
        order = json.loads(line)
        work: Coroutine[Any, Any, Any] = getattr(worker, order.pop("do"))(**order)
        print(json.dumps(await work), file=answers, flush=True)


async def _opened(worker: Worker, url: str, answers: Any) -> None:
    print(json.dumps(await worker.open(url)), file=answers, flush=True)


def main() -> None:
    """Obey; or with a URL as a second argument make the agent, say what that cost, and end."""
    answers = os.fdopen(os.dup(1), "w")  # libraries may print what they like
    os.dup2(2, 1)
    subject = importlib.import_module(f"benchmarks.subjects.{sys.argv[1]}").Subject()
    if len(sys.argv) > 2:
        asyncio.run(_opened(Worker(subject), sys.argv[2], answers))
        return
    import uvloop  # the loop of every contender, so that none is measured for another's

    uvloop.run(_obey(Worker(subject), answers))


if __name__ == "__main__":
    main()
