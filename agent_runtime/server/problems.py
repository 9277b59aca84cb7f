"""Errors as HTTP responses: one table from errors to statuses and codes, and the limit on the size of a body."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent_runtime.errors import (
    CallerError,
    IssuerAway,
    ModelError,
    ModelFault,
    MyAgentError,
    SessionBusy,
    StoreError,
    TooMany,
    Unauthorized,
    UnknownApproval,
    UnknownRun,
)
from agent_runtime.masking import masked
from agent_runtime.server.api.openai_errors import PATHS, OpenAIRequestError, openai_error, param_of
from agent_runtime.server.dependencies import agent_of

_log = logging.getLogger(__name__)

_MODEL_STATUS: dict[ModelFault, int] = {"rate_limited": 503, "context_overflow": 413}
_STATUS_AND_CODE: dict[type[MyAgentError], tuple[int, str]] = {  # the first match counts
    StoreError: (503, "store_failed"),
    IssuerAway: (503, "issuer_unavailable"),
    Unauthorized: (401, "unauthorized"),
    TooMany: (429, "too_many_requests"),
    SessionBusy: (409, "session_busy"),
    UnknownApproval: (404, "approval_not_found"),
    UnknownRun: (404, "run_not_found"),
    CallerError: (400, "bad_request"),
    MyAgentError: (500, "internal_error"),
}
_ROUTING_DETAILS = {  # Starlette's texts, and more helpful ones
    "Not Found": "there is no such route; /docs lists the routes of this agent",
    "Method Not Allowed": "this route does not accept this method; /docs lists the methods",
}
_HINTS = {
    "model_unreachable": "The model's endpoint is down or model.endpoint is wrong; the agent itself is healthy.",
    "model_auth": "The agent's owner must check model.api_key.",
    "model_not_found": "The agent's owner must check model.name and model.endpoint.",
    "model_invalid_request": "The agent's owner must check model.parameters.",
    "model_quota": "The agent's owner must raise the quota at the provider.",
    "model_rate_limited": "Try again in a moment.",
    "model_context_overflow": "Send a shorter message, or start a new session.",
    "store_failed": "The session store is unavailable, and nothing of this turn was saved. Try again later.",
    "approval_not_found": "GET /approvals lists the calls that wait; each can be decided once.",
    "session_busy": "Another turn of this session is still running; try again when it has finished.",
    "run_not_found": "A run can be read for some minutes, from the process that ran it; send the message again.",
    "unauthorized": "Send a valid key or token as `Authorization: Bearer …`; the agent's operator can give you one.",
    "too_many_requests": "Wait as long as Retry-After says; server.limits in the agent file sets the limit.",
    "issuer_unavailable": "The agent must be able to reach server.oidc.issuer; its log has the reason.",
}


def problem_of(error: MyAgentError) -> dict[str, Any]:
    """An error as the body of a problem (RFC 9457), without the request id."""
    status, code = _status_and_code(error)
    return problem(status, code, str(error))


def masked_problem(error: MyAgentError, secrets: frozenset[str]) -> dict[str, Any]:
    """An error as the body of a problem, with secrets in its detail masked."""
    body = problem_of(error)
    body["detail"] = masked(body["detail"], secrets)
    return body


def internal_error(error: Exception) -> dict[str, Any]:
    """An unexpected error as the body of a problem; its details go to the log only."""
    _log.error("unexpected error", exc_info=error)
    return problem(500, "internal_error", "the agent failed; its log has the reason")


def problem(status: int, code: str, detail: str) -> dict[str, Any]:
    """The body of a problem; its hint, if any, follows from the code."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": code.replace("_", " ").capitalize(),
        "status": status,
        "code": code,
        "detail": detail,
    }
    if code in _HINTS:
        body["hint"] = _HINTS[code]
    if code.startswith("model_"):
        body["stop_reason"] = "model_error"
    return body


def _status_and_code(error: MyAgentError) -> tuple[int, str]:
    match error:
        case ModelError():
            return _MODEL_STATUS.get(error.fault, 502), f"model_{error.fault}"
        case OpenAIRequestError():
            return error.status, error.code
        case _:
            return next(found for kind, found in _STATUS_AND_CODE.items() if isinstance(error, kind))


def add_error_handlers(app: FastAPI) -> None:
    """Make every unsuccessful response `application/problem+json`, without a stack trace or a secret."""

    @app.exception_handler(MyAgentError)
    async def _(request: Request, error: MyAgentError) -> JSONResponse:
        param = error.param if isinstance(error, OpenAIRequestError) else None
        response = _response(request, problem_of(error), param)
        if isinstance(error, Unauthorized):
            response.headers["www-authenticate"] = 'Bearer error="invalid_token"' if error.sent else "Bearer"
        if isinstance(error, TooMany):
            response.headers["retry-after"] = str(error.retry_after)
        return response

    @app.exception_handler(RequestValidationError)
    async def _(request: Request, error: RequestValidationError) -> JSONResponse:
        parts = (
            f"{'.'.join(str(part) for part in item['loc'] if part != 'body') or 'body'}: {item['msg']}"
            for item in error.errors()
        )
        body = problem(422, "invalid_body", "; ".join(parts))
        return _response(request, body, param_of(error.errors()[0]["loc"]))

    @app.exception_handler(HTTPException)
    async def _(request: Request, error: HTTPException) -> JSONResponse:
        detail = _ROUTING_DETAILS.get(str(error.detail), str(error.detail))
        response = _response(request, problem(error.status_code, "http_error", detail))
        response.headers.update(error.headers or {})
        if error.status_code == 405 and (methods := _allowed_methods(request)):
            response.headers["allow"] = methods
        return response

    @app.exception_handler(Exception)
    async def _(request: Request, error: Exception) -> JSONResponse:  # the last resort of the server
        return _response(request, internal_error(error))


def _allowed_methods(request: Request) -> str:
    """The methods of all routes at the path; the framework names those of one route only."""
    methods = [
        method
        for method in ("GET", "POST", "DELETE")
        if any(
            route.matches({**request.scope, "method": method})[0] == Match.FULL
            for route in request.app.routes
            if not (isinstance(route, Route) and route.methods is None)  # a mounted application sets the header itself
        )
    ]
    return ", ".join(methods)


def _response(request: Request, body: dict[str, Any], param: str | None = None) -> JSONResponse:
    request_id = request.headers.get("x-request-id", "")[:128] or uuid.uuid4().hex
    body["request_id"] = request_id
    body["detail"] = masked(body["detail"], agent_of(request).secrets)
    if body["status"] >= 500:
        _log.error("%s %s: %s (request %s)", request.method, request.url.path, body["detail"], request_id)
    headers = {"x-request-id": request_id, **({"retry-after": "5"} if body["status"] == 503 else {})}
    if request.url.path.removeprefix(request.scope.get("root_path", "")).startswith(PATHS):
        status, openai_body = openai_error(body["status"], body["code"], body["detail"], param)
        return JSONResponse(openai_body, status, headers)
    return JSONResponse(body, body["status"], headers, media_type="application/problem+json")


class BodyLimit:
    """Middleware that rejects a body above the limit with 413, whatever its Content-Length says."""

    def __init__(self, app: ASGIApp, limit_bytes: int) -> None:
        self._app = app
        self._limit = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, counting its body."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        await self._app(scope, self._counting(receive), send)

    def _counting(self, receive: Receive) -> Callable[[], Awaitable[Message]]:
        received = 0

        async def counting() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit:
                raise HTTPException(413, f"the body is larger than {self._limit} bytes")
            return message

        return counting
