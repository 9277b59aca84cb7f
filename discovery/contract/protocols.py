"""Where an agent answers, and in which protocol, as its record tells. Pure."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from discovery.contract.models import AgentRecord, Links, Registration

CARD_PATH = "/.well-known/agent-card.json"
MCP_SERVER = "mcp_server"


@dataclass(frozen=True, slots=True, kw_only=True)
class Faces:
    """Addresses to call; None where the agent does not say that it has such a thing."""

    endpoint: str
    health: str | None
    card: str | None
    mcp: str | None


def faces_of(said: AgentRecord | Registration) -> Faces:
    """The faces of an agent as it registered them."""
    endpoint, links = said.endpoint.rstrip("/"), said.links or Links()
    speaks_mcp = "mcp" in said.protocols or said.agent_type == MCP_SERVER
    return Faces(
        endpoint=endpoint,
        health=links.health,
        card=(links.card or endpoint + CARD_PATH) if "a2a" in said.protocols else None,
        mcp=_mcp(endpoint, said.agent_type) if speaks_mcp else None,
    )


def _mcp(endpoint: str, agent_type: str) -> str:
    """An agent speaks it at `/mcp`; an MCP server registers the very address, or the host it is on."""
    path = urlsplit(endpoint).path
    return endpoint if path.endswith("/mcp") or (path and agent_type == MCP_SERVER) else f"{endpoint}/mcp"
