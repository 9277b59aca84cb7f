"""What a registry does by itself, for as long as it runs. No error ends it."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from discovery.registry.registry import SWEEP_SECONDS, Registry
from discovery.registry.store import StoreError

logger = logging.getLogger(__name__)


@asynccontextmanager
async def swept(registry: Registry) -> AsyncGenerator[None]:
    """Sweep once now, so that the first answer is a true one, and go on in the background."""
    trouble = await _sweep(registry, None)
    tasks = [
        asyncio.create_task(_sweep_forever(registry, trouble), name="discovery-sweeper"),
        asyncio.create_task(_follow_forever(registry), name="discovery-follower"),
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _sweep_forever(registry: Registry, trouble: str | None) -> None:
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        trouble = await _sweep(registry, trouble)


async def _follow_forever(registry: Registry) -> None:
    """Hear of other registries on the same store at once; else the sweeper does, a second later."""
    while True:
        try:
            await registry.follow()
        except Exception as error:
            logger.debug("not told of other registries: %s", error)
            await asyncio.sleep(SWEEP_SECONDS)


async def _sweep(registry: Registry, trouble: str | None) -> str | None:
    """What is wrong, or None; said once when it begins and once when it ends."""
    try:
        await registry.sweep()
    except Exception as error:  # the next sweep may well succeed, and none may be the last
        if str(error) != trouble:
            unknown = not isinstance(error, StoreError)
            logger.error("the table cannot be kept: %s; changes are refused until it can", error, exc_info=unknown)
        return str(error)
    if trouble is not None:
        logger.info("the table is kept again")
    return None
