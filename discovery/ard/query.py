"""What the ARD routes may be asked, and the part of the catalog that answers it. Pure."""

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from discovery.ard.catalog import Entry
from discovery.contract.fields import readable_by

LARGEST_PAGE = 100
_CLAUSE = re.compile(r"""\s*(\w+)\s*([=>])\s*(?:'([^']*)'|"([^"]*)"|([^\s'"]+))\s*(?:(AND)\b|$)""", re.IGNORECASE)
_FILTERABLE = {
    "publisher",
    *(to_camel(name) for name, field in Entry.model_fields.items() if not field.exclude and name != "data"),
}
_ORDERS = {
    "displayname": "displayName",
    "name": "displayName",
    "identifier": "identifier",
    "type": "type",
    "version": "version",
    "createdat": "createdAt",
    "created_at": "createdAt",
}

Shown = TypeVar("Shown", bound=Entry)


def _text(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("blank", "must say what is looked for")
    return text


def _paths(chosen: dict[str, Any]) -> dict[str, Any]:
    unknown = [path for path in chosen if path.partition(".")[0] not in _FILTERABLE]
    if unknown:
        known = ", ".join(sorted(_FILTERABLE))
        raise PydanticCustomError(
            "filter", "does not know {path}; known are {known}", {"path": repr(unknown[0][:64]), "known": known}
        )
    return chosen


PageToken = Annotated[str, Field(max_length=1024), readable_by(lambda text: _place(text))]
Values = Annotated[list[str], Field(max_length=64)]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, hide_input_in_errors=True)


class Query(_Asked):
    """What is needed, in words, and what an entry must have besides."""

    text: Annotated[str, Field(max_length=2000, description="What is needed, in plain words"), AfterValidator(_text)]
    filter: Annotated[dict[str, Values | str], Field(max_length=32), AfterValidator(_paths)] = Field(
        {},
        description="Values by field, such as type, tags, capabilities, publisher or metadata.status: one of a field's "
        "values, and all fields",
    )


class SearchRequest(_Asked):
    """The body of `POST /ard/search`. There are no other registries to ask, so `federation` changes nothing."""

    query: Query
    federation: Literal["auto", "referrals", "none"] = "auto"
    page_size: int = Field(10, ge=1, le=LARGEST_PAGE)
    page_token: PageToken | None = None


class BrowseQuery(_Asked):
    """The query of `GET /ard/agents`."""

    filter: Annotated[str, Field(max_length=2000), readable_by(lambda text: _clauses(text))] | None = Field(
        None,
        description="Like type = 'application/a2a-agent-card+json' AND createdAfter > '2026-01-01'; also displayName, "
        "a part of it in any case, and publisherId. Values with commas between are alternatives",
    )
    order_by: Annotated[str, Field(max_length=64), readable_by(lambda text: _order(text))] = Field(
        "displayName", description="displayName, identifier, type, version or createdAt; with DESC the other way round"
    )
    page_size: int = Field(20, ge=1, le=LARGEST_PAGE)
    page_token: PageToken | None = None


def matching(entries: Iterable[Shown], chosen: dict[str, list[str] | str]) -> list[Shown]:
    """The entries that have one of the values of every field."""
    wanted = [
        (path.split("."), {values} if isinstance(values, str) else set(values)) for path, values in chosen.items()
    ]
    found: list[Shown] = []
    for entry in entries:
        said = {**entry.model_dump(mode="json", by_alias=True, exclude_none=True), "publisher": entry.publisher}
        if all(values & set(_at(said, path)) for path, values in wanted):
            found.append(entry)
    return found


