"""Placeholders in the strings of an agent file: find them, fetch their secrets, fill them.

`${NAME}` `${NAME:-default}` `${NAME:?message}` read the environment, `${secret:path}` and `${secret:path#key}` a
secret source, `$$` is a dollar. A filled value is never read as a template again.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

Location = tuple[str | int, ...]
"""The keys and indexes from the top of the file to a part of it."""

FETCH_SECONDS = 10

_PLACEHOLDER = re.compile(
    r"\$\$"
    r"|\$\{secret:(?P<secret>[^}#]+)(?:\#(?P<key>[^}]+))?\}"
    r"|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::(?P<operator>[-?])(?P<operand>(?:(?!\$\{)[^}])*))?\}"
    r"|(?P<malformed>\$\{[^}]*\}?)"
)


class SecretNotAvailable(Exception):
    """A secret is not available; the text is the reason, never a value."""


Fetched = Mapping[str, str | SecretNotAvailable]
Fetch = Callable[[Sequence[str]], Awaitable[Fetched]]
"""The text of each secret, or the reason why it is not available; all paths in one call."""


@dataclass(frozen=True, slots=True)
class PlaceholderProblem:
    """A placeholder that could not be filled."""

    location: Location
    message: str


@dataclass(slots=True)
class Resolution:
    """A tree with its placeholders filled; a string with a problem is left as it is.

    `origins` names the sources of each value with placeholders (`secret team/key`, `environment NAME`), for people;
    `secrets` are values that must be masked.
    """

    tree: Any = field(repr=False)
    problems: list[PlaceholderProblem] = field(default_factory=list[PlaceholderProblem])
    origins: dict[Location, str] = field(default_factory=dict[Location, str])
    secrets: frozenset[str] = field(default=frozenset(), repr=False)


def secret_paths(tree: Any) -> list[str]:
    """The paths of all secrets that a tree names, each once, in order."""
    matches = (match for text in _strings(tree) for match in _PLACEHOLDER.finditer(text))
    return list(dict.fromkeys(match["secret"] for match in matches if match["secret"]))


def _strings(tree: Any) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, dict | list):
        values = cast("dict[str, Any]", tree).values() if isinstance(tree, dict) else cast("list[Any]", tree)
        for value in values:
            yield from _strings(value)


async def resolve(
    tree: Any, *, environment: Mapping[str, str], fetch: Fetch, timeout_seconds: float = FETCH_SECONDS
) -> Resolution:
    """Fetch the secrets of a tree and fill it, as `fill` does."""
    return fill(tree, environment, await fetch_secrets(secret_paths(tree), fetch, timeout_seconds))


async def fetch_secrets(paths: Sequence[str], fetch: Fetch, timeout_seconds: float = FETCH_SECONDS) -> Fetched:
    """The secrets at these paths; if the source fails as a whole, its error is the reason for each of them."""
    if not paths:
        return {}
    try:
        async with asyncio.timeout(timeout_seconds):
            secrets = await fetch(paths)
    except TimeoutError:
        reason = SecretNotAvailable(f"the secret source did not answer within {timeout_seconds:g} s")
        return dict.fromkeys(paths, reason)
    except SecretNotAvailable as reason:
        return dict.fromkeys(paths, reason)
    return {path: secrets.get(path, SecretNotAvailable("not found")) for path in paths}


def fill(tree: Any, environment: Mapping[str, str], secrets: Fetched) -> Resolution:
    """Fill every placeholder of the tree; those that cannot be filled are in `problems`.

    A value that consists of one placeholder is None when the placeholder is empty: `${ENDPOINT:-}` is "not set".
    """
    filler = _Filler(environment, secrets)
    return Resolution(filler.fill(tree, ()), filler.problems, filler.origins, frozenset(filler.values))


class _Filler:
    def __init__(self, environment: Mapping[str, str], secrets: Fetched) -> None:
        self._environment = environment
        self._secrets = secrets
        self.problems: list[PlaceholderProblem] = []
        self.origins: dict[Location, str] = {}
        self.values: set[str] = set()

    def fill(self, tree: Any, location: Location) -> Any:
        if isinstance(tree, str):
            return self._fill_text(tree, location)
        if isinstance(tree, dict):
            return {key: self.fill(value, (*location, key)) for key, value in cast("dict[str, Any]", tree).items()}
        if isinstance(tree, list):
            return [self.fill(value, (*location, index)) for index, value in enumerate(cast("list[Any]", tree))]
        return tree

    def _fill_text(self, text: str, location: Location) -> str | None:
        previous = len(self.problems)
        filled = _PLACEHOLDER.sub(lambda match: self._value(match, location), text)
        if len(self.problems) > previous:
            return text
        whole = _PLACEHOLDER.fullmatch(text)
        return None if whole and not filled else filled

    def _value(self, match: re.Match[str], location: Location) -> str:
        if match[0] == "$$":
            return "$"
        try:
            if match["malformed"]:
                raise SecretNotAvailable(f"{match[0]} is not a placeholder; write a plain dollar as $$")
            origin, value = self._secret(match) if match["secret"] else self._variable(match)
        except SecretNotAvailable as reason:
            self.problems.append(PlaceholderProblem(location, str(reason)))
            return match[0]
        self.origins[location] = f"{self.origins[location]}, {origin}" if location in self.origins else origin
        return value

    def _secret(self, match: re.Match[str]) -> tuple[str, str]:
        secret, key = match["secret"], match["key"]
        value = self._secrets[secret]
        if isinstance(value, SecretNotAvailable):
            raise SecretNotAvailable(f"secret {secret}: {value}")
        if key is not None:
            value = _json_value(secret, key, value)
        if value:
            self.values.add(value)
        return f"secret {secret}" + (f"#{key}" if key else ""), value

    def _variable(self, match: re.Match[str]) -> tuple[str, str]:
        name, operand = match["name"], match["operand"]
        value = self._environment.get(name, "")
        if match["operator"] == "-":
            return (f"environment {name}", value) if value else (f"default of {name}", operand)
        if match["operator"] == "?" and not value:
            raise SecretNotAvailable(f"environment variable {name}: {operand or 'is not set'}")
        if name not in self._environment:
            raise SecretNotAvailable(f"environment variable {name} is not set")
        return f"environment {name}", value


def _json_value(secret: str, key: str, text: str) -> str:
    try:
        document = json.loads(text)
    except ValueError:
        raise SecretNotAvailable(f"secret {secret}: is not JSON, so #{key} cannot be read") from None
    if not isinstance(document, dict) or key not in document:
        raise SecretNotAvailable(f"secret {secret}: its JSON has no key {key}")
    value: Any = cast("dict[str, Any]", document)[key]
    return value if isinstance(value, str) else json.dumps(value)
