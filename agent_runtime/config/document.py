"""The text of an agent file: its tree, the line of every key and item in it, and the wording of error messages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import yaml

from agent_runtime.config.placeholders import Location
from agent_runtime.errors import ConfigError, Problem

_NO_FILE = "no such file; set another with --config, or create an agent with `myagent new NAME`"
_HINTS = {
    "mapping values are not allowed here": "; check the indentation, and put a text that contains `: ` in quotes",
    "found character '\\t' that cannot start any token": "; YAML is indented with spaces, not tabs",
}


def read_document(path: Path) -> tuple[dict[str, Any], dict[Location, int]]:
    """The tree of a file, with its placeholders unfilled, and the line on which each part of it begins.

    Raises:
        ConfigError: the file does not exist or is not valid YAML, or keys are duplicated; holds all problems.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except IsADirectoryError:
        raise ConfigError(str(path), [Problem("is a folder; use the path of the agent file in it")]) from None
    except FileNotFoundError:
        raise ConfigError(str(path), [Problem(_NO_FILE)]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), [Problem(f"cannot be read: {error}")]) from None
    lines: dict[Location, int] = {}
    problems: list[Problem] = []
    try:
        tree = _parsed(text, lines, problems)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = f"is not valid YAML: {error.problem or error.context}{_HINTS.get(error.problem or '', '')}"
        raise ConfigError(str(path), [Problem(message, line=mark.line + 1 if mark else None)]) from None
    except RecursionError:
        raise ConfigError(str(path), [Problem("is not valid YAML: it is nested too deeply")]) from None
    except (yaml.YAMLError, ValueError) as error:  # a control character; an impossible date
        raise ConfigError(str(path), [Problem(f"is not valid YAML: {str(error).splitlines()[0]}")]) from None
    if not isinstance(tree, dict):
        problems = [Problem("must be a map of keys such as `name:` and `model:`", line=1)]
    if problems:
        raise ConfigError(str(path), problems)
    return cast("dict[str, Any]", tree), lines


def _parsed(text: str, lines: dict[Location, int], problems: list[Problem]) -> Any:
    loader: Any = yaml.SafeLoader(text)  # its stubs are incomplete
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _map_lines(node, (), lines, problems)
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _map_lines(node: yaml.Node, path: Location, lines: dict[Location, int], problems: list[Problem]) -> None:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in cast("list[tuple[yaml.Node, yaml.Node]]", node.value):
            inner = (*path, str(key.value))
            if inner in lines:
                problems.append(Problem("the key is duplicated", dotted(inner), key.start_mark.line + 1))
            lines[inner] = key.start_mark.line + 1
            _map_lines(value, inner, lines, problems)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(cast("list[yaml.Node]", node.value)):
            _map_lines(item, (*path, index), lines, problems)


def dotted(location: Location) -> str:
    """A location as text: `tools[1].function`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).removeprefix(".")


def line_of(location: Location, lines: Mapping[Location, int]) -> int | None:
    """The line of a location, or of the nearest part around it that has a line."""
    while location and location not in lines:
        location = location[:-1]
    return lines.get(location)


_MESSAGES = {
    "string_type": "must be a text; put it in quotes",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "list_type": "must be a list: [one, two], or one item per line that begins with `- `",
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


def error_message(kind: str, message: str, context: Mapping[str, Any]) -> str:
    """The message for an error of pydantic's, in terms of the file; pydantic's own are in terms of Python."""
    if kind in _MESSAGES:
        return _MESSAGES[kind].format_map(context)
    return message.removeprefix("Value error, ").removeprefix("Input ")
