"""Documents as passages, which an embedding model reads as a whole, and the index that finds them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from agent_runtime.errors import StartError
from agent_runtime.tools.retrieval.formats import Section, sections_of, text_sections

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

    Embed = Callable[[Sequence["Passage"]], Awaitable[NDArray[float32]]]
    """Embeds passages: (n, d), rows of unit length."""

_log = logging.getLogger(__name__)

MAX_PASSAGE_WORDS = 180  # the model reads 256 tokens; the rest of a longer passage would not be found


@dataclass(frozen=True, slots=True)
class Passage:
    """A part of a document. `heading` is the path of headings above it; `page` counts from 1, in a PDF."""

    source: str
    heading: str
    text: str
    page: int | None = None

    @property
    def embedded(self) -> str:
        """The text to embed: a section is often found by its heading alone."""
        return f"{self.heading}\n{self.text}"

    @property
    def shown(self) -> str:
        """The passage for the model, with its source."""
        source = self.source if self.page is None else f"{self.source}, page {self.page}"
        return f"**{self.heading}** ({source})\n\n{self.text}"


def read_documents(patterns: Sequence[str], folder: Path) -> list[Passage]:
    """The passages of all files that match the patterns, sorted by file name.

    Raises:
        StartError: a pattern is invalid, no file matches, a file cannot be read, or the files are empty.
    """
    passages: list[Passage] = []
    for file in _matching(patterns, folder):
        source = str(file.relative_to(folder))
        try:
            sections = sections_of(file)
            found = passages_of(sections, source)
        except ModuleNotFoundError as error:
            kind = file.suffix.removeprefix(".").upper() or "text"
            raise StartError(f"reading {kind} documents needs an extra: pip install 'myagent[vector]'") from error
        except Exception as error:  # libraries raise many types for a broken file
            reason = " ".join(str(error).split()) or type(error).__name__
            raise StartError(f"the document {file} cannot be read: {reason}") from error
        if not sections:
            _log.warning("the document %s has no text; a scan contains only images", source)
        passages += found
    if not passages:
        raise StartError(f"the documents {', '.join(patterns)} are empty")
    return passages


def split(text: str, source: str) -> list[Passage]:
    """Split Markdown or plain text at its headings, and long sections between paragraphs."""
    return passages_of(text_sections(text), source)


def passages_of(sections: Iterable[Section], source: str) -> list[Passage]:
    """Split long sections at paragraphs, else at lines, sentences or words."""
    from semantic_text_splitter import TextSplitter

    splitter = TextSplitter.from_callback(lambda text: len(text.split()), MAX_PASSAGE_WORDS)
    return [
        Passage(source, section.heading or source, piece, section.page)
        for section in sections
        for piece in splitter.chunks(section.text)
    ]


def _matching(patterns: Sequence[str], folder: Path) -> list[Path]:
    try:
        matches = {file for pattern in patterns for file in folder.glob(pattern)}
    except (NotImplementedError, ValueError) as error:  # an absolute path, an empty text, `**` within a name
        raise StartError(f"a pattern in `documents` is invalid: {error}") from error
    files = [file for file in matches if file.is_file() and ".myagent" not in file.relative_to(folder).parts]
    if not files:
        raise StartError(f"no document matches {', '.join(patterns)} in {folder}")
    return sorted(files)


class VectorIndex(Protocol):
    """Passages with their embeddings, ranked exactly. Opened with `async with`."""

    async def __aenter__(self) -> VectorIndex: ...

    async def __aexit__(self, *exc_info: object) -> None: ...

    is_durable: bool
    """Whether the embeddings are kept when it is closed."""

    async def fill(self, passages: Sequence[Passage], embed: Embed) -> None:
        """Replace the passages with these, at least one; passages without stored embeddings are embedded."""
        ...

    async def search(self, vector: NDArray[float32], *, top_k: int, min_similarity: float) -> list[Passage]:
        """The passages with the highest cosine similarity, at least `min_similarity`, best first."""
        ...


class MemoryIndex:
    """All embeddings in one matrix in memory."""

    is_durable = False

    def __init__(self) -> None:
        self._passages: Sequence[Passage] = ()
        self._vectors: NDArray[float32] | None = None

    async def __aenter__(self) -> MemoryIndex:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._passages, self._vectors = (), None

    async def fill(self, passages: Sequence[Passage], embed: Embed) -> None:
        self._passages, self._vectors = passages, await embed(passages)

    async def search(self, vector: NDArray[float32], *, top_k: int, min_similarity: float) -> list[Passage]:
        return await asyncio.to_thread(self._rank, vector, top_k, min_similarity)

    def _rank(self, vector: NDArray[float32], top_k: int, min_similarity: float) -> list[Passage]:
        assert self._vectors is not None, "fill the index first"
        similarities = self._vectors @ vector
        count = min(top_k, len(similarities))
        partitioned = similarities.copy()
        partitioned.partition(-count)  # sorting all of them would take as long as the product
        [candidates] = (similarities >= max(partitioned[-count], min_similarity)).nonzero()
        best = candidates[(-similarities[candidates]).argsort(kind="stable")][:count]
        return [self._passages[index] for index in best]
