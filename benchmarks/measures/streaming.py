"""A streamed answer without tools: what a chunk costs, and when the first text comes."""

from __future__ import annotations

from statistics import median

from benchmarks.contenders import ALL, OURS, REFERENCE, contenders, fake_openai
from benchmarks.figures import Row, Scale

WORDS = 400


async def measure(scale: Scale) -> list[Row]:
    """CPU per chunk of a stream that comes as fast as it is read, and of one that does not; the first text."""
    chunk = Row("stream_cpu", "Streaming: CPU per chunk", "µs", OURS, REFERENCE, "less", 0.2)
    slow = Row("stream_paced_cpu", "… where a chunk comes every 2 ms", "µs", OURS, REFERENCE, "less")
    slow.note = "most of it is the operating system's, which wakes the process for every chunk"
    first = Row("first_text", "Time to first token", "ms", OURS, REFERENCE, "less", 0.8)
    async with fake_openai() as fake, contenders([*ALL[:2], *scale.peers]) as everybody:
        for row, url, count in (
            (chunk, f"{fake}/words-{WORDS}/v1", scale.count(5)),
            (slow, f"{fake}/words-{scale.count(WORDS)}/pace_ms-2/v1", scale.count(1)),
        ):
            for one in everybody:
                await one.do("open", url=url)
                await one.do("streams", count=1)
            for _ in range(scale.rounds):
                asked = {one.name: await one.do("streams", count=count) for one in everybody}
                row.add({name: told["cpu"] / told["chunks"] * 1e6 for name, told in asked.items()})
        for one in everybody:
            await one.do("open", url=f"{fake}/words-5/pace_ms-2/v1")
            await one.do("streams", count=1)
        for _ in range(scale.rounds):
            asked = {one.name: await one.do("streams", count=scale.count(30)) for one in everybody}
            first.add({name: median(told["firsts"]) * 1000 for name, told in asked.items()})
    return [chunk, slow, first]
