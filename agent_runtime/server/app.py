"""`create_app`: the ASGI application that serves an agent."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from agent_runtime.agent import Agent
from agent_runtime.masking import masked
from agent_runtime.server import page
from agent_runtime.server.api import approvals, chat, health, openai
from agent_runtime.server.auth.authenticator import Authenticator
from agent_runtime.server.lazy_mount import BudgetMiddleware, lazy_mounts
from agent_runtime.server.openapi import describe
from agent_runtime.server.problems import BodyLimit, add_error_handlers
from agent_runtime.server.registration import registered_with_discovery
from agent_runtime.server.runs import Runs


def create_app(agent: Agent, *, port: int | None = None, path: str = "", runs: Runs | None = None) -> FastAPI:
    """Create the application that serves an open agent.

    While it is served, the agent is registered with discovery.

    Args:
        agent: an open agent; the caller closes it.
        port: the bound port, if it is not the one in the agent file.
        path: the path prefix of the agent if it shares the port with others.
        runs: runs that outlive the application; the caller closes them. By default the application has its own.
    """

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[dict[str, Any]]:
        async with AsyncExitStack() as stack:
            # Opened first and closed last: responses may still be completed while the agent deregisters.
            own_runs = runs or await stack.enter_async_context(Runs())
            await stack.enter_async_context(authenticator)
            for mount in mounts:
                stack.push_async_callback(mount.aclose)
            registration = await stack.enter_async_context(
                registered_with_discovery(agent, port or agent.config.server.port, path, protocols)
            )
            yield {"agent": agent, "registration": registration, "runs": own_runs, "authenticator": authenticator}

    config = agent.config
    authenticator = Authenticator(config.server, agent.folder, lambda: agent.api_keys)
    mounts = lazy_mounts(agent, path)
    protocols = ["chat", *(mount.protocol for mount in mounts)]
    description = masked(config.description, agent.secrets)
    app = FastAPI(title=config.name, version=config.version, description=description, lifespan=lifespan)
    if config.server.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=config.server.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["authorization", "content-type", "last-event-id"],
        )
    app.add_middleware(BodyLimit, limit_bytes=config.server.limits.max_body_bytes)
    app.add_middleware(BudgetMiddleware)
    add_error_handlers(app)
    for router in (chat.router, approvals.router, openai.router, health.router, page.router):
        app.include_router(router)
    for mount in mounts:
        app.router.routes.extend(mount.routes)
    plain = app.openapi
    app.openapi = lambda: describe(plain(), config)
    return app
