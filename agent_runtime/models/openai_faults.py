"""What an OpenAI-compatible provider's errors mean, in our words. Its own text is left out where it may echo a key."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Mapping
from typing import Any

from agent_runtime.config import ModelEndpoint
from agent_runtime.errors import ModelError
from agent_runtime.masking import masked

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


def translated(
    error: Exception, config: ModelEndpoint, model: str, key: str | None, sent: Mapping[str, Any]
) -> ModelError:
    """A foreign error as the ModelError whose fault says whose turn it is.

    It may quote what was sent: neither the key nor the conversation is passed on.
    """
    sdk, http = importlib.import_module("openai"), importlib.import_module("httpx2")
    match error:
        case sdk.APITimeoutError():
            return ModelError(
                f"the model {model} did not answer within {config.timeout_seconds:g} s", fault="unreachable"
            )
        case sdk.APIConnectionError() if isinstance(error.__cause__, http.ConnectError):
            return ModelError(
                f"the model {model} cannot be reached at model.endpoint: {error.__cause__}", fault="unreachable"
            )
        case sdk.APIConnectionError():
            return ModelError(f"the connection to the model {model} broke: {_one_line(error.__cause__ or error)}")
        case sdk.APIError():
            return _refused(error, model, config, key, sent)
        case _:
            return ModelError(f"the model {model} sent something that cannot be read: {type(error).__name__}")


def is_hard_quota(text: str) -> bool:
    """Whether a body says that the quota is used up, not that the model was asked too fast."""
    return any(code in text for code in _HARD_QUOTA) or _OUT_OF_QUOTA.search(text) is not None


def _refused(
    error: Exception, model: str, config: ModelEndpoint, key: str | None, sent: Mapping[str, Any]
) -> ModelError:
    code, message = getattr(error, "code", None), str(getattr(error, "message", error))
    status: int | None = getattr(error, "status_code", None)  # none: said in the middle of a stream
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
        case 429:
            return ModelError(f"the model {model} is rate limited", fault="rate_limited")
        case _:
            # masked before it is cut: a part of a key would not be known again
            words = " ".join(masked(message, [key] if key else []).split())
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
