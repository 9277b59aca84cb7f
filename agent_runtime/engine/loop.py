"""The loop: ask the model, run the tools that it calls, and repeat until it answers or a limit is reached.

Knows a model, tools, a dialect and limits; nothing of files, HTTP or databases. What the model does wrong becomes a
message that it reads; a limit ends the run with the best answer so far.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from agent_runtime import budget
from agent_runtime.config import LimitsConfig
from agent_runtime.engine import planning, untrusted
from agent_runtime.engine.formats import Answer, Dialect, Malformed, Prompt, ToolCalls
from agent_runtime.engine.run_state import Checkpoint, RunState
from agent_runtime.errors import ModelError
from agent_runtime.events import (
    Decision,
    Emit,
    Finished,
    Message,
    StopReason,
    Text,
    Thought,
    ToolCall,
    ToolCalled,
    ToolResult,
)
from agent_runtime.models import Model
from agent_runtime.tools import Tool, run_tool, shown_arguments


@dataclass(frozen=True, slots=True)
class Engine:
    """How one agent runs. An engine has no state of its own: it serves any number of runs at once."""

    model: Model
    tools: Mapping[str, Tool]
    dialect: Dialect
    limits: LimitsConfig
    system_prompt: str = ""
    plans: bool = False
    marks_results: bool = True  # whether tool results are marked as data for the model
    mask: Callable[[str], str] = str  # removes secrets from error messages of tools

    async def run(self, state: RunState, emit: Emit) -> Finished | Checkpoint:
        """Answer the message that the turn begins with, or go on after a decision.

        Every event but the last is emitted, and emitting waits for a slow reader. The end is returned, for the caller
        to save before anybody reads it: Finished, or a Checkpoint where a call needs a person's approval.

        Raises:
            ModelError: the model gave no usable reply; the turn is incomplete.
        """
        state.deadline = asyncio.get_running_loop().time() + self.limits.timeout_seconds
        timer = asyncio.timeout_at(state.deadline)
        try:
            async with timer:
                end = await self._loop(state, emit)
        except TimeoutError:
            if not timer.expired():
                raise
            end = "timeout"
        if isinstance(end, Checkpoint):
            return end
        if end != "finished":
            await self._stop(state, end, emit)
        elif state.plan:
            state.plan = planning.completed(state.plan)
            await emit(state.plan)
        return state.finished(end)

    async def _loop(self, state: RunState, emit: Emit) -> StopReason | Checkpoint:
        """Ask for a reply, act on it, and so on until one of the two ends the run."""
        while True:
            end = await self._next_reply(state, emit) if state.reply is None else await self._act(state, emit)
            if end is not None:
                return end

    async def _next_reply(self, state: RunState, emit: Emit) -> StopReason | None:
        """Ask the model once: an answer ends the run, tool calls are kept for `_act`."""
        if reason := self._exceeded(state):
            return reason
        if self.plans and state.needs_plan:
            await self._plan(state, emit)
            return None
        step = state.replies
        text, calls = await self._ask(state, self._prompt(state), self.dialect.answer_filter(), emit)
        match self.dialect.read(text, calls, step):
            case Answer() as answer:
                return await self._answer(state, answer, emit)
            case Malformed() as reply:
                return self._correct(state, reply)
            case ToolCalls() as reply:
                state.reply = reply
                if reason := self._exceeded_by_calls(state):
                    return reason
                if reply.text and self.dialect.shows_thoughts:
                    await emit(Thought(reply.text))
                return None

    async def _act(self, state: RunState, emit: Emit) -> StopReason | Checkpoint | None:
        """Make the calls of the reply at the same time, unless one of them has to wait for a person."""
        assert state.reply is not None
        if call := self._undecided(state, state.reply):
            return Checkpoint(call, state)
        decisions = state.decisions
        calls = tuple(_edited(call, decisions.get(call.id)) for call in state.reply.calls)
        called = [ToolCalled(call.id, call.name, shown_arguments(call)) for call in calls]
        for event in called:
            await emit(event)
        with budget.remaining(state.deadline, self.limits.max_tokens - state.usage.total_tokens) as left:
            try:
                results = await asyncio.gather(*(self._execute(call, decisions.get(call.id)) for call in calls))
            finally:
                state.usage = sum(left.spent, state.usage)  # by agents that were called
        state.record(ToolCalls(state.reply.text, calls), called, results)
        for result in results:
            await emit(result)
        has_failed = any(result.is_error for result in results)
        if state.plan:
            state.plan = planning.advanced(state.plan, "failed" if has_failed else "done")
            state.needs_plan = has_failed
            await emit(state.plan)
        if has_failed or not all(self.tools[result.name].direct for result in results):
            return None
        text = "\n\n".join(result.content for result in results)
        return await self._answer(state, Answer(text, unsent=f"\n\n{text}" if state.deltas else text), emit)

    # --- limits

    def _exceeded(self, state: RunState) -> StopReason | None:
        """The limit that forbids another reply."""
        if state.replies >= self.limits.max_steps:
            return "max_steps"
        return "max_tokens" if state.usage.total_tokens >= self.limits.max_tokens else None

    def _exceeded_by_calls(self, state: RunState) -> StopReason | None:
        """The limit that forbids the calls of the reply."""
        calls = state.tool_calls
        if len(calls) > self.limits.max_tool_calls:
            return "max_tool_calls"
        same = max(Counter((call.name, call.arguments) for call in calls).values())
        return "repeated_calls" if same >= self.limits.max_repeated_calls else None

    async def _stop(self, state: RunState, reason: StopReason, emit: Emit) -> None:
        """End the turn with the best answer there is."""
        answer = state.best_answer or f"I stopped before I had an answer: the limit {reason} was reached."
        if not state.deltas:
            await self._say(state, answer, emit)
        state.turn.append(Message("assistant", answer))

    # --- the model

    async def _ask(
        self, state: RunState, prompt: Prompt, answer_of: Callable[[str], str], emit: Emit
    ) -> tuple[str, list[ToolCall]]:
        """Ask the model for one reply, and emit what belongs to the answer while it streams."""
        options: dict[str, Any] = {"schema": prompt.schema} if prompt.schema else {}
        deltas, calls = list[str](), list[ToolCall]()
        separator = "\n\n" if state.deltas else ""  # text before a tool call is a paragraph of its own
        async with aclosing(self.model.stream(prompt.messages, prompt.tools, stop=prompt.stop, **options)) as chunks:
            async for chunk in chunks:
                if isinstance(chunk, ToolCall):
                    calls.append(chunk)
                elif not isinstance(chunk, str):
                    state.usage += chunk
                else:
                    deltas.append(chunk)
                    if text := answer_of(chunk):
                        await self._say(state, separator + text, emit)
                        separator = ""
        state.replies += 1
        return "".join(deltas), calls

    def _prompt(self, state: RunState) -> Prompt:
        """The request for the next reply, as the dialect makes it."""
        system_prompt, messages = self._conversation(state)
        if state.plan:
            system_prompt = planning.with_plan(system_prompt, state.plan)
        correction, state.correction = state.correction, ()
        return self.dialect.prompt(system_prompt, [*messages, *correction], [tool.spec for tool in self.tools.values()])

    def _conversation(self, state: RunState) -> tuple[str, list[Message]]:
        """The system prompt and the messages, with marks around tool results."""
        messages = state.messages
        if not self.marks_results or not any(message.role == "tool" for message in messages):
            return self.system_prompt, messages
        return untrusted.with_rule(self.system_prompt), untrusted.marked(messages, state.mark)

    async def _plan(self, state: RunState, emit: Emit) -> None:
        """Ask for a plan, or for the rest of one whose step failed."""
        failed = state.plan
        prompt = planning.prompt(*self._conversation(state), [tool.spec for tool in self.tools.values()], failed)
        text, _ = await self._ask(state, prompt, lambda _: "", emit)  # nothing of a plan belongs to the answer
        state.plan, state.needs_plan = planning.parsed(text, failed), False
        await emit(state.plan)

    async def _answer(self, state: RunState, answer: Answer, emit: Emit) -> StopReason:
        """End the turn with the answer."""
        if answer.unsent:
            await self._say(state, answer.unsent, emit)
        state.turn.append(Message("assistant", answer.text))
        return "finished"

    def _correct(self, state: RunState, reply: Malformed) -> None:
        """Show the model its reply with the hint, in the next prompt only."""
        if reply.error and state.is_corrected:
            raise ModelError(reply.error)
        state.is_corrected |= bool(reply.error)
        state.correction = (Message("assistant", reply.text), Message("user", reply.hint))

    async def _say(self, state: RunState, delta: str, emit: Emit) -> None:
        await emit(Text(delta))
        state.deltas.append(delta)  # afterwards: the answer is what was emitted, also when the time is over meanwhile

    # --- the tools

    def _undecided(self, state: RunState, reply: ToolCalls) -> ToolCall | None:
        """The first call of the reply that needs a person's decision and has none."""
        for call in reply.calls:
            tool = self.tools.get(call.name)
            if tool is not None and tool.guarded and call.id not in state.decisions:
                return call
        return None

    async def _execute(self, call: ToolCall, decision: Decision | None) -> ToolResult:
        """Make one call, unless a person denied it."""
        if decision is not None and decision.kind == "deny":
            reason = f": {decision.reason}" if decision.reason else "."
            return ToolResult(call.id, call.name, f"A person refused this call{reason}", is_error=True)
        return await run_tool(self.tools, call, self.mask)


def _edited(call: ToolCall, decision: Decision | None) -> ToolCall:
    if decision is None or decision.arguments is None:
        return call
    return replace(call, arguments=decision.arguments)
