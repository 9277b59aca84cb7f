"""The probe: now and then every endpoint is called, and the table learns what answered. Off unless it is asked for.

A heartbeat says that an agent can reach the registry, not that anyone can reach the agent. Here are those two told
apart. It runs beside everything else: whatever hangs, hangs here.
"""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

from discovery.contract.models import Reachability
from discovery.contract.protocols import faces_of
from discovery.probe.check import Reach
from discovery.registry.leases import Record
from discovery.registry.registry import Registry
from discovery.registry.store import StoreError
from discovery.settings import Settings

AT_ONCE = 20
JITTER = 0.1
REPEATED_AFTER = timedelta(minutes=5)

logger = logging.getLogger(__name__)


@asynccontextmanager
async def probing(registry: Registry, settings: Settings, clock: Callable[[], datetime]) -> AsyncGenerator[None]:
    """Probe in the background for as long as the block lasts, where the settings ask for it."""
    if not settings.probe:
        yield
        return
    task = asyncio.create_task(_forever(registry, settings, clock), name="discovery-probe")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def _forever(registry: Registry, settings: Settings, clock: Callable[[], datetime]) -> None:
    async with Reach.open(settings.probe_rules, clock) as reach:
        while True:
            try:
                await _round(registry, reach)
            except Exception:
                logger.exception("a round of the probe failed")
            # Registries that were started together shall not call every agent at the same moment.
            await asyncio.sleep(settings.probe_seconds * random.uniform(1 - JITTER, 1 + JITTER))


async def _round(registry: Registry, reach: Reach) -> None:
    """Look at every instance once, so many at a time, in another order every time."""
    waiting = list(registry.records)
    random.shuffle(waiting)

    async def look() -> None:
        while waiting:
            await _look(registry, reach, waiting.pop())

    async with asyncio.TaskGroup() as group:
        for _ in range(min(AT_ONCE, len(waiting))):
            group.create_task(look())


async def _look(registry: Registry, reach: Reach, record: Record) -> None:
    """One instance; what goes wrong with it is not in the way of the others."""
    try:
        found = await reach.look(faces_of(record.registration))
        if _is_news(record.reachability, found):
            await registry.reached(*record.key, found)
    except StoreError as error:  # the sweeper says so, too, and louder
        logger.debug("what the probe found of %s/%s is not kept: %s", *record.key, error)
    except Exception:
        logger.exception("the probe could not look at %s/%s", *record.key)


def _is_news(known: Reachability | None, found: Reachability) -> bool:
    """The same answer again is told every few minutes only: it would wake every reader of the list."""
    if known is None or (known.ok, known.reason) != (found.ok, found.reason):
        return True
    return found.checked_at - known.checked_at >= REPEATED_AFTER
