"""The budget of a run: how deep the chain of agents is, how much time and how many tokens are left.

Two agents that call each other would never stop by themselves. A budget travels between processes as HTTP headers and
within one as a context variable. It only narrows the limits of a run, so it does no harm whoever sends it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace

from agent_runtime.events import Usage

DEPTH_HEADER = "x-myagent-depth"
SECONDS_HEADER = "x-myagent-seconds"  # and not an instant: the clocks of two machines differ
TOKENS_HEADER = "x-myagent-tokens"


@dataclass(frozen=True, slots=True)
class Budget:
    """What is left. `depth` counts the agents above; `deadline` is an instant of the event loop's clock."""

    depth: int = 0
    deadline: float | None = None
    tokens: int | None = None
    spent: list[Usage] = field(default_factory=list[Usage], compare=False)  # by the agents that were called

    def seconds(self) -> float | None:
        """Time that is left, never negative; None where there is no limit."""
        return None if self.deadline is None else max(0.0, self.deadline - asyncio.get_running_loop().time())

    def headers(self) -> dict[str, str]:
        """For a request to the next agent, one level deeper."""
        seconds, headers = self.seconds(), {DEPTH_HEADER: str(self.depth + 1)}
        if seconds is not None:
            headers[SECONDS_HEADER] = f"{seconds:.3f}"
        if self.tokens is not None:
            headers[TOKENS_HEADER] = str(max(0, self.tokens - sum(usage.total_tokens for usage in self.spent)))
        return headers

    @staticmethod
    def from_headers(headers: Mapping[str, str]) -> Budget:
        """The budget of a request; an unreadable header counts as missing."""
        depth, seconds, tokens = (_number(headers.get(name)) for name in (DEPTH_HEADER, SECONDS_HEADER, TOKENS_HEADER))
        return Budget(
            depth=int(depth or 0),
            deadline=None if seconds is None else asyncio.get_running_loop().time() + seconds,
            tokens=None if tokens is None else int(tokens),
        )

    def narrower(self, *, timeout_seconds: float, max_tokens: int) -> dict[str, float]:
        """The limits of a run that exceed the budget, with the values that do not."""
        seconds, narrower = self.seconds(), dict[str, float]()
        if seconds is not None and seconds < timeout_seconds:
            narrower["timeout_seconds"] = seconds
        if self.tokens is not None and self.tokens < max_tokens:
            narrower["max_tokens"] = self.tokens
        return narrower


_current: ContextVar[Budget] = ContextVar("budget", default=Budget())  # noqa: B039 - its `spent` stays empty


def current() -> Budget:
    """The budget of the code that is running."""
    return _current.get()


@contextmanager
def applied(budget: Budget) -> Generator[Budget]:
    """Everything that is started in the block has this budget."""
    token = _current.set(budget)
    try:
        yield budget
    finally:
        _current.reset(token)


@contextmanager
def remaining(deadline: float, tokens: int) -> Generator[Budget]:
    """What a run leaves to the tools that it calls in the block."""
    with applied(replace(current(), deadline=deadline, tokens=max(0, tokens), spent=[])) as budget:
        yield budget


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if 0 <= number < 1e9 else None
