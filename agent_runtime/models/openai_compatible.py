"""Any endpoint that speaks OpenAI's chat completions: OpenAI, Ollama, vLLM, LiteLLM, llama.cpp and the rest."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Any

from agent_runtime.config import ModelEndpoint
from agent_runtime.events import Message, ModelChunk, ToolSpec
from agent_runtime.models.openai_faults import ProviderFault, Refused, translated
from agent_runtime.models.openai_wire import Interrupted, StreamedReply, wire_message, wire_schema, wire_tools
from agent_runtime.secrets import Credential

_NO_KEY = "none"  # Ollama and its kind need no key, but some expect the header


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
        self._connecting = asyncio.Lock()
        self._http: Any = None

    @property
    def label(self) -> str:
        """`openai/gpt-4o-mini`."""
        return f"{self._config.provider}/{self._name}"

    async def __aenter__(self) -> OpenAICompatible:
        return self  # an agent that is never asked needs no client

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    @property
    def _url(self) -> str:
        return f"{(self._config.endpoint or 'https://api.openai.com/v1').rstrip('/')}/chat/completions"

    async def _headers(self, key: str | None) -> dict[str, str]:
        """What a question proves itself with."""
        return {"Authorization": f"Bearer {key or _NO_KEY}"}

    async def _connect(self) -> Any:
        """What asks over HTTP, made at the first question."""
        async with self._connecting:
            if self._http is None:
                patience = {"timeout_seconds": self._config.timeout_seconds, "max_retries": self._config.max_retries}
                library = await asyncio.to_thread(http_library)
                self._http = library.ProviderHttp(self._url, **patience)
                self._stack.push_async_callback(self._http.aclose)
        return self._http

    async def stream(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSpec] = (),
        *,
        stop: Sequence[str] = (),
        schema: Mapping[str, Any] | None = None,
    ) -> AsyncGenerator[ModelChunk]:
        """Yield text as it comes, the tool calls when they are whole, then the usage."""
        http = self._http or await self._connect()
        body = self._body(messages, tools, stop, schema)
        reply = StreamedReply()
        try:
            async with aclosing(await self._asked(http, body)) as coming:
                while piece := await coming.read():
                    for text in reply.read(piece):
                        yield text
                    if reply.is_over:
                        await coming.finish()
                        break
        except (ProviderFault, Interrupted, ValueError) as error:
            raise translated(error, self._config, self._name, self._key.value, body) from error
        for chunk in reply.end():
            yield chunk

    async def _asked(self, http: Any, body: Mapping[str, Any]) -> Any:
        """The answer as it comes. A key that is refused may have been rotated: with a newer one, it is asked again."""
        key = self._key.value
        try:
            return await http.ask(body, await self._headers(key))
        except Refused as error:
            newer = await self._key.renewed(key) if error.status in {401, 403} else None
            if newer is None:
                raise
        return await http.ask(body, await self._headers(newer))

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


def http_library() -> Any:
    """The HTTP below, whose import takes a moment, with what it needs before the first question."""
    library = importlib.import_module("agent_runtime.models.openai_http")
    library.certificates()
    return library
