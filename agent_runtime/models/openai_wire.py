"""Chat completions on the wire: our values as plain dictionaries, and the pieces of a streamed reply put together.

Pure: knows the form, no client and no endpoint.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from typing import Any, cast

from agent_runtime.errors import ModelError
from agent_runtime.events import Message, ModelChunk, ToolCall, ToolSpec, Usage


def wire_message(message: Message) -> dict[str, Any]:
    """One entry of `messages`."""
    wire: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        wire["content"] = message.content or None
        wire["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        wire["tool_call_id"] = message.tool_call_id
    return wire


def wire_tools(tools: Sequence[ToolSpec]) -> list[dict[str, Any]]:
    """The value of `tools`."""
    return [
        {
            "type": "function",
            "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters},
        }
        for tool in tools
    ]


def wire_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The value of `response_format`. Not strict: providers then take any JSON Schema, and the answer is checked."""
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


_value_of = json.JSONDecoder().decode


class Interrupted(Exception):
    """The provider reports an error in the middle of its reply; `message` and `code` are its own words."""

    def __init__(self, message: str, code: str | None) -> None:
        self.message = message
        self.code = code
        super().__init__(message)


class StreamedReply:
    """Puts the pieces of one streamed reply together."""

    def __init__(self) -> None:
        self._unread = b""
        self._calls: dict[int, dict[str, str]] = {}
        self._usage: Usage | None = None
        self._finish_reason: str | None = None
        self.is_over = False
        """Whether the provider said that nothing more will come."""

    def read(self, piece: bytes) -> Generator[str]:
        """The texts in a piece of the body, which may begin and end anywhere; its calls and usage are kept.

        Raises:
            Interrupted: the provider says that it failed.
            ModelError, ValueError: it sends something else than chat completions, or no JSON.
        """
        *lines, self._unread = (self._unread + piece).split(b"\n")
        for line in lines:
            if not line.startswith(b"data:"):
                continue  # an empty line, a comment, the name of an event: all that counts is JSON, on one line
            data = line[5:].decode().strip()
            if data.startswith("[DONE]"):
                self.is_over = True
            elif text := self._added(_value_of(data)):
                yield text

    def _added(self, chunk: Any) -> str:
        try:
            if error := chunk.get("error"):
                raise _interrupted(error)
            return self._text_of(chunk)
        except (AttributeError, KeyError, TypeError):
            raise ModelError("the model's reply has not the form of OpenAI's chat completions") from None

    def _text_of(self, chunk: dict[str, Any]) -> str:
        usage: Any = chunk.get("usage")
        if usage:
            self._usage = Usage(usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0)
        choices: Any = chunk.get("choices")
        if not choices:
            return ""
        delta: dict[str, Any] = choices[0].get("delta") or {}
        self._finish_reason = choices[0].get("finish_reason") or self._finish_reason
        calls: list[dict[str, Any]] = delta.get("tool_calls") or []
        for call in calls:
            self._add_call(call)
        return "" + (delta.get("content") or "")

    def _add_call(self, call: dict[str, Any]) -> None:
        index = call.get("index")
        position = len(self._calls) if index is None else index  # some servers send whole calls without an index
        known = self._calls.setdefault(position, {"id": "", "name": "", "arguments": ""})
        function: dict[str, Any] = call.get("function") or {}
        known["id"] = call.get("id") or known["id"]
        known["name"] += function.get("name") or ""
        known["arguments"] += function.get("arguments") or ""

    def end(self) -> list[ModelChunk]:
        """The calls, then the usage.

        Raises:
            ModelError: the reply was cut, by the connection or by the provider's filter.
        """
        if self._finish_reason is None:
            raise ModelError("the model's reply ended before it was whole")
        if self._finish_reason == "content_filter":
            raise ModelError("the provider's content filter stopped the reply")
        calls = [
            ToolCall(call["id"] or f"call_{index}", call["name"], call["arguments"])
            for index, call in sorted(self._calls.items())
        ]
        return [*calls, self._usage or Usage()]


def _interrupted(error: Any) -> Interrupted:
    if not isinstance(error, dict):
        return Interrupted(str(error), None)
    told = cast("dict[str, Any]", error)
    return Interrupted(str(told.get("message") or "an error occurred in the stream"), told.get("code"))
