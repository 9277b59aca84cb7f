"""The check of one endpoint: does it respond, and does it serve the protocols it registered?

No credentials are sent, redirects are not followed, and responses are read up to a limit.
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

from discovery.contract import ProtocolEndpoints, Reachability
from discovery.probe.addresses import AddressPolicy, CheckedTransport, ForbiddenAddress

CHECK_SECONDS = 3.0
MAX_RESPONSE_BYTES = 64 * 1024
MAX_REASON_LENGTH = 300
HEALTH_PATHS = ("/livez", "/health")  # where an agent registers no health URL

# MCP up to 2025-11-25 starts with `initialize`; from 2026-07-28 on there is `server/discover` instead.
LEGACY_VERSION, CURRENT_VERSION = "2025-11-25", "2026-07-28"
CLIENT_INFO = {"name": "myagent-discovery", "version": "1"}
INITIALIZE = {"protocolVersion": LEGACY_VERSION, "capabilities": {}, "clientInfo": CLIENT_INFO}
DISCOVER = {
    "_meta": {
        "io.modelcontextprotocol/protocolVersion": CURRENT_VERSION,
        "io.modelcontextprotocol/clientInfo": CLIENT_INFO,
        "io.modelcontextprotocol/clientCapabilities": {},
    }
}
METHOD_NOT_FOUND, UNSUPPORTED_VERSION = -32601, -32022

CONNECT_ERRORS = {
    errno.ECONNREFUSED: "connection refused",
    errno.ECONNRESET: "connection lost",
    errno.EHOSTUNREACH: "no route to host",
    errno.ENETUNREACH: "network unreachable",
    errno.ETIMEDOUT: "connection timed out",
}


class CheckFailed(Exception):
    """A response is invalid; the message is the reason."""


class _AgentCard(BaseModel):
    """What a caller needs of an A2A agent card, version 0.3 or 1."""

    name: str = Field(min_length=1)
    url: str | list[dict[str, Any]] = Field(min_length=1, validation_alias=AliasChoices("supportedInterfaces", "url"))


class _JsonRpcResponse(BaseModel):
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _check_one_of(self) -> Self:
        if (self.result is None) == (self.error is None):
            raise PydanticCustomError("json_rpc", "not a JSON-RPC response")
        return self


@dataclass(frozen=True, slots=True)
class _Response:
    status: int
    headers: httpx.Headers
    body: bytes

    @property
    def requires_authentication(self) -> bool:
        return self.status in {401, 403}

    def check_status(self) -> None:
        if 300 <= self.status < 400:
            raise CheckFailed(_redirect(self.headers))
        if self.status != 200:
            raise CheckFailed(f"HTTP {self.status}")

    def events(self) -> Iterator[bytes]:
        """The JSON-RPC responses among the complete events of an event stream."""
        if not self.headers.get("content-type", "").startswith("text/event-stream"):
            return
        *complete, _ = self.body.replace(b"\r\n", b"\n").split(b"\n\n")
        for event in complete:
            lines = [line.removeprefix(b"data:").strip() for line in event.split(b"\n") if line.startswith(b"data:")]
            data = b"\n".join(lines)
            if b'"result"' in data or b'"error"' in data:  # not a notification
                yield data


class EndpointChecker:
    """Checks endpoints over one HTTP client."""

    def __init__(self, http: httpx.AsyncClient, clock: Callable[[], datetime]) -> None:
        self._http, self._clock = http, clock

    @classmethod
    @asynccontextmanager
    async def open(cls, policy: AddressPolicy, clock: Callable[[], datetime]) -> AsyncGenerator[Self]:
        """A checker whose HTTP client is closed at the end of the block."""
        transport = await asyncio.to_thread(CheckedTransport, policy)  # loads the system's certificates
        async with httpx.AsyncClient(
            transport=transport,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            trust_env=False,
            follow_redirects=False,
            timeout=None,  # `check` limits the time of all requests together
            headers={"user-agent": "myagent-discovery", "accept-encoding": "identity"},
        ) as http:
            yield cls(http, clock)

    async def check(self, endpoints: ProtocolEndpoints) -> Reachability:
        """Check health and protocols. Every error is a result."""
        started, latency, current = perf_counter(), None, "health"
        passed, notes = [current], list[str]()
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                notes += await self._check_health(endpoints)
                latency = (perf_counter() - started) * 1000
                protocols = (("agent card", endpoints.card, self._check_card), ("MCP", endpoints.mcp, self._check_mcp))
                for current, url, check in protocols:
                    if url is not None:
                        notes += await check(url)
                        passed.append(current)
        except (CheckFailed, ForbiddenAddress, TimeoutError, httpx.HTTPError, httpx.InvalidURL, ssl.SSLError) as error:
            reason = _reason(error)
            return self._result(False, reason if latency is None else f"{current} failed: {reason}", latency)
        *others, last = passed
        summary = f"{', '.join(others)} and {last} respond" if others else f"{last} responds"
        return self._result(True, "; ".join([summary, *notes]), latency)

    def _result(self, ok: bool, reason: str, latency: float | None) -> Reachability:
        printable = " ".join("".join(char if char.isprintable() else " " for char in reason).split())
        milliseconds = None if latency is None else round(latency, 1)
        return Reachability(
            ok=ok, reason=printable[:MAX_REASON_LENGTH], checked_at=self._clock(), latency_ms=milliseconds
        )

    async def _check_health(self, endpoints: ProtocolEndpoints) -> list[str]:
        """Any status below 500 passes: agents report their own state in heartbeats."""
        urls = [endpoints.health] if endpoints.health else [f"{endpoints.endpoint}{path}" for path in HEALTH_PATHS]
        for url in urls:
            async with self._http.stream("GET", url) as response:
                if response.is_redirect:
                    return [_redirect(response.headers)]
                if response.status_code >= 500:
                    raise CheckFailed(f"health returned HTTP {response.status_code}")
                if response.status_code != 404:
                    break
        return []

    async def _check_card(self, url: str) -> list[str]:
        response = await self._request("GET", url, headers={"accept": "application/json"})
        if response.requires_authentication:
            return ["agent card requires authentication"]
        response.check_status()
        try:
            _AgentCard.model_validate_json(response.body)
        except ValidationError as error:
            raise CheckFailed(_invalid(response, error)) from None
        return []

    async def _check_mcp(self, url: str) -> list[str]:
        response, reply = await self._call_mcp(url, "initialize", INITIALIZE)
        if reply is not None and (reply.error or {}).get("code") in {METHOD_NOT_FOUND, UNSUPPORTED_VERSION}:
            headers = {"mcp-protocol-version": CURRENT_VERSION, "mcp-method": "server/discover"}
            response, reply = await self._call_mcp(url, "server/discover", DISCOVER, headers)
        if reply is None:
            return ["MCP requires authentication"]
        if reply.error is not None:
            raise CheckFailed(f"error response: {reply.error.get('message') or reply.error.get('code')}")
        if not {"protocolVersion", "supportedVersions"} & (reply.result or {}).keys():
            raise CheckFailed("the response names no protocol version")
        if (session := response.headers.get("mcp-session-id")) is not None:  # the server would keep it open
            await self._request("DELETE", url, headers={"mcp-session-id": session})
        return []

    async def _call_mcp(
        self, url: str, method: str, params: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> tuple[_Response, _JsonRpcResponse | None]:
        """The response to a JSON-RPC call; no JSON-RPC response where the server requires authentication."""
        call = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        accept = {"accept": "application/json, text/event-stream"}
        response = await self._request("POST", url, headers={**accept, **(headers or {})}, json=call)
        if response.requires_authentication:
            return response, None
        try:
            return response, _JsonRpcResponse.model_validate_json(next(response.events(), response.body))
        except ValidationError as error:
            response.check_status()
            raise CheckFailed(_invalid(response, error)) from None

    async def _request(self, method: str, url: str, **options: Any) -> _Response:
        body = b""
        async with self._http.stream(method, url, **options) as response:
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > MAX_RESPONSE_BYTES:
                    raise CheckFailed(f"the response is larger than {MAX_RESPONSE_BYTES // 1024} KiB")
                partial = _Response(response.status_code, response.headers, body)
                if any(partial.events()):  # an event stream may stay open after the response
                    return partial
        return _Response(response.status_code, response.headers, body)


def _invalid(response: _Response, error: ValidationError) -> str:
    try:
        from_json(response.body)
    except ValueError:
        kind = response.headers.get("content-type", "").partition(";")[0] or "without a content type"
        return f"invalid response: not JSON but {kind[:64]}"
    problems = [(".".join(str(part) for part in one["loc"][:1]), one["msg"]) for one in error.errors()[:3]]
    return "invalid response: " + "; ".join(f"{field}: {text}" if field else text for field, text in problems)


def _redirect(headers: httpx.Headers) -> str:
    """The target of a redirect, without its query, which may contain a token."""
    return f"redirects to {headers.get('location', 'nowhere').partition('?')[0][:128]}, which is not followed"


def _reason(error: BaseException) -> str:
    match error:
        case CheckFailed():
            return str(error)
        case ForbiddenAddress():
            return f"not called: {error}"
        case TimeoutError():
            return f"timed out after {CHECK_SECONDS:g} s"
        case httpx.ConnectError() | ssl.SSLError():
            return _connect_reason(error)
        case httpx.RemoteProtocolError():
            return "does not speak HTTP"
        case httpx.NetworkError():
            return "connection lost"
        case _:
            return "invalid URL"


def _connect_reason(error: BaseException) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"certificate not trusted: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return "TLS handshake failed"
        if isinstance(cause, OSError) and cause.errno in CONNECT_ERRORS:
            return CONNECT_ERRORS[cause.errno]
        cause = cause.__cause__ or cause.__context__
    return str(error) or "cannot connect"
