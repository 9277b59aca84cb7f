"""The JSON routes: thin adapters between HTTP and the registry."""

import asyncio
import gzip
import json
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Annotated, cast
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from discovery.api.auth import Bare, Scoped, Table, Who, check_name, needs, only, registry_of
from discovery.api.openapi import body_of, problems, query_of
from discovery.api.paging import ListQuery, page_of
from discovery.api.problems import Refusal
from discovery.contract import AgentRecord, Lease, Notice, Registered, Registration, is_loopback, query_words
from discovery.registry import Accepted, HistoryEntry, Hit, Registry
from discovery.registry.leases import interval_seconds

MIN_GZIP_BYTES = 1024
GZIP_LEVEL = 4
MAX_CACHED_BODY = 8 * 1024

fleet = APIRouter(route_class=Bare)  # the two calls that a whole fleet repeats
router = APIRouter(route_class=Scoped)


@fleet.post(
    "/register",
    summary="Add an agent, or renew it",
    response_model=Registered,
    openapi_extra=needs("register") | body_of(Registration),
    responses={
        201: {"model": Registered, "description": "Registered for the first time"},
        **problems(
            _400="The body is not text in its encoding",
            _409="Another process registered this entry later and is alive",
            _413="The body is over 256 KiB",
            _422="A field is invalid, or must not be sent",
            _503="The storage fails: nothing was changed",
        ),
    },
)
async def register(request: Request) -> Response:
    """Upsert by name and instance. Send the same again within the lease to keep it; without `ttl_seconds` it stays."""
    registration = await _registration_in(request)
    check_name(request.state.caller, registration.name)
    caller = request.client.host if request.client else None
    accepted = await (await registry_of(request)).register(registration, caller)
    body, status = acknowledgement(accepted, caller).model_dump_json(), 201 if accepted.new else 200
    return Response(body, status_code=status, media_type="application/json")


@fleet.get(
    "/agents",
    summary="Everything that is deployed",
    response_model=list[AgentRecord],
    openapi_extra=needs("read") | query_of(ListQuery),
    responses={
        304: {"description": "Unchanged since the ETag in If-None-Match"},
        **problems(_400="Unknown query parameter, or an invalid value", _503="The table is not loaded"),
    },
)
async def agents(request: Request) -> Response:
    """One object per name, sorted by name; `[]` before anything registered.

    Without parameters, everything; compressed for those who accept gzip.
    """
    registry, known_tags = await registry_of(request), request.headers.get("if-none-match", "")
    await _known_parameters(request)
    if not request.scope["query_string"] and tag_matches(known_tags, registry.etag):
        return _with_tag(Response(status_code=304), registry.etag, registry.revision)
    query = _query_in(request)
    hits = await _hits(registry, query.q)
    listing = registry.listing()
    page = page_of(listing, query, hits)
    if tag_matches(known_tags, page.etag):
        response = Response(status_code=304)
    elif page.body is listing.body:
        response = await _whole(request, page.body)
    else:
        response = Response(page.body, media_type="application/json")
    if page.following is not None:
        response.headers["link"] = f'<{request.url.path}?{page.following}>; rel="next"'
    return _with_tag(response, page.etag, listing.revision)


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
    limit: Annotated[int, Query(ge=1, le=1000, description="Maximum number of entries")] = 100,
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
    summary="Remove an agent",
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
    instance_id: Annotated[str | None, Query(description="Only this instance; all of them where it is omitted")] = None,
    boot_id: Annotated[str | None, Query(description="Only if this process still holds the entry")] = None,
) -> None:
    """Also 204 where there is none."""
    check_name(who, name)
    await table.remove(name, instance_id, boot_id)


