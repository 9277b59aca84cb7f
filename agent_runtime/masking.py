"""Replaces secrets in texts, in every encoding: plain, JSON, Python's `repr`, HTML, URL and base64."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, cast

SHORTEST = 4
"""Shorter values are not masked: they occur in ordinary texts by chance."""

_SHORTEST_LINE = 16  # each line of a multi-line secret, such as a private key, is masked too
_MASK = "***"


def masked(text: str, secrets: Iterable[str]) -> str:
    """Replace every secret in a text by `***`."""
    forms, in_urls = _forms(frozenset(secrets))
    for form in forms:
        if form in text:
            text = text.replace(form, _MASK)
    return in_urls.sub(_MASK, text) if in_urls and ("%" in text or "+" in text) else text


def masked_values(tree: Any, secrets: Iterable[str]) -> Any:
    """Mask the strings of a JSON-like tree. Keys are kept: a secret may equal an ordinary key such as `token`."""
    if isinstance(tree, str):
        return masked(tree, secrets)
    if isinstance(tree, dict):
        return {key: masked_values(value, secrets) for key, value in cast("dict[str, Any]", tree).items()}
    if isinstance(tree, list):
        return [masked_values(value, secrets) for value in cast("list[Any]", tree)]
    return tree


class Mask:
    """Masks a growing set of secrets: a rotated secret is masked as well as its successor."""

    def __init__(self) -> None:
        self._secrets: frozenset[str] = frozenset()

    def learn(self, secrets: Iterable[str]) -> None:
        """Add secrets."""
        self._secrets |= frozenset(secrets)

    def __call__(self, text: str) -> str:
        return masked(text, self._secrets)


LOG_MASK = Mask()
"""Masks every secret that this process has read, in its log and its output."""


@lru_cache(maxsize=256)  # one entry per agent of a process
def _forms(secrets: frozenset[str]) -> tuple[tuple[str, ...], re.Pattern[str] | None]:
    """All encodings, longest first because one may contain another, and a pattern for percent-encoding."""
    whole = {secret for secret in secrets if len(secret) >= SHORTEST}
    lines = {line.strip() for secret in whole for line in secret.splitlines()}
    values = whole | {line for line in lines if len(line) >= _SHORTEST_LINE and not line.startswith("-----")}
    forms = {form for secret in values for form in (*_escaped(secret), *_in_base64(secret.encode(errors="replace")))}
    if not values:
        return (), None
    in_urls = "|".join(_in_url(secret) for secret in sorted(values, key=len, reverse=True))
    return tuple(sorted(forms, key=len, reverse=True)), re.compile(in_urls)


def _escaped(secret: str) -> set[str]:
    """The secret in plain text, JSON, JSON within JSON, `repr` and HTML."""
    once = {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    twice = {json.dumps(form)[1:-1] for form in once}
    shown = {repr(secret)[1:-1], repr(secret.encode(errors="replace"))[2:-1]}
    return {secret, html.escape(secret), *once, *twice, *shown}


def _in_base64(secret: bytes) -> set[str]:
    """The base64 digits that depend on the secret alone, for each offset within a group of three bytes."""
    found: set[str] = set()
    for before in range(3):
        digits = base64.b64encode(bytes(before) + secret).decode().rstrip("=")
        first = (8 * before + 5) // 6  # the digit before it may encode bits of the preceding text
        last = 8 * (before + len(secret)) // 6  # and the digit after it bits of the following text
        own = digits[first:last]
        found |= {own, own.replace("+", "-").replace("/", "_")}
    return found


def _in_url(secret: str) -> str:
    """A pattern of the secret percent-encoded in whole or in part: clients differ in what they encode."""
    return "".join(_in_url_one(character) for character in secret)


def _in_url_one(character: str) -> str:
    encoded = "".join(f"%(?i:{byte:02x})" for byte in character.encode(errors="replace"))
    return f"(?:{re.escape(character)}|{encoded}{'|[+]' if character == ' ' else ''})"
