"""The portal: one page that lists the agents and talks to one, shipped as package data and served as it is."""

from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Response

from discovery.auth import OPEN, Scoped
from discovery.problems import Refusal

router = APIRouter(include_in_schema=False, route_class=Scoped)

PARTS = ("style.css", "portal.js")
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
}


@router.get("/", openapi_extra=OPEN)
async def page() -> Response:
    """The page itself."""
    return _file("index.html")


@router.get("/portal/{name}", openapi_extra=OPEN)
async def part(name: str) -> Response:
    """What the page is made of."""
    if name not in PARTS:
        raise Refusal(404, "not_found", "The portal has no such file.")
    return _file(name)


@cache
def _read(name: str) -> bytes:
    return files(__name__).joinpath(name).read_bytes()


def _file(name: str) -> Response:
    return Response(_read(name), media_type=MEDIA_TYPES[name.rpartition(".")[2]], headers=HEADERS)
