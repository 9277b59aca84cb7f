"""What a conversation's memory must do, and the memory that lives as long as the process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, cast

from agent_runtime.messages import Message, Role, ToolCall


@dataclass(frozen=True, slots=True)
class SessionKey:
    """Whose conversation it is. `owner` is the caller that the server recognised; nobody reads another's."""

    agent: str
    owner: str
    session_id: str


class SessionStore(Protocol):
    """Append-only conversations. Opened with `async with`; every method raises StoreError when storage fails."""

    async def __aenter__(self) -> SessionStore: ...

    async def __aexit__(self, *exc_info: object) -> None: ...

    async def load(self, key: SessionKey, *, limit: int) -> list[Message]:
        """The latest messages, oldest first, at most `limit`; they begin with a user's message, so no half turn."""
        ...

    async def append(self, key: SessionKey, messages: Sequence[Message]) -> None:
        """Add one turn: all of it or nothing."""
        ...

    async def delete(self, key: SessionKey) -> bool:
        """Forget the conversation; says whether there was one."""
        ...


class MemorySessions:
    """Conversations that end with the process."""

    def __init__(self) -> None:
        self._messages: dict[SessionKey, list[Message]] = {}

    async def __aenter__(self) -> MemorySessions:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._messages.clear()

    async def load(self, key: SessionKey, *, limit: int) -> list[Message]:
        return whole_turns(self._messages.get(key, [])[-limit:])

    async def append(self, key: SessionKey, messages: Sequence[Message]) -> None:
        self._messages.setdefault(key, []).extend(messages)

    async def delete(self, key: SessionKey) -> bool:
        return self._messages.pop(key, None) is not None


def whole_turns(messages: Sequence[Message]) -> list[Message]:
    """Without what stands before the first user's message: a tool result without its call is refused by providers."""
    first = next((index for index, message in enumerate(messages) if message.role == "user"), len(messages))
    return list(messages[first:])


Row = tuple[str, str, str | None, str | None]


def to_row(message: Message) -> Row:
    """A message as the columns role, content, tool_calls (JSON) and tool_call_id."""
    calls = json.dumps([asdict(call) for call in message.tool_calls]) if message.tool_calls else None
    return message.role, _storable(message.content), calls, message.tool_call_id


def from_row(row: Sequence[Any]) -> Message:
    """The message that `to_row` made."""
    role, content, calls, call_id = row
    tool_calls = tuple(ToolCall(**call) for call in json.loads(calls)) if calls else ()
    return Message(cast("Role", role), content, tool_calls, call_id)


def _storable(text: str) -> str:
    """Without NUL and half surrogate pairs: a model or a tool may write them, and databases refuse them."""
    return text.replace("\x00", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
