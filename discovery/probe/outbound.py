"""The way out of the registry: an HTTP transport that connects to nothing but an address that was checked."""

import asyncio
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address

import httpx

from discovery.probe.addresses import Address, Forbidden, Rules

LOOKUPS_AT_ONCE = 20


class CheckedTransport(httpx.AsyncBaseTransport):
    """Looks the name up once, checks what it stands for, and connects to that, so the name cannot mean another later.

    Certificates are still checked against the name. Proxies of the environment are not used: they would choose the
    address themselves. Raises `Forbidden` besides what httpx raises.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        # No connection is kept: one that was made for a name must not serve another name at the same address.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        self._wire = httpx.AsyncHTTPTransport(verify=ssl.create_default_context(), trust_env=False, limits=limits)
        # Its own threads: a name server that hangs must not keep the rest of the process from using the common ones.
        self._lookups = ThreadPoolExecutor(LOOKUPS_AT_ONCE, thread_name_prefix="discovery-lookup")

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        failure: httpx.ConnectError | None = None
        for address in await self._allowed(request):
            try:
                return await self._wire.handle_async_request(_towards(request, address))
            except httpx.ConnectError as error:  # the next address of the name may answer
                failure = failure or error
        raise failure or httpx.ConnectError("its name stands for no address", request=request)

    async def aclose(self) -> None:
        self._lookups.shutdown(wait=False, cancel_futures=True)
        await self._wire.aclose()

    async def _allowed(self, request: httpx.Request) -> list[Address]:
        """The addresses that may be called; Forbidden where there are only others."""
        host = request.url.host
        allowed: list[Address] = []
        refused: Forbidden | None = None
        for address in await self._addresses(request):
            try:
                self._rules.check(host, address)
                allowed.append(address)
            except Forbidden as error:
                refused = refused or error
        if refused is not None and not allowed:
            raise refused
        return allowed

    async def _addresses(self, request: httpx.Request) -> list[Address]:
        host, port = request.url.host, request.url.port or 0
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(
                self._lookups, socket.getaddrinfo, host, port, socket.AF_UNSPEC, socket.SOCK_STREAM
            )
        except (OSError, UnicodeError):
            raise httpx.ConnectError(f"the name {host[:128]} is not known here", request=request) from None
        return [ip_address(where[0]) for *_, where in found]


def _towards(request: httpx.Request, address: Address) -> httpx.Request:
    """The same request to a number; its Host header and the name in its certificate stay."""
    return httpx.Request(
        request.method,
        request.url.copy_with(host=str(address)),
        headers=request.headers,
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": request.url.host},
    )
