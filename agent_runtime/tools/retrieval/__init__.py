"""Semantic search over documents as a tool: they are read and embedded when it is opened."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent_runtime.config import ContextConfig
from agent_runtime.errors import ToolError
from agent_runtime.events import ToolSpec
from agent_runtime.tools.retrieval.documents import MemoryIndex, Passage, VectorIndex, read_documents
from agent_runtime.tools.retrieval.embedder import (
    Embedder,
    EmbeddingCache,
    SentenceTransformerEmbedder,
    cache_for,
    embed_cached,
)

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

__all__ = ["MemoryIndex", "Passage", "VectorIndex", "VectorSearch"]

MIN_SIMILARITY = 0.2  # passages below it are unrelated to the question


class VectorSearch:
    """A tool that returns the passages closest in meaning to a question."""

    guarded = False
    timeout_seconds: float = 60

    def __init__(
        self,
        config: ContextConfig,
        folder: Path,
        *,
        direct: bool = False,
        index: VectorIndex | None = None,
        embedder: Embedder | None = None,
    ) -> None:
        self._config = config
        self._folder = folder
        self._index = index or MemoryIndex()
        self._embedder = embedder or SentenceTransformerEmbedder(config.embedding_model)
        self._stack = AsyncExitStack()
        self.direct = direct
        self.spec = ToolSpec(
            config.name,
            config.description,
            {
                "type": "object",
                "properties": {"question": {"type": "string", "description": "The question, in the user's words."}},
                "required": ["question"],
                "additionalProperties": False,
            },
        )

    async def __aenter__(self) -> VectorSearch:
        try:
            await self._open()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def _open(self) -> None:
        passages = await asyncio.to_thread(read_documents, self._config.documents, self._folder)
        await self._stack.enter_async_context(self._index)
        await self._stack.enter_async_context(self._embedder)
        cache = EmbeddingCache(None)
        if not self._index.is_durable:
            cache = await asyncio.to_thread(cache_for, self._folder, self._config.documents)

        async def embed(passages: Sequence[Passage]) -> NDArray[float32]:
            return await embed_cached([passage.embedded for passage in passages], self._embedder, cache)

        await self._index.fill(passages, embed)

    async def call(self, arguments: Mapping[str, Any]) -> str:
        question = arguments.get("question")
        if not isinstance(question, str) or not question.strip():
            raise ToolError("`question` must be a text.")
        [vector] = await asyncio.to_thread(self._embedder.embed, [question])
        found = await self._index.search(vector, top_k=self._config.top_k, min_similarity=MIN_SIMILARITY)
        if not found:
            return "No passage of the documents matches this question."
        return "\n\n".join(passage.shown for passage in found)
