"""What every section of the agent file has in common."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from typing import Any, cast
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, SecretStr
from pydantic_core import CoreSchema


class Section(BaseModel):
    """A map of known keys; one that is unknown is an error."""

    # What checks a section is made when a file is first checked, not when the package is imported.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """The text under each field becomes its description: here only, as finding it takes longer than all checks."""
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema)["properties"]
        for owner in reversed(cls.__mro__):
            if owner is not Section and issubclass(owner, Section):
                for name, text in _texts_under_fields(owner):
                    properties[name]["description"] = text
        return schema


def _texts_under_fields(section: type[Section]) -> Iterator[tuple[str, str]]:
    [definition] = ast.parse(textwrap.dedent(inspect.getsource(section))).body
    assert isinstance(definition, ast.ClassDef)
    for field, below in zip(definition.body, definition.body[1:], strict=False):
        match field, below:
            case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(text))):
                yield name, inspect.cleandoc(text)
            case _:
                pass


def confidential(part: Any, key: str = "") -> Iterator[str]:
    """Every key, token and password in a section, wherever it came from.

    Not what an MCP server's `env` says: most of it is plain settings, such as `LOG_LEVEL: info`.
    """
    if isinstance(part, SecretStr):
        text = part.get_secret_value()
        yield from _passwords(text) if key == "store" else text.split()[-1:]  # `Bearer …` is a header's
    elif isinstance(part, BaseModel):
        for name, value in part:
            yield from confidential(value, name)
    elif isinstance(part, dict) and key != "env":
        for value in cast("dict[str, Any]", part).values():
            yield from confidential(value)
    elif isinstance(part, list):
        for value in cast("list[Any]", part):
            yield from confidential(value)


def _passwords(url: str) -> Iterator[str]:
    """The password in a database's address, as it is written there and as it is meant."""
    parts = urlsplit(url)
    for password in (parts.password, *parse_qs(parts.query).get("password", ())):
        if password:
            yield from {password, unquote(password)}


def is_address(text: str) -> bool:
    """Whether a text is an address over HTTP, with a host."""
    try:
        parts = urlsplit(text)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, a bracket that is not closed
        return False
