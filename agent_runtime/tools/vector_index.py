"""Where passages are ranked. Every index ranks exactly: none approximates."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from agent_runtime.tools.documents import Passage


class VectorIndex(Protocol):
    """Passages with their vectors. Opened with `async with`."""

    async def __aenter__(self) -> VectorIndex: ...

    async def __aexit__(self, *exc_info: object) -> None: ...

    async def fill(self, passages: Sequence[Passage], vectors: Any) -> None:
        """Hold these passages in place of all before. `vectors`: (n, d) float32, rows of unit length."""
        ...

    async def search(self, vector: Any, *, top_k: int, least: float) -> list[Passage]:
        """The passages that are most similar, best first, and at least so similar (cosine)."""
        ...


class MemoryIndex:
    """All vectors in one matrix."""

    def __init__(self) -> None:
        self._passages: Sequence[Passage] = ()
        self._vectors: Any = None

    async def __aenter__(self) -> MemoryIndex:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._passages, self._vectors = (), None

    async def fill(self, passages: Sequence[Passage], vectors: Any) -> None:
        self._passages, self._vectors = passages, vectors

    async def search(self, vector: Any, *, top_k: int, least: float) -> list[Passage]:
        return await asyncio.to_thread(self._ranked, vector, top_k, least)

    def _ranked(self, vector: Any, top_k: int, least: float) -> list[Passage]:
        similarities = self._vectors @ vector
        best = (-similarities).argsort(kind="stable")[:top_k]
        return [self._passages[index] for index in best if similarities[index] >= least]
