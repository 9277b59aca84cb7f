"""One look at an agent: does its endpoint answer, and does it speak the protocols that it says it speaks?

No token and no cookie is ever sent, no redirect followed, and of an answer no more read than a card may be long.
"""

import asyncio
import errno
import ssl
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from time import perf_counter
from typing import Any, Self

import httpx
from pydantic import AliasChoices, BaseModel, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError, from_json

from discovery.contract.models import Reachability
from discovery.contract.protocols import Faces
from discovery.probe.addresses import Forbidden, Rules
from discovery.probe.outbound import CheckedTransport

SECONDS = 3.0
MAX_ANSWER_BYTES = 64 * 1024
MAX_REASON = 300

HANDSHAKE = "2025-11-25"
DISCOVER = "2026-07-28"  # from here on MCP has no handshake, and a server may no longer know the old one
CLIENT = {"name": "myagent-discovery", "version": "1"}
INITIALIZE = {"protocolVersion": HANDSHAKE, "capabilities": {}, "clientInfo": CLIENT}
META = "io.modelcontextprotocol/"
META_OF_DISCOVER = {f"{META}protocolVersion": DISCOVER, f"{META}clientInfo": CLIENT, f"{META}clientCapabilities": {}}
METHOD_NOT_FOUND, UNSUPPORTED_VERSION = -32601, -32022

WHY = {
    errno.ECONNREFUSED: "connection refused",
    errno.ECONNRESET: "the connection broke off",
    errno.EHOSTUNREACH: "no way to its host",
    errno.ENETUNREACH: "no way to its network",
    errno.ETIMEDOUT: "its host does not answer",
}


class Fault(Exception):
    """An answer that is not what it should be; the text says why."""


class _Card(BaseModel):
    """The part of an A2A agent card that a caller cannot do without, of version 0.3 or 1."""

    name: str = Field(min_length=1)
    where: str | list[dict[str, Any]] = Field(min_length=1, validation_alias=AliasChoices("supportedInterfaces", "url"))


class _Reply(BaseModel):
    """An answer in JSON-RPC."""

    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.result is None) == (self.error is None):
            raise PydanticCustomError("json_rpc", "it is no JSON-RPC answer")
        return self


@dataclass(frozen=True, slots=True)
class _Heard:
    status: int
    headers: httpx.Headers
    body: bytes

    @property
    def wants_key(self) -> bool:
        return self.status in {401, 403}


