"""The loop: ask the model, act on what it wants, observe, finish.

Sees dialects, a model, tools, messages and limits; no file, no HTTP, no database. What the model gets wrong becomes
something it reads; what ends a run early is a stop reason with the best answer so far.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol

from agent_runtime.budget import left_of
from agent_runtime.engine import planning
from agent_runtime.engine.deadline import Deadline
from agent_runtime.engine.formats import Answer, Calls, Dialect, Malformed, Prompt, Reader, Reading
from agent_runtime.engine.run_state import Decision, Paused, Progress
from agent_runtime.events import (
    Event,
    Finished,
    Message,
    ModelChunk,
    Plan,
    StopReason,
    Thought,
    ToolCall,
    ToolCalled,
    ToolResult,
)
from agent_runtime.models.base import Model
from agent_runtime.tools import Tool, run_tool, shown_arguments


class Limits(Protocol):
    """What one run may use; the agent file's section of that name fits."""

    @property
    def max_steps(self) -> int: ...
    @property
    def max_tool_calls(self) -> int: ...
    @property
    def max_tokens(self) -> int: ...
    @property
    def max_repeated_calls(self) -> int: ...
    @property
    def timeout_seconds(self) -> float: ...


class _LimitReached(Exception):
    def __init__(self, reason: StopReason) -> None:
        self.reason: StopReason = reason


class _ApprovalNeeded(Exception):
    def __init__(self, reading: Calls, pending: ToolCall) -> None:
        self.reading = reading
        self.pending = pending