async def _registration_in(request: Request) -> Registration:
    """The body as a registration; what is wrong with it is raised as FastAPI does."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not media_type.startswith("application/") or not media_type.endswith(("/json", "+json")):
        # Browsers send other types to any origin without asking first.
        wrong = {"type": "media_type", "loc": ("body",), "msg": "must be sent as application/json"}
        raise RequestValidationError([wrong])
    try:
        body = await request.body()
        text = body.decode(json.detect_encoding(body))
    except (ClientDisconnect, UnicodeDecodeError):
        raise HTTPException(400, "The body is not complete, or not text in its encoding.") from None
    try:
        return _parsed_once(text) if len(text) <= MAX_CACHED_BODY else Registration.model_validate_json(text)
    except ValidationError as error:
        raise _in_request(error, "body") from None


@lru_cache(maxsize=16_384)
def _parsed_once(text: str) -> Registration:
    """Heartbeats repeat their registration to the letter."""
    return Registration.model_validate_json(text)


_known_parameters = only(*ListQuery.model_fields)


def _query_in(request: Request) -> ListQuery:
    try:
        return ListQuery.read(request.query_params)
    except ValidationError as error:
        raise _in_request(error, "query") from None


def _in_request(error: ValidationError, place: str) -> RequestValidationError:
    return RequestValidationError([{**entry, "loc": (place, *entry["loc"])} for entry in error.errors()])


def acknowledgement(accepted: Accepted, caller: str | None) -> Registered:
    """The answer to a registration from this address."""
    record, changed, _ = accepted
    agent, observed = record.registration, caller or record.observed_address
    return Registered(
        name=agent.name,
        instance_id=agent.instance_id,
        revision=record.revision,
        changed=changed,
        lease=_lease(agent.ttl_seconds, record.believed_from),
        observed_address=observed,
        warnings=_warnings(agent.endpoint, observed),
    )


def _lease(ttl_seconds: float | None, begins: datetime) -> Lease | None:
    if ttl_seconds is None:
        return None
    expires_at = begins + timedelta(seconds=ttl_seconds)
    return Lease(ttl_seconds=ttl_seconds, interval_seconds=interval_seconds(ttl_seconds), expires_at=expires_at)


def _warnings(endpoint: str, caller: str | None) -> list[Notice]:
    if urlsplit(endpoint).hostname in {"0.0.0.0", "::"}:
        message = f"{endpoint} is an address to listen on, not one to call."
        hint = "Advertise the host's own name or address."
        return [Notice(code="unspecified_endpoint", message=message, hint=hint)]
    if caller is not None and is_loopback(endpoint) and not is_loopback(caller):
        message = f"{endpoint} reaches nothing but the agent's own machine, and it registered from {caller}."
        hint = "Set server.service_url, or server.public_url, to an address that others can reach."
        return [Notice(code="loopback_endpoint", message=message, hint=hint)]
    return []


async def _hits(registry: Registry, texts: list[str]) -> list[Hit]:
    """The results of all searches, each agent once."""
    found = [
        hit
        for text in texts
        for hit in await registry.search(query_words(text), every=True, limit=len(registry.records))
    ]
    return list({hit.agent.name: hit for hit in found}.values())


class ListCompressor:
    """The gzip of the latest list: one for all readers of a version, made in a thread."""

    def __init__(self) -> None:
        self._body = b""
        self._compressing: asyncio.Future[bytes] | None = None

    async def compressed(self, body: bytes) -> bytes:
        """The gzip of a list."""
        if self._compressing is None or body is not self._body:
            self._body = body
            self._compressing = asyncio.ensure_future(asyncio.to_thread(gzip.compress, body, GZIP_LEVEL, mtime=0))
        return await asyncio.shield(self._compressing)  # a reader that leaves does not stop it for the others


async def _whole(request: Request, body: bytes) -> Response:
    headers = {"vary": "Accept-Encoding"}
    if len(body) >= MIN_GZIP_BYTES and takes_gzip(request.headers.get("accept-encoding", "")):
        headers["content-encoding"] = "gzip"
        body = await cast("ListCompressor", request.state.list_compressor).compressed(body)
    return Response(body, media_type="application/json", headers=headers)


def takes_gzip(accepted: str) -> bool:
    """Whether an `Accept-Encoding` accepts gzip (RFC 9110, 12.5.3)."""
    weights: dict[str, float] = {}
    for part in accepted.lower().split(","):
        coding, _, parameter = part.partition(";")
        name, _, value = parameter.strip().partition("=")
        try:
            weights[coding.strip()] = float(value) if name == "q" else 1.0
        except ValueError:
            weights[coding.strip()] = 0.0
    return weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0))) > 0


def _with_tag(response: Response, etag: str, revision: int) -> Response:
    headers = {"etag": etag, "x-registry-revision": str(revision), "cache-control": "no-cache"}
    response.headers.update(headers)
    return response


def tag_matches(known: str, etag: str) -> bool:
    """Whether an `If-None-Match` has the tag, by weak comparison (RFC 9110, 13.1.2)."""
    tags = [tag.strip() for tag in known.split(",")]
    return "*" in tags or etag.removeprefix("W/") in [tag.removeprefix("W/") for tag in tags]
