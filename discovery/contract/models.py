"""The wire: what agents, portals and the registry say to each other, as pydantic models and nothing else.

Additive for ever. A reader ignores what it does not know, so an old client understands a new registry and the other
way round; only a `Registration` is held to limits, because a registry has to keep it and show it to everyone.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import ip_address
from typing import Annotated, Any, Literal, Self, cast
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, Tag, model_validator
from pydantic_core import PydanticCustomError, from_json, to_json

from discovery.contract.fields import (
    NAME_OR_OBJECT,
    Identity,
    Line,
    Moment,
    Name,
    Prose,
    WebAddress,
    empty,
    provider_and_name,
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


def utc_now() -> datetime:
    """The clock of a process that was given no other: now, aware, in UTC."""
    return datetime.now(UTC)


@lru_cache(maxsize=256)  # every request asks it of the same few
def is_loopback(address: str) -> bool:
    """Whether a URL or host reaches only its own machine. Names are not looked up: only `localhost` counts."""
    try:
        host = (urlsplit(address).hostname or "") if "://" in address else address.strip("[]")
        return host == "localhost" or host.endswith(".localhost") or ip_address(host).is_loopback
    except ValueError:
        return False


class _Wire(BaseModel):
    """Frozen, deaf to fields that a later version may add, and silent about values in its errors."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class ToolInfo(_Wire):
    """A tool as a reader of the list sees it; `input_schema` is JSON Schema."""

    name: Line
    description: Prose | None = None
    input_schema: dict[str, JsonValue] | None = None


class Skill(_Wire):
    """Something the agent can do, in words; the shape of an A2A skill."""

    name: Line
    id: Line | None = None
    description: Prose | None = None
    tags: list[Line] = Field(default=[], max_length=MAX_TAGS)
    examples: list[Prose] = Field(default=[], max_length=32)


Tool = Annotated[Annotated[Line, Tag("name")] | Annotated[ToolInfo, Tag("object")], NAME_OR_OBJECT]
SkillItem = Annotated[Annotated[Line, Tag("name")] | Annotated[Skill, Tag("object")], NAME_OR_OBJECT]


class ModelInfo(_Wire):
    """Which model answers. An endpoint or a key has no place here: unknown keys are dropped."""

    provider: Line | None = None
    name: Line


class Links(_Wire):
    """Where more is to be read about an agent."""

    card: WebAddress | None = None
    health: WebAddress | None = None
    docs: WebAddress | None = None


class Check(_Wire):
    """One thing the agent looked at itself, and what it found."""

    name: Line
    ok: bool
    reason: Prose | None = None


class Registration(_Wire):
    """What `POST /register` takes: the first five fields are the minimal contract, the rest is optional for ever."""

    name: Name
    endpoint: WebAddress
    agent_type: Identity
    tools: list[Tool] = Field(max_length=MAX_TOOLS)
    version: Identity

    public_endpoint: WebAddress | None = None
    instance_id: Identity = DEFAULT_INSTANCE_ID
    boot_id: Identity | None = None
    ttl_seconds: float | None = Field(default=None, gt=0, le=7 * 86_400, allow_inf_nan=False)
    status: ReportedStatus = "up"
    checks: list[Check] = empty(max_length=64)
    description: Prose | None = None
    owner: Line | None = None
    tags: list[Line] = empty(max_length=MAX_TAGS)
    skills: list[SkillItem] = empty(max_length=256)
    protocols: list[Line] = empty(max_length=32)
    links: Links | None = None
    model: Annotated[ModelInfo, BeforeValidator(provider_and_name)] | None = None
    config_fingerprint: Line | None = None
    metadata: dict[str, JsonValue] = empty(dict)

    @model_validator(mode="before")
    @classmethod
    def _holds_nothing_forbidden(cls, data: Any) -> Any:
        if isinstance(data, dict):
            sent = cast("dict[Any, Any]", data)
            for field in [*sent, *_keys_within(sent.get("metadata"))]:
                if isinstance(field, str) and field.lower() in FORBIDDEN_FIELDS:
                    raise PydanticCustomError(
                        "forbidden_field",
                        "'{field}' must not be sent: prompts and secrets have no place in a registry",
                        {"field": field},
                    )
        return cast("Any", data)

    @model_validator(mode="after")
    def _can_be_kept(self) -> Self:
        schemas = [tool.input_schema for tool in self.tools if isinstance(tool, ToolInfo) and tool.input_schema]
        try:
            from_json(to_json([self.metadata, schemas]), allow_inf_nan=False)
        except ValueError:  # NaN, half a surrogate pair, absurd depth: no reader could parse it
            raise PydanticCustomError("not_json", "metadata and input_schema must be plain JSON") from None
        if self.metadata and len(json.dumps(self.metadata, ensure_ascii=False).encode()) > MAX_METADATA_BYTES:
            raise PydanticCustomError("metadata_too_large", "metadata must be at most 16 KiB as JSON")
        return self


