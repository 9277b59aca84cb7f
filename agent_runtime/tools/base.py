"""The interface of a tool, and the one place that runs tool calls: any error becomes a result for the model."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from agent_runtime.errors import StartError, ToolError
from agent_runtime.events import ToolCall, ToolResult, ToolSpec

_log = logging.getLogger(__name__)

MAX_RESULT_CHARACTERS = 40_000


class Tool(Protocol):
    """Something a model may call."""

    @property
    def spec(self) -> ToolSpec:
        """The name, description and parameters that the model gets."""
        ...

    @property
    def direct(self) -> bool:
        """Whether the result is the answer, verbatim."""
        ...

    @property
    def guarded(self) -> bool:
        """Whether every call needs approval."""
        ...

    @property
    def timeout_seconds(self) -> float: ...

    async def __aenter__(self) -> Tool: ...

    async def __aexit__(self, *exc_info: object) -> None: ...

    async def call(self, arguments: Mapping[str, Any]) -> str:
        """Run the tool and return its result as text.

        Raises:
            ToolError: its message is for the model, which may correct its call. Any other exception is a failure.
        """
        ...


@dataclass(frozen=True, slots=True)
class Check:
    """The health of one part of the agent that may fail while the rest works."""

    name: str
    ok: bool
    reason: str | None = None


class Toolset(Protocol):
    """Tools that may change while the agent runs, such as those of an MCP server."""

    @property
    def checks(self) -> Sequence[Check]:
        """The health of each source of tools; if one is down, the agent is degraded but works."""
        ...

    async def __aenter__(self) -> Toolset: ...

    async def __aexit__(self, *exc_info: object) -> None: ...

    def tools(self, taken: Collection[str]) -> Sequence[Tool]:
        """The current tools; a tool whose name is in `taken` is renamed."""
        ...


class Toolbox:
    """All tools of an agent: those of its file, and the current ones of its toolsets.

    Raises:
        StartError: two tools of the file have the same name.
    """

    def __init__(self, tools: Sequence[Tool] = (), toolsets: Sequence[Toolset] = ()) -> None:
        self._fixed: dict[str, Tool] = {}
        self._toolsets = tuple(toolsets)
        for tool in tools:
            if tool.spec.name in self._fixed:
                raise StartError(f"two tools are named {tool.spec.name}; rename one of them")
            self._fixed[tool.spec.name] = tool

    def now(self) -> dict[str, Tool]:
        """The current tools by name, in the order of the file."""
        named = dict(self._fixed)
        for toolset in self._toolsets:
            named |= {tool.spec.name: tool for tool in toolset.tools(named.keys())}
        return named

    @property
    def checks(self) -> tuple[Check, ...]:
        """The health of the sources of all toolsets."""
        return tuple(check for toolset in self._toolsets for check in toolset.checks)


def parse_arguments(call: ToolCall) -> dict[str, Any]:
    """The arguments of a call.

    Raises:
        ToolError: the arguments are not a JSON object.
    """
    try:
        arguments: Any = json.loads(call.arguments or "{}")
    except ValueError as error:
        raise ToolError(f"The arguments are not valid JSON: {error}.") from None
    if not isinstance(arguments, dict):
        raise ToolError("The arguments must be a JSON object.")
    return cast("dict[str, Any]", arguments)


def shown_arguments(call: ToolCall) -> Mapping[str, Any]:
    """The arguments for display; empty if they are not valid JSON, which the result of the call reports."""
    try:
        return parse_arguments(call)
    except ToolError:
        return {}


async def run_tool(tools: Mapping[str, Tool], call: ToolCall, mask: Callable[[str], str] = str) -> ToolResult:
    """Run one call; raises nothing but CancelledError. `mask` removes secrets from errors."""
    started = time.monotonic()
    content, is_error = await _call(tools, call)
    content = mask(content) if is_error else content
    if len(content) > MAX_RESULT_CHARACTERS:
        content = content[:MAX_RESULT_CHARACTERS] + f"\n… truncated: the result has {len(content)} characters."
    return ToolResult(call.id, call.name, content, is_error, round((time.monotonic() - started) * 1000))


async def _call(tools: Mapping[str, Tool], call: ToolCall) -> tuple[str, bool]:
    tool = tools.get(call.name)
    if tool is None:
        return f"There is no tool {call.name}; available tools: {', '.join(tools) or 'none'}.", True
    try:
        async with asyncio.timeout(tool.timeout_seconds):
            return await tool.call(parse_arguments(call)), False
    except ToolError as error:
        return str(error), True
    except TimeoutError:
        return f"{call.name} did not finish within {tool.timeout_seconds:g} s.", True
    except Exception as error:  # a tool may raise anything; the model gets the error, the log the traceback
        _log.warning("tool %s failed", call.name, exc_info=True)
        return f"{call.name} failed: {type(error).__name__}: {error}", True
