"""Google's Agent Development Kit, with its own model for OpenAI."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from google.adk.agents import LlmAgent
from google.adk.agents.run_config import RunConfig, StreamingMode
from google.adk.integrations.openai import OpenAILlm
from google.adk.runners import InMemoryRunner
from google.genai import types

from benchmarks.subjects.common import KEY, MODEL, PROMPT, add, serve_with_fastapi

USER = "somebody"


class Subject:
    """One agent with the tool, and one without for talk; a session for each run, as its runner demands one."""

    async def open(self, url: str) -> None:
        model = OpenAILlm(model=MODEL, api_key=KEY, base_url=url)
        self._runner = InMemoryRunner(LlmAgent(name="adder", model=model, instruction=PROMPT, tools=[add]))
        self._talker = InMemoryRunner(LlmAgent(name="talker", model=model, instruction=PROMPT))

    async def run(self, question: str) -> str:
        answer = ""
        async for event in _events(self._runner, question, RunConfig()):
            if event.is_final_response():
                answer = _text(event)
        return answer

    async def stream(self, message: str) -> AsyncGenerator[str]:
        async for event in _events(self._talker, message, RunConfig(streaming_mode=StreamingMode.SSE)):
            if event.partial:
                yield _text(event)

    async def idle(self, count: int, folder: Path) -> list[Any]:
        model = OpenAILlm(model=MODEL, api_key=KEY, base_url="http://127.0.0.1:9/v1")
        return [
            LlmAgent(name=f"agent_{number}", model=model, instruction=PROMPT, tools=[add]) for number in range(count)
        ]

    async def serve(self, port: int, folder: Path) -> None:
        await serve_with_fastapi(self.run, port)


async def _events(runner: InMemoryRunner, text: str, config: RunConfig) -> AsyncGenerator[Any]:
    session = await runner.session_service.create_session(
        app_name=runner.app_name, user_id=USER, session_id=uuid.uuid4().hex
    )
    message = types.Content(role="user", parts=[types.Part(text=text)])
    async for event in runner.run_async(user_id=USER, session_id=session.id, new_message=message, run_config=config):
        yield event
    await runner.session_service.delete_session(app_name=runner.app_name, user_id=USER, session_id=session.id)


def _text(event: Any) -> str:
    return "".join(part.text or "" for part in event.content.parts)
