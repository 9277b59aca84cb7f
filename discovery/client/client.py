"""Calls to a registry. httpx is imported with the first call, so that importing the client costs nothing."""

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from random import random
from typing import TYPE_CHECKING, Any, Protocol, Self, Unpack, cast
from urllib.parse import quote, urlencode

from pydantic import TypeAdapter

from discovery.client.cache import CachedList, ListCache
from discovery.client.responses import (
    DiscoveryError,
    RegistryEvent,
    error_of,
    one_line,
    parse_events,
    read_body,
    translated_errors,
    validated,
)
from discovery.contract import AgentRecord, Filters, FilterValues, Registered, Registration, is_loopback, utc_now

if TYPE_CHECKING:
    import httpx

CONNECT_SECONDS = 2.0
RESPONSE_SECONDS = 5.0
# A connection outlives the pause between two heartbeats. Shorter than the keep-alive of the registry (75 s) and of
# common proxies, so that this side closes it first.
KEEP_ALIVE_SECONDS = 55.0
STREAM_READ_SECONDS = 30.0  # the registry sends at least a comment every ten seconds
RECONNECT_SECONDS = 1.0
MAX_RESPONSE_BYTES = 256 * 1024
MAX_LIST_BYTES = 64 * 1024 * 1024

_AGENTS = TypeAdapter(list[AgentRecord])
_AGENT = TypeAdapter(AgentRecord)
_REGISTERED = TypeAdapter(Registered)


class RotatingToken(Protocol):
    """A bearer token that can be replaced while it is in use."""

    @property
    def value(self) -> str | None:
        """The current token."""
        ...

    async def renewed(self, refused: str | None) -> str | None:
        """The token to retry with after one was refused; None where there is no newer one."""
        ...


@dataclass(frozen=True, slots=True)
class _StaticToken:
    value: str | None

    async def renewed(self, refused: str | None) -> str | None:
        return None


