"""Where a server of this machine is reached: by itself, and by others. Asks the sockets, and sends nothing."""

import logging
import socket
from urllib.parse import urlsplit

EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}

logger = logging.getLogger(__name__)


def own_endpoint(port: int, *, registry: str, host: str = "0.0.0.0", secure: bool = False) -> str:
    """The `endpoint` of a server that listens at `host` and is bound to `port`: where others reach it.

    Where it listens at every address, that is this machine's own on the way to the registry. Looks the registry's name
    up, which may take seconds: call it before the loop runs, or in a thread.
    """
    return local_endpoint(port, _address_towards(registry) if host in EVERY_ADDRESS else host, secure=secure)


def local_endpoint(port: int, host: str, *, secure: bool = False) -> str:
    """Where a server that listens at `host`, over https where it is `secure`, is reached from this machine."""
    reachable = EVERY_ADDRESS.get(host, host)
    authority = f"[{reachable}]:{port}" if ":" in reachable else f"{reachable}:{port}"
    return f"{'https' if secure else 'http'}://{authority}"


def _address_towards(url: str) -> str:
    """This machine's own address on the route to a URL's host. A UDP socket that connects sends nothing."""
    try:
        parts = urlsplit(url)
        for family, kind, protocol, _, address in socket.getaddrinfo(
            parts.hostname, parts.port or 80, type=socket.SOCK_DGRAM
        ):
            with socket.socket(family, kind, protocol) as probe:
                probe.connect(address)
                return str(probe.getsockname()[0])
    except (OSError, ValueError):
        logger.debug("no route towards the registry yet", exc_info=True)
    return socket.gethostname()
