"""Secrets out of texts, in whatever spelling they got in.

A secret surfaces as it is, or as something wrote it down: JSON, Python's `repr`, HTML, a URL, base64 inside a header.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, cast

SHORTEST = 4
"""Shorter values are left alone: they stand in ordinary texts by chance, and masking those would hide nothing."""

_SHORTEST_LINE = 16  # of a value with several lines, such as a private key
_MASK = "***"


def masked(text: str, secrets: Iterable[str]) -> str:
    """The text without any of the secrets."""
    forms, in_urls = _forms(frozenset(secrets))
    for form in forms:
        if form in text:
            text = text.replace(form, _MASK)
    return in_urls.sub(_MASK, text) if in_urls and ("%" in text or "+" in text) else text


def masked_values(tree: Any, secrets: Iterable[str]) -> Any:
    """A tree with its strings masked. Its keys stay: a secret may be as plain a word as one of them."""
    if isinstance(tree, str):
        return masked(tree, secrets)
    if isinstance(tree, dict):
        return {key: masked_values(value, secrets) for key, value in cast("dict[str, Any]", tree).items()}
    if isinstance(tree, list):
        return [masked_values(value, secrets) for value in cast("list[Any]", tree)]
    return tree


class Mask:
    """Hides a set of values that grows: a value that was a secret once stays one."""

    def __init__(self) -> None:
        self._secrets: frozenset[str] = frozenset()

    def learn(self, secrets: Iterable[str]) -> None:
        """Hide these too."""
        self._secrets |= frozenset(secrets)

    def __call__(self, text: str) -> str:
        return masked(text, self._secrets)


LOG_MASK = Mask()
"""The secrets that the process has read: none may be in its log or its output."""


@lru_cache(maxsize=256)  # one set for each agent of a process
def _forms(secrets: frozenset[str]) -> tuple[tuple[str, ...], re.Pattern[str] | None]:
    """Every spelling, the longest first as one may hold another; and a pattern for those of a URL, which mix."""
    whole = {secret for secret in secrets if len(secret) >= SHORTEST}
    lines = {line.strip() for secret in whole for line in secret.splitlines()}
    hidden = whole | {line for line in lines if len(line) >= _SHORTEST_LINE and not line.startswith("-----")}
    forms = {form for secret in hidden for form in (*_written(secret), *_in_base64(secret.encode(errors="replace")))}
    if not hidden:
        return (), None
    in_urls = "|".join(_in_url(secret) for secret in sorted(hidden, key=len, reverse=True))
    return tuple(sorted(forms, key=len, reverse=True)), re.compile(in_urls)


def _written(secret: str) -> set[str]:
    """As it is, and as JSON (also inside of JSON), `repr` and HTML write it."""
    once = {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    twice = {json.dumps(form)[1:-1] for form in once}
    shown = {repr(secret)[1:-1], repr(secret.encode(errors="replace"))[2:-1]}
    return {secret, html.escape(secret), *once, *twice, *shown}


def _in_base64(secret: bytes) -> set[str]:
    """What stands in base64 wherever the secret begins in its groups of three: the digits that are its own alone."""
    found: set[str] = set()
    for before in range(3):
        digits = base64.b64encode(bytes(before) + secret).decode().rstrip("=")
        first = (8 * before + 5) // 6  # the digit before may share bits with what stands before the secret
        last = 8 * (before + len(secret)) // 6  # and the one behind with what follows
        own = digits[first:last]
        found |= {own, own.replace("+", "-").replace("/", "_")}
    return found


def _in_url(secret: str) -> str:
    """Percent-encoded in whole or in part: every client leaves other characters as they are."""
    return "".join(_in_url_one(character) for character in secret)


def _in_url_one(character: str) -> str:
    encoded = "".join(f"%(?i:{byte:02x})" for byte in character.encode(errors="replace"))
    return f"(?:{re.escape(character)}|{encoded}{'|[+]' if character == ' ' else ''})"
