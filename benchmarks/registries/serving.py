"""How the references are served: by uvicorn as it comes, on a port of loopback that is printed once it listens."""

from __future__ import annotations

import logging
import socket
from typing import Any, Literal

import uvicorn


def serve(app: Any, *, lifespan: Literal["on", "off"] = "on") -> None:
    """Serve until the process is ended."""
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)  # what fails is counted by who asks
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(2048)
        print(listener.getsockname()[1], flush=True)
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan=lifespan)
        uvicorn.Server(config).run(sockets=[listener])
