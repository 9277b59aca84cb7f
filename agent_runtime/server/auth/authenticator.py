"""Authentication and rate limits, checked before the body of a request is read.

Every route requires a key or a token if the agent has any. A public route says so:
`@router.get("/livez", openapi_extra=PUBLIC)`.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, Any, cast

from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute

from agent_runtime.config import ServerConfig
from agent_runtime.errors import TooMany, Unauthorized
from agent_runtime.server.auth.oidc import InvalidToken, Issuer
from agent_runtime.server.auth.origin_check import check_anonymous_request

PUBLIC: dict[str, Any] = {"security": []}
MAX_CALLERS = 10_000


class RateLimiter:
    """A leaky bucket for each caller, of which only one number is kept: the time at which it is empty again.

    Beyond `max_callers`, the caller that was seen longest ago is forgotten.
    """

    def __init__(
        self, per_minute: int | None, *, clock: Callable[[], float] = time.monotonic, max_callers: int = MAX_CALLERS
    ) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._max_callers = max_callers
        self._empty_at: OrderedDict[str, float] = OrderedDict()

    def acquire(self, caller: str) -> float:
        """Count one request and return 0, or return the seconds until the next request is allowed."""
        if self._per_minute is None:
            return 0.0
        now, step = self._clock(), 60 / self._per_minute
        empty_at = max(now, self._empty_at.get(caller, now)) + step
        if empty_at - now > 60 + step / 1000:  # the rounding of many small steps
            return empty_at - now - 60
        self._empty_at[caller] = empty_at
        self._empty_at.move_to_end(caller)
        if len(self._empty_at) > self._max_callers:
            self._empty_at.popitem(last=False)
        return 0.0


class Authenticator:
    """Identifies callers by their API key, or by a token of the agent's OpenID Connect issuer.

    Args:
        server: the `server` section of the agent file.
        folder: relative paths in that section are relative to it.
        keys: returns the accepted keys; they change when the secrets behind them are rotated.
        clock: seconds, for rate limits and the age of the issuer's keys.
    """

    def __init__(
        self,
        server: ServerConfig,
        folder: Path,
        keys: Callable[[], Sequence[str]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys = keys
        self._server = server
        self._issuer = Issuer(server.oidc, folder, clock=clock) if server.oidc else None
        accepted = ["an API key"] if server.api_keys else []
        accepted += [f"a token of {server.oidc.issuer}"] if server.oidc else []
        self._requirement = f"this agent requires {' or '.join(accepted)}"
        self._limiter = RateLimiter(server.limits.requests_per_minute, clock=clock)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Authenticator:
        if self._issuer:
            await self._stack.enter_async_context(self._issuer)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def authenticate(self, request: Request) -> str:
        """Return the caller, the first part of a session's owner; empty for an anonymous caller.

        Raises:
            Unauthorized: a key or a token is required, and no valid one was sent.
            HTTPException: no key is required, and the request comes from a foreign web page.
            TooMany: the caller exceeds its rate limit, or its address does if it is not authenticated.
            IssuerAway: the token cannot be checked now.
        """
        if not self._server.asks:
            check_anonymous_request(request, self._server)
        address = f"from {request.client.host if request.client else 'unknown'}"
        try:
            caller = await self._identify(request.headers.get("authorization", ""))
        except Unauthorized:
            self._count(address)  # or keys could be guessed as fast as the network allows
            raise
        self._count(caller or address)
        return caller

    async def _identify(self, authorization: str) -> str:
        keys = self._keys()
        if not keys and self._issuer is None:
            return ""
        scheme, _, credential = authorization.partition(" ")
        credential = credential.strip()
        if scheme.lower() != "bearer" or not credential:
            raise Unauthorized(self._requirement, sent=False)
        digest = _digest(credential)
        # Compare every key, so that the time taken does not reveal which one was close.
        if sum(hmac.compare_digest(digest, known) for known in map(_digest, keys)):
            return digest.hex()[:32]
        if self._issuer is None:
            raise Unauthorized(self._requirement, sent=True)
        try:
            return await self._issuer.subject(credential)
        except InvalidToken as error:
            raise Unauthorized(f"the token {error}", sent=True) from None

    def _count(self, caller: str) -> None:
        if seconds := self._limiter.acquire(caller):
            raise TooMany("this caller sends too many requests", retry_after=math.ceil(seconds))


class AuthenticatedRoute(APIRoute):
    """A route that authenticates the caller first, unless it is public."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        if is_public(self):
            return handle

        async def checked(request: Request) -> Response:
            await authenticate(request)
            return await handle(request)

        return checked


def is_public(route: APIRoute) -> bool:
    """Whether a route needs no authentication."""
    return (route.openapi_extra or {}).get("security") == []


async def authenticate(request: Request) -> None:
    """Authenticate the caller of a request for `caller_of`. Raises as `Authenticator.authenticate` does."""
    request.state.caller = await cast("Authenticator", request.state.authenticator).authenticate(request)


def caller_of(request: Request) -> str:
    """The authenticated caller: the first part of a session's owner."""
    return cast("str", request.state.caller)


async def _caller(request: Request) -> str:
    return caller_of(request)


Caller = Annotated[str, Depends(_caller)]


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
