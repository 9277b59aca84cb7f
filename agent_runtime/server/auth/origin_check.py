"""Protection against foreign web pages in a browser that can reach the agent.

A page may send simple requests to any address, although the browser hides the response from it, and with a domain
that resolves to this machine (DNS rebinding) it may send any request. A required key stops both; these checks stop
them where no key is required.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request

from agent_runtime.config import ServerConfig
from discovery.contract import is_loopback


def check_origin(request: Request, server: ServerConfig) -> None:
    """Reject a page whose origin is neither this machine nor named in the agent file.

    Raises:
        HTTPException: 403.
    """
    origin = request.headers.get("origin")
    if origin is None or is_loopback(origin) or "*" in server.cors_origins:
        return
    allowed = [*server.cors_origins, server.public_url, server.service_url]
    if _origin_of(origin) not in {_origin_of(url) for url in allowed if url}:
        raise HTTPException(403, "this origin is not one of server.cors_origins")


def check_anonymous_request(request: Request, server: ServerConfig) -> None:
    """Check Host and Origin of a request that needs no key. The agent's own page passes.

    Raises:
        HTTPException: 403.
    """
    host, origin = request.headers.get("host", ""), request.headers.get("origin")
    own_hosts = {urlsplit(url).netloc for url in (server.service_url, server.public_url) if url}
    if is_loopback(server.host):
        if not is_loopback(f"http://{host}") and host not in own_hosts:
            raise HTTPException(
                403, "this agent listens on loopback only and does not have this host name: set server.public_url"
            )
    elif origin and urlsplit(origin).netloc == host:
        return
    check_origin(request, server)


def _origin_of(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc
