"""The two calls that a whole fleet repeats, answered before the framework is asked.

`GET /agents` without parameters is a comparison of tags and bytes that are ready; `POST /register` is read straight
from its bytes, and not at all where the same bytes were accepted before. They do what the routes of `api` do, which
describe them and take all that is out of the ordinary: a query, another content type, what has to be explained.
"""

from hashlib import blake2b
from typing import cast
from weakref import WeakValueDictionary

from fastapi import Request
from pydantic import ValidationError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from discovery import tokens
from discovery.answers import acknowledgement
from discovery.api import list_headers, tag_matches
from discovery.auth import admitted, check_name
from discovery.contract import MAX_BODY_BYTES, Registration
from discovery.listing import Prepared
from discovery.packed import Packed, takes_gzip
from discovery.problems import REFUSALS, Refusal, answer_to, identify
from discovery.registry import Registry
from discovery.settings import Settings

JSON = (b"content-type", b"application/json")
Headers = list[tuple[bytes, bytes]]


class Express:
    """Stands before an application, and passes on what is not for it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._packed = Packed()
        self._shown: tuple[Prepared, Headers] | None = None
        # By digest, for as long as the table holds one: what is repeated word for word was found good before.
        self._known: WeakValueDictionary[bytes, Registration] = WeakValueDictionary()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take what is ordinary, pass on the rest."""
        call = scope["type"] == "http" and not scope["query_string"] and (scope["method"], scope["path"])
        if call == ("GET", "/agents"):
            await self._list(scope, receive, send)
        elif call == ("POST", "/register") and _is_small_json(headers := _headers(scope)):
            await self._register(headers, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _list(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers, registry = _headers(scope), cast("Registry", scope["state"]["registry"])
        try:
            _admitted(scope, headers, "read")
            asked = _text(headers, b"if-none-match")
            if asked and tag_matches(asked, registry.tag):
                await _send(send, scope, 304, list_headers(registry.tag, registry.revision))
                return
            listing = registry.listing()
            packed = await self._packed.of(listing.body) if takes_gzip(headers.get(b"accept-encoding", b"")) else None
        except Exception:
            await self._app(scope, receive, send)  # the route fails as well, and says why
            return
        if packed is None:
            await _send(send, scope, 200, self._head(listing), listing.body)
        else:
            await _send(send, scope, 200, [*self._head(listing), (b"content-encoding", b"gzip")], packed)

    def _head(self, listing: Prepared) -> Headers:
        if self._shown is None or self._shown[0] is not listing:
            head = [*list_headers(listing.etag, listing.revision), JSON, (b"vary", b"Accept-Encoding")]
            self._shown = listing, head
        return self._shown[1]

    async def _register(self, headers: dict[bytes, bytes], scope: Scope, receive: Receive, send: Send) -> None:
        body: bytes | None = None
        try:
            caller = _admitted(scope, headers, "register")
            body = await _whole(receive)
            if body is None:
                return
            digest = blake2b(body, digest_size=16).digest()
            registration = self._known.get(digest) or Registration.read(body)
            check_name(caller, registration.name)
        except (Refusal, ValidationError):
            # The route says what is wrong, and with which field.
            await self._app(scope, receive if body is None else _again(body, receive), send)
            return
        registry, peer = cast("Registry", scope["state"]["registry"]), scope["client"][0] if scope["client"] else None
        try:
            accepted = await registry.register(registration, peer)
        except Exception as error:
            header = identify(scope)
            response = answer_to(Request(scope), error)
            response.raw_headers.append(header)
            await response(scope, receive, send)
            if isinstance(error, REFUSALS):
                return
            raise  # to the log
        self._known[digest] = registration
        await _send(send, scope, 201 if accepted.new else 200, [JSON], acknowledgement(accepted, peer))


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


async def _send(send: Send, scope: Scope, status: int, headers: Headers, body: bytes = b"") -> None:
    said: Headers = [*headers, identify(scope)]
    if status != 304:
        said.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": said})
    await send({"type": "http.response.body", "body": body})
