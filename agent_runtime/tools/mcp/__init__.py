"""Tools of MCP servers."""

from agent_runtime.tools.mcp.server import McpServers

__all__ = ["McpServers"]
