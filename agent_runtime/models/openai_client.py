"""The `openai` package as the models use it: plain dictionaries, bounded input, and its errors as ModelErrors.

Slow to import: `openai.py` imports it at the first request, in a thread.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from ssl import SSLContext
from typing import Any, cast
from urllib.parse import quote
from urllib.request import getproxies

import aiohttp
import httpx2
from openai import (
    APIError,
    APIStatusError,
    AsyncAzureOpenAI,
    AsyncOpenAI,
    AsyncStream,
    DefaultAioHttpClient,
    DefaultAsyncHttpxClient,
    OpenAIError,
)

from agent_runtime.config import ModelEndpoint
from agent_runtime.errors import ModelError
from agent_runtime.models.base import InvalidReply
from agent_runtime.models.openai_errors import limit_error, model_error
from agent_runtime.secrets import Credential

OPENAI = "https://api.openai.com/v1"
NO_KEY = "none"  # Ollama and others need no key, but some expect the header
KEEPALIVE_SECONDS = 15.0
LAST_BYTES_SECONDS = 0.1
LONGEST_EVENT_BYTES = 8 * 1024 * 1024

_log = logging.getLogger(__name__)
_decode = json.JSONDecoder().decode

_BOM = b"\xef\xbb\xbf"
_REQUEST_IDS = ("x-request-id", "apim-request-id", "x-ms-request-id", "request-id")
_FAILURES: tuple[type[Exception], ...] = (
    OpenAIError,
    httpx2.HTTPError,
    aiohttp.ClientError,  # the transport maps most of them, not all
    OSError,
    ValueError,
)


@cache
def certificates() -> SSLContext:
    """The trusted certificates, read once for all clients: reading them takes longer than ten requests."""
    return httpx2.create_ssl_context()


class CompletionsClient:
    """Sends chat completions to one endpoint. The `openai` client makes the connections, the retries and the pauses."""

    def __init__(
        self,
        config: ModelEndpoint,
        name: str,
        key: Credential[str | None],
        headers: Credential[dict[str, str]],
        entra_token: Callable[[], Awaitable[str]] | None,
    ) -> None:
        self._config = config
        self._name = name
        self._key = key
        self._headers = headers
        is_socks = any(proxy.startswith("socks") for proxy in getproxies().values())
        self.failures = _FAILURES + (_socks_errors() if is_socks else ())
        http = _http_client(is_socks=is_socks)
        if config.provider == "azure_openai":
            self._client: AsyncOpenAI = AsyncAzureOpenAI(
                azure_endpoint=config.endpoint or "",
                azure_deployment=quote(name, safe=""),
                api_version=config.api_version,
                api_key=None if entra_token else self._api_key,
                azure_ad_token_provider=entra_token,
                timeout=config.timeout_seconds,
                max_retries=config.max_retries,
                http_client=http,
            )
        else:
            self._client = AsyncOpenAI(
                base_url=config.endpoint or OPENAI,
                api_key=self._api_key,
                timeout=config.timeout_seconds,
                max_retries=config.max_retries,
                http_client=http,
            )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.close()

    async def send(self, body: Mapping[str, Any]) -> CompletionStream:
        """Send one request; returns once the reply begins.

        Raises:
            Exception: one of `failures`, which `model_error` translates.
        """
        key, headers = self._key.value, self._headers.value
        try:
            return await self._post(body)
        except APIStatusError as error:
            # A refused secret may have been rotated: with a newer one, the request is sent once more.
            if error.status_code not in {401, 403} or not await self._is_renewed(key, headers):
                raise
        return await self._post(body)

    async def _post(self, body: Mapping[str, Any]) -> CompletionStream:
        headers = {name: self._sendable(value, f"headers.{name}") for name, value in self._headers.value.items()}
        return await self._client.post(
            "/chat/completions",
            body=body,
            options={"headers": headers},
            cast_to=object,
            stream=True,
            stream_cls=CompletionStream,
        )

    async def _is_renewed(self, key: str | None, headers: dict[str, str]) -> bool:
        renewed_key = await self._key.renewed(key)
        return renewed_key is not None or await self._headers.renewed(headers) is not None

    async def _api_key(self) -> str:
        """The key as it is now; the client asks for it before each request."""
        return self._sendable(self._key.value or "", "api_key") or NO_KEY

    def _sendable(self, value: str, name: str) -> str:
        """A value as a header carries it: files and secret stores often add a line end."""
        value = value.strip()
        if not (value.isascii() and value.isprintable()):
            reason = f"model.{name} for {self._name} contains characters that an HTTP header cannot carry"
            raise ModelError(reason, fault="auth")
        return value

    def model_error(self, error: Exception, body: Mapping[str, Any], stream: CompletionStream | None) -> ModelError:
        """Translate one of `failures`, and log it with the provider's request id."""
        response = error.response if isinstance(error, APIStatusError) else stream.response if stream else None
        ids = [response.headers[name] for name in _REQUEST_IDS if name in response.headers] if response else []
        secrets = [value.strip() for value in (self._key.value or "", *self._headers.value.values())]
        failure = model_error(error, self._config, self._name, secrets, body)
        request_id = f", request id {ids[0][:100]}" if ids else ""
        _log.warning("%s/%s: %s (%s%s)", self._config.provider, self._name, failure, failure.fault, request_id)
        return failure


