"""The agent runtime: one YAML file is one agent."""

from importlib.metadata import PackageNotFoundError, version

from agent_runtime.agent import Agent
from agent_runtime.errors import (
    CallerError,
    ConfigError,
    ModelError,
    MyAgentError,
    SessionBusy,
    StartError,
    StoreError,
    ToolError,
)
from agent_runtime.messages import Event, Finished, RunResult, RunStarted, Text, Thought, ToolCalled, ToolResult, Usage

try:
    __version__ = version("myagent")
except PackageNotFoundError:  # the sources without an installation
    __version__ = "0.0.0"

__all__ = [
    "Agent",
    "CallerError",
    "ConfigError",
    "Event",
    "Finished",
    "ModelError",
    "MyAgentError",
    "RunResult",
    "RunStarted",
    "SessionBusy",
    "StartError",
    "StoreError",
    "Text",
    "Thought",
    "ToolCalled",
    "ToolError",
    "ToolResult",
    "Usage",
    "__version__",
]
