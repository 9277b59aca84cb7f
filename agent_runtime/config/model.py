"""The sections of the agent file that say which model answers."""

from __future__ import annotations

import re
from typing import Any, Literal, cast

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from agent_runtime.config.section import Section, is_http_url

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110: a token
_CLIENT_HEADERS = frozenset(
    {"connection", "content-encoding", "content-length", "content-type", "host", "transfer-encoding"}
)


class ModelEndpoint(Section):
    """One model, and how it is reached."""

    provider: Literal["openai", "azure_openai", "local"] = "openai"
    """`openai` is any OpenAI-compatible endpoint; `azure_openai` a deployment in Azure; `local` runs a model in the
    agent's own process, without a key."""
    name: str | None = Field(default=None, validate_default=True)
    """The model's name at the provider; for `local` the built-in `smollm2-135m` (the default), a path to a .gguf file
    or a hub id (`owner/repo` or `owner/repo:file.gguf`)."""
    deployment: str | None = Field(default=None, validate_default=True)
    """The name of the deployment; `azure_openai` only."""
    endpoint: str | None = Field(default=None, validate_default=True)
    """Base URL of an OpenAI-compatible API, with its `/v1`; OpenAI's own where it is not given. For `azure_openai` the
    address of the resource, such as `https://my-resource.openai.azure.com`."""
    api_version: str = Field(default="2024-10-21", pattern=r"^[\w.-]+$")
    """The version of Azure's API; `azure_openai` only."""
    api_key: SecretStr | None = Field(default=None, validate_default=True)
    """The provider's key: a placeholder, never the key itself. Endpoints that need none (Ollama, vLLM) take none;
    `azure_openai` without one signs in with Entra ID, as the identity that it runs under."""
    headers: dict[str, SecretStr] = Field(default_factory=dict[str, SecretStr])
    """Sent with every request, such as `{OpenAI-Organization: org-1}`; values may have placeholders."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """Passed on to the model as they are, for example `{temperature: 0.2}`."""
    timeout_seconds: float = Field(default=60, gt=0)
    """How long one reply of the model may take to begin or to go on."""
    max_retries: int = Field(default=2, ge=0)
    """How often a call that was rate limited, failed or timed out is tried again, after the time that the provider
    asks for; not for `local`."""

    # Validators of fields, not of the model: theirs are reported together with everything else that is wrong.

    @field_validator("name")
    @classmethod
    def _named(cls, name: str | None, known: ValidationInfo) -> str | None:
        if known.data.get("provider") == "openai" and not name:
            raise ValueError("is required for the provider openai, for example gpt-4o-mini")
        if known.data.get("provider") == "azure_openai" and name:
            raise ValueError("is not for the provider azure_openai, which is told the `deployment`")
        return name

    @field_validator("deployment")
    @classmethod
    def _deployed(cls, deployment: str | None, known: ValidationInfo) -> str | None:
        if known.data.get("provider") == "azure_openai" and not deployment:
            raise ValueError("is required for the provider azure_openai: the name of the deployment")
        return deployment

    @field_validator("deployment", "api_version")
    @classmethod
    def _only_for_azure(cls, value: str | None, known: ValidationInfo) -> str | None:
        if value and known.data.get("provider", "azure_openai") != "azure_openai":
            raise ValueError("is only for the provider azure_openai")
        return value

    @field_validator("endpoint")
    @classmethod
    def _is_an_address(cls, endpoint: str | None, known: ValidationInfo) -> str | None:
        if endpoint and not is_http_url(endpoint):
            raise ValueError("must be an http:// or https:// address, such as http://127.0.0.1:11434/v1")
        if not endpoint and known.data.get("provider") == "azure_openai":
            raise ValueError("is required for the provider azure_openai: the address of the resource")
        return endpoint

    @field_validator("headers")
    @classmethod
    def _may_be_sent(cls, headers: dict[str, SecretStr], known: ValidationInfo) -> dict[str, SecretStr]:
        is_azure = known.data.get("provider") == "azure_openai"
        for name in headers:
            if not _HEADER_NAME.fullmatch(name):
                raise ValueError(f"has {name!r}, which is not the name of an HTTP header")
            if name.lower() == "authorization" or (is_azure and name.lower() == "api-key"):
                raise ValueError(f"must not have {name}: set `api_key` instead")
            if name.lower() in _CLIENT_HEADERS:
                raise ValueError(f"must not have {name}, which the client sets itself")
        return headers

    @field_validator("endpoint", "api_key", "headers")
    @classmethod
    def _not_for_local(cls, value: Any, known: ValidationInfo) -> Any:
        if known.data.get("provider") == "local" and value:
            raise ValueError("is not for the provider local, which runs in the agent's own process")
        return value

    @field_validator("api_key")
    @classmethod
    def _has_a_key(cls, key: SecretStr | None, known: ValidationInfo) -> SecretStr | None:
        if key is None and known.data.get("provider") == "openai" and not known.data.get("endpoint", "?"):
            raise ValueError("is required for OpenAI's own endpoint; use a placeholder: ${OPENAI_API_KEY}")
        return key


class ModelConfig(ModelEndpoint):
    """Which model answers, how it is reached, and which ones stand in for it."""

    fallback: list[ModelEndpoint] = Field(default_factory=list[ModelEndpoint])
    """Models that are asked in this order when the one before is rate limited, out of quota, failing, out of reach, or
    too small for the conversation."""

    @field_validator("fallback", mode="before")
    @classmethod
    def _flat(cls, fallback: Any) -> Any:
        entries = cast("list[Any]", fallback) if isinstance(fallback, list) else []
        if any(isinstance(entry, dict) and "fallback" in entry for entry in entries):
            raise ValueError("has no `fallback` of its own: list the models one after the other")
        return cast("Any", fallback)
