"""Errors in OpenAI's format: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agent_runtime.errors import CallerError

PATHS = "/v1/"

# Statuses and codes that differ in OpenAI's API; all others stay the same.
_OPENAI_CODES = {
    "model_rate_limited": (429, "rate_limit_exceeded"),
    "model_quota": (429, "insufficient_quota"),
    "model_context_overflow": (400, "context_length_exceeded"),
    "unauthorized": (401, "invalid_api_key"),
    "too_many_requests": (429, "rate_limit_exceeded"),
    "invalid_body": (400, "invalid_body"),
}


class OpenAIRequestError(CallerError):
    """A request that this agent cannot serve; `param` is the parameter to change."""

    def __init__(self, message: str, *, param: str, code: str = "unsupported_parameter", status: int = 400) -> None:
        self.param = param
        self.code = code
        self.status = status
        super().__init__(message)


def openai_error(status: int, code: str, message: str, param: str | None = None) -> tuple[int, dict[str, Any]]:
    """The OpenAI status and body of an error with this `status` and `code`."""
    status, code = _OPENAI_CODES.get(code, (status, code))
    if status == 429:
        kind = "insufficient_quota" if code == "insufficient_quota" else "requests"
    else:
        kind = "server_error" if status >= 500 else "invalid_request_error"
    return status, {"error": {"message": message, "type": kind, "param": param, "code": code}}


def param_of(location: Sequence[Any]) -> str:
    """A location in a body as OpenAI writes it: `messages[0].content`, without the branch of a union."""
    written = ""
    for part in location[1:]:
        if isinstance(part, int):
            written += f"[{part}]"
        elif part == "str" or not str(part).isidentifier():
            break
        else:
            written += f".{part}" if written else str(part)
    return written


def refuse_unsupported(
    given: Mapping[str, Any], reasons: Mapping[str, str], no_op_values: Mapping[str, Sequence[Any]]
) -> None:
    """Reject parameters that would change the meaning of the answer if they were ignored.

    Args:
        given: the parameters of the request; an empty value counts as absent.
        reasons: why a parameter is not supported.
        no_op_values: values of a parameter that request what the agent does anyway.

    Raises:
        OpenAIRequestError: for the first parameter in `reasons` with any other value.
    """
    for name, reason in reasons.items():
        value = given.get(name)
        if value and value not in no_op_values.get(name, ()):
            raise OpenAIRequestError(f"{name} is not supported: {reason}", param=name)
