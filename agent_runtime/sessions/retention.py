"""`session.ttl_days`: conversations that nobody goes on with are deleted, in the background."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial

from agent_runtime.background import BackgroundTask
from agent_runtime.sessions.base import SessionStore

_log = logging.getLogger(__name__)

_INTERVAL_SECONDS = 24 * 60 * 60.0
_PASS_SECONDS = 300  # what is left after one pass is the next one's
_BATCH = 200  # sessions in one transaction: a turn that wants to append waits no longer than that takes


def retention(
    store: SessionStore,
    agent: str,
    ttl_days: float | None,
    *,
    interval_seconds: float = _INTERVAL_SECONDS,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> BackgroundTask:
    """Deletes an agent's conversations that are older than `ttl_days`, now and daily, until the block ends.

    Without `ttl_days` it does nothing. Nothing that fails gets out.
    """

    async def daily(age: timedelta) -> None:
        while True:
            await _expire(store, agent, now() - age)
            await asyncio.sleep(interval_seconds)

    work = None if ttl_days is None else partial(daily, timedelta(days=ttl_days))
    return BackgroundTask(work, name=f"retention of {agent}")


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
