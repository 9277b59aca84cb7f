"""The picture of the agent file: every key, its type, its default and what it changes.

The text under each field is the description that the JSON Schema and the documentation carry.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Discriminator, Field, SecretStr, Tag, ValidationInfo, field_validator

AgentType = Literal["tool", "stateful", "react", "planning", "stateful_react", "stateful_react_plan"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ModelConfig(_Section):
    """Which model answers, and how it is reached."""

    provider: Literal["openai", "local"] = "openai"
    """`openai` is any OpenAI-compatible endpoint; `local` runs a model in the agent's own process, without a key."""
    name: str | None = Field(default=None, validate_default=True)
    """The model's name at the provider; for `local` the built-in `smollm2-135m` (the default), a path to a .gguf file
    or a hub id (`owner/repo` or `owner/repo:file.gguf`)."""
    endpoint: str | None = None
    """Base URL of an OpenAI-compatible API, with its `/v1`; OpenAI's own where it is not given."""
    api_key: SecretStr | None = Field(default=None, validate_default=True)
    """The provider's key: a placeholder, never the key itself. Endpoints that need none (Ollama, vLLM) take none."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """Passed on to the model as they are, for example `{temperature: 0.2}`."""
    timeout_seconds: float = Field(default=60, gt=0)
    """How long one reply of the model may take to begin or to go on."""
    max_retries: int = Field(default=2, ge=0)
    """How often a call that was rate limited, failed or timed out is tried again; `openai` only."""

    # Validators of fields, not of the model: theirs are reported together with everything else that is wrong.

    @field_validator("name")
    @classmethod
    def _named(cls, name: str | None, known: ValidationInfo) -> str | None:
        if known.data.get("provider") == "openai" and not name:
            raise ValueError("is required for the provider openai, for example gpt-4o-mini")
        return name

    @field_validator("endpoint")
    @classmethod
    def _is_an_address(cls, endpoint: str | None) -> str | None:
        if endpoint and not _is_address(endpoint):
            raise ValueError("must be an http:// or https:// address, such as http://127.0.0.1:11434/v1")
        return endpoint

    @field_validator("endpoint", "api_key")
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


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, a bracket that is not closed
        return False


class FunctionToolConfig(_Section):
    """A Python function as a tool."""

    function: str = Field(pattern=r"^[\w.]+:\w+$")
    """`module:function`, the module beside the agent file or installed."""
    answer: Literal["model", "direct"] = "model"
    """`direct` makes the tool's result the answer, word for word; `model` lets the model read it and answer."""
    timeout_seconds: float = Field(default=60, gt=0)
    """How long one call may take before the model is told that it timed out."""


