"""What a single value on the wire may look like: a name, an address, a moment. Knows of no message."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, Discriminator, Field, PlainSerializer
from pydantic_core import PydanticCustomError

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def empty(kind: type[list[Any] | dict[str, Any]] = list, *, max_length: int | None = None) -> Any:
    """A field that is empty where it was left out. Made each time: a default is copied, which takes much longer."""
    return Field(default_factory=kind, max_length=max_length, json_schema_extra={"default": kind()})


def _printable(text: str) -> str:
    if not text.isprintable() and _CONTROL.search(text):  # the quick look is enough for most
        raise PydanticCustomError("control_character", "must not hold control characters")
    return text


def _without_nul(text: str) -> str:
    if "\0" in text:  # no database keeps it
        raise PydanticCustomError("control_character", "must not hold a NUL character")
    return text


def _path_segment(text: str) -> str:
    if "/" in text or text in {".", ".."}:
        raise PydanticCustomError("name", "must not hold '/' nor be '.' or '..': it becomes part of an address")
    return text


@lru_cache(maxsize=4096)  # a fleet says the same addresses again and again
def _web_address(text: str) -> str:
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        signed = parts.username is not None or parts.password is not None
    except ValueError:
        usable, signed = False, False
    if not usable or text.split() != [text]:
        raise PydanticCustomError("web_address", "must be an absolute http or https URL, like http://host:8000")
    if signed:
        raise PydanticCustomError("web_address", "must not hold a user name or password: everyone may read the list")
    return text


def provider_and_name(value: Any) -> Any:
    """Read `openai/gpt-4o-mini` as a provider and a name."""
    if not isinstance(value, str):
        return value
    provider, slash, name = value.partition("/")
    return {"provider": provider, "name": name} if slash else {"name": value}


def readable_by(read: Callable[[str], object]) -> AfterValidator:
    """A text that is kept as it is, if this can read it; what it raises says what is wrong."""

    def read_it(text: str) -> str:
        read(text)
        return text

    return AfterValidator(read_it)


def _name_or_object(item: Any) -> str | None:
    if isinstance(item, str):
        return "name"
    return "object" if isinstance(item, (dict, BaseModel)) else None


def _in_utc(moment: datetime) -> datetime:
    """Aware, always; a registry that leaves the zone out means UTC."""
    if moment.tzinfo is UTC:
        return moment
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def to_milliseconds(moment: datetime) -> str:
    """A moment in UTC as it is sent."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


Line = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_printable)]
Identity = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_printable)]
Name = Annotated[Identity, AfterValidator(_path_segment)]
WebAddress = Annotated[
    str, Field(min_length=1, max_length=2048), AfterValidator(_printable), AfterValidator(_web_address)
]
Prose = Annotated[str, Field(max_length=8192), AfterValidator(_without_nul)]
Moment = Annotated[
    datetime, AfterValidator(_in_utc), PlainSerializer(to_milliseconds, return_type=str, when_used="json")
]
NAME_OR_OBJECT = Discriminator(
    _name_or_object,
    custom_error_type="name_or_object",
    custom_error_message="must be a name or an object with a name",
)
