"""Agno."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

os.environ["AGNO_TELEMETRY"] = "false"

from agno.agent import Agent
from agno.models.openai import OpenAIChat

from benchmarks.subjects.common import KEY, MODEL, PROMPT, add, serve_with_fastapi


class Subject:
    """One agent with the tool, and one without for talk."""

    async def open(self, url: str) -> None:
        model = OpenAIChat(id=MODEL, api_key=KEY, base_url=url)
        self._agent = Agent(model=model, tools=[add], instructions=PROMPT, telemetry=False)
        self._talker = Agent(model=model, instructions=PROMPT, telemetry=False)

    async def run(self, question: str) -> str:
        return str((await self._agent.arun(question)).content)

    async def stream(self, message: str) -> AsyncGenerator[str]:
        async for event in self._talker.arun(message, stream=True):
            if event.event == "RunContent":
                yield str(event.content)

    async def idle(self, count: int, folder: Path) -> list[Any]:
        model = OpenAIChat(id=MODEL, api_key=KEY, base_url="http://127.0.0.1:9/v1")
        return [
            Agent(name=f"agent-{number}", model=model, tools=[add], instructions=PROMPT, telemetry=False)
            for number in range(count)
        ]

    async def serve(self, port: int, folder: Path) -> None:
        await serve_with_fastapi(self.run, port)
