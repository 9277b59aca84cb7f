"""Type and default of each key as the reference writes them, computed from the config models."""

import json
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import BaseModel, SecretStr, Tag
from pydantic.fields import FieldInfo

PLAIN = {str: "text", SecretStr: "secret text", int: "whole number", float: "number", bool: "true or false"}


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Every key of the file below a section: path, type and default."""
    for name, field in model.model_fields.items():
        path = prefix + name
        yield path, type_words(field.annotation, field.metadata), default_words(field)
        for step, section in sections_in(field.annotation):
            if not (path == "model.fallback" and step == "[]"):  # has the keys of `model` again
                yield from keys_of(section, f"{path}{step}.")


def sections_in(annotation: Any, step: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """The sections in a field, with the path to them: `[]` for an item of a list, `.NAME` for a value of a map."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield step, annotation
    elif get_origin(annotation) is list:
        yield from sections_in(get_args(annotation)[0], f"{step}[]")
    elif get_origin(annotation) is dict:
        yield from sections_in(get_args(annotation)[1], f"{step}.NAME")
    else:
        for part in get_args(annotation):
            yield from sections_in(part, step)


def type_words(annotation: Any, metadata: Any = ()) -> str:
    """The type as the page writes it, such as `number, over 0`."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_words(parts[0], parts[1:])
    if origin is Literal:
        return " \\| ".join(f"`{value}`" for value in parts)
    if origin in (Union, types.UnionType):
        known = [part for part in parts if part is not type(None)]
        if any(Tag in {type(extra) for extra in get_args(part)[1:]} for part in known):
            return "tool"
        return " or ".join(type_words(part) for part in known) + _bounds(metadata)
    if origin is list:
        return f"list of {_plural(type_words(parts[0]))}"
    if origin is dict:
        return "map" if parts[1] is Any else f"map of {_plural(type_words(parts[1]))}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    return PLAIN[annotation] + _bounds(metadata)


def default_words(field: FieldInfo) -> str:
    """The default as the page writes it."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or isinstance(value, BaseModel):
        return "–"
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    return f"`{value}`" if value and isinstance(value, str) else f"`{json.dumps(value)}`"


def _plural(words: str) -> str:
    return words if "`" in words else f"{words}s"


def _bounds(metadata: Any) -> str:
    over = [extra.gt for extra in metadata if isinstance(extra, Gt)]
    least = [extra.ge for extra in metadata if isinstance(extra, Ge)]
    most = [extra.le for extra in metadata if isinstance(extra, Le)]
    if least and most:
        return f", {least[0]} to {most[0]}"
    if over:
        return f", over {over[0]}"
    return f", at least {least[0]}" if least else ""