class Reach:
    """Looks at one endpoint after another over one HTTP client."""

    def __init__(self, http: httpx.AsyncClient, clock: Callable[[], datetime]) -> None:
        self._http, self._clock = http, clock

    @classmethod
    @asynccontextmanager
    async def open(cls, rules: Rules, clock: Callable[[], datetime]) -> AsyncGenerator[Self]:
        """The client, for as long as the block lasts."""
        transport = await asyncio.to_thread(CheckedTransport, rules)  # reads the system's certificates
        keeps_none = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
        # The time is one for the whole look, see `look`.
        async with httpx.AsyncClient(
            transport=transport,
            cookies=keeps_none,
            trust_env=False,
            follow_redirects=False,
            timeout=None,
            headers={"user-agent": "myagent-discovery", "accept-encoding": "identity"},
        ) as http:
            yield cls(http, clock)

    async def look(self, faces: Faces) -> Reachability:
        """Ask for health and protocols; whatever goes wrong is the answer, not an error."""
        started, latency, asked = perf_counter(), None, "its health"
        heard, remarks = [asked], list[str]()
        try:
            async with asyncio.timeout(SECONDS):
                remarks += await self._health(faces)
                latency = (perf_counter() - started) * 1000
                for asked, address, ask in (("its agent card", faces.card, self._card), ("MCP", faces.mcp, self._mcp)):
                    if address is not None:
                        remarks += await ask(address)
                        heard.append(asked)
        except (Fault, Forbidden, TimeoutError, httpx.HTTPError, httpx.InvalidURL, ssl.SSLError) as error:
            why = _why(error)
            return self._found(False, why if latency is None else f"answers, but not with {asked}: {why}", latency)
        all_but_last, last = ", ".join(heard[:-1]), heard[-1]
        well = f"{all_but_last} and {last} answer" if all_but_last else f"{last} answers"
        return self._found(True, "; ".join([well, *remarks]), latency)

    def _found(self, ok: bool, reason: str, latency: float | None) -> Reachability:
        plain = " ".join("".join(sign if sign.isprintable() else " " for sign in reason).split())
        rounded = None if latency is None else round(latency, 1)
        return Reachability(ok=ok, reason=plain[:MAX_REASON], checked_at=self._clock(), latency_ms=rounded)

    async def _health(self, faces: Faces) -> list[str]:
        """Any answer under 500 is one: what an agent has to say of itself it says in its heartbeats."""
        named = [faces.health] if faces.health else [f"{faces.endpoint}/livez", f"{faces.endpoint}/health"]
        for address in named:
            async with self._http.stream("GET", address) as response:
                if response.is_redirect:
                    return [f"it redirects to {_target(response.headers)}, which is not followed"]
                if response.status_code >= 500:
                    raise Fault(f"its health answers HTTP {response.status_code}")
                if response.status_code != 404:
                    break
        return []

    async def _card(self, address: str) -> list[str]:
        heard = await self._heard("GET", address, headers={"accept": "application/json"})
        if heard.wants_key:
            return ["its agent card asks for a key"]
        _checked(heard)
        try:
            _Card.model_validate_json(heard.body)
        except ValidationError as error:
            raise Fault(_unreadable(heard, error)) from None
        return []

    async def _mcp(self, address: str) -> list[str]:
        heard, reply = await self._called(address, "initialize", INITIALIZE)
        if reply is not None and (reply.error or {}).get("code") in {METHOD_NOT_FOUND, UNSUPPORTED_VERSION}:
            headers = {"mcp-protocol-version": DISCOVER, "mcp-method": "server/discover"}
            heard, reply = await self._called(address, "server/discover", {"_meta": META_OF_DISCOVER}, headers)
        if reply is None:
            return ["MCP asks for a key"]
        if reply.error is not None:
            raise Fault(f"it refuses: {reply.error.get('message') or reply.error.get('code')}")
        if not {"protocolVersion", "supportedVersions"} & (reply.result or {}).keys():
            raise Fault("what it says to initialize names no version of the protocol")
        if (session := heard.headers.get("mcp-session-id")) is not None:  # it would keep it for somebody
            await self._heard("DELETE", address, headers={"mcp-session-id": session})
        return []

    async def _called(
        self, address: str, method: str, params: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> tuple[_Heard, _Reply | None]:
        """What a JSON-RPC call answers; no reply where it asks for a key."""
        call = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        accept = {"accept": "application/json, text/event-stream"}
        heard = await self._heard("POST", address, headers={**accept, **(headers or {})}, json=call)
        if heard.wants_key:
            return heard, None
        try:
            return heard, _Reply.model_validate_json(next(_events(heard), heard.body))
        except ValidationError as error:
            _checked(heard)
            raise Fault(_unreadable(heard, error)) from None

    async def _heard(self, method: str, address: str, **request: Any) -> _Heard:
        body = b""
        async with self._http.stream(method, address, **request) as response:
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    raise Fault(f"the answer is longer than {MAX_ANSWER_BYTES // 1024} KiB")
                heard = _Heard(response.status_code, response.headers, body)
                if any(_events(heard)):  # a stream may stay open after the answer
                    return heard
        return _Heard(response.status_code, response.headers, body)


def _events(heard: _Heard) -> Iterator[bytes]:
    """The data of the whole events in a body, where it is an event stream."""
    if not heard.headers.get("content-type", "").startswith("text/event-stream"):
        return
    *whole, _ = heard.body.replace(b"\r\n", b"\n").split(b"\n\n")
    for event in whole:
        lines = [line.removeprefix(b"data:").strip() for line in event.split(b"\n") if line.startswith(b"data:")]
        data = b"\n".join(lines)
        if b'"result"' in data or b'"error"' in data:  # not a notification on the way
            yield data


def _checked(heard: _Heard) -> None:
    if 300 <= heard.status < 400:
        raise Fault(f"it redirects to {_target(heard.headers)}, which is not followed")
    if heard.status != 200:
        raise Fault(f"HTTP {heard.status}")


def _unreadable(heard: _Heard, error: ValidationError) -> str:
    try:
        from_json(heard.body)
    except ValueError:
        kind = heard.headers.get("content-type", "").partition(";")[0] or "no type"
        return f"it does not parse: no JSON, but {kind[:64]}"
    wrong = [(".".join(str(part) for part in one["loc"][:1]), one["msg"]) for one in error.errors()[:3]]
    return "it does not parse: " + "; ".join(f"{where}: {what}" if where else what for where, what in wrong)


def _target(headers: httpx.Headers) -> str:
    """Where a redirect leads, without what its query may hold."""
    return headers.get("location", "nowhere").partition("?")[0][:128]


def _why(error: BaseException) -> str:
    match error:
        case Fault():
            return str(error)
        case Forbidden():
            return f"not asked: {error}"
        case TimeoutError():
            return f"timed out after {SECONDS:g} s"
        case httpx.ConnectError() | ssl.SSLError():
            return _why_not_connected(error)
        case httpx.RemoteProtocolError():
            return "it does not answer in HTTP"
        case httpx.NetworkError():
            return "the connection broke off"
        case _:
            return "its address cannot be called"


def _why_not_connected(error: BaseException) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return "it does not speak TLS as it should"
        if isinstance(cause, OSError) and cause.errno in WHY:
            return WHY[cause.errno]
        cause = cause.__cause__ or cause.__context__
    return str(error) or "no connection"
