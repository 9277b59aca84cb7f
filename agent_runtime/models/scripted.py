"""A model that replays a script, for tests of agents."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent_runtime.errors import ModelError
from agent_runtime.events import Message, ModelChunk, ToolSpec

Reply = str | Exception | Sequence[ModelChunk]


@dataclass(frozen=True, slots=True)
class Asked:
    """One request that the model received."""

    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...]
    stop: tuple[str, ...]
    schema: Mapping[str, Any] | None = None


class ScriptedModel:
    """Replays `replies` in order: text, a sequence of chunks, or an error to raise.

    `asked` records every request. A request beyond the script raises ModelError.
    """

    label = "scripted"

    def __init__(self, replies: Iterable[Reply]) -> None:
        self._replies = iter(replies)
        self.asked: list[Asked] = []

    async def __aenter__(self) -> ScriptedModel:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        return None

    async def stream(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSpec] = (),
        *,
        stop: Sequence[str] = (),
        schema: Mapping[str, Any] | None = None,
    ) -> AsyncGenerator[ModelChunk]:
        """Yield the next reply of the script."""
        self.asked.append(Asked(tuple(messages), tuple(tools), tuple(stop), schema))
        reply = next(self._replies, None)
        if reply is None:
            raise ModelError(f"the script has {len(self.asked) - 1} replies and was asked once more")
        if isinstance(reply, Exception):
            raise reply
        for chunk in [reply] if isinstance(reply, str) else reply:
            yield chunk
