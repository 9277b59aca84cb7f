"""What one run has used, said and done so far; and the same as JSON, for a run that waits for a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from agent_runtime.engine import planning
from agent_runtime.engine.untrusted import Fence
from agent_runtime.events import (
    Event,
    Finished,
    Message,
    Plan,
    Step,
    StopReason,
    Text,
    ToolCall,
    ToolCalled,
    ToolResult,
    ToolUse,
    Usage,
)


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person said to one call. `arguments` is the JSON text that takes the place of the model's, if any."""

    kind: Literal["approve", "deny"]
    reason: str = ""
    arguments: str | None = None


@dataclass(frozen=True, slots=True)
class Paused:
    """A run that waits for a person: what to go on from, and the first call that nobody has decided on.

    `turn` are the messages of the run so far, the user's first; `thought` and `calls` are the reply that asked.
    """

    turn: tuple[Message, ...]
    thought: str
    calls: tuple[ToolCall, ...]
    pending: ToolCall
    replies: int
    tool_calls: int
    steps: tuple[Step, ...]
    usage: Usage
    said: str
    plan: Plan | None
    decisions: Mapping[str, Decision]

    def to_json(self) -> str:
        """As text, for a store."""
        return _paused().dump_json(self).decode()

    @staticmethod
    def from_json(text: str) -> Paused:
        """What `to_json` wrote."""
        return _paused().validate_json(text)


@cache
def _paused() -> Any:
    """Reads and writes a paused run; made when the first one waits, as it takes longer than to answer."""
    from pydantic import TypeAdapter

    return TypeAdapter(Paused)


@dataclass(slots=True)
class Progress:
    """What one run has used and said so far."""

    deadline: float
    replies: int = 0
    tool_calls: int = 0
    steps: tuple[Step, ...] = ()
    usage: Usage = field(default_factory=Usage)
    deltas: list[str] = field(default_factory=list[str])
    calls_seen: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    repair: tuple[Message, ...] = ()  # a malformed reply and the hint: the model sees them once, the history never
    plan: Plan | None = None
    plan_failed: bool = False
    native_calls: list[ToolCall] = field(default_factory=list[ToolCall])
    decisions: Mapping[str, Decision] = field(default_factory=dict[str, Decision])  # by call id
    fence: Fence = field(default_factory=Fence)

    @property
    def said(self) -> str:
        """All that the user was told."""
        return "".join(self.deltas)

    def say(self, delta: str) -> Text:
        self.deltas.append(delta)
        return Text(delta)

    def acted(self, thought: str, called: list[ToolCalled], results: list[ToolResult]) -> None:
        uses = (
            ToolUse(call.name, call.arguments, result.content, result.is_error, result.duration_ms)
            for call, result in zip(called, results, strict=True)
        )
        self.steps = (*self.steps, Step(thought, tuple(uses)))
        self.tool_calls += len(called)

    def planned(self, plan: Plan) -> Plan:
        self.plan = plan
        return plan

    def worked(self, *, failed: bool) -> Plan:
        """One step of the plan has been tried; one that failed makes the model revise the plan."""
        assert self.plan is not None
        self.plan_failed = failed
        return self.planned(planning.marked(self.plan, "failed" if failed else "done"))

    def ended(self) -> list[Event]:
        """The answer is there: nothing of the plan is open any more."""
        plan = [self.planned(planning.closed(self.plan))] if self.plan else []
        return [*plan, self.finished("finished")]

    def finished(self, reason: StopReason) -> Finished:
        return Finished(self.said, reason, self.steps, self.usage)

    def paused(self, turn: tuple[Message, ...], thought: str, calls: tuple[ToolCall, ...], pending: ToolCall) -> Paused:
        """All of it that the rest of the run needs."""
        return Paused(
            turn, thought, calls, pending, self.replies, self.tool_calls, self.steps, self.usage, self.said, self.plan,
            self.decisions,
        )  # fmt: skip

    @staticmethod
    def resumed(deadline: float, paused: Paused, decision: Decision) -> Progress:
        """The progress of a run that goes on after a decision."""
        return Progress(
            deadline,
            replies=paused.replies,
            tool_calls=paused.tool_calls,
            steps=paused.steps,
            usage=paused.usage,
            deltas=[paused.said] if paused.said else [],
            plan=paused.plan,
            decisions={**paused.decisions, paused.pending.id: decision},
        )
