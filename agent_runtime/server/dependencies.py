"""What the routes share: who is calling, the size of a body, and one table from errors to answers."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, cast

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent_runtime.agent import Agent
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
from agent_runtime.events import RunResult
from agent_runtime.masking import masked
from agent_runtime.server.api.openai_errors import PATHS, Unsupported, openai_error, param_of
from agent_runtime.server.lazy_mount import LateFace
from agent_runtime.server.runs import Run, Runs

_log = logging.getLogger(__name__)

_MODEL_STATUS: dict[ModelFault, int] = {"rate_limited": 503, "context_overflow": 413}
_ANSWERS: dict[type[MyAgentError], tuple[int, str]] = {  # the first that fits
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
_NO_ROUTE = {  # Starlette's words, and what somebody who reads them can do
    "Not Found": "there is no such route here; /docs lists those that there are",
    "Method Not Allowed": "this route takes other methods; /docs lists them",
}
_HINTS = {
    "model_unreachable": "The model's endpoint is down or model.endpoint is wrong; the agent itself is well.",
    "model_auth": "The agent's owner must check model.api_key.",
    "model_not_found": "The agent's owner must check model.name and model.endpoint.",
    "model_invalid_request": "The agent's owner must check model.parameters.",
    "model_quota": "The agent's owner must raise the quota at the provider.",
    "model_rate_limited": "Try again in a moment.",
    "model_context_overflow": "Send a shorter message, or start a new session.",
    "store_failed": "The session store is out of reach; nothing of this turn was kept. Try again later.",
    "approval_not_found": "GET /approvals lists what waits; a decision is taken once.",
    "session_busy": "Another turn of this session is still running; try again when it has finished.",
    "run_not_found": "Runs are remembered for some minutes, by the process that ran them; ask again for an answer.",
    "unauthorized": "Send one that is good here as `Authorization: Bearer …`; whoever runs the agent has it.",
    "too_many_requests": "Wait as long as Retry-After says; server.limits of the agent file sets how much is too much.",
    "issuer_unavailable": "The agent must be able to reach server.oidc.issuer; its log says what is wrong.",
}


def agent_of(request: Request) -> Agent:
    """The agent that this application serves."""
    return cast("Agent", request.state.agent)


def runs_of(request: Request) -> Runs:
    """The runs that this application has started."""
    return cast("Runs", request.state.runs)


# FastAPI runs a dependency that is not asynchronous in a thread, which takes longer than both of these.


async def _agent(request: Request) -> Agent:
    return agent_of(request)


CurrentAgent = Annotated[Agent, Depends(_agent)]


async def _runs(request: Request) -> Runs:
    return runs_of(request)


CurrentRuns = Annotated[Runs, Depends(_runs)]


def owner_of(caller: str, user_id: str | None) -> str:
    """Whose sessions and runs they are: the caller's key, and the user it speaks for."""
    return f"{caller}/{user_id or ''}"


async def result_of(run: Run, request: Request) -> RunResult:
    """Wait for the end of a run; the client that hangs up counts as a reader who goes.

    Raises:
        MyAgentError: what the run failed with.
    """
    if not run.cancels_when_left:
        return await run.result()
    left = asyncio.create_task(_read_until_left(run, request))
    try:
        return await run.result()
    finally:
        left.cancel()


async def _read_until_left(run: Run, request: Request) -> None:
    with run.reading():
        while (await request.receive())["type"] != "http.disconnect":
            pass


def problem_of(error: MyAgentError) -> dict[str, Any]:
    """An error as the body of a problem (RFC 9457), without the request's id."""
    status, code = _status_and_code(error)
    return problem(status, code, str(error))


def shown_problem(error: MyAgentError, secrets: frozenset[str]) -> dict[str, Any]:
    """An error as the body of a problem, without a secret that it quotes."""
    body = problem_of(error)
    body["detail"] = masked(body["detail"], secrets)
    return body


