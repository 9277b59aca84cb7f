"""The ARD face (Agentic Resource Discovery, draft 0.9): what `GET /agents` shows, in the shapes of the draft.

It stands under /ard because its `GET /agents` answers something else than ours.
"""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import Field

from discovery.auth import Scoped, needs
from discovery.catalog import Camel, Catalog, Entry, Host, entries_of_all, registry_entry
from discovery.catalog_query import BrowseQuery, SearchRequest, browsed, matching, page_of
from discovery.deps import Config, Table, only, problems
from discovery.problems import invalid_request
from discovery.search import asked
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
    base = str(request.base_url)
    hits = await table.search(asked(wanted.query.text), limit=max(len(table.records), 1))
    best = max((hit.score for hit in hits), default=0) or 1
    found = [
        Result(**dict(entry), score=max(1, round(100 * hit.score / best)), source=f"{base}ard/")
        for hit in hits
        for entry in entries_of_all([hit.agent], settings.domain, base)
    ]
    page, following = page_of(matching(found, wanted.query.filter), wanted.page_size, wanted.page_token)
    return Results(results=page, page_token=following)


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
    entries = browsed(entries_of_all(table.listing().agents, settings.domain, str(request.base_url)), query)
    page, following = page_of(entries, query.page_size, query.page_token)
    return Browsed(items=page, total=len(entries), page_token=following)


@router.get(
    "/.well-known/ai-catalog.json",
    summary="The AI catalog",
    openapi_extra=needs("read"),
    response_class=Response,
    responses={
        200: {"model": Catalog, "description": "The registry's own search, and every artifact that can be called"},
        **problems(_503="The table is not loaded"),
    },
    dependencies=[Depends(only())],
)
async def catalog(request: Request, table: Table, settings: Config) -> Response:
    """All of it at once; `application/ai-registry+json` leads to the search."""
    base = str(request.base_url)
    host = Host(
        display_name="myagent discovery",
        identifier=None if settings.domain == PRIVATE_DOMAIN else settings.domain,
        documentation_url=f"{base}docs",
    )
    entries = entries_of_all(table.listing().agents, settings.domain, base)
    found = Catalog(host=host, entries=[registry_entry(settings.domain, base), *entries])
    return Response(found.model_dump_json(by_alias=True, exclude_none=True), media_type=CATALOG_TYPE)
