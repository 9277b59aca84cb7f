"""The query of `GET /agents`, and the page of the list that answers it. Pure."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal
from urllib.parse import urlencode

from pydantic import AfterValidator, BaseModel, Field
from pydantic_core import PydanticCustomError
from starlette.datastructures import QueryParams

from discovery.contract import Filters, parsed_by
from discovery.registry import Entry, Hit, Prepared, as_list, selection_tag

MAX_PAGE = 1000
_CURSOR = "after:"


def _words(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("blank", "must not be blank: leave it out to mean everything")
    return text


Value = Annotated[str, Field(max_length=256), AfterValidator(_words)]
Values = Annotated[list[Value], Field(max_length=64)]
# Every status in the list; a misspelt one must not mean "none".
Shown = Literal["up", "degraded", "draining", "registered", "stale", "down"]


class ListQuery(BaseModel):
    """The parameters of `GET /agents`. Repeat one to give alternatives; different ones must all match."""

    status: list[Shown] = Field([], max_length=64, description="Of the agent's best instance")
    type: Values = Field([], description="`agent_type`, exactly")
    tool: Values = Field([], description="Has a tool of exactly this name")
    tag: Values = Field([], description="Has exactly this tag")
    owner: Values = Field([], description="The owner, exactly")
    q: Values = Field(
        [],
        description="Words, in any case: each must occur in the name, description, owner, tags, tools or skills, "
        "alone or as the beginning of a word. `matched` says where",
    )
    limit: int | None = Field(
        None, ge=1, le=MAX_PAGE, description='At most so many; `Link: <…>; rel="next"` leads to the rest'
    )
    cursor: Annotated[str, parsed_by(lambda text: _name_in(text))] | None = Field(
        None, max_length=1024, description="Where a page goes on: taken from a `Link`, never made up"
    )

    @classmethod
    def read(cls, parameters: QueryParams) -> "ListQuery":
        """Read the parameters of a request."""
        single = {"limit", "cursor"}
        return cls.model_validate(
            {key: parameters[key] if key in single else parameters.getlist(key) for key in parameters}
        )

    @property
    def filters(self) -> Filters:
        """The exact filters; `q` is a search."""
        chosen = self.model_dump(exclude={"q", "limit", "cursor"})
        return Filters(**{name: tuple(values) for name, values in chosen.items()})


@dataclass(frozen=True, slots=True)
class Page:
    """An answer to a query, ready to send; `following` is the query of the next page, None on the last."""

    body: bytes
    etag: str
    following: str | None = None


def page_of(listing: Prepared, query: ListQuery, hits: Iterable[Hit] = ()) -> Page:
    """The answer to a query; `hits` are the results of its search.

    A page continues after a name, not after a number: agents that are added or removed meanwhile do not shift it.
    """
    filters = query.filters
    if not filters and not query.q and query.limit is None and query.cursor is None:
        return Page(listing.body, listing.etag)
    entries = sorted((Entry.of(hit.agent) for hit in hits), key=_name_of) if query.q else listing.entries
    if query.cursor is not None:
        entries = entries[bisect_right(entries, _name_in(query.cursor), key=_name_of) :]
    chosen = [entry for entry in entries if filters.matches(entry.agent)] if filters else entries
    following = None
    if query.limit is not None and len(chosen) > query.limit:
        chosen = chosen[: query.limit]
        cursor = urlsafe_b64encode((_CURSOR + _name_of(chosen[-1])).encode()).decode().rstrip("=")
        words = [("q", text) for text in query.q]
        following = urlencode([*filters.parameters, *words, ("limit", query.limit), ("cursor", cursor)])
    return Page(as_list(chosen), selection_tag(chosen, f"{listing.lineage} {following}"), following)


def _name_of(entry: Entry) -> str:
    return entry.agent.name


def _name_in(cursor: str) -> str:
    try:
        text = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4)).decode()
    except ValueError:
        text = ""
    if not text.startswith(_CURSOR):
        raise PydanticCustomError("cursor", "is not a cursor of this registry: take it from the Link of a page")
    return text.removeprefix(_CURSOR)