class ContextConfig(_Section):
    """Documents that are searched by meaning."""

    documents: list[str] = Field(min_length=1)
    """Files or glob patterns beside the agent file: Markdown and plain text."""
    top_k: int = Field(default=4, ge=1, le=50)
    """How many passages one search returns."""
    name: str = Field(default="search_documents", pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    """What the model calls the tool."""
    description: str = "Search the documents by meaning and return the passages that fit the question best."
    """What the model is told the tool is for."""
    embedding_model: str = "all-MiniLM-L6-v2"
    """A sentence-transformers model: this one comes with the `vector` extra, any other is a folder or a hub id."""


class ContextToolConfig(_Section):
    """A search over documents as a tool."""

    context: ContextConfig
    """The documents and how they are searched."""
    answer: Literal["model", "direct"] = "model"
    """`direct` makes the passages the answer, word for word; `model` lets the model read them and answer."""


def _tool_kind(value: Any) -> str | None:
    if isinstance(value, str):
        return "reference"
    keys: Any = cast("dict[str, Any]", value) if isinstance(value, dict) else getattr(value, "model_fields_set", ())
    return next((kind for kind in ("function", "context") if kind in keys), None)


ToolConfig = Annotated[
    Annotated[str, Field(pattern=r"^[\w.]+:\w+$"), Tag("reference")]
    | Annotated[FunctionToolConfig, Tag("function")]
    | Annotated[ContextToolConfig, Tag("context")],
    Discriminator(
        _tool_kind,
        custom_error_type="tool_kind",
        custom_error_message="a tool is `module:function`, or has one of the keys `function` and `context`",
    ),
]


class ReasoningConfig(_Section):
    """Overrides one choice of the preset that `agent_type` names."""

    dialect: Literal["native", "react"] | None = None
    """How the model asks for tools: `native` tool calls, or `react` in text, for models without tool calls."""
    plan: bool | None = None
    """Whether the model writes a plan first, works it off, and revises it when a step fails."""
    memory: bool | None = None
    """Whether a session's earlier turns are remembered."""


class SessionConfig(_Section):
    """Where conversations are kept."""

    store: SecretStr = SecretStr("sqlite:///sessions.db")
    """`sqlite:///file.db` (relative to the agent file), `postgresql://…` or `memory`."""
    history_messages: int = Field(default=50, ge=1)
    """How many of a session's latest messages the model is shown."""


class LimitsConfig(_Section):
    """What one run may use before it ends with its best answer so far."""

    max_steps: int = Field(default=10, ge=1)
    """Replies of the model."""
    max_tool_calls: int = Field(default=20, ge=0)
    """Calls of tools."""
    max_tokens: int = Field(default=50_000, ge=1)
    """Tokens in and out, as the provider counts them."""
    max_repeated_calls: int = Field(default=3, ge=1)
    """The same tool with the same arguments this many times is a loop."""
    timeout_seconds: float = Field(default=300, gt=0)
    """Wall-clock time of the run."""


class ServerConfig(_Section):
    """Where the agent listens and who may call it."""

    host: str = "127.0.0.1"
    """The address to listen on; anything but loopback needs `api_keys` or `--allow-anonymous`."""
    port: int = Field(default=8000, ge=0, le=65535)
    """The port to listen on; 0 takes a free one."""
    public_url: str | None = None
    """The address a browser reaches the agent at, where it differs from the services' one."""
    service_url: str | None = None
    """The address other services reach the agent at."""
    api_keys: list[SecretStr] = Field(default_factory=list[SecretStr])
    """Keys that callers send as `Authorization: Bearer …`; several, so that they can be rotated."""
    cors_origins: list[str] = Field(default_factory=list)
    """Origins whose pages may call the agent, such as the portal's."""


class DiscoveryConfig(_Section):
    """The registry that the agent announces itself to."""

    url: str | None = None
    """The registry's address; without one the agent registers nowhere."""
    heartbeat_seconds: float | None = Field(default=None, gt=0)
    """How often the agent renews its registration; without it, it registers once and never expires."""
    token: SecretStr | None = None
    """The registry's bearer token, where it asks for one."""
    owner: str | None = None
    """The team that answers for the agent."""
    tags: list[str] = Field(default_factory=list)
    """Words that the portal filters by."""


class AgentConfig(_Section):
    """One agent."""

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
    """Lower-case letters, digits and hyphens, at most 63: it works as a host name."""
    version: str = "1.0.0"
    """The agent's own version, shown in the portal."""
    description: str = ""
    """One sentence for people and other agents: what it is for."""
    agent_type: AgentType = "tool"
    """A preset: how the model asks for tools, whether it plans first, and whether the session is remembered."""
    reasoning: ReasoningConfig = ReasoningConfig()
    """Overrides one choice of the preset."""
    model: ModelConfig
    """Which model answers."""
    system_prompt: str = ""
    """What the model is told before every conversation. It never leaves the agent, but to the model."""
    tools: list[ToolConfig] = Field(default_factory=list[ToolConfig])
    """What the agent can do: Python functions and documents to search."""
    session: SessionConfig = SessionConfig()
    """Where conversations are kept."""
    limits: LimitsConfig = LimitsConfig()
    """What one run may use."""
    server: ServerConfig = ServerConfig()
    """Where the agent listens."""
    discovery: DiscoveryConfig = DiscoveryConfig()
    """Where the agent announces itself."""
