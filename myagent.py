"""`from myagent import Agent`: the public face of the agent runtime under the product's name."""

from agent_runtime import (
    Agent as Agent,
)
from agent_runtime import (
    CallerError as CallerError,
)
from agent_runtime import (
    ConfigError as ConfigError,
)
from agent_runtime import (
    Event as Event,
)
from agent_runtime import (
    Finished as Finished,
)
from agent_runtime import (
    ModelError as ModelError,
)
from agent_runtime import (
    MyAgentError as MyAgentError,
)
from agent_runtime import (
    RunResult as RunResult,
)
from agent_runtime import (
    RunStarted as RunStarted,
)
from agent_runtime import (
    SessionBusy as SessionBusy,
)
from agent_runtime import (
    StartError as StartError,
)
from agent_runtime import (
    StoreError as StoreError,
)
from agent_runtime import (
    Text as Text,
)
from agent_runtime import (
    Thought as Thought,
)
from agent_runtime import (
    ToolCalled as ToolCalled,
)
from agent_runtime import (
    ToolError as ToolError,
)
from agent_runtime import (
    ToolResult as ToolResult,
)
from agent_runtime import (
    Usage as Usage,
)
from agent_runtime import (
    __all__ as __all__,
)
from agent_runtime import (
    __getattr__ as __getattr__,
)
