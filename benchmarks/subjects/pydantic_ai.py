"""Pydantic AI."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from benchmarks.subjects.common import KEY, MODEL, PROMPT, add, serve_with_fastapi


def _model(url: str) -> OpenAIChatModel:
    return OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=url, api_key=KEY))


class Subject:
    """One agent with the tool, and one without for talk."""

    async def open(self, url: str) -> None:
        model = _model(url)
        self._agent = Agent(model, tools=[add], instructions=PROMPT)
        self._talker = Agent(model, instructions=PROMPT)

    async def run(self, question: str) -> str:
        return (await self._agent.run(question)).output

    async def stream(self, message: str) -> AsyncGenerator[str]:
        async with self._talker.run_stream(message) as result:
            async for delta in result.stream_text(delta=True, debounce_by=None):
                yield delta

    async def idle(self, count: int, folder: Path) -> list[Any]:
        model = _model("http://127.0.0.1:9/v1")
        return [Agent(model, name=f"agent-{number}", tools=[add], instructions=PROMPT) for number in range(count)]

    async def serve(self, port: int, folder: Path) -> None:
        await serve_with_fastapi(self.run, port)