def _keys_within(value: Any) -> Iterator[Any]:
    """Every key at any depth, without recursion: the depth is the sender's choice."""
    waiting = [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            members = cast("dict[Any, Any]", node)
            yield from members
            waiting.extend(members.values())
        elif isinstance(node, list):
            waiting.extend(cast("list[Any]", node))


class Lease(_Wire):
    """For how long the registry believes the agent without hearing from it, and how often it wants to hear."""

    ttl_seconds: float = Field(gt=0, allow_inf_nan=False)
    interval_seconds: float = Field(gt=0, allow_inf_nan=False)
    expires_at: Moment | None = None


class Notice(_Wire):
    """Something accepted that is probably not what was meant."""

    code: str
    message: str
    hint: str | None = None


class Registered(_Wire):
    """The answer to `POST /register`. All but the name may be missing: the minimal contract promises no body."""

    name: str
    instance_id: str = DEFAULT_INSTANCE_ID
    revision: int | None = None
    changed: bool = True
    lease: Lease | None = None
    observed_address: str | None = None
    warnings: list[Notice] = []


class Reachability(_Wire):
    """What the registry found when it called the endpoint itself; absent where its probe is off."""

    ok: bool
    reason: str
    checked_at: Moment
    latency_ms: float | None = None


class Conflict(_Wire):
    """Another live process that claims the same name and instance. The newer one is shown and keeps the entry."""

    boot_id: str
    endpoint: str
    last_seen: Moment


class Matched(_Wire):
    """A place where the words of a search stand: a field of the record, and its text there."""

    field: str
    text: str


class InstanceRecord(_Wire):
    """One process behind a name. `status` is open: a later registry may know more states."""

    instance_id: str
    boot_id: str | None = None
    endpoint: str
    public_endpoint: str | None = None
    version: str
    status: str
    status_reason: str
    since: Moment
    registered_at: Moment
    last_seen: Moment
    next_transition_at: Moment | None = None
    ttl_seconds: float | None = None
    checks: list[Check] = []
    observed_address: str | None = None
    reachability: Reachability | None = None
    conflict: Conflict | None = None
    revision: int


class AgentRecord(_Wire):
    """One name in `GET /agents`: the best instance on top, all of them under `instances`.

    Lenient, so that a client can read a registry that keeps nothing but the minimal contract.
    """

    name: str
    endpoint: str
    agent_type: str
    tools: list[str | ToolInfo]
    version: str
    status: str = "registered"
    status_reason: str | None = None
    since: Moment | None = None
    last_seen: Moment | None = None
    next_transition_at: Moment | None = None
    public_endpoint: str | None = None
    description: str | None = None
    owner: str | None = None
    tags: list[str] = []
    skills: list[str | Skill] = []
    protocols: list[str] = []
    links: Links | None = None
    model: Annotated[ModelInfo, BeforeValidator(provider_and_name)] | None = None
    config_fingerprint: str | None = None
    metadata: dict[str, JsonValue] = {}
    reachability: Reachability | None = None
    conflict: Conflict | None = None
    instances: list[InstanceRecord] = []
    matched: list[Matched] | None = Field(default=None, exclude_if=lambda found: found is None)


class FieldProblem(_Wire):
    """One field of a request, and what is wrong with it."""

    field: str
    reason: str


class Problem(_Wire):
    """Every error answer, as `application/problem+json` (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    code: str
    detail: str
    hint: str | None = None
    request_id: str | None = None
    errors: list[FieldProblem] = []
