"""The API description: what routes declare about parameters, bodies and errors, and /openapi.json and /docs."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from pydantic import BaseModel

from discovery.api.auth import SCHEMES, Scoped, needs
from discovery.api.problems import MEDIA_TYPE
from discovery.contract import Problem, Registration

router = APIRouter(include_in_schema=False, route_class=Scoped)

_REF = "#/components/schemas/{model}"
_PROBLEM = {MEDIA_TYPE: {"schema": {"$ref": _REF.format(model="Problem")}}}
_TOKEN_ERRORS = {"401": "No token, or an invalid one", "403": "The token has not the scope of this call"}


@router.get("/openapi.json", openapi_extra=needs("read"))
async def openapi(request: Request) -> dict[str, Any]:
    """The description itself."""
    return request.app.openapi()


@router.get("/docs", openapi_extra=needs("read"))
async def docs(request: Request) -> HTMLResponse:
    """The description as a page. A browser sends no token by itself: where one is needed, fetch the JSON."""
    return get_swagger_ui_html(openapi_url="openapi.json", title=request.app.title)


def problems(**reasons: str) -> dict[int | str, dict[str, Any]]:
    """The error answers of a route: `_404="no such agent"`."""
    return {int(status[1:]): {"description": reason, "content": _PROBLEM} for status, reason in reasons.items()}


def query_of(model: type[BaseModel]) -> dict[str, Any]:
    """The `openapi_extra` of a bare route whose query parameters are the fields of a model."""
    fields = model.model_json_schema()["properties"]
    described = [
        {"name": name, "in": "query", "required": False, "schema": schema, "description": schema.get("description", "")}
        for name, schema in fields.items()
    ]
    return {"parameters": described}


def body_of(model: type[BaseModel]) -> dict[str, Any]:
    """The `openapi_extra` of a bare route that reads this model."""
    schema = {"$ref": _REF.format(model=model.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def describe(schema: dict[str, Any]) -> dict[str, Any]:
    """Complete FastAPI's description; applying it twice changes nothing."""
    shapes = schema["components"]["schemas"]
    for guess in ("HTTPValidationError", "ValidationError"):
        shapes.pop(guess, None)
    for model in (Problem, Registration):
        shape = model.model_json_schema(ref_template=_REF)
        for name, part in {**shape.pop("$defs", {}), model.__name__: shape}.items():
            shapes.setdefault(name, part)
    schema["components"]["securitySchemes"] = SCHEMES
    for operations in schema["paths"].values():
        for operation in operations.values():
            answers = operation["responses"]
            if "HTTPValidationError" in str(answers.get("422")):
                del answers["422"]  # FastAPI's own guess
            if operation.get("security"):
                answers |= {status: {"description": why, "content": _PROBLEM} for status, why in _TOKEN_ERRORS.items()}
    return schema
