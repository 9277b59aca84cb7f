"""Bytes that many readers ask for, compressed once for all: off the event loop, and at most once a second."""

import asyncio
import gzip
import time
from functools import lru_cache

LEAST_BYTES = 1024  # below it a head is as large as what is saved
AGAIN_SECONDS = 1.0
LEVEL = 4


class Packed:
    """The latest bytes, compressed."""

    def __init__(self) -> None:
        self._plain = b""
        self._begun = -AGAIN_SECONDS
        self._packing: asyncio.Future[bytes] | None = None

    async def of(self, plain: bytes) -> bytes | None:
        """The bytes compressed; None where they are sent faster as they are, or others were compressed just now."""
        if plain is not self._plain:
            now = time.monotonic()
            if len(plain) < LEAST_BYTES or now - self._begun < AGAIN_SECONDS:
                return None
            self._plain, self._begun = plain, now
            self._packing = asyncio.get_running_loop().run_in_executor(None, _compress, plain)
        packing = self._packing
        if packing is None or packing.done():
            return packing and packing.result()
        return await asyncio.shield(packing)  # a reader that leaves does not stop it for the others


@lru_cache(maxsize=256)
def takes_gzip(accepted: bytes) -> bool:
    """Whether an `Accept-Encoding` says so (RFC 9110, 12.5.3)."""
    weights: dict[str, float] = {}
    for part in accepted.decode("latin-1").lower().split(","):
        coding, _, parameter = part.partition(";")
        name, _, value = parameter.strip().partition("=")
        try:
            weights[coding.strip()] = float(value) if name == "q" else 1.0
        except ValueError:
            weights[coding.strip()] = 0.0
    return weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0))) > 0


def _compress(plain: bytes) -> bytes:
    return gzip.compress(plain, LEVEL, mtime=0)
