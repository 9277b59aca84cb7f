"""Documents as sections: each file format is split by its own structure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent_runtime.errors import StartError

if TYPE_CHECKING:
    from pypdf import PdfReader
    from selectolax.lexbor import LexborNode


@dataclass(frozen=True, slots=True)
class Section:
    """The text under one heading or on one page. `heading` is the path of headings above it; it may be empty."""

    heading: str
    text: str
    page: int | None = None


def sections_of(file: Path) -> list[Section]:
    """The sections of a PDF, HTML, Markdown or text file.

    Raises:
        StartError: the extra for the format is not installed.
        Exception: the file is broken; libraries raise many types.
    """
    read = _READERS.get(file.suffix.lower(), _read_text)
    return [section for section in read(file) if section.text.strip()]


def text_sections(text: str) -> Iterator[Section]:
    """Markdown or plain text, split at its headings."""
    headings: dict[int, str] = {}
    body: list[str] = []
    fenced = False
    for line in text.splitlines():
        fenced ^= line.lstrip().startswith("```")
        heading = None if fenced else re.match(r"(#{1,6})\s+(.+?)\s*#*$", line)
        if heading is None:
            body.append(line)
            continue
        yield Section(_path(headings), "\n".join(body))
        body = []
        headings = _with_heading(headings, len(heading[1]), heading[2])
    yield Section(_path(headings), "\n".join(body))


def _read_text(file: Path) -> Iterator[Section]:
    return text_sections(file.read_text(encoding="utf-8-sig"))


def _with_heading(headings: Mapping[int, str], level: int, text: str) -> dict[int, str]:
    return {depth: above for depth, above in headings.items() if depth < level} | {level: text}


def _path(headings: Mapping[int, str]) -> str:
    return " > ".join(headings.values())


# --- PDF: a section is a page, and its heading the last entry of the outline that begins on it or before


def _read_pdf(file: Path) -> Iterator[Section]:
    try:
        from pypdf import PdfReader
    except ModuleNotFoundError as error:
        raise _missing_extra("PDF") from error
    with PdfReader(file) as reader:
        if reader.is_encrypted and not reader.decrypt(""):
            raise ValueError("it is protected by a password")
        outline = _outline(reader)
        for number, page in enumerate(reader.pages):
            headings = [path for first, path in outline if first <= number]
            yield Section(headings[-1] if headings else "", page.extract_text(), number + 1)


def _outline(reader: PdfReader) -> list[tuple[int, str]]:
    """The first page, from 0, and the path of titles of each entry."""
    found: list[tuple[int, str]] = []

    def walk(entries: list[Any], above: str) -> None:
        path = above
        for entry in entries:
            if isinstance(entry, list):
                walk(entry, path)  # pyright: ignore[reportUnknownArgumentType]
                continue
            path = f"{above} > {entry.title}" if above else str(entry.title)
            page = reader.get_destination_page_number(entry)
            if page is not None and page >= 0:
                found.append((page, path))

    walk(reader.outline, "")
    return sorted(found, key=lambda entry: entry[0])


# --- HTML

_SKIPPED = frozenset({"head", "script", "style", "template", "noscript", "nav", "svg", "iframe", "button", "select"})
_BLOCKS = frozenset(
    {"address", "article", "aside", "blockquote", "body", "dd", "details", "div", "dl", "dt", "fieldset", "figcaption"}
    | {"figure", "footer", "form", "header", "hr", "html", "li", "main", "ol", "p", "section", "summary", "table"}
    | {"tbody", "tfoot", "thead", "ul"}
)
_CHARSET = re.compile(rb"""<meta[^>]+charset\s*=\s*["']?([\w.:-]+)""", re.IGNORECASE)


def _read_html(file: Path) -> Iterator[Section]:
    try:
        from selectolax.lexbor import LexborHTMLParser
    except ModuleNotFoundError as error:
        raise _missing_extra("HTML") from error
    content = file.read_bytes()
    declared = _CHARSET.search(content[:2048])
    try:
        text = content.decode(declared[1].decode() if declared else "utf-8", errors="replace")
    except LookupError:
        text = content.decode(errors="replace")
    tree = LexborHTMLParser(text.removeprefix("\ufeff"))
    title = tree.css_first("head > title")
    reader = _HtmlReader(_collapse(title.text()) if title else "")
    if tree.root:
        reader.read(tree.root)
    return reader.sections()


class _HtmlReader:
    """Converts a tree of elements to sections of plain text."""

    def __init__(self, title: str) -> None:
        self._headings: dict[int, str] = {0: title} if title else {}
        self._done: list[Section] = []
        self._blocks: list[str] = []
        self._line = ""

    def read(self, node: LexborNode) -> None:
        for child in node.iter(include_text=True):
            self._read_one(child, child.tag or "")

    def sections(self) -> Iterator[Section]:
        self._end_section()
        return iter(self._done)

    def _read_one(self, node: LexborNode, tag: str) -> None:
        if tag == "-text":
            self._line += re.sub(r"\s+", " ", node.text())
        elif tag == "br":
            self._line += "\n"
        elif tag in _SKIPPED or tag.startswith(("-", "!")):
            return
        elif re.fullmatch("h[1-6]", tag):
            self._end_section()
            level, text = int(tag[1]), _collapse(node.text())
            # An <h1> replaces the title of the page, which it usually repeats.
            above = {} if level == 1 else self._headings
            self._headings = _with_heading(above, level, text) if text else self._headings
        elif tag == "pre":
            self._end_block()
            self._blocks.append(node.text().strip("\n"))
        elif tag == "tr":
            self._end_block()
            self._blocks.append(" | ".join(_collapse(cell.text(separator=" ")) for cell in node.iter()))
        elif tag in _BLOCKS:
            self._end_block()
            self._line = "- " if tag == "li" else ""
            self.read(node)
            self._end_block()
        else:
            self.read(node)

    def _end_block(self) -> None:
        lines = [_collapse(line) for line in self._line.splitlines()]
        block = "\n".join(line for line in lines if line and line != "-")
        self._line = ""
        if block.startswith("- ") and self._blocks and self._blocks[-1].startswith("- "):
            self._blocks[-1] += f"\n{block}"
        elif block:
            self._blocks.append(block)

    def _end_section(self) -> None:
        self._end_block()
        self._done.append(Section(_path(self._headings), "\n\n".join(self._blocks)))
        self._blocks = []


def _collapse(text: str) -> str:
    return " ".join(text.split())


def _missing_extra(kind: str) -> StartError:
    return StartError(f"reading {kind} documents needs an extra: pip install 'myagent[vector]'")


_READERS: Mapping[str, Callable[[Path], Iterator[Section]]] = {
    ".pdf": _read_pdf,
    ".html": _read_html,
    ".htm": _read_html,
    ".xhtml": _read_html,
}
