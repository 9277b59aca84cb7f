"""Runs that do not hang on a connection: every face starts one here, and any number of readers follow it.

A run is a task of its own. It drains `Agent.stream` into numbered events that are kept in memory, so that a reader
who is slow, gone or back again changes nothing for the run or for the others. Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass

from agent_runtime.agent import Agent
from agent_runtime.errors import MyAgentError, TooMany, UnknownRun
from agent_runtime.events import Event, Finished, Message, RunResult, RunStarted, Text, Thought, ToolResult
from agent_runtime.server.transcript import steps_of, text_of

_log = logging.getLogger(__name__)

REMEMBERED_SECONDS = 600
REMEMBERED_RUNS = 500
REMEMBERED_CHARACTERS = 32_000_000  # of all runs that are over, together
SINGLE_EVENTS = 10_000  # behind that many, deltas of text are joined before they become an event
CLOSING_SECONDS = 3


@dataclass(frozen=True, slots=True)
class Failed:
    """The last event of a run that gave no answer."""

    error: MyAgentError


RunEvent = Event | Failed


class Run:
    """One run, under way or over. Event number 1 is RunStarted; the last one is Finished or Failed."""

    def __init__(self, owner: str, agent: Agent | None = None, *, cancel_when_left: bool = False) -> None:
        self.owner = owner
        self.agent = agent
        self.run_id = ""
        self.session_id = ""
        self.characters = 0
        self._events: list[RunEvent] = []
        self._joined: list[str] = []
        self._changed = asyncio.Event()
        self._ended = asyncio.Event()
        self._readers = 0
        self.cancels_when_left = cancel_when_left
        self._task: asyncio.Task[None] | None = None

    @property
    def is_over(self) -> bool:
        """Whether its last event is there."""
        return bool(self._events) and isinstance(self._events[-1], Finished | Failed)

    @property
    def last_number(self) -> int:
        """The number of the latest event."""
        return len(self._events)

    async def next_events(self, after: int = 0) -> Sequence[RunEvent]:
        """The events behind number `after`, as soon as there are any; none when the run ended before them.

        Safe to give up waiting for: nothing is lost, and the run goes on.
        """
        while len(self._events) <= after and not self.is_over:
            self._changed.clear()
            await self._changed.wait()
        return self._events[after:]

    async def follow(self, after: int = 0) -> AsyncGenerator[tuple[int, RunEvent]]:
        """Every event behind number `after` with its number, to the end of the run."""
        with self.reading():
            while events := await self.next_events(after):
                for event in events:
                    after += 1
                    yield after, event

    async def result(self) -> RunResult:
        """Wait for the end.

        Raises:
            MyAgentError: what the run failed with.
        """
        await self._ended.wait()
        match self._events[-1]:
            case Finished(answer, stop_reason, steps, usage):
                return RunResult(self.run_id, self.session_id, answer, stop_reason, steps, usage)
            case Failed(error):
                raise error
            case _:
                raise AssertionError("a run that is over ends with Finished or Failed")

    @contextmanager
    def reading(self) -> Generator[None]:
        """Count as a reader. A run whose file asks for it is cancelled when its last reader goes before the end."""
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1
            if self.cancels_when_left and not self._readers:
                self.cancel()

    def cancel(self) -> None:
        """Ask the run to stop; it then ends as Finished with the stop reason `cancelled`. Fine when it is over."""
        if self._task is not None and not self.is_over:
            self._task.cancel()

    async def cancelled(self) -> str | None:
        """Cancel, and wait for some seconds for the end; the stop reason, or none where the run is still ending."""
        self.cancel()
        try:
            async with asyncio.timeout(CLOSING_SECONDS):
                return (await self.result()).stop_reason
        except TimeoutError:
            return None
        except MyAgentError:
            return "model_error"

    # --- the side that writes

    async def drain(self, events: AsyncGenerator[Event, None]) -> None:
        """Keep what the agent says until it has said everything. Lets no error out."""
        self._task = asyncio.current_task()
        try:
            async with aclosing(events):
                async for event in events:
                    self._take(event)
        except MyAgentError as error:
            self._take(Failed(error))
        except asyncio.CancelledError:  # the end of this task, whoever asked for it: its readers must hear of it
            self.finish_cancelled()
        except Exception:  # a defect of ours: the log's to tell, and no reader may wait for ever
            _log.exception("run %s failed", self.run_id)
            self._take(Failed(MyAgentError("the agent failed; its log says why")))

    def finish_cancelled(self) -> None:
        """End with the answer so far, unless the run is over."""
        if not self.is_over:
            self._flush()
            self._take(Finished(text_of(self._events), "cancelled", steps_of(self._events)))

    def _take(self, event: RunEvent) -> None:
        if isinstance(event, RunStarted):
            self.run_id, self.session_id = event.run_id, event.session_id
        self.characters += _size(event)
        if isinstance(event, Text) and len(self._events) >= SINGLE_EVENTS:
            self._joined.append(event.delta)
            if len(self._joined) < len(self._events) // 100:
                return
            self._flush()
        else:
            self._flush()
            self._events.append(event)
        self._changed.set()
        if self.is_over:
            self._ended.set()

    def _flush(self) -> None:
        if self._joined:
            self._events.append(Text("".join(self._joined)))
            self._joined.clear()


class Runs:
    """The runs of one process: what is under way, and for some minutes what is over.

    Runs that are over are forgotten after `remembered_seconds`, and before that, oldest first, when there are more
    than `remembered_runs` of them or when their events hold more text than is good. Closing cancels what runs.
    """

    def __init__(
        self,
        *,
        remembered_seconds: float = REMEMBERED_SECONDS,
        remembered_runs: int = REMEMBERED_RUNS,
        remembered_characters: int = REMEMBERED_CHARACTERS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._remembered_seconds = remembered_seconds
        self._remembered_runs = remembered_runs
        self._remembered_characters = remembered_characters
        self._clock = clock
        self._under_way: dict[asyncio.Task[None], Run] = {}
        self._over: OrderedDict[str, tuple[float, Run]] = OrderedDict()
        self._characters = 0

    async def __aenter__(self) -> Runs:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for task in self._under_way:
            task.cancel()
        if self._under_way:
            _done, stuck = await asyncio.wait(self._under_way, timeout=CLOSING_SECONDS)
            for run in (self._under_way[task] for task in stuck):
                _log.warning("run %s does not end within %g s; it is left behind", run.run_id, CLOSING_SECONDS)
                run.finish_cancelled()

    async def start(
        self,
        agent: Agent,
        message: str,
        *,
        session_id: str | None = None,
        owner: str = "",
        history: Sequence[Message] | None = None,
    ) -> Run:
        """Begin a run of an open agent; it goes on whatever becomes of the caller.

        `history` takes the place of what the agent remembers, and nothing is then remembered.

        Raises:
            CallerError: the message or the session id cannot be used, or the caller has enough runs under way.
        """
        events = agent.stream(message, session_id=session_id, owner=owner, history=history)
        return await self.begin(agent, events, owner)

    async def begin(self, agent: Agent, events: AsyncGenerator[Event, None], owner: str) -> Run:
        """The same for events that the agent has made: a run that goes on after a decision, for example."""
        self._check_number(agent, owner)
        run = Run(owner, agent, cancel_when_left=agent.config.server.cancel_on_disconnect)
        task = asyncio.create_task(run.drain(events), name="run")
        self._under_way[task] = run
        task.add_done_callback(self._ended)
        for event in await run.next_events():
            if isinstance(event, Failed) and not run.run_id:
                raise event.error
        return run

    def get(self, run_id: str, *, owner: str = "") -> Run:
        """A run that is under way or remembered.

        Raises:
            UnknownRun: there is none of this id, or it belongs to somebody else.
        """
        self._forget()
        _, run = self._over.get(run_id, (0, None))
        run = run or next((run for run in self._under_way.values() if run.run_id == run_id), None)
        if run is None or run.owner != owner:
            raise UnknownRun(f"there is no run {run_id[:64]!r}: it never was, or it is no longer remembered")
        return run

    async def settled(self, agent: Agent | None = None) -> None:
        """Wait until nothing is under way, or nothing of one agent."""
        while waiting := [task for task, run in self._under_way.items() if agent in {None, run.agent}]:
            await asyncio.wait(waiting)

    def _check_number(self, agent: Agent, owner: str) -> None:
        """A run counts to its end, also when its client has hung up."""
        if (most := agent.config.server.limits.concurrent_runs) is None:
            return
        running = (run.owner for run in self._under_way.values() if run.agent is agent)
        if sum(one.partition("/")[0] == owner.partition("/")[0] for one in running) >= most:
            raise TooMany(f"{most} runs of this caller are under way, and no more may be")

    def _ended(self, task: asyncio.Task[None]) -> None:
        run = self._under_way.pop(task)
        run.finish_cancelled()  # a task that is cancelled before its first step never gets as far as to say it
        if run.run_id:
            self._over[run.run_id] = self._clock(), run
            self._characters += run.characters
        self._forget()

    def _forget(self) -> None:
        oldest = self._clock() - self._remembered_seconds
        while self._over:
            ended, run = next(iter(self._over.values()))
            too_many = len(self._over) > self._remembered_runs or self._characters > self._remembered_characters
            if ended > oldest and not too_many:
                return
            self._over.popitem(last=False)
            self._characters -= run.characters


def _size(event: RunEvent) -> int:
    match event:
        case Text(delta):
            return len(delta)
        case Thought(text):
            return len(text)
        case ToolResult():
            return len(event.content)
        case _:
            return 100
