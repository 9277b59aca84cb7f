"""File → text → placeholders → `AgentConfig`; everything wrong with the file is reported at once, with its line."""

from __future__ import annotations

import asyncio
import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import UnionType
from typing import Any, cast, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from agent_runtime.config import (
    AgentConfig,
    ContextToolConfig,
    FunctionToolConfig,
    Location,
    RemoteAgentToolConfig,
    dotted,
    error_message,
    line_of,
    read_document,
    secret_values,
)
from agent_runtime.engine.structured_output import read_schema
from agent_runtime.errors import ConfigError, Problem
from agent_runtime.masking import masked
from agent_runtime.secrets import SecretResolver
from agent_runtime.tools import import_function


@dataclass(frozen=True, slots=True)
class AgentFile:
    """A file that was read, filled and checked. `folder` is what relative paths in it are relative to."""

    path: Path
    config: AgentConfig = field(repr=False)
    resolver: SecretResolver = field(repr=False)
    origins: Mapping[Location, str] = field(default_factory=dict[Location, str])

    @property
    def secrets(self) -> frozenset[str]:
        """What must never surface: all that came from the secret source, and the file's keys and passwords."""
        return self.resolver.values

    @property
    def folder(self) -> Path:
        return self.path.parent


async def load(
    path: Path | str,
    *,
    environment: Mapping[str, str] | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
) -> AgentFile:
    """Read one agent file.

    `environment` is where variables come from, `MYAGENT_SECRETS` among them; the process's own by default.
    `overrides` win over the file, section by section: `{"server": {"port": 0}}`.

    Raises:
        ConfigError: the file's owner must act; holds every problem of the file.
        StartError: the secret source that the environment names cannot be used at all.
    """
    path = Path(path)
    environment = os.environ if environment is None else environment  # noqa: TID251 - the resolver's own default
    tree, lines = await asyncio.to_thread(read_document, path)
    for section, values in (overrides or {}).items():
        known: Any = tree.get(section)
        tree[section] = {**(cast("dict[str, Any]", known) if isinstance(known, dict) else {}), **values}
    resolver = SecretResolver(tree, environment)
    resolution = await resolver.resolve()
    problems = [
        Problem(problem.message, dotted(problem.location), line_of(problem.location, lines))
        for problem in resolution.problems
    ]
    unfilled = {problem.location for problem in resolution.problems}
    config: AgentConfig | None = None
    try:
        config = AgentConfig.model_validate(resolution.tree)
    except ValidationError as error:
        problems += _schema_problems(error, unfilled, lines)
    problems += await asyncio.to_thread(_tool_problems, resolution.tree, path.parent, unfilled, lines)
    problems += await asyncio.to_thread(_answer_problems, resolution.tree, path.parent, unfilled, lines)
    if problems or config is None:
        raise ConfigError(
            str(path), [replace(found, message=masked(found.message, resolver.values)) for found in problems]
        )
    resolver.mask(secret_values(config))
    return AgentFile(path, config, resolver, resolution.origins)


# --- problems, in the words of the file ----------------------------------------------------------------------------


def _schema_problems(error: ValidationError, unfilled: set[Location], lines: dict[Location, int]) -> list[Problem]:
    problems: list[Problem] = []
    for details in error.errors(include_url=False, include_input=False):
        location = _file_location(details["loc"])
        if location in unfilled:
            continue  # its placeholder was reported already
        problems.append(Problem(_sentence(details, location), dotted(location), line_of(location, lines)))
    return problems


def _file_location(location: Location) -> Location:
    """Pydantic puts the tag of a chosen union member behind a tool's index; the file knows no tags."""
    if len(location) > 2 and location[0] == "tools":
        return (*location[:2], *location[3:])
    return location[:-1] if location[-1:] == (_KEY,) else location


def _sentence(details: ErrorDetails, location: Location) -> str:
    kind, message = details["type"], details["msg"]
    if kind == "extra_forbidden":
        known = _keys_at(details["loc"][:-1])
        near = difflib.get_close_matches(str(location[-1]), known, n=1)
        return "unknown key" + (f"; did you mean `{near[0]}`?" if near else f"; known are {', '.join(known)}")
    if kind == "string_pattern_mismatch":
        where = details["loc"] if details["loc"][-1] == _KEY else location
        known = _PATTERNS.get(where[-2:]) or _PATTERNS.get(where[-1:])
        return known or (_REFERENCE if location[0] == "tools" else message)
    return error_message(kind, message, details.get("ctx", {}))


_KEY = "[key]"  # what pydantic adds where the key of a map is at fault, not its value
_REFERENCE = "must be `module:function`, such as orders:search_orders"
_PATTERNS: dict[Location, str] = {
    ("name",): "must be lower-case letters, digits and hyphens, at most 63, such as customer-service",
    ("agent",): "must be the name of an agent: lower-case letters, digits and hyphens, at most 63, such as billing",
    (_KEY,): "must be letters, digits, `_` and `-`, at most 32, such as warehouse",
    ("context", "name"): "must be letters, digits, `_` and `-`, at most 64, such as search_documents",
}


_TOOLS: dict[str | int, type[BaseModel]] = {
    "function": FunctionToolConfig,
    "context": ContextToolConfig,
    "agent": RemoteAgentToolConfig,
}


def _keys_at(location: Location) -> list[str]:
    """The keys that the schema knows at a place that pydantic names."""
    model: type[BaseModel] = AgentConfig
    if location[:1] == ("tools",):
        model, location = _TOOLS[location[2]], location[3:]
    shape: Any = model
    for part in location:
        if get_origin(shape) in {dict, list}:  # `part` is a name that the file chose, or a number
            shape = get_args(shape)[-1]
        else:
            shape = cast("type[BaseModel]", shape).model_fields[str(part)].annotation
        if get_origin(shape) is UnionType:  # a section that may be left out
            shape = get_args(shape)[0]
    return list(cast("type[BaseModel]", shape).model_fields)


def _tool_problems(tree: Any, folder: Path, unfilled: set[Location], lines: dict[Location, int]) -> list[Problem]:
    problems: list[Problem] = []
    tools: Any = tree.get("tools")
    for index, tool in enumerate(cast("list[Any]", tools) if isinstance(tools, list) else []):
        location: Location = ("tools", index)
        reference: Any = cast("dict[str, Any]", tool).get("function") if isinstance(tool, dict) else tool
        filled = not any(path[:2] == location for path in unfilled)
        if not isinstance(reference, str) or ":" not in reference or not filled:
            continue
        try:
            import_function(reference, folder)
        except ImportError as error:
            problems.append(Problem(str(error), dotted(location), line_of(location, lines)))
    return problems


def _answer_problems(tree: Any, folder: Path, unfilled: set[Location], lines: dict[Location, int]) -> list[Problem]:
    source: Any = tree.get("output_schema")
    if not isinstance(source, (str, dict)) or any(path[:1] == ("output_schema",) for path in unfilled):
        return []
    try:
        read_schema(cast("str | dict[str, Any]", source), folder)
    except ValueError as error:
        return [Problem(str(error), "output_schema", line_of(("output_schema",), lines))]
    return []
