"""ASGI middleware that registers an application while it is served."""

import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from discovery.client.registration import RegistrationSource, registered

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)


class RegistrationMiddleware:
    """Registers an application after its startup and removes the entry before its shutdown.

    `app.add_middleware(RegistrationMiddleware, registration=…, url=…)` in FastAPI and Starlette,
    `app = RegistrationMiddleware(app, registration, url=…)` for any other ASGI application, with or without a lifespan
    of its own. The arguments are those of `registered()`: errors of the registry are logged, never raised. Where the
    server supports lifespan state, `request.state.registration` is the `RegistrationState`.

    Several worker processes are several instances: give each its own `instance_id`.
    """

    def __init__(
        self,
        app: "ASGIApp",
        registration: RegistrationSource,
        *,
        url: str,
        token: str | None = None,
        heartbeat_seconds: float | None = None,
        ready: str | Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        self._app = app
        self._registered = lambda: registered(
            registration, url=url, token=token, heartbeat_seconds=heartbeat_seconds, ready=ready
        )

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Pass everything to the application, and follow the messages of its lifespan."""
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _lifespan(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        received: list[str] = []
        sent: list[str] = []

        async with AsyncExitStack() as stack:

            async def tracked_receive() -> "Message":
                message = await receive()
                received.append(message["type"])
                if message["type"] == "lifespan.shutdown":
                    await stack.aclose()  # removed first: until then, callers still find a server that answers
                return message

            async def tracked_send(message: "Message") -> None:
                if message["type"] == "lifespan.startup.complete":
                    state = await stack.enter_async_context(self._registered())
                    if "state" in scope:
                        scope["state"]["registration"] = state
                sent.append(message["type"])
                await send(message)

            try:
                await self._app(scope, tracked_receive, tracked_send)
            except Exception as error:
                if sent:
                    raise
                # ASGI: an application without lifespan support raises, and the server continues.
                logger.info("the application has no lifespan (%s: %s)", type(error).__name__, error)
            await _complete(received, sent, tracked_receive, tracked_send)


async def _complete(received: list[str], sent: list[str], receive: "Receive", send: "Send") -> None:
    """Complete the lifespan protocol in place of an application that has no lifespan."""
    if not received:
        await receive()
    if not sent:
        await send({"type": "lifespan.startup.complete"})
    if sent == ["lifespan.startup.complete"] and "lifespan.shutdown" not in received:
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