def _http_client(*, is_socks: bool) -> httpx2.AsyncClient:
    # The aiohttp transport serves hundreds of connections best, but would send plain text to a SOCKS port.
    try:
        return (DefaultAsyncHttpxClient if is_socks else DefaultAioHttpClient)(
            verify=certificates(),
            follow_redirects=False,  # the key and the conversation are meant for this address only
            limits=httpx2.Limits(max_connections=1000, keepalive_expiry=KEEPALIVE_SECONDS),
            event_hooks={"response": [limit_error]},
        )
    except ValueError as error:
        raise ModelError("the environment names a proxy of an unknown kind", fault="unreachable") from error


def _socks_errors() -> tuple[type[Exception], ...]:
    try:
        from socksio import SOCKSError
    except ImportError as error:
        raise ModelError("a SOCKS proxy needs a package: pip install socksio", fault="unreachable") from error
    return (SOCKSError,)


class CompletionStream(AsyncStream[object]):
    """A streamed reply as plain dictionaries, in a bounded amount of memory."""

    is_complete = False
    """Whether the provider marked the end of its reply."""

    def __aiter__(self) -> AsyncGenerator[object]:
        return cast("AsyncGenerator[object]", self._iterator)

    async def close(self) -> None:
        await aiter(self).aclose()
        await super().close()

    async def __stream__(self) -> AsyncGenerator[object]:
        events = EventDecoder()
        pieces = self.response.aiter_bytes()
        async for piece in pieces:
            for value in events.feed(piece):
                yield self._checked(value)
            if events.is_done:
                break
        for value in events.finish():
            yield self._checked(value)
        self.is_complete = events.is_done
        # Only after its last byte can the connection serve another request.
        with suppress(TimeoutError, httpx2.HTTPError):
            async with asyncio.timeout(LAST_BYTES_SECONDS):
                async for _ in pieces:
                    pass

    def _checked(self, value: Any) -> object:
        if isinstance(value, list) and value:  # Google's endpoint sends an error as a list of one
            value = cast("list[Any]", value)[0]
        if isinstance(value, dict) and cast("dict[str, Any]", value).get("error"):
            raise APIError("the provider reports an error", self.response.request, body=cast("object", value))
        return cast("object", value)


class EventDecoder:
    """Decodes server-sent events with JSON data, or a body that is a single JSON value.

    Lenient where servers are: an event may lack the blank line behind it, or have its data on several lines.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._data = bytearray()  # of an event that is not complete
        self._event = b""
        self._is_json: bool | None = None
        self.is_done = False
        """Whether the end was marked: with `[DONE]`, or by the body being a single JSON value."""

    def feed(self, piece: bytes) -> Iterator[Any]:
        """The values in a piece of the body, which may begin and end anywhere.

        Raises:
            ValueError: an event is too long, or not JSON.
        """
        self._buffer += piece
        if self._is_json is None and not _BOM.startswith(self._buffer):
            start = self._buffer.removeprefix(_BOM).lstrip()
            self._is_json, self._buffer = (start.startswith((b"{", b"[")) if start else None), start
        if not self._is_json and (b"\n" in piece or b"\r" in piece):
            lines = bytes(self._buffer).splitlines(keepends=True)
            self._buffer.clear()
            if lines and not lines[-1].endswith(b"\n"):  # cut, perhaps within CRLF
                self._buffer += lines.pop()
            for line in lines:
                if (value := self._read(line.strip())) is not None:
                    yield value
                if self.is_done:
                    return
        if len(self._buffer) + len(self._data) > LONGEST_EVENT_BYTES:
            raise InvalidReply(f"the model's reply has an event of more than {LONGEST_EVENT_BYTES >> 20} MiB")

    def finish(self) -> Iterator[Any]:
        """The values that the end of the body completes."""
        if self._is_json and not self.is_done:
            self.is_done = True
            yield self._value(bytes(self._buffer))
        elif not self.is_done:
            with suppress(ValueError):  # an event that was cut off
                for line in (bytes(self._buffer).strip(), b""):
                    if (value := self._read(line)) is not None:
                        yield value

    def _read(self, line: bytes) -> Any:
        """The value that a line completes, if any. Unknown fields are ignored, as are comments."""
        if line.startswith(b"data:"):
            return self._add(line[5:].strip())
        if line.startswith(b"event:"):
            self._event = line[6:].strip()
        elif line.startswith(b"error:"):  # llama.cpp
            self._event = b"error"
            return self._add(line[6:].strip())
        elif not line:
            data, self._data = bytes(self._data), bytearray()
            value = self._value(data) if data else None
            self._event = b""
            return value
        return None

    def _add(self, data: bytes) -> Any:
        if data.startswith(b"[DONE]"):
            self.is_done = True
        elif self._data:
            self._data += b"\n" + data
        elif data:
            try:
                return self._value(data)
            except ValueError:  # the other lines follow
                self._data += data
        return None

    def _value(self, data: bytes) -> Any:
        try:
            value: Any = _decode(data.decode(errors="replace"))
        except RecursionError:
            raise InvalidReply("the model's reply is nested too deeply") from None
        is_error = self._event == b"error" and not (isinstance(value, dict) and "error" in value)
        return cast("object", {"error": value} if is_error else value)
