"""Ask a model the twenty questions beside this file and count the answers that hold exactly the right rows.

`python evaluate.py [MODEL]`: the built-in model, unless MODEL names a .gguf file or a hub id.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import orders
import yaml

from agent_runtime.events import Message, ToolCall
from agent_runtime.models import Model
from agent_runtime.models.local import LocalModel
from agent_runtime.tools import FunctionTool, parse_arguments

QUESTIONS = Path(__file__).with_name("questions.yaml")
TOOLS = {tool.spec.name: tool for tool in map(FunctionTool, (orders.search_orders, orders.top_customers))}


@dataclass(frozen=True)
class Outcome:
    """How one question went."""

    question: str
    right: bool
    call: str
    seconds: float


async def outcomes(model: Model) -> AsyncIterator[Outcome]:
    """Every question with how it went, one after another."""
    for entry in yaml.safe_load(QUESTIONS.read_text(encoding="utf-8")):
        started = time.monotonic()
        call = await first_call(model, entry["question"])
        seconds = time.monotonic() - started
        answer = await TOOLS[call.name].call(parse_arguments(call)) if call else ""
        wanted = [str(row[0]) for row in orders.query(entry["sql"], today=str(orders.today()))]
        written = f"{call.name}({call.arguments})" if call else "no call"
        yield Outcome(entry["question"], bool(call) and holds(answer, wanted), written, seconds)


async def first_call(model: Model, question: str) -> ToolCall | None:
    """The tool call that the model answers with, if it does."""
    specs = [tool.spec for tool in TOOLS.values()]
    async with aclosing(model.stream([Message("user", question)], specs)) as chunks:
        async for chunk in chunks:
            if isinstance(chunk, ToolCall):
                return chunk
    return None


def holds(answer: str, wanted: list[str]) -> bool:
    """Whether the table of an answer holds exactly the wanted rows; of one that was cut, as many as there are."""
    shown = re.findall(r"^\| (?!Order|Customer|---)(.*?) \|", answer, re.MULTILINE)
    if len(wanted) <= orders.MOST_ROWS:
        return sorted(shown) == sorted(wanted)
    return len(shown) == orders.MOST_ROWS and set(shown) <= set(wanted) and answer.startswith(f"{len(wanted)} orders")


async def main(name: str) -> None:
    """Print every question, its call and whether the rows were right, then the score."""
    done: list[Outcome] = []
    async with LocalModel(name) as model:
        async for outcome in outcomes(model):
            done.append(outcome)
            print(f"{'right' if outcome.right else 'WRONG'}  {outcome.seconds:4.1f} s  {outcome.question}")
            print(f"               {outcome.call}")
        print(f"{sum(outcome.right for outcome in done)} of {len(done)} right with {model.label}")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:2] or ["smollm2-135m"]))
