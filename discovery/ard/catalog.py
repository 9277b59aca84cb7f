"""Agents as ARD entries (Agentic Resource Discovery, v0.91).

An entry describes one artifact: an agent with A2A and MCP has two, an agent with neither is described by its record in
this registry. Entries have no trust manifest, and the configured domain as their publisher.
"""

import re
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Any, Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from pydantic.alias_generators import to_camel

from discovery.contract import AgentRecord, Skill, Timestamp, ToolInfo, protocol_endpoints

A2A_CARD = "application/a2a-agent-card+json"
MCP_CARD = "application/mcp-server-card+json"
RECORD = "application/vnd.myagent.agent+json"
REGISTRY = "application/ai-registry+json"
MCP_CARD_SCHEMA = "https://static.modelcontextprotocol.io/schemas/v1/server-card.schema.json"
MCP_CARD_TEXT_LENGTH = 100
MIN_QUERIES, MAX_QUERIES = 2, 5


class Camel(BaseModel):
    """A message of ARD: camelCase on the wire."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)


class Entry(Camel):
    """An ARD entry. Either `url` has the location of the artifact, or `data` the artifact itself."""

    identifier: str = Field(description="urn:air:DOMAIN:KIND:NAME, which does not change with the endpoint")
    display_name: str
    type: str = Field(description="The media type of the artifact")
    url: str | None = None
    data: dict[str, JsonValue] | None = None
    description: str | None = None
    tags: list[str] | None = None
    capabilities: list[str] | None = Field(default=None, description="The names of its tools")
    representative_queries: list[str] | None = None
    version: str | None = None
    metadata: dict[str, str] | None = None
    created_at: Timestamp | None = Field(default=None, exclude=True)

    @property
    def publisher(self) -> str:
        """The domain in the identifier."""
        return self.identifier.split(":")[2]


class Host(Camel):
    """The operator of the registry."""

    display_name: str
    identifier: str | None = None
    documentation_url: str | None = None


class Manifest(Camel):
    """`/.well-known/ard.json`. ARD requires `entries`; the other members are those of an AI catalog."""

    spec_version: Literal["1.0"] = "1.0"
    host: Host
    entries: list[Entry]


def entries_of(agent: AgentRecord, domain: str, registry_url: str) -> Iterator[Entry]:
    """The entries of one agent; `registry_url` ends with a slash."""
    endpoints = protocol_endpoints(agent)
    if endpoints.card is not None:
        yield _entry(agent, domain, "a2a", type=A2A_CARD, url=endpoints.card)
    if endpoints.mcp is not None:
        yield _entry(agent, domain, "mcp", type=MCP_CARD, data=_mcp_card(agent, domain, endpoints.mcp))
    if endpoints.card is None and endpoints.mcp is None:
        yield _entry(agent, domain, "agent", type=RECORD, url=f"{registry_url}agents/{quote(agent.name, safe='')}")


def entries_of_all(agents: Iterable[AgentRecord], domain: str, registry_url: str) -> list[Entry]:
    """The entries of all agents that are not down: an entry has no field for the status."""
    return [entry for agent in agents if agent.status != "down" for entry in entries_of(agent, domain, registry_url)]


def find_entry(agents: Iterable[AgentRecord], identifier: str, domain: str, registry_url: str) -> Entry | None:
    """The entry with exactly this identifier."""
    candidates = (agent for agent in agents if identifier.endswith(f":{_segment(agent.name)}"))
    entries = [registry_entry(domain, registry_url), *entries_of_all(candidates, domain, registry_url)]
    return next((entry for entry in entries if entry.identifier == identifier), None)


def registry_entry(domain: str, registry_url: str) -> Entry:
    """The entry of the registry itself, by which clients find its search."""
    return Entry(
        identifier=f"urn:air:{domain}:registry:discovery",
        display_name="myagent discovery",
        type=REGISTRY,
        url=f"{registry_url}ard/",
        description="Search all agents and MCP servers that are deployed here.",
    )


def _entry(agent: AgentRecord, domain: str, kind: str, **artifact: Any) -> Entry:
    tools = [tool.name if isinstance(tool, ToolInfo) else tool for tool in agent.tools]
    examples = [one for skill in agent.skills if isinstance(skill, Skill) for one in skill.examples]
    metadata = {"name": agent.name, "agent_type": agent.agent_type, "status": agent.status, "owner": agent.owner}
    return Entry(
        identifier=f"urn:air:{domain}:{kind}:{_segment(agent.name)}",
        display_name=agent.name,
        description=agent.description or None,
        tags=agent.tags or None,
        capabilities=list(dict.fromkeys(tools)) or None,
        representative_queries=examples[:MAX_QUERIES] if len(examples) >= MIN_QUERIES else None,
        version=agent.version,
        metadata={name: value for name, value in metadata.items() if value is not None},
        created_at=min((instance.registered_at for instance in agent.instances), default=None),
        **artifact,
    )


def _mcp_card(agent: AgentRecord, domain: str, url: str) -> dict[str, JsonValue]:
    """An MCP server card, which has only what is needed to connect."""
    description = " ".join((agent.description or agent.name).split())
    return {
        "$schema": MCP_CARD_SCHEMA,
        "name": f"{'.'.join(reversed(domain.split('.')))}/{_segment(agent.name)}",
        "title": agent.name[:MCP_CARD_TEXT_LENGTH],
        "description": _truncated(description),
        "version": agent.version,
        "remotes": [{"type": "streamable-http", "url": url}],
    }


def _truncated(text: str) -> str:
    return text if len(text) <= MCP_CARD_TEXT_LENGTH else text[: MCP_CARD_TEXT_LENGTH - 1] + "…"


def _segment(name: str) -> str:
    """A name as a segment of an identifier; a hash is added where characters are replaced, so that it stays unique."""
    valid = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-")
    return name if valid == name else f"{valid}-{blake2b(name.encode(), digest_size=4).hexdigest()}".lstrip("-")
