"""What routes share: the registry and its settings, query parameters that are known, problems in the description."""

from collections.abc import Callable
from typing import Annotated, Any, cast

from fastapi import Depends, Request

from discovery.api.problems import MEDIA_TYPE, Refusal
from discovery.registry.registry import Registry
from discovery.settings import Settings


def _registry(request: Request) -> Registry:
    return cast("Registry", request.state.registry)


def _settings(request: Request) -> Settings:
    return cast("Settings", request.state.settings)


Table = Annotated[Registry, Depends(_registry)]
Config = Annotated[Settings, Depends(_settings)]


def problems(**because: str) -> dict[int | str, dict[str, Any]]:
    """OpenAPI for the error answers of a route: `_404="no such agent"`."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {int(status[1:]): {"description": reason, "content": content} for status, reason in because.items()}


def only(*known: str) -> Callable[[Request], None]:
    """A dependency that refuses every query parameter but these: a typo must not mean "everything"."""

    def check(request: Request) -> None:
        unknown = sorted(set(request.query_params) - set(known))
        if unknown:
            allowed = f"Known here: {', '.join(known)}." if known else "This route takes none."
            raise Refusal(400, "unknown_parameter", f"Unknown query parameter: {', '.join(unknown)[:200]}.", allowed)

    return check
