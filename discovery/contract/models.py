"""The messages between agents, clients and the registry, as pydantic models.

They only ever gain optional fields: readers ignore unknown ones, so old clients and new registries understand each
other. Only a `Registration` has limits, because the registry stores it and shows it to every reader.
"""

import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple, Self, cast
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, Tag, model_validator
from pydantic_core import PydanticCustomError, from_json, to_json

from discovery.contract.fields import (
    NAME_OR_OBJECT,
    HttpUrl,
    Identity,
    Line,
    Name,
    Text,
    Timestamp,
    split_model_name,
)

MAX_BODY_BYTES = 256 * 1024
MAX_METADATA_BYTES = 16 * 1024
MAX_TOOLS = 512
MAX_TAGS = 64
DEFAULT_INSTANCE_ID = "default"

FORBIDDEN_FIELDS = frozenset(
    {"system_prompt", "prompt", "instructions", "messages", "api_key", "password", "secret", "token"}
)

ReportedStatus = Literal["up", "degraded", "draining"]


class _Message(BaseModel):
    """Immutable, ignores unknown fields, and keeps values out of its error messages."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class ToolInfo(_Message):
    """A tool of an agent; `input_schema` is JSON Schema."""

    name: Line
    description: Text | None = None
    input_schema: dict[str, JsonValue] | None = None


class Skill(_Message):
    """A skill of an agent, in the format of A2A."""

    name: Line
    id: Line | None = None
    description: Text | None = None
    tags: list[Line] = Field(default=[], max_length=MAX_TAGS)
    examples: list[Text] = Field(default=[], max_length=32)


Tool = Annotated[Annotated[Line, Tag("name")] | Annotated[ToolInfo, Tag("object")], NAME_OR_OBJECT]
SkillItem = Annotated[Annotated[Line, Tag("name")] | Annotated[Skill, Tag("object")], NAME_OR_OBJECT]


class ModelInfo(_Message):
    """The model that an agent uses, without its endpoint or key."""

    provider: Line | None = None
    name: Line


class Links(_Message):
    """URLs with more about an agent: its A2A card, its health, its documentation."""

    card: HttpUrl | None = None
    health: HttpUrl | None = None
    docs: HttpUrl | None = None


class Check(_Message):
    """The result of one of the agent's own health checks."""

    name: Line
    ok: bool
    reason: Text | None = None


class Registration(_Message):
    """The body of `POST /register`. The first five fields are required; all others stay optional."""

    name: Name
    endpoint: HttpUrl
    agent_type: Identity
    tools: list[Tool] = Field(max_length=MAX_TOOLS)
    version: Identity

    public_endpoint: HttpUrl | None = None
    instance_id: Identity = DEFAULT_INSTANCE_ID
    boot_id: Identity | None = None
    ttl_seconds: float | None = Field(default=None, gt=0, le=7 * 86_400, allow_inf_nan=False)
    status: ReportedStatus = "up"
    checks: list[Check] = Field(default_factory=list[Check], max_length=64)
    description: Text | None = None
    owner: Line | None = None
    tags: list[Line] = Field(default_factory=list[str], max_length=MAX_TAGS)
    skills: list[SkillItem] = Field(default_factory=list[str | Skill], max_length=256)
    protocols: list[Line] = Field(default_factory=list[str], max_length=32)
    links: Links | None = None
    model: Annotated[ModelInfo, BeforeValidator(split_model_name)] | None = None
    config_fingerprint: Line | None = None
    metadata: dict[str, JsonValue] = Field(default_factory=dict[str, JsonValue])

    @model_validator(mode="before")
    @classmethod
    def _reject_forbidden_fields(cls, data: Any) -> Any:
        if isinstance(data, dict):
            fields = cast("dict[Any, Any]", data)
            for field in [*fields, *_nested_keys(fields.get("metadata"))]:
                if isinstance(field, str) and field.lower() in FORBIDDEN_FIELDS:
                    raise PydanticCustomError(
                        "forbidden_field",
                        "'{field}' must not be sent: a registry stores no prompts and no secrets",
                        {"field": field},
                    )
        return cast("Any", data)

    @model_validator(mode="after")
    def _check_json(self) -> Self:
        schemas = [tool.input_schema for tool in self.tools if isinstance(tool, ToolInfo) and tool.input_schema]
        try:
            from_json(to_json([self.metadata, schemas]), allow_inf_nan=False)
        except ValueError:  # NaN, a lone surrogate, extreme nesting: readers could not parse it
            raise PydanticCustomError("not_json", "metadata and input_schema must be valid JSON") from None
        if self.metadata and len(json.dumps(self.metadata, ensure_ascii=False).encode()) > MAX_METADATA_BYTES:
            raise PydanticCustomError("metadata_too_large", "metadata must be at most 16 KiB as JSON")
        return self


