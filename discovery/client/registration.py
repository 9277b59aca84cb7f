"""Registration for a lifetime: `registered()` sends heartbeats in the background and removes the entry at the end.

The registry is optional at run time: its errors are logged and retried, and never reach the agent or its callers.
"""

import asyncio
import logging
import random as randomness
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from inspect import isawaitable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import uuid4

from discovery.client.client import DiscoveryClient, RotatingToken
from discovery.client.responses import DiscoveryError, RegistrationRefused, one_line
from discovery.contract import Registered, Registration, utc_now

if TYPE_CHECKING:
    import httpx

RegistrationSource = Registration | Callable[[], Registration | Awaitable[Registration | None] | None]
"""A registration, or a function that is called before every heartbeat; None skips one heartbeat."""

REMOVAL_SECONDS = 2.0
REFUSED_RETRY_SECONDS = 300.0
MAX_BACKOFF_SECONDS = 60.0
MAX_WAIT_SECONDS = 3600.0  # limits the intervals that a registry asks for
READY_INTERVAL_SECONDS = 0.1
READY_TIMEOUT_SECONDS = 2.0
MAX_LOGGED = 100
LOOPBACK_OF_WILDCARD = {"0.0.0.0": "127.0.0.1", "::": "::1"}

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class RegistrationState:
    """The state of the registration, for the agent's own `/health`."""

    registered: bool = False  # the last attempt succeeded
    last_error: str | None = None
    last_success: datetime | None = None


