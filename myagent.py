"""`from myagent import Agent`: the public face of the agent runtime under the product's name."""

from agent_runtime import *  # noqa: F403
from agent_runtime import __all__ as __all__
from agent_runtime import __getattr__ as __getattr__
