"""The search over documents in memory, beside the matrix product that one writes by hand."""

from __future__ import annotations

import asyncio
import importlib
import time
from statistics import median
from typing import Any

from agent_runtime.tools.retrieval import MemoryIndex, Passage
from benchmarks.figures import Row, Scale

CHUNKS, DIMENSIONS, TOP = 10_000, 384, 4


async def measure(scale: Scale) -> list[Row]:
    """Time of one exact search; the question's own vector, which a model makes, is not counted."""
    numpy: Any = importlib.import_module("numpy")
    random = numpy.random.default_rng(7)
    vectors = random.standard_normal((scale.count(CHUNKS), DIMENSIONS), dtype=numpy.float32)
    vectors /= numpy.linalg.norm(vectors, axis=1, keepdims=True)
    passages = [Passage("file.md", "", f"chunk {number}") for number in range(len(vectors))]

    async def embed(_: Any) -> Any:
        return vectors

    def by_hand(vector: Any) -> list[Passage]:
        scores = vectors @ vector
        return [passages[index] for index in numpy.argsort(-scores)[:TOP]]

    row = Row("vector", "Vector context: exact search, 10,000 chunks", "µs", "myagent", "numpy", "less", 1.5)
    async with MemoryIndex() as index:
        await index.fill(passages, embed)
        for _ in range(scale.rounds):
            ours, theirs = list[float](), list[float]()
            for _ in range(scale.count(100)):
                vector = vectors[random.integers(len(vectors))]
                began = time.perf_counter()
                found = await index.search(vector, top_k=TOP, min_similarity=-1)
                between = time.perf_counter()
                expected = by_hand(vector)
                theirs.append((time.perf_counter() - between) * 1e6)
                ours.append((between - began) * 1e6)
                assert found == expected
                await asyncio.sleep(0)
            row.add({"myagent": median(ours), "numpy": median(theirs)})
    return [row]
