"""A whole run: a question, a tool call, an answer. CPU one after the other, then many at once."""

from __future__ import annotations

from benchmarks.contenders import ALL, OURS, REFERENCE, contenders, fake_openai
from benchmarks.figures import Row, Scale


async def measure(scale: Scale) -> list[Row]:
    """CPU of one run, alone and at 50 at once; runs a second at 50, and at 500 with a model that takes 200 ms."""
    cpu = Row("run_cpu", "CPU per run (user → tool → answer)", "ms", OURS, REFERENCE, "less", 0.85)
    busy = Row("run_cpu_at_50", "… at 50 at once", "ms", OURS, REFERENCE, "less", 0.55)
    fifty = Row("runs_at_50", "Runs a second, 50 at once", "/s", OURS, REFERENCE, "more", 1.9)
    many = Row("runs_at_500", "Runs a second, 500 at once, 200 ms model", "/s", OURS, REFERENCE, "more")
    async with fake_openai() as fake, contenders([*ALL[:2], *scale.peers]) as everybody:
        for one in everybody:
            await one.do("open", url=f"{fake}/v1")
            await one.do("runs", count=scale.count(50), at_once=scale.count(10))
        for _ in range(scale.rounds):
            figures: dict[str, float] = {}
            for one in everybody:
                count = scale.count(100)
                figures[one.name] = (await one.do("runs", count=count, at_once=1))["cpu"] / count * 1000
            cpu.add(figures)
            figures, cpu_at_50 = {}, dict[str, float]()
            for one in everybody:
                count = scale.count(250, least=50)
                used = await one.do("runs", count=count, at_once=scale.count(50))
                figures[one.name], cpu_at_50[one.name] = count / used["wall"], used["cpu"] / count * 1000
            fifty.add(figures)
            busy.add(cpu_at_50)
        for one in everybody:
            await one.do("open", url=f"{fake}/delay_ms-200/v1")
            await one.do("runs", count=scale.count(500), at_once=scale.count(500))
        for _ in range(max(1, scale.rounds // 2)):
            figures = {}
            for one in everybody:
                count = scale.count(2000, least=20)
                figures[one.name] = count / (await one.do("runs", count=count, at_once=scale.count(500)))["wall"]
            many.add(figures)
    return [cpu, busy, fifty, many]
