"""The JSON routes: thin adapters between HTTP and the registry."""

from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, Query, Request, Response

from discovery.api.auth import OPEN, Scoped, Who, check_name, needs
from discovery.api.dependencies import Config, Table, only, problems
from discovery.api.packed import Packed, takes_gzip
from discovery.api.paging import ListQuery, page_of
from discovery.api.problems import Refusal
from discovery.contract import AgentRecord, Check, Registered, Registration, query_words
from discovery.registry.answers import acknowledgement
from discovery.registry.history import HistoryEntry
from discovery.registry.registry import Registry
from discovery.registry.search import Hit
from discovery.registry.store import StoreError
from discovery.settings import version

router = APIRouter(route_class=Scoped)


@router.post(
    "/register",
    summary="Add an agent, or renew it",
    response_model=Registered,
    openapi_extra=needs("register"),
    responses={
        201: {"model": Registered, "description": "Registered for the first time"},
        **problems(
            _400="The body is no text in UTF-8",
            _409="Another process registered this entry later and is alive",
            _413="The body is over 256 KiB",
            _422="A field is wrong, or must not be sent",
            _503="The storage is in trouble: nothing was changed",
        ),
    },
)
async def register(registration: Registration, request: Request, table: Table, who: Who) -> Response:
    """Upsert by name and instance. Send the same again within the lease to keep it; without `ttl_seconds` it stays."""
    check_name(who, registration.name)
    caller = request.client.host if request.client else None
    accepted = await table.register(registration, caller)
    body, status = acknowledgement(accepted, caller), 201 if accepted.new else 200
    return Response(body, status_code=status, media_type="application/json")


@router.get(
    "/agents",
    summary="Everything that is deployed",
    response_model=list[AgentRecord],
    openapi_extra=needs("read"),
    responses={
        304: {"description": "Unchanged since the ETag in If-None-Match"},
        **problems(_400="Unknown query parameter, or a wrong value of one", _503="The table is not loaded"),
    },
    dependencies=[Depends(only(*ListQuery.model_fields))],
)
async def agents(request: Request, table: Table, query: Annotated[ListQuery, Query()]) -> Response:
    """One object per name, sorted by name; `[]` before anything registered.

    Without parameters, everything; compressed for those who accept gzip.
    """
    listing = table.listing()
    page = page_of(listing, query, await _hits(table, query.q))
    if tag_matches(request.headers.get("if-none-match", ""), page.etag):
        response = Response(status_code=304)
    elif page.body is listing.body:
        response = await _whole(request, page.body)
    else:
        response = Response(page.body, media_type="application/json")
    response.raw_headers += list_headers(page.etag, listing.revision)
    if page.following is not None:
        response.headers["link"] = f'<{request.url.path}?{page.following}>; rel="next"'
    return response


@router.get(
    "/agents/{name}",
    summary="One agent with all its instances",
    openapi_extra=needs("read"),
    responses=problems(_400="Unknown query parameter", _404="No such agent", _503="The table is not loaded"),
    dependencies=[Depends(only())],
)
async def agent(name: str, table: Table) -> AgentRecord:
    """The same object as in the list."""
    record = table.agent(name)
    if record is None:
        raise Refusal(404, "agent_not_found", f"No agent is registered as {name[:128]!r}.", "GET /agents lists all.")
    return record


@router.get(
    "/agents/{name}/history",
    summary="What changed about an agent, and when",
    openapi_extra=needs("read"),
    responses=problems(
        _400="Unknown query parameter, or a wrong value of one",
        _404="No such agent within 30 days",
        _503="The storage is in trouble",
    ),
    dependencies=[Depends(only("limit", "before"))],
)
async def history(
    name: str,
    table: Table,
    limit: Annotated[int, Query(ge=1, le=1000, description="At most so many")] = 100,
    before: Annotated[int | None, Query(ge=1, le=2**53, description="Only revisions before this one")] = None,
) -> list[HistoryEntry]:
    """The newest first; kept for 30 days, also after the agent is gone."""
    entries = list(await table.history(name, limit=limit, before=before))
    if not entries and before is None and table.agent(name) is None:
        raise Refusal(404, "agent_not_found", f"No agent was registered as {name[:128]!r}.", "GET /agents lists all.")
    return entries


@router.delete(
    "/agents/{name}",
    status_code=204,
    summary="Take an agent out",
    openapi_extra=needs("register"),
    responses=problems(
        _400="Unknown query parameter", _409="Another process holds the entry", _503="The storage is in trouble"
    ),
    dependencies=[Depends(only("instance_id", "boot_id"))],
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
    responses=problems(_503="Not now; `detail` says why"),
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
        "instances": len(table.records),
        "revision": table.revision,
        "guard": table.guard and table.guard.model_dump(mode="json") | {"silent": len(table.guard.silent)},
        "probe": settings.probe,
        "open_to_network": settings.open_to_network,
        "checks": [store.model_dump(exclude_none=True)],
    }


async def _hits(table: Registry, texts: list[str]) -> list[Hit]:
    """What any of the texts finds, each agent once."""
    most = len(table.records)
    found = [hit for text in texts for hit in await table.search(query_words(text), every=True, limit=most)]
    return list({hit.agent.name: hit for hit in found}.values())


async def _whole(request: Request, body: bytes) -> Response:
    headers, packed = {"vary": "Accept-Encoding"}, None
    if takes_gzip(request.headers.get("accept-encoding", "").encode("latin-1")):
        packed = await cast("Packed", request.state.packed).of(body)
    if packed is not None:
        headers["content-encoding"] = "gzip"
    return Response(body if packed is None else packed, media_type="application/json", headers=headers)


def list_headers(etag: str, revision: int) -> list[tuple[bytes, bytes]]:
    """What every answer to `GET /agents` carries."""
    said = (b"etag", etag.encode()), (b"x-registry-revision", b"%d" % revision), (b"cache-control", b"no-cache")
    return list(said)


def tag_matches(asked: str, etag: str) -> bool:
    """Weak comparison (RFC 9110, 13.1.2): whoever has the value has it, however it is marked."""
    tags = [tag.strip() for tag in asked.split(",")]
    return "*" in tags or etag.removeprefix("W/") in [tag.removeprefix("W/") for tag in tags]
