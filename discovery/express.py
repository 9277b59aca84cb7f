"""The two calls that a whole fleet repeats, answered before the framework looks for their route.

`GET /agents` without parameters is a comparison of tags and bytes that are ready; `POST /register` is read straight
from its bytes, and not at all where the same bytes were accepted before. They do what the routes of `api` do, which
describe them and take all that is out of the ordinary: a query, another content type, a body that has to be explained.
"""

from collections.abc import Iterable
from hashlib import blake2b
from typing import cast
from weakref import WeakValueDictionary

from fastapi import Request
from pydantic import ValidationError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from discovery import tokens
from discovery.api import list_headers, tag_matches
from discovery.auth import admitted, check_name
from discovery.contract import MAX_BODY_BYTES, Registration
from discovery.packed import Packed, takes_gzip
from discovery.problems import REFUSALS, refused
from discovery.registry import Registry
from discovery.settings import Settings

JSON = (b"content-type", b"application/json")


class Express:
    """Middleware, the innermost one: what it sends passes through all others."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._packed = Packed()
        # By digest, for as long as the table holds one: what is repeated word for word was found good before.
        self._known: WeakValueDictionary[bytes, Registration] = WeakValueDictionary()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take what is ordinary, pass on the rest."""
        call = scope["type"] == "http" and not scope["query_string"] and (scope["method"], scope["path"])
        try:
            if call == ("GET", "/agents"):
                await self._list(scope, send)
            elif call == ("POST", "/register") and _is_small_json(headers := _headers(scope)):
                await self._register(headers, scope, receive, send)
            else:
                await self._app(scope, receive, send)
        except REFUSALS as error:
            await refused(Request(scope), error)(scope, receive, send)

    async def _list(self, scope: Scope, send: Send) -> None:
        headers, registry = _headers(scope), cast("Registry", scope["state"]["registry"])
        _admitted(scope, headers, "read")
        etag = registry.tag
        if tag_matches(_text(headers, b"if-none-match"), etag):
            await _send(send, 304, list_headers(etag, registry.revision))
            return
        listing = registry.listing()
        answer = [*list_headers(listing.etag, listing.revision), JSON, (b"vary", b"Accept-Encoding")]
        packed = await self._packed.of(listing.body) if takes_gzip(headers.get(b"accept-encoding", b"")) else None
        if packed is not None:
            answer.append((b"content-encoding", b"gzip"))
        await _send(send, 200, answer, packed or listing.body)

    async def _register(self, headers: dict[bytes, bytes], scope: Scope, receive: Receive, send: Send) -> None:
        caller = _admitted(scope, headers, "register")
        body = await _whole(receive)
        if body is None:
            return
        digest = blake2b(body, digest_size=16).digest()
        known = self._known.get(digest)
        if known is None:
            try:
                registration = Registration.model_validate_json(body)
            except ValidationError:
                await self._app(scope, _again(body, receive), send)  # the route says which field is wrong
                return
        else:
            registration = known
        check_name(caller, registration.name)
        registry = cast("Registry", scope["state"]["registry"])
        answer, new = await registry.register(registration, scope["client"][0] if scope["client"] else None)
        if known is None:
            self._known[digest] = registration
        await _send(send, 201 if new else 200, [JSON], answer.model_dump_json().encode())


def _headers(scope: Scope) -> dict[bytes, bytes]:
    """The first of each name, as everywhere else."""
    return dict(reversed(scope["headers"]))


def _text(headers: dict[bytes, bytes], name: bytes) -> str:
    return headers.get(name, b"").decode("latin-1")


def _admitted(scope: Scope, headers: dict[bytes, bytes], needed: tokens.Scope) -> tokens.Caller:
    settings = cast("Settings", scope["state"]["settings"])
    return admitted(settings, _text(headers, b"authorization"), _text(headers, b"host"), needed)


def _is_small_json(headers: dict[bytes, bytes]) -> bool:
    length = headers.get(b"content-length", b"")
    return headers.get(b"content-type") == JSON[1] and length.isdigit() and int(length) <= MAX_BODY_BYTES


async def _whole(receive: Receive) -> bytes | None:
    """The body, or None of a sender who has gone."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def _again(body: bytes, receive: Receive) -> Receive:
    """What was read, for somebody else to read."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def read() -> Message:
        return waiting.pop() if waiting else await receive()

    return read


async def _send(send: Send, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes = b"") -> None:
    length = [] if status == 304 else [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *length]})
    await send({"type": "http.response.body", "body": body})