class DiscoveryClient:
    """A client of one registry, which connects with the first call. Close it, or use it with `async with`.

    Every method raises `DiscoveryError`, and nothing else, within seconds when the call fails.

    Args:
        url: The address of the registry.
        token: The bearer token; a rotating one is renewed once when the registry refuses it (`401`).
        transport: The httpx transport, for tests.
        now: The clock.
        cache_folder: Keep every list there; `cached_agents` returns it while the registry is unavailable.
        tls: The authorities to trust and the certificate to show; the system's authorities without it.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | RotatingToken | None = None,
        transport: "httpx.AsyncBaseTransport | None" = None,
        now: Callable[[], datetime] = utc_now,
        cache_folder: Path | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._token: RotatingToken = _StaticToken(token) if token is None or isinstance(token, str) else token
        self._tls = tls
        self._transport = transport
        self._now = now
        self._http: httpx.AsyncClient | None = None
        self._has_connected = False
        self._cache = None if cache_folder is None else ListCache(cache_folder, self.url)

    @property
    def address(self) -> str:
        """The URL of the registry for logs: without a user name and password."""
        scheme, _, rest = self.url.rpartition("://")
        authority, slash, path = rest.partition("/")
        return f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}" if scheme else rest

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections. The client can be used again afterwards."""
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()

    async def register(self, registration: Registration) -> Registered:
        """Add or renew one instance of an agent."""
        body = registration.model_dump_json(exclude_none=True).encode()
        answer = await self._call("POST", "/register", content=body)
        if answer is None:  # a minimal registry may respond without a body
            answer = {}
        if not isinstance(answer, dict):
            raise DiscoveryError("the registry's response is not an object")
        sent = {"name": registration.name, "instance_id": registration.instance_id}
        return validated(_REGISTERED, sent | cast("dict[str, Any]", answer))

    async def remove(self, name: str, *, instance_id: str | None = None, boot_id: str | None = None) -> None:
        """Remove one instance, or all of a name; no error where it is gone already."""
        parameters = {"instance_id": instance_id, "boot_id": boot_id}
        query = urlencode({key: value for key, value in parameters.items() if value is not None}, quote_via=quote)
        await self._call("DELETE", f"/agents/{quote(name, safe='')}" + (f"?{query}" if query else ""))

    async def agents(self, **filters: Unpack[FilterValues]) -> list[AgentRecord]:
        """List all agents that match the filters, sorted by name.

        Several values of one filter are alternatives: `agents(status=["stale", "down"], tag="billing")`.
        """
        chosen = Filters.of(filters)
        agents = await self._list(chosen)
        if self._cache is not None:
            await asyncio.to_thread(self._cache.store, chosen, agents, self._now())
        return agents

    async def cached_agents(self, **filters: Unpack[FilterValues]) -> CachedList | None:
        """The last result of `agents`, of this process or an earlier one; None where none is cached."""
        return None if self._cache is None else await asyncio.to_thread(self._cache.load, Filters.of(filters))

    async def _list(self, filters: Filters) -> list[AgentRecord]:
        query = "?" + urlencode(filters.parameters) if filters else ""
        try:
            content, headers = await self._exchange("GET", f"/agents{query}", limit=MAX_LIST_BYTES)
        except DiscoveryError as error:
            if not filters or error.status not in {400, 422} or error.code == "invalid_parameter":
                raise
            return filters.apply(validated(_AGENTS, await self._call("GET", "/agents", limit=MAX_LIST_BYTES)))
        agents = validated(_AGENTS, content)
        # A minimal registry has no filters: it rejects them, or returns all agents.
        return agents if "x-registry-revision" in headers else filters.apply(agents)

    async def agent(self, name: str) -> AgentRecord | None:
        """One agent, or None where the registry has no agent of that name."""
        try:
            answer = await self._call("GET", f"/agents/{quote(name, safe='')}", limit=MAX_LIST_BYTES)
        except DiscoveryError as error:
            if error.code == "agent_not_found":
                return None
            if error.status not in {404, 405}:
                raise
            # A minimal registry has no such route, only the list.
            return next((agent for agent in await self.agents() if agent.name == name), None)
        return validated(_AGENT, answer)

    async def events(self, *, last_id: str | None = None) -> AsyncGenerator[RegistryEvent]:
        """Follow the changes of the registry, from now on or from `last_id` on. Use it with `aclosing`.

        A broken connection is resumed. The first event of a new stream is a `reset`: read `agents()`.

        Raises:
            DiscoveryError: The registry is unreachable, has no event stream (`status` is 404, or that of another
                error), or closed the stream before the first event. The `id` of the last event is where to resume.
        """
        while True:
            has_received = False
            async with aclosing(self._stream(last_id)) as events:
                async for event in events:
                    has_received = True
                    if event is not None:
                        last_id = event.id or last_id
                        yield event
            if not has_received:
                raise DiscoveryError("the event stream was closed before the first event")
            await asyncio.sleep(RECONNECT_SECONDS * random())  # a restarted registry has many readers

    async def _stream(self, last_id: str | None) -> AsyncGenerator[RegistryEvent | None]:
        """The events of one connection, until it is closed or lost."""
        import httpx

        headers = {"accept": "text/event-stream"} | _authorization(self._token.value)
        headers |= {} if last_id is None else {"last-event-id": last_id}
        timeout = httpx.Timeout(RESPONSE_SECONDS, connect=CONNECT_SECONDS, read=STREAM_READ_SECONDS)
        request = self._client().stream("GET", f"{self.url}/events", headers=headers, timeout=timeout)
        async with AsyncExitStack() as stack:
            with translated_errors(RESPONSE_SECONDS):
                async with asyncio.timeout(RESPONSE_SECONDS):
                    response = await stack.enter_async_context(request)
                    if not response.is_success:
                        raise error_of(response, await read_body(response, MAX_RESPONSE_BYTES), self._now())
            kind = response.headers.get("content-type", "no content type")
            if not kind.startswith("text/event-stream"):
                raise DiscoveryError(f"not an event stream but {one_line(kind)}", status=response.status_code)
            events = await stack.enter_async_context(aclosing(parse_events(response.aiter_raw())))
            try:
                async for event in events:
                    yield event
            except httpx.TransportError:  # the connection was lost, or was silent for too long
                return
            except (ValueError, RecursionError) as error:
                raise DiscoveryError(f"the event stream is not a registry's: {one_line(error)}") from error

    async def _call(
        self, method: str, path: str, *, content: bytes | None = None, limit: int = MAX_RESPONSE_BYTES
    ) -> Any:
        return (await self._exchange(method, path, content=content, limit=limit))[0]

    async def _exchange(
        self, method: str, path: str, *, content: bytes | None = None, limit: int = MAX_RESPONSE_BYTES
    ) -> "tuple[Any, httpx.Headers]":
        """The decoded body and the headers of a response; retried once with a renewed token."""
        token = self._token.value
        try:
            response, body = await self._send(method, path, token, content, limit)
        except DiscoveryError as error:
            renewed = await self._token.renewed(token) if error.status == 401 else None
            if renewed is None:
                raise
            response, body = await self._send(method, path, renewed, content, limit)
        try:
            return json.loads(body) if body.strip() else None, response.headers
        except (ValueError, RecursionError) as error:
            kind = response.headers.get("content-type", "no content type")
            raise DiscoveryError(f"the response is not JSON but {one_line(kind)}: is this a registry?") from error

    async def _send(
        self, method: str, path: str, token: str | None, content: bytes | None, limit: int
    ) -> "tuple[httpx.Response, bytes]":
        import httpx

        headers = _authorization(token) | ({} if content is None else {"content-type": "application/json"})

        async def send() -> "tuple[httpx.Response, bytes]":
            request = self._client().stream(method, self.url + path, content=content, headers=headers)
            async with request as response:
                return response, await read_body(response, limit)

        with translated_errors(RESPONSE_SECONDS):
            async with asyncio.timeout(RESPONSE_SECONDS):  # for the whole exchange, however slow the body arrives
                try:
                    response, body = await send()
                except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                    # The server may have closed the kept connection just then. Every call can be repeated safely.
                    if not self._has_connected:
                        raise
                    response, body = await send()
        self._has_connected = True
        if not response.is_success:
            raise error_of(response, body, self._now())
        return response, body

    def _client(self) -> "httpx.AsyncClient":
        import httpx

        if self._http is None:
            headers = {"accept": "application/json", "accept-encoding": "identity", "user-agent": "myagent-discovery"}
            self._http = httpx.AsyncClient(
                transport=self._transport,
                verify=True if self._tls is None else self._tls,
                headers=headers,
                timeout=httpx.Timeout(RESPONSE_SECONDS, connect=CONNECT_SECONDS),
                limits=httpx.Limits(max_connections=4, keepalive_expiry=KEEP_ALIVE_SECONDS),
                trust_env=not is_loopback(self.url),  # a proxy cannot reach this machine's loopback
            )
        return self._http


def _authorization(token: str | None) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"} if token else {}
