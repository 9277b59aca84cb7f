"""Any endpoint that speaks OpenAI's chat completions: OpenAI, Ollama, vLLM, LiteLLM, llama.cpp and the rest.

The official client is used as a transport: its authentication, retries and error types, but plain dictionaries in and
out, because its typed layer costs more than everything else in a run.
"""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack
from typing import Any

from agent_runtime.config import ModelConfig
from agent_runtime.errors import ModelError
from agent_runtime.messages import Message, ModelChunk, ToolCall, ToolSpec, Usage
from agent_runtime.placeholders import masked


class OpenAICompatible:
    """One model behind one endpoint."""

    def __init__(self, config: ModelConfig) -> None:
        self._config = config
        self._stack = AsyncExitStack()
        self._sdk: Any = None
        self._client: Any = None
        self.label = f"openai/{config.name}"

    async def __aenter__(self) -> OpenAICompatible:
        self._sdk = await asyncio.to_thread(importlib.import_module, "openai")  # more than a second of imports
        self._client = self._sdk.AsyncOpenAI(
            # Ollama and its kind need no key, but the client needs some text for its header.
            api_key=self._config.api_key.get_secret_value() if self._config.api_key else "none",
            base_url=self._config.endpoint or "https://api.openai.com/v1",
            timeout=self._config.timeout_seconds,
            max_retries=self._config.max_retries,
            http_client=self._sdk.DefaultAsyncHttpxClient(event_hooks={"response": [_give_up_on_quota]}),
        )
        await self._stack.enter_async_context(self._client)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def stream(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec] = (), *, stop: Sequence[str] = ()
    ) -> AsyncGenerator[ModelChunk]:
        """Yield text as it comes, the tool calls when they are whole, then the usage."""
        body = self._body(messages, tools, stop)
        reply = _Reply()
        try:
            stream = await self._client.post(
                "/chat/completions", body=body, cast_to=object, stream=True, stream_cls=self._sdk.AsyncStream[object]
            )
            async with stream:
                async for chunk in stream:
                    if text := reply.add(chunk):
                        yield text
        except (self._sdk.OpenAIError, importlib.import_module("httpx2").HTTPError, json.JSONDecodeError) as error:
            raise self._translated(error) from error
        for chunk in reply.end():
            yield chunk

    def _body(self, messages: Sequence[Message], tools: Sequence[ToolSpec], stop: Sequence[str]) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._config.name,
            "messages": [_wire_message(message) for message in messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            **self._config.parameters,
        }
        if tools:
            body["tools"] = [
                {
                    "type": "function",
                    "function": {
                        "name": tool.name,
                        "description": tool.description,
                        "parameters": tool.parameters,
                    },
                }
                for tool in tools
            ]
        if stop:
            body["stop"] = list(stop)
        return body

    def _translated(self, error: Exception) -> ModelError:
        """The provider's fault in our words. Its own text is left out where it may echo a key."""
        name, sdk, http = self._config.name, self._sdk, importlib.import_module("httpx2")
        match error:
            case sdk.APITimeoutError():
                return ModelError(
                    f"the model {name} did not answer within {self._config.timeout_seconds:g} s", fault="unreachable"
                )
            case sdk.APIConnectionError() if isinstance(error.__cause__, http.ConnectError):
                return ModelError(
                    f"the model {name} cannot be reached at model.endpoint: {error.__cause__}", fault="unreachable"
                )
            case sdk.APIConnectionError():
                return ModelError(f"the connection to the model {name} broke: {_one_line(error.__cause__ or error)}")
            case sdk.AuthenticationError() | sdk.PermissionDeniedError():
                return ModelError(
                    f"the provider refused model.api_key for {name} (HTTP {error.status_code})", fault="refused"
                )
            case sdk.NotFoundError():
                return ModelError(
                    f"the provider knows no model {name}, or model.endpoint is not the base of an OpenAI-compatible API"
                    " (HTTP 404)",
                    fault="refused",
                )
            case sdk.RateLimitError():
                hard = error.code == "insufficient_quota"
                return ModelError(
                    f"the quota for the model {name} is used up" if hard else f"the model {name} is rate limited",
                    fault="quota" if hard else "rate_limited",
                )
            case sdk.BadRequestError() if error.code == "context_length_exceeded":
                return ModelError(f"the conversation is too long for the model {name}", fault="context_overflow")
            case sdk.APIError():
                key = self._config.api_key.get_secret_value() if self._config.api_key else ""
                return ModelError(f"the model {name} failed: {masked(_one_line(error.message), [key] if key else [])}")
            case _:
                return ModelError(f"the model {name} sent something that cannot be read: {type(error).__name__}")


class _Reply:
    """Puts the pieces of one streamed reply together."""

    def __init__(self) -> None:
        self._calls: dict[int, dict[str, str]] = {}
        self._usage: Usage | None = None
        self._finish_reason: str | None = None

    def add(self, chunk: Any) -> str:
        """The text in a chunk; its calls and usage are kept."""
        try:
            return self._added(chunk)
        except (AttributeError, KeyError, TypeError):
            raise ModelError("the model's reply has not the form of OpenAI's chat completions") from None

    def _added(self, chunk: dict[str, Any]) -> str:
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
        if self._finish_reason is None:
            raise ModelError("the model's reply ended before it was whole")
        if self._finish_reason == "content_filter":
            raise ModelError("the provider's content filter stopped the reply")
        calls = [
            ToolCall(call["id"] or f"call_{index}", call["name"], call["arguments"])
            for index, call in sorted(self._calls.items())
        ]
        return [*calls, self._usage or Usage()]


async def _give_up_on_quota(response: Any) -> None:
    """The client tries every 429 again; a quota that is used up is not back within seconds."""
    if response.status_code == 429 and b"insufficient_quota" in await response.aread():
        response.headers["x-should-retry"] = "false"


def _one_line(text: object) -> str:
    return " ".join(str(text).split())[:300] or type(text).__name__


def _wire_message(message: Message) -> dict[str, Any]:
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
