"""Placeholders in the strings of an agent file: find them, fetch what they name, substitute, mask.

`${NAME}` `${NAME:-default}` `${NAME:?message}` read the environment, `${secret:path}` and `${secret:path#key}` a
secret source, `$$` is a dollar. What came out of a placeholder is never read as a template again.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

Path = tuple[str | int, ...]
Fetch = Callable[[str], Awaitable[str]]

_PLACEHOLDER = re.compile(
    r"\$\$"
    r"|\$\{secret:(?P<secret>[^}#]+)(?:\#(?P<key>[^}]+))?\}"
    r"|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::(?P<operator>[-?])(?P<operand>(?:(?!\$\{)[^}])*))?\}"
    r"|(?P<malformed>\$\{[^}]*\}?)"
)


class SecretNotAvailable(Exception):
    """A secret could not be had; the text is the reason, never a value."""


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
    tree: Any, *, environment: Mapping[str, str], fetch: Fetch, timeout_seconds: float = 10
) -> Resolution:
    """Fill every placeholder of the tree; secrets are fetched concurrently, each path once.

    A value that is one placeholder and nothing else, and comes out empty, is None: `${ENDPOINT:-}` is "not set".
    Never raises for what a placeholder lacks: all of it is in `problems`.
    """
    paths = secret_paths(tree)
    fetched = await asyncio.gather(*(_fetched(path, fetch, timeout_seconds) for path in paths))
    filler = _Filler(environment, dict(zip(paths, fetched, strict=True)))
    return Resolution(filler.fill(tree, ()), filler.problems, filler.origins, frozenset(filler.values))


async def _fetched(path: str, fetch: Fetch, timeout_seconds: float) -> str | SecretNotAvailable:
    try:
        async with asyncio.timeout(timeout_seconds):
            return await fetch(path)
    except TimeoutError:
        return SecretNotAvailable(f"the secret source did not answer within {timeout_seconds:g} s")
    except SecretNotAvailable as reason:
        return reason


class _Filler:
    def __init__(self, environment: Mapping[str, str], fetched: Mapping[str, str | SecretNotAvailable]) -> None:
        self._environment = environment
        self._fetched = fetched
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
        value = self._fetched[secret]
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


def masked(text: str, secrets: Iterable[str]) -> str:
    """The text without any of the secrets, also where JSON escaped them; longest first, as one may hold another."""
    for secret in sorted(secrets, key=len, reverse=True):
        for form in {secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}:
            text = text.replace(form, "***")
    return text


def masked_values(tree: Any, secrets: Iterable[str]) -> Any:
    """A tree with its strings masked. Its keys stay: a secret may be as plain a word as one of them."""
    if isinstance(tree, str):
        return masked(tree, secrets)
    if isinstance(tree, dict):
        return {key: masked_values(value, secrets) for key, value in cast("dict[str, Any]", tree).items()}
    if isinstance(tree, list):
        return [masked_values(value, secrets) for value in cast("list[Any]", tree)]
    return tree
