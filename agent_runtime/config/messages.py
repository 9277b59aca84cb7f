"""What is wrong with a value, in the words of who wrote it: pydantic's own are for who writes models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_WANTED = {
    "string_type": "must be a text; put it in quotes",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a number, and not an infinite one",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "list_type": "must be a list: [one, two], or a line for each that begins with `- `",
    "dict_type": "must be a map of keys and values",
    "model_type": "must be a map of keys and values",
    "model_attributes_type": "must be a map of keys and values",
    "greater_than": "must be over {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "too_short": "must have at least {min_length}",
    "too_long": "must have at most {max_length}",
    "missing": "is required",
}


def complaint(kind: str, message: str, context: Mapping[str, Any]) -> str:
    """The sentence for an error of pydantic's: its kind, its own message, and what it knows besides."""
    if kind in _WANTED:
        return _WANTED[kind].format_map(context)
    return message.removeprefix("Value error, ").removeprefix("Input ")
