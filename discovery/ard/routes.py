"""The ARD face (Agentic Resource Discovery, draft 0.9): what `GET /agents` shows, in the shapes of the draft.

It stands under /ard because its `GET /agents` answers something else than ours.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import Field

from discovery.api.auth import Config, Scoped, Table, needs, only
from discovery.api.openapi import problems
from discovery.api.problems import invalid_request
from discovery.ard.catalog import Camel, Catalog, Entry, Host, entries_of_all, registry_entry
from discovery.ard.query import BrowseQuery, SearchRequest, browsed, matching, page_of
from discovery.contract.models import AgentRecord
from discovery.registry.search import Hit, asked
from discovery.settings import PRIVATE_DOMAIN

CATALOG_TYPE = "application/ai-catalog+json"
HINT = "/docs describes the fields; they are those of the ARD draft."


class _ArdRoute(Scoped):
    """What is wrong with a body is a 400 here: so the draft has it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                return invalid_request(request, error, status=400, code="invalid_argument", hint=HINT)

        return answered


router = APIRouter(route_class=_ArdRoute, tags=["ard"])


class CatalogResponse(JSONResponse):
    """The catalog, encoded already, in its own media type: the API description names what stands here."""

    media_type = CATALOG_TYPE

    def render(self, content: str) -> bytes:
        return content.encode()


class Result(Entry):
    """An entry that a search found."""

    score: int = Field(ge=0, le=100, description="How well it fits, beside the best of this answer; no word on trust")
    source: str = Field(description="The registry that says so")


class Results(Camel):
    """What a search answers, the best first."""

    results: list[Result]
    page_token: str | None = None


class Browsed(Camel):
    """A page of the list."""

    items: list[Entry]
    total: int
    page_token: str | None = None


@router.post(
    "/ard/search",
    summary="Find agents by what is needed",
    openapi_extra=needs("read"),
    response_model_exclude_none=True,
    responses=problems(_400="A field is wrong, or not one of the draft", _503="The table is not loaded"),
    dependencies=[Depends(only())],
)
async def search(request: Request, wanted: SearchRequest, table: Table, settings: Config) -> Results:
    """The words that say what is needed are looked for in names, descriptions, tags, tools and skills."""
    hits = await table.search(asked(wanted.query.text), limit=max(len(table.records), 1))
    return await asyncio.to_thread(_results, hits, wanted, settings.domain, str(request.base_url))


@router.get(
    "/ard/agents",
    summary="Browse the catalog",
    openapi_extra=needs("read"),
    response_model_exclude_none=True,
    responses=problems(_400="A wrong filter, order, size or token", _503="The table is not loaded"),
    dependencies=[Depends(only("filter", "orderBy", "pageSize", "pageToken"))],
)
async def browse(request: Request, query: Annotated[BrowseQuery, Query()], table: Table, settings: Config) -> Browsed:
    """Every artifact that can be called, page by page."""
    return await asyncio.to_thread(_browsed, table.listing().agents, query, settings.domain, str(request.base_url))


@router.get(
    "/.well-known/ai-catalog.json",
    summary="The AI catalog",
    openapi_extra=needs("read"),
    response_class=CatalogResponse,
    responses={
        200: {"model": Catalog, "description": "The registry's own search, and every artifact that can be called"},
        **problems(_503="The table is not loaded"),
    },
    dependencies=[Depends(only())],
)
async def catalog(request: Request, table: Table, settings: Config) -> Response:
    """All of it at once; `application/ai-registry+json` leads to the search."""
    body = await asyncio.to_thread(_catalog, table.listing().agents, settings.domain, str(request.base_url))
    return CatalogResponse(body)


# Thousands of agents are many milliseconds: these run in a thread, and others are answered meanwhile.


def _results(hits: Sequence[Hit], wanted: SearchRequest, domain: str, base: str) -> Results:
    best = max((hit.score for hit in hits), default=0) or 1
    found = [
        Result(**dict(entry), score=max(1, round(100 * hit.score / best)), source=f"{base}ard/")
        for hit in hits
        for entry in entries_of_all([hit.agent], domain, base)
    ]
    page, following = page_of(matching(found, wanted.query.filter), wanted.page_size, wanted.page_token)
    return Results(results=page, page_token=following)


def _browsed(agents: Iterable[AgentRecord], query: BrowseQuery, domain: str, base: str) -> Browsed:
    entries = browsed(entries_of_all(agents, domain, base), query)
    page, following = page_of(entries, query.page_size, query.page_token)
    return Browsed(items=page, total=len(entries), page_token=following)


def _catalog(agents: Iterable[AgentRecord], domain: str, base: str) -> str:
    own = None if domain == PRIVATE_DOMAIN else domain
    host = Host(display_name="myagent discovery", identifier=own, documentation_url=f"{base}docs")
    entries = [registry_entry(domain, base), *entries_of_all(agents, domain, base)]
    return Catalog(host=host, entries=entries).model_dump_json(by_alias=True, exclude_none=True)
