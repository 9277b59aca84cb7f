"""An OpenID Connect issuer on loopback: its discovery document, its keys, and tokens as a test wants them."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response

from tests.serving import serve

AUDIENCE = "helper"


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key, and what the issuer shows of it."""

    kid: str | None
    algorithm: str
    private: Any
    shown: dict[str, Any]


def signing_key(kid: str | None = "one", algorithm: str = "RS256", **more: Any) -> SigningKey:
    if algorithm.startswith("ES"):
        private: Any = ec.generate_private_key(ec.SECP256R1())
        shown = jwt.algorithms.ECAlgorithm.to_jwk(private.public_key(), as_dict=True)
    else:
        private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        shown = jwt.algorithms.RSAAlgorithm.to_jwk(private.public_key(), as_dict=True)
    known = {"kid": kid} if kid is not None else {}
    return SigningKey(kid, algorithm, private, {**shown, **known, **more})


@dataclass(slots=True)
class Issuer:
    """What it shows may be changed while it is served."""

    url: str = ""
    keys: list[SigningKey] = field(default_factory=list[SigningKey])
    document: dict[str, Any] = field(default_factory=dict[str, Any])
    asked: list[str] = field(default_factory=list[str])
    away: bool = False

    def token(self, key: SigningKey | None = None, *, headers: dict[str, Any] | None = None, **claims: Any) -> str:
        """A good token, but for what is said; a claim that is None is left out."""
        key = key or self.keys[0]
        now = int(time.time())
        said = {"iss": self.url, "aud": AUDIENCE, "sub": "ada", "iat": now, "exp": now + 300} | claims
        payload = {name: value for name, value in said.items() if value is not None}
        named = {"kid": key.kid} if key.kid is not None else {}
        return jwt.encode(payload, key.private, algorithm=key.algorithm, headers=named | (headers or {}))


@asynccontextmanager
async def serving_issuer(*keys: SigningKey) -> AsyncGenerator[Issuer]:
    issuer, app = Issuer(keys=list(keys) or [signing_key()]), FastAPI()

    @app.get("/{path:path}")
    async def _(path: str) -> Response:
        issuer.asked.append(path)
        if issuer.away:
            return Response("<h1>Bad gateway</h1>", 502, media_type="text/html")
        if path == ".well-known/openid-configuration":
            return JSONResponse({"issuer": issuer.url, "jwks_uri": f"{issuer.url}/keys"} | issuer.document)
        return JSONResponse({"keys": [key.shown for key in issuer.keys]})

    async with serve(app) as url:
        issuer.url = url
        yield issuer
