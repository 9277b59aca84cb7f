"""The errors of the runtime, by who must act.

    MyAgentError
    ├── ConfigError        the owner of the agent file: every problem of the file at once
    ├── StartError         the operator: a port in use, a missing extra, a database or secret source out of reach
    ├── StoreError         the operator: the session store fails while the agent serves
    ├── ModelError         the provider of the model, or the operator who chose it
    ├── IssuerAway         the operator: the issuer of tokens cannot be reached
    ├── CallerError        the caller: the request cannot be served as it is
    │   ├── Unauthorized   no valid key or token was sent
    │   ├── TooMany        the caller exceeds a rate limit
    │   ├── SessionBusy    another turn of the session is still running
    │   ├── UnknownRun     there is no such run of this caller
    │   └── UnknownApproval  there is no such call waiting for this caller
    └── ToolError          the model: the message goes back to it and the run goes on

Errors hold data; the server and the CLI have one table each of the HTTP status or exit status they become.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


class MyAgentError(Exception):
    """The root of everything this package raises on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with an agent file. `path` is dotted (`model.endpoint`); `line` counts from 1."""

    message: str
    path: str = ""
    line: int | None = None


class ConfigError(MyAgentError):
    """The agent file is invalid. Holds every problem found, in the order of the lines."""

    def __init__(self, file: str, problems: Sequence[Problem]) -> None:
        self.file = file
        self.problems = tuple(sorted(problems, key=lambda problem: (problem.line or 0, problem.path)))
        super().__init__("\n".join(self._line(problem) for problem in self.problems))

    def _line(self, problem: Problem) -> str:
        where = self.file if problem.line is None else f"{self.file}:{problem.line}"
        return " ".join(part for part in (where, problem.path) if part) + f": {problem.message}"


class StartError(MyAgentError):
    """The agent cannot start for a reason outside its file; the message says what the operator can do."""


class StoreError(MyAgentError):
    """The session store cannot be read or written; nothing of the turn was saved."""


class IssuerAway(MyAgentError):
    """The keys of the token issuer cannot be fetched, so no token can be checked; may pass by itself."""


ModelFault = Literal[
    "unreachable", "auth", "not_found", "invalid_request", "rate_limited", "quota", "context_overflow", "failed"
]


class ModelError(MyAgentError):
    """The model gave no usable reply.

    `fault` says who must act: nobody for `unreachable`, `rate_limited` and `failed`, which may pass; the operator for
    `auth` (the key), `not_found` (the model or the endpoint), `invalid_request` (the parameters) and `quota`; the
    caller for `context_overflow`, which needs a shorter conversation.
    """

    def __init__(self, message: str, *, fault: ModelFault = "failed") -> None:
        self.fault: ModelFault = fault
        super().__init__(message)


class CallerError(MyAgentError):
    """The request cannot be served as it is; the caller changes it."""


class Unauthorized(CallerError):
    """The caller sent no valid key or token. `sent` tells whether there was one at all."""

    def __init__(self, message: str, *, sent: bool) -> None:
        self.sent = sent
        super().__init__(message)


class TooMany(CallerError):
    """The caller exceeds a rate limit of the agent file."""

    def __init__(self, message: str, *, retry_after: int = 5) -> None:
        self.retry_after = retry_after  # seconds
        super().__init__(message)


class SessionBusy(CallerError):
    """Another turn of this session has been running for too long to wait for it."""


class UnknownRun(CallerError):
    """There is no run of this id that the caller may see."""


class UnknownApproval(CallerError):
    """There is no call of that id that waits for this caller's decision."""


class ToolError(MyAgentError):
    """A tool could not do what the model asked; the message goes back to the model and the run goes on."""
