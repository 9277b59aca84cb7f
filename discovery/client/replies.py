"""What came back of a call to a registry: bounded, read, and explained where it is not what was asked for."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

if TYPE_CHECKING:
    import httpx

Answer = TypeVar("Answer")


class DiscoveryError(Exception):
    """The registry did not do what was asked: it is away, in trouble, or something else answered in its place."""

    def __init__(
        self, message: str, *, status: int | None = None, code: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry_after = retry_after


class RegistrationRefused(DiscoveryError):
    """The registry understood and said no (401, 403, 422): trying again changes nothing until someone acts."""


@contextmanager
def explained(seconds: float) -> Generator[None]:
    """What goes wrong on the wire, as the one error that our callers know."""
    import httpx

    try:
        yield
    except TimeoutError as error:
        raise DiscoveryError(f"no answer within {seconds:g} s") from error
    except httpx.LocalProtocolError as error:  # its text quotes the header at fault, which may be the token
        raise DiscoveryError("the request cannot be sent: is there a line break in the token?") from error
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        raise DiscoveryError(f"{type(error).__name__}: {one_line(error)}".rstrip(": ")) from error


async def bounded(response: "httpx.Response", limit: int) -> bytes:
    """The body of an answer, as long as it is no larger than the limit."""
    if (
        response.headers.get("content-encoding", "identity") != "identity"
    ):  # we asked for none; a bomb fits in a few KiB
        raise DiscoveryError("the answer is compressed, which was not asked for")
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > limit:
            raise DiscoveryError(f"the answer is larger than {limit // 1024} KiB: is this a registry?")
    return bytes(body)


def refusal(response: "httpx.Response", body: bytes, now: datetime) -> DiscoveryError:
    """What an answer that is no success says."""
    try:
        problem = cast("dict[str, Any]", json.loads(body))
        detail, code = problem.get("detail") or problem.get("title"), problem.get("code")
    except (ValueError, RecursionError, AttributeError):  # a proxy's page, or no object at all
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
    """Seconds, from seconds or from a date (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    try:
        seconds = float(value) if value.strip().isdigit() else (parsedate_to_datetime(value) - now).total_seconds()
    except (ValueError, TypeError, OverflowError):  # neither, or a date without a zone
        return None
    return max(0.0, seconds)


def read(shape: TypeAdapter[Answer], answer: Any) -> Answer:
    """An answer in the shape that a registry's has."""
    try:
        return shape.validate_python(answer)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"][:6])
        raise DiscoveryError(f"the answer is not a registry's: {where} {first['msg']}") from error


def one_line(text: object) -> str:
    """Text from elsewhere, made fit for one line of a log."""
    return " ".join(str(text).split())[:300]
