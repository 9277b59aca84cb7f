"""Any ASGI application, registered while it is served. Knows the words of a lifespan, and of no framework."""

import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from discovery.client.client import Said, registered

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)


class RegistrationMiddleware:
    """Registers an application when its start is over, and takes it off the list before its end begins.

    `app.add_middleware(RegistrationMiddleware, registration=…, url=…)` in FastAPI and Starlette,
    `app = RegistrationMiddleware(app, registration, url=…)` around anything else that speaks ASGI. A lifespan of the
    application's own goes on as before; without one it is the same. The arguments are those of `registered`, and so is
    the promise: whatever goes wrong with the registry reaches neither the application nor its users. Where the server
    hands a lifespan's state on, `request.state.registration` is the `RegistrationState`.

    Several worker processes are several instances: give each its own `instance_id`.
    """

    def __init__(
        self,
        app: "ASGIApp",
        registration: Said,
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
        """Pass everything on; what is said about start and end is listened to."""
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _live(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        asked: list[str] = []
        answered: list[str] = []

        async with AsyncExitStack() as stack:

            async def hear() -> "Message":
                message = await receive()
                asked.append(message["type"])
                if message["type"] == "lifespan.shutdown":
                    await stack.aclose()  # the goodbye comes first: whoever reads the list now still finds it serving
                return message

            async def say(message: "Message") -> None:
                if message["type"] == "lifespan.startup.complete":
                    state = await stack.enter_async_context(self._registered())
                    if "state" in scope:
                        scope["state"]["registration"] = state
                answered.append(message["type"])
                await send(message)

            try:
                await self._app(scope, hear, say)
            except Exception as error:
                if answered:
                    raise
                # What an application without a lifespan does, by the words of ASGI: the server is to go on.
                logger.info("the application has no lifespan of its own (%s: %s)", type(error).__name__, error)
            await _complete(asked, answered, hear, say)


async def _complete(asked: list[str], answered: list[str], hear: "Receive", say: "Send") -> None:
    """Do what an application did not do of a lifespan, in its place."""
    if not asked:
        await hear()
    if not answered:
        await say({"type": "lifespan.startup.complete"})
    if answered == ["lifespan.startup.complete"] and "lifespan.shutdown" not in asked:
        await hear()
        await say({"type": "lifespan.shutdown.complete"})
