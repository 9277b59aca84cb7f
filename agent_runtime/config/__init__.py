"""The agent file: its keys, its placeholders, and its text with line numbers."""

from agent_runtime.config.agent import (
    AgentConfig,
    AgentType,
    ContextConfig,
    ContextToolConfig,
    FunctionToolConfig,
    LimitsConfig,
    McpServerConfig,
    RemoteAgentToolConfig,
    SessionConfig,
    ToolConfig,
)
from agent_runtime.config.document import dotted, error_message, line_of, read_document
from agent_runtime.config.model import ModelConfig, ModelEndpoint
from agent_runtime.config.placeholders import (
    Fetched,
    Location,
    Resolution,
    SecretNotAvailable,
    fetch_secrets,
    fill,
    resolve,
    secret_paths,
)
from agent_runtime.config.section import is_http_url, secret_values
from agent_runtime.config.server import DiscoveryConfig, OidcConfig, ServerConfig

__all__ = [
    "AgentConfig",
    "AgentType",
    "ContextConfig",
    "ContextToolConfig",
    "DiscoveryConfig",
    "Fetched",
    "FunctionToolConfig",
    "LimitsConfig",
    "Location",
    "McpServerConfig",
    "ModelConfig",
    "ModelEndpoint",
    "OidcConfig",
    "RemoteAgentToolConfig",
    "Resolution",
    "SecretNotAvailable",
    "ServerConfig",
    "SessionConfig",
    "ToolConfig",
    "dotted",
    "error_message",
    "fetch_secrets",
    "fill",
    "is_http_url",
    "line_of",
    "read_document",
    "resolve",
    "secret_paths",
    "secret_values",
]
