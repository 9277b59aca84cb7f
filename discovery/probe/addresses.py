"""Which addresses the probe may call, and an HTTP transport that connects to no others.

Endpoints come from registrations, so calling them freely would be a server-side request forgery. Some addresses are
never called, whatever the settings allow: link-local addresses and metadata services give out the credentials of the
machine; multicast, unspecified and reserved addresses are not endpoints.
"""

import asyncio
import socket
import ssl
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Self

import httpx

from discovery.settings import Network, parse_allowed

Address = IPv4Address | IPv6Address

METADATA_HOSTS = frozenset({"metadata.google.internal", "metadata.goog"})
METADATA_ADDRESSES = frozenset(
    ip_address(one)
    for one in (
        "100.100.100.200",  # Alibaba
        "168.63.129.16",  # Azure
        "192.0.0.192",  # Oracle
        "fd00:ec2::254",  # AWS
        "fd20:ce::254",  # Google
    )
)
LOOKUPS_AT_ONCE = 20
_THIS_NETWORK = IPv4Network("0.0.0.0/8")
_NAT64 = IPv6Network("64:ff9b::/96")


class ForbiddenAddress(Exception):
    """An address that must not be called; the message names it and the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressPolicy:
    """Allows the named hosts and networks; without any, every host but the ones that are never called.

    `loopback` allows the loopback addresses of this machine where no hosts and networks are named.
    """

    hosts: tuple[str, ...] = ()
    networks: tuple[Network, ...] = ()
    loopback: bool = False

    @classmethod
    def of(cls, allowed: Iterable[str], *, loopback: bool) -> Self:
        """A policy from the entries of `DISCOVERY_PROBE_ALLOW`."""
        hosts, networks = parse_allowed(allowed)
        return cls(hosts=hosts, networks=networks, loopback=loopback)

    def check(self, host: str, address: Address) -> None:
        """Check a host name and the address that it resolves to.

        Raises:
            ForbiddenAddress: The address must not be called.
        """
        target = _embedded_ipv4(address)
        shown = host if host == str(target) else f"{host} ({target})"
        if (kind := _forbidden_kind(host, target)) is not None:
            raise ForbiddenAddress(f"{shown} is {kind}")
        if self.hosts or self.networks:
            if not self._allows(host, target):
                raise ForbiddenAddress(f"{shown} is not in DISCOVERY_PROBE_ALLOW")
        elif target.is_loopback and not self.loopback:
            raise ForbiddenAddress(f"{shown} is the registry's own machine and not in DISCOVERY_PROBE_ALLOW")

    def _allows(self, host: str, address: Address) -> bool:
        name = host.lower().rstrip(".")
        return any(fnmatchcase(name, pattern) for pattern in self.hosts) or any(
            address in network for network in self.networks
        )


def _forbidden_kind(host: str, address: Address) -> str | None:
    if host.lower().rstrip(".") in METADATA_HOSTS or address in METADATA_ADDRESSES:
        return "a cloud's metadata service"
    if address.is_link_local:
        return "a link-local address"
    if address.is_multicast:
        return "a multicast address"
    if address.is_unspecified or address in _THIS_NETWORK:
        return "an unspecified address"
    if address.is_reserved and not address.is_loopback:
        return "a reserved address"
    return None


def _embedded_ipv4(address: Address) -> Address:
    """The IPv4 address inside a mapped, 6to4 or NAT64 address."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


class CheckedTransport(httpx.AsyncBaseTransport):
    """Resolves each host once, checks the addresses, and connects to a checked one: DNS cannot change in between.

    Certificates are still verified against the host name. Proxies of the environment are ignored, because they would
    resolve the name themselves. Raises `ForbiddenAddress` in addition to the errors of httpx.
    """

    def __init__(self, policy: AddressPolicy) -> None:
        self._policy = policy
        # No connection is kept: one opened for a host must not serve another host at the same address.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        self._transport = httpx.AsyncHTTPTransport(verify=ssl.create_default_context(), trust_env=False, limits=limits)
        # Own threads: a hanging name server must not block the threads of the rest of the process.
        self._resolver = ThreadPoolExecutor(LOOKUPS_AT_ONCE, thread_name_prefix="discovery-lookup")

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        first_error: httpx.ConnectError | None = None
        for address in await self._allowed_addresses(request):
            try:
                return await self._transport.handle_async_request(_addressed(request, address))
            except httpx.ConnectError as error:
                first_error = first_error or error
        raise first_error or httpx.ConnectError("the host name has no address", request=request)

    async def aclose(self) -> None:
        self._resolver.shutdown(wait=False, cancel_futures=True)
        await self._transport.aclose()

    async def _allowed_addresses(self, request: httpx.Request) -> list[Address]:
        allowed: list[Address] = []
        refused: ForbiddenAddress | None = None
        for address in await self._resolve(request):
            try:
                self._policy.check(request.url.host, address)
                allowed.append(address)
            except ForbiddenAddress as error:
                refused = refused or error
        if refused is not None and not allowed:
            raise refused
        return allowed

    async def _resolve(self, request: httpx.Request) -> list[Address]:
        host, port = request.url.host, request.url.port or 0
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(
                self._resolver, socket.getaddrinfo, host, port, socket.AF_UNSPEC, socket.SOCK_STREAM
            )
        except (OSError, UnicodeError):
            raise httpx.ConnectError(f"host name {host[:128]} cannot be resolved", request=request) from None
        return [ip_address(sockaddr[0]) for *_, sockaddr in found]


def _addressed(request: httpx.Request, address: Address) -> httpx.Request:
    """The same request to an address; the Host header and the name in the certificate stay."""
    return httpx.Request(
        request.method,
        request.url.copy_with(host=str(address)),
        headers=request.headers,
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": request.url.host},
    )
