"""Registers a served agent with discovery. The payload is an allow-list."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from pydantic import JsonValue

from agent_runtime.agent import Agent
from agent_runtime.config import McpServerConfig
from agent_runtime.masking import masked_values
from agent_runtime.tls import registry_tls
from discovery.client import RegistrationState, local_endpoint, own_endpoint, registered
from discovery.contract import (
    DEFAULT_INSTANCE_ID,
    Check,
    Links,
    ModelInfo,
    Registration,
    ToolInfo,
    is_loopback,
)

_log = logging.getLogger(__name__)

CARD_PATH = "/.well-known/agent-card.json"


@asynccontextmanager
async def registered_with_discovery(
    agent: Agent, port: int, path: str = "", protocols: Sequence[str] = ("chat",)
) -> AsyncGenerator[RegistrationState | None]:
    """Keep a served agent registered while the block runs; yields None if no registry is configured.

    The registration starts once the port answers.

    Args:
        agent: an open agent.
        port: the bound port.
        path: the path prefix of the agent on that port.
        protocols: what the agent serves.
    """
    discovery, server = agent.config.discovery, agent.config.server
    if not discovery.url:
        yield None
        return
    endpoint = await asyncio.to_thread(advertised_endpoint, agent, port) + path  # may resolve a host name
    if is_loopback(endpoint) and not is_loopback(discovery.url):
        _log.warning(
            "%s is registered at %s, which other machines cannot reach; set server.service_url or MYAGENT_SERVICE_URL",
            agent.config.name,
            endpoint,
        )
    async with registered(
        lambda: registration_payload(agent, endpoint, protocols, path),
        url=discovery.url,
        token=agent.registry_token,
        tls=await registry_tls(discovery, agent.folder),
        heartbeat_seconds=discovery.heartbeat_seconds,
        ready=f"{local_endpoint(port, server.host, secure=server.tls is not None)}/livez",
    ) as state:
        yield state


def registration_payload(
    agent: Agent, endpoint: str, protocols: Sequence[str] = ("chat",), path: str = ""
) -> Registration:
    """The payload of a registration: these fields and nothing else, so that the system prompt cannot leak.

    A secret that the owner of the file wrote into one of these texts is masked.
    """
    config = agent.config
    public = config.server.public_url
    provider, _, name = agent.model_label.partition("/")
    payload = Registration(
        name=config.name,
        endpoint=endpoint,
        public_endpoint=f"{public.rstrip('/')}{path}" if public else None,
        agent_type=config.agent_type,
        instance_id=config.discovery.instance_id or DEFAULT_INSTANCE_ID,
        version=config.version,
        description=config.description or None,
        tools=[
            ToolInfo(name=tool.spec.name, description=tool.spec.description, input_schema=dict(tool.spec.parameters))
            for tool in agent.tools
        ],
        owner=config.discovery.owner,
        tags=config.discovery.tags,
        protocols=list(protocols),
        status="degraded" if agent.is_degraded else "up",
        checks=[Check(name=check.name, ok=check.ok, reason=check.reason) for check in agent.checks],
        links=Links(
            card=f"{endpoint}{CARD_PATH}" if "a2a" in protocols else None,
            health=f"{endpoint}/health",
            docs=f"{endpoint}/docs",
        ),
        model=ModelInfo(provider=provider, name=name) if name else ModelInfo(name=agent.model_label),
        metadata=_mcp_servers(config.mcp_servers),
    )
    return Registration.model_validate(masked_values(payload.model_dump(mode="json", exclude_none=True), agent.secrets))


def _mcp_servers(servers: Mapping[str, McpServerConfig]) -> dict[str, JsonValue]:
    """The MCP servers by name, with host and port if they have a URL: shows who is affected when one fails."""
    used: list[JsonValue] = []
    for name, server in servers.items():
        # Nothing else of the URL: its path, query or user name may contain a key.
        host = urlsplit(server.url).netloc.rpartition("@")[2].lower() if server.url else ""
        used.append({"name": name, "url": host} if host else {"name": name})
    return {"mcp_servers": used} if used else {}


def advertised_endpoint(agent: Agent, port: int) -> str:
    """The URL at which other services reach the agent: from the file, else this host's address towards the registry."""
    server = agent.config.server
    if named := server.service_url or server.public_url:
        return named.rstrip("/")
    registry = agent.config.discovery.url or ""
    return own_endpoint(port, registry=registry, host=server.host, secure=server.tls is not None)
