"""The requests of the ARD API, and the entries that match them."""

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationInfo, field_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from discovery.ard.catalog import Entry
from discovery.contract import parsed_by

MAX_PAGE_SIZE = 100
NAMESPACE = "https://agenticresourcediscovery.org/ns#"
_IDENTIFIER = re.compile(r"urn:air:[a-zA-Z0-9.-]+(:[a-zA-Z0-9._-]+)+")
_CLAUSE = re.compile(r"""\s*(\w+)\s*([=>])\s*(?:'([^']*)'|"([^"]*)"|([^\s'"]+))\s*(?:(AND)\b|$)""", re.IGNORECASE)
_TERMS = {
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

AnyEntry = TypeVar("AnyEntry", bound=Entry)


def _not_blank(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("blank", "must not be blank")
    return text


def _check_identifier(text: str) -> None:
    if not _IDENTIFIER.fullmatch(text):
        raise PydanticCustomError("identifier", "must have the form urn:air:DOMAIN:KIND:NAME")


Identifier = Annotated[str, Field(max_length=1024), parsed_by(_check_identifier)]
PageToken = Annotated[str, Field(max_length=1024), parsed_by(lambda text: _parse_token(text))]
Values = Annotated[list[str], Field(max_length=64)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, hide_input_in_errors=True)


class Query(_Request):
    """The words and the filter of a search."""

    context: JsonValue = Field(None, alias="@context", description="Binds the prefixes of terms in `filter`")
    text: Annotated[
        str, Field(max_length=2000, description="What is needed, in plain words"), AfterValidator(_not_blank)
    ]
    filter: Annotated[dict[str, Values | str], Field(max_length=32)] = Field(
        {},
        description="Values by term, such as type, tags, capabilities, publisher or metadata.status. An entry matches "
        "if it has one of the values of every term",
    )

    @field_validator("filter")
    @classmethod
    def _resolve_terms(cls, filter: dict[str, Values | str], info: ValidationInfo) -> dict[str, Values | str]:
        resolved = {_resolve_term(path, info.data.get("context")): values for path, values in filter.items()}
        unknown = [path for path in resolved if path.partition(".")[0] not in _TERMS]
        if unknown:
            raise PydanticCustomError(
                "filter",
                "unknown term {path}; known terms are {known}",
                {"path": repr(unknown[0][:64]), "known": ", ".join(sorted(_TERMS))},
            )
        return resolved


def _resolve_term(path: str, context: JsonValue) -> str:
    """Resolve an IRI or a prefixed term of the ARD namespace; other terms stay as they are."""
    if path.startswith(NAMESPACE):
        return path.removeprefix(NAMESPACE)
    prefix, colon, term = path.partition(":")
    contexts = context if isinstance(context, list) else [context]
    is_ard = any(isinstance(one, dict) and one.get(prefix) == NAMESPACE for one in contexts)
    return term if colon and is_ard else path


class SearchRequest(_Request):
    """The body of `POST /ard/search`. No other registries are known, so `federation` has no effect."""

    query: Query
    federation: Literal["auto", "referrals", "none"] = "auto"
    page_size: int = Field(10, ge=1, le=MAX_PAGE_SIZE)
    page_token: PageToken | None = None


class ListRequest(_Request):
    """The query of `GET /ard/agents`."""

    filter: Annotated[str, Field(max_length=2000), parsed_by(lambda text: _parse_filter(text))] | None = Field(
        None,
        description="Such as type = 'application/a2a-agent-card+json' AND createdAfter > '2026-01-01'; also "
        "displayName, a part of it in any case, and publisherId. Values separated by commas are alternatives",
    )
    order_by: Annotated[str, Field(max_length=64), parsed_by(lambda text: _parse_order(text))] = Field(
        "displayName", description="displayName, identifier, type, version or createdAt, optionally with DESC"
    )
    page_size: int = Field(20, ge=1, le=MAX_PAGE_SIZE)
    page_token: PageToken | None = None


def filtered(entries: Iterable[AnyEntry], filter: dict[str, list[str] | str]) -> list[AnyEntry]:
    """The entries that have one of the values of every term."""
    terms = [(path.split("."), {values} if isinstance(values, str) else set(values)) for path, values in filter.items()]
    matches: list[AnyEntry] = []
    for entry in entries:
        members = {**entry.model_dump(mode="json", by_alias=True, exclude_none=True), "publisher": entry.publisher}
        if all(values & set(_values_at(members, path)) for path, values in terms):
            matches.append(entry)
    return matches


def listed(entries: Iterable[Entry], request: ListRequest) -> list[Entry]:
    """The entries that match a list request, in its order; equal entries are ordered by identifier."""
    clauses = _parse_filter(request.filter or "")
    matches = [entry for entry in entries if all(clause.matches(entry) for clause in clauses)]
    field, descending = _parse_order(request.order_by)

    def sort_key(entry: Entry) -> tuple[str, str]:
        if field == "createdAt":
            return entry.created_at.isoformat() if entry.created_at else "", entry.identifier
        members = entry.model_dump(by_alias=True, include={"display_name", "type", "version"})
        return str(members.get(field) or "").casefold(), entry.identifier

    return sorted(matches, key=sort_key, reverse=descending)


def page_of(entries: Sequence[AnyEntry], size: int, token: str | None) -> tuple[list[AnyEntry], str | None]:
    """One page, and the token of the next, None on the last page.

    A page starts after the last entry of the previous page, or at its old position where that entry is gone.
    """
    start = 0
    if token is not None:
        position, identifier = _parse_token(token)
        positions = [number for number, entry in enumerate(entries, start=1) if entry.identifier == identifier]
        start = positions[0] if positions else max(position - 1, 0)
    page = list(entries[start : start + size])
    if start + size >= len(entries):
        return page, None
    cursor = f"{start + size} {page[-1].identifier}"
    return page, urlsafe_b64encode(cursor.encode()).decode().rstrip("=")


def _values_at(value: Any, path: Sequence[str]) -> Iterator[str]:
    """The values at a path as strings, of every item where there is a list."""
    if isinstance(value, list):
        for item in cast("list[Any]", value):
            yield from _values_at(item, path)
    elif path:
        if isinstance(value, dict) and path[0] in value:
            yield from _values_at(cast("dict[str, Any]", value)[path[0]], path[1:])
    else:
        yield value if isinstance(value, str) else json.dumps(value)


def _parse_token(token: str) -> tuple[int, str]:
    try:
        cursor = urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4)).decode()
        position, _, identifier = cursor.partition(" ")
        return int(position), identifier
    except ValueError:
        raise PydanticCustomError("token", "must be the pageToken of a previous response") from None