def browsed(entries: Iterable[Entry], query: BrowseQuery) -> list[Entry]:
    """The entries that a list is asked for, in its order; equals stand by identifier."""
    clauses = _clauses(query.filter or "")
    chosen = [entry for entry in entries if all(clause.holds(entry) for clause in clauses)]
    key, descending = _order(query.order_by)

    def place(entry: Entry) -> tuple[str, str]:
        said = entry.created_at.isoformat() if key == "createdAt" and entry.created_at else ""
        shown = entry.model_dump(by_alias=True, include={"display_name", "type", "version"})
        return said or str(shown.get(key) or "").casefold(), entry.identifier

    return sorted(chosen, key=place, reverse=descending)


def page_of(entries: Sequence[Shown], size: int, token: str | None) -> tuple[list[Shown], str | None]:
    """One page, and the token of the next, None on the last.

    A page goes on after an entry, wherever that stands by now; after its old place where it is gone.
    """
    start = 0
    if token is not None:
        position, identifier = _place(token)
        places = [number for number, entry in enumerate(entries, start=1) if entry.identifier == identifier]
        start = places[0] if places else max(position - 1, 0)
    page = list(entries[start : start + size])
    if start + size >= len(entries):
        return page, None
    place = f"{start + size} {page[-1].identifier}"
    return page, urlsafe_b64encode(place.encode()).decode().rstrip("=")


def _at(value: Any, path: Sequence[str]) -> Iterator[str]:
    """The values at a path, as texts; a list stands for each of its items."""
    if isinstance(value, list):
        for item in cast("list[Any]", value):
            yield from _at(item, path)
    elif path:
        if isinstance(value, dict) and path[0] in value:
            yield from _at(cast("dict[str, Any]", value)[path[0]], path[1:])
    else:
        yield value if isinstance(value, str) else json.dumps(value)


def _place(token: str) -> tuple[int, str]:
    try:
        position, _, identifier = (
            urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4)).decode().partition(" ")
        )
        return int(position), identifier
    except ValueError:
        raise PydanticCustomError("token", "is not a token of this registry: take it from the page before") from None


def _order(text: str) -> tuple[str, bool]:
    name, _, direction = text.strip().partition(" ")
    key = _ORDERS.get(name.lower())
    if key is None or direction.strip().upper() not in {"", "ASC", "DESC"}:
        raise PydanticCustomError(
            "order", "must be displayName, identifier, type, version or createdAt, with ASC or DESC after it or nothing"
        )
    return key, direction.strip().upper() == "DESC"


@dataclass(frozen=True, slots=True)
class _Clause:
    field: str
    values: tuple[str, ...]
    moment: datetime | None

    def holds(self, entry: Entry) -> bool:
        match self.field:
            case "displayname":
                return any(value.casefold() in entry.display_name.casefold() for value in self.values)
            case "type":
                return entry.type in self.values
            case "publisherid":
                return entry.publisher in self.values
            case _:
                return self.moment is not None and entry.created_at is not None and entry.created_at > self.moment


def _clauses(text: str) -> list[_Clause]:
    """Read `field = 'value, or another' AND field > 'moment'`."""
    found: list[_Clause] = []
    start, more = 0, bool(text.strip())
    while more:
        clause = _CLAUSE.match(text, start)
        if clause is None:
            raise PydanticCustomError(
                "expression", "must read like type = 'application/a2a-agent-card+json' AND displayName = 'orders'"
            )
        field, operator, *quoted, more_of_it = clause.groups()
        value = next(one for one in quoted if one is not None)
        if field.lower() not in {"displayname", "type", "publisherid", "createdafter"}:
            raise PydanticCustomError(
                "expression",
                "does not know {field}; known are displayName, type, publisherId and createdAfter",
                {"field": repr(field[:64])},
            )
        if operator == ">" and field.lower() != "createdafter":
            raise PydanticCustomError("expression", "takes > with createdAfter only")
        values = tuple(part.strip() for part in value.split(",") if part.strip())
        found.append(_Clause(field.lower(), values, _moment(value) if field.lower() == "createdafter" else None))
        start, more = clause.end(), more_of_it is not None
    return found


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise PydanticCustomError("moment", "must hold a moment like 2026-01-31T12:00:00Z after createdAfter") from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
