"""A tool, and the one place where whatever goes wrong in a tool becomes something the model can read."""

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
        """What the model is told."""
        ...

    @property
    def direct(self) -> bool:
        """Whether the result is the answer, word for word."""
        ...

    @property
    def guarded(self) -> bool:
        """Whether a person must approve every call."""
        ...

    @property
    def timeout_seconds(self) -> float: ...

    async def __aenter__(self) -> Tool: ...

    async def __aexit__(self, *exc_info: object) -> None: ...

    async def call(self, arguments: Mapping[str, Any]) -> str:
        """Do it.

        Raises:
            ToolError: the model can mend its call; anything else that is raised is reported to it as a failure.
        """
        ...


@dataclass(frozen=True, slots=True)
class Check:
    """One part of the agent that may fail while the rest goes on, and how it is."""

    name: str
    ok: bool
    reason: str | None = None


class Toolset(Protocol):
    """Tools that come and go while the agent runs, such as those of an MCP server."""

    @property
    def checks(self) -> Sequence[Check]:
        """How each source of tools is; one that is down makes the agent degraded, not dead."""
        ...

    async def __aenter__(self) -> Toolset: ...

    async def __aexit__(self, *exc_info: object) -> None: ...

    def tools(self, taken: Collection[str]) -> Sequence[Tool]:
        """What there is now; a tool whose own name is in `taken` goes by another."""
        ...


class Toolbox:
    """All tools of an agent: those of its file, and what its toolsets have at the moment.

    Raises:
        StartError: two tools of the file have one name.
    """

    def __init__(self, tools: Sequence[Tool] = (), toolsets: Sequence[Toolset] = ()) -> None:
        self._fixed: dict[str, Tool] = {}
        self._toolsets = tuple(toolsets)
        for tool in tools:
            if tool.spec.name in self._fixed:
                raise StartError(f"two tools are called {tool.spec.name}; give one of them another name")
            self._fixed[tool.spec.name] = tool

    def now(self) -> dict[str, Tool]:
        """By name, in the order of the file; a run keeps what it began with."""
        named = dict(self._fixed)
        for toolset in self._toolsets:
            named |= {tool.spec.name: tool for tool in toolset.tools(named.keys())}
        return named

    @property
    def checks(self) -> tuple[Check, ...]:
        """How every toolset's sources are."""
        return tuple(check for toolset in self._toolsets for check in toolset.checks)


def parse_arguments(call: ToolCall) -> dict[str, Any]:
    """The arguments of a call.

    Raises:
        ToolError: they are not a JSON object.
    """
    try:
        arguments: Any = json.loads(call.arguments or "{}")
    except ValueError as error:
        raise ToolError(f"The arguments are not valid JSON: {error}.") from None
    if not isinstance(arguments, dict):
        raise ToolError("The arguments must be a JSON object.")
    return cast("dict[str, Any]", arguments)


def shown_arguments(call: ToolCall) -> Mapping[str, Any]:
    """The arguments for somebody who looks on; none where they cannot be read, which the model is told."""
    try:
        return parse_arguments(call)
    except ToolError:
        return {}


async def run_tool(tools: Mapping[str, Tool], call: ToolCall, mask: Callable[[str], str] = str) -> ToolResult:
    """Run one call; never raises but for cancellation. `mask` takes secrets out of what an error says."""
    started = time.monotonic()
    content, is_error = await _outcome(tools, call)
    content = mask(content) if is_error else content
    if len(content) > MAX_RESULT_CHARACTERS:
        content = content[:MAX_RESULT_CHARACTERS] + f"\n… cut: the result has {len(content)} characters."
    return ToolResult(call.id, call.name, content, is_error, round((time.monotonic() - started) * 1000))


async def _outcome(tools: Mapping[str, Tool], call: ToolCall) -> tuple[str, bool]:
    tool = tools.get(call.name)
    if tool is None:
        return f"There is no tool {call.name}; there are: {', '.join(tools) or 'none'}.", True
    try:
        async with asyncio.timeout(tool.timeout_seconds):
            return await tool.call(parse_arguments(call)), False
    except ToolError as error:
        return str(error), True
    except TimeoutError:
        return f"{call.name} did not finish within {tool.timeout_seconds:g} s.", True
    except Exception as error:  # a tool is foreign code: whatever it raises is the model's to read, and the log's
        _log.warning("tool %s failed", call.name, exc_info=True)
        return f"{call.name} failed: {type(error).__name__}: {error}", True
