"""What /docs and /openapi.json say: the routes as FastAPI describes them, with their scopes and their error answers."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse

from discovery.api.auth import SCHEMES, Scoped, needs
from discovery.api.problems import MEDIA_TYPE, describe_problems

router = APIRouter(include_in_schema=False, route_class=Scoped)

REASONS = {"401": "No token, or one that is not known here", "403": "The token may not do this"}


@router.get("/openapi.json", openapi_extra=needs("read"))
async def description(request: Request) -> dict[str, Any]:
    """The description itself."""
    return request.app.openapi()


@router.get("/docs", openapi_extra=needs("read"))
async def docs(request: Request) -> HTMLResponse:
    """The description as a page. A browser sends no token by itself: where tokens are asked for, fetch the JSON."""
    return get_swagger_ui_html(openapi_url="openapi.json", title=request.app.title)


def describe(schema: dict[str, Any]) -> dict[str, Any]:
    """Complete FastAPI's own description; doing it twice changes nothing."""
    schema = describe_problems(schema)
    schema["components"]["securitySchemes"] = SCHEMES
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for operations in schema["paths"].values():
        for operation in operations.values():
            if operation.get("security"):
                answers = {status: {"description": reason, "content": content} for status, reason in REASONS.items()}
                operation["responses"] |= answers
    return schema