@dataclass(frozen=True, slots=True)
class Engine:
    """One agent's way to run: the same object serves any number of runs at once."""

    model: Model
    tools: Mapping[str, Tool]
    dialect: Dialect
    limits: Limits
    system_prompt: str = ""
    plans: bool = False
    mask: Callable[[str], str] = str  # takes secrets out of what a tool's error says
    fences: bool = True  # whether results are marked as data for the model

    def run(self, history: list[Message]) -> AsyncGenerator[Event | Paused]:
        """Answer the user's message that `history` ends with, and append the turn to it.

        The last event is Finished; or Paused, where a call needs a person's approval: `resume` goes on from there.
        Closing the iterator stops the model.

        Raises:
            ModelError: the provider gave no usable reply; the history is then not a whole turn.
        """
        progress = Progress(asyncio.get_running_loop().time() + self.limits.timeout_seconds)
        return self._run(history, len(history) - 1, progress, None)

    def resume(self, history: list[Message], paused: Paused, decision: Decision) -> AsyncGenerator[Event | Paused]:
        """Go on with a run that waited: `history` ends with its turn so far. Otherwise as `run`."""
        deadline = asyncio.get_running_loop().time() + self.limits.timeout_seconds
        progress = Progress.resumed(deadline, paused, decision)
        begun = len(history) - len(paused.turn)
        return self._run(history, begun, progress, Calls(paused.thought, paused.calls))

    async def _run(
        self, history: list[Message], begun: int, progress: Progress, reading: Calls | None
    ) -> AsyncGenerator[Event | Paused]:
        """Step by step to the end.

        `reading` is a reply that was read before and not acted on; `begun` is where the turn begins in the history.
        """
        try:
            while True:
                step = self._act(history, reading, progress) if reading else self._step(history, progress)
                reading = None
                async with aclosing(step) as events:
                    async for event in events:
                        yield event
                        if isinstance(event, Finished):
                            return
        except _ApprovalNeeded as wait:
            yield progress.paused(tuple(history[begun:]), wait.reading.thought, wait.reading.calls, wait.pending)
        except _LimitReached as limit:
            answer = progress.said or _last_result(history) or _nothing_said(limit.reason)
            if not progress.deltas:
                yield progress.say(answer)
            history.append(Message("assistant", answer))
            yield progress.finished(limit.reason)

    async def _step(self, history: list[Message], progress: Progress) -> AsyncGenerator[Event]:
        """One reply of the model and what follows from it."""
        self._check_limits(progress)
        if self.plans and (progress.plan is None or progress.plan_failed):
            yield await self._plan(history, progress)
            self._check_limits(progress)
        reader = self.dialect.reader(progress.replies)
        said_before = len(progress.deltas)
        async with aclosing(self._reply(history, reader, progress)) as deltas:
            async for delta in deltas:
                if said_before and len(progress.deltas) == said_before:
                    yield progress.say("\n\n")  # what was said before a tool call is a paragraph of its own
                yield progress.say(delta)
        progress.replies += 1
        match self._read(reader, progress):
            case Answer(text, unsent):
                if unsent:
                    yield progress.say(unsent)
                history.append(Message("assistant", text))
                for event in progress.ended():
                    yield event
            case Malformed(text, hint):
                progress.repair = (Message("assistant", text), Message("user", hint))
            case Calls() as reading:
                async with aclosing(self._act(history, reading, progress)) as events:
                    async for event in events:
                        yield event

    async def _plan(self, history: list[Message], progress: Progress) -> Plan:
        """Ask for a plan, or for the rest of one whose step failed."""
        failed = progress.plan if progress.plan_failed else None
        specs = [tool.spec for tool in self.tools.values()]
        system_prompt, shown = self._fenced(history, progress)
        asked = planning.ask(system_prompt, specs, failed)
        messages = [Message("system", asked), *planning.conversation(shown)]
        text = ""
        async with aclosing(self._chunks(Prompt(messages), progress)) as chunks:
            async for chunk in chunks:
                text += chunk
        progress.replies += 1
        progress.plan_failed = False
        return progress.planned(planning.read(text, failed))

    def _check_limits(self, progress: Progress) -> None:
        if progress.replies >= self.limits.max_steps:
            raise _LimitReached("max_steps")
        if progress.usage.total_tokens >= self.limits.max_tokens:
            raise _LimitReached("max_tokens")

    def _read(self, reader: Reader, progress: Progress) -> Reading:
        calls, progress.native_calls = progress.native_calls, []
        return reader.finish(calls)

    async def _reply(self, history: list[Message], reader: Reader, progress: Progress) -> AsyncGenerator[str]:
        """The visible text of one reply; its tool calls and usage go to `progress`."""
        specs = [tool.spec for tool in self.tools.values()]
        system_prompt, shown = self._fenced(history, progress)
        if progress.plan:
            system_prompt = planning.guided(system_prompt, progress.plan)
        prompt = self.dialect.ask(system_prompt, [*shown, *progress.repair], specs)
        progress.repair = ()
        async with aclosing(self._chunks(prompt, progress)) as chunks:
            async for chunk in chunks:
                if visible := reader.feed(chunk):
                    yield visible

    def _fenced(self, history: list[Message], progress: Progress) -> tuple[str, list[Message]]:
        """The system prompt and the history as the model sees them."""
        if not self.fences or not any(message.role == "tool" for message in history):
            return self.system_prompt, history
        return progress.fence.told(self.system_prompt), progress.fence.around(history)

    async def _chunks(self, prompt: Prompt, progress: Progress) -> AsyncGenerator[str]:
        """All text of one reply, until the run's time is over."""
        wish: dict[str, Any] = {"schema": prompt.schema} if prompt.schema else {}
        replies = self.model.stream(prompt.messages, prompt.tools, stop=prompt.stop, **wish)
        with Deadline(progress.deadline) as deadline:
            async with aclosing(replies) as chunks:
                while (chunk := await self._next(deadline, chunks)) is not None:
                    if isinstance(chunk, str):
                        yield chunk
                    elif isinstance(chunk, ToolCall):
                        progress.native_calls.append(chunk)
                    else:
                        progress.usage += chunk

    async def _next(self, deadline: Deadline, chunks: AsyncGenerator[ModelChunk]) -> ModelChunk | None:
        try:
            return await deadline.next(chunks)
        except TimeoutError:
            raise _LimitReached("timeout") from None

    async def _act(self, history: list[Message], reading: Calls, progress: Progress) -> AsyncGenerator[Event]:
        """Run the calls of one reply at the same time; a direct answer ends the run."""
        if not progress.decisions:  # else it was all said and checked before the run waited
            self._check_calls(reading.calls, progress)
            if reading.thought and self.dialect.shows_thoughts:
                yield Thought(reading.thought)
        reading, decided = self._approved(reading, progress)
        called = [ToolCalled(call.id, call.name, shown_arguments(call)) for call in reading.calls]
        for event in called:
            yield event
        results = await self._results(reading.calls, decided, progress)
        progress.acted(reading.thought, called, results)
        history.append(Message("assistant", reading.thought, reading.calls))
        for result in results:
            history.append(Message("tool", result.content, tool_call_id=result.call_id))
            yield result
        if progress.plan:
            yield progress.worked(failed=any(result.is_error for result in results))
        if self._is_answer(results):
            answer = "\n\n".join(result.content for result in results)
            yield progress.say(f"\n\n{answer}" if progress.deltas else answer)
            history.append(Message("assistant", answer))
            for event in progress.ended():
                yield event

    def _approved(self, reading: Calls, progress: Progress) -> tuple[Calls, Mapping[str, Decision]]:
        """The calls as a person left them, and what was decided of each; raises until nothing is undecided."""
        for call in reading.calls:
            tool = self.tools.get(call.name)
            if tool is not None and tool.guarded and call.id not in progress.decisions:
                raise _ApprovalNeeded(reading, call)
        decided, progress.decisions = progress.decisions, {}
        return Calls(reading.thought, tuple(_edited(call, decided.get(call.id)) for call in reading.calls)), decided

    async def _results(
        self, calls: tuple[ToolCall, ...], decided: Mapping[str, Decision], progress: Progress
    ) -> list[ToolResult]:
        with left_of(progress.deadline, self.limits.max_tokens - progress.usage.total_tokens) as left:
            try:
                async with asyncio.timeout_at(progress.deadline):
                    return await asyncio.gather(*(self._outcome(call, decided.get(call.id)) for call in calls))
            except TimeoutError:
                raise _LimitReached("timeout") from None
            finally:
                progress.usage = sum(left.spent, progress.usage)  # by agents that were asked

    async def _outcome(self, call: ToolCall, decision: Decision | None) -> ToolResult:
        if decision is not None and decision.kind == "deny":
            reason = f": {decision.reason}" if decision.reason else "."
            return ToolResult(call.id, call.name, f"A person refused this call{reason}", is_error=True)
        return await run_tool(self.tools, call, self.mask)

    def _check_calls(self, calls: tuple[ToolCall, ...], progress: Progress) -> None:
        if progress.tool_calls + len(calls) > self.limits.max_tool_calls:
            raise _LimitReached("max_tool_calls")
        progress.calls_seen.update((call.name, call.arguments) for call in calls)
        if max(progress.calls_seen.values()) >= self.limits.max_repeated_calls:
            raise _LimitReached("repeated_calls")

    def _is_answer(self, results: list[ToolResult]) -> bool:
        return all(not result.is_error and self.tools[result.name].direct for result in results)


def _edited(call: ToolCall, decision: Decision | None) -> ToolCall:
    if decision is None or decision.arguments is None:
        return call
    return ToolCall(call.id, call.name, decision.arguments)


def _last_result(history: list[Message]) -> str:
    """The result of the turn's last tool: better than nothing when a limit ends the run."""
    for message in reversed(history):
        if message.role == "user":
            return ""
        if message.role == "tool":
            return message.content
    return ""


def _nothing_said(reason: StopReason) -> str:
    return f"I stopped before I had an answer: the limit {reason} was reached."
