"""A conversation in the terminal: the answer on standard output as it comes, the steps on standard error."""

from __future__ import annotations

import json
import os
import sys
from contextlib import aclosing
from pathlib import Path

from agent_runtime.agent import Agent
from agent_runtime.bridge import BlockingPortal
from agent_runtime.errors import MyAgentError
from agent_runtime.events import Finished, Plan, Text, Thought, ToolCalled, ToolResult
from agent_runtime.masking import LOG_MASK


def converse(config: Path, message: str | None, session: str) -> int:
    """Answer one message, or every line that a person types; returns the exit status. Raises as `Agent` does."""
    agent = Agent(config)
    portal = BlockingPortal()
    try:
        portal.call(agent.__aenter__)
        if message:
            portal.call(_show, agent, message, session)
            return 0
        print(_dim(f"{agent.config.name} answers with {agent.model_label}; an empty line or Ctrl-D ends."))
        while asked := _asked():
            try:
                portal.call(_show, agent, asked, session)
            except MyAgentError as error:
                print(LOG_MASK(f"myagent: {error}"), file=sys.stderr)
        return 0
    finally:
        portal.call(agent.aclose)
        portal.close()


def _asked() -> str:
    try:
        return input("> ").strip()
    except EOFError:
        print()
        return ""


async def _show(agent: Agent, message: str, session: str) -> None:
    """Print an answer as it comes, and the steps on the way to standard error."""
    async with aclosing(agent.stream(message, session_id=session)) as events:
        async for event in events:
            match event:
                case Plan(steps):
                    plan = " · ".join(f"{_MARKS[step.status]} {step.text}" for step in steps)
                    print(_dim(f"  plan     {plan}"), file=sys.stderr)
                case Thought(text):
                    print(_dim(f"  thought  {text}"), file=sys.stderr)
                case ToolCalled(_, name, given):
                    print(_dim(f"  calls    {name} {json.dumps(given, ensure_ascii=False)}"), file=sys.stderr)
                case ToolResult(_, name, content, is_error, duration_ms):
                    lines = len(content.splitlines())
                    size = content if is_error else f"{lines} line{'' if lines == 1 else 's'}"
                    print(_dim(f"  {'error' if is_error else 'result':8} {size} in {duration_ms} ms"), file=sys.stderr)
                case Text(delta):
                    print(delta, end="", flush=True)
                case Finished(_, stop_reason):
                    print()
                    if stop_reason != "finished":
                        print(_dim(f"  stopped  {stop_reason}"), file=sys.stderr)
                case _:
                    pass


_MARKS = {"pending": "○", "done": "●", "failed": "✗"}


def _dim(text: str) -> str:
    return f"\x1b[2m{text}\x1b[0m" if sys.stderr.isatty() and "NO_COLOR" not in os.environ else text
