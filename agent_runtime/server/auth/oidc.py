"""Checks tokens of an OpenID Connect issuer: signature, audience, expiry.

The issuer's keys are found through its discovery document and cached. An unknown key id causes another request, at most
twice a minute, because anybody can send a token with an unknown key id.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import httpx

from agent_runtime.config import OidcConfig
from agent_runtime.errors import IssuerAway, StartError
from agent_runtime.tls import issuer_tls
from discovery.contract import is_loopback

if TYPE_CHECKING:
    from jwt import PyJWK

_log = logging.getLogger(__name__)

DOCUMENT = "/.well-known/openid-configuration"
MIN_FETCH_INTERVAL_SECONDS = 30.0
FRESH_SECONDS = 3600.0
MAX_STALE_SECONDS = 24 * 3600.0  # if the issuer cannot be reached
RESPONSE_TIMEOUT_SECONDS = 5.0
MAX_RESPONSE_BYTES = 512 * 1024
MAX_KEYS = 100

_SENTENCES = {
    "ExpiredSignatureError": "has expired",
    "ImmatureSignatureError": "is not valid yet",
    "InvalidAudienceError": "has another audience",
    "InvalidIssuerError": "has another issuer",
    "InvalidSignatureError": "has an invalid signature",
    "MissingRequiredClaimError": "lacks one of exp, iss, aud and sub",
}


class InvalidToken(Exception):
    """The token is invalid. The message completes the sentence "the token …" and quotes nothing of it."""


class Issuer:
    """One issuer. Its keys are fetched with the first token."""

    def __init__(self, config: OidcConfig, folder: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._folder = folder
        self._clock = clock
        self._stack = AsyncExitStack()
        self._http: httpx.AsyncClient
        self._fetching = asyncio.Lock()
        self._keys: Mapping[str | None, Mapping[str, Any]] = {}
        self._attempted_at: float | None = None
        self._fetched_at: float | None = None

    async def __aenter__(self) -> Issuer:
        try:
            await asyncio.to_thread(_import_jwt)
        except ModuleNotFoundError as error:
            raise StartError("server.oidc needs an extra: pip install 'myagent[oidc]'") from error
        tls = await issuer_tls(self._config.ca, self._folder)
        self._http = await self._stack.enter_async_context(
            httpx.AsyncClient(
                verify=True if tls is None else tls,
                timeout=RESPONSE_TIMEOUT_SECONDS,
                trust_env=not is_loopback(self._config.issuer),
            )
        )
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def subject(self, token: str) -> str:
        """Check a token and return a digest of issuer and subject.

        Raises:
            InvalidToken: it is not a valid token of this issuer for this agent.
            IssuerAway: the issuer's keys are not available.
        """
        import jwt

        try:
            header = jwt.get_unverified_header(token)
            algorithm = header.get("alg")
            if algorithm not in self._config.algorithms:
                raise InvalidToken("is signed with an algorithm that is not accepted")
            claims = jwt.decode(
                token,
                await self._key(header.get("kid"), algorithm),
                algorithms=[algorithm],
                audience=self._config.audience,
                issuer=self._config.issuer,
                leeway=self._config.leeway_seconds,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except (jwt.PyJWTError, RecursionError) as error:  # the nesting of a foreign token is unlimited
            raise InvalidToken(_SENTENCES.get(type(error).__name__, "cannot be read as a JSON Web Token")) from None
        if not claims["sub"]:
            raise InvalidToken("has an empty subject")
        return hashlib.sha256(f"{self._config.issuer}\n{claims['sub']}".encode()).hexdigest()[:32]

    async def check(self) -> int:
        """Fetch the keys now and return their number.

        Raises:
            IssuerAway: with the reason.
        """
        try:
            self._keys = await self._fetch()
        except (httpx.HTTPError, ValueError, TimeoutError) as error:
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise IssuerAway(f"{self._config.issuer}: {reason}") from error
        self._fetched_at = self._clock()
        return len(self._keys)

    async def _key(self, kid: object, algorithm: str) -> PyJWK:
        from jwt import PyJWK

        if kid is not None and not isinstance(kid, str):
            raise InvalidToken("cannot be read as a JSON Web Token")
        if self._age(self._fetched_at) > FRESH_SECONDS or kid not in self._keys:
            await self._renew()
        if not self._keys or self._age(self._fetched_at) > MAX_STALE_SECONDS:
            raise IssuerAway("tokens cannot be checked now: their issuer does not respond")
        found = self._keys.get(kid)
        if kid is None and len(self._keys) == 1:
            found = next(iter(self._keys.values()))
        if found is None:
            raise InvalidToken("is signed with a key that its issuer does not publish")
        if found.get("alg", algorithm) != algorithm:
            raise InvalidToken("is signed with an algorithm that its key is not for")
        return PyJWK(dict(found), algorithm)

    async def _renew(self) -> None:
        """Fetch the keys, unless that was tried a moment ago; concurrent callers share one request."""
        async with self._fetching:
            if self._age(self._attempted_at) < MIN_FETCH_INTERVAL_SECONDS:
                return
            try:
                await self.check()
            except IssuerAway as error:
                _log.warning("cannot fetch the keys of the token issuer: %s", error)
            self._attempted_at = self._clock()

    def _age(self, instant: float | None) -> float:
        return float("inf") if instant is None else self._clock() - instant

    async def _fetch(self) -> dict[str | None, Mapping[str, Any]]:
        issuer = self._config.issuer
        async with asyncio.timeout(RESPONSE_TIMEOUT_SECONDS):  # in total: a slow body must not block callers
            document = await self._json(issuer.rstrip("/") + DOCUMENT)
            if document.get("issuer") != issuer:
                raise ValueError("its discovery document has another issuer; copy it to server.oidc.issuer")
            jwks_uri = document.get("jwks_uri")
            if not isinstance(jwks_uri, str) or not (jwks_uri.startswith("https://") or is_loopback(jwks_uri)):
                raise ValueError("its discovery document has no jwks_uri over https")
            keys = (await self._json(jwks_uri)).get("keys")
        if not isinstance(keys, list):
            raise ValueError("its jwks_uri does not return a key set")
        usable = [cast("dict[str, Any]", key) for key in cast("list[Any]", keys)[:MAX_KEYS] if isinstance(key, dict)]
        return {key.get("kid"): key for key in usable if key.get("use", "sig") == "sig" and key.get("kty") != "oct"}

    async def _json(self, url: str) -> dict[str, Any]:
        body = bytearray()
        async with self._http.stream("GET", url, headers={"accept": "application/json"}) as response:
            response.raise_for_status()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_RESPONSE_BYTES:
                    raise ValueError(f"its response is larger than {MAX_RESPONSE_BYTES // 1024} KiB")
        document: Any = json.loads(body)
        if not isinstance(document, dict):
            raise ValueError("its response is not a JSON object")
        return cast("dict[str, Any]", document)


def _import_jwt() -> tuple[object, object]:
    """Import the library of the extra, and the one that it needs for signatures; takes a while."""
    import cryptography
    import jwt

    return cryptography, jwt
