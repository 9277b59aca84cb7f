"""Agents as entries of an AI catalog, in the shapes of the Agentic Resource Discovery draft 0.9. Pure.

An entry is one artifact: an agent that speaks A2A and MCP has two, and one that speaks neither has its record here.
Nothing is claimed that the registry does not know: no trust manifest, and no publisher but the domain it was given.
"""

import re
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Any, Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from pydantic.alias_generators import to_camel

from discovery.contract.fields import Moment
from discovery.contract.models import AgentRecord, Skill, ToolInfo
from discovery.contract.protocols import faces_of

A2A_CARD = "application/a2a-agent-card+json"
MCP_CARD = "application/mcp-server-card+json"
RECORD = "application/vnd.myagent.agent+json"
REGISTRY = "application/ai-registry+json"
MCP_CARD_SCHEMA = "https://static.modelcontextprotocol.io/schemas/v1/server-card.schema.json"
MCP_CARD_PROSE = 100
FEWEST_QUERIES, MOST_QUERIES = 2, 5


class Camel(BaseModel):
    """As the draft spells: camelCase on the wire."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)


class Entry(Camel):
    """A catalog entry: either `url`, where the artifact is, or `data`, the artifact itself."""

    identifier: str = Field(description="urn:air:DOMAIN:KIND:NAME; stays when the endpoint moves")
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
    created_at: Moment | None = Field(default=None, exclude=True)

    @property
    def publisher(self) -> str:
        """The domain in its identifier."""
        return self.identifier.split(":")[2]


class Host(Camel):
    """Who runs the catalog."""

    display_name: str
    identifier: str | None = None
    documentation_url: str | None = None


class Catalog(Camel):
    """What `/.well-known/ai-catalog.json` answers."""

    spec_version: Literal["1.0"] = "1.0"
    host: Host
    entries: list[Entry]


def entries_of(agent: AgentRecord, domain: str, registry_url: str) -> Iterator[Entry]:
    """The entries of one agent; `registry_url` ends with a slash, and records stand below it."""
    faces = faces_of(agent)
    if faces.card is not None:
        yield _entry(agent, domain, "a2a", type=A2A_CARD, url=faces.card)
    if faces.mcp is not None:
        yield _entry(agent, domain, "mcp", type=MCP_CARD, data=_mcp_card(agent, domain, faces.mcp))
    if faces.card is None and faces.mcp is None:
        yield _entry(agent, domain, "agent", type=RECORD, url=f"{registry_url}agents/{quote(agent.name, safe='')}")


def entries_of_all(agents: Iterable[AgentRecord], domain: str, registry_url: str) -> list[Entry]:
    """The entries of all agents that can be called: an entry has no place to say that one is down."""
    return [entry for agent in agents if agent.status != "down" for entry in entries_of(agent, domain, registry_url)]


def registry_entry(domain: str, registry_url: str) -> Entry:
    """The registry itself: how a reader of the catalog finds the search."""
    return Entry(
        identifier=f"urn:air:{domain}:registry:discovery",
        display_name="myagent discovery",
        type=REGISTRY,
        url=f"{registry_url}ard/",
        description="Searches everything that is deployed here.",
    )


def _entry(agent: AgentRecord, domain: str, kind: str, **artifact: Any) -> Entry:
    tools = [tool.name if isinstance(tool, ToolInfo) else tool for tool in agent.tools]
    examples = [one for skill in agent.skills if isinstance(skill, Skill) for one in skill.examples]
    known = {"name": agent.name, "agent_type": agent.agent_type, "status": agent.status, "owner": agent.owner}
    return Entry(
        identifier=f"urn:air:{domain}:{kind}:{segment(agent.name)}",
        display_name=agent.name,
        description=agent.description or None,
        tags=agent.tags or None,
        capabilities=list(dict.fromkeys(tools)) or None,
        representative_queries=examples[:MOST_QUERIES] if len(examples) >= FEWEST_QUERIES else None,
        version=agent.version,
        metadata={name: value for name, value in known.items() if value is not None},
        created_at=min((instance.registered_at for instance in agent.instances), default=None),
        **artifact,
    )


def _mcp_card(agent: AgentRecord, domain: str, url: str) -> dict[str, JsonValue]:
    """An MCP server card; how to connect and nothing else, as its draft wants it."""
    about = " ".join((agent.description or agent.name).split())
    return {
        "$schema": MCP_CARD_SCHEMA,
        "name": f"{'.'.join(reversed(domain.split('.')))}/{segment(agent.name)}",
        "title": agent.name[:MCP_CARD_PROSE],
        "description": about if len(about) <= MCP_CARD_PROSE else about[: MCP_CARD_PROSE - 1] + "…",
        "version": agent.version,
        "remotes": [{"type": "streamable-http", "url": url}],
    }


def segment(name: str) -> str:
    """A name as an identifier takes it; one that does not fit gets a mark of its own, so that no two are the same."""
    fitting = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-")
    return name if fitting == name else f"{fitting}-{blake2b(name.encode(), digest_size=4).hexdigest()}".lstrip("-")
