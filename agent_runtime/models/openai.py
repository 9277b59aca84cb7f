"""A model behind OpenAI's chat completions API: at OpenAI, in an Azure deployment, or at any compatible endpoint.

The `openai` package makes the connections and the retries. It takes a second to import: that happens in a thread, at
the latest at the first request.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import TYPE_CHECKING, Any

from agent_runtime.config import ModelEndpoint
from agent_runtime.errors import ModelError, StartError
from agent_runtime.events import Message, ModelChunk, ToolSpec
from agent_runtime.models.openai_reply import Reply
from agent_runtime.secrets import Credential

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI

_NO_KEY = "none"  # Ollama and others need no key, but some expect the header
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
        self._client: AsyncOpenAI | None = None
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
        from agent_runtime.models import openai_client

        body = self._body(messages, tools, stop, schema)
        response: httpx2.Response | None = None
        try:
            response = await self._send(client, body)
            async with aclosing(response):
                reply, pieces = Reply(), response.aiter_bytes()
                async for piece in pieces:
                    for text in reply.feed(piece):
                        yield text
                    if reply.is_done:
                        break
                for chunk in reply.end():
                    yield chunk
                await openai_client.drain(pieces)
        except openai_client.failures as error:
            secrets = [value.strip() for value in (self._key.value or "", *self._headers.value.values())]
            raise openai_client.model_error(error, self._config, self._name, secrets, body, response) from error

    async def _connect(self) -> AsyncOpenAI:
        """The client, made at the first request: an agent that is never called needs none."""
        async with self._connecting:
            if self._client is None:
                await asyncio.to_thread(load_client)
                from agent_runtime.models.openai_client import new_client

                self._client = new_client(self._config, self._name, self._api_key, self._entra_token)
                self._stack.push_async_callback(self._client.close)
        return self._client

    async def _send(self, client: AsyncOpenAI, body: Mapping[str, Any]) -> httpx2.Response:
        """Send one request; returns once the reply begins."""
        from openai import APIStatusError

        key, headers = self._key.value, self._headers.value
        try:
            return await self._post(client, body)
        except APIStatusError as error:
            # A refused secret may have been rotated: with a newer one, the request is sent once more.
            if error.status_code not in {401, 403} or (
                await self._key.renewed(key) is None and await self._headers.renewed(headers) is None
            ):
                raise
        return await self._post(client, body)

    async def _post(self, client: AsyncOpenAI, body: Mapping[str, Any]) -> httpx2.Response:
        import httpx2

        headers = {name: self._sendable(value, f"headers.{name}") for name, value in self._headers.value.items()}
        # The raw response: a pydantic object for each chunk would cost five times as much.
        return await client.post(
            "/chat/completions", body=body, options={"headers": headers}, cast_to=httpx2.Response, stream=True
        )

    async def _api_key(self) -> str:
        """The key as it is now; the client asks for it before each request."""
        return self._sendable(self._key.value or "", "api_key") or _NO_KEY

    def _sendable(self, value: str, name: str) -> str:
        """A value as a header carries it: files and secret stores often add a line end."""
        value = value.strip()
        if not (value.isascii() and value.isprintable()):
            reason = f"model.{name} for {self._name} contains characters that an HTTP header cannot carry"
            raise ModelError(reason, fault="auth")
        return value

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
