"""Tokens of an OpenID Connect issuer: signed by it, meant for this agent, and not over.

The issuer's keys are found through its discovery document and remembered; an unknown one makes them be asked for again,
not more often than twice a minute, for anybody can send a token that names one.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast

import httpx

from agent_runtime.config import OidcConfig
from agent_runtime.errors import IssuerAway, StartError
from agent_runtime.tls import issuer_tls
from discovery.contract import is_loopback

_log = logging.getLogger(__name__)

DOCUMENT = "/.well-known/openid-configuration"
MIN_RENEW_SECONDS = 30.0  # at the earliest, whatever the tokens say
FRESH_SECONDS = 3600.0
USABLE_SECONDS = 24 * 3600.0  # while the issuer is away
ANSWER_SECONDS = 5.0
LARGEST_ANSWER_BYTES = 512 * 1024
MOST_KEYS = 100

_SENTENCES = {
    "ExpiredSignatureError": "has expired",
    "ImmatureSignatureError": "is not valid yet",
    "InvalidAudienceError": "is meant for somebody else",
    "InvalidIssuerError": "is of another issuer",
    "InvalidSignatureError": "has a signature that does not fit",
    "MissingRequiredClaimError": "lacks one of exp, iss, aud and sub",
}


class NotAccepted(Exception):
    """The token is no good; the text goes on from "the token", and holds nothing of it."""


class Issuer:
    """One issuer. Opened with `async with`; asks it for its keys with the first token."""

    def __init__(self, config: OidcConfig, folder: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._folder = folder
        self._clock = clock
        self._stack = AsyncExitStack()
        self._jwt: Any = None
        self._http: httpx.AsyncClient
        self._asking = asyncio.Lock()
        self._keys: Mapping[str | None, Mapping[str, Any]] = {}
        self._asked: float | None = None
        self._had: float | None = None

    async def __aenter__(self) -> Issuer:
        try:
            self._jwt = await asyncio.to_thread(importlib.import_module, "jwt")
            await asyncio.to_thread(importlib.import_module, "cryptography")
        except ModuleNotFoundError as error:
            raise StartError("server.oidc needs an extra: pip install 'myagent[oidc]'") from error
        tls = await issuer_tls(self._config.ca, self._folder)
        self._http = await self._stack.enter_async_context(
            httpx.AsyncClient(
                verify=True if tls is None else tls,
                timeout=ANSWER_SECONDS,
                trust_env=not is_loopback(self._config.issuer),
            )
        )
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def subject(self, token: str) -> str:
        """Who the token speaks for, as a text that names nobody else: of the issuer and the subject.

        Raises:
            NotAccepted: it is no token of this issuer for this agent, or it is over.
            IssuerAway: the issuer's keys are not known.
        """
        try:
            header = self._jwt.get_unverified_header(token)
            algorithm = header.get("alg")
            if algorithm not in self._config.algorithms:
                raise NotAccepted("is signed in a way that is not accepted here")
            claims = self._jwt.decode(
                token,
                await self._key(header.get("kid"), algorithm),
                algorithms=[algorithm],
                audience=self._config.audience,
                issuer=self._config.issuer,
                leeway=self._config.leeway_seconds,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except (self._jwt.PyJWTError, RecursionError) as error:  # a stranger nests as deeply as it likes
            raise NotAccepted(_SENTENCES.get(type(error).__name__, "cannot be read as a JSON Web Token")) from None
        if not claims["sub"]:
            raise NotAccepted("names nobody")
        return hashlib.sha256(f"{self._config.issuer}\n{claims['sub']}".encode()).hexdigest()[:32]

    async def check(self) -> int:
        """Ask for the keys now; how many there are.

        Raises:
            IssuerAway: saying why.
        """
        try:
            self._keys = await self._fetched()
        except (httpx.HTTPError, ValueError, TimeoutError) as error:
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise IssuerAway(f"{self._config.issuer}: {reason}") from error
        self._had = self._clock()
        return len(self._keys)

    async def _key(self, kid: object, algorithm: str) -> Any:
        if kid is not None and not isinstance(kid, str):
            raise NotAccepted("cannot be read as a JSON Web Token")
        if self._age(self._had) > FRESH_SECONDS or kid not in self._keys:
            await self._ask()
        if not self._keys or self._age(self._had) > USABLE_SECONDS:
            raise IssuerAway("tokens cannot be checked now: their issuer does not answer")
        found = self._keys.get(kid)
        if kid is None and len(self._keys) == 1:
            found = next(iter(self._keys.values()))
        if found is None:
            raise NotAccepted("is signed with a key that its issuer does not show")
        if found.get("alg", algorithm) != algorithm:
            raise NotAccepted("is signed in another way than its key is for")
        return self._jwt.PyJWK(found, algorithm)

    async def _ask(self) -> None:
        """Ask for the keys, unless that was done a moment ago; of many who want it, one does."""
        async with self._asking:
            if self._age(self._asked) < MIN_RENEW_SECONDS:
                return
            try:
                await self.check()
            except IssuerAway as error:
                _log.warning("the keys of the tokens' issuer cannot be had: %s", error)
            self._asked = self._clock()

    def _age(self, instant: float | None) -> float:
        return float("inf") if instant is None else self._clock() - instant

    async def _fetched(self) -> dict[str | None, Mapping[str, Any]]:
        issuer = self._config.issuer
        async with asyncio.timeout(ANSWER_SECONDS):  # over all: a body that drips must not keep the callers
            document = await self._json(issuer.rstrip("/") + DOCUMENT)
            if document.get("issuer") != issuer:
                raise ValueError("its discovery document is another issuer's: spell server.oidc.issuer as it does")
            address = document.get("jwks_uri")
            if not isinstance(address, str) or not (address.startswith("https://") or is_loopback(address)):
                raise ValueError("its discovery document names no jwks_uri over https")
            listed = (await self._json(address)).get("keys")
        if not isinstance(listed, list):
            raise ValueError("what it shows as its keys are none")
        keys = [cast("dict[str, Any]", key) for key in cast("list[Any]", listed)[:MOST_KEYS] if isinstance(key, dict)]
        return {key.get("kid"): key for key in keys if key.get("use", "sig") == "sig" and key.get("kty") != "oct"}

    async def _json(self, address: str) -> dict[str, Any]:
        body = bytearray()
        async with self._http.stream("GET", address, headers={"accept": "application/json"}) as answer:
            answer.raise_for_status()
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > LARGEST_ANSWER_BYTES:
                    raise ValueError(f"its answer is larger than {LARGEST_ANSWER_BYTES // 1024} KiB")
        read: Any = json.loads(body)
        if not isinstance(read, dict):
            raise ValueError("its answer is not a JSON object")
        return cast("dict[str, Any]", read)
