"""Completes the OpenAPI document that FastAPI generates: authentication, errors, event streams."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from agent_runtime.config import AgentConfig
from agent_runtime.server.api.openai_errors import PATHS

SCHEME = "bearer"
_EVENTS: dict[str, Any] = {"text/event-stream": {}}
_STREAMING = {  # these return JSON, or events if the request asks for a stream
    ("/approvals/{approval_id}", "post"),
    ("/v1/chat/completions", "post"),
    ("/v1/responses", "post"),
}


class Problem(BaseModel):
    """An error (RFC 9457)."""

    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)

    type: str
    title: str
    status: int
    code: str
    """For programs; stable."""
    detail: str
    """For people."""
    hint: str | None = None
    """What to do about it."""
    request_id: str
    """Also written to the agent's log."""
    stop_reason: str | None = None
    """`model_error` if the model caused the error."""


class OpenAIError(BaseModel):
    """An error in OpenAI's format."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIErrorBody(BaseModel):
    """The body of an error of the OpenAI-compatible endpoints."""

    error: OpenAIError


def describe(schema: dict[str, Any], config: AgentConfig) -> dict[str, Any]:
    """Complete the document; idempotent."""
    shapes = schema["components"]["schemas"]
    for model in (Problem, OpenAIErrorBody):
        shape = model.model_json_schema(ref_template="#/components/schemas/{model}")
        shapes |= shape.pop("$defs", {}) | {model.__name__: shape}
    for guess in ("HTTPValidationError", "ValidationError"):
        shapes.pop(guess, None)
    for request in ("ChatCompletionsRequest", "ResponsesRequest"):
        shapes[request]["properties"]["model"]["const"] = config.name
    if config.server.asks:
        schema["components"]["securitySchemes"] = {SCHEME: {"type": "http", "scheme": "bearer"}}
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            _complete(path, method, operation, asks=config.server.asks)
    return schema


def _complete(path: str, method: str, operation: dict[str, Any], *, asks: bool) -> None:
    responses = operation["responses"]
    responses.pop("422", None)  # FastAPI's default, which this application does not use
    kind, shape = (
        ("application/json", OpenAIErrorBody) if path.startswith(PATHS) else ("application/problem+json", Problem)
    )
    content = {kind: {"schema": {"$ref": f"#/components/schemas/{shape.__name__}"}}}
    responses["4XX"] = {"description": "The caller must change the request, or wait", "content": content}
    responses["5XX"] = {"description": "The agent or its model cannot serve the request now", "content": content}
    if (path, method) in _STREAMING:
        responses["200"]["content"] = responses["200"]["content"] | _EVENTS
    if operation.get("security") is None and asks:
        operation["security"] = [{SCHEME: []}]
