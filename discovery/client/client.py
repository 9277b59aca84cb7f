"""What agents, MCP servers and portals use to talk to a registry: `DiscoveryClient`, and `registered()` for a lifetime.

Discovery is a help, never a need: whatever goes wrong behind `registered()` is logged and tried again, and reaches
neither the agent nor its users.
"""

import asyncio
import logging
import random as randomness
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from inspect import isawaitable
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from discovery.client.calls import DiscoveryClient, RotatingToken
from discovery.client.endpoint import local_endpoint, own_endpoint
from discovery.client.event_stream import RegistryEvent
from discovery.client.last_list import LastList
from discovery.client.replies import DiscoveryError, RegistrationRefused, one_line
from discovery.contract.filters import Chosen
from discovery.contract.models import Registered, Registration, utc_now

if TYPE_CHECKING:
    import httpx

__all__ = [
    "Chosen",
    "DiscoveryClient",
    "DiscoveryError",
    "LastList",
    "RegistrationRefused",
    "RegistrationState",
    "RegistryEvent",
    "RotatingToken",
    "local_endpoint",
    "own_endpoint",
    "registered",
]

Said = Registration | Callable[[], Registration | Awaitable[Registration | None] | None]
"""What to register: the same for ever, or asked for before every attempt; None is to say nothing this time."""

GOODBYE_SECONDS = 2.0
REFUSED_RETRY_SECONDS = 300.0
LONGEST_BACKOFF_SECONDS = 60.0
LONGEST_WAIT_SECONDS = 3600.0  # for what a registry asks: it may be wrong, and we want to come back some day
READY_INTERVAL_SECONDS = 0.1
READY_TIMEOUT_SECONDS = 2.0

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class RegistrationState:
    """How it stands with the registry, for the agent's own `/health`."""

    registered: bool = False  # the last attempt was answered with yes
    last_error: str | None = None
    last_success: datetime | None = None


@asynccontextmanager
async def registered(
    registration: Said,
    *,
    url: str,
    token: str | RotatingToken | None = None,
    heartbeat_seconds: float | None = None,
    ready: str | Callable[[], Awaitable[bool]] | None = None,
    tls: ssl.SSLContext | None = None,
    transport: "httpx.AsyncBaseTransport | None" = None,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    random: Callable[[], float] = randomness.random,
    now: Callable[[], datetime] = utc_now,
) -> AsyncGenerator[RegistrationState]:
    """Keep an agent registered while the block runs; returns at once and never raises on the registry's account.

    Args:
        registration: What to say, or a function that is asked before every attempt, so that status and endpoint can
            change; where it gives None, that heartbeat is left out and the lease runs on. A `boot_id` is added where
            there is none, and `ttl_seconds` follows from the heartbeat.
        url: The registry's address.
        token: The registry's bearer token; one that rotates is renewed once when it is refused.
        heartbeat_seconds: Repeat at about this pace (the registry's word counts); None registers once, for ever.
        ready: A URL of the agent's own that must answer first, or a coroutine function that says whether it would.
        tls: What the registry's certificate is checked against and which one is shown to it, as `client_tls` makes it.
        transport: The wire, for tests.
        sleep: Waits so many seconds.
        random: Uniform in [0, 1).
        now: The clock, for `last_success` and for a `Retry-After` that is a date.
    """
    client = DiscoveryClient(url, token=token, transport=transport, now=now, tls=tls)
    registrar = _Registrar(registration, client, heartbeat_seconds, ready, sleep, random, now)
    task = asyncio.create_task(registrar.run(), name="discovery-registration")
    try:
        yield registrar.state
    finally:
        await _uninterrupted(registrar.leave(task))


