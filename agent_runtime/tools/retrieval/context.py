"""Documents as a tool: read and embedded when it is opened, searched by meaning."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from agent_runtime.config import ContextConfig
from agent_runtime.errors import ToolError
from agent_runtime.events import ToolSpec
from agent_runtime.tools.retrieval.cache import EmbeddingCache, cache_for
from agent_runtime.tools.retrieval.documents import Passage, read_documents
from agent_runtime.tools.retrieval.embedder import Embedder, SentenceTransformer, embedded
from agent_runtime.tools.retrieval.index import MemoryIndex, VectorIndex

LEAST_SIMILARITY = 0.2  # below it a passage has nothing to do with the question


class VectorContext:
    """A search over documents."""

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
        self._embedder = embedder or SentenceTransformer(config.embedding_model)
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

    async def __aenter__(self) -> VectorContext:
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

        async def embed(some: Sequence[Passage]) -> Any:
            return await embedded([passage.embedded for passage in some], self._embedder, cache)

        await self._index.fill(passages, embed)

    async def call(self, arguments: Mapping[str, Any]) -> str:
        """The passages that fit best, best first, each under its heading and source."""
        question = arguments.get("question")
        if not isinstance(question, str) or not question.strip():
            raise ToolError("`question` must be a text.")
        [vector] = await asyncio.to_thread(self._embedder.embed, [question])
        found = await self._index.search(vector, top_k=self._config.top_k, least=LEAST_SIMILARITY)
        if not found:
            return "Nothing in the documents fits this question."
        return "\n\n".join(passage.shown for passage in found)
