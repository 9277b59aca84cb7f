"""Messages, tool calls, usage, and the events of a run: the values that all components share.

Frozen values only; nothing here knows HTTP, YAML, a provider's wire format or a database.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]

StopReason = Literal[
    "finished",
    "max_steps",
    "max_tool_calls",
    "max_tokens",
    "repeated_calls",
    "timeout",
    "cancelled",
    "model_error",
    "approval_required",
]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One request of the model to call a tool. `arguments` is JSON text as the model wrote it, perhaps malformed."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One entry of a conversation. `tool_call_id` names the call that a `tool` message answers."""

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """The description of a tool for the model. `parameters` is a JSON Schema of type object."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the provider counted them; zero where it did not report any."""

    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Input and output."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.input_tokens + other.input_tokens, self.output_tokens + other.output_tokens)


# What a model's stream yields: a delta of text, a whole tool call, or the usage of the reply (at most once, last).
ModelChunk = str | ToolCall | Usage


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The first event of every run."""

    run_id: str
    session_id: str


PlanStatus = Literal["pending", "done", "failed"]


@dataclass(frozen=True, slots=True)
class PlanStep:
    """One line of a plan."""

    text: str
    status: PlanStatus = "pending"


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps that the model means to take; sent again whenever a status or the plan itself changes."""

    steps: tuple[PlanStep, ...]


@dataclass(frozen=True, slots=True)
class Thought:
    """What the model wrote beside a tool call; never part of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCalled:
    """A tool is about to run. `arguments` are parsed; empty where the JSON of the model was malformed."""

    call_id: str
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool returned, as the model will read it; with `is_error`, why it failed."""

    call_id: str
    name: str
    content: str
    is_error: bool = False
    duration_ms: int = 0


@dataclass(frozen=True, slots=True)
class ApprovalRequired:
    """A call waits for a person's decision and the run ends for now. `arguments` is the JSON text of the model."""

    approval_id: str
    tool: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Text:
    """A delta of the answer, in order; the deltas of a run joined are its answer."""

    delta: str


@dataclass(frozen=True, slots=True)
class ToolUse:
    """One tool call with its result."""

    name: str
    arguments: Mapping[str, Any]
    result: str
    is_error: bool
    duration_ms: int


@dataclass(frozen=True, slots=True)
class Step:
    """One reply of the model that called tools, with their results."""

    thought: str
    tool_calls: tuple[ToolUse, ...]


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of a run that gave an answer."""

    answer: str
    stop_reason: StopReason
    steps: tuple[Step, ...] = ()
    usage: Usage = field(default_factory=Usage)


Event = RunStarted | Plan | Thought | ToolCalled | ToolResult | ApprovalRequired | Text | Finished

# What a run gives its events to. Waiting for it is how a slow reader slows the run down.
Emit = Callable[[Event], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Decision:
    """A person's decision on one call. `arguments` is JSON text that replaces the model's, if given."""

    kind: Literal["approve", "deny"]
    reason: str = ""
    arguments: str | None = None


@dataclass(frozen=True, slots=True)
class RunResult:
    """One answered message. `steps` are the model's replies that called tools, with their results."""

    run_id: str
    session_id: str
    answer: str
    stop_reason: StopReason
    steps: tuple[Step, ...] = ()
    usage: Usage = field(default_factory=Usage)
