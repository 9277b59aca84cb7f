"""Evaluate a model on the questions in questions.yaml: a correct answer contains exactly the expected rows.

`python evaluate.py [MODEL]`: MODEL is a .gguf file or a hub id; the default is the built-in model.
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
    """The result of one question."""

    question: str
    correct: bool
    call: str
    seconds: float


async def outcomes(model: Model) -> AsyncIterator[Outcome]:
    """Ask the questions one after another and yield each result."""
    for entry in yaml.safe_load(QUESTIONS.read_text(encoding="utf-8")):
        started = time.monotonic()
        call = await first_call(model, entry["question"])
        seconds = time.monotonic() - started
        answer = await TOOLS[call.name].call(parse_arguments(call)) if call else ""
        expected = [str(row[0]) for row in orders.query(entry["sql"], today=str(orders.today()))]
        written = f"{call.name}({call.arguments})" if call else "no call"
        yield Outcome(entry["question"], bool(call) and matches(answer, expected), written, seconds)


async def first_call(model: Model, question: str) -> ToolCall | None:
    """The first tool call of the model's reply, if there is one."""
    specs = [tool.spec for tool in TOOLS.values()]
    async with aclosing(model.stream([Message("user", question)], specs)) as chunks:
        async for chunk in chunks:
            if isinstance(chunk, ToolCall):
                return chunk
    return None


def matches(answer: str, expected: list[str]) -> bool:
    """Whether the table of an answer contains exactly the expected rows; a truncated table, only expected rows."""
    shown = re.findall(r"^\| (?!Order|Customer|---)(.*?) \|", answer, re.MULTILINE)
    if len(expected) <= orders.MOST_ROWS:
        return sorted(shown) == sorted(expected)
    return (
        len(shown) == orders.MOST_ROWS and set(shown) <= set(expected) and answer.startswith(f"{len(expected)} orders")
    )


async def main(name: str) -> None:
    """Print every question, its tool call and whether the rows are correct, then the score."""
    done: list[Outcome] = []
    async with LocalModel(name) as model:
        async for outcome in outcomes(model):
            done.append(outcome)
            print(f"{'ok   ' if outcome.correct else 'WRONG'}  {outcome.seconds:4.1f} s  {outcome.question}")
            print(f"               {outcome.call}")
        print(f"{sum(outcome.correct for outcome in done)} of {len(done)} correct with {model.label}")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:2] or ["smollm2-135m"]))
