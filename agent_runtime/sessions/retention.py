"""`session.ttl_days`: conversations that nobody goes on with are deleted, in the background."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from agent_runtime.sessions.base import SessionStore

_log = logging.getLogger(__name__)

_INTERVAL_SECONDS = 24 * 60 * 60.0
_PASS_SECONDS = 300  # what is left after one pass is the next one's
_BATCH = 200  # sessions in one transaction: a turn that wants to append waits no longer than that takes


class Retention:
    """Deletes an agent's conversations that are older than `ttl_days`, now and daily, until the block ends.

    Without `ttl_days` it does nothing. Nothing that fails gets out.
    """

    # A class and not a generator: an event loop that ends closes every open generator by itself, in any order, and
    # this one stands on the exit stack of another.

    def __init__(
        self,
        store: SessionStore,
        agent: str,
        ttl_days: float | None,
        *,
        interval_seconds: float = _INTERVAL_SECONDS,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._agent = agent
        self._ttl_days = ttl_days
        self._interval_seconds = interval_seconds
        self._now = now
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Retention:
        if self._ttl_days is not None:
            daily = self._daily(timedelta(days=self._ttl_days))
            self._task = asyncio.create_task(daily, name=f"retention of {self._agent}")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=5)

    async def _daily(self, age: timedelta) -> None:
        while True:
            await _expire(self._store, self._agent, self._now() - age)
            await asyncio.sleep(self._interval_seconds)


async def _expire(store: SessionStore, agent: str, before: datetime) -> None:
    forgotten = 0
    try:
        async with asyncio.timeout(_PASS_SECONDS):
            while found := await store.expire(agent, before=before, limit=_BATCH):
                forgotten += found
    except Exception as error:  # the loop must outlive whatever a store raises; the next pass tries again
        _log.warning("%s: old sessions could not be deleted: %s: %s", agent, type(error).__name__, error)
    if forgotten:
        _log.info("%s: %d sessions that were older than the file allows are deleted", agent, forgotten)
