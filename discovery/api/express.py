"""The two calls that a whole fleet repeats, answered before the framework is asked.

`GET /agents` without parameters is a comparison of tags and bytes that are ready; `POST /register` is read straight
from its bytes, and not at all where the same bytes were accepted before. They do what the routes of `api` do, which
describe them and take all that is out of the ordinary: a query, another content type, what has to be explained.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache, partial
from typing import NamedTuple

from fastapi import Request

from discovery import tokens
from discovery.api.agents import list_headers, tag_matches
from discovery.api.auth import admitted, check_name
from discovery.api.packed import Packed, takes_gzip
from discovery.api.problems import REFUSALS, Refusal, answer_to, new_request_id
from discovery.contract import MAX_BODY_BYTES
from discovery.registry.answers import acknowledgement
from discovery.registry.listing import Prepared
from discovery.registry.reading import Read, Reader
from discovery.registry.registry import Registry
from discovery.registry.rules import Accepted, Said
from discovery.settings import Settings

Headers = Mapping[bytes, bytes]
_JSON = b"application/json"

logger = logging.getLogger(__name__)


class Reply(NamedTuple):
    """An answer: its status, the lines of its head but for the length, its body."""

    status: int
    lines: bytes
    body: bytes = b""


Answer = Callable[[Reply | None], None]  # told of a reply, or that there will be none


class Express:
    """Answers at once what can be, and later what has to wait, but for what a route has to answer."""

    def __init__(self, registry: Registry, settings: Settings, packed: Packed) -> None:
        self._registry, self._settings, self._packed = registry, settings, packed
        self._shown: tuple[Prepared, bytes] | None = None
        self._reader = Reader()
        self._guest = lru_cache(maxsize=64)(partial(self._admitted, b"", scope="read"))

    def admits(self, headers: Headers, scope: tokens.Scope) -> tokens.Caller | None:
        """Who asks, if these headers allow what is asked."""
        given, host = headers.get(b"authorization", b""), headers.get(b"host", b"")
        try:
            # What is found out of a token is not kept beside it.
            return self._guest(host) if self._settings.tokens is None else self._admitted(given, host, scope)
        except Refusal:
            return None

    def _admitted(self, authorization: bytes, host: bytes, scope: tokens.Scope) -> tokens.Caller:
        return admitted(self._settings, authorization.decode("latin-1"), host.decode("latin-1"), scope)

    def listed(self, headers: Headers) -> Reply | Awaitable[Reply] | None:
        """`GET /agents`; None where a route has to answer."""
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

    def registered(self, caller: tokens.Caller, body: bytes, peer: str | None, answer: Answer) -> bool:
        """`POST /register`, answered now or once it is durable; False where a route has to answer."""
        try:
            read = self._reader.read(body)
            check_name(caller, read.registration.name)
            heard = self._registry.hear(read.registration, peer)
            if isinstance(heard, Said):
                self._registry.submit(heard, partial(self._tell, read, peer, answer))
                return True
        except Exception:
            return False  # the route fails as well, and says what is wrong, and with which field
        self._tell(read, peer, answer, heard)
        return True

    def _tell(self, read: Read, peer: str | None, answer: Answer, accepted: Accepted | BaseException) -> None:
        try:
            reply = self._reply(read, peer, accepted)
        except Exception:
            logger.exception("an answer failed")
            reply = None
        answer(reply)

    def _reply(self, read: Read, peer: str | None, accepted: Accepted | BaseException) -> Reply | None:
        request_id = new_request_id()
        if isinstance(accepted, Accepted):
            self._reader.remember(read)
            status = 201 if accepted.new else 200
            return Reply(status, _REGISTERED + _signed(request_id), acknowledgement(accepted, peer))
        if not isinstance(accepted, Exception):
            return None  # the registry ends
        if not isinstance(accepted, REFUSALS):
            logger.error("a registration failed", exc_info=accepted)
        problem = answer_to(Request({"type": "http", "state": {"request_id": request_id}}), accepted)
        head = [one for one in problem.raw_headers if one[0] != b"content-length"]
        return Reply(problem.status_code, _lines(head) + _signed(request_id), bytes(problem.body))


def is_small_json(headers: Headers) -> bool:
    """Whether a body is what most registrations are."""
    length = headers.get(b"content-length", b"")
    return headers.get(b"content-type") == _JSON and length.isdigit() and int(length) <= MAX_BODY_BYTES


def _lines(headers: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join([b"%b: %b\r\n" % header for header in headers])


def _signed(request_id: str) -> bytes:
    return b"x-request-id: %b\r\n" % request_id.encode()


_REGISTERED = _lines([(b"content-type", _JSON)])
