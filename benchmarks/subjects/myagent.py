"""This product, from an agent file as its users write it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from agent_runtime import Agent, Text
from benchmarks.subjects.common import KEY, MODEL, PROMPT

FILE = """\
name: {name}
agent_type: {kind}
model:
  name: {model}
  endpoint: {url}
  api_key: {key}
system_prompt: {prompt}
tools: [{tools}]
session:
  store: sqlite:///sessions.db
server:
  port: {port}
"""
TOOL = "benchmarks.subjects.common:add"


def write(folder: Path, url: str, *, name: str = "adder", tools: str = TOOL, kind: str = "tool", port: int = 0) -> Path:
    """An agent file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.yaml"
    text = FILE.format(name=name, kind=kind, model=MODEL, url=url, key=KEY, prompt=PROMPT, tools=tools, port=port)
    file.write_text(text, encoding="utf-8")
    return file


class Subject:
    """One agent with the tool, and one without for talk."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._url = ""

    async def open(self, url: str) -> None:
        await self._stack.aclose()
        folder = Path(self._stack.enter_context(TemporaryDirectory()))
        self._url = url
        self._agent = await self._stack.enter_async_context(Agent(write(folder, url)))
        self._talker: Agent | None = None
        self._talks_from = folder

    async def run(self, question: str) -> str:
        return (await self._agent.run(question)).answer

    async def stream(self, message: str) -> AsyncGenerator[str]:
        if self._talker is None:
            file = write(self._talks_from, self._url, name="talker", tools="")
            self._talker = await self._stack.enter_async_context(Agent(file))
        async for event in self._talker.stream(message):
            if isinstance(event, Text):
                yield event.delta

    async def idle(self, count: int, folder: Path) -> list[Any]:
        return [Agent(folder / f"agent-{number}.yaml") for number in range(count)]

    async def opened(self, count: int, folder: Path) -> list[Any]:
        """The same, each from a file of its own and with all that it needs."""
        files = [write(folder, "http://127.0.0.1:9/v1", name=f"agent-{number}") for number in range(count)]
        return [await self._stack.enter_async_context(Agent(file)) for file in files]

    async def serve(self, port: int, folder: Path) -> None:
        from agent_runtime.agent_file import load
        from agent_runtime.observability import Telemetry
        from agent_runtime.server.serve import serve

        file = await asyncio.to_thread(write, folder, self._url, kind="stateful", port=port)
        await serve([await load(file)], telemetry=Telemetry())
