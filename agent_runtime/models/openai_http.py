"""HTTP below the official client: aiohttp, which stays fast with hundreds of connections, behind httpx's interface.

Imported when the first client is made, as the client itself is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager
from functools import cache, lru_cache
from ssl import SSLContext
from typing import Any
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx2

_PIECE_BYTES = 64 * 1024


class LeanClient(httpx2.AsyncClient):
    """Sends what the official client has put together, and adds nothing of its own to it."""

    def __init__(self, **settings: Any) -> None:
        self._connections = AiohttpTransport()
        super().__init__(transport=self._connections, follow_redirects=True, **settings)

    def build_request(
        self, method: str, url: httpx2.URL | str, *, headers: Any = None, content: Any = None, **more: Any
    ) -> httpx2.Request:
        timeout = more.pop("timeout", None)
        if any(value is not None for value in more.values()):  # a query, for example
            return super().build_request(method, url, headers=headers, content=content, timeout=timeout, **more)
        # The library would merge its own headers and address into these, which takes longer than all the rest.
        patience = {"timeout": httpx2.Timeout(timeout).as_dict()}
        return httpx2.Request(method, _parsed(str(url)), headers=headers, content=content, extensions=patience)

    async def send(self, request: httpx2.Request, *, stream: bool = False, **more: Any) -> httpx2.Response:
        if self.is_closed:
            raise RuntimeError("the client is closed")
        # Without the library's cookies, its own authentication and its line in the log.
        response = await self._connections.handle_async_request(request)
        response.request = request
        try:
            for look in self.event_hooks["response"]:
                await look(response)
            if response.has_redirect_location:
                await response.aclose()
                return await super().send(request, stream=stream, **more)
            if not stream:
                await response.aread()
        except BaseException:
            await response.aclose()
            raise
        return response


class AiohttpTransport(httpx2.AsyncBaseTransport):
    """One pool of connections, made at the first request."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        timeout: dict[str, float | None] = request.extensions.get("timeout", {})
        patience = _patience(timeout.get("pool"), timeout.get("connect"), timeout.get("read"))
        with _translated():
            response = await self._opened().request(
                request.method,
                str(request.url),
                headers=[(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw],
                data=request.content or None,
                proxy=_proxy(request.url.scheme, request.url.host),
                allow_redirects=False,
                timeout=patience,
            )
        extensions = {"http_version": b"HTTP/1.1", "reason_phrase": (response.reason or "").encode()}
        return httpx2.Response(
            response.status, headers=response.raw_headers, stream=_Body(response), extensions=extensions
        )

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=certificates(), limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,  # httpx does it
            )
        return self._session


class _Body(httpx2.AsyncByteStream):
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _translated():
            while piece := await self._response.content.readany():
                yield piece

    async def aclose(self) -> None:
        self._response.release()  # one that was not read to its end closes its connection


@contextmanager
def _translated() -> Generator[None]:
    """The errors of aiohttp as httpx's; the official client tries again after the same ones as ever."""
    try:
        yield
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL) as error:
        raise httpx2.ConnectError(str(error)) from error
    except TimeoutError as error:
        raise httpx2.ReadTimeout(str(error)) from error
    except (aiohttp.ClientError, OSError) as error:
        raise httpx2.ReadError(str(error) or type(error).__name__) from error


@cache
def certificates() -> SSLContext:
    """Those that every client trusts; to read them takes longer than ten questions."""
    return httpx2.create_ssl_context()


@lru_cache
def _patience(pool: float | None, connect: float | None, read: float | None) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=pool, sock_connect=connect, sock_read=read)


@lru_cache
def _proxy(scheme: str, host: str) -> str | None:
    """The proxy that the environment names for an address: aiohttp would look for it at every request."""
    return None if proxy_bypass(host) else getproxies().get(scheme)


@lru_cache
def _parsed(url: str) -> httpx2.URL:
    return httpx2.URL(url)
