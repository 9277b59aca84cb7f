"""Pages of strangers in a browser that can reach the agent: a browser is let in where a person with a key would not be.

A page may send some requests to any address (the browser only keeps the answer from it), and with a name of its own
that points at this machine (DNS rebinding) any request at all. A key stops both; this stops them where there is none.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request

from agent_runtime.config import ServerConfig
from discovery.contract import is_loopback


def check_origin(request: Request, server: ServerConfig) -> None:
    """Refuse what a page sends that is neither this machine's nor named in the agent file.

    Raises:
        HTTPException: 403.
    """
    origin = request.headers.get("origin")
    if origin is None or is_loopback(origin) or "*" in server.cors_origins:
        return
    named = [*server.cors_origins, server.public_url, server.service_url]
    if _place(origin) not in {_place(url) for url in named if url}:
        raise HTTPException(403, "this origin is not one of server.cors_origins")


def check_page(request: Request, server: ServerConfig) -> None:
    """Refuse strangers' pages where nobody is asked for a key; the agent's own page is none.

    Raises:
        HTTPException: 403.
    """
    host, origin = request.headers.get("host", ""), request.headers.get("origin")
    named = {urlsplit(url).netloc for url in (server.service_url, server.public_url) if url}
    if is_loopback(server.host):
        if not is_loopback(f"http://{host}") and host not in named:
            raise HTTPException(
                403, "this agent listens on loopback only, and is not known by this name: set public_url"
            )
    elif origin and urlsplit(origin).netloc == host:
        return
    check_origin(request, server)


def _place(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc
