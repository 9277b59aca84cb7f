"""A small embedder for tests: a text is its words. Loads nothing, and knows what it was asked to embed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

import numpy


class WordEmbedder:
    """Vectors of word counts, each word at a place of its own (nearly)."""

    def __init__(self, name: str = "words", size: int = 512) -> None:
        self.name = name
        self.asked: list[str] = []
        self._size = size

    async def __aenter__(self) -> WordEmbedder:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        return None

    def embed(self, texts: Sequence[str]) -> Any:
        self.asked += texts
        vectors = numpy.zeros((len(texts), self._size), numpy.float32)
        for row, text in zip(vectors, texts, strict=True):
            for word in re.findall(r"\w+", text.lower()):
                row[int.from_bytes(hashlib.sha256(word.encode()).digest()[:4]) % self._size] += 1
        return vectors / numpy.maximum(numpy.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
