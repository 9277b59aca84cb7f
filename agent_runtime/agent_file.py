"""From an agent file to its `AgentConfig`. All problems of a file are reported at once, each with its line."""

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
from agent_runtime.engine import read_schema
from agent_runtime.errors import ConfigError, Problem
from agent_runtime.masking import masked
from agent_runtime.secrets import SecretResolver
from agent_runtime.tools import import_function


@dataclass(frozen=True, slots=True)
class AgentFile:
    """A file that was read and validated. Relative paths in it are relative to `folder`."""

    path: Path
    config: AgentConfig = field(repr=False)
    resolver: SecretResolver = field(repr=False)
    origins: Mapping[Location, str] = field(default_factory=dict[Location, str])

    @property
    def secrets(self) -> frozenset[str]:
        """The values to mask: all that came from the secret source, and the keys and passwords of the file."""
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

    `environment` are the variables, `MYAGENT_SECRETS` among them; those of the process by default. `overrides` replace
    values of the file, by section: `{"server": {"port": 0}}`.

    Raises:
        ConfigError: the file is invalid; holds every problem of it.
        StartError: the secret source that the environment names cannot be used.
    """
    path = Path(path)
    environment = os.environ if environment is None else environment  # noqa: TID251 - the default is the process's own
    tree, lines = await asyncio.to_thread(read_document, path)
    for section, values in (overrides or {}).items():
        known: Any = tree.get(section)
        tree[section] = {**(cast("dict[str, Any]", known) if isinstance(known, dict) else {}), **values}
    resolver = SecretResolver(tree, environment)
    resolution = await resolver.resolve()
    problems = _Problems(lines)
    for problem in resolution.problems:
        problems.add(problem.location, problem.message)
    problems.unfilled = {problem.location for problem in resolution.problems}
    config: AgentConfig | None = None
    try:
        config = AgentConfig.model_validate(resolution.tree)
    except ValidationError as error:
        _check_schema(error, problems)
    await asyncio.to_thread(_check_references, resolution.tree, path.parent, problems)
    if problems.found or config is None:
        masked_problems = [replace(one, message=masked(one.message, resolver.values)) for one in problems.found]
        raise ConfigError(str(path), masked_problems)
    resolver.mask(secret_values(config))
    return AgentFile(path, config, resolver, resolution.origins)


class _Problems:
    """Problems of one file with their lines. `unfilled` are values whose placeholder could not be filled."""

    def __init__(self, lines: Mapping[Location, int]) -> None:
        self.found: list[Problem] = []
        self.unfilled: set[Location] = set()
        self._lines = lines

    def add(self, location: Location, message: str) -> None:
        if location not in self.unfilled:  # else it was reported with its placeholder
            self.found.append(Problem(message, dotted(location), line_of(location, self._lines)))

    def is_filled(self, section: Location) -> bool:
        """Whether every placeholder in a part of the file was filled."""
        return not any(location[: len(section)] == section for location in self.unfilled)


# --- what the schema says, in the words of the file ----------------------------------------------------------------


def _check_schema(error: ValidationError, problems: _Problems) -> None:
    for details in error.errors(include_url=False, include_input=False):
        location = _file_location(details["loc"])
        problems.add(location, _sentence(details, location))


def _file_location(location: Location) -> Location:
    """Pydantic adds the tag of a union member after a tool's index, which is not in the file."""
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


_KEY = "[key]"  # what pydantic adds where the key of a map is invalid and not its value
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
    """The keys of the schema at a location that pydantic reports."""
    model: type[BaseModel] = AgentConfig
    if location[:1] == ("tools",):
        model, location = _TOOLS[location[2]], location[3:]
    shape: Any = model
    for part in location:
        if get_origin(shape) in {dict, list}:  # `part` is a key of a map, or an index
            shape = get_args(shape)[-1]
        else:
            shape = cast("type[BaseModel]", shape).model_fields[str(part)].annotation
        if get_origin(shape) is UnionType:  # a section that may be left out
            shape = get_args(shape)[0]
    return list(cast("type[BaseModel]", shape).model_fields)


# --- what the file refers to -----------------------------------------------------------------------------------------


def _check_references(tree: Any, folder: Path, problems: _Problems) -> None:
    """Import the functions of `tools:`, and read the schema of `output_schema:`."""
    tools: Any = tree.get("tools")
    for index, tool in enumerate(cast("list[Any]", tools) if isinstance(tools, list) else []):
        location: Location = ("tools", index)
        reference: Any = cast("dict[str, Any]", tool).get("function") if isinstance(tool, dict) else tool
        if isinstance(reference, str) and ":" in reference and problems.is_filled(location):
            try:
                import_function(reference, folder)
            except ImportError as error:
                problems.add(location, str(error))
    location, schema = ("output_schema",), tree.get("output_schema")
    if isinstance(schema, str | dict) and problems.is_filled(location):
        try:
            read_schema(cast("str | dict[str, Any]", schema), folder)
        except ValueError as error:
            problems.add(location, str(error))
