"""The door to the tools: `tool_for` makes one from an entry of the agent file."""

from __future__ import annotations

from pathlib import Path

from agent_runtime.config import ContextToolConfig, FunctionToolConfig
from agent_runtime.tools.base import Tool

__all__ = ["Tool", "tool_for"]


def tool_for(entry: str | FunctionToolConfig | ContextToolConfig, folder: Path) -> Tool:
    """The tool that an entry of `tools:` describes, not yet opened; paths are relative to `folder`."""
    if isinstance(entry, ContextToolConfig):
        from agent_runtime.tools.vector_context import VectorContext

        return VectorContext(entry.context, folder, direct=entry.answer == "direct")
    from agent_runtime.tools.functions import FunctionTool, import_function

    if isinstance(entry, str):
        return FunctionTool(import_function(entry, folder))
    return FunctionTool(
        import_function(entry.function, folder), direct=entry.answer == "direct", timeout_seconds=entry.timeout_seconds
    )
