"""The documents of an agent as passages: pieces that the embedder reads whole, each knowing where it stands."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent_runtime.errors import StartError
from agent_runtime.tools.retrieval.formats import Section, sections_of, text_sections

_log = logging.getLogger(__name__)

MAX_PASSAGE_WORDS = 180  # the embedder reads 256 word pieces; what is longer would be invisible to the search


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document. `heading` is the path of headings above it; `page` counts from 1, where there are any."""

    source: str
    heading: str
    text: str
    page: int | None = None

    @property
    def embedded(self) -> str:
        """The text that is searched: a section is often found by its heading alone."""
        return f"{self.heading}\n{self.text}"

    @property
    def shown(self) -> str:
        """The passage as the model reads it, with where it comes from."""
        where = self.source if self.page is None else f"{self.source}, page {self.page}"
        return f"**{self.heading}** ({where})\n\n{self.text}"


def read_documents(patterns: Sequence[str], folder: Path) -> list[Passage]:
    """The passages of all files that the patterns name, in the order of the files' names.

    Raises:
        StartError: a pattern is none, nothing matches, a file cannot be read, or there is no text at all.
    """
    passages: list[Passage] = []
    for file in _matching(patterns, folder):
        source = str(file.relative_to(folder))
        try:
            sections = sections_of(file)
        except StartError:
            raise
        except Exception as error:  # libraries raise many kinds for a file that is broken
            reason = " ".join(str(error).split()) or type(error).__name__
            raise StartError(f"the document {file} cannot be read: {reason}") from error
        if not sections:
            _log.warning("the document %s has no text; of a scan, only the pictures are there", source)
        passages += passages_of(sections, source)
    if not passages:
        raise StartError(f"the documents {', '.join(patterns)} are empty")
    return passages


def split(text: str, source: str) -> list[Passage]:
    """Cut Markdown or plain text at its headings, and long sections between their paragraphs."""
    return passages_of(text_sections(text), source)


def passages_of(sections: Iterable[Section], source: str) -> list[Passage]:
    """Cut long sections between their paragraphs."""
    return [
        Passage(source, section.heading or source, piece, section.page)
        for section in sections
        for piece in _packed(_paragraphs(section.text), "\n\n")
    ]


def _matching(patterns: Sequence[str], folder: Path) -> list[Path]:
    try:
        found = {file for pattern in patterns for file in folder.glob(pattern)}
    except (NotImplementedError, ValueError) as error:  # an absolute path, an empty text, `**` within a name
        raise StartError(f"a pattern of documents cannot be used: {error}") from error
    files = [file for file in found if file.is_file() and ".myagent" not in file.relative_to(folder).parts]
    if not files:
        raise StartError(f"no document matches {', '.join(patterns)} in {folder}")
    return sorted(files)


def _paragraphs(body: str) -> Iterator[str]:
    """The paragraphs; those that are too long by themselves, such as lists and tables, between their lines."""
    for paragraph in re.split(r"\n\s*\n", body):
        if len(paragraph.split()) <= MAX_PASSAGE_WORDS:
            yield paragraph.strip("\n")
        else:
            yield from _packed((part for line in paragraph.splitlines() for part in _line_parts(line)), "\n")


def _line_parts(line: str) -> Iterator[str]:
    words = line.split()
    if len(words) <= MAX_PASSAGE_WORDS:
        yield line
        return
    for start in range(0, len(words), MAX_PASSAGE_WORDS):
        yield " ".join(words[start : start + MAX_PASSAGE_WORDS])


def _packed(parts: Iterable[str], joint: str) -> Iterator[str]:
    """As many parts together as the embedder reads."""
    piece: list[str] = []
    words = 0
    for part in parts:
        count = len(part.split())
        if piece and words + count > MAX_PASSAGE_WORDS:
            yield joint.join(piece)
            piece, words = [], 0
        if count:
            piece.append(part)
            words += count
    if piece:
        yield joint.join(piece)
