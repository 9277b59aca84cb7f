"""The state of one run, and the same as JSON for a run that waits for a person."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from agent_runtime.engine import untrusted
from agent_runtime.engine.formats import ToolCalls
from agent_runtime.errors import StoreError
from agent_runtime.events import (
    Decision,
    Finished,
    Message,
    Plan,
    Step,
    StopReason,
    ToolCall,
    ToolCalled,
    ToolResult,
    ToolUse,
    Usage,
)


@dataclass(slots=True)
class RunState:
    """Everything that a run has done and used so far: another process can go on from it.

    `turn` is the user's message and what followed; `history` is what the session holds before it.
    """

    turn: list[Message]
    history: Sequence[Message] = ()
    deadline: float = 0.0  # by the event loop's clock; set when the run starts
    replies: int = 0
    reply: ToolCalls | None = None  # the latest reply, while its calls are still to be made
    decisions: dict[str, Decision] = field(default_factory=dict[str, Decision])  # of a person, by call id
    steps: list[Step] = field(default_factory=list[Step])
    usage: Usage = field(default_factory=Usage)
    deltas: list[str] = field(default_factory=list[str])  # of the answer
    correction: tuple[Message, ...] = ()  # a malformed reply and the hint: shown to the model once, never remembered
    is_corrected: bool = False  # whether a reply with an error was sent back to the model already
    plan: Plan | None = None
    needs_plan: bool = True  # at first, and when a step failed
    mark: str = field(default_factory=untrusted.new_mark)

    @property
    def answer(self) -> str:
        """All that the user has been shown."""
        return "".join(self.deltas)

    @property
    def best_answer(self) -> str:
        """What a run that is stopped by a limit ends with: the answer so far, else the last result of a tool."""
        last_result = next((message.content for message in reversed(self.turn) if message.role == "tool"), "")
        return self.answer or last_result

    @property
    def messages(self) -> list[Message]:
        """The conversation up to now."""
        return [*self.history, *self.turn]

    @property
    def tool_calls(self) -> list[ToolCall]:
        """All calls of the turn, in order: those that were made, and those of the reply."""
        made = [call for message in self.turn for call in message.tool_calls]
        return [*made, *(self.reply.calls if self.reply else ())]

    def record(self, reply: ToolCalls, called: Sequence[ToolCalled], results: Sequence[ToolResult]) -> None:
        """Add a reply and the results of its calls to the turn."""
        self.reply, self.decisions = None, {}
        self.turn.append(Message("assistant", reply.text, reply.calls))
        self.turn += [Message("tool", result.content, tool_call_id=result.call_id) for result in results]
        uses = (
            ToolUse(call.name, call.arguments, result.content, result.is_error, result.duration_ms)
            for call, result in zip(called, results, strict=True)
        )
        self.steps.append(Step(reply.text, tuple(uses)))

    def finished(self, reason: StopReason) -> Finished:
        """The last event of the run."""
        return Finished(self.answer, reason, tuple(self.steps), self.usage)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A run that waits for a person's decision on a call."""

    call: ToolCall
    state: RunState

    def to_json(self) -> str:
        """As text, for a store."""
        # The session is read again when the run goes on: other turns may have been added to it.
        return _adapter().dump_json(self, exclude={"state": {"history", "deadline"}}).decode()

    @staticmethod
    def from_json(text: str) -> Checkpoint:
        """What `to_json` wrote.

        Raises:
            StoreError: another version wrote it, and it cannot be read.
        """
        try:
            saved = json.loads(text)
            return _adapter().validate_python(saved if "state" in saved else _from_first_format(saved))
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(
                "the waiting call was saved by another version of myagent and cannot be read; decide on it there"
            ) from error

    def decided(self, decision: Decision) -> RunState:
        """The state to go on with after the decision."""
        return replace(self.state, decisions={**self.state.decisions, self.call.id: decision})


def _from_first_format(saved: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint of a version that saved the fields of a run and its reply side by side."""
    state = {name: saved[name] for name in ("turn", "replies", "decisions", "steps", "usage", "plan")}
    reply = {"text": saved["thought"], "calls": saved["calls"]}
    state |= {"reply": reply, "deltas": [saved["said"]] if saved["said"] else [], "needs_plan": saved["plan"] is None}
    return {"call": saved["pending"], "state": state}


@cache
def _adapter() -> Any:
    """Made when the first run waits: it takes longer than an answer."""
    from pydantic import TypeAdapter

    return TypeAdapter(Checkpoint)
