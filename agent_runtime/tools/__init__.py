"""Tools: `tool_for` makes one from an entry of `tools:`, `toolsets_for` those of MCP servers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

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
from agent_runtime.tools.base import Check, Tool, Toolbox, Toolset, parse_arguments, run_tool, shown_arguments
from agent_runtime.tools.functions import FunctionTool, import_function

if TYPE_CHECKING:
    from agent_runtime.tools.retrieval import VectorIndex

__all__ = [
    "Check",
    "FunctionTool",
    "Tool",
    "Toolbox",
    "Toolset",
    "import_function",
    "parse_arguments",
    "run_tool",
    "shown_arguments",
    "tool_for",
    "toolsets_for",
]


def tool_for(
    entry: ToolConfig,
    folder: Path,
    config: AgentConfig | None = None,
    *,
    resolver: SecretResolver | None = None,
    index: int = 0,
) -> Tool:
    """The tool for an entry of `tools:`, not yet opened.

    Args:
        entry: The entry.
        folder: Relative paths are relative to it.
        config: The whole agent file, for tools that need its other sections.
        resolver: The secrets of the agent file.
        index: The position of the entry in `tools:`.
    """
    if isinstance(entry, RemoteAgentToolConfig):
        from agent_runtime.tools.remote import RemoteAgent

        discovery = config.discovery if config else DiscoveryConfig()
        key = credential_for(resolver, ("tools", index, "api_key"), entry.api_key)
        token = credential_for(resolver, ("discovery", "token"), discovery.token)
        return RemoteAgent(entry, discovery, folder, key=key, token=token)
    if isinstance(entry, ContextToolConfig):
        from agent_runtime.tools.retrieval import VectorSearch

        table = _pgvector_index(entry.context, config, resolver) if entry.context.index == "pgvector" else None
        return VectorSearch(entry.context, folder, direct=entry.answer == "direct", index=table)
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
    """The toolsets of an agent file, not yet opened; its secrets are masked in their errors."""
    if not config.mcp_servers:
        return []
    from agent_runtime.tools.mcp import McpServers

    return [McpServers(config.mcp_servers, folder, resolver)]


def _pgvector_index(context: ContextConfig, config: AgentConfig | None, resolver: SecretResolver | None) -> VectorIndex:
    url = config.session.store.get_secret_value() if config else ""
    if config is None or not url.startswith(("postgresql://", "postgres://")):
        raise StartError("index: pgvector needs a session.store in Postgres (postgresql://…)")
    try:
        from agent_runtime.tools.retrieval.pgvector import PgVectorIndex
    except ModuleNotFoundError as error:
        raise StartError("index: pgvector needs an extra: pip install 'myagent[postgres]'") from error
    login = resolver.credential(("session", "store"), url) if resolver else Credential(url)
    return PgVectorIndex(login, f"{config.name}/{context.name}")
