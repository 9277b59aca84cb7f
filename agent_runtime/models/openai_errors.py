"""What the failures of an OpenAI-compatible provider mean, as ModelErrors that say who must act."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, cast
from urllib.parse import urlsplit

import aiohttp
import httpx2
from openai import APIConnectionError, APIError, APIStatusError

from agent_runtime.config import ModelEndpoint
from agent_runtime.errors import ModelError, ModelFault
from agent_runtime.masking import masked
from agent_runtime.models.base import InvalidReply

LONGEST_ERROR_BYTES = 64 * 1024
_LONGEST_WORDS = 300  # of a provider's message, that are passed on
_QUOTE_CHARACTERS = 24  # so many characters in a row are no coincidence

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


async def limit_error(response: httpx2.Response) -> None:
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
    if response.headers.pop("content-encoding", "identity") in {"gzip", "deflate"}:
        with suppress(zlib.error):
            content = zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(content, LONGEST_ERROR_BYTES)
    response.stream = httpx2.ByteStream(content)
    text = content.decode(errors="replace")
    if response.status_code == 429 and (_OUT_OF_QUOTA.search(text) or any(code in text for code in _HARD_QUOTA)):
        response.headers["x-should-retry"] = "false"


def model_error(
    error: Exception, config: ModelEndpoint, model: str, secrets: Iterable[str], sent: Mapping[str, Any]
) -> ModelError:
    """A failure as the ModelError that says who must act.

    The provider's words may quote what was sent: neither secrets nor the conversation is passed on.
    """
    match error:
        case InvalidReply():
            return ModelError(str(error))
        case APIStatusError():
            return _rejection(error, error.status_code, config, model, secrets, sent)
        case APIError() if not isinstance(error, APIConnectionError):  # within a reply
            return _rejection(error, None, config, model, secrets, sent)
        case ValueError():
            return ModelError(f"the model {model} sent something that cannot be read: {type(error).__name__}")
        case _:
            return _connection_error(error, config, model)


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
    error: APIError,
    status: int | None,
    config: ModelEndpoint,
    model: str,
    secrets: Iterable[str],
    sent: Mapping[str, Any],
) -> ModelError:
    message, codes = _words_of(error.body)
    if "context_length_exceeded" in codes or (status not in {401, 403, 404, 429} and _OVERFLOW.search(message)):
        return ModelError(f"the conversation is too long for the model {model}", fault="context_overflow")
    if status == 402 or codes & _HARD_QUOTA or (status in {None, 403, 429} and _OUT_OF_QUOTA.search(message)):
        return ModelError(f"the quota for the model {model} is used up", fault="quota")
    if status in {401, 403}:
        return ModelError(f"the provider refused model.api_key for {model} (HTTP {status})", fault="auth")
    if status == 404:
        is_azure = config.provider == "azure_openai"
        kind, base = (
            ("deployment", "Azure OpenAI resource") if is_azure else ("model", "base of an OpenAI-compatible API")
        )
        reason = f"the provider knows no {kind} {model}, or model.endpoint is not the {base} (HTTP 404)"
        return ModelError(reason, fault="not_found")
    if isinstance(error, APIStatusError) and 300 <= error.status_code < 400:
        target = urlsplit(error.response.headers.get("location", ""))._replace(query="", fragment="").geturl()
        reason = f"model.endpoint of {model} has moved (HTTP {status}): set it to where it redirects to, {target[:200]}"
        return ModelError(reason, fault="not_found")
    if status == 429:
        return ModelError(f"the model {model} is rate limited", fault="rate_limited")
    # Masked before it is cut: a part of a key would not be recognised.
    words = f"HTTP {status}: {message}" if status else message
    words = " ".join(masked(words, secrets).split())
    if _quotes(words[: _LONGEST_WORDS + _QUOTE_CHARACTERS], sent):
        words = f"its reason quotes the conversation, so it is not repeated here (HTTP {status or 200})"
    is_invalid = status is not None and 400 <= status < 500 and status not in {408, 409}
    fault: ModelFault = "invalid_request" if is_invalid else "failed"
    return ModelError(f"the model {model} failed: {words[:_LONGEST_WORDS]}", fault=fault)


def _words_of(body: object) -> tuple[str, set[str]]:
    """The message and the codes of an error: `{"error": {…}}`, `{"error": "…"}`, `{"message": …}`, a list, or text."""
    found: Any = body
    while isinstance(found, (dict, list)):
        entry = cast("dict[str, Any] | list[Any]", found)
        if isinstance(entry, list):
            found = entry[0] if entry else ""
            continue
        if entry.get("error"):
            found = entry["error"]
            continue
        message: Any = entry.get("message") or entry.get("detail") or "an error without a message"
        codes = {str(entry.get("code")), str(entry.get("type"))}
        return message if isinstance(message, str) else json.dumps(message), codes
    return str(found or ""), set()


def _quotes(words: str, sent: Mapping[str, Any]) -> bool:
    """Whether words repeat a piece of the conversation; providers quote it as it is, or as JSON."""
    messages: list[dict[str, Any]] = sent["messages"]
    conversation = json.dumps(messages, ensure_ascii=False) + json.dumps(messages)
    conversation += " ".join(str(message["content"]) for message in messages)
    conversation = " ".join(conversation.split())
    last = len(words) - _QUOTE_CHARACTERS
    return any(words[start : start + _QUOTE_CHARACTERS] in conversation for start in range(last + 1))
