"""The limit: uvicorn answering the bytes of a file, whatever is asked.

python -m benchmarks.registries.uvicorn FILE
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from benchmarks.registries.serving import serve


def application(body: bytes) -> Any:
    """An ASGI application that does nothing but answer."""
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


if __name__ == "__main__":
    serve(application(Path(sys.argv[1]).read_bytes()), lifespan="off")
