"""The door to the faces of an agent: `create_app`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from agent_runtime.agent import Agent
from agent_runtime.masking import masked
from agent_runtime.server import page
from agent_runtime.server.api import approvals, chat, health
from agent_runtime.server.api import openai as openai_api
from agent_runtime.server.auth.authenticator import Door
from agent_runtime.server.dependencies import BodyLimit, add_error_handlers
from agent_runtime.server.lazy_mount import Allowances, late_faces
from agent_runtime.server.openapi import describe
from agent_runtime.server.registration import announced
from agent_runtime.server.runs import Runs

__all__ = ["create_app"]


def create_app(agent: Agent, *, port: int | None = None, path: str = "", runs: Runs | None = None) -> FastAPI:
    """The application that serves an open agent.

    While it is served the agent is announced to discovery, at `port` where the file's own is not the one it is bound
    to, below `path` where it shares the port with others. The agent is not closed with the application: who opened it
    closes it. So it is with `runs` that are given, for those that must outlive the application; else it has its own.
    """

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[dict[str, Any]]:
        async with AsyncExitStack() as stack:
            # Opened first and closed last: while the registry hears the goodbye, answers may still be finished.
            started = runs or await stack.enter_async_context(Runs())
            await stack.enter_async_context(door)
            for face in late:
                stack.push_async_callback(face.aclose)
            registration = await stack.enter_async_context(
                announced(agent, port or agent.config.server.port, path, protocols)
            )
            yield {"agent": agent, "registration": registration, "runs": started, "door": door}

    config = agent.config
    door = Door(config.server, agent.folder, lambda: agent.api_keys)
    late = late_faces(agent, path)
    protocols = ["chat", *(face.protocol for face in late)]
    about = masked(config.description, agent.secrets)
    app = FastAPI(title=config.name, version=config.version, description=about, lifespan=lifespan)
    if config.server.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=config.server.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["authorization", "content-type", "last-event-id"],
        )
    app.add_middleware(BodyLimit, limit_bytes=config.server.limits.max_body_bytes)
    app.add_middleware(Allowances)
    add_error_handlers(app)
    app.include_router(chat.router)
    app.include_router(approvals.router)
    app.include_router(openai_api.router)
    app.include_router(health.router)
    app.include_router(page.router)
    for face in late:
        app.router.routes.extend(face.routes)
    plain = app.openapi
    app.openapi = lambda: describe(plain(), config)
    return app