def _parse_order(text: str) -> tuple[str, bool]:
    name, _, direction = text.strip().partition(" ")
    field = _ORDERS.get(name.lower())
    if field is None or direction.strip().upper() not in {"", "ASC", "DESC"}:
        raise PydanticCustomError(
            "order", "must be displayName, identifier, type, version or createdAt, optionally with ASC or DESC"
        )
    return field, direction.strip().upper() == "DESC"


@dataclass(frozen=True, slots=True)
class _Clause:
    field: str
    values: tuple[str, ...]
    timestamp: datetime | None

    def matches(self, entry: Entry) -> bool:
        match self.field:
            case "displayname":
                return any(value.casefold() in entry.display_name.casefold() for value in self.values)
            case "type":
                return entry.type in self.values
            case "publisherid":
                return entry.publisher in self.values
            case _:
                created = entry.created_at
                return self.timestamp is not None and created is not None and created > self.timestamp


def _parse_filter(text: str) -> list[_Clause]:
    """Parse `field = 'value, alternative' AND field > 'timestamp'` (ARD, appendix A)."""
    clauses: list[_Clause] = []
    start, has_more = 0, bool(text.strip())
    while has_more:
        clause = _CLAUSE.match(text, start)
        if clause is None:
            raise PydanticCustomError(
                "expression", "must have the form type = 'application/a2a-agent-card+json' AND displayName = 'orders'"
            )
        field, operator, *alternatives, conjunction = clause.groups()
        value = next(one for one in alternatives if one is not None)
        if field.lower() not in {"displayname", "type", "publisherid", "createdafter"}:
            raise PydanticCustomError(
                "expression",
                "unknown field {field}; known fields are displayName, type, publisherId and createdAfter",
                {"field": repr(field[:64])},
            )
        if operator == ">" and field.lower() != "createdafter":
            raise PydanticCustomError("expression", "> is allowed with createdAfter only")
        values = tuple(part.strip() for part in value.split(",") if part.strip())
        clauses.append(_Clause(field.lower(), values, _timestamp(value) if field.lower() == "createdafter" else None))
        start, has_more = clause.end(), conjunction is not None
    return clauses


def _timestamp(text: str) -> datetime:
    try:
        timestamp = datetime.fromisoformat(text.strip())
    except ValueError:
        raise PydanticCustomError("timestamp", "createdAfter must be a timestamp like 2026-01-31T12:00:00Z") from None
    return timestamp.replace(tzinfo=UTC) if timestamp.tzinfo is None else timestamp
