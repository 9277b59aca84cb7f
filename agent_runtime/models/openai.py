"""A model behind OpenAI's chat completions API: at OpenAI, in an Azure deployment, or at any compatible endpoint.

`openai_client`, which uses the `openai` package, takes a second to import: that happens in a thread, at the latest at
the first request.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from agent_runtime.config import ModelEndpoint
from agent_runtime.errors import ModelError, StartError
from agent_runtime.events import Message, ModelChunk, ToolCall, ToolSpec, Usage
from agent_runtime.models.base import InvalidReply
from agent_runtime.secrets import Credential

if TYPE_CHECKING:
    from agent_runtime.models.openai_client import CompletionsClient

_ENTRA_SCOPE = "https://cognitiveservices.azure.com/.default"


class OpenAIModel:
    """One model of one endpoint. An Azure deployment without a key signs in with Entra ID."""

    def __init__(self, config: ModelEndpoint, key: Credential[str | None], headers: Credential[dict[str, str]]) -> None:
        self._config = config
        self._key = key
        self._headers = headers
        self._is_azure = config.provider == "azure_openai"
        self._name = (config.deployment if self._is_azure else config.name) or ""
        # Ollama, vLLM and llama.cpp decode a whole reply under a schema: with one, their models cannot call a tool.
        self._schema_beside_tools = self._is_azure or config.endpoint is None
        self._stack = AsyncExitStack()
        self._connecting = asyncio.Lock()
        self._client: CompletionsClient | None = None
        self._entra_token: Callable[[], Awaitable[str]] | None = None

    @property
    def label(self) -> str:
        """`openai/gpt-4o-mini`."""
        return f"{self._config.provider}/{self._name}"

    async def __aenter__(self) -> OpenAIModel:
        if self._is_azure and not self._key.value:
            try:
                self._entra_token = await _entra_token_provider(self._name, self._stack)
            except BaseException:
                await self._stack.aclose()
                raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def stream(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSpec] = (),
        *,
        stop: Sequence[str] = (),
        schema: Mapping[str, Any] | None = None,
    ) -> AsyncGenerator[ModelChunk]:
        """Yield text as it arrives, the tool calls once they are complete, then the usage."""
        client = self._client or await self._connect()
        body = self._body(messages, tools, stop, schema)
        reply, chunks = Reply(), None
        try:
            async with await client.send(body) as chunks:
                async for chunk in chunks:
                    if text := reply.add(chunk):
                        yield text
            ending = reply.end(is_complete=chunks.is_complete)
        except client.failures as error:
            raise client.model_error(error, body, chunks) from error
        for chunk in ending:
            yield chunk

    async def _connect(self) -> CompletionsClient:
        """The client, made at the first request: an agent that is never called needs none."""
        async with self._connecting:
            if self._client is None:
                await asyncio.to_thread(load_client)
                from agent_runtime.models.openai_client import CompletionsClient

                client = CompletionsClient(self._config, self._name, self._key, self._headers, self._entra_token)
                self._stack.push_async_callback(client.aclose)
                self._client = client
        return self._client

    def _body(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSpec],
        stop: Sequence[str],
        schema: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._name,
            "messages": [_message(message) for message in messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            **self._config.parameters,
        }
        if tools:
            body["tools"] = [_tool(tool) for tool in tools]
        if stop:
            body["stop"] = list(stop)
        if schema and (self._schema_beside_tools or not tools):
            # Not strict: providers then accept any JSON Schema, and the caller validates the answer.
            body.setdefault(
                "response_format", {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
            )
        return body


def load_client() -> None:
    """Import the client and read the certificates that the first request needs; blocks for about a second."""
    from agent_runtime.models import openai_client

    openai_client.certificates()


async def _entra_token_provider(deployment: str, stack: AsyncExitStack) -> Callable[[], Awaitable[str]]:
    """Returns Entra tokens from azure-identity's cache or newly requested; requests nothing before the first call."""
    try:
        await asyncio.to_thread(_import_azure_identity)
        from azure.core.exceptions import AzureError
        from azure.identity.aio import DefaultAzureCredential, get_bearer_token_provider
    except ImportError as error:
        raise StartError(
            "model.api_key is not set, and signing in with Entra ID needs an extra: pip install 'myagent[azure]'"
        ) from error
    credential = await stack.enter_async_context(DefaultAzureCredential())
    request_token = get_bearer_token_provider(credential, _ENTRA_SCOPE)

    async def token() -> str:
        try:
            return await request_token()
        except AzureError as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)[:300]
            raise ModelError(f"no Entra token for the deployment {deployment}: {reason}", fault="auth") from error

    return token