@asynccontextmanager
async def registered(
    registration: RegistrationSource,
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
    """Keep an agent registered while the block runs. Starts at once; errors of the registry are never raised.

    Args:
        registration: The registration, or a function that is called before every heartbeat, so that status and
            endpoint can change; None from it skips a heartbeat. A missing `boot_id` is added, and `ttl_seconds` is
            three times the heartbeat.
        url: The address of the registry.
        token: The bearer token; a rotating one is renewed once when the registry refuses it.
        heartbeat_seconds: The interval of heartbeats, unless the registry asks for another; None registers once.
        ready: A URL of the agent that must respond first, or a coroutine function that returns whether it would.
        tls: The authorities to trust and the certificate to show.
        transport: The httpx transport, for tests.
        sleep: Waits a number of seconds.
        random: Uniform in [0, 1).
        now: The clock, for `last_success` and for a `Retry-After` that is a date.
    """
    client = DiscoveryClient(url, token=token, transport=transport, now=now, tls=tls)
    heartbeat = _Heartbeat(registration, client, heartbeat_seconds, ready, sleep, random, now)
    task = asyncio.create_task(heartbeat.run(), name="discovery-registration")
    try:
        yield heartbeat.state
    finally:
        await _uninterrupted(heartbeat.stop(task))


@dataclass
class _Heartbeat:
    """Registers, repeats it, and logs the first of several equal errors."""

    source: RegistrationSource
    client: DiscoveryClient
    seconds: float | None
    ready: str | Callable[[], Awaitable[bool]] | None
    sleep: Callable[[float], Awaitable[object]]
    random: Callable[[], float]
    now: Callable[[], datetime]

    def __post_init__(self) -> None:
        self.state = RegistrationState()
        self._boot_id = str(uuid4())
        self._sent: Registration | None = None
        self._failures = 0
        self._logged: set[str] = set()

    async def run(self) -> None:
        while not await self._is_ready():
            await self.sleep(READY_INTERVAL_SECONDS)
        while True:
            try:
                registration = await self._registration()
                if registration is None:
                    delay = self._interval()
                else:
                    self._sent = registration
                    delay = self._succeeded(await self.client.register(registration))
            except Exception as error:  # nothing that fails in this background task may reach the agent
                delay = self._failed(error)
            if delay is None:
                return
            await self.sleep(delay)

    async def stop(self, task: "asyncio.Task[None]") -> None:
        with suppress(Exception):  # best effort: the lease ends by itself
            async with asyncio.timeout(REMOVAL_SECONDS):
                task.cancel()
                await asyncio.wait({task})
                if self._sent is not None:
                    await self.client.remove(
                        self._sent.name, instance_id=self._sent.instance_id, boot_id=self._sent.boot_id
                    )
        with suppress(Exception):
            await self.client.aclose()

    async def _is_ready(self) -> bool:
        try:
            if self.ready is None:
                return True
            return await (_responds(self.ready) if isinstance(self.ready, str) else self.ready())
        except Exception as error:
            logger.debug("not ready yet: %s", one_line(error))
            return False

    async def _registration(self) -> Registration | None:
        result = self.source if isinstance(self.source, Registration) else self.source()
        registration = await result if isawaitable(result) else result
        if registration is None:
            return None
        ttl = None if self.seconds is None else 3 * self.seconds
        return registration.model_copy(update={"ttl_seconds": ttl, "boot_id": registration.boot_id or self._boot_id})

    def _succeeded(self, response: Registered) -> float | None:
        """Returns the seconds until the next heartbeat, None where there is none."""
        recovered = self._failures > 0 or not self.state.last_success
        self._failures = 0
        self._logged -= {"unreachable", "refused", "superseded"}
        self.state.registered, self.state.last_error, self.state.last_success = True, None, self.now()
        logger.log(
            logging.INFO if recovered else logging.DEBUG,
            "registered with %s as %s/%s",
            self.client.address,
            one_line(response.name),
            one_line(response.instance_id),
        )
        for notice in response.warnings:
            hint = f" {notice.hint}" if notice.hint else ""
            self._log_once(notice.code, logging.WARNING, "registry warning: %s", one_line(notice.message + hint))
        if self.seconds is None:
            return None
        interval = self.seconds
        if response.lease is not None:  # the registry decides, but not on a flood, nor on a pause beyond the lease
            least = min(self.seconds, 1.0)
            interval = max(least, min(response.lease.interval_seconds, response.lease.ttl_seconds, MAX_WAIT_SECONDS))
        return interval * (0.9 + 0.2 * self.random())

    def _failed(self, error: Exception) -> float:
        """Returns the seconds until the next attempt."""
        self._failures += 1
        self.state.registered, self.state.last_error = False, one_line(error) or type(error).__name__
        address = self.client.address
        if isinstance(error, RegistrationRefused):
            message = "%s refused the registration (%s); retrying every 5 minutes"
            self._log_once("refused", logging.ERROR, message, address, one_line(error))
            return max(REFUSED_RETRY_SECONDS, min(error.retry_after or 0.0, MAX_WAIT_SECONDS))
        if isinstance(error, DiscoveryError) and error.code == "superseded" and self._sent is not None:
            message = (
                "another process registered as %s/%s with %s after this one: stop one of them, or give each its own "
                "instance_id; this one stays unlisted until then"
            )
            name, instance_id = one_line(self._sent.name), one_line(self._sent.instance_id)
            self._log_once("superseded", logging.WARNING, message, name, instance_id, address)
            return self._interval()
        message = "cannot register with %s (%s); retrying in the background"
        self._log_once("unreachable", logging.WARNING, message, address, self.state.last_error)
        # Full jitter, and never slower than the heartbeat: after an outage the list is complete within one interval.
        ceiling = min(MAX_BACKOFF_SECONDS, self.seconds or MAX_BACKOFF_SECONDS)
        delay = min(ceiling, 2.0 ** min(self._failures - 1, 10)) * self.random()
        retry_after = error.retry_after if isinstance(error, DiscoveryError) else None
        if retry_after:  # never earlier, and with jitter, so that a fleet does not return at once
            delay = max(delay, min(retry_after, MAX_WAIT_SECONDS) * (1 + 0.1 * self.random()))
        return delay

    def _interval(self) -> float:
        return (self.seconds or MAX_BACKOFF_SECONDS) * (0.9 + 0.2 * self.random())

    def _log_once(self, kind: str, level: int, message: str, *arguments: object) -> None:
        """Log at the given level the first time, then at DEBUG until a success."""
        logger.log(logging.DEBUG if kind in self._logged else level, message, *arguments)
        if len(self._logged) < MAX_LOGGED:  # codes of warnings come from the registry
            self._logged.add(kind)


async def _responds(url: str) -> bool:
    """Whether anything responds at a URL of this process, whatever its status and certificate."""
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
        return True  # the server requires a client certificate


async def _uninterrupted(work: Coroutine[Any, Any, None]) -> None:
    """Finish bounded work during a cancellation, and raise the cancellation afterwards."""
    task = asyncio.ensure_future(work)
    cancellation: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancellation = error
    if cancellation is not None:
        raise cancellation


def own_endpoint(port: int, *, registry: str, host: str = "0.0.0.0", secure: bool = False) -> str:
    """The URL at which others reach a server that listens on `host` and `port`.

    For a wildcard host this is the machine's address on the route to the registry. Resolves the registry's name, which
    may block for seconds: call it before the event loop runs, or in a thread.
    """
    return local_endpoint(port, _address_towards(registry) if host in LOOPBACK_OF_WILDCARD else host, secure=secure)


def local_endpoint(port: int, host: str, *, secure: bool = False) -> str:
    """The URL at which this machine reaches a server that listens on `host` and `port`."""
    address = LOOPBACK_OF_WILDCARD.get(host, host)
    authority = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    return f"{'https' if secure else 'http'}://{authority}"


def _address_towards(url: str) -> str:
    """This machine's address on the route to a URL's host. Connecting a UDP socket sends nothing."""
    try:
        parts = urlsplit(url)
        for family, kind, protocol, _, address in socket.getaddrinfo(
            parts.hostname, parts.port or 80, type=socket.SOCK_DGRAM
        ):
            with socket.socket(family, kind, protocol) as probe:
                probe.connect(address)
                return str(probe.getsockname()[0])
    except (OSError, ValueError):
        logger.debug("no route to the registry yet", exc_info=True)
    return socket.gethostname()
