"""Endpoints for operators: liveness, readiness, health checks and metrics."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse

from agent_runtime.masking import masked_values
from agent_runtime.server.auth.authenticator import PUBLIC, AuthenticatedRoute
from agent_runtime.server.dependencies import CurrentAgent
from discovery.client import RegistrationState

router = APIRouter(tags=["health"], route_class=AuthenticatedRoute)


@router.get("/livez", openapi_extra=PUBLIC)
async def livez() -> dict[str, str]:
    """The process is alive."""
    return {"status": "ok"}


@router.get("/readyz", openapi_extra=PUBLIC)
async def readyz(agent: CurrentAgent) -> dict[str, str]:
    """The agent accepts traffic: model, tools and sessions were opened before the port."""
    return {"status": "ok" if agent.is_open else "closing"}


@router.get("/health", openapi_extra=PUBLIC)
async def health(request: Request, agent: CurrentAgent) -> dict[str, Any]:
    """The agent and the state of its components. A registry that is down does not make the agent degraded."""
    config = agent.config
    shown = {
        "status": "degraded" if agent.is_degraded else "up",
        "name": config.name,
        "version": config.version,
        "agent_type": config.agent_type,
        "model": agent.model_label,
        "answering": agent.answering,
        "tools": [tool.spec.name for tool in agent.tools],
        "checks": [asdict(check) for check in agent.checks],
        "discovery": _registration(request.state.registration),
    }
    return masked_values(shown, agent.secrets)


def _registration(state: RegistrationState | None) -> dict[str, Any]:
    if state is None:
        return {"registered": False, "reason": "no registry is configured"}
    return {
        "registered": state.registered,
        "last_success": state.last_success,
        "reason": state.last_error,
    }


@router.get("/metrics", response_class=PlainTextResponse, openapi_extra=PUBLIC)
async def metrics(agent: CurrentAgent) -> PlainTextResponse:
    """What was counted, in Prometheus' text format: all agents of this process, each with its own label."""
    rendered = agent.telemetry.prometheus_text() if agent.telemetry else b""
    return PlainTextResponse(rendered, media_type="text/plain; version=0.0.4; charset=utf-8")
