"""One call to a registry. Knows of no lifetime, and of no second try but that of a stream which broke off.

Imports nothing of discovery but the wire, and loads httpx when the first call is made: an agent without discovery
should not pay for it.
"""

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

from discovery.client.event_stream import RegistryEvent, events_in
from discovery.client.last_list import LastList, Shelf
from discovery.client.replies import DiscoveryError, bounded, explained, one_line, read, refusal
from discovery.contract.filters import Chosen, Filters
from discovery.contract.models import AgentRecord, Registered, Registration, is_loopback, utc_now

if TYPE_CHECKING:
    import httpx

CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 5.0
SILENCE_SECONDS = 30.0  # a stream of events says something every ten seconds, if only that it is there
RESUME_SECONDS = 1.0
LARGEST_ANSWER_BYTES = 256 * 1024
LARGEST_LIST_BYTES = 64 * 1024 * 1024

_AGENTS = TypeAdapter(list[AgentRecord])
_AGENT = TypeAdapter(AgentRecord)
_REGISTERED = TypeAdapter(Registered)


class RotatingToken(Protocol):
    """A bearer token that may be replaced while it is in use."""

    @property
    def value(self) -> str | None:
        """What to send now."""
        ...

    async def renewed(self, refused: str | None) -> str | None:
        """What to send once in place of a token that was refused; None where there is nothing newer."""
        ...


@dataclass(frozen=True, slots=True)
class _Fixed:
    """A token that stays as it is, or none."""

    value: str | None

    async def renewed(self, refused: str | None) -> str | None:
        return None


