"""LangGraph, with its prebuilt agent and LangChain's model for OpenAI."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

os.environ["LANGSMITH_TRACING"] = "false"

from langchain_openai import ChatOpenAI
from langgraph.prebuilt import create_react_agent

from benchmarks.subjects.common import KEY, MODEL, PROMPT, add, serve_with_fastapi


def _model(url: str) -> Any:
    return ChatOpenAI(model=MODEL, api_key=KEY, base_url=url)  # type: ignore[arg-type]


class Subject:
    """One agent with the tool, and one without for talk."""

    async def open(self, url: str) -> None:
        model = _model(url)
        self._agent = create_react_agent(model, [add], prompt=PROMPT)
        self._talker = create_react_agent(model, [], prompt=PROMPT)

    async def run(self, question: str) -> str:
        state = await self._agent.ainvoke({"messages": [{"role": "user", "content": question}]})
        return str(state["messages"][-1].content)

    async def stream(self, message: str) -> AsyncGenerator[str]:
        asked = {"messages": [{"role": "user", "content": message}]}
        async for chunk, _ in self._talker.astream(asked, stream_mode="messages"):
            yield str(chunk.content)

    async def idle(self, count: int, folder: Path) -> list[Any]:
        model = _model("http://127.0.0.1:9/v1")
        return [create_react_agent(model, [add], prompt=PROMPT, name=f"agent-{number}") for number in range(count)]

    async def serve(self, port: int, folder: Path) -> None:
        await serve_with_fastapi(self.run, port)
