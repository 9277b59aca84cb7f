"""`from myagent import Agent`: the public face of the agent runtime under the product's name."""

from agent_runtime import (  # noqa: I001 - one list, not an import a name
    Agent as Agent,
    CallerError as CallerError,
    ConfigError as ConfigError,
    Event as Event,
    Finished as Finished,
    ModelError as ModelError,
    MyAgentError as MyAgentError,
    RunResult as RunResult,
    RunStarted as RunStarted,
    SessionBusy as SessionBusy,
    StartError as StartError,
    StoreError as StoreError,
    Text as Text,
    Thought as Thought,
    ToolCalled as ToolCalled,
    ToolError as ToolError,
    ToolResult as ToolResult,
    Usage as Usage,
    __all__ as __all__,
    __getattr__ as __getattr__,  # the version, for who asks: a star would look it up at once, which takes long
)
