"""The parameters of a tool from its JSON Schema: references resolved, `null` removed, strings bounded.

Written for the schemas that pydantic generates from a function; other keywords are passed on unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from agent_runtime.local_model.wording import stems, subject_stems

Kind = Literal["choice", "flag", "number", "date", "text", "list", "other"]
Role = Literal["lower", "upper", "count", "plain"]

MAX_STRING = 80
MAX_ITEMS = 8

FREE_TEXT = frozenset(stems("query question search message prompt text input"))
_ROLES: tuple[tuple[Role, frozenset[str]], ...] = (
    ("count", frozenset(stems("limit count top rows results size k n"))),
    ("lower", frozenset(stems("min minimum from after since start above over least lower"))),
    ("upper", frozenset(stems("max maximum to until before end below under most upper"))),
)
_ROLE_PHRASES: tuple[tuple[Role, re.Pattern[str]], ...] = (
    ("count", re.compile(r"\b(?:how many .* to|number of (?:rows|results|items))\b", re.IGNORECASE)),
    ("lower", re.compile(r"\b(?:at least|minimum|or more|or later|earliest)\b", re.IGNORECASE)),
    ("upper", re.compile(r"\b(?:at most|maximum|or less|or earlier|latest)\b", re.IGNORECASE)),
)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One property of a tool's schema, with references resolved and `null` removed from its type."""

    name: str
    schema: Mapping[str, Any]
    required: bool
    kind: Kind

    @property
    def choices(self) -> list[Any]:
        return [self.schema["const"]] if "const" in self.schema else list(self.schema.get("enum", ()))

    @property
    def description(self) -> str:
        return str(self.schema.get("description", ""))

    @property
    def vocabulary(self) -> set[str]:
        return {*stems(self.name), *subject_stems(self.description)}

    @property
    def role(self) -> Role:
        """Which end of a range it is, by its name, else by its description."""
        name = set(stems(self.name))
        for role, words in _ROLES:
            if name & words:
                return role
        for role, phrase in _ROLE_PHRASES:
            if phrase.search(self.description):
                return role
        return "plain"


def parameters_of(schema: Mapping[str, Any]) -> list[Parameter]:
    """The properties of a tool's schema in their order."""
    required = set(schema.get("required", ()))
    properties = cast("Mapping[str, Any]", schema.get("properties", {}))
    found: list[Parameter] = []
    for name, raw in properties.items():
        plain = _plain_schema(raw, schema)
        found.append(Parameter(name, plain, name in required, _kind(plain)))
    return found


def object_schema(properties: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of an object of exactly these properties."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def bounded(schema: Mapping[str, Any], *, nullable: bool = False) -> dict[str, Any]:
    """The schema to decode under: strings and lists are bounded, and `null` is allowed if `nullable`."""
    plain = {key: value for key, value in schema.items() if key not in {"default", "description", "title"}}
    match plain.get("type"):
        case "string" if "enum" not in plain and "const" not in plain and "format" not in plain:
            plain["maxLength"] = min(plain.get("maxLength", MAX_STRING), MAX_STRING)
        case "array":
            plain["maxItems"] = min(plain.get("maxItems", MAX_ITEMS), MAX_ITEMS)
            plain["items"] = bounded(plain.get("items") or {"type": "string"})
        case "object":
            inner = cast("Mapping[str, Mapping[str, Any]]", plain.get("properties", {}))
            plain["properties"] = {name: bounded(value) for name, value in inner.items()}
            plain["additionalProperties"] = False
        case _:
            pass
    return {"anyOf": [plain, {"type": "null"}]} if nullable else plain


def _plain_schema(node: Any, root: Mapping[str, Any]) -> dict[str, Any]:
    """One node with its references resolved and an `anyOf` with null replaced by the other option."""
    schema = dict(cast("Mapping[str, Any]", node)) if isinstance(node, Mapping) else {}
    reference = schema.pop("$ref", None)
    if isinstance(reference, str):
        schema = _plain_schema(_resolve(reference, root), root) | schema
    for key in ("anyOf", "oneOf"):
        options = [option for option in schema.get(key, ()) if option != {"type": "null"}]
        if len(options) == 1:
            del schema[key]
            schema = _plain_schema(options[0], root) | schema
    if isinstance(schema.get("type"), list):
        schema["type"] = next((kind for kind in schema["type"] if kind != "null"), "string")
    if "items" in schema:
        schema["items"] = _plain_schema(schema["items"], root)
    if isinstance(schema.get("properties"), Mapping):
        inner = cast("Mapping[str, Any]", schema["properties"])
        schema["properties"] = {name: _plain_schema(value, root) for name, value in inner.items()}
    return schema


def _resolve(reference: str, root: Mapping[str, Any]) -> Any:
    node: Any = root
    for part in reference.removeprefix("#/").split("/"):
        node = cast("Mapping[str, Any]", node).get(part, {}) if isinstance(node, Mapping) else {}
    return node


def _kind(schema: Mapping[str, Any]) -> Kind:
    if "enum" in schema or "const" in schema:
        return "choice"
    if schema.get("format") in {"date", "date-time"}:
        return "date"
    kinds: dict[str, Kind] = {
        "boolean": "flag", "number": "number", "integer": "number", "string": "text", "array": "list",
    }  # fmt: skip
    return kinds.get(str(schema.get("type")), "other")
