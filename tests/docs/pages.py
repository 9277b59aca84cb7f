"""Reads the pages for the tests: code blocks and table rows."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page.relative_to(ROOT).as_posix()
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"))
)
_FENCE = re.compile(r"^```(\w+)?(?: title=\"([^\"]*)\")?\s*$")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block. `output` is the text block directly after a block of commands, if there is one."""

    page: str
    line: int
    language: str
    title: str
    text: str
    output: str | None = None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks_of(page: str) -> list[Block]:
    """All blocks of a page; an output belongs to its commands."""
    found: list[Block] = []
    for block, follows in _blocks(page):
        if block.language == "text" and follows and found and found[-1].language == "sh":
            last = found.pop()
            found.append(Block(last.page, last.line, last.language, last.title, last.text, block.text))
        else:
            found.append(block)
    return found


def _blocks(page: str) -> Iterator[tuple[Block, bool]]:
    """Each block, and whether it directly follows the one before."""
    opened: tuple[int, str, str] | None = None
    lines: list[str] = []
    follows = False
    for number, line in enumerate(text_of(page).splitlines(), start=1):
        fence = _FENCE.match(line)
        if opened is None and fence:
            opened, lines = (number, fence[1] or "", fence[2] or ""), []
        elif opened is not None and line == "```":
            start, language, title = opened
            yield Block(page, start, language, title, "\n".join(lines) + "\n"), follows
            opened, follows = None, True
        elif opened is not None:
            lines.append(line)
        elif line.strip():
            follows = False
    assert opened is None, f"{page}: the block at line {opened} does not end"


def blocks(language: str) -> list[Block]:
    return [block for page in PAGES for block in blocks_of(page) if block.language == language]


def rows(page: str) -> Iterator[tuple[str, str, list[str]]]:
    """The rows of all tables: the heading above the table, the name of its first column, and the cells."""
    heading, first = "", ""
    for line in text_of(page).splitlines():
        if line.startswith("#"):
            heading = line.lstrip("#").strip()
        elif not line.startswith("|"):
            first = ""
        elif not line.startswith("|---"):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            if first:
                yield heading, first, cells
            else:
                first = cells[0] or "–"


def codes(cell: str) -> list[str]:
    """The code spans of a cell."""
    return re.findall(r"`([^`]+)`", cell)