class DiscoveryClient:
    """Calls one registry. Opens no connection before the first call; close it, or use it as `async with`.

    Every method raises `DiscoveryError` within seconds, and nothing else, when the registry cannot or will not.
    A `token` that rotates is renewed once when the registry refuses it (`401`).
    `tls` is what it trusts and shows, as `client_tls` makes it; else it trusts the system's authorities.
    With a `cache_folder`, every list is kept there, and `last_agents` has it while the registry is away.
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
        self._token: RotatingToken = _Fixed(token) if token is None or isinstance(token, str) else token
        self._tls = tls
        self._transport = transport
        self._now = now
        self._http: httpx.AsyncClient | None = None
        self._shelf = None if cache_folder is None else Shelf(cache_folder, self.url)

    @property
    def address(self) -> str:
        """The registry's URL as it may be logged: without a user name or password."""
        scheme, _, rest = self.url.rpartition("://")
        authority, slash, path = rest.partition("/")
        return f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}" if scheme else rest

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections; harmless when there are none."""
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()

    async def register(self, registration: Registration) -> Registered:
        """Add or renew one instance of an agent."""
        body = registration.model_dump_json(exclude_none=True).encode()
        answer = await self._call("POST", "/register", content=body)
        if answer is None:  # a registry that knows the minimal contract only may say yes without a word
            answer = {}
        if not isinstance(answer, dict):
            raise DiscoveryError("the registry's answer is not an object")
        known = {"name": registration.name, "instance_id": registration.instance_id}
        return read(_REGISTERED, known | cast("dict[str, Any]", answer))

    async def remove(self, name: str, *, instance_id: str | None = None, boot_id: str | None = None) -> None:
        """Take one instance off the list, or all of a name; no error when it is gone already."""
        chosen = {"instance_id": instance_id, "boot_id": boot_id}
        query = "&".join(f"{key}={quote(value, safe='')}" for key, value in chosen.items() if value is not None)
        await self._call("DELETE", f"/agents/{quote(name, safe='')}" + (f"?{query}" if query else ""))

    async def agents(self, **filters: Unpack[Chosen]) -> list[AgentRecord]:
        """What the registry lists, sorted by name: everything, or what all filters hold for.

        Several values of one filter are alternatives: `agents(status=["stale", "down"], tag="billing")`.
        """
        wanted = Filters.of(filters)
        agents = await self._chosen(wanted)
        if self._shelf is not None:
            await asyncio.to_thread(self._shelf.keep, wanted, agents, self._now())
        return agents

    async def last_agents(self, **filters: Unpack[Chosen]) -> LastList | None:
        """What `agents` last answered, in this process or an earlier one; None where nothing is kept."""
        return None if self._shelf is None else await asyncio.to_thread(self._shelf.find, Filters.of(filters))

    async def _chosen(self, wanted: Filters) -> list[AgentRecord]:
        query = "?" + urlencode(wanted.parameters) if wanted else ""
        try:
            answer, headers = await self._exchange("GET", f"/agents{query}", limit=LARGEST_LIST_BYTES)
        except DiscoveryError as error:
            if not wanted or error.status not in {400, 422} or error.code == "invalid_parameter":
                raise
            return wanted.choose(read(_AGENTS, await self._call("GET", "/agents", limit=LARGEST_LIST_BYTES)))
        agents = read(_AGENTS, answer)
        # A registry of the minimal contract has no filters: it refuses them, or answers with everything.
        return agents if "x-registry-revision" in headers else wanted.choose(agents)

    async def agent(self, name: str) -> AgentRecord | None:
        """One agent, or None where the registry has no such name."""
        try:
            answer = await self._call("GET", f"/agents/{quote(name, safe='')}", limit=LARGEST_LIST_BYTES)
        except DiscoveryError as error:
            if error.code == "agent_not_found":
                return None
            if error.status not in {404, 405}:
                raise
            # A registry of the minimal contract has no such route: the list has the answer.
            return next((agent for agent in await self.agents() if agent.name == name), None)
        return read(_AGENT, answer)

    async def events(self, *, last_id: str | None = None) -> AsyncGenerator[RegistryEvent]:
        """What happens in the registry from now on, or from `last_id` on, as it happens; use it with `aclosing`.

        A stream that breaks off is picked up where it was. The first event of a new one is a `reset`: read `agents()`.

        Raises:
            DiscoveryError: the registry is away, has no such stream (`status` is 404, or what it said instead), or
                breaks it off before anything came. The `id` of the last event is where to go on from.
        """
        while True:
            is_alive = False
            async with aclosing(self._stream(last_id)) as events:
                async for event in events:
                    is_alive = True
                    if event is not None:
                        last_id = event.id or last_id
                        yield event
            if not is_alive:
                raise DiscoveryError("the stream of events broke off before anything came")
            await asyncio.sleep(RESUME_SECONDS * random())  # a registry that restarts has many readers

    async def _stream(self, last_id: str | None) -> AsyncGenerator[RegistryEvent | None]:
        """The events of one connection, until it ends or breaks off."""
        import httpx

        headers = {"accept": "text/event-stream"} | _proof(self._token.value)
        headers |= {} if last_id is None else {"last-event-id": last_id}
        timeout = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS, read=SILENCE_SECONDS)
        request = self._client().stream("GET", f"{self.url}/events", headers=headers, timeout=timeout)
        async with AsyncExitStack() as stack:
            with explained(ANSWER_SECONDS):
                async with asyncio.timeout(ANSWER_SECONDS):
                    response = await stack.enter_async_context(request)
                    if not response.is_success:
                        raise refusal(response, await bounded(response, LARGEST_ANSWER_BYTES), self._now())
            kind = response.headers.get("content-type", "no content type")
            if not kind.startswith("text/event-stream"):
                raise DiscoveryError(f"the answer is no stream but {one_line(kind)}", status=response.status_code)
            events = await stack.enter_async_context(aclosing(events_in(response.aiter_raw())))
            try:
                async for event in events:
                    yield event
            except httpx.TransportError:  # it broke off, or said nothing for too long
                return
            except (ValueError, RecursionError) as error:
                raise DiscoveryError(f"the stream is not a registry's: {one_line(error)}") from error

    async def _call(
        self, method: str, path: str, *, content: bytes | None = None, limit: int = LARGEST_ANSWER_BYTES
    ) -> Any:
        return (await self._exchange(method, path, content=content, limit=limit))[0]

    async def _exchange(
        self, method: str, path: str, *, content: bytes | None = None, limit: int = LARGEST_ANSWER_BYTES
    ) -> "tuple[Any, httpx.Headers]":
        sent = self._token.value
        try:
            return await self._exchanged(method, path, sent, content, limit)
        except DiscoveryError as error:
            newer = await self._token.renewed(sent) if error.status == 401 else None
            if newer is None:
                raise
        return await self._exchanged(method, path, newer, content, limit)

    async def _exchanged(
        self, method: str, path: str, token: str | None, content: bytes | None, limit: int
    ) -> "tuple[Any, httpx.Headers]":
        headers = _proof(token) | ({} if content is None else {"content-type": "application/json"})
        with explained(ANSWER_SECONDS):
            async with (
                asyncio.timeout(ANSWER_SECONDS),  # over all: a body that drips must not keep us
                self._client().stream(method, self.url + path, content=content, headers=headers) as response,
            ):
                body = await bounded(response, limit)
        if not response.is_success:
            raise refusal(response, body, self._now())
        if not body.strip():
            return None, response.headers
        try:
            return json.loads(body), response.headers
        except (ValueError, RecursionError) as error:
            kind = response.headers.get("content-type", "no content type")
            raise DiscoveryError(f"the answer is not JSON but {one_line(kind)}: is this a registry?") from error

    def _client(self) -> "httpx.AsyncClient":
        import httpx

        if self._http is None:
            headers = {"accept": "application/json", "accept-encoding": "identity", "user-agent": "myagent-discovery"}
            self._http = httpx.AsyncClient(
                transport=self._transport,
                verify=True if self._tls is None else self._tls,
                headers=headers,
                timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
                limits=httpx.Limits(max_connections=4, keepalive_expiry=2.0),
                trust_env=not is_loopback(self.url),  # a proxy cannot reach this machine's loopback
            )
        return self._http


def _proof(token: str | None) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"} if token else {}
