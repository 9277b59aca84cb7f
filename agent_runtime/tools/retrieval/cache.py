"""Vectors on disk, by the content they were made of: what did not change is not embedded again.

Losing the cache costs time and nothing else, so whatever is wrong with it is logged and passed over.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_log = logging.getLogger(__name__)

_KEY_BYTES = 32


def key_of(model: str, text: str) -> bytes:
    """The name of a text's vector."""
    return hashlib.sha256(f"{model}\0{text}".encode(errors="surrogatepass")).digest()


class EmbeddingCache:
    """The vectors of one search; without a file, of none. Its methods block: call them in a thread."""

    def __init__(self, file: Path | None) -> None:
        self._file = file

    def read(self) -> dict[bytes, Any]:
        """All vectors that are kept, by their keys."""
        if self._file is None:
            return {}
        numpy: Any = importlib.import_module("numpy")
        try:
            with self._file.open("rb") as file, numpy.load(file, allow_pickle=False) as kept:
                keys, vectors = kept["keys"], kept["vectors"]
            if keys.shape != (len(vectors), _KEY_BYTES) or vectors.ndim != 2 or not numpy.isfinite(vectors).all():
                raise ValueError("its parts do not fit")
            return {bytes(key): vector for key, vector in zip(keys, vectors, strict=True)}
        except FileNotFoundError:
            return {}
        except Exception as error:  # half a zip file, another's file: numpy raises many kinds
            _log.warning("the embedding cache %s cannot be used: %s", self._file, error)
            return {}

    def write(self, vectors: Mapping[bytes, Any]) -> None:
        """Keep these and no others; a process that reads meanwhile sees all of them or none."""
        if self._file is None:
            return
        numpy: Any = importlib.import_module("numpy")
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
    """The cache of a search over documents: beside the agent file, or in the user's cache where that cannot be."""
    name = hashlib.sha256("\0".join([str(folder.resolve()), *documents]).encode()).hexdigest()[:16]
    for place in (folder / ".myagent", user_folder or Path.home() / ".cache" / "myagent"):
        try:
            embeddings = place / "embeddings"
            embeddings.mkdir(parents=True, exist_ok=True)
            ignore = place / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n", encoding="utf-8")
            if os.access(embeddings, os.W_OK):
                return EmbeddingCache(embeddings / f"{name}.npz")
        except (OSError, RuntimeError):  # not writable, a file in its place; no home
            continue
    _log.warning("no embedding cache: neither %s nor the user's cache folder can be written", folder)
    return EmbeddingCache(None)