def _import_azure_identity() -> None:
    import azure.identity.aio  # noqa: F401  # pyright: ignore[reportUnusedImport]


def _message(message: Message) -> dict[str, Any]:
    """One entry of `messages`."""
    entry: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        entry["content"] = message.content or None
        entry["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        entry["tool_call_id"] = message.tool_call_id
    return entry


def _tool(tool: ToolSpec) -> dict[str, Any]:
    """One entry of `tools`."""
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


class Reply:
    """Assembles one reply from its chunks: dictionaries of OpenAI's `chat.completion.chunk` or `chat.completion`."""

    def __init__(self) -> None:
        self._calls: list[dict[str, str]] = []
        self._call_at: dict[int, dict[str, str]] = {}  # by index
        self._usage: Usage | None = None
        self._finish_reason: str | None = None
        self._has_choice = False

    def add(self, chunk: Any) -> str:
        """The text of a chunk; its tool calls and usage are kept.

        Raises:
            InvalidReply: it is not a chunk of a chat completion.
        """
        try:
            usage: Any = chunk.get("usage")
            if usage:
                self._usage = Usage(usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0)
            choices: Any = chunk.get("choices")
            if not choices:
                return ""
            self._has_choice = True
            choice = choices[0]
            delta: dict[str, Any] = choice.get("delta") or choice.get("message") or {}
            self._finish_reason = choice.get("finish_reason") or self._finish_reason
            for call in delta.get("tool_calls") or ():
                self._add_call(call)
            content: Any = delta.get("content") or ""
            return content if isinstance(content, str) else _text_of_parts(content)
        except (AttributeError, KeyError, TypeError):
            raise InvalidReply("the model's reply does not have the form of OpenAI's chat completions") from None

    def _add_call(self, piece: dict[str, Any]) -> None:
        function: dict[str, Any] = piece.get("function") or {}
        call_id, name, arguments = piece.get("id") or "", function.get("name") or "", function.get("arguments") or ""
        call = self._call_of(piece.get("index"), call_id, is_first=bool(call_id or name))
        call["id"] = call_id or call["id"]
        call["name"] += name
        # TGI and llama.cpp may send the arguments as an object.
        call["arguments"] += arguments if isinstance(arguments, str) else json.dumps(arguments)

    def _call_of(self, index: int | None, call_id: str, *, is_first: bool) -> dict[str, str]:
        """The call that a piece belongs to. Some servers send no index, or the index 0 for every call."""
        if index is None:
            known = None if is_first or not self._calls else self._calls[-1]
        else:
            known = self._call_at.get(index)
            if known and call_id and known["id"] not in {"", call_id}:
                known = None
        if known is None:
            known = {"id": "", "name": "", "arguments": ""}
            self._calls.append(known)
        if index is not None:
            self._call_at[index] = known
        return known

    def end(self, *, is_complete: bool) -> list[ModelChunk]:
        """The tool calls, then the usage.

        Args:
            is_complete: whether the provider marked the end of the reply; some then give no `finish_reason`.

        Raises:
            InvalidReply: the reply was cut off, by the connection or by the provider's filter.
        """
        if self._finish_reason is None and not (is_complete and self._has_choice):
            raise InvalidReply("the model's reply ended before it was complete")
        if self._finish_reason == "content_filter":
            raise InvalidReply("the provider's content filter stopped the reply")
        calls = [
            ToolCall(call["id"] or f"call_{index}", call["name"], _arguments(call["arguments"]))
            for index, call in enumerate(self._calls)
        ]
        return [*calls, self._usage or Usage()]


def _text_of_parts(content: list[dict[str, Any]]) -> str:
    """Content as a list of parts (Mistral's reasoning models): only its text is part of the answer."""
    return "".join(part["text"] for part in content if part.get("type") == "text")


def _arguments(text: str) -> str:
    """The arguments of a call; Groq sends `null` for a tool without parameters."""
    return "{}" if text.strip() == "null" else text
