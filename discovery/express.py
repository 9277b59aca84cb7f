"""The two calls that a whole fleet repeats, answered before the framework is asked.

`GET /agents` without parameters is a comparison of tags and bytes that are ready; `POST /register` is read straight
from its bytes, and not at all where the same bytes were accepted before. They do what the routes of `api` do, which
describe them and take all that is out of the ordinary: a query, another content type, what has to be explained.
"""

import logging
from collections.abc import Awaitable, Mapping
from typing import NamedTuple

from fastapi import Request

from discovery import tokens
from discovery.answers import acknowledgement
from discovery.api import list_headers, tag_matches
from discovery.auth import admitted, check_name
from discovery.contract import MAX_BODY_BYTES
from discovery.decisions import Said
from discovery.listing import Prepared
from discovery.packed import Packed, takes_gzip
from discovery.problems import REFUSALS, Refusal, answer_to, new_request_id
from discovery.reading import Read, Reader
from discovery.registry import Registry
from discovery.settings import Settings

Headers = Mapping[bytes, bytes]
_JSON = b"application/json"

logger = logging.getLogger(__name__)


class Reply(NamedTuple):
    """An answer: its status, the lines of its head but for the length, its body."""

    status: int
    lines: bytes
    body: bytes = b""


class Express:
    """Answers at once what can be, and later what has to wait; None where a route has to answer."""

    def __init__(self, registry: Registry, settings: Settings, packed: Packed) -> None:
        self._registry, self._settings, self._packed = registry, settings, packed
        self._shown: tuple[Prepared, bytes] | None = None
        self._reader = Reader()

    def admits(self, headers: Headers, scope: tokens.Scope) -> tokens.Caller | None:
        """Who asks, if these headers allow what is asked."""
        given, host = headers.get(b"authorization", b""), headers.get(b"host", b"")
        try:
            return admitted(self._settings, given.decode("latin-1"), host.decode("latin-1"), scope)
        except Refusal:
            return None

    def listed(self, headers: Headers) -> Reply | Awaitable[Reply] | None:
        """`GET /agents`."""
        registry, asked = self._registry, headers.get(b"if-none-match")
        try:
            if asked and tag_matches(asked.decode("latin-1"), tag := registry.tag):
                return Reply(304, _lines(list_headers(tag, registry.revision)) + _signed(new_request_id()))
            listing = registry.listing()
        except Exception:
            return None  # the route fails as well, and says why
        if takes_gzip(headers.get(b"accept-encoding", b"")):
            return self._compressed(listing)
        return Reply(200, self._head(listing) + _signed(new_request_id()), listing.body)

    async def _compressed(self, listing: Prepared) -> Reply:
        packed = await self._packed.of(listing.body)
        lines = self._head(listing) + _signed(new_request_id())
        if packed is None:
            return Reply(200, lines, listing.body)
        return Reply(200, lines + b"content-encoding: gzip\r\n", packed)

    def _head(self, listing: Prepared) -> bytes:
        if self._shown is None or self._shown[0] is not listing:
            said = [*list_headers(listing.etag, listing.revision), (b"content-type", _JSON)]
            self._shown = listing, _lines([*said, (b"vary", b"Accept-Encoding")])
        return self._shown[1]

    def registered(self, caller: tokens.Caller, body: bytes, peer: str | None) -> Reply | Awaitable[Reply] | None:
        """`POST /register`."""
        try:
            read = self._reader.read(body)
            check_name(caller, read.registration.name)
            heard = self._registry.hear(read.registration, peer)
        except Exception:
            return None  # the route fails as well, and says what is wrong, and with which field
        if isinstance(heard, Said):
            return self._written(heard, read)
        self._reader.remember(read)
        return Reply(200, _REGISTERED + _signed(new_request_id()), acknowledgement(heard, peer))

    async def _written(self, said: Said, read: Read) -> Reply:
        request_id = new_request_id()
        try:
            accepted = await self._registry.write(said)
        except Exception as error:
            if not isinstance(error, REFUSALS):
                logger.exception("a registration failed")
            problem = answer_to(Request({"type": "http", "state": {"request_id": request_id}}), error)
            head = [one for one in problem.raw_headers if one[0] != b"content-length"]
            return Reply(problem.status_code, _lines(head) + _signed(request_id), bytes(problem.body))
        self._reader.remember(read)
        status = 201 if accepted.new else 200
        return Reply(status, _REGISTERED + _signed(request_id), acknowledgement(accepted, said.caller))


def is_small_json(headers: Headers) -> bool:
    """Whether a body is what most registrations are."""
    length = headers.get(b"content-length", b"")
    return headers.get(b"content-type") == _JSON and length.isdigit() and int(length) <= MAX_BODY_BYTES


def _lines(headers: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join([b"%b: %b\r\n" % header for header in headers])


def _signed(request_id: str) -> bytes:
    return b"x-request-id: %b\r\n" % request_id.encode()


_REGISTERED = _lines([(b"content-type", _JSON)])
