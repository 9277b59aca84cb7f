"""Placeholders in the strings of an agent file: find them, fetch what they name, substitute.

`${NAME}` `${NAME:-default}` `${NAME:?message}` read the environment, `${secret:path}` and `${secret:path#key}` a
secret source, `$$` is a dollar. What came out of a placeholder is never read as a template again.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

Path = tuple[str | int, ...]

FETCH_SECONDS = 10

_PLACEHOLDER = re.compile(
    r"\$\$"
    r"|\$\{secret:(?P<secret>[^}#]+)(?:\#(?P<key>[^}]+))?\}"
    r"|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::(?P<operator>[-?])(?P<operand>(?:(?!\$\{)[^}])*))?\}"
    r"|(?P<malformed>\$\{[^}]*\}?)"
)


class SecretNotAvailable(Exception):
    """A secret could not be had; the text is the reason, never a value."""


Fetched = Mapping[str, str | SecretNotAvailable]
Fetch = Callable[[Sequence[str]], Awaitable[Fetched]]
"""What a secret source does: all paths at once; of each its text, or the reason that it cannot be had."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A placeholder that could not be filled, and where it stands."""

    path: Path
    message: str


@dataclass(slots=True)
class Resolution:
    """A tree with its placeholders filled.

    `origins` says where each value with placeholders came from (`secret team/key`, `environment NAME`), for people;
    `secrets` are the values that must never surface. A string with a problem keeps its text.
    """

    tree: Any = field(repr=False)
    problems: list[Problem] = field(default_factory=list[Problem])
    origins: dict[Path, str] = field(default_factory=dict[Path, str])
    secrets: frozenset[str] = field(default=frozenset(), repr=False)


def strings(tree: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Every string value in a tree of dictionaries and lists, with its path."""
    if isinstance(tree, str):
        yield path, tree
    elif isinstance(tree, dict):
        for key, value in cast("dict[str, Any]", tree).items():
            yield from strings(value, (*path, key))
    elif isinstance(tree, list):
        for index, value in enumerate(cast("list[Any]", tree)):
            yield from strings(value, (*path, index))


def secret_paths(tree: Any) -> list[str]:
    """The paths of all secrets that a tree names, each once, in order."""
    found = (match["secret"] for _, text in strings(tree) for match in _PLACEHOLDER.finditer(text))
    return list(dict.fromkeys(path for path in found if path))


async def resolve(
    tree: Any, *, environment: Mapping[str, str], fetch: Fetch, timeout_seconds: float = FETCH_SECONDS
) -> Resolution:
    """Fetch the secrets of a tree and fill it; never raises for what a placeholder lacks, see `fill`."""
    return fill(tree, environment, await fetched(secret_paths(tree), fetch, timeout_seconds))


async def fetched(paths: Sequence[str], fetch: Fetch, timeout_seconds: float = FETCH_SECONDS) -> Fetched:
    """The secrets at these paths; a source that fails as a whole is the reason for each of them."""
    if not paths:
        return {}
    try:
        async with asyncio.timeout(timeout_seconds):
            answers = await fetch(paths)
    except TimeoutError:
        late = SecretNotAvailable(f"the secret source did not answer within {timeout_seconds:g} s")
        return dict.fromkeys(paths, late)
    except SecretNotAvailable as reason:
        return dict.fromkeys(paths, reason)
    return {path: answers.get(path, SecretNotAvailable("not found")) for path in paths}


def fill(tree: Any, environment: Mapping[str, str], secrets: Fetched) -> Resolution:
    """Fill every placeholder of the tree; all that one lacks is in `problems`.

    A value that is one placeholder and nothing else, and comes out empty, is None: `${ENDPOINT:-}` is "not set".
    """
    filler = _Filler(environment, secrets)
    return Resolution(filler.fill(tree, ()), filler.problems, filler.origins, frozenset(filler.values))


class _Filler:
    def __init__(self, environment: Mapping[str, str], secrets: Fetched) -> None:
        self._environment = environment
        self._secrets = secrets
        self.problems: list[Problem] = []
        self.origins: dict[Path, str] = {}
        self.values: set[str] = set()

    def fill(self, tree: Any, path: Path) -> Any:
        if isinstance(tree, str):
            return self._fill_text(tree, path)
        if isinstance(tree, dict):
            return {key: self.fill(value, (*path, key)) for key, value in cast("dict[str, Any]", tree).items()}
        if isinstance(tree, list):
            return [self.fill(value, (*path, index)) for index, value in enumerate(cast("list[Any]", tree))]
        return tree

    def _fill_text(self, text: str, path: Path) -> str | None:
        known = len(self.problems)
        filled = _PLACEHOLDER.sub(lambda match: self._value(match, path), text)
        if len(self.problems) > known:
            return text
        whole = _PLACEHOLDER.fullmatch(text)
        return None if whole and not filled else filled

    def _value(self, match: re.Match[str], path: Path) -> str:
        if match[0] == "$$":
            return "$"
        try:
            if match["malformed"]:
                raise SecretNotAvailable(f"{match[0]} is not a placeholder; a plain dollar is written $$")
            origin, value = self._secret(match) if match["secret"] else self._variable(match)
        except SecretNotAvailable as reason:
            self.problems.append(Problem(path, str(reason)))
            return match[0]
        self.origins[path] = f"{self.origins[path]}, {origin}" if path in self.origins else origin
        return value

    def _secret(self, match: re.Match[str]) -> tuple[str, str]:
        secret, key = match["secret"], match["key"]
        value = self._secrets[secret]
        if isinstance(value, SecretNotAvailable):
            raise SecretNotAvailable(f"secret {secret}: {value}")
        if key is not None:
            value = _picked(secret, key, value)
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


def _picked(secret: str, key: str, text: str) -> str:
    try:
        document = json.loads(text)
    except ValueError:
        raise SecretNotAvailable(f"secret {secret}: is not JSON, so #{key} cannot be picked") from None
    if not isinstance(document, dict) or key not in document:
        raise SecretNotAvailable(f"secret {secret}: is JSON without the key {key}")
    value: Any = cast("dict[str, Any]", document)[key]
    return value if isinstance(value, str) else json.dumps(value)
