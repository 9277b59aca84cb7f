"""The `openai` package as the models use it: its client, and its failures as ModelErrors that say who must act.

Slow to import: `openai.py` imports it at the first request, in a thread.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from functools import cache
from ssl import SSLContext
from typing import Any, cast
from urllib.parse import quote, urlsplit
from urllib.request import getproxies

import aiohttp
import httpx2
from openai import (
    APIStatusError,
    AsyncAzureOpenAI,
    AsyncOpenAI,
    DefaultAioHttpClient,
    DefaultAsyncHttpxClient,
    OpenAIError,
)

from agent_runtime.config import ModelEndpoint
from agent_runtime.errors import ModelError, ModelFault
from agent_runtime.masking import masked
from agent_runtime.models.base import InvalidReply
from agent_runtime.models.openai_reply import ReportedError

LONGEST_ERROR_BYTES = 64 * 1024
_OPENAI = "https://api.openai.com/v1"
_KEEPALIVE_SECONDS = 15.0
_LAST_BYTES_SECONDS = 0.1
_LONGEST_WORDS = 300  # of a provider's message, that are passed on
_NO_MESSAGE = "an error without a message"
_QUOTE_CHARACTERS = 24  # so many characters in a row are no coincidence
_REQUEST_IDS = ("x-request-id", "apim-request-id", "x-ms-request-id", "request-id")

_log = logging.getLogger(__name__)

failures: tuple[type[Exception], ...] = (
    OpenAIError,
    ReportedError,
    httpx2.HTTPError,
    aiohttp.ClientError,  # the client's transport maps most of them, not all
    OSError,
    ValueError,
)
"""What a request raises; `model_error` translates it."""
with suppress(ImportError):  # an optional package: a proxy that does not speak SOCKS
    from socksio import SOCKSError

    failures += (SOCKSError,)

# The client's aiohttp transport maps these to time-outs.
_UNREACHABLE = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.InvalidURL,
    httpx2.ConnectError,
    httpx2.ProxyError,
    httpx2.UnsupportedProtocol,
)
# Providers agree on no code for a conversation that is too long, so their messages are matched too.
_OVERFLOW = re.compile(
    r"maximum context length"  # OpenAI, Azure, vLLM
    r"|exceeds? the (?:available )?context (?:size|window|length)"  # llama.cpp, OpenAI, Ollama
    r"|exceeds? (?:the )?maximum (?:context|input) length"  # Ollama
    r"|longer than the maximum model length|model's context length is only"  # vLLM
    r"|exceed_context_size|context_length_exceeded|ContextWindowExceeded"  # llama.cpp, OpenAI, LiteLLM
    r"|prompt is too long|inputs?`? tokens? .* must be <=",  # Anthropic's and Hugging Face's endpoints
    re.IGNORECASE,
)
_HARD_QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
_OUT_OF_QUOTA = re.compile(r"out of call volume quota|exceeded your current quota|insufficient balance", re.IGNORECASE)


@cache
def certificates() -> SSLContext:
    """The trusted certificates, read once for all clients: reading them takes longer than ten requests."""
    return httpx2.create_ssl_context()


def new_client(
    config: ModelEndpoint,
    name: str,
    api_key: Callable[[], Awaitable[str]],
    entra_token: Callable[[], Awaitable[str]] | None,
) -> AsyncOpenAI:
    """The client of one endpoint. It calls `api_key`, or `entra_token` where there is one, before each request.

    Raises:
        ModelError: the environment names a proxy that cannot be used.
    """
    http = _http_client()
    if config.provider == "azure_openai":
        return AsyncAzureOpenAI(
            azure_endpoint=config.endpoint or "",
            azure_deployment=quote(name, safe=""),
            api_version=config.api_version,
            api_key=None if entra_token else api_key,
            azure_ad_token_provider=entra_token,
            timeout=config.timeout_seconds,
            max_retries=config.max_retries,
            http_client=http,
        )
    return AsyncOpenAI(
        base_url=config.endpoint or _OPENAI,
        api_key=api_key,
        timeout=config.timeout_seconds,
        max_retries=config.max_retries,
        http_client=http,
    )


def _http_client() -> httpx2.AsyncClient:
    # The aiohttp transport serves hundreds of connections best, but would send plain text to a SOCKS port.
    is_socks = any(proxy.startswith("socks") for proxy in getproxies().values())
    try:
        return (DefaultAsyncHttpxClient if is_socks else DefaultAioHttpClient)(
            verify=certificates(),
            follow_redirects=False,  # the key and the conversation are meant for this address only
            limits=httpx2.Limits(max_connections=1000, keepalive_expiry=_KEEPALIVE_SECONDS),
            event_hooks={"response": [_limit_error]},
        )
    except ImportError as error:
        raise ModelError("a SOCKS proxy needs a package: pip install socksio", fault="unreachable") from error
    except ValueError as error:
        raise ModelError("the environment names a proxy of an unknown kind", fault="unreachable") from error


async def drain(pieces: AsyncIterator[bytes]) -> None:
    """Read what follows the end of a reply: only after its last byte can the connection serve another request."""
    with suppress(TimeoutError, httpx2.HTTPError):
        async with asyncio.timeout(_LAST_BYTES_SECONDS):
            async for _ in pieces:
                pass


async def _limit_error(response: httpx2.Response) -> None:
    """Read no more than LONGEST_ERROR_BYTES of an error, and keep the client from retrying an exhausted quota."""
    stream = response.stream
    if response.is_success or not isinstance(stream, httpx2.AsyncByteStream):
        return
    raw = bytearray()
    with suppress(httpx2.HTTPError):  # what has arrived says enough
        async for piece in stream:
            raw += piece
            if len(raw) >= LONGEST_ERROR_BYTES:
                break
    await stream.aclose()
    content = bytes(raw[:LONGEST_ERROR_BYTES])
    if response.headers.pop("content-encoding", "identity").lower() in {"gzip", "deflate"}:
        with suppress(zlib.error):
            content = zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(content, LONGEST_ERROR_BYTES)
    response.stream = httpx2.ByteStream(content)
    text = content.decode(errors="replace")
    if response.status_code == 429 and (_OUT_OF_QUOTA.search(text) or any(code in text for code in _HARD_QUOTA)):
        response.headers["x-should-retry"] = "false"


def model_error(
    error: Exception,
    config: ModelEndpoint,
    model: str,
    secrets: Iterable[str],
    sent: Mapping[str, Any],
    response: httpx2.Response | None,
) -> ModelError:
    """Translate one of `failures`, and log it with the provider's request id.

    The provider's words may quote what was sent: neither secrets nor the conversation is passed on.
    """
    match error:
        case InvalidReply():
            failure = ModelError(str(error))
        case APIStatusError():
            response = error.response
            failure = _rejection(error.body, response, config, model, secrets, sent)
        case ReportedError():
            failure = _rejection(error.body, None, config, model, secrets, sent)
        case ValueError():
            failure = ModelError(f"the model {model} sent something that cannot be read: {type(error).__name__}")
        case _:
            failure = _connection_error(error, config, model)
    ids = [response.headers[name] for name in _REQUEST_IDS if name in response.headers] if response else []
    request_id = f", request id {ids[0][:100]}" if ids else ""
    _log.warning("%s/%s: %s (%s%s)", config.provider, model, failure, failure.fault, request_id)
    return failure


def _connection_error(error: Exception, config: ModelEndpoint, model: str) -> ModelError:
    chain: list[BaseException] = [error]
    while cause := chain[-1].__cause__:
        chain.append(cause)
    reason = " ".join(str(chain[-1]).split())[:_LONGEST_WORDS] or type(chain[-1]).__name__
    if any(isinstance(one, _UNREACHABLE) for one in chain):
        return ModelError(f"the model {model} cannot be reached at model.endpoint: {reason}", fault="unreachable")
    if any(isinstance(one, TimeoutError) for one in chain):
        waited = f"{config.timeout_seconds:g} s"
        return ModelError(f"the model {model} did not answer within {waited}", fault="unreachable")
    return ModelError(f"the connection to the model {model} broke: {reason}")


def _rejection(
    body: object,
    response: httpx2.Response | None,
    config: ModelEndpoint,
    model: str,
    secrets: Iterable[str],
    sent: Mapping[str, Any],
) -> ModelError:
    """What an error in the provider's words means; there is no `response` if it is part of a reply."""
    status = response.status_code if response else None
    message, codes = _words_of(body)
    if "context_length_exceeded" in codes or (status not in {401, 403, 404, 429} and _OVERFLOW.search(message)):
        return ModelError(f"the conversation is too long for the model {model}", fault="context_overflow")
    if status == 402 or codes & _HARD_QUOTA or (status in {None, 403, 429} and _OUT_OF_QUOTA.search(message)):
        return ModelError(f"the quota for the model {model} is used up", fault="quota")
    if status in {401, 403}:
        return ModelError(f"the provider refused model.api_key for {model} (HTTP {status})", fault="auth")
    if status == 404:
        known, base = f"model {model}", "base of an OpenAI-compatible API"
        if config.provider == "azure_openai":
            known, base = f"deployment {model}", "Azure OpenAI resource"
        reason = f"the provider knows no {known}, or model.endpoint is not the {base} (HTTP 404)"
        return ModelError(reason, fault="not_found")
    if response is not None and 300 <= response.status_code < 400:
        target = urlsplit(response.headers.get("location", ""))._replace(query="", fragment="").geturl()
        reason = f"model.endpoint of {model} has moved (HTTP {status}): set it to where it redirects to, {target[:200]}"
        return ModelError(reason, fault="not_found")
    if status == 429:
        return ModelError(f"the model {model} is rate limited", fault="rate_limited")
    # Masked before it is cut: a part of a key would not be recognised.
    words = " ".join(masked(f"HTTP {status}: {message}" if status else message or _NO_MESSAGE, secrets).split())
    if _quotes(words[: _LONGEST_WORDS + _QUOTE_CHARACTERS], sent):
        words = f"its reason quotes the conversation, so it is not repeated here (HTTP {status or 200})"
    is_invalid = status is not None and 400 <= status < 500 and status not in {408, 409}
    fault: ModelFault = "invalid_request" if is_invalid else "failed"
    return ModelError(f"the model {model} failed: {words[:_LONGEST_WORDS]}", fault=fault)


