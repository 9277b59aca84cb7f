"""Conversations in memory, lost when the process ends."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from agent_runtime.events import Message
from agent_runtime.sessions.base import (
    TITLE_CHARACTERS,
    Approval,
    SessionInfo,
    SessionKey,
    Summary,
    from_user_message,
)
from agent_runtime.sessions.locks import WAIT_SECONDS, SessionLocks


@dataclass(slots=True)
class _Conversation:
    created_at: datetime
    updated_at: datetime
    messages: list[Message] = field(default_factory=list[Message])


class MemorySessions:
    """A session store that is not shared with other processes."""

    def __init__(
        self, *, wait_seconds: float = WAIT_SECONDS, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._locks = SessionLocks(wait_seconds)
        self._now = now
        self._conversations: dict[SessionKey, _Conversation] = {}
        self._summaries: dict[SessionKey, Summary] = {}
        self._approvals: dict[str, Approval] = {}

    async def __aenter__(self) -> MemorySessions:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._conversations.clear()
        self._summaries.clear()
        self._approvals.clear()

    @asynccontextmanager
    async def turn(self, key: SessionKey) -> AsyncGenerator[None]:
        async with self._locks.hold(key):
            yield

    async def load(self, key: SessionKey, *, limit: int) -> list[Message]:
        conversation = self._conversations.get(key)
        return from_user_message(conversation.messages[-limit:]) if conversation and limit else []

    async def count(self, key: SessionKey) -> int:
        conversation = self._conversations.get(key)
        return len(conversation.messages) if conversation else 0

    async def append(self, key: SessionKey, messages: Sequence[Message]) -> None:
        now = self._now()
        # Removed and inserted again: the dictionary is in the order of the latest turns.
        conversation = self._conversations.pop(key, None) or _Conversation(now, now)
        conversation.messages.extend(messages)
        conversation.updated_at = now
        self._conversations[key] = conversation

    async def delete(self, key: SessionKey) -> bool:
        self._summaries.pop(key, None)
        self._approvals = {one.id: one for one in self._approvals.values() if one.key != key}
        return self._conversations.pop(key, None) is not None

    async def list(self, agent: str, owner: str, *, limit: int) -> Sequence[SessionInfo]:
        own = [
            SessionInfo(
                key.session_id,
                conversation.messages[0].content[:TITLE_CHARACTERS],
                len(conversation.messages),
                conversation.created_at,
                conversation.updated_at,
            )
            for key, conversation in reversed(self._conversations.items())
            if (key.agent, key.owner) == (agent, owner)
        ]
        return own[:limit]

    async def load_summary(self, key: SessionKey) -> Summary | None:
        return self._summaries.get(key)

    async def save_summary(self, key: SessionKey, summary: Summary) -> None:
        self._summaries[key] = summary

    async def save_approval(self, approval: Approval) -> None:
        self._approvals[approval.id] = approval

    async def approvals(self, agent: str, owner: str) -> Sequence[Approval]:
        return [one for one in self._approvals.values() if (one.key.agent, one.key.owner) == (agent, owner)]

    async def take_approval(self, agent: str, owner: str, approval_id: str) -> Approval | None:
        approval = self._approvals.get(approval_id)
        if approval is None or (approval.key.agent, approval.key.owner) != (agent, owner):
            return None
        return self._approvals.pop(approval_id)

    async def expire(self, agent: str, *, before: datetime, limit: int) -> int:
        kept = (one for one in self._approvals.values() if one.key.agent != agent or one.created_at >= before)
        self._approvals = {one.id: one for one in kept}
        expired = [
            key
            for key, conversation in self._conversations.items()
            if key.agent == agent and conversation.updated_at < before
        ]
        for key in expired[:limit]:
            await self.delete(key)
        return len(expired[:limit])
