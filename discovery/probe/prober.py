"""Calls every registered endpoint at intervals and records the result in the registry. Off by default.

A heartbeat shows that an agent reaches the registry; the probe shows that the agent can be reached.
"""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

from discovery.contract import Reachability, is_loopback, protocol_endpoints
from discovery.probe.addresses import AddressPolicy
from discovery.probe.check import EndpointChecker
from discovery.registry.leases import Record
from discovery.registry.registry import Registry
from discovery.registry.store import StoreError
from discovery.settings import Settings

MAX_CONCURRENT_CHECKS = 20
JITTER = 0.1
REPEAT_AFTER = timedelta(minutes=5)

logger = logging.getLogger(__name__)


@asynccontextmanager
async def probing(registry: Registry, settings: Settings, clock: Callable[[], datetime]) -> AsyncGenerator[None]:
    """Run the probe in the background while the block runs, if the settings enable it."""
    if not settings.probe:
        yield
        return
    task = asyncio.create_task(_run(registry, settings, clock), name="discovery-probe")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def _run(registry: Registry, settings: Settings, clock: Callable[[], datetime]) -> None:
    # A registry that listens on loopback only may call the agents of its own machine.
    policy = AddressPolicy.of(settings.probe_allow, loopback=is_loopback(settings.host))
    async with EndpointChecker.open(policy, clock) as checker:
        while True:
            try:
                await _check_all(registry, checker)
            except Exception:
                logger.exception("a round of the probe failed")
            # With jitter, so that replicas do not call every agent at the same moment.
            await asyncio.sleep(settings.probe_seconds * random.uniform(1 - JITTER, 1 + JITTER))


async def _check_all(registry: Registry, checker: EndpointChecker) -> None:
    """Check every instance once, in random order."""
    remaining = list(registry.records)
    random.shuffle(remaining)

    async def worker() -> None:
        while remaining:
            await _check_one(registry, checker, remaining.pop())

    async with asyncio.TaskGroup() as group:
        for _ in range(min(MAX_CONCURRENT_CHECKS, len(remaining))):
            group.create_task(worker())


async def _check_one(registry: Registry, checker: EndpointChecker, record: Record) -> None:
    try:
        result = await checker.check(protocol_endpoints(record.registration))
        if _has_changed(record.reachability, result):
            await registry.reached(*record.key, result)
    except StoreError as error:  # the sweeper reports it already
        logger.debug("the probe result of %s/%s is not stored: %s", *record.key, error)
    except Exception:
        logger.exception("the probe failed on %s/%s", *record.key)


def _has_changed(known: Reachability | None, result: Reachability) -> bool:
    """An equal result is recorded every few minutes only, because every record is an event for all readers."""
    if known is None or (known.ok, known.reason) != (result.ok, result.reason):
        return True
    return result.checked_at - known.checked_at >= REPEAT_AFTER
