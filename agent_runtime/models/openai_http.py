"""HTTP to a model's provider: one pool of connections, patience, and another try where it may help.

Plain aiohttp, which stays fast with hundreds of connections. The official client on top of it would be half of what a
run costs, and half a second of the first question; what it does for a request is this file. Imported at the first
question.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import random
import time
from collections.abc import Mapping
from contextlib import suppress
from email.utils import mktime_tz, parsedate_tz
from functools import cache, lru_cache
from http import HTTPStatus
from ssl import SSLContext
from typing import Any
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx
from yarl import URL

from agent_runtime.models.openai_faults import Broken, ProviderFault, Refused, Silent, Unreachable, is_hard_quota

LONGEST_WAIT_SECONDS = 120.0  # a provider that asks for more patience is not asked again
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 8.0
LAST_BYTES_SECONDS = 0.1
PASSING = frozenset({408, 409, 429})  # and all from 500 on

_log = logging.getLogger(__name__)
_text_of = json.JSONEncoder(separators=(",", ":")).encode


class ProviderHttp:
    """Asks one address; connections are made when they are needed, and kept."""

    def __init__(self, url: str, *, timeout_seconds: float, max_retries: int) -> None:
        self._url = URL(url)
        self._max_retries = max_retries
        self._patience = aiohttp.ClientTimeout(
            total=None, connect=timeout_seconds, sock_connect=timeout_seconds, sock_read=timeout_seconds
        )
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=certificates(), limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Content-Type": "application/json", "User-Agent": "myagent"},
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def ask(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> Reply:
        """The reply, as soon as it begins.

        Raises:
            ProviderFault: after as many tries as it may take.
        """
        data = _text_of(body).encode()
        for tried in range(self._max_retries):
            try:
                return await self._asked(data, headers)
            except ProviderFault as fault:
                pause = _pause(fault, tried)
                if pause is None:
                    raise
                _log.info("the model is asked again in %.1f s, try %d: %s", pause, tried + 2, type(fault).__name__)
            await asyncio.sleep(pause)
        return await self._asked(data, headers)

    async def _asked(self, data: bytes, headers: Mapping[str, str]) -> Reply:
        try:
            response = await self._session.post(
                self._url,
                data=data,
                headers=headers,
                proxy=_proxy(self._url.scheme, self._url.host or ""),
                allow_redirects=False,  # what is sent is meant for this address
                timeout=self._patience,
            )
            if response.status < HTTPStatus.MULTIPLE_CHOICES:
                return Reply(response)
            async with response:
                raise _refused(response, await response.text(errors="replace"))
        except (aiohttp.ClientError, OSError) as error:
            raise _fault(error) from error


class Reply:
    """A reply that is being read. Closed before its end, it hangs up."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def read(self) -> bytes:
        """The next piece; nothing behind the last one.

        Raises:
            ProviderFault: it broke off, or nothing came for too long.
        """
        try:
            return await self._response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise _fault(error) from error

    async def finish(self) -> None:
        """Read what comes behind the last thing of interest: only then can its connection serve the next question."""
        if self._response.content.is_eof():
            return
        with suppress(TimeoutError, ProviderFault):
            async with asyncio.timeout(LAST_BYTES_SECONDS):
                while await self.read():
                    pass

    async def aclose(self) -> None:
        """Let go of it; its connection goes on where the reply came to its end."""
        self._response.close()


@cache
def certificates() -> SSLContext:
    """Those that every client trusts; to read them takes longer than ten questions."""
    return httpx.create_ssl_context()


@lru_cache
def _proxy(scheme: str, host: str) -> str | None:
    """The proxy that the environment names for an address: aiohttp would look for it at every request."""
    return None if proxy_bypass(host) else getproxies().get(scheme)


def _fault(error: aiohttp.ClientError | OSError) -> ProviderFault:
    match error:
        case aiohttp.ClientConnectorError() | aiohttp.ConnectionTimeoutError() | aiohttp.InvalidURL():
            return Unreachable(str(error.__cause__ or error))
        case TimeoutError():
            return Silent()
        case _:
            return Broken(str(error) or type(error).__name__)


def _refused(response: aiohttp.ClientResponse, text: str) -> Refused:
    message, code = _said(text)
    return Refused(
        response.status,
        message,
        code,
        moved_to=response.headers.get("Location"),
        seconds=_asked_for(response.headers),
        passes=_passes(response, text),
    )


def _said(text: str) -> tuple[str, str | None]:
    """Words and code of an error in OpenAI's form; of another one, its text."""
    try:
        told: Any = json.loads(text)
        error = told.get("error", told)
        return str(error["message"]), error.get("code")
    except (ValueError, AttributeError, KeyError, TypeError):
        return text, None


def _passes(response: aiohttp.ClientResponse, text: str) -> bool:
    """Whether another try may help."""
    if response.status == HTTPStatus.TOO_MANY_REQUESTS and is_hard_quota(text):
        return False  # it is not back within seconds
    told = response.headers.get("x-should-retry")  # the provider's own word
    return told == "true" or (told != "false" and (response.status in PASSING or response.status >= 500))


def _pause(fault: ProviderFault, tried: int) -> float | None:
    """Seconds until another try; None where it would not help."""
    if isinstance(fault, Refused):
        if not fault.passes or (fault.seconds or 0.0) > LONGEST_WAIT_SECONDS:
            return None
        if fault.seconds is not None and fault.seconds > 0:
            return fault.seconds
    pause = min(FIRST_PAUSE_SECONDS * 2 ** min(tried, 10), LONGEST_PAUSE_SECONDS)
    return pause * random.uniform(0.75, 1.0)  # those that were refused together do not come back together


def _asked_for(headers: Mapping[str, str]) -> float | None:
    """The seconds that the provider asks for (RFC 9110, 10.2.3); `Retry-After-Ms` is OpenAI's and Azure's."""
    for name, factor in (("Retry-After-Ms", 0.001), ("Retry-After", 1.0)):
        try:
            seconds = float(headers.get(name, "nan")) * factor
        except ValueError:
            continue
        if math.isfinite(seconds):
            return seconds
    date = parsedate_tz(headers.get("Retry-After", ""))
    return None if date is None else mktime_tz(date) - time.time()
