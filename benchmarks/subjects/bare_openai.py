"""The reference: the loop that one writes by hand on the official client."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI

from benchmarks.subjects.common import KEY, MODEL, PROMPT, add, serve_with_fastapi

TOOL: Any = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two numbers.",
        "parameters": {
            "type": "object",
            "properties": {
                "a": {"type": "integer", "description": "the first number"},
                "b": {"type": "integer", "description": "the second number"},
            },
            "required": ["a", "b"],
        },
    },
}


class Subject:
    """Two loops: one for an answer through tools, one for a stream."""

    async def open(self, url: str) -> None:
        self._client = AsyncOpenAI(api_key=KEY, base_url=url)

    async def run(self, question: str) -> str:
        messages: list[Any] = [{"role": "system", "content": PROMPT}, {"role": "user", "content": question}]
        while True:
            reply = await self._client.chat.completions.create(model=MODEL, messages=messages, tools=[TOOL])
            message = reply.choices[0].message
            if not message.tool_calls:
                return message.content or ""
            messages.append(message)
            for call in message.tool_calls:
                assert call.type == "function"
                result = add(**json.loads(call.function.arguments))
                messages.append({"role": "tool", "tool_call_id": call.id, "content": str(result)})

    async def stream(self, message: str) -> AsyncGenerator[str]:
        messages: list[Any] = [{"role": "system", "content": PROMPT}, {"role": "user", "content": message}]
        chunks = await self._client.chat.completions.create(model=MODEL, messages=messages, stream=True)
        async with chunks:
            async for chunk in chunks:
                if chunk.choices and chunk.choices[0].delta.content:
                    yield chunk.choices[0].delta.content

    async def idle(self, count: int, folder: Path) -> list[Any]:
        return [AsyncOpenAI(api_key=KEY, base_url="http://127.0.0.1:9/v1") for _ in range(count)]

    async def serve(self, port: int, folder: Path) -> None:
        await serve_with_fastapi(self.run, port)
