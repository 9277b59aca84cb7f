"""Any endpoint that speaks OpenAI's chat completions: OpenAI, Ollama, vLLM, LiteLLM, llama.cpp and the rest.

The official client is used as a transport: its authentication, retries and error types, but plain dictionaries in and
out, because its typed layer costs more than everything else in a run.
"""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

from agent_runtime.config import ModelEndpoint
from agent_runtime.credential import Credential
from agent_runtime.messages import Message, ModelChunk, ToolSpec
from agent_runtime.models.openai_faults import is_hard_quota, translated
from agent_runtime.models.openai_wire import StreamedReply, wire_message, wire_schema, wire_tools

_NO_KEY = "none"  # Ollama and its kind need no key, but the client needs some text for its header


class OpenAICompatible:
    """One model behind one endpoint."""

    # Ollama, vLLM and llama.cpp decode a whole reply under a schema: with one, their models cannot call a tool.
    _schema_beside_tools = False

    def __init__(self, config: ModelEndpoint, key: Credential[str | None]) -> None:
        self._config = config
        self._key = key
        self._name = config.name or ""
        self._schema_beside_tools = self._schema_beside_tools or config.endpoint is None  # OpenAI's own
        self._stack = AsyncExitStack()
        self._sdk: Any = None
        self._client: Any = None

    @property
    def label(self) -> str:
        """`openai/gpt-4o-mini`."""
        return f"{self._config.provider}/{self._name}"

    async def __aenter__(self) -> OpenAICompatible:
        self._sdk = await asyncio.to_thread(importlib.import_module, "openai")  # more than a second of imports
        try:
            self._client = await self._connected()
            await self._stack.enter_async_context(self._client)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def _connected(self) -> Any:
        """The official client for this endpoint; it sends nothing yet."""
        return self._sdk.AsyncOpenAI(
            api_key=self._key.value or _NO_KEY,
            base_url=self._config.endpoint or "https://api.openai.com/v1",
            **self._transport(),
        )

    def _transport(self) -> dict[str, Any]:
        """What every client of the SDK is given. It obeys `Retry-After` up to two minutes; beyond, it gives up."""
        return {
            "timeout": self._config.timeout_seconds,
            "max_retries": self._config.max_retries,
            "http_client": self._sdk.DefaultAsyncHttpxClient(event_hooks={"response": [_give_up_on_quota]}),
        }

    async def stream(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSpec] = (),
        *,
        stop: Sequence[str] = (),
        schema: Mapping[str, Any] | None = None,
    ) -> AsyncGenerator[ModelChunk]:
        """Yield text as it comes, the tool calls when they are whole, then the usage."""
        body = self._body(messages, tools, stop, schema)
        reply = StreamedReply()
        try:
            async with await self._asked(body) as stream:
                async for chunk in stream:
                    if text := reply.add(chunk):
                        yield text
        except (self._sdk.OpenAIError, importlib.import_module("httpx2").HTTPError, json.JSONDecodeError) as error:
            raise translated(error, self._config, self._name, self._key.value, body) from error
        for chunk in reply.end():
            yield chunk

    async def _asked(self, body: Mapping[str, Any]) -> Any:
        """The stream of a reply. A key that is refused may have been rotated: with a newer one, it is asked again."""
        key = self._key.value
        try:
            return await self._posted(body, key)
        except self._sdk.APIStatusError as error:
            newer = await self._key.renewed(key) if error.status_code in {401, 403} else None
            if newer is None:
                raise
        return await self._posted(body, newer)

    async def _posted(self, body: Mapping[str, Any], key: str | None) -> Any:
        if key:
            self._client.api_key = key
        return await self._client.post(
            "/chat/completions", body=body, cast_to=object, stream=True, stream_cls=self._sdk.AsyncStream[object]
        )

    def _body(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSpec],
        stop: Sequence[str],
        schema: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._name,
            "messages": [wire_message(message) for message in messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            **self._config.parameters,
        }
        if tools:
            body["tools"] = wire_tools(tools)
        if stop:
            body["stop"] = list(stop)
        if schema and (self._schema_beside_tools or not tools):
            body.setdefault("response_format", wire_schema(schema))
        return body


async def _give_up_on_quota(response: Any) -> None:
    """The client tries every 429 again; a quota that is used up is not back within seconds."""
    if response.status_code == 429 and is_hard_quota((await response.aread()).decode(errors="replace")):
        response.headers["x-should-retry"] = "false"
