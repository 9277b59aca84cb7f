"""Output for people: tables, and styles on a terminal only."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text


def console(stream: TextIO) -> Console:
    """A console that prints text unchanged; styles reach a terminal only, and not where `NO_COLOR` is set."""
    return Console(
        file=stream,
        color_system=None if "NO_COLOR" in os.environ else "auto",
        width=1_000_000,  # nothing is wrapped or cut, so that it can be copied
        soft_wrap=True,
        highlight=False,
        markup=False,
        emoji=False,
    )


def print_table(out: Console, rows: Sequence[Sequence[str | Text]], titles: Sequence[str] = ()) -> None:
    """Print rows in aligned columns, two spaces apart. A title that starts with `>` aligns its column to the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=bool(titles), header_style="dim")
    for title in titles or [""] * len(rows[0]):
        table.add_column(title.lstrip(">"), justify="right" if title.startswith(">") else "left")
    for row in rows:
        table.add_row(*row)
    with out.capture() as printed:
        out.print(table)
    out.file.write("".join(f"{line.rstrip()}\n" for line in printed.get().splitlines()))
    out.file.flush()


def status_mark(is_ok: bool) -> Text:
    """The mark of a check that passed or failed."""
    return Text("  ok", style="green") if is_ok else Text("  NO", style="red")
