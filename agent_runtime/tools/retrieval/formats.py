"""Documents as sections: each file format is split by its own structure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pypdf import PdfReader


@dataclass(frozen=True, slots=True)
class Section:
    """The text under one heading or on one page. `heading` is the path of headings above it; it may be empty."""

    heading: str
    text: str
    page: int | None = None


def sections_of(file: Path) -> list[Section]:
    """The sections of a PDF, HTML, Markdown or text file.

    Raises:
        ModuleNotFoundError: the extra for the format is not installed.
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
        level = len(heading[1])
        headings = {depth: above for depth, above in headings.items() if depth < level} | {level: heading[2]}
    yield Section(_path(headings), "\n".join(body))


def _read_text(file: Path) -> Iterator[Section]:
    return text_sections(file.read_text(encoding="utf-8-sig"))


def _path(headings: Mapping[int, str]) -> str:
    return " > ".join(headings.values())


# --- PDF: a section is a page, and its heading the last entry of the outline that begins on it or before


def _read_pdf(file: Path) -> Iterator[Section]:
    from pypdf import PdfReader

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

_NOT_CONTENT = ("head", "nav", "script", "style", "template", "noscript", "svg", "iframe", "button", "select")


def _read_html(file: Path) -> Iterator[Section]:
    from bs4 import BeautifulSoup
    from markdownify import MarkdownConverter

    page = BeautifulSoup(file.read_bytes(), "html.parser")
    title = f"# {' '.join(page.title.text.split())}\n\n" if page.title else ""
    for tag in page(_NOT_CONTENT):
        tag.decompose()
    converter = MarkdownConverter(
        heading_style="atx",
        bullets="-",
        strip=["a", "b", "em", "i", "img", "strong"],
        escape_asterisks=False,
        escape_underscores=False,
    )
    return text_sections(title + converter.convert_soup(page))


_READERS: Mapping[str, Callable[[Path], Iterator[Section]]] = {
    ".pdf": _read_pdf,
    ".html": _read_html,
    ".htm": _read_html,
    ".xhtml": _read_html,
}