class _Registrar:
    def __init__(
        self,
        registration: Said,
        client: DiscoveryClient,
        heartbeat_seconds: float | None,
        ready: str | Callable[[], Awaitable[bool]] | None,
        sleep: Callable[[float], Awaitable[object]],
        random: Callable[[], float],
        now: Callable[[], datetime],
    ) -> None:
        self.state = RegistrationState()
        self._registration, self._client, self._heartbeat, self._ready = registration, client, heartbeat_seconds, ready
        self._sleep, self._random, self._now = sleep, random, now
        self._boot_id = str(uuid4())
        self._sent: Registration | None = None
        self._failures = 0
        self._told: set[str] = set()  # what was logged aloud and is not to be said again

    async def run(self) -> None:
        while not await self._answers():
            await self._sleep(READY_INTERVAL_SECONDS)
        while True:
            try:
                current = await self._current()
                if current is None:
                    delay = self._interval()
                else:
                    self._sent = current
                    delay = self._succeeded(await self._client.register(current))
            except Exception as error:  # a background loop: nothing that happens here may reach the agent
                delay = self._failed(error)
            if delay is None:
                return
            await self._sleep(delay)

    async def leave(self, task: "asyncio.Task[None]") -> None:
        with suppress(Exception):  # best effort: the lease is the truth
            async with asyncio.timeout(GOODBYE_SECONDS):
                task.cancel()
                await asyncio.wait({task})
                if self._sent is not None:
                    await self._client.remove(
                        self._sent.name, instance_id=self._sent.instance_id, boot_id=self._sent.boot_id
                    )
        with suppress(Exception):
            await self._client.aclose()

    async def _answers(self) -> bool:
        try:
            if self._ready is None:
                return True
            return await (_is_served(self._ready) if isinstance(self._ready, str) else self._ready())
        except Exception as error:  # not yet, whatever the reason
            logger.debug("not serving yet: %s", one_line(error))
            return False

    async def _current(self) -> Registration | None:
        said = self._registration if isinstance(self._registration, Registration) else self._registration()
        registration = await said if isawaitable(said) else said
        if registration is None:
            return None
        ttl = None if self._heartbeat is None else 3 * self._heartbeat
        changes = {"ttl_seconds": ttl, "boot_id": registration.boot_id or self._boot_id}
        return registration.model_copy(update=changes)

    def _succeeded(self, answer: Registered) -> float | None:
        """Seconds until the next beat, or None where there is none."""
        again = self._failures > 0 or not self.state.last_success
        self._failures = 0
        self._told -= {"unreachable", "refused", "superseded"}
        self.state.registered, self.state.last_error, self.state.last_success = True, None, self._now()
        logger.log(
            logging.INFO if again else logging.DEBUG,
            "registered with %s as %s/%s",
            self._client.address,
            one_line(answer.name),
            one_line(answer.instance_id),
        )
        for notice in answer.warnings:
            hint = f" {notice.hint}" if notice.hint else ""
            level = logging.DEBUG if self._told_before(notice.code) else logging.WARNING
            logger.log(level, "the registry warns: %s", one_line(notice.message + hint))
        if self._heartbeat is None:
            return None
        interval = self._heartbeat
        if answer.lease is not None:  # its word counts, within reason: neither a storm nor silence beyond the lease
            least = min(self._heartbeat, 1.0)
            interval = max(least, min(answer.lease.interval_seconds, answer.lease.ttl_seconds, LONGEST_WAIT_SECONDS))
        return interval * (0.9 + 0.2 * self._random())

    def _failed(self, error: Exception) -> float:
        """Seconds until the next try."""
        self._failures += 1
        self.state.registered, self.state.last_error = False, one_line(error) or type(error).__name__
        where = self._client.address
        if isinstance(error, RegistrationRefused):
            level = logging.DEBUG if self._told_before("refused") else logging.ERROR
            logger.log(level, "%s refuses this agent (%s); it is asked again every 5 minutes", where, one_line(error))
            return max(REFUSED_RETRY_SECONDS, min(error.retry_after or 0.0, LONGEST_WAIT_SECONDS))
        if isinstance(error, DiscoveryError) and error.code == "superseded":
            self._tell_of_the_other(where)
            return self._interval()
        level = logging.DEBUG if self._told_before("unreachable") else logging.WARNING
        logger.log(level, "cannot register with %s (%s); serving goes on, trying again", where, self.state.last_error)
        # Full jitter, and never slower than the heartbeat: a registry that is back is whole after one interval.
        ceiling = min(LONGEST_BACKOFF_SECONDS, self._heartbeat or LONGEST_BACKOFF_SECONDS)
        delay = min(ceiling, 2.0 ** min(self._failures - 1, 10)) * self._random()
        asked = error.retry_after if isinstance(error, DiscoveryError) else None
        if asked:  # never earlier than asked, and not all of a fleet in the same instant
            delay = max(delay, min(asked, LONGEST_WAIT_SECONDS) * (1 + 0.1 * self._random()))
        return delay

    def _tell_of_the_other(self, where: str) -> None:
        assert self._sent is not None
        logger.log(
            logging.DEBUG if self._told_before("superseded") else logging.WARNING,
            "another process registered as %s/%s with %s after this one: stop one of them, or give each its own "
            "instance_id; until then this one is not listed, and goes on trying",
            one_line(self._sent.name),
            one_line(self._sent.instance_id),
            where,
        )

    def _interval(self) -> float:
        return (self._heartbeat or LONGEST_BACKOFF_SECONDS) * (0.9 + 0.2 * self._random())

    def _told_before(self, what: str) -> bool:
        before = what in self._told
        if len(self._told) < 100:  # codes come from outside
            self._told.add(what)
        return before


async def _is_served(url: str) -> bool:
    """Whether anything at all answers there: the port is our own, so its certificate and its status say nothing."""
    import httpx

    try:
        async with (
            httpx.AsyncClient(trust_env=False, verify=False, timeout=READY_TIMEOUT_SECONDS) as http,
            http.stream("GET", url),
        ):
            return True
    except (httpx.ReadError, httpx.RemoteProtocolError):
        if not url.startswith("https://"):
            raise
        return True  # behind the handshake: it is served, to those with a certificate


async def _uninterrupted(work: Coroutine[Any, Any, None]) -> None:
    """Finish bounded work although we are being cancelled, and pass the cancellation on afterwards."""
    task = asyncio.ensure_future(work)
    interruption: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            interruption = error
    if interruption is not None:
        raise interruption
