"""The text of an agent file: its tree, and the line of every key and item in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import yaml

from agent_runtime.errors import ConfigError, Problem

Location = tuple[str | int, ...]

_NO_FILE = "no such file; name another with --config, or make an agent with `myagent new NAME`"
_HINTS = {
    "mapping values are not allowed here": "; look at the indentation, and put a text that has `: ` in it in quotes",
    "found character '\\t' that cannot start any token": "; YAML is indented with spaces, not with tabs",
}


def read(path: Path) -> tuple[dict[str, Any], dict[Location, int]]:
    """The tree of a file with its placeholders as they are, and where each part of it begins.

    Raises:
        ConfigError: there is no such file, or it is not YAML; holds every key that stands twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except IsADirectoryError:
        raise ConfigError(str(path), [Problem("is a folder; name the agent file in it")]) from None
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
        what = f"is not valid YAML: {error.problem or error.context}{_HINTS.get(error.problem or '', '')}"
        raise ConfigError(str(path), [Problem(what, line=mark.line + 1 if mark else None)]) from None
    except RecursionError:
        raise ConfigError(str(path), [Problem("is not valid YAML: it is nested too deeply")]) from None
    except (yaml.YAMLError, ValueError) as error:  # a control character; a date that no calendar has
        raise ConfigError(str(path), [Problem(f"is not valid YAML: {str(error).splitlines()[0]}")]) from None
    if not isinstance(tree, dict):
        problems = [Problem("must be a map of keys such as `name:` and `model:`", line=1)]
    if problems:
        raise ConfigError(str(path), problems)
    return cast("dict[str, Any]", tree), lines


def _parsed(text: str, lines: dict[Location, int], problems: list[Problem]) -> Any:
    loader: Any = yaml.SafeLoader(text)  # its stubs leave half of it untyped
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
                problems.append(Problem("the key stands twice", dotted(inner), key.start_mark.line + 1))
            lines[inner] = key.start_mark.line + 1
            _map_lines(value, inner, lines, problems)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(cast("list[yaml.Node]", node.value)):
            _map_lines(item, (*path, index), lines, problems)


def dotted(location: Location) -> str:
    """A place in the file as people read it: `tools[1].function`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).removeprefix(".")
