"""The two dialects as a model speaks them, so that one test serves both."""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

from agent_runtime import Agent, Event, Finished, Text
from agent_runtime.events import Message, ModelChunk, ToolCall, ToolSpec, Usage
from agent_runtime.models.scripted import Reply, ScriptedModel
from tests.agents import TOOLS, write_agent

ALL_TOOLS = ["calculator:add", "calculator:shout", "calculator:fail"]


class Speaker:
    """Says in one dialect what a model would say."""

    def __init__(self, dialect: str) -> None:
        self.dialect = dialect
        self._calls = 0

    def calls(self, name: str, thought: str = "", /, usage: Usage | None = None, **arguments: Any) -> Reply:
        return self.calls_raw(name, json.dumps(arguments), thought, usage=usage)

    def calls_raw(self, name: str, arguments: str, thought: str = "", *, usage: Usage | None = None) -> Reply:
        self._calls += 1
        chunks: Sequence[ModelChunk]
        if self.dialect == "native":
            chunks = [*([thought] if thought else []), ToolCall(f"c{self._calls}", name, arguments)]
        else:
            chunks = [f"Thought: {thought}\nAction: {name}\nAction Input: {arguments}"]
        return [*chunks, usage] if usage else chunks

    def answers(self, text: str, *, usage: Usage | None = None) -> Reply:
        whole = text if self.dialect == "native" else f"Thought: I know the answer\nFinal Answer: {text}"
        return [whole, usage] if usage else whole


class Gated(ScriptedModel):
    """Says its first word, and the rest once the gate is open."""

    def __init__(self, *words: str) -> None:
        super().__init__([])
        self.words = words or ("first ", "second")
        self.gate = asyncio.Event()
        self.closed = asyncio.Event()

    async def stream(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec] = (), *, stop: Sequence[str] = ()
    ) -> AsyncGenerator[ModelChunk]:
        try:
            yield self.words[0]
            await self.gate.wait()
            for word in self.words[1:]:
                yield word
        finally:
            self.closed.set()


def scripted_agent(folder: Path, dialect: str, model: ScriptedModel, *, code: str = TOOLS, **sections: Any) -> Agent:
    """An agent over the tools of `code`, whose model follows a script."""
    file = write_agent(folder, code=code, **{"tools": ALL_TOOLS, "reasoning": {"dialect": dialect}, **sections})
    return Agent(file, model=model, environment={})


async def events_of(agent: Agent, message: str = "What is 2 + 3?", **options: Any) -> list[Event]:
    """Everything that happens until the answer is there."""
    async with agent:
        return [event async for event in agent.stream(message, **options)]


def finished(events: list[Event]) -> Finished:
    """The last event, after a check that the deltas are the answer."""
    last = events[-1]
    assert isinstance(last, Finished)
    assert "".join(event.delta for event in events if isinstance(event, Text)) == last.answer
    return last
