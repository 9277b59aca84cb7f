"""The A2A card: what an agent can do, how it is spoken to, and where, from where it was asked."""

from __future__ import annotations

from urllib.parse import urlsplit

from a2a.types.a2a_pb2 import (
    AgentCapabilities,
    AgentCard,
    AgentInterface,
    AgentSkill,
    HTTPAuthSecurityScheme,
    SecurityRequirement,
    SecurityScheme,
    StringList,
)

from agent_runtime.agent import Agent
from agent_runtime.masking import masked
from agent_runtime.server.registration import advertised_endpoint

PROTOCOL_VERSIONS = ("1.0", "0.3")


def card_of(agent: Agent, path: str, *, asked_at: str = "") -> AgentCard:
    """The card of an agent that answers at `path` of its port; `asked_at` is the address that the card was asked at."""
    config, text = agent.config, ["text/plain"]
    described = masked(config.description, agent.secrets) or f"The agent {config.name}."
    card = AgentCard(
        name=config.name,
        description=described,
        version=config.version,
        supported_interfaces=[
            AgentInterface(url=f"{address}/a2a", protocol_binding="JSONRPC", protocol_version=version)
            for address in _addresses(agent, path, asked_at)
            for version in PROTOCOL_VERSIONS
        ],
        capabilities=AgentCapabilities(streaming=True, push_notifications=False),
        default_input_modes=text,
        default_output_modes=text,
        skills=_skills(agent, described),
    )
    if config.server.asks:
        bearer = HTTPAuthSecurityScheme(scheme="bearer", description="A key, or a token that the agent takes.")
        card.security_schemes["bearer"].CopyFrom(SecurityScheme(http_auth_security_scheme=bearer))
        card.security_requirements.append(SecurityRequirement(schemes={"bearer": StringList()}))
    return card


def _skills(agent: Agent, described: str) -> list[AgentSkill]:
    """What it can do are its tools; an agent without any answers questions."""
    tools = [tool.spec for tool in agent.tools]
    if not tools:
        return [AgentSkill(id="answer", name=agent.config.name, description=described, tags=["answer"])]
    return [
        AgentSkill(
            id=spec.name,
            name=spec.name.replace("_", " "),
            description=masked(spec.description, agent.secrets),
            tags=[*agent.config.discovery.tags] or ["tool"],
        )
        for spec in tools
    ]


def _addresses(agent: Agent, path: str, asked_at: str) -> list[str]:
    """The first one is where a reader who asked there reaches the agent."""
    server = agent.config.server
    named = [url.rstrip("/") + path for url in (server.service_url, server.public_url) if url]
    if named:
        asked_host = urlsplit(asked_at).hostname
        return sorted(dict.fromkeys(named), key=lambda url: urlsplit(url).hostname != asked_host)
    return [asked_at.rstrip("/") or advertised_endpoint(agent, server.port) + path]
