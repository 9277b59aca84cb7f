"""One run that does not depend on a connection: any number of readers follow its numbered events.

Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from agent_runtime.agent import Agent
from agent_runtime.errors import MyAgentError
from agent_runtime.events import (
    Emit,
    Event,
    Finished,
    RunResult,
    RunStarted,
    Step,
    Text,
    Thought,
    ToolCalled,
    ToolResult,
    ToolUse,
)

_log = logging.getLogger(__name__)

MAX_SINGLE_EVENTS = 10_000  # beyond that many, text deltas are joined before they become an event
CLOSING_SECONDS = 3


@dataclass(frozen=True, slots=True)
class Failed:
    """The last event of a run that ended with an error."""

    error: MyAgentError


RunEvent = Event | Failed


class Run:
    """A run in progress, or one that has ended. Event 1 is RunStarted; the last one is Finished or Failed."""

    def __init__(self, owner: str, agent: Agent | None = None, *, cancel_on_disconnect: bool = False) -> None:
        self.owner = owner
        self.agent = agent
        self.run_id = ""
        self.session_id = ""
        self.characters = 0
        self.cancels_on_disconnect = cancel_on_disconnect
        self._events: list[RunEvent] = []
        self._pending_deltas: list[str] = []
        self._changed = asyncio.Event()
        self._ended = asyncio.Event()
        self._readers = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def has_ended(self) -> bool:
        """Whether the last event is available."""
        return bool(self._events) and isinstance(self._events[-1], Finished | Failed)

    @property
    def last_event_number(self) -> int:
        """The number of the latest event."""
        return len(self._events)

    async def next_events(self, after: int = 0) -> Sequence[RunEvent]:
        """Wait for events after number `after` and return them; none if the run ended before.

        Cancelling the call loses nothing, and the run continues.
        """
        while len(self._events) <= after and not self.has_ended:
            self._changed.clear()
            await self._changed.wait()
        return self._events[after:]

    async def follow(self, after: int = 0) -> AsyncGenerator[tuple[int, RunEvent]]:
        """Yield every event after number `after` with its number, to the end of the run."""
        with self.reading():
            while events := await self.next_events(after):
                for event in events:
                    after += 1
                    yield after, event

    async def result(self) -> RunResult:
        """Wait for the end.

        Raises:
            MyAgentError: the error that ended the run.
        """
        await self._ended.wait()
        match self._events[-1]:
            case Finished(answer, stop_reason, steps, usage):
                return RunResult(self.run_id, self.session_id, answer, stop_reason, steps, usage)
            case Failed(error):
                raise error
            case _:
                raise AssertionError("the last event of a run is Finished or Failed")

    @contextmanager
    def reading(self) -> Generator[None]:
        """Count as a reader. With `cancel_on_disconnect`, a run is cancelled when its last reader leaves early."""
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1
            if self.cancels_on_disconnect and not self._readers:
                self.cancel()

    def cancel(self) -> None:
        """Request cancellation; the run then ends as Finished with the stop reason `cancelled`. Safe after its end."""
        if self._task is not None and not self.has_ended:
            self._task.cancel()

    async def cancel_and_wait(self) -> str | None:
        """Cancel, and wait some seconds for the end. Returns the stop reason, or None if the run is still ending."""
        self.cancel()
        try:
            async with asyncio.timeout(CLOSING_SECONDS):
                return (await self.result()).stop_reason
        except TimeoutError:
            return None
        except MyAgentError:
            return "model_error"

    # --- the writing side

    async def record(self, work: Callable[[Emit], Awaitable[RunResult]]) -> None:
        """Record the events that an agent emits, to the end, as a task of its own. Raises nothing."""
        self._task = asyncio.current_task()

        async def emit(event: Event) -> None:
            self._append(event)

        try:
            await work(emit)
        except MyAgentError as error:
            self._append(Failed(error))
        except asyncio.CancelledError:  # the end of this task, whoever cancelled it; readers wait for a last event
            self.end_as_cancelled()
        except Exception:  # the last resort: readers wait for a last event
            _log.exception("run %s failed", self.run_id)
            self._append(Failed(MyAgentError("the agent failed; its log has the reason")))

    def end_as_cancelled(self) -> None:
        """End with the answer so far, unless the run has ended."""
        if not self.has_ended:
            self._flush()
            self._append(Finished(_text_of(self._events), "cancelled", _steps_of(self._events)))

    def _append(self, event: RunEvent) -> None:
        if isinstance(event, RunStarted):
            self.run_id, self.session_id = event.run_id, event.session_id
        self.characters += _size_of(event)
        if isinstance(event, Text) and len(self._events) >= MAX_SINGLE_EVENTS:
            self._pending_deltas.append(event.delta)
            if len(self._pending_deltas) < len(self._events) // 100:
                return
            self._flush()
        else:
            self._flush()
            self._events.append(event)
        self._changed.set()
        if self.has_ended:
            self._ended.set()

    def _flush(self) -> None:
        if self._pending_deltas:
            self._events.append(Text("".join(self._pending_deltas)))
            self._pending_deltas.clear()


def _size_of(event: RunEvent) -> int:
    match event:
        case Text(delta):
            return len(delta)
        case Thought(text):
            return len(text)
        case ToolResult():
            return len(event.content)
        case _:
            return 100


def _text_of(events: Iterable[object]) -> str:
    return "".join(event.delta for event in events if isinstance(event, Text))


def _steps_of(events: Iterable[object]) -> tuple[Step, ...]:
    """The steps of a cancelled run: calls that have a result, grouped by the reply that made them."""
    steps: list[Step] = []
    thought, calls, uses = "", dict[str, ToolCalled](), list[ToolUse]()
    for event in events:
        if isinstance(event, ToolCalled | Thought) and uses:
            steps.append(Step(thought, tuple(uses)))
            thought, calls, uses = "", {}, []
        if isinstance(event, Thought):
            thought = event.text
        elif isinstance(event, ToolCalled):
            calls[event.call_id] = event
        elif isinstance(event, ToolResult) and (call := calls.get(event.call_id)):
            uses.append(ToolUse(event.name, call.arguments, event.content, event.is_error, event.duration_ms))
    return (*steps, Step(thought, tuple(uses))) if uses else tuple(steps)
