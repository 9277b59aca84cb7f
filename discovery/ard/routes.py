"""The routes of Agentic Resource Discovery v0.91: the agents of the registry as ARD entries.

They are mounted at /ard, because `GET /agents` of ARD returns something else than that of the registry. The manifest is
also served at the path of v0.9.
"""

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterable, Sequence
from hashlib import blake2b
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import Field

from discovery.api.auth import Config, Scoped, Table, needs, only
from discovery.api.openapi import problems
from discovery.api.problems import MEDIA_TYPE, REFUSALS, Refusal, answer_to, invalid_request
from discovery.ard.catalog import Camel, Entry, Host, Manifest, entries_of_all, find_entry, registry_entry
from discovery.ard.query import Identifier, ListRequest, SearchRequest, filtered, listed, page_of
from discovery.contract import AgentRecord
from discovery.registry.search import Hit, asked
from discovery.settings import PRIVATE_DOMAIN

MANIFEST_PATH = "/.well-known/ard.json"
PREDECESSOR_PATH = "/.well-known/ai-catalog.json"
PREDECESSOR_TYPE = "application/ai-catalog+json"
HINT = "/docs describes the fields, which are those of ARD v0.91."
ERROR_CODES = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 404: "NOT_FOUND", 500: "INTERNAL_ERROR"}


class _ArdRoute(Scoped):
    """Adds the members of an ARD error, `errorCode` and `message`, to problems; invalid bodies are a 400."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_errors(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                problem = invalid_request(request, error, status=400, code="invalid_argument", hint=HINT)
            except REFUSALS as error:
                problem = answer_to(request, error)
            body = json.loads(bytes(problem.body))
            error_code = ERROR_CODES.get(problem.status_code) or str(body["code"]).upper()
            content = json.dumps(body | {"errorCode": error_code, "message": body["detail"]})
            headers = {name: value for name, value in problem.headers.items() if not name.startswith("content-")}
            return Response(content, problem.status_code, headers, MEDIA_TYPE)

        return handle_errors


router = APIRouter(route_class=_ArdRoute, tags=["ard"])


class Result(Entry):
    """An entry that matches a search."""

    score: int = Field(ge=0, le=100, description="The relevance within this response; not a measure of trust")
    source: str = Field(description="The registry that returned it")


class SearchResponse(Camel):
    """The results of a search, the best match first."""

    results: list[Result]
    page_token: str | None = None


class ListResponse(Camel):
    """A page of the list."""

    items: list[Entry]
    total: int
    page_token: str | None = None


# Thousands of agents take many milliseconds: entries are built in a thread, so that the event loop is not blocked.


@router.post(
    "/ard/search",
    summary="Find agents by what is needed",
    openapi_extra=needs("read"),
    response_model_exclude_none=True,
    responses=problems(_400="A field is invalid or unknown", _503="The table is not loaded"),
    dependencies=[Depends(only())],
)
async def search(request: Request, body: SearchRequest, table: Table, settings: Config) -> SearchResponse:
    """Search names, descriptions, tags, tools and skills."""
    hits = await table.search(asked(body.query.text), limit=max(len(table.records), 1))
    return await asyncio.to_thread(_search, hits, body, settings.domain, str(request.base_url))


def _search(hits: Sequence[Hit], request: SearchRequest, domain: str, base: str) -> SearchResponse:
    best = max((hit.score for hit in hits), default=0) or 1
    results = [
        Result(**dict(entry), score=max(1, round(100 * hit.score / best)), source=f"{base}ard/")
        for hit in hits
        for entry in entries_of_all([hit.agent], domain, base)
    ]
    page, token = page_of(filtered(results, request.query.filter), request.page_size, request.page_token)
    return SearchResponse(results=page, page_token=token)


@router.get(
    "/ard/agents",
    summary="List all entries",
    openapi_extra=needs("read"),
    response_model_exclude_none=True,
    responses=problems(_400="An invalid filter, order, size or token", _503="The table is not loaded"),
    dependencies=[Depends(only("filter", "orderBy", "pageSize", "pageToken"))],
)
async def list_entries(
    request: Request, query: Annotated[ListRequest, Query()], table: Table, settings: Config
) -> ListResponse:
    """All entries, page by page."""
    return await asyncio.to_thread(_list, table.listing().agents, query, settings.domain, str(request.base_url))


def _list(agents: Iterable[AgentRecord], request: ListRequest, domain: str, base: str) -> ListResponse:
    entries = listed(entries_of_all(agents, domain, base), request)
    page, token = page_of(entries, request.page_size, request.page_token)
    return ListResponse(items=page, total=len(entries), page_token=token)


@router.get(
    "/ard/agents/{identifier}",
    summary="Retrieve one entry",
    openapi_extra=needs("read"),
    response_class=Response,
    responses={
        200: {"model": Entry, "description": "The entry with exactly this identifier"},
        304: {"description": "Not changed since the `ETag` of `If-None-Match`"},
        **problems(_400="Not an identifier", _404="No such entry", _503="The table is not loaded"),
    },
    dependencies=[Depends(only())],
)
async def retrieve(request: Request, identifier: Identifier, table: Table, settings: Config) -> Response:
    """The complete entry of an agent that is not down, or of the registry itself."""
    agents, base = table.listing().agents, str(request.base_url)
    entry = await asyncio.to_thread(find_entry, agents, identifier, settings.domain, base)
    if entry is None:
        hint = "Agents that are down have no entry."
        headers = {"cache-control": "no-cache"}
        raise Refusal(404, "not_found", f"The registry has no entry {identifier}.", hint, headers=headers)
    body = entry.model_dump_json(by_alias=True, exclude_none=True)
    etag = f'"{blake2b(body.encode(), digest_size=12).hexdigest()}"'
    headers = {"etag": etag, "cache-control": "private, no-cache"}
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")


@router.get(
    MANIFEST_PATH,
    summary="The ARD manifest",
    openapi_extra=needs("read"),
    response_class=Response,
    responses={
        200: {"model": Manifest, "description": "The entries of the registry and of all agents that are not down"},
        **problems(_503="The table is not loaded"),
    },
    dependencies=[Depends(only())],
)
@router.get(PREDECESSOR_PATH, openapi_extra=needs("read"), include_in_schema=False, dependencies=[Depends(only())])
async def manifest(request: Request, table: Table, settings: Config) -> Response:
    """All entries at once. The entry of type `application/ai-registry+json` has the URL of the search."""
    body = await asyncio.to_thread(_manifest, table.listing().agents, settings.domain, str(request.base_url))
    is_predecessor = request.url.path.endswith(PREDECESSOR_PATH)
    return Response(body, media_type=PREDECESSOR_TYPE if is_predecessor else "application/json")


def _manifest(agents: Iterable[AgentRecord], domain: str, base: str) -> str:
    identifier = None if domain == PRIVATE_DOMAIN else domain
    host = Host(display_name="myagent discovery", identifier=identifier, documentation_url=f"{base}docs")
    entries = [registry_entry(domain, base), *entries_of_all(agents, domain, base)]
    return Manifest(host=host, entries=entries).model_dump_json(by_alias=True, exclude_none=True)
