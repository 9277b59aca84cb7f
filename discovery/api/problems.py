"""Every error answer, as problem+json: one mapping from exceptions to answers. Stack traces go to the log only."""

import itertools
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from discovery.contract import MAX_BODY_BYTES, FieldProblem, Problem
from discovery.registry.rules import Superseded
from discovery.registry.store import StoreError

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 5
# A body that is too large is read on for a while, or the sender would see a broken connection instead of the reason.
MAX_DRAINED_BYTES = 16 * 1024 * 1024
# A request id is unique, not secret: a random prefix for the process, and a number.
_PROCESS, _COUNTER = uuid4().hex[:16], itertools.count(1)


class Refusal(Exception):
    """A request that is answered with a problem."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        hint: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail, self.hint, self.headers = status, code, detail, hint, headers


REFUSALS = (Refusal, Superseded, StoreError)
TITLES = {
    400: "Bad request",
    401: "A token is needed",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    413: "Too large",
    422: "Not acceptable as sent",
    500: "The registry failed",
    503: "The registry cannot do this now",
}
CODES = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}


def problem_response(
    request: Request,
    status: int,
    code: str,
    detail: str,
    *,
    hint: str | None = None,
    errors: list[FieldProblem] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """An error answer."""
    problem = Problem(
        title=TITLES.get(status, "Request failed"),
        status=status,
        code=code,
        detail=detail,
        hint=hint,
        request_id=request.scope.get("state", {}).get("request_id"),
        errors=errors or [],
    )
    body = problem.model_dump_json(exclude=None if errors else {"errors"}, exclude_none=True)
    return Response(body, status_code=status, media_type=MEDIA_TYPE, headers=headers)


def answer_to(request: Request, error: Exception) -> Response:
    """The answer to an exception of `REFUSALS`; to any other a 500."""
    if isinstance(error, Refusal):
        code, detail = error.code, error.detail
        return problem_response(request, error.status, code, detail, hint=error.hint, headers=error.headers)
    if isinstance(error, Superseded):
        hint = "The newer process keeps the entry while it is alive. Replicas need an instance_id of their own."
        return problem_response(request, 409, "superseded", str(error), hint=hint)
    if not isinstance(error, StoreError):  # the server logs it with its traceback
        return problem_response(request, 500, "internal_error", "The registry failed; its log says why.")
    # 503 and nothing else: a 404, 409 or 410 would make a whole fleet register again at once.
    headers = {"retry-after": str(RETRY_AFTER_SECONDS)}
    hint = "Agents keep working and try again by themselves; /readyz says when the storage is back."
    return problem_response(request, 503, "store_unavailable", str(error), hint=hint, headers=headers)


def add_error_table(app: FastAPI) -> None:
    """Register the answer to every exception that a route may raise."""

    async def answer(request: Request, error: Exception) -> Response:
        return answer_to(request, error)

    for kind in (*REFUSALS, Exception):
        app.add_exception_handler(kind, answer)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return invalid_request(request, error)

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> Response:
        code = CODES.get(error.status_code, "bad_request")
        headers = dict(error.headers or {})
        if error.status_code == 405:
            headers["allow"] = _methods_of(request) or headers.get("allow", "")
        hint = "/docs lists the routes and their methods." if error.status_code in {404, 405} else None
        return problem_response(request, error.status_code, code, str(error.detail), hint=hint, headers=headers)

    del invalid, other  # registered above; nobody calls them by name


def _methods_of(request: Request) -> str:
    """The methods of a path; the framework names those of one of its routes only."""
    found = [
        method
        for method in ("GET", "POST", "DELETE")
        if any(route.matches({**request.scope, "method": method})[0] == Match.FULL for route in request.app.routes)
    ]
    return ", ".join(found)


def invalid_request(
    request: Request,
    error: RequestValidationError,
    *,
    status: int = 422,
    code: str = "invalid_registration",
    hint: str = "Send the fields of /docs as JSON, with Content-Type: application/json.",
) -> Response:
    """The answer that names the invalid fields; status, code and hint are those of an invalid body."""
    if all(entry["loc"][0] == "query" for entry in error.errors()):
        wrong = [FieldProblem(field=str(entry["loc"][1]), reason=_reason(entry)) for entry in error.errors()[:50]]
        detail = "; ".join(f"{one.field}: {one.reason}" for one in wrong[:5])
        hint = "/docs describes the parameters."
        return problem_response(request, 400, "invalid_parameter", detail, hint=hint, errors=wrong)
    found: list[FieldProblem] = []
    forbidden = False
    for entry in error.errors():
        forbidden = forbidden or entry["type"] == "forbidden_field"
        found.append(FieldProblem(field=_field(entry), reason=_reason(entry)))
    detail = "; ".join(f"{one.field}: {one.reason}" for one in found[:5])
    if len(found) > 5:
        detail += f"; and {len(found) - 5} more"
    if forbidden:
        code, hint = "forbidden_field", "Leave the field out. Its value was neither kept nor logged."
    return problem_response(request, status, code, detail, hint=hint, errors=found[:50])


def _field(entry: Mapping[str, Any]) -> str:
    if entry["type"] == "forbidden_field":
        return str(entry["ctx"]["field"])
    if entry["type"] == "json_invalid":  # its place is a number of characters
        return "body"
    # 'body' is a place in the request and 'object' a member of a union: neither is a field.
    path = [str(part) for part in entry["loc"] if part not in {"body", "object"}]
    return ".".join(path[:8]) or "body"


def _reason(entry: Mapping[str, Any]) -> str:
    return "is required" if entry["type"] == "missing" else str(entry["msg"])


def new_request_id() -> str:
    """The `X-Request-ID` of the next request."""
    return f"{_PROCESS}{next(_COUNTER):08x}"


class RequestLimits:
    """Middleware: gives every request an id, and refuses a body over the limit."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = scope.setdefault("state", {})["request_id"] = new_request_id()
        header = b"x-request-id", request_id.encode()
        taken = 0

        async def bounded() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > MAX_BODY_BYTES:
                while message.get("more_body") and taken < MAX_DRAINED_BYTES:
                    message = await receive()
                    taken += len(message.get("body", b""))
                raise HTTPException(413, f"The body is larger than {MAX_BODY_BYTES // 1024} KiB.")
            return message

        async def signed(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], header]
            await send(message)

        await self._app(scope, bounded, signed)