def _words_of(body: Any) -> tuple[str, set[str]]:
    """The message and the codes of an error: `{"error": {…}}`, `{"error": "…"}`, `{"message": …}`, a list, or text."""
    while isinstance(body, list) or (isinstance(body, dict) and cast("dict[str, Any]", body).get("error")):
        entries = cast("list[Any] | dict[str, Any]", body)
        body = entries["error"] if isinstance(entries, dict) else entries[0] if entries else ""
    if not isinstance(body, dict):
        return str(body or ""), set()
    entry = cast("dict[str, Any]", body)
    message: Any = entry.get("message") or entry.get("detail") or _NO_MESSAGE
    codes = {str(entry.get("code")), str(entry.get("type"))}
    return message if isinstance(message, str) else json.dumps(message), codes


def _quotes(words: str, sent: Mapping[str, Any]) -> bool:
    """Whether words repeat a piece of the conversation; providers quote it as it is, or as JSON."""
    messages: list[dict[str, Any]] = sent["messages"]
    conversation = json.dumps(messages, ensure_ascii=False) + json.dumps(messages)
    conversation += " ".join(str(message["content"]) for message in messages)
    conversation = " ".join(conversation.split())
    last = len(words) - _QUOTE_CHARACTERS
    return any(words[start : start + _QUOTE_CHARACTERS] in conversation for start in range(last + 1))
