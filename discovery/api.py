"""The JSON routes: thin adapters between HTTP and the registry."""

from collections.abc import Callable
from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, Query, Request, Response

from discovery.auth import OPEN, Scoped, Who, check_name, needs
from discovery.contract import AgentRecord, Check, Registered, Registration
from discovery.paging import ListQuery, page_of
from discovery.problems import MEDIA_TYPE, Refusal
from discovery.registry import Registry
from discovery.settings import Settings, version
from discovery.stores.base import StoreError

router = APIRouter(route_class=Scoped)


def _registry(request: Request) -> Registry:
    return cast("Registry", request.state.registry)


def _settings(request: Request) -> Settings:
    return cast("Settings", request.state.settings)


Table = Annotated[Registry, Depends(_registry)]
Config = Annotated[Settings, Depends(_settings)]


def _problems(**because: str) -> dict[int | str, dict[str, Any]]:
    """OpenAPI for the error answers of a route: `_404="no such agent"`."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {int(status[1:]): {"description": reason, "content": content} for status, reason in because.items()}


def _only(*known: str) -> Callable[[Request], None]:
    def check(request: Request) -> None:
        unknown = sorted(set(request.query_params) - set(known))
        if unknown:
            allowed = f"Known here: {', '.join(known)}." if known else "This route takes none."
            raise Refusal(400, "unknown_parameter", f"Unknown query parameter: {', '.join(unknown)[:200]}.", allowed)

    return check


@router.post(
    "/register",
    summary="Add an agent, or renew it",
    response_model=Registered,
    openapi_extra=needs("register"),
    responses={
        201: {"model": Registered, "description": "Registered for the first time"},
        **_problems(
            _400="The body is no text in UTF-8",
            _413="The body is over 256 KiB",
            _422="A field is wrong, or must not be sent",
            _503="The storage is in trouble: nothing was changed",
        ),
    },
)
async def register(
    registration: Registration, request: Request, response: Response, table: Table, who: Who
) -> Registered:
    """Upsert by name and instance. Send the same again within the lease to keep it; without `ttl_seconds` it stays."""
    check_name(who, registration.name)
    caller = request.client.host if request.client else None
    answer, new = await table.register(registration, caller)
    response.status_code = 201 if new else 200
    return answer


@router.get(
    "/agents",
    summary="Everything that is deployed",
    response_model=list[AgentRecord],
    openapi_extra=needs("read"),
    responses={
        304: {"description": "Unchanged since the ETag in If-None-Match"},
        **_problems(_400="Unknown query parameter, or a wrong value of one", _503="The table is not loaded"),
    },
    dependencies=[Depends(_only(*ListQuery.model_fields))],
)
async def agents(request: Request, table: Table, query: Annotated[ListQuery, Query()]) -> Response:
    """One object per name, sorted by name; `[]` before anything registered. Without parameters, everything."""
    page = page_of(table.listing(), query)
    headers = {"etag": page.etag, "x-registry-revision": str(table.revision), "cache-control": "no-cache"}
    if page.following is not None:
        headers["link"] = f'<{request.url.path}?{page.following}>; rel="next"'
    if _matches(request.headers.get("if-none-match"), page.etag):
        return Response(status_code=304, headers=headers)
    return Response(page.body, media_type="application/json", headers=headers)


@router.get(
    "/agents/{name}",
    summary="One agent with all its instances",
    openapi_extra=needs("read"),
    responses=_problems(_400="Unknown query parameter", _404="No such agent", _503="The table is not loaded"),
    dependencies=[Depends(_only())],
)
async def agent(name: str, table: Table) -> AgentRecord:
    """The same object as in the list."""
    record = table.agent(name)
    if record is None:
        raise Refusal(404, "agent_not_found", f"No agent is registered as {name[:128]!r}.", "GET /agents lists all.")
    return record


@router.delete(
    "/agents/{name}",
    status_code=204,
    summary="Take an agent out",
    openapi_extra=needs("register"),
    responses=_problems(
        _400="Unknown query parameter", _409="Another process holds the entry", _503="The storage is in trouble"
    ),
    dependencies=[Depends(_only("instance_id", "boot_id"))],
)
async def remove(
    name: str,
    table: Table,
    who: Who,
    instance_id: Annotated[
        str | None, Query(description="Only this instance; all of them where it is left out")
    ] = None,
    boot_id: Annotated[str | None, Query(description="Only if this process still holds the entry")] = None,
) -> None:
    """Also 204 where it is gone already."""
    check_name(who, name)
    await table.remove(name, instance_id, boot_id)


@router.get("/livez", summary="Is the process alive?", response_model=dict[str, str], openapi_extra=OPEN)
async def livez() -> dict[str, str]:
    """Says nothing of the storage: restarting this process would not mend it."""
    return {"status": "ok"}


@router.get(
    "/readyz",
    summary="Is the table loaded and the storage usable?",
    openapi_extra=OPEN,
    responses=_problems(_503="Not now; `detail` says why"),
)
async def readyz(table: Table) -> dict[str, str]:
    """503 with the reason while registrations cannot be kept."""
    await table.check()
    return {"status": "ok"}


@router.get("/health", summary="Named checks, for people", openapi_extra=needs("read"))
async def health(table: Table, settings: Config) -> dict[str, Any]:
    """Always 200: this describes, /readyz decides."""
    try:
        await table.check()
        store = Check(name="store", ok=True)
    except StoreError as error:
        store = Check(name="store", ok=False, reason=str(error))
    return {
        "status": "ok" if store.ok else "degraded",
        "version": version(),
        "instances": table.size,
        "revision": table.revision,
        "open_to_network": settings.open_to_network,
        "checks": [store.model_dump(exclude_none=True)],
    }


def _matches(asked: str | None, etag: str) -> bool:
    """Weak comparison (RFC 9110, 13.1.2): whoever has the value has it, however it is marked."""
    tags = [tag.strip() for tag in (asked or "").split(",")]
    return "*" in tags or etag.removeprefix("W/") in [tag.removeprefix("W/") for tag in tags]
