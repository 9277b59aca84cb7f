"""The door to the tools: `tool_for` makes one from an entry of `tools:`, `toolsets_for` those that come and go."""

from __future__ import annotations

from pathlib import Path

from agent_runtime.config import (
    AgentConfig,
    ContextConfig,
    ContextToolConfig,
    DiscoveryConfig,
    RemoteAgentToolConfig,
    ToolConfig,
)
from agent_runtime.errors import StartError
from agent_runtime.secrets import Credential, SecretResolver, credential_for
from agent_runtime.tools.base import Tool, Toolset
from agent_runtime.tools.retrieval.index import VectorIndex

__all__ = ["Tool", "Toolset", "tool_for", "toolsets_for"]


def tool_for(
    entry: ToolConfig,
    folder: Path,
    config: AgentConfig | None = None,
    *,
    resolver: SecretResolver | None = None,
    index: int = 0,
) -> Tool:
    """The tool that an entry of `tools:` describes, not yet opened; paths are relative to `folder`.

    `config` is the whole file, for what a tool needs of its other sections; `resolver` has the file's secrets, and
    `index` is where in `tools:` the entry stands.
    """
    if isinstance(entry, RemoteAgentToolConfig):
        from agent_runtime.tools.remote.agent import RemoteAgent

        discovery = config.discovery if config else DiscoveryConfig()
        key = credential_for(resolver, ("tools", index, "api_key"), entry.api_key)
        token = credential_for(resolver, ("discovery", "token"), discovery.token)
        return RemoteAgent(entry, discovery, folder, key=key, token=token)
    if isinstance(entry, ContextToolConfig):
        from agent_runtime.tools.retrieval.context import VectorContext

        table = _pgvector(entry.context, config, resolver) if entry.context.index == "pgvector" else None
        return VectorContext(entry.context, folder, direct=entry.answer == "direct", index=table)
    from agent_runtime.tools.functions import FunctionTool, import_function

    if isinstance(entry, str):
        return FunctionTool(import_function(entry, folder))
    return FunctionTool(
        import_function(entry.function, folder),
        direct=entry.answer == "direct",
        guarded=entry.approval == "required",
        timeout_seconds=entry.timeout_seconds,
        retries=entry.retries,
    )


def toolsets_for(config: AgentConfig, folder: Path, resolver: SecretResolver) -> list[Toolset]:
    """The toolsets that an agent file asks for, not yet opened; its secrets are masked in what they report."""
    if not config.mcp_servers:
        return []
    from agent_runtime.tools.mcp.server import McpServers

    return [McpServers(config.mcp_servers, folder, resolver)]


def _pgvector(context: ContextConfig, config: AgentConfig | None, resolver: SecretResolver | None) -> VectorIndex:
    url = config.session.store.get_secret_value() if config else ""
    if config is None or not url.startswith(("postgresql://", "postgres://")):
        raise StartError("index: pgvector needs a session.store in Postgres (postgresql://…)")
    try:
        from agent_runtime.tools.retrieval.pgvector import PgVectorIndex
    except ModuleNotFoundError as error:
        raise StartError("index: pgvector needs an extra: pip install 'myagent[postgres]'") from error
    login = resolver.credential(("session", "store"), url) if resolver else Credential(url)
    return PgVectorIndex(login, f"{config.name}/{context.name}")
