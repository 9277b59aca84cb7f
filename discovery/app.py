"""The one assembler: settings → an application with an open store and a sweeper that never dies."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import datetime
from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from discovery import api, description, portal
from discovery.contract import utc_now
from discovery.problems import Guard, add_error_table
from discovery.registry import SWEEP_SECONDS, Registry
from discovery.settings import Settings, version
from discovery.stores import open_store
from discovery.stores.base import Store, StoreError

logger = logging.getLogger(__name__)


def create_app(settings: Settings, *, store: Store | None = None, clock: Callable[[], datetime] = utc_now) -> FastAPI:
    """Build the registry's application. A store that is passed in stays its owner's to close."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[dict[str, Any]]:
        async with AsyncExitStack() as stack:
            table = store
            if table is None:
                table = open_store(settings.database_url)
                stack.push_async_callback(table.aclose)
            registry = Registry(table, clock=clock)
            stack.push_async_callback(registry.aclose)
            if settings.open_to_network:
                logger.warning(
                    "listening on %s without tokens (DISCOVERY_ALLOW_ANONYMOUS): anyone who reaches this machine "
                    "can read and change the registry",
                    settings.host,
                )
            await stack.enter_async_context(_swept(registry))
            yield {"registry": registry, "settings": settings}

    app = FastAPI(
        title="myagent discovery",
        summary="Which agents are deployed, where, and whether they are well.",
        version=version(),
        lifespan=lifespan,
        openapi_url=None,  # its own pages would ask for no scope; `description` has them
    )
    add_error_table(app)
    app.include_router(api.router)
    app.include_router(description.router)
    app.include_router(portal.router)
    app.add_middleware(Guard)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=["ETag", "Link", "X-Registry-Revision", "X-Request-ID", "Retry-After"],
        )
    describe = app.openapi
    app.openapi = lambda: description.describe(describe())
    return app


@asynccontextmanager
async def _swept(registry: Registry) -> AsyncGenerator[None]:
    """Sweep once now, so that the first answer is a true one, and go on in the background."""
    trouble = await _sweep(registry, None)
    task = asyncio.create_task(_sweep_forever(registry, trouble), name="discovery-sweeper")
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _sweep_forever(registry: Registry, trouble: str | None) -> None:
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        trouble = await _sweep(registry, trouble)


async def _sweep(registry: Registry, trouble: str | None) -> str | None:
    """What is wrong, or None; said once when it begins and once when it ends."""
    try:
        await registry.sweep()
    except Exception as error:  # a background loop: the next sweep may well succeed, and none may be the last
        if str(error) != trouble:
            unknown = not isinstance(error, StoreError)
            logger.error("the table cannot be kept: %s; changes are refused until it can", error, exc_info=unknown)
        return str(error)
    if trouble is not None:
        logger.info("the table is kept again")
    return None
