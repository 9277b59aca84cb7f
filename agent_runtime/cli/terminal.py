"""Output for people: tables, styles on a terminal only, and a conversation with an agent."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text as Styled

from agent_runtime.agent import Agent
from agent_runtime.bridge import BlockingPortal
from agent_runtime.errors import MyAgentError
from agent_runtime.events import Event, Finished, Plan, Text, Thought, ToolCalled, ToolResult
from agent_runtime.masking import LOG_MASK

_MARKS = {"pending": "○", "done": "●", "failed": "✗"}
_UNLIMITED = 1_000_000  # columns: nothing is wrapped or cut, so that it can be copied


def console(stream: TextIO) -> Console:
    """A console that prints text unchanged; styles reach a terminal only, and not where `NO_COLOR` is set."""
    return Console(
        file=stream,
        color_system=None if "NO_COLOR" in os.environ else "auto",
        width=_UNLIMITED,
        soft_wrap=True,
        highlight=False,
        markup=False,
        emoji=False,
    )


def print_table(out: Console, rows: Sequence[Sequence[str | Styled]], titles: Sequence[str] = ()) -> None:
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


def status_mark(is_ok: bool) -> Styled:
    """The mark of a check that passed or failed."""
    return Styled("  ok", style="green") if is_ok else Styled("  NO", style="red")


def converse(config: Path, message: str | None, session: str) -> None:
    """Answer one message, or every line that is typed. Raises as `Agent` does."""
    agent = Agent(config)
    portal = BlockingPortal()
    try:
        portal.call(agent.__aenter__)
        if message:
            portal.call(_show_answer, agent, message, session)
            return
        greeting = f"{agent.config.name} answers with {agent.model_label}; an empty line or Ctrl-D ends."
        console(sys.stdout).print(greeting, style="dim")
        while line := _read_line():
            try:
                portal.call(_show_answer, agent, line, session)
            except MyAgentError as error:
                print(LOG_MASK(f"myagent: {error}"), file=sys.stderr)
    finally:
        portal.call(agent.aclose)
        portal.close()


def _read_line() -> str:
    try:
        return input("> ").strip()
    except EOFError:
        print()
        return ""


async def _show_answer(agent: Agent, message: str, session: str) -> None:
    """Print the answer to standard output as it streams, and the steps to standard error."""
    steps = console(sys.stderr)
    async with aclosing(agent.stream(message, session_id=session)) as events:
        async for event in events:
            if isinstance(event, Text):
                print(event.delta, end="", flush=True)
                continue
            if isinstance(event, Finished):
                print()
            if step := _step(event):
                steps.print(f"  {step}", style="dim")


def _step(event: Event) -> str | None:
    match event:
        case Plan(steps):
            return "plan     " + " · ".join(f"{_MARKS[step.status]} {step.text}" for step in steps)
        case Thought(text):
            return f"thought  {text}"
        case ToolCalled(_, name, arguments):
            return f"calls    {name} {json.dumps(arguments, ensure_ascii=False)}"
        case ToolResult(_, _, content, is_error, duration_ms):
            lines = len(content.splitlines())
            size = content if is_error else f"{lines} line{'' if lines == 1 else 's'}"
            return f"{'error' if is_error else 'result':8} {size} in {duration_ms} ms"
        case Finished(_, stop_reason) if stop_reason != "finished":
            return f"stopped  {stop_reason}"
        case _:
            return None