def defect(error: Exception) -> dict[str, Any]:
    """What nobody foresaw, as the body of a problem; what it was is for the log only."""
    _log.error("a defect of the agent", exc_info=error)
    return problem(500, "internal_error", "the agent failed; its log says why")


def problem(status: int, code: str, detail: str) -> dict[str, Any]:
    """The body of a problem; its hint, if any, follows from its code."""
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
        case Unsupported():
            return error.status, error.code
        case _:
            return next(answer for kind, answer in _ANSWERS.items() if isinstance(error, kind))


def add_error_handlers(app: FastAPI) -> None:
    """Every answer that is not a success is `application/problem+json`, without a stack trace or a secret."""

    @app.exception_handler(MyAgentError)
    async def _(request: Request, error: MyAgentError) -> JSONResponse:
        answer = _answer(request, problem_of(error), error.param if isinstance(error, Unsupported) else None)
        if isinstance(error, Unauthorized):
            answer.headers["www-authenticate"] = 'Bearer error="invalid_token"' if error.sent else "Bearer"
        if isinstance(error, TooMany):
            answer.headers["retry-after"] = str(error.retry_after)
        return answer

    @app.exception_handler(RequestValidationError)
    async def _(request: Request, error: RequestValidationError) -> JSONResponse:
        parts = (
            f"{'.'.join(str(part) for part in item['loc'] if part != 'body') or 'body'}: {item['msg']}"
            for item in error.errors()
        )
        return _answer(request, problem(422, "invalid_body", "; ".join(parts)), param_of(error.errors()[0]["loc"]))

    @app.exception_handler(HTTPException)
    async def _(request: Request, error: HTTPException) -> JSONResponse:
        detail = _NO_ROUTE.get(str(error.detail), str(error.detail))
        answer = _answer(request, problem(error.status_code, "http_error", detail))
        answer.headers.update(error.headers or {})
        if error.status_code == 405 and (methods := _methods_of(request)):
            answer.headers["allow"] = methods
        return answer

    @app.exception_handler(Exception)
    async def _(request: Request, error: Exception) -> JSONResponse:  # the last resort: a defect of ours
        return _answer(request, defect(error))


def _methods_of(request: Request) -> str:
    """What the path can be asked with: the framework names the methods of one of its routes only."""
    found = [
        method
        for method in ("GET", "POST", "DELETE")
        if any(
            route.matches({**request.scope, "method": method})[0] == Match.FULL
            for route in request.app.routes
            if not isinstance(getattr(route, "endpoint", None), LateFace)  # which says it itself
        )
    ]
    return ", ".join(found)


def _answer(request: Request, body: dict[str, Any], param: str | None = None) -> JSONResponse:
    request_id = request.headers.get("x-request-id", "")[:128] or uuid.uuid4().hex
    body["request_id"] = request_id
    body["detail"] = masked(body["detail"], agent_of(request).secrets)
    if body["status"] >= 500:
        _log.error("%s %s: %s (request %s)", request.method, request.url.path, body["detail"], request_id)
    headers = {"x-request-id": request_id, **({"retry-after": "5"} if body["status"] == 503 else {})}
    if request.url.path.removeprefix(request.scope.get("root_path", "")).startswith(PATHS):
        status, theirs = openai_error(body["status"], body["code"], body["detail"], param)
        return JSONResponse(theirs, status, headers)
    return JSONResponse(body, body["status"], headers, media_type="application/problem+json")


class BodyLimit:
    """Ends requests whose body is larger than the limit with 413, whatever their Content-Length says."""

    def __init__(self, app: ASGIApp, limit_bytes: int) -> None:
        self._app = app
        self._limit = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, counting its body."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        await self._app(scope, self._counted(receive), send)

    def _counted(self, receive: Receive) -> Callable[[], Awaitable[Message]]:
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit:
                raise HTTPException(413, f"the body is larger than {self._limit} bytes")
            return message

        return counted
