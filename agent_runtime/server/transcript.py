"""What the events of a run add up to while it has not finished: the text and the steps so far."""

from __future__ import annotations

from collections.abc import Iterable

from agent_runtime.events import Step, Text, Thought, ToolCalled, ToolResult, ToolUse


def text_of(events: Iterable[object]) -> str:
    """What was said of the answer."""
    return "".join(event.delta for event in events if isinstance(event, Text))


def steps_of(events: Iterable[object]) -> tuple[Step, ...]:
    """What was done before a run was cancelled: calls whose results are there, step by step."""
    steps: list[Step] = []
    thought, called, uses = "", dict[str, ToolCalled](), list[ToolUse]()
    for event in events:
        if isinstance(event, ToolCalled | Thought) and uses:
            steps.append(Step(thought, tuple(uses)))
            thought, called, uses = "", {}, []
        if isinstance(event, Thought):
            thought = event.text
        elif isinstance(event, ToolCalled):
            called[event.call_id] = event
        elif isinstance(event, ToolResult) and (call := called.get(event.call_id)):
            uses.append(ToolUse(event.name, call.arguments, event.content, event.is_error, event.duration_ms))
    return (*steps, Step(thought, tuple(uses))) if uses else tuple(steps)