def _nested_keys(value: Any) -> Iterator[Any]:
    """All keys at any depth, without recursion: the sender decides the depth."""
    remaining = [value]
    while remaining:
        node = remaining.pop()
        if isinstance(node, dict):
            members = cast("dict[Any, Any]", node)
            yield from members
            remaining.extend(members.values())
        elif isinstance(node, list):
            remaining.extend(cast("list[Any]", node))


class Lease(_Message):
    """How long an entry is valid without a heartbeat, and how often to send one."""

    ttl_seconds: float = Field(gt=0, allow_inf_nan=False)
    interval_seconds: float = Field(gt=0, allow_inf_nan=False)
    expires_at: Timestamp | None = None


class Notice(_Message):
    """A warning about a registration that was accepted."""

    code: str
    message: str
    hint: str | None = None


class Registered(_Message):
    """The response to `POST /register`. A minimal registry may omit everything but the name."""

    name: str
    instance_id: str = DEFAULT_INSTANCE_ID
    revision: int | None = None
    changed: bool = True
    lease: Lease | None = None
    observed_address: str | None = None
    warnings: list[Notice] = []


class Reachability(_Message):
    """The result of the registry's own check of the endpoint; absent while its probe is off."""

    ok: bool
    reason: str
    checked_at: Timestamp
    latency_ms: float | None = None


class Conflict(_Message):
    """Another live process with the same name and instance. The newer process keeps the entry."""

    boot_id: str
    endpoint: str
    last_seen: Timestamp


class Matched(_Message):
    """A field of a record that matches a search, and the text that matches."""

    field: str
    text: str


class InstanceRecord(_Message):
    """One instance of an agent. Later registries may add values of `status`."""

    instance_id: str
    boot_id: str | None = None
    endpoint: str
    public_endpoint: str | None = None
    version: str
    status: str
    status_reason: str
    since: Timestamp
    registered_at: Timestamp
    last_seen: Timestamp
    next_transition_at: Timestamp | None = None
    ttl_seconds: float | None = None
    checks: list[Check] = []
    observed_address: str | None = None
    reachability: Reachability | None = None
    conflict: Conflict | None = None
    revision: int


class AgentRecord(_Message):
    """One agent in `GET /agents`: the fields of its best instance, and all of them under `instances`.

    Almost everything is optional, so that clients can read a minimal registry.
    """

    name: str
    endpoint: str
    agent_type: str
    tools: list[str | ToolInfo]
    version: str
    status: str = "registered"
    status_reason: str | None = None
    since: Timestamp | None = None
    last_seen: Timestamp | None = None
    next_transition_at: Timestamp | None = None
    public_endpoint: str | None = None
    description: str | None = None
    owner: str | None = None
    tags: list[str] = []
    skills: list[str | Skill] = []
    protocols: list[str] = []
    links: Links | None = None
    model: Annotated[ModelInfo, BeforeValidator(split_model_name)] | None = None
    config_fingerprint: str | None = None
    metadata: dict[str, JsonValue] = {}
    reachability: Reachability | None = None
    conflict: Conflict | None = None
    instances: list[InstanceRecord] = []
    matched: list[Matched] | None = Field(default=None, exclude_if=lambda value: value is None)


class FieldProblem(_Message):
    """A field of a request, and why it is invalid."""

    field: str
    reason: str


class Problem(_Message):
    """An error response, as `application/problem+json` (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    code: str
    detail: str
    hint: str | None = None
    request_id: str | None = None
    errors: list[FieldProblem] = []


class ProtocolEndpoints(NamedTuple):
    """The URLs of an agent by protocol; None where the agent does not offer the protocol."""

    endpoint: str
    health: str | None = None
    card: str | None = None
    mcp: str | None = None


def protocol_endpoints(agent: AgentRecord | Registration) -> ProtocolEndpoints:
    """Derive the URLs that an agent serves from its registration."""
    endpoint, links = agent.endpoint.rstrip("/"), agent.links or Links()
    card = (links.card or f"{endpoint}/.well-known/agent-card.json") if "a2a" in agent.protocols else None
    mcp = None
    if "mcp" in agent.protocols or agent.agent_type == "mcp_server":
        # An agent serves MCP at /mcp; an MCP server registers the URL itself, or only its host.
        path = urlsplit(endpoint).path
        is_mcp_url = path.endswith("/mcp") or (path and agent.agent_type == "mcp_server")
        mcp = endpoint if is_mcp_url else f"{endpoint}/mcp"
    return ProtocolEndpoints(endpoint, links.health, card, mcp)
