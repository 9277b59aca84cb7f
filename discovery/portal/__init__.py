"""The portal: one page that lists the agents and talks to one, shipped as package data and served as it is."""

import gzip
from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Request, Response

from discovery.api.auth import OPEN, Scoped
from discovery.api.problems import Refusal
from discovery.settings import Settings

router = APIRouter(include_in_schema=False, route_class=Scoped)

PARTS = (
    "style.css",
    "address.js",
    "chat.js",
    "detail.js",
    "filters.js",
    "fleet.js",
    "history.js",
    "keys.js",
    "list.js",
    "notices.js",
    "panel.js",
    "portal.js",
    "registry.js",
    "render.js",
    "tools.js",
    "turn.js",
    "uses.js",
    "words.js",
    "worker.js",
)
MEDIA_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
# Agents live on other origins and may be anywhere, so the page may connect anywhere; all else comes from here.
POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self' http: https:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
    "vary": "accept-encoding",
}


@router.get("/", openapi_extra=OPEN)
async def page(request: Request) -> Response:
    """The page itself. Its `Link` header leads ARD clients to the manifest."""
    response = _file("index.html", request)
    settings: Settings | None = getattr(request.state, "settings", None)  # absent where only the portal is mounted
    if settings and settings.ard:
        response.headers["link"] = '<.well-known/ard.json>; rel="ard"'
    return response


@router.get("/portal/{name}", openapi_extra=OPEN)
async def part(name: str, request: Request) -> Response:
    """What the page is made of."""
    if name not in PARTS:
        raise Refusal(404, "not_found", "The portal has no such file.")
    return _file(name, request)


@cache
def _read(name: str, *, compressed: bool) -> bytes:
    content = files(__name__).joinpath(name).read_bytes()
    return gzip.compress(content, mtime=0) if compressed else content


def _file(name: str, request: Request) -> Response:
    compressed = "gzip" in request.headers.get("accept-encoding", "")
    headers = HEADERS | ({"content-encoding": "gzip"} if compressed else {})
    if name == "worker.js":
        headers["service-worker-allowed"] = "../"  # it keeps the page, which stands above it
    content = _read(name, compressed=compressed)
    return Response(content, media_type=MEDIA_TYPES[name.rpartition(".")[2]], headers=headers)
