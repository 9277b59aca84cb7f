"""What an agent says of itself to the registry, and for how long: an allow-list around discovery's client."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from agent_runtime.agent import Agent
from agent_runtime.certificates import registry_tls
from agent_runtime.placeholders import masked_values
from discovery.client import RegistrationState, registered
from discovery.contract import Check, Links, ModelInfo, Registration, ToolInfo, is_loopback

_log = logging.getLogger(__name__)


@asynccontextmanager
async def announced(
    agent: Agent, port: int, path: str = "", protocols: Sequence[str] = ("chat",)
) -> AsyncGenerator[RegistrationState | None]:
    """Keep a served agent registered while the block runs; None where no registry is named.

    `port` is the one the server is bound to, `path` where on it the agent answers, in these `protocols`. The registry
    hears of the agent once that port answers.
    """
    discovery = agent.config.discovery
    if not discovery.url:
        yield None
        return
    endpoint = advertised_endpoint(agent, port) + path
    if is_loopback(endpoint) and not is_loopback(discovery.url):
        _log.warning(
            "%s is announced at %s, which other machines cannot reach; set server.service_url or MYAGENT_SERVICE_URL",
            agent.config.name,
            endpoint,
        )
    async with registered(
        lambda: registration_of(agent, endpoint, protocols, path),
        url=discovery.url,
        token=discovery.token.get_secret_value() if discovery.token else None,
        tls=await registry_tls(discovery, agent.folder),
        heartbeat_seconds=discovery.heartbeat_seconds,
        ready=f"{_own_address(agent, agent.config.server.host, port)}/livez",
    ) as state:
        yield state


def registration_of(agent: Agent, endpoint: str, protocols: Sequence[str] = ("chat",), path: str = "") -> Registration:
    """The payload: what is named here and nothing else, so the system prompt cannot slip in.

    A secret that the file's owner put into one of these texts is masked.
    """
    config = agent.config
    public = config.server.public_url
    provider, _, name = agent.model_label.partition("/")
    payload = Registration(
        name=config.name,
        endpoint=endpoint,
        public_endpoint=f"{public.rstrip('/')}{path}" if public else None,
        agent_type=config.agent_type,
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
            card=f"{endpoint}/.well-known/agent-card.json" if "a2a" in protocols else None,
            health=f"{endpoint}/health",
            docs=f"{endpoint}/docs",
        ),
        model=ModelInfo(provider=provider, name=name) if name else ModelInfo(name=agent.model_label),
    )
    return Registration.model_validate(masked_values(payload.model_dump(mode="json", exclude_none=True), agent.secrets))


def advertised_endpoint(agent: Agent, port: int) -> str:
    """Where other services reach the agent: what the file says, else this host's address towards the registry."""
    server = agent.config.server
    if named := server.service_url or server.public_url:
        return named.rstrip("/")
    if server.host not in {"0.0.0.0", "::"}:
        return _own_address(agent, server.host, port)
    return _own_address(agent, _address_towards(agent.config.discovery.url or ""), port)


def _own_address(agent: Agent, host: str, port: int) -> str:
    scheme = "https" if agent.config.server.tls else "http"
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"{scheme}://[{reachable}]:{port}" if ":" in reachable else f"{scheme}://{reachable}:{port}"


def _address_towards(url: str) -> str:
    """This host's own address on the route to a URL's host. A UDP socket that connects sends nothing."""
    try:
        parts = urlsplit(url)
        for family, kind, protocol, _, address in socket.getaddrinfo(
            parts.hostname, parts.port or 80, type=socket.SOCK_DGRAM
        ):
            with socket.socket(family, kind, protocol) as probe:
                probe.connect(address)
                return str(probe.getsockname()[0])
    except (OSError, ValueError):
        _log.debug("no route towards the registry yet", exc_info=True)
    return socket.gethostname()
