"""Where passages are ranked. Every index ranks exactly: none approximates."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from agent_runtime.tools.retrieval.documents import Passage

# The vectors of passages: (n, d) float32, rows of unit length.
Embed = Callable[[Sequence[Passage]], Awaitable[Any]]


class VectorIndex(Protocol):
    """Passages with their vectors. Opened with `async with`."""

    async def __aenter__(self) -> VectorIndex: ...

    async def __aexit__(self, *exc_info: object) -> None: ...

    is_durable: bool
    """Whether it still has its vectors when it is opened again."""

    async def fill(self, passages: Sequence[Passage], embed: Embed) -> None:
        """Hold these passages, at least one, in place of all before; those that it does not know it has embedded."""
        ...

    async def search(self, vector: Any, *, top_k: int, least: float) -> list[Passage]:
        """The passages that are most similar, best first, and at least so similar (cosine)."""
        ...


class MemoryIndex:
    """All vectors in one matrix."""

    is_durable = False

    def __init__(self) -> None:
        self._passages: Sequence[Passage] = ()
        self._vectors: Any = None

    async def __aenter__(self) -> MemoryIndex:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._passages, self._vectors = (), None

    async def fill(self, passages: Sequence[Passage], embed: Embed) -> None:
        self._passages, self._vectors = passages, await embed(passages)

    async def search(self, vector: Any, *, top_k: int, least: float) -> list[Passage]:
        return await asyncio.to_thread(self._ranked, vector, top_k, least)

    def _ranked(self, vector: Any, top_k: int, least: float) -> list[Passage]:
        similarities = self._vectors @ vector
        count = min(top_k, len(similarities))
        parted = similarities.copy()
        parted.partition(-count)  # sorting all of them would take as long as the product
        [near] = (similarities >= max(parted[-count], least)).nonzero()
        best = near[(-similarities[near]).argsort(kind="stable")][:count]
        return [self._passages[index] for index in best]
