"""What a registry responds: bounded bodies, errors, and the event stream."""

import json
import re
from collections.abc import AsyncGenerator, AsyncIterable, Generator
from contextlib import contextmanager
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from discovery.contract import AgentRecord, Timestamp

if TYPE_CHECKING:
    import httpx

MAX_EVENT_BYTES = 4 * 1024 * 1024
_END_OF_EVENT = re.compile(rb"\r?\n\r?\n")
_END_OF_LINE = re.compile(r"\r?\n")

Shape = TypeVar("Shape")


class DiscoveryError(Exception):
    """A call failed: the registry is unreachable, returned an error, or is no registry."""

    def __init__(
        self, message: str, *, status: int | None = None, code: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry_after = retry_after


class RegistrationRefused(DiscoveryError):
    """The registry rejected the request (401, 403, 422): retrying without a change fails again."""


@contextmanager
def translated_errors(timeout: float) -> Generator[None]:
    """Raise `DiscoveryError` for every error of the transport."""
    import httpx

    try:
        yield
    except TimeoutError as error:
        raise DiscoveryError(f"no response within {timeout:g} s") from error
    except httpx.LocalProtocolError as error:  # its text quotes the invalid header, which may be the token
        raise DiscoveryError("the request cannot be sent: does the token contain a line break?") from error
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        raise DiscoveryError(f"{type(error).__name__}: {one_line(error)}".rstrip(": ")) from error


async def read_body(response: "httpx.Response", limit: int) -> bytes:
    """Read the body of a response, up to a limit."""
    # Compression was not requested, and a few KiB can decompress to gigabytes.
    if response.headers.get("content-encoding", "identity") != "identity":
        raise DiscoveryError("the response is compressed, which was not requested")
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > limit:
            raise DiscoveryError(f"the response is larger than {limit // 1024} KiB: is this a registry?")
    return bytes(body)


def error_of(response: "httpx.Response", body: bytes, now: datetime) -> DiscoveryError:
    """The error that a response with an error status describes."""
    try:
        problem = cast("dict[str, Any]", json.loads(body))
        detail, code = problem.get("detail") or problem.get("title"), problem.get("code")
    except (ValueError, RecursionError, AttributeError):  # the page of a proxy, or not an object
        detail, code = None, None
    message = f"{response.status_code} {response.reason_phrase}" + (f": {one_line(detail)}" if detail else "")
    kind = RegistrationRefused if response.status_code in {401, 403, 422} else DiscoveryError
    return kind(
        message,
        status=response.status_code,
        code=code if isinstance(code, str) else None,
        retry_after=_retry_after(response.headers.get("retry-after"), now),
    )


def _retry_after(value: str | None, now: datetime) -> float | None:
    """Parse seconds or a date (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    try:
        seconds = float(value) if value.strip().isdigit() else (parsedate_to_datetime(value) - now).total_seconds()
    except (ValueError, TypeError, OverflowError):  # neither, or a date without a zone
        return None
    return max(0.0, seconds)


def validated(shape: TypeAdapter[Shape], content: Any) -> Shape:
    """Validate the decoded JSON of a response."""
    try:
        return shape.validate_python(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        path = ".".join(str(part) for part in first["loc"][:6])
        raise DiscoveryError(f"the response is not a registry's: {path} {first['msg']}") from error


def one_line(text: object) -> str:
    """Shorten text from elsewhere to one line for a log."""
    return " ".join(str(text).split())[:300]


class RegistryEvent(BaseModel):
    """A change in a registry. Later registries may add values of `kind`.

    `registered`, `updated`, `status`, `removed` and `conflict` carry `agent`, the whole record after the change, or
    None where the agent is gone. `guard` says whether entries are kept although their heartbeats are missing. `reset`
    means: read the list again, and skip events with a `revision` that it already includes.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    kind: str
    id: str | None = None
    """Where to resume: `events(last_id=…)`."""
    revision: int
    at: Timestamp | None = None
    name: str | None = None
    instance_id: str | None = None
    status: str | None = None
    reason: str | None = None
    agent: AgentRecord | None = None
    active: bool | None = None
    until: Timestamp | None = None
    silent: list[str] = []


async def parse_events(chunks: AsyncIterable[bytes]) -> AsyncGenerator[RegistryEvent | None]:
    """Parse server-sent events; None is a comment, which keeps the connection alive.

    Raises:
        ValueError: The stream is not a registry's, or an event is too large.
    """
    rest = b""
    async for chunk in chunks:
        *blocks, rest = _END_OF_EVENT.split(rest + chunk)
        if len(rest) > MAX_EVENT_BYTES:
            raise ValueError(f"an event is larger than {MAX_EVENT_BYTES // 1024} KiB")
        for block in blocks:
            yield _parse_event(block)


def _parse_event(block: bytes) -> RegistryEvent | None:
    fields: dict[str, list[str]] = {}
    for line in _END_OF_LINE.split(block.decode()):
        name, _, value = line.partition(":")
        fields.setdefault(name, []).append(value.removeprefix(" "))
    if "data" not in fields:
        return None
    data: Any = json.loads("\n".join(fields["data"]))
    if not isinstance(data, dict):
        raise ValueError("the data of an event is not an object")
    header = {"kind": fields.get("event", ["message"])[-1], "id": fields.get("id", [None])[-1]}
    return RegistryEvent.model_validate(cast("dict[str, Any]", data) | header)
