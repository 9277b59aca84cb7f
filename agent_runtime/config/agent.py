"""The agent file: every key with its type, default and meaning.

The text under each field is its description in the JSON Schema.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from pydantic import Discriminator, Field, SecretStr, Tag, ValidationInfo, field_validator

from agent_runtime.config.model import ModelConfig
from agent_runtime.config.section import Section, is_http_url
from agent_runtime.config.server import DiscoveryConfig, ServerConfig

AgentType = Literal["tool", "stateful", "react", "planning", "stateful_react", "stateful_react_plan"]


class FunctionToolConfig(Section):
    """A Python function as a tool."""

    function: str = Field(pattern=r"^[\w.]+:\w+$")
    """`module:function`, the module beside the agent file or installed."""
    answer: Literal["model", "direct"] = "model"
    """`direct` makes the tool's result the answer, word for word; `model` lets the model read it and answer."""
    approval: Literal["required"] | None = None
    """`required` makes every call wait until a person has approved it."""
    timeout_seconds: float = Field(default=60, gt=0)
    """How long one call may take before the model is told that it timed out."""
    retries: int = Field(default=0, ge=0, le=10)
    """How often a call that raised an exception is made again before the model is told; for calls that may repeat."""


class ContextConfig(Section):
    """Documents that are searched by meaning."""

    documents: list[str] = Field(min_length=1)
    """Files or glob patterns beside the agent file: Markdown, plain text, PDF and HTML."""
    top_k: int = Field(default=4, ge=1, le=50)
    """How many passages one search returns."""
    name: str = Field(default="search_documents", pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    """What the model calls the tool."""
    description: str = "Search the documents by meaning and return the passages that fit the question best."
    """What the model is told the tool is for."""
    embedding_model: str = "all-MiniLM-L6-v2"
    """A sentence-transformers model: this one comes with the `vector` extra, any other is a folder or a hub id."""
    index: Literal["memory", "pgvector"] = "memory"
    """Where the passages are searched: in the agent's memory, or with pgvector in the Postgres of `session.store`."""


class ContextToolConfig(Section):
    """A search over documents as a tool."""

    context: ContextConfig
    """The documents and how they are searched."""
    answer: Literal["model", "direct"] = "model"
    """`direct` makes the passages the answer, word for word; `model` lets the model read them and answer."""


class RemoteAgentToolConfig(Section):
    """Another agent as a tool: found through discovery, asked over A2A."""

    agent: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
    """The name it is registered under."""
    answer: Literal["model", "direct"] = "model"
    """`direct` makes the other agent's answer this one's, word for word; `model` lets the model read it and answer."""
    timeout_seconds: float = Field(default=120, gt=0)
    """How long one answer may take; never longer than what is left of this run."""
    approval: Literal["required"] | None = None
    """`required` makes every question to the other agent wait until a person has approved it."""
    api_key: SecretStr | None = None
    """One of the other agent's `server.api_keys`, where it has any."""


def _tool_kind(value: Any) -> str | None:
    if isinstance(value, str):
        return "reference"
    keys: Any = cast("dict[str, Any]", value) if isinstance(value, dict) else getattr(value, "model_fields_set", ())
    return next((kind for kind in ("function", "context", "agent") if kind in keys), None)


ToolConfig = Annotated[
    Annotated[str, Field(pattern=r"^[\w.]+:\w+$"), Tag("reference")]
    | Annotated[FunctionToolConfig, Tag("function")]
    | Annotated[ContextToolConfig, Tag("context")]
    | Annotated[RemoteAgentToolConfig, Tag("agent")],
    Discriminator(
        _tool_kind,
        custom_error_type="tool_kind",
        custom_error_message="a tool is `module:function`, or has one of the keys `function`, `context` and `agent`",
    ),
]


class McpServerConfig(Section):
    """An MCP server whose tools the agent may use: a program (`command`) or an address (`url`)."""

    command: str | None = None
    """The program to start; it is spoken to over its standard input and output."""
    args: list[str] = Field(default_factory=list[str], repr=False)
    """The program's arguments."""
    env: dict[str, SecretStr] = Field(default_factory=dict[str, SecretStr])
    """Variables for the program; of the agent's own it gets PATH, HOME and the like, and no secrets."""
    cwd: str | None = None
    """The folder the program runs in; relative to the agent file's, which is also the default."""
    url: str | None = Field(default=None, validate_default=True, repr=False)
    """The address of a server that is running already (streamable HTTP)."""
    headers: dict[str, SecretStr] = Field(default_factory=dict[str, SecretStr])
    """Sent with every request to `url`, such as `Authorization`."""
    required: bool = False
    """Whether the agent refuses to start without this server; else it starts degraded and tries again."""
    allowed_tools: list[str] | None = None
    """The server's tools that the agent may use; all of them where it is not given."""
    approval: Literal["required"] | None = None
    """`required` makes every call of the server's tools wait until a person has approved it."""
    timeout_seconds: float = Field(default=60, gt=0)
    """How long a call, or the start of the server, may take."""

    @field_validator("url")
    @classmethod
    def _one_way_to_reach_it(cls, url: str | None, known: ValidationInfo) -> str | None:
        command = known.data.get("command", "?")
        if url and known.data.get("command"):
            raise ValueError("is not together with `command`: a server is a program or an address")
        if not url and not command:
            raise ValueError("is required, or `command`")
        if url and not is_http_url(url):
            raise ValueError("must be an http:// or https:// address, such as https://mcp.example.com/mcp")
        return url

    @field_validator("headers")
    @classmethod
    def _for_an_address(cls, headers: dict[str, SecretStr], known: ValidationInfo) -> dict[str, SecretStr]:
        if headers and known.data.get("command"):
            raise ValueError("are for a server with a `url`; a program takes `env`")
        return headers


class ReasoningConfig(Section):
    """Overrides one choice of the preset that `agent_type` names."""

    dialect: Literal["native", "react"] | None = None
    """How the model asks for tools: `native` tool calls, or `react` in text, for models without tool calls."""
    plan: bool | None = None
    """Whether the model writes a plan first, works it off, and revises it when a step fails."""
    memory: bool | None = None
    """Whether a session's earlier turns are remembered."""


class SessionConfig(Section):
    """Where conversations are kept."""

    store: SecretStr = SecretStr("sqlite:///sessions.db")
    """`sqlite:///file.db` (relative to the agent file), `postgresql://…` or `memory`."""
    history_messages: int = Field(default=50, ge=1)
    """How many of a session's latest messages the model is shown."""
    history_tokens: int = Field(default=8_000, ge=1)
    """How many tokens of a session's latest turns the model is shown at most, estimated at four characters each."""
    summarize: bool = False
    """Whether the turns that no longer fit are summarised by the model; the conversation itself is kept as it is."""
    ttl_days: float | None = Field(default=None, gt=0)
    """How many days after its last message a conversation is deleted; never where it is not given."""


class LimitsConfig(Section):
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


class SecretsConfig(Section):
    """How the file's `${secret:…}` are kept up to date; where they come from is said by `MYAGENT_SECRETS`."""

    refresh_seconds: float | None = Field(default=None, gt=0)
    """How often all of them are fetched again; without it, only the one that was refused."""


class AgentConfig(Section):
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
    """What the agent can do: Python functions, documents to search, and other agents to ask."""
    mcp_servers: dict[Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,32}$")], McpServerConfig] = Field(
        default_factory=dict[str, McpServerConfig]
    )
    """MCP servers whose tools the agent may use, by name: the map that every MCP host uses, and a few keys more."""
    output_schema: str | dict[str, Any] | None = None
    """The JSON Schema that every answer fits: a file beside this one, or the schema itself."""
    session: SessionConfig = Field(default=SessionConfig(), validate_default=True)
    """Where conversations are kept."""
    limits: LimitsConfig = LimitsConfig()
    """What one run may use."""
    server: ServerConfig = ServerConfig()
    """Where the agent listens."""
    discovery: DiscoveryConfig = Field(default=DiscoveryConfig(), validate_default=True)
    """Where the agent announces itself, and finds others."""
    secrets: SecretsConfig = SecretsConfig()
    """How secrets are kept up to date."""

    @field_validator("discovery")
    @classmethod
    def _finds_other_agents(cls, discovery: DiscoveryConfig, known: ValidationInfo) -> DiscoveryConfig:
        asked = [tool.agent for tool in known.data.get("tools", ()) if isinstance(tool, RemoteAgentToolConfig)]
        if asked and not discovery.url:
            raise ValueError(f"needs a `url` (or MYAGENT_DISCOVERY_URL): the agent {asked[0]} is found through it")
        return discovery

    @field_validator("session")
    @classmethod
    def _holds_indexes(cls, session: SessionConfig, known: ValidationInfo) -> SessionConfig:
        contexts = [tool.context for tool in known.data.get("tools", ()) if isinstance(tool, ContextToolConfig)]
        store = session.store.get_secret_value()
        indexed = any(context.index == "pgvector" for context in contexts)
        if indexed and not store.startswith(("postgresql://", "postgres://")):
            raise ValueError("needs a `store` in Postgres (postgresql://…): a tool's documents have `index: pgvector`")
        return session

    @field_validator("output_schema", mode="before")
    @classmethod
    def _schema_or_file(cls, schema: Any, known: ValidationInfo) -> Any:
        if not isinstance(schema, (str, dict, type(None))):
            raise ValueError("must be the name of a file beside this one, or a JSON Schema")
        tools: list[Any] = known.data.get("tools", [])
        if schema is not None and any(getattr(tool, "answer", "") == "direct" for tool in tools):
            raise ValueError("is not together with a tool whose answer is `direct`, which nothing holds against it")
        return cast("str | dict[str, Any] | None", schema)
