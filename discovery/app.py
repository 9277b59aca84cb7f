"""The assembler: settings → an application with an open store and the registry's background tasks."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from discovery import portal
from discovery.api import agents, events, mcp, metrics, openapi
from discovery.api.problems import RequestLimits, add_error_table
from discovery.contract import utc_now
from discovery.probe import probing
from discovery.registry import SWEEP_SECONDS, Registry, Store, StoreError, Watch
from discovery.settings import Settings, version
from discovery.stores import open_store

logger = logging.getLogger(__name__)


class _Application(FastAPI):
    """The routes behind CORS and `RequestLimits`, which so apply to error answers of every kind as well."""

    def __init__(self, origins: Sequence[str], **options: Any) -> None:
        super().__init__(**options)
        self._outermost: ASGIApp = RequestLimits(super().__call__)
        if origins:
            self._outermost = CORSMiddleware(
                self._outermost,
                allow_origins=origins,
                allow_methods=["GET", "POST", "DELETE"],
                allow_headers=["*"],
                expose_headers=["ETag", "Link", "X-Registry-Revision", "X-Request-ID", "Retry-After"],
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._outermost(scope, receive, send)


def create_app(
    settings: Settings, *, store: Store | None = None, clock: Callable[[], datetime] | None = None
) -> FastAPI:
    """Build the registry's application. A store that is passed in stays its owner's to close.

    `app.state.watch` disconnects all readers of `/events` when the server is about to stop: it would wait for them.
    """
    watch = Watch()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[dict[str, Any]]:
        async with AsyncExitStack() as stack:
            table = store
            if table is None:
                table = open_store(settings.database_url)
                stack.push_async_callback(table.aclose)
            registry = Registry(table, watch=watch, clock=clock)
            stack.push_async_callback(registry.aclose)
            if settings.open_to_network:
                logger.warning(
                    "listening on %s without tokens (DISCOVERY_ALLOW_ANONYMOUS): anyone who reaches this machine "
                    "can read and change the registry",
                    settings.host,
                )
            await stack.enter_async_context(_background(registry))
            await stack.enter_async_context(probing(registry, settings, clock or utc_now))
            mcp_server = mcp.McpServer(registry)
            stack.push_async_callback(mcp_server.aclose)
            compressor = agents.ListCompressor()
            yield {"registry": registry, "settings": settings, "mcp": mcp_server, "list_compressor": compressor}

    app = _Application(
        settings.cors_origins,
        title="myagent discovery",
        summary="Which agents are deployed, where, and in which state.",
        version=version(),
        lifespan=lifespan,
        openapi_url=None,  # FastAPI's own pages need no scope; `openapi` has ours
    )
    app.state.watch = watch
    add_error_table(app)
    _include_routers(app, settings)
    describe = app.openapi
    app.openapi = lambda: openapi.describe(describe())
    return app


def _include_routers(app: FastAPI, settings: Settings) -> None:
    mcp_routers = [mcp.router] if mcp.is_installed() else []
    rest = (events.router, *mcp_routers, metrics.router, openapi.router, portal.router)
    for router in (agents.fleet, agents.router, *rest):
        app.include_router(router)
    if settings.ard:
        from discovery.ard import router

        app.include_router(router)


@asynccontextmanager
async def _background(registry: Registry) -> AsyncGenerator[None]:
    """Sweep once, so that the first answer is up to date, and go on in the background. No error ends it."""
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
    """Apply changes of other registries on the same store at once; otherwise the sweeper does, a second later."""
    while True:
        try:
            await registry.follow()
        except Exception as error:
            logger.debug("no notifications of other registries: %s", error)
            await asyncio.sleep(SWEEP_SECONDS)


async def _sweep(registry: Registry, trouble: str | None) -> str | None:
    """Sweep and return the error, or None; logged once when it begins and once when it ends."""
    try:
        await registry.sweep()
    except Exception as error:  # the next sweep may succeed
        if str(error) != trouble:
            unexpected = not isinstance(error, StoreError)
            logger.error("changes cannot be stored, and are refused until they can: %s", error, exc_info=unexpected)
        return str(error)
    if trouble is not None:
        logger.info("changes can be stored again")
    return None
