"""Secrets of an agent file: where they come from, and the credentials that follow them when they are rotated."""

from agent_runtime.secrets.credential import Credential, PostgresLogin
from agent_runtime.secrets.iam_policy import policy_for
from agent_runtime.secrets.resolver import (
    MIN_RENEW_SECONDS,
    SecretResolver,
    credential_for,
    periodic_refresh,
)
from agent_runtime.secrets.sources import SecretSource, source_for

__all__ = [
    "MIN_RENEW_SECONDS",
    "Credential",
    "PostgresLogin",
    "SecretResolver",
    "SecretSource",
    "credential_for",
    "periodic_refresh",
    "policy_for",
    "source_for",
]
