"""What an OpenAI-compatible provider's errors mean, in our words. Its own text is left out where it may echo a key."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from agent_runtime.config import ModelEndpoint
from agent_runtime.errors import ModelError
from agent_runtime.masking import masked
from agent_runtime.models.openai_wire import Interrupted

# Providers agree on no code for a conversation that is too long, so their words are read too.
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
_OUT_OF_QUOTA = re.compile(r"out of call volume quota|exceeded your current quota", re.IGNORECASE)


_LONGEST_WORDS = 300  # of a provider, that are passed on
_QUOTE = 24  # so many characters in a row are no chance


class ProviderFault(Exception):
    """What went wrong between us and a provider, not yet in our words."""


class Unreachable(ProviderFault):
    """There is no connection; the message says why."""


class Silent(ProviderFault):
    """Nothing came for too long."""


class Broken(ProviderFault):
    """The connection ended before the reply did; the message says why."""


class Refused(ProviderFault):
    """The provider answers with an HTTP status that is no success, and with words of its own."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None,
        *,
        moved_to: str | None = None,
        seconds: float | None = None,
        passes: bool = False,
    ) -> None:
        self.status = status
        self.message = message
        self.code = code
        self.moved_to = moved_to
        self.seconds = seconds
        """How long the provider asks to wait for."""
        self.passes = passes
        """Whether another try may help."""
        super().__init__(f"HTTP {status}: {message}")


def translated(
    error: Exception, config: ModelEndpoint, model: str, key: str | None, sent: Mapping[str, Any]
) -> ModelError:
    """A fault as the ModelError that says whose turn it is.

    It may quote what was sent: neither the key nor the conversation is passed on.
    """
    match error:
        case Silent():
            waited = f"{config.timeout_seconds:g} s"
            return ModelError(f"the model {model} did not answer within {waited}", fault="unreachable")
        case Unreachable():
            what = _one_line(error)
            return ModelError(f"the model {model} cannot be reached at model.endpoint: {what}", fault="unreachable")
        case Broken():
            return ModelError(f"the connection to the model {model} broke: {_one_line(error)}")
        case Refused():
            return _refused(error, error.status, model, config, key, sent)
        case Interrupted():  # said in the middle of a stream
            return _refused(error, None, model, config, key, sent)
        case _:
            return ModelError(f"the model {model} sent something that cannot be read: {type(error).__name__}")


def is_hard_quota(text: str) -> bool:
    """Whether a body says that the quota is used up, not that the model was asked too fast."""
    return any(code in text for code in _HARD_QUOTA) or _OUT_OF_QUOTA.search(text) is not None


def _refused(
    error: Refused | Interrupted,
    status: int | None,
    model: str,
    config: ModelEndpoint,
    key: str | None,
    sent: Mapping[str, Any],
) -> ModelError:
    code, message = error.code, error.message
    if code == "context_length_exceeded" or (status not in {401, 403, 404, 429} and _OVERFLOW.search(message)):
        return ModelError(f"the conversation is too long for the model {model}", fault="context_overflow")
    if status == 402 or code in _HARD_QUOTA or (status in {403, 429} and is_hard_quota(message)):
        return ModelError(f"the quota for the model {model} is used up", fault="quota")
    match status:
        case 401 | 403:
            return ModelError(
                f"the provider refused model.api_key for {model} (HTTP {status})",
                fault="refused",
            )
        case 404:
            what = "deployment" if config.provider == "azure_openai" else "model"
            base = "Azure OpenAI resource" if config.provider == "azure_openai" else "base of an OpenAI-compatible API"
            return ModelError(
                f"the provider knows no {what} {model}, or model.endpoint is not the {base} (HTTP 404)",
                fault="refused",
            )
        case 301 | 302 | 303 | 307 | 308 if isinstance(error, Refused):
            place = urlsplit(error.moved_to or "")._replace(query="", fragment="").geturl()
            return ModelError(
                f"model.endpoint of {model} has moved (HTTP {status}): set it to where it redirects to, {place[:200]}",
                fault="refused",
            )
        case 429:
            return ModelError(f"the model {model} is rate limited", fault="rate_limited")
        case _:
            # masked before it is cut: a part of a key would not be known again
            words = " ".join(masked(str(error), [key] if key else []).split())
            if _quotes(words[: _LONGEST_WORDS + _QUOTE], sent):
                words = f"its reason quotes the conversation, so it is not repeated here (HTTP {status or 200})"
            return ModelError(f"the model {model} failed: {words[:_LONGEST_WORDS] or type(error).__name__}")


def _quotes(words: str, sent: Mapping[str, Any]) -> bool:
    """Whether words repeat a piece of the conversation; providers quote it as it is, or as JSON."""
    said = json.dumps(sent["messages"], ensure_ascii=False) + json.dumps(sent["messages"])
    said += " ".join(str(message["content"]) for message in sent["messages"])
    said = " ".join(said.split())
    return any(words[start : start + _QUOTE] in said for start in range(len(words) - _QUOTE + 1))


def _one_line(text: object) -> str:
    return " ".join(str(text).split())[:_LONGEST_WORDS] or type(text).__name__
