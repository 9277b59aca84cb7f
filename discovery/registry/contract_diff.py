"""How one list of tools differs from another, and whether that breaks callers of the old one. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from discovery.contract import ToolInfo
from discovery.registry.history import ContractDiff, ToolChange

MAX_LISTED = 64
Schema = Mapping[str, Any]


def contract_diff(before: Sequence[str | ToolInfo], after: Sequence[str | ToolInfo]) -> ContractDiff | None:
    """The differences, or None where the tools are equal."""
    old, new = _by_name(before), _by_name(after)
    added = sorted(new.keys() - old.keys())
    removed = sorted(old.keys() - new.keys())
    changed = [change for name in sorted(old.keys() & new.keys()) if (change := _change(old[name], new[name]))]
    if not (added or removed or changed):
        return None
    breaking = bool(removed) or any(change.breaking for change in changed)
    return ContractDiff(added=added, removed=removed, changed=changed, breaking=breaking)


def _by_name(tools: Sequence[str | ToolInfo]) -> dict[str, ToolInfo]:
    described = [ToolInfo(name=tool) if isinstance(tool, str) else tool for tool in tools]
    return {tool.name: tool for tool in described}


def _change(before: ToolInfo, after: ToolInfo) -> ToolChange | None:
    found = list(_schema_changes(before.input_schema or {}, after.input_schema or {}))
    if before.description != after.description:
        found.append((False, "its description changed"))
    if not found:
        return None
    what = [sentence for _, sentence in found[:MAX_LISTED]]
    return ToolChange(name=after.name, breaking=any(breaks for breaks, _ in found), what=what)


def _schema_changes(before: Schema, after: Schema) -> Iterator[tuple[bool, str]]:
    """Pairs of (breaking, sentence). Compares the arguments; deeper differences are only reported."""
    if before == after:
        return
    if not before or not after:  # undescribed before or now: callers cannot know
        yield False, "its arguments are described now" if after else "its arguments are no longer described"
        return
    old, new = _properties(before), _properties(after)
    required_before, required_after = _required(before), _required(after)
    for name in sorted(old.keys() - new.keys()):
        yield True, f"argument {name} was removed"
    for name in sorted(new.keys() - old.keys()):
        must = name in required_after
        yield must, f"argument {name} was added" + (" and is required" if must else "")
    for name in sorted(old.keys() & new.keys()):
        if name in required_after - required_before:
            yield True, f"argument {name} is required now"
        if name in required_before - required_after:
            yield False, f"argument {name} is optional now"
        yield from _argument_changes(name, old[name], new[name])
    rest = {"properties", "required"}
    if {key: value for key, value in before.items() if key not in rest} != {
        key: value for key, value in after.items() if key not in rest
    }:
        yield False, "the rest of its schema changed"


def _argument_changes(name: str, before: Any, after: Any) -> Iterator[tuple[bool, str]]:
    if before == after:
        return
    if not isinstance(before, dict) or not isinstance(after, dict):
        yield True, f"argument {name} changed"
        return
    old, new = cast("Schema", before), cast("Schema", after)
    compared = {"type", "enum", "description", "title", "default", "examples"}
    if old.get("type") != new.get("type"):
        wider = _types(old) < _types(new) if "type" in old and "type" in new else "type" not in new
        yield not wider, f"argument {name} is {_type_names(new)} now, it was {_type_names(old)}"
    if old.get("enum") != new.get("enum"):
        gone = _values(old) - _values(new) if "enum" in new else set[str]()
        yield bool(gone) or ("enum" not in old), f"argument {name} takes other values now"
    if {k: v for k, v in old.items() if k not in compared} != {k: v for k, v in new.items() if k not in compared}:
        yield True, f"argument {name} has another form now"
    elif any(old.get(key) != new.get(key) for key in compared - {"type", "enum"}):
        yield False, f"argument {name} is described differently"


def _properties(schema: Schema) -> dict[str, Any]:
    found = schema.get("properties")
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _required(schema: Schema) -> set[str]:
    found = schema.get("required")
    return {name for name in cast("list[Any]", found) if isinstance(name, str)} if isinstance(found, list) else set()


def _types(schema: Schema) -> set[str]:
    found = schema.get("type")
    return {str(one) for one in cast("list[Any]", found)} if isinstance(found, list) else {str(found)}


def _values(schema: Schema) -> set[str]:
    found = schema.get("enum")
    return {repr(one) for one in cast("list[Any]", found)} if isinstance(found, list) else set()


def _type_names(schema: Schema) -> str:
    return " or ".join(sorted(_types(schema))) if "type" in schema else "anything"
