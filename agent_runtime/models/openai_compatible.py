"""Any endpoint that speaks OpenAI's chat completions: OpenAI, Ollama, vLLM, LiteLLM, llama.cpp and the rest.

The official client is used as a transport: its authentication, retries and error types, but plain dictionaries in and
out, because its typed layer costs more than everything else in a run.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, suppress
from typing import Any

from agent_runtime.config import ModelEndpoint
from agent_runtime.credential import Credential
from agent_runtime.messages import Message, ModelChunk, ToolSpec
from agent_runtime.models.openai_faults import is_hard_quota, translated
from agent_runtime.models.openai_wire import Interrupted, StreamedReply, wire_message, wire_schema, wire_tools

_LAST_BYTES_SECONDS = 0.1
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
        self._base = (config.endpoint or "https://api.openai.com/v1").rstrip("/")
        self._path = f"{self._base}/chat/completions"  # whole, or the client would put it together for each question
        self._stack = AsyncExitStack()
        self._connecting = asyncio.Lock()
        self._sdk: Any = None
        self._http: Any = None
        self._client: Any = None

    @property
    def label(self) -> str:
        """`openai/gpt-4o-mini`."""
        return f"{self._config.provider}/{self._name}"

    async def __aenter__(self) -> OpenAICompatible:
        return self  # an agent that is never asked needs no client

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def _connect(self) -> Any:
        """The client, made at the first question."""
        async with self._connecting:
            if self._client is None:
                self._sdk, self._http = await asyncio.to_thread(libraries)
                self._client = await self._stack.enter_async_context(self._official_client())
        return self._client

    def _official_client(self) -> Any:
        """The official client for this endpoint; it sends nothing yet."""
        return self._sdk.AsyncOpenAI(
            api_key=self._key.value or _NO_KEY,
            base_url=self._base,
            **self._transport(),
        )

    def _transport(self) -> dict[str, Any]:
        """What every client of the SDK is given. It obeys `Retry-After` up to two minutes; beyond, it gives up."""
        return {
            "timeout": self._config.timeout_seconds,
            "max_retries": self._config.max_retries,
            "http_client": self._http.LeanClient(event_hooks={"response": [_give_up_on_quota]}),
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
        client = self._client or await self._connect()
        body = self._body(messages, tools, stop, schema)
        reply = StreamedReply()
        try:
            async with aclosing(await self._asked(client, body)) as response:
                pieces = response.aiter_bytes()
                async for piece in pieces:
                    for text in reply.read(piece):
                        yield text
                    if reply.is_over:
                        await _exhausted(pieces)
                        break
        except (self._sdk.OpenAIError, self._http.httpx2.HTTPError, Interrupted, ValueError) as error:
            raise translated(error, self._config, self._name, self._key.value, body) from error
        for chunk in reply.end():
            yield chunk

    async def _asked(self, client: Any, body: Mapping[str, Any]) -> Any:
        """The answer as it comes. A key that is refused may have been rotated: with a newer one, it is asked again."""
        key = self._key.value
        try:
            return await self._posted(client, body, key)
        except self._sdk.APIStatusError as error:
            newer = await self._key.renewed(key) if error.status_code in {401, 403} else None
            if newer is None:
                raise
        return await self._posted(client, body, newer)

    async def _posted(self, client: Any, body: Mapping[str, Any], key: str | None) -> Any:
        if key:
            client.api_key = key
        raw, stream = self._http.httpx2.Response, self._sdk.AsyncStream
        return await client.post(self._path, body=body, cast_to=raw, stream=True, stream_cls=stream)

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


def libraries() -> tuple[Any, Any]:
    """The official client and the HTTP below it; they take a second where nobody has asked before."""
    http = importlib.import_module("agent_runtime.models.openai_http")
    http.certificates()
    return importlib.import_module("openai"), http


async def _exhausted(pieces: AsyncIterator[bytes]) -> None:
    """Read what comes behind the reply's last event: only then can its connection serve the next question."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_LAST_BYTES_SECONDS):
            async for _ in pieces:
                pass


async def _give_up_on_quota(response: Any) -> None:
    """The client tries every 429 again; a quota that is used up is not back within seconds."""
    if response.status_code == 429 and is_hard_quota((await response.aread()).decode(errors="replace")):
        response.headers["x-should-retry"] = "false"
