"""Who may come in, and how often: checked before a byte of the body is read, and closed where a route says nothing.

A route that is for everybody says so: `@router.get("/livez", openapi_extra=OPEN)`. All others ask for a key or a token,
where the agent has any to ask for.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, Any, cast

from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute

from agent_runtime.config import ServerConfig
from agent_runtime.errors import TooMany, Unauthorized
from agent_runtime.server.auth.oidc import Issuer, NotAccepted
from agent_runtime.server.auth.origin_check import check_page
from agent_runtime.server.auth.rate_limit import Limiter

OPEN: dict[str, Any] = {"security": []}


class Door:
    """Knows the callers of one agent by digests of their keys, and by tokens of its issuer."""

    def __init__(
        self,
        server: ServerConfig,
        folder: Path,
        keys: Callable[[], Sequence[str]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`keys` are those that callers may send now: they change when the secrets behind them are rotated."""
        self._keys = keys
        self._server = server
        self._issuer = Issuer(server.oidc, folder, clock=clock) if server.oidc else None
        wanted = ["a key"] if server.api_keys else []
        wanted += [f"a token of {server.oidc.issuer}"] if server.oidc else []
        self._wanted = f"this agent asks for {' or '.join(wanted)}"
        self._limiter = Limiter(server.limits.requests_per_minute, clock=clock)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Door:
        if self._issuer:
            await self._stack.enter_async_context(self._issuer)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def admit(self, request: Request) -> str:
        """Who is calling, as the first part of a session's owner: nobody in particular where nobody is asked.

        Raises:
            Unauthorized: a key or a token is asked for, and none that is good was sent.
            HTTPException: it is the page of a stranger, and nobody is asked for a key.
            TooMany: this caller, or the address that nobody good came from.
            IssuerAway: nothing can be said of the token now.
        """
        if not self._server.asks:
            check_page(request, self._server)
        address = f"from {request.client.host if request.client else 'somewhere'}"
        try:
            caller = await self._known(request.headers.get("authorization", ""))
        except Unauthorized:
            self._count(address)  # or keys could be guessed as fast as the network allows
            raise
        self._count(caller or address)
        return caller

    async def _known(self, authorization: str) -> str:
        keys = self._keys()
        if not keys and self._issuer is None:
            return ""
        scheme, _, given = authorization.partition(" ")
        given = given.strip()
        if scheme.lower() != "bearer" or not given:
            raise Unauthorized(self._wanted, sent=False)
        digest = _digest(given)
        # Every key is compared, so that the time taken tells nothing of which one was near.
        if sum(hmac.compare_digest(digest, known) for known in map(_digest, keys)):
            return digest.hex()[:32]
        if self._issuer is None:
            raise Unauthorized(self._wanted, sent=True)
        try:
            return await self._issuer.subject(given)
        except NotAccepted as error:
            raise Unauthorized(f"the token {error}", sent=True) from None

    def _count(self, caller: str) -> None:
        if seconds := self._limiter.wait(caller):
            raise TooMany("this caller asks too often", retry_after=math.ceil(seconds))


class Guarded(APIRoute):
    """A route that lets in whom the door lets in, unless it says that it is for everybody."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        if is_open(self):
            return handle

        async def checked(request: Request) -> Response:
            await admitted(request)
            return await handle(request)

        return checked


def is_open(route: APIRoute) -> bool:
    """Whether a route is for everybody."""
    return (route.openapi_extra or {}).get("security") == []


async def admitted(request: Request) -> None:
    """Let the caller in, or raise as `Door.admit` does; behind it, `caller_of` knows who it is."""
    request.state.caller = await cast("Door", request.state.door).admit(request)


def caller_of(request: Request) -> str:
    """Who was let in: the first part of a session's owner."""
    return cast("str", request.state.caller)


async def _caller(request: Request) -> str:
    return caller_of(request)


Caller = Annotated[str, Depends(_caller)]


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
