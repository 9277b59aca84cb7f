"""The types of single values on the wire: names, URLs, timestamps."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import ip_address
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, Discriminator, Field, PlainSerializer
from pydantic_core import PydanticCustomError

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def utc_now() -> datetime:
    """The current time in UTC."""
    return datetime.now(UTC)


@lru_cache(maxsize=256)  # called for every request, with few different hosts
def is_loopback(address: str) -> bool:
    """Whether a URL or host is a loopback address. Names are not resolved: only `localhost` is one."""
    try:
        host = (urlsplit(address).hostname or "") if "://" in address else address.strip("[]")
        return host == "localhost" or host.endswith(".localhost") or ip_address(host).is_loopback
    except ValueError:
        return False


def _printable(text: str) -> str:
    if not text.isprintable() and _CONTROL.search(text):  # isprintable() is the faster check, and enough for most
        raise PydanticCustomError("control_character", "must not contain control characters")
    return text


def _without_nul(text: str) -> str:
    if "\0" in text:  # PostgreSQL cannot store it
        raise PydanticCustomError("control_character", "must not contain a NUL character")
    return text


def _path_segment(text: str) -> str:
    if "/" in text or text in {".", ".."}:
        raise PydanticCustomError("name", "must not contain '/' or be '.' or '..': it becomes part of a URL")
    return text


@lru_cache(maxsize=4096)  # heartbeats repeat the same URLs
def _http_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        has_credentials = parts.username is not None or parts.password is not None
    except ValueError:
        valid, has_credentials = False, False
    if not valid or text.split() != [text]:
        raise PydanticCustomError("http_url", "must be an absolute http or https URL, like http://host:8000")
    if has_credentials:
        raise PydanticCustomError("http_url", "must not contain a user name or password: every reader sees the list")
    return text


def split_model_name(value: Any) -> Any:
    """Split `openai/gpt-4o-mini` into a provider and a name."""
    if not isinstance(value, str):
        return value
    provider, slash, name = value.partition("/")
    return {"provider": provider, "name": name} if slash else {"name": value}


def parsed_by(parse: Callable[[str], object]) -> AfterValidator:
    """Validate a string by parsing it, and keep the string; the error of the parser is reported."""

    def validate(text: str) -> str:
        parse(text)
        return text

    return AfterValidator(validate)


def _name_or_object(item: Any) -> str | None:
    if isinstance(item, str):
        return "name"
    return "object" if isinstance(item, (dict, BaseModel)) else None


def _in_utc(timestamp: datetime) -> datetime:
    """Convert to UTC; a timestamp without a zone is UTC already."""
    if timestamp.tzinfo is UTC:
        return timestamp
    return timestamp.replace(tzinfo=UTC) if timestamp.tzinfo is None else timestamp.astimezone(UTC)


def format_timestamp(timestamp: datetime) -> str:
    """Format a UTC timestamp as it is sent: ISO 8601 with milliseconds."""
    return timestamp.isoformat(timespec="milliseconds").replace("+00:00", "Z")


Line = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_printable)]
Identity = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_printable)]
Name = Annotated[Identity, AfterValidator(_path_segment)]
HttpUrl = Annotated[str, Field(min_length=1, max_length=2048), AfterValidator(_printable), AfterValidator(_http_url)]
Text = Annotated[str, Field(max_length=8192), AfterValidator(_without_nul)]
Timestamp = Annotated[
    datetime, AfterValidator(_in_utc), PlainSerializer(format_timestamp, return_type=str, when_used="json")
]
NAME_OR_OBJECT = Discriminator(
    _name_or_object,
    custom_error_type="name_or_object",
    custom_error_message="must be a name or an object with a name",
)
