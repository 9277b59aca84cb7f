"""The agent runtime: one YAML file is one agent."""

from typing import Any

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
from agent_runtime.events import (
    ApprovalRequired,
    Decision,
    Event,
    Finished,
    Plan,
    RunResult,
    RunStarted,
    Text,
    Thought,
    ToolCalled,
    ToolResult,
    Usage,
)

__version__: str

__all__ = [
    "Agent",
    "ApprovalRequired",
    "CallerError",
    "ConfigError",
    "Decision",
    "Event",
    "Finished",
    "ModelError",
    "MyAgentError",
    "Plan",
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


def __getattr__(name: str) -> Any:
    """The version, from what is installed: looked up for who asks, as it takes as long as all imports of ours."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("myagent")
    except PackageNotFoundError:  # the sources without an installation
        return "0.0.0"
