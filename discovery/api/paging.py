"""The query of `GET /agents`, and the part of the list that answers it. Pure."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal
from urllib.parse import urlencode

from pydantic import AfterValidator, BaseModel, Field
from pydantic_core import PydanticCustomError

from discovery.contract import Filters, parsed_by
from discovery.registry.listing import Entry, Prepared, as_list, chosen_tag
from discovery.registry.search import Hit

LARGEST_PAGE = 1000
_CURSOR = "after:"


def _words(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("blank", "must not be blank: leave it out to mean everything")
    return text


Value = Annotated[str, Field(max_length=256), AfterValidator(_words)]
Values = Annotated[list[Value], Field(max_length=64)]
# All that the list can show; a status that is misspelt must not mean "none".
Shown = Literal["up", "degraded", "draining", "registered", "stale", "down"]


class ListQuery(BaseModel):
    """What `GET /agents` may be asked. Repeat a parameter to give alternatives; different parameters must all hold."""

    status: list[Shown] = Field([], max_length=64, description="Of the agent's best instance")
    type: Values = Field([], description="`agent_type`, exactly")
    tool: Values = Field([], description="Has a tool of exactly this name")
    tag: Values = Field([], description="Has exactly this tag")
    owner: Values = Field([], description="The owner, exactly")
    q: Values = Field(
        [],
        description="Words, in any case: each, or one that begins like it, stands in the name, description, owner, "
        "tags, tools or skills. `matched` says where",
    )
    limit: int | None = Field(
        None, ge=1, le=LARGEST_PAGE, description='At most so many; `Link: <…>; rel="next"` leads to the rest'
    )
    cursor: Annotated[str, parsed_by(lambda text: _name_in(text))] | None = Field(
        None, max_length=1024, description="Where a page goes on: taken from a `Link`, never made up"
    )

    @property
    def filters(self) -> Filters:
        """The part of the query that compares exactly; `q` is a search of its own."""
        chosen = self.model_dump(exclude={"q", "limit", "cursor"})
        return Filters(**{name: tuple(values) for name, values in chosen.items()})


@dataclass(frozen=True, slots=True)
class Page:
    """An answer to a query, ready to send; `following` is the query of the next page, None on the last one."""

    body: bytes
    etag: str
    following: str | None = None


def page_of(listing: Prepared, query: ListQuery, hits: Iterable[Hit] = ()) -> Page:
    """What a query chooses; `hits` are what its words found.

    A page goes on after a name, not a number: agents that come or go meanwhile shift nothing.
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
    return Page(as_list(chosen), chosen_tag(chosen, following or ""), following)


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
