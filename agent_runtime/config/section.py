"""The base of every section of the agent file."""

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
    """A map of known keys; an unknown key is an error."""

    # Validators are built when a file is first checked, not when the package is imported. The same is true for the
    # descriptions: pydantic's `use_attribute_docstrings` would parse the source of every section at each start, which
    # takes half as long again as importing them.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Make the text under each field its description."""
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema)["properties"]
        for owner in reversed(cls.__mro__):
            if owner is not Section and issubclass(owner, Section):
                for name, text in _field_texts(owner):
                    properties[name]["description"] = text
        return schema


def _field_texts(section: type[Section]) -> Iterator[tuple[str, str]]:
    [definition] = ast.parse(textwrap.dedent(inspect.getsource(section))).body
    assert isinstance(definition, ast.ClassDef)
    for field, following in zip(definition.body, definition.body[1:], strict=False):
        match field, following:
            case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(text))):
                yield name, inspect.cleandoc(text)
            case _:
                pass


def secret_values(part: Any, key: str = "") -> Iterator[str]:
    """Every key, token and password in a section, with or without a placeholder.

    Except the `env` of MCP servers: most of it is plain settings, such as `LOG_LEVEL: info`.
    """
    if isinstance(part, SecretStr):
        text = part.get_secret_value()
        yield from _passwords(text) if key == "store" else text.split()[-1:]  # of a header `Bearer …`
    elif isinstance(part, BaseModel):
        for name, value in part:
            yield from secret_values(value, name)
    elif isinstance(part, dict) and key != "env":
        for value in cast("dict[str, Any]", part).values():
            yield from secret_values(value)
    elif isinstance(part, list):
        for value in cast("list[Any]", part):
            yield from secret_values(value)


def _passwords(url: str) -> Iterator[str]:
    """The password in a database URL, both quoted and unquoted."""
    parts = urlsplit(url)
    for password in (parts.password, *parse_qs(parts.query).get("password", ())):
        if password:
            yield from {password, unquote(password)}


def is_http_url(text: str) -> bool:
    """Whether a text is an HTTP URL with a host."""
    try:
        parts = urlsplit(text)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is not a number, an unclosed bracket
        return False
