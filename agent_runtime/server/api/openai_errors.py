"""Errors as OpenAI's clients read them: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agent_runtime.errors import CallerError

PATHS = "/v1/"

# What OpenAI answers with where it names the same thing otherwise; all else keeps its status and its code.
_THEIRS = {
    "model_rate_limited": (429, "rate_limit_exceeded"),
    "model_quota": (429, "insufficient_quota"),
    "model_context_overflow": (400, "context_length_exceeded"),
    "unauthorized": (401, "invalid_api_key"),
    "too_many_requests": (429, "rate_limit_exceeded"),
    "invalid_body": (400, "invalid_body"),
}


class Unsupported(CallerError):
    """A request of OpenAI's kind that this agent cannot serve as it is meant; `param` is the field to change."""

    def __init__(self, message: str, *, param: str, code: str = "unsupported_parameter", status: int = 400) -> None:
        self.param = param
        self.code = code
        self.status = status
        super().__init__(message)


def openai_error(status: int, code: str, message: str, param: str | None = None) -> tuple[int, dict[str, Any]]:
    """The status and the body for an error that the other faces know by `status` and `code`."""
    status, code = _THEIRS.get(code, (status, code))
    if status == 429:
        kind = "insufficient_quota" if code == "insufficient_quota" else "requests"
    else:
        kind = "server_error" if status >= 500 else "invalid_request_error"
    return status, {"error": {"message": message, "type": kind, "param": param, "code": code}}


def param_of(location: Sequence[Any]) -> str:
    """A place in a body as OpenAI writes it: `messages[0].content`. Of a choice of types only the field is named."""
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
    given: Mapping[str, Any], reasons: Mapping[str, str], harmless: Mapping[str, Sequence[Any]]
) -> None:
    """Refuse what would change the meaning of the answer if it were left out of account.

    An empty value asks for nothing; `harmless` are the values of a field that ask for what the agent does anyway.

    Raises:
        Unsupported: `given` has a field of `reasons` with a value that asks for something else.
    """
    for name, reason in reasons.items():
        value = given.get(name)
        if value and value not in harmless.get(name, ()):
            raise Unsupported(f"{name} is not supported: {reason}", param=name)
