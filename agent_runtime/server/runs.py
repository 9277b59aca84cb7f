"""The runs of one process: those in progress and, for some minutes, those that have ended. Knows nothing of HTTP."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence

from agent_runtime.agent import Agent
from agent_runtime.errors import TooMany, UnknownRun
from agent_runtime.events import Emit, Message, RunResult
from agent_runtime.server.run import CLOSING_SECONDS, Failed, Run

_log = logging.getLogger(__name__)

RETENTION_SECONDS = 600
MAX_RETAINED_RUNS = 500
MAX_RETAINED_CHARACTERS = 32_000_000  # in all runs that have ended, together


class Runs:
    """Starts runs and finds them again.

    A run that has ended is dropped after `retention_seconds`, and earlier, oldest first, while there are more than
    `max_retained_runs` or their events hold more than `max_retained_characters`. Closing cancels runs in progress.
    """

    def __init__(
        self,
        *,
        retention_seconds: float = RETENTION_SECONDS,
        max_retained_runs: int = MAX_RETAINED_RUNS,
        max_retained_characters: int = MAX_RETAINED_CHARACTERS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._retention_seconds = retention_seconds
        self._max_retained_runs = max_retained_runs
        self._max_retained_characters = max_retained_characters
        self._clock = clock
        self._in_progress: dict[asyncio.Task[None], Run] = {}
        self._ended: OrderedDict[str, tuple[float, Run]] = OrderedDict()
        self._characters = 0

    async def __aenter__(self) -> Runs:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for task in self._in_progress:
            task.cancel()
        if self._in_progress:
            _done, stuck = await asyncio.wait(self._in_progress, timeout=CLOSING_SECONDS)
            for run in (self._in_progress[task] for task in stuck):
                _log.warning("run %s did not end within %g s; it is abandoned", run.run_id, CLOSING_SECONDS)
                run.end_as_cancelled()

    async def start(
        self,
        agent: Agent,
        message: str,
        *,
        session_id: str | None = None,
        owner: str = "",
        history: Sequence[Message] | None = None,
    ) -> Run:
        """Start a run of an open agent; it continues whatever happens to the caller.

        `history` replaces the stored history of the session; such a turn is not stored.

        Raises:
            CallerError: the message or the session id is invalid, or the caller has too many runs in progress.
        """
        return await self.record(
            agent,
            lambda emit: agent.answer(message, emit, session_id=session_id, owner=owner, history=history),
            owner,
        )

    async def record(self, agent: Agent, work: Callable[[Emit], Awaitable[RunResult]], owner: str) -> Run:
        """Start a run of an agent from what it does, for example to continue after an approval."""
        self._check_concurrency(agent, owner)
        run = Run(owner, agent, cancel_on_disconnect=agent.config.server.cancel_on_disconnect)
        task = asyncio.create_task(run.record(work), name="run")
        self._in_progress[task] = run
        task.add_done_callback(self._retain)
        for event in await run.next_events():
            if isinstance(event, Failed) and not run.run_id:
                raise event.error
        return run

    def get(self, run_id: str, *, owner: str = "") -> Run:
        """A run in progress, or one that is still retained.

        Raises:
            UnknownRun: there is none with this id, or it belongs to another owner.
        """
        self._evict()
        _, run = self._ended.get(run_id, (0, None))
        run = run or next((run for run in self._in_progress.values() if run.run_id == run_id), None)
        if run is None or run.owner != owner:
            raise UnknownRun(f"there is no run {run_id[:64]!r}: the id is wrong, or the run ended too long ago")
        return run

    async def wait_until_idle(self, agent: Agent | None = None) -> None:
        """Wait until no run is in progress, or none of one agent."""
        while waiting := [task for task, run in self._in_progress.items() if agent in {None, run.agent}]:
            await asyncio.wait(waiting)

    def _check_concurrency(self, agent: Agent, owner: str) -> None:
        """A run counts to its end, also when its client has disconnected."""
        if (limit := agent.config.server.limits.concurrent_runs) is None:
            return
        owners = (run.owner for run in self._in_progress.values() if run.agent is agent)
        if sum(one.partition("/")[0] == owner.partition("/")[0] for one in owners) >= limit:
            raise TooMany(f"this caller has {limit} runs in progress, which is the limit")

    def _retain(self, task: asyncio.Task[None]) -> None:
        run = self._in_progress.pop(task)
        run.end_as_cancelled()  # a task that is cancelled before its first step could not do so itself
        if run.run_id:
            self._ended[run.run_id] = self._clock(), run
            self._characters += run.characters
        self._evict()

    def _evict(self) -> None:
        oldest = self._clock() - self._retention_seconds
        while self._ended:
            ended, run = next(iter(self._ended.values()))
            is_over_limit = (
                len(self._ended) > self._max_retained_runs or self._characters > self._max_retained_characters
            )
            if ended > oldest and not is_over_limit:
                return
            self._ended.popitem(last=False)
            self._characters -= run.characters
