"""What a route declares and depends on: its scope, checked before the body is read; the registry; its parameters.

A route declares its scope in `openapi_extra`, so the API description shows what is checked:

    @router.get("/agents", openapi_extra=needs("read"))
    @router.get("/livez", openapi_extra=OPEN)

A route that declares nothing needs `admin`, which is a superset. `register` does not include `read`: an agent that only
announces itself need not see the others.
"""

from collections.abc import Callable, Coroutine, Mapping
from typing import Annotated, Any, cast

from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute

from discovery.api.problems import Refusal
from discovery.contract import is_loopback
from discovery.registry import Registry
from discovery.settings import Settings
from discovery.tokens import ANYONE, Caller, Scope

SCHEME = "bearer"
SCHEMES = {
    SCHEME: {
        "type": "http",
        "scheme": "bearer",
        "description": "A token of DISCOVERY_TOKENS with the scope of the call, or with `admin`. "
        "A registry without tokens needs none.",
    }
}
OPEN: dict[str, Any] = {"security": []}
CHALLENGE = 'Bearer realm="myagent discovery"'


def needs(scope: Scope) -> dict[str, Any]:
    """The `openapi_extra` of a route that needs this scope."""
    return {"security": [{SCHEME: [scope]}]}


def declared(extra: Mapping[str, Any] | None) -> Scope | None:
    """The scope that a route's `openapi_extra` declares, None where it is open; `admin` by default."""
    if extra is None or "security" not in extra:
        return "admin"
    security = cast("list[dict[str, list[Scope]]]", extra["security"])
    return security[0][SCHEME][0] if security else None


class Scoped(APIRoute):
    """A route that admits only callers with the scope that it declares."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = self.handler()
        scope = declared(self.openapi_extra)

        async def checked(request: Request) -> Response:
            if scope is not None:
                headers = request.headers
                given, host = headers.get("authorization", ""), headers.get("host", "")
                request.state.caller = admitted(request.state.settings, given, host, scope)
            return await handle(request)

        return checked

    def handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What answers once the caller is admitted: the endpoint with FastAPI's dependencies and validation."""
        return super().get_route_handler()


class Bare(Scoped):
    """A route whose endpoint takes the request and returns the response: FastAPI only describes it.

    For the calls that a whole fleet repeats; dependencies and validation around them cost more than the calls.
    """

    def handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        return cast("Callable[[Request], Coroutine[Any, Any, Response]]", self.endpoint)


# Asynchronous, because FastAPI runs a plain function as a dependency in a thread.
async def registry_of(request: Request) -> Registry:
    """The registry of the application."""
    return cast("Registry", request.state.registry)


async def _settings(request: Request) -> Settings:
    return cast("Settings", request.state.settings)


async def _caller(request: Request) -> Caller:
    return cast("Caller", request.state.caller)


Table = Annotated[Registry, Depends(registry_of)]
Config = Annotated[Settings, Depends(_settings)]
Who = Annotated[Caller, Depends(_caller)]


def only(*known: str) -> Callable[[Request], Coroutine[Any, Any, None]]:
    """A dependency that refuses every query parameter but these: a typo must not mean "everything"."""

    async def check(request: Request) -> None:
        if not request.scope["query_string"]:
            return
        unknown = sorted(set(request.query_params) - set(known))
        if unknown:
            allowed = f"Known here: {', '.join(known)}." if known else "This route takes none."
            raise Refusal(400, "unknown_parameter", f"Unknown query parameter: {', '.join(unknown)[:200]}.", allowed)

    return check


def check_name(caller: Caller, name: str) -> None:
    """Raise a 403 for a caller that is bound to other names."""
    if not caller.may_name(name):
        allowed = ", ".join(caller.names or ())
        detail = f"This token may not register or remove {name[:128]!r}."
        raise Refusal(403, "forbidden_name", detail, f"It is bound to names like {allowed}.")


def _check_host(settings: Settings, host: str) -> None:
    """Without tokens, refuse web pages whose own host name resolves to this machine (DNS rebinding)."""
    if is_loopback(settings.host) and not is_loopback(f"http://{host}") and not settings.allow_anonymous:
        detail = "This registry listens on loopback only, and not under this name."
        raise Refusal(403, "forbidden_host", detail, "Call it as localhost, or set DISCOVERY_TOKENS.")


def _refusal(status: int, code: str, detail: str, hint: str | None, because: str = "") -> Refusal:
    return Refusal(status, code, detail, hint, headers={"www-authenticate": CHALLENGE + because})


def admitted(settings: Settings, authorization: str, host: str, scope: Scope) -> Caller:
    """The caller with these headers, if it has the scope; else raises a 401 or 403."""
    tokens = settings.tokens
    if tokens is None:
        _check_host(settings, host)
        return ANYONE
    kind, _, token = authorization.strip().partition(" ")
    if kind.lower() != "bearer" or not token.strip():
        hint = "Send one of its DISCOVERY_TOKENS as `Authorization: Bearer …`; an agent takes it from discovery.token."
        raise _refusal(401, "unauthorized", "This registry needs a token.", hint)
    caller = tokens.caller(token.strip())
    if caller is None:
        hint = "It may have been rotated: ask whoever runs the registry for a new one."
        raise _refusal(401, "unauthorized", "This token is not valid here.", hint, ', error="invalid_token"')
    if not caller.may(scope):
        detail = f"This call needs the scope {scope}; this token has {', '.join(sorted(caller.scopes))}."
        hint = "One token may have several entries in DISCOVERY_TOKENS, and has the scopes of all."
        raise _refusal(403, "forbidden_scope", detail, hint, f', error="insufficient_scope", scope="{scope}"')
    return caller
