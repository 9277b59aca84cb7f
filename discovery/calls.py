"""One call to a registry, and what can go wrong with it. Knows of no lifetime and no second try.

Imports nothing of discovery but the wire, and loads httpx when the first call is made: an agent without discovery
should not pay for it.
"""

import asyncio
import json
import ssl
from collections.abc import Callable
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack, cast
from urllib.parse import quote, urlencode

from pydantic import TypeAdapter, ValidationError

from discovery.contract import AgentRecord, Registered, Registration, is_loopback, utc_now
from discovery.filters import Chosen, Filters
from discovery.last_list import LastList, Shelf

if TYPE_CHECKING:
    import httpx

CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 5.0
LARGEST_ANSWER_BYTES = 256 * 1024
LARGEST_LIST_BYTES = 64 * 1024 * 1024

Answer = TypeVar("Answer")
_AGENTS = TypeAdapter(list[AgentRecord])
_AGENT = TypeAdapter(AgentRecord)
_REGISTERED = TypeAdapter(Registered)


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


class DiscoveryClient:
    """Calls one registry. Opens no connection before the first call; close it, or use it as `async with`.

    Every method raises `DiscoveryError` within seconds, and nothing else, when the registry cannot or will not.
    `tls` is what it trusts and shows, as `client_tls` makes it; else it trusts the system's authorities.
    With a `cache_folder`, every list is kept there, and `last_agents` has it while the registry is away.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        transport: "httpx.AsyncBaseTransport | None" = None,
        now: Callable[[], datetime] = utc_now,
        cache_folder: Path | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._token = token
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
        return _read(_REGISTERED, known | cast("dict[str, Any]", answer))

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
            return wanted.choose(_read(_AGENTS, await self._call("GET", "/agents", limit=LARGEST_LIST_BYTES)))
        agents = _read(_AGENTS, answer)
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
        return _read(_AGENT, answer)

    async def _call(
        self, method: str, path: str, *, content: bytes | None = None, limit: int = LARGEST_ANSWER_BYTES
    ) -> Any:
        return (await self._exchange(method, path, content=content, limit=limit))[0]

    async def _exchange(
        self, method: str, path: str, *, content: bytes | None = None, limit: int = LARGEST_ANSWER_BYTES
    ) -> "tuple[Any, httpx.Headers]":
        import httpx

        headers = {} if content is None else {"content-type": "application/json"}
        try:
            async with (
                asyncio.timeout(ANSWER_SECONDS),  # over all: a body that drips must not keep us
                self._client().stream(method, self.url + path, content=content, headers=headers) as response,
            ):
                body = await _bounded(response, limit)
        except TimeoutError as error:
            raise DiscoveryError(f"no answer within {ANSWER_SECONDS:g} s") from error
        except httpx.LocalProtocolError as error:  # its text quotes the header at fault, which may be the token
            raise DiscoveryError("the request cannot be sent: is there a line break in the token?") from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            raise DiscoveryError(f"{type(error).__name__}: {one_line(error)}".rstrip(": ")) from error
        if not response.is_success:
            raise _refusal(response, body, self._now())
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
            if self._token:
                headers["authorization"] = f"Bearer {self._token}"
            self._http = httpx.AsyncClient(
                transport=self._transport,
                verify=True if self._tls is None else self._tls,
                headers=headers,
                timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
                limits=httpx.Limits(max_connections=4, keepalive_expiry=2.0),
                trust_env=not is_loopback(self.url),  # a proxy cannot reach this machine's loopback
            )
        return self._http


async def _bounded(response: "httpx.Response", limit: int) -> bytes:
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


def _refusal(response: "httpx.Response", body: bytes, now: datetime) -> DiscoveryError:
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


def _read(shape: TypeAdapter[Answer], answer: Any) -> Answer:
    try:
        return shape.validate_python(answer)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"][:6])
        raise DiscoveryError(f"the answer is not a registry's: {where} {first['msg']}") from error


def one_line(text: object) -> str:
    """Text from elsewhere, made fit for one line of a log."""
    return " ".join(str(text).split())[:300]
