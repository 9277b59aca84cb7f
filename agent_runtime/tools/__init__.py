"""The door to the tools: `tool_for` makes one from an entry of `tools:`, `toolsets_for` those that come and go."""

from __future__ import annotations

from pathlib import Path

from agent_runtime.config import AgentConfig, ContextToolConfig, DiscoveryConfig, RemoteAgentToolConfig, ToolConfig
from agent_runtime.tools.base import Tool, Toolset

__all__ = ["Tool", "Toolset", "tool_for", "toolsets_for"]


def tool_for(entry: ToolConfig, folder: Path, discovery: DiscoveryConfig | None = None) -> Tool:
    """The tool that an entry of `tools:` describes, not yet opened; paths are relative to `folder`."""
    if isinstance(entry, RemoteAgentToolConfig):
        from agent_runtime.tools.remote_agent import RemoteAgent

        return RemoteAgent(entry, discovery or DiscoveryConfig())
    if isinstance(entry, ContextToolConfig):
        from agent_runtime.tools.vector_context import VectorContext

        return VectorContext(entry.context, folder, direct=entry.answer == "direct")
    from agent_runtime.tools.functions import FunctionTool, import_function

    if isinstance(entry, str):
        return FunctionTool(import_function(entry, folder))
    return FunctionTool(
        import_function(entry.function, folder), direct=entry.answer == "direct", timeout_seconds=entry.timeout_seconds
    )


def toolsets_for(config: AgentConfig, folder: Path, *, secrets: frozenset[str] = frozenset()) -> list[Toolset]:
    """The toolsets that an agent file asks for, not yet opened; `secrets` are masked in what they report."""
    if not config.mcp_servers:
        return []
    from agent_runtime.tools.mcp_server import McpServers

    return [McpServers(config.mcp_servers, folder, secrets=secrets)]
