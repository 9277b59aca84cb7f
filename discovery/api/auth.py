"""Which route asks for which scope, and the check: before a byte of the body is read, and closed where nothing is said.

A route declares its scope in `openapi_extra`, so what the API description shows is what is checked:

    @router.get("/agents", openapi_extra=needs("read"))
    @router.get("/livez", openapi_extra=OPEN)

`admin` is a superset. `register` does not include `read`: an agent that only announces itself need not see the others.
"""

from collections.abc import Callable, Coroutine, Mapping
from typing import Annotated, Any, cast

from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute

from discovery.api.problems import Refusal
from discovery.contract import is_loopback
from discovery.settings import Settings
from discovery.tokens import ANYONE, Caller, Scope

SCHEME = "bearer"
SCHEMES = {
    SCHEME: {
        "type": "http",
        "scheme": "bearer",
        "description": "A token of DISCOVERY_TOKENS with the scope of the call, or with `admin`. "
        "A registry without tokens asks for none.",
    }
}
OPEN: dict[str, Any] = {"security": []}
CHALLENGE = 'Bearer realm="myagent discovery"'


def needs(scope: Scope) -> dict[str, Any]:
    """The `openapi_extra` of a route that asks for this scope."""
    return {"security": [{SCHEME: [scope]}]}


def declared(extra: Mapping[str, Any] | None) -> Scope | None:
    """The scope that a route's `openapi_extra` asks for, None where it is open; `admin` if it is silent."""
    if extra is None or "security" not in extra:
        return "admin"
    security = cast("list[dict[str, list[Scope]]]", extra["security"])
    return security[0][SCHEME][0] if security else None


class Scoped(APIRoute):
    """A route that lets nobody through who has not the scope that it declares."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        scope = declared(self.openapi_extra)

        async def checked(request: Request) -> Response:
            if scope is not None:
                settings = cast("Settings", request.state.settings)
                given = request.headers.get("authorization", "")
                request.state.caller = admitted(settings, given, request.headers.get("host", ""), scope)
            return await handle(request)

        return checked


def _caller(request: Request) -> Caller:
    return cast("Caller", request.state.caller)


Who = Annotated[Caller, Depends(_caller)]


def check_name(caller: Caller, name: str) -> None:
    """Raise the 403 of a caller that is bound to other names."""
    if not caller.may_name(name):
        allowed = ", ".join(caller.names or ())
        detail = f"This token may not register or remove {name[:128]!r}."
        raise Refusal(403, "forbidden_name", detail, f"It is bound to names like {allowed}.")


def _check_page(settings: Settings, host: str) -> None:
    """Without tokens, refuse the page of a stranger whose own name points at this machine (DNS rebinding)."""
    if is_loopback(settings.host) and not is_loopback(f"http://{host}") and not settings.allow_anonymous:
        detail = "This registry listens on loopback only, and is not known by this name."
        raise Refusal(403, "forbidden_host", detail, "Ask for it as localhost, or set DISCOVERY_TOKENS.")


def _refusal(status: int, code: str, detail: str, hint: str | None, because: str = "") -> Refusal:
    return Refusal(status, code, detail, hint, headers={"www-authenticate": CHALLENGE + because})


def admitted(settings: Settings, authorization: str, host: str, scope: Scope) -> Caller:
    """Who sends these headers, if they have the scope; the 401 or 403 is raised."""
    tokens = settings.tokens
    if tokens is None:
        _check_page(settings, host)
        return ANYONE
    kind, _, token = authorization.strip().partition(" ")
    if kind.lower() != "bearer" or not token.strip():
        hint = "Send one of its DISCOVERY_TOKENS as `Authorization: Bearer …`; an agent takes it from discovery.token."
        raise _refusal(401, "unauthorized", "This registry asks for a token.", hint)
    caller = tokens.caller(token.strip())
    if caller is None:
        hint = "It may have been rotated: ask whoever runs the registry for a new one."
        raise _refusal(401, "unauthorized", "This token is not known here.", hint, ', error="invalid_token"')
    if not caller.may(scope):
        detail = f"This call needs the scope {scope}; this token has {', '.join(sorted(caller.scopes))}."
        hint = "One token may have several entries in DISCOVERY_TOKENS, and has the scopes of all."
        raise _refusal(403, "forbidden_scope", detail, hint, f', error="insufficient_scope", scope="{scope}"')
    return caller
