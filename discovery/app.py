"""The one assembler: settings → an application with an open store and a sweeper that never dies."""

import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from discovery import portal
from discovery.api import agents as api
from discovery.api import events, metrics
from discovery.api import mcp as mcp_api
from discovery.api import openapi as description
from discovery.api.express import Express
from discovery.api.packed import Packed
from discovery.api.problems import Guard, add_error_table
from discovery.background import swept
from discovery.contract import utc_now
from discovery.probe import probing
from discovery.registry.registry import Registry
from discovery.registry.store import Store
from discovery.registry.watch import Watch
from discovery.settings import Settings, version
from discovery.stores import open_store

logger = logging.getLogger(__name__)


class _Application(FastAPI):
    """The routes, behind what every request passes first; as their middleware it would stand behind six others."""

    def __init__(self, origins: Sequence[str], **options: Any) -> None:
        super().__init__(**options)
        self._entrance: ASGIApp = Guard(super().__call__)
        if origins:
            self._entrance = CORSMiddleware(
                self._entrance,
                allow_origins=origins,
                allow_methods=["GET", "POST", "DELETE"],
                allow_headers=["*"],
                expose_headers=["ETag", "Link", "X-Registry-Revision", "X-Request-ID", "Retry-After"],
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._entrance(scope, receive, send)


def create_app(
    settings: Settings, *, store: Store | None = None, clock: Callable[[], datetime] | None = None
) -> FastAPI:
    """Build the registry's application. A store that is passed in stays its owner's to close.

    `app.state.watch` lets all readers of `/events` go when the server is about to stop: it would wait for them.
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
            await stack.enter_async_context(swept(registry))
            await stack.enter_async_context(probing(registry, settings, clock or utc_now))
            mcp = mcp_api.McpServer(registry)
            stack.push_async_callback(mcp.aclose)
            packed = Packed()
            express = Express(registry, settings, packed)
            yield {"registry": registry, "settings": settings, "mcp": mcp, "packed": packed, "express": express}

    app = _Application(
        settings.cors_origins,
        title="myagent discovery",
        summary="Which agents are deployed, where, and whether they are well.",
        version=version(),
        lifespan=lifespan,
        openapi_url=None,  # its own pages would ask for no scope; `description` has them
    )
    app.state.watch = watch
    add_error_table(app)
    _include_routers(app, settings)
    describe = app.openapi
    app.openapi = lambda: description.describe(describe())
    return app


def _include_routers(app: FastAPI, settings: Settings) -> None:
    for face in (api, events, *([mcp_api] if mcp_api.is_installed() else []), metrics, description, portal):
        app.include_router(face.router)
    if settings.ard:
        from discovery.ard import router

        app.include_router(router)
