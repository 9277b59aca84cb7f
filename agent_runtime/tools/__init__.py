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
from agent_runtime.tools.base import Tool, Toolset
from agent_runtime.tools.vector_index import VectorIndex

__all__ = ["Tool", "Toolset", "tool_for", "toolsets_for"]


def tool_for(entry: ToolConfig, folder: Path, config: AgentConfig | None = None) -> Tool:
    """The tool that an entry of `tools:` describes, not yet opened; paths are relative to `folder`.

    `config` is the whole file, for what a tool needs of its other sections.
    """
    if isinstance(entry, RemoteAgentToolConfig):
        from agent_runtime.tools.remote_agent import RemoteAgent

        return RemoteAgent(entry, config.discovery if config else DiscoveryConfig(), folder)
    if isinstance(entry, ContextToolConfig):
        from agent_runtime.tools.vector_context import VectorContext

        index = _pgvector(entry.context, config) if entry.context.index == "pgvector" else None
        return VectorContext(entry.context, folder, direct=entry.answer == "direct", index=index)
    from agent_runtime.tools.functions import FunctionTool, import_function

    if isinstance(entry, str):
        return FunctionTool(import_function(entry, folder))
    return FunctionTool(
        import_function(entry.function, folder),
        direct=entry.answer == "direct",
        timeout_seconds=entry.timeout_seconds,
        retries=entry.retries,
    )


def toolsets_for(config: AgentConfig, folder: Path, *, secrets: frozenset[str] = frozenset()) -> list[Toolset]:
    """The toolsets that an agent file asks for, not yet opened; `secrets` are masked in what they report."""
    if not config.mcp_servers:
        return []
    from agent_runtime.tools.mcp_server import McpServers

    return [McpServers(config.mcp_servers, folder, secrets=secrets)]


def _pgvector(context: ContextConfig, config: AgentConfig | None) -> VectorIndex:
    url = config.session.store.get_secret_value() if config else ""
    if config is None or not url.startswith(("postgresql://", "postgres://")):
        raise StartError("index: pgvector needs a session.store in Postgres (postgresql://…)")
    try:
        from agent_runtime.tools.pgvector_index import PgVectorIndex
    except ModuleNotFoundError as error:
        raise StartError("index: pgvector needs an extra: pip install 'myagent[postgres]'") from error
    return PgVectorIndex(url, f"{config.name}/{context.name}")
