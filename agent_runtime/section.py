"""What every section of the agent file has in common."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, SecretStr


class Section(BaseModel):
    """A map of known keys; one that is unknown is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


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
