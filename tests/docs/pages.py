"""The pages as the tests read them: their code blocks, and the rows of their tables."""

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
    """One fenced block. `output` is the text block right behind a block of commands, if there is one."""

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
    """All blocks of a page; an output stands with its commands and not alone."""
    found: list[Block] = []
    for block, follows in _blocks(page):
        if block.language == "text" and follows and found and found[-1].language == "sh":
            last = found.pop()
            found.append(Block(last.page, last.line, last.language, last.title, last.text, block.text))
        else:
            found.append(block)
    return found


def _blocks(page: str) -> Iterator[tuple[Block, bool]]:
    """Each block, and whether nothing stands between it and the one before."""
    inside: tuple[int, str, str] | None = None
    taken: list[str] = []
    follows = False
    for number, line in enumerate(text_of(page).splitlines(), start=1):
        fence = _FENCE.match(line)
        if inside is None and fence:
            inside, taken = (number, fence[1] or "", fence[2] or ""), []
        elif inside is not None and line == "```":
            start, language, title = inside
            yield Block(page, start, language, title, "\n".join(taken) + "\n"), follows
            inside, follows = None, True
        elif inside is not None:
            taken.append(line)
        elif line.strip():
            follows = False
    assert inside is None, f"{page}: the block at line {inside} does not end"


def blocks(language: str) -> list[Block]:
    return [block for page in PAGES for block in blocks_of(page) if block.language == language]


def rows(page: str) -> Iterator[tuple[str, str, list[str]]]:
    """The rows of all tables: the heading a table stands under, what its first column is called, and the cells."""
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
    """What stands between backticks in a cell."""
    return re.findall(r"`([^`]+)`", cell)
