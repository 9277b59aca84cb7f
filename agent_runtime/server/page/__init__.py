"""The page for talking to the agent: HTML, CSS and JavaScript modules, served as package data without a build."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, HTTPException, Response

from agent_runtime.masking import masked_values
from agent_runtime.server.auth.authenticator import PUBLIC, AuthenticatedRoute
from agent_runtime.server.dependencies import CurrentAgent

router = APIRouter(include_in_schema=False, route_class=AuthenticatedRoute)

PARTS = ("style.css", "page.js", "approvals.js")
SHARED = ("turn.js", "render.js")  # the portal shows the same conversations
MEDIA_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
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


@router.get("/", openapi_extra=PUBLIC)
async def page() -> Response:
    """The page. It asks for a key if the agent has keys, so loading it requires none."""
    return _file("index.html")


@router.get("/page/agent")
async def about(agent: CurrentAgent) -> dict[str, Any]:
    """What the page shows about the agent: an allow-list, so that the system prompt cannot leak."""
    config = agent.config
    shown = {
        "name": config.name,
        "version": config.version,
        "description": config.description,
        "model": agent.model_label,
        "answering": agent.answering,
        "remembers": agent.remembers,
        "tools": [
            {"name": tool.spec.name, "description": tool.spec.description, "input_schema": tool.spec.parameters}
            for tool in agent.tools
        ],
        "checks": [{"name": check.name, "ok": check.ok, "reason": check.reason} for check in agent.checks],
    }
    return masked_values(shown, agent.secrets)


@router.get("/page/{name}", openapi_extra=PUBLIC)
async def part(name: str) -> Response:
    """A file of the page."""
    if name not in PARTS + SHARED:
        raise HTTPException(404, "the page has no such file")
    return _file(name)


@cache
def _read(name: str) -> bytes:
    folder = files("discovery").joinpath("portal") if name in SHARED else files(__name__)
    return folder.joinpath(name).read_bytes()


def _file(name: str) -> Response:
    return Response(_read(name), media_type=MEDIA_TYPES[name.rpartition(".")[2]], headers=HEADERS)
