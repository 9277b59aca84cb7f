"""What one agent leaves another to answer with: how deep the chain of agents is, how much time and how many tokens.

Two agents that ask each other would never stop by themselves. Travels between processes as HTTP headers, within one
as a context variable; narrows what a run may use and never widens it, so that it does no harm who sends it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Protocol

from agent_runtime.events import Usage

DEPTH_HEADER = "x-myagent-depth"
SECONDS_HEADER = "x-myagent-seconds"  # and not an instant: the clocks of two machines differ
TOKENS_HEADER = "x-myagent-tokens"


class RunLimits(Protocol):
    """The two limits of a run that an allowance narrows."""

    @property
    def max_tokens(self) -> int: ...
    @property
    def timeout_seconds(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is left. `depth` counts the agents above; `deadline` is an instant of the event loop's clock."""

    depth: int = 0
    deadline: float | None = None
    tokens: int | None = None
    spent: list[Usage] = field(default_factory=list[Usage], compare=False)  # by the agents that were asked

    def seconds(self) -> float | None:
        """Time that is left, never negative; None where nobody set a limit."""
        return None if self.deadline is None else max(0.0, self.deadline - asyncio.get_running_loop().time())

    def headers(self) -> dict[str, str]:
        """For the agent that is asked next: one deeper."""
        seconds, left = self.seconds(), {DEPTH_HEADER: str(self.depth + 1)}
        if seconds is not None:
            left[SECONDS_HEADER] = f"{seconds:.3f}"
        if self.tokens is not None:
            left[TOKENS_HEADER] = str(max(0, self.tokens - sum(usage.total_tokens for usage in self.spent)))
        return left

    def narrowed(self, limits: RunLimits) -> dict[str, float]:
        """The limits of a run that are wider than what is left, and what they become."""
        seconds, narrower = self.seconds(), dict[str, float]()
        if seconds is not None and seconds < limits.timeout_seconds:
            narrower["timeout_seconds"] = seconds
        if self.tokens is not None and self.tokens < limits.max_tokens:
            narrower["max_tokens"] = self.tokens
        return narrower


_current: ContextVar[Allowance] = ContextVar("allowance", default=Allowance())  # noqa: B039 - `spent` of it stays empty


def current() -> Allowance:
    """What the code that asks was left with."""
    return _current.get()


@contextmanager
def allowed(allowance: Allowance) -> Generator[Allowance]:
    """Everything that is started in the block has this to answer with."""
    token = _current.set(allowance)
    try:
        yield allowance
    finally:
        _current.reset(token)


@contextmanager
def left_of(deadline: float, tokens: int) -> Generator[Allowance]:
    """What a run leaves to the tools that it calls in the block."""
    with allowed(replace(current(), deadline=deadline, tokens=max(0, tokens), spent=[])) as allowance:
        yield allowance


def read(headers: Mapping[str, str]) -> Allowance:
    """What a request was sent with; what cannot be read counts as not sent."""
    depth, seconds, tokens = (_number(headers.get(name)) for name in (DEPTH_HEADER, SECONDS_HEADER, TOKENS_HEADER))
    return Allowance(
        depth=int(depth or 0),
        deadline=None if seconds is None else asyncio.get_running_loop().time() + seconds,
        tokens=None if tokens is None else int(tokens),
    )


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if 0 <= number < 1e9 else None
