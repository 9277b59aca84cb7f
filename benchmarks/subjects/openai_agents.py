"""OpenAI's Agents SDK."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from agents import Agent, OpenAIChatCompletionsModel, Runner, function_tool, set_tracing_disabled
from openai import AsyncOpenAI

from benchmarks.subjects.common import KEY, MODEL, PROMPT, add, serve_with_fastapi

set_tracing_disabled(True)


def _model(url: str) -> OpenAIChatCompletionsModel:
    return OpenAIChatCompletionsModel(MODEL, AsyncOpenAI(api_key=KEY, base_url=url))


class Subject:
    """One agent with the tool, and one without for talk."""

    async def open(self, url: str) -> None:
        model = _model(url)
        self._agent = Agent(name="adder", model=model, tools=[function_tool(add)], instructions=PROMPT)
        self._talker = Agent(name="talker", model=model, instructions=PROMPT)

    async def run(self, question: str) -> str:
        return str((await Runner.run(self._agent, question)).final_output)

    async def stream(self, message: str) -> AsyncGenerator[str]:
        async for event in Runner.run_streamed(self._talker, message).stream_events():
            if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
                yield event.data.delta

    async def idle(self, count: int, folder: Path) -> list[Any]:
        model = _model("http://127.0.0.1:9/v1")
        return [
            Agent(name=f"agent-{number}", model=model, tools=[function_tool(add)], instructions=PROMPT)
            for number in range(count)
        ]

    async def serve(self, port: int, folder: Path) -> None:
        await serve_with_fastapi(self.run, port)
