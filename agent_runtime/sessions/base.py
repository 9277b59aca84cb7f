"""What a conversation's memory must do, and the form in which databases keep it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Protocol, cast

from agent_runtime.events import Message, Role, ToolCall

TITLE_CHARACTERS = 80

History = list[Message]


@dataclass(frozen=True, slots=True)
class SessionKey:
    """Whose conversation it is. `owner` is the caller that the server recognised; nobody reads another's."""

    agent: str
    owner: str
    session_id: str

    def __str__(self) -> str:
        return "\n".join((self.agent, self.owner, self.session_id))  # none of them holds a line break


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """One conversation in a list. `title` is the beginning of what was said first; times are aware, in UTC."""

    session_id: str
    title: str
    messages: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Summary:
    """What was said in the first `covered` messages of a conversation, in short. The messages themselves stay."""

    text: str
    covered: int


@dataclass(frozen=True, slots=True)
class Approval:
    """A call that waits for a person. `arguments` is JSON text, `state` what its run goes on from, opaque here."""

    id: str
    key: SessionKey
    run_id: str
    tool: str
    arguments: str
    state: str
    created_at: datetime


class SessionStore(Protocol):
    """Append-only conversations. Opened with `async with`; every method raises StoreError when storage fails."""

    async def __aenter__(self) -> SessionStore: ...

    async def __aexit__(self, *exc_info: object) -> None: ...

    def turn(self, key: SessionKey) -> AbstractAsyncContextManager[None]:
        """Hold the conversation for one turn: whoever comes second waits, in this process or in another replica.

        Raises:
            SessionBusy: it waited for too long.
        """
        ...

    async def load(self, key: SessionKey, *, limit: int) -> History:
        """The latest messages, oldest first, at most `limit`; they begin with a user's message, so no half turn."""
        ...

    async def count(self, key: SessionKey) -> int:
        """How many messages the conversation has."""
        ...

    async def append(self, key: SessionKey, messages: Sequence[Message]) -> None:
        """Add one turn: all of it or nothing."""
        ...

    async def delete(self, key: SessionKey) -> bool:
        """Forget the conversation, its summary and its waiting calls; says whether there was one."""
        ...

    async def list(self, agent: str, owner: str, *, limit: int) -> Sequence[SessionInfo]:
        """An owner's conversations with an agent, the latest first, at most `limit`."""
        ...

    async def load_summary(self, key: SessionKey) -> Summary | None:
        """The summary that was saved last."""
        ...

    async def save_summary(self, key: SessionKey, summary: Summary) -> None:
        """Keep a summary in place of the one before."""
        ...

    async def save_approval(self, approval: Approval) -> None:
        """Keep a call that waits, until it is taken."""
        ...

    async def approvals(self, agent: str, owner: str) -> Sequence[Approval]:
        """The calls of an owner's runs that wait, the oldest first."""
        ...

    async def take_approval(self, agent: str, owner: str, approval_id: str) -> Approval | None:
        """Take a call that waits out of the store: of many who try at once, in any replica, exactly one gets it."""
        ...

    async def expire(self, agent: str, *, before: datetime, limit: int) -> int:
        """Forget an agent's conversations whose last message is older, at most `limit`, and its calls that wait longer.

        Says how many conversations it forgot.
        """
        ...


def whole_turns(messages: Sequence[Message]) -> History:
    """Without what stands before the first user's message: a tool result without its call is refused by providers."""
    first = next((index for index, message in enumerate(messages) if message.role == "user"), len(messages))
    return list(messages[first:])


Row = tuple[str, str, str | None, str | None]


def to_row(message: Message) -> Row:
    """A message as the columns role, content, tool_calls (JSON) and tool_call_id."""
    calls = json.dumps([asdict(call) for call in message.tool_calls]) if message.tool_calls else None
    return message.role, storable(message.content), calls, message.tool_call_id


def from_row(row: Sequence[Any]) -> Message:
    """The message that `to_row` made."""
    role, content, calls, call_id = row
    tool_calls = tuple(ToolCall(**call) for call in json.loads(calls)) if calls else ()
    return Message(cast("Role", role), content, tool_calls, call_id)


def storable(text: str) -> str:
    """Without NUL and half surrogate pairs: a model or a tool may write them, and databases refuse them."""
    return text.replace("\x00", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def approval_to_row(approval: Approval) -> tuple[str, ...]:
    """An approval as the columns of its table, in their order."""
    key, created_at = approval.key, approval.created_at.isoformat()
    values = (approval.run_id, approval.tool, storable(approval.arguments), storable(approval.state), created_at)
    return (approval.id, key.agent, key.owner, key.session_id, *values)


def approval_from_row(row: Sequence[Any]) -> Approval:
    """The approval that `approval_to_row` made."""
    approval_id, agent, owner, session_id, run_id, tool, arguments, state, created_at = row
    key = SessionKey(agent, owner, session_id)
    return Approval(approval_id, key, run_id, tool, arguments, state, datetime.fromisoformat(created_at))
