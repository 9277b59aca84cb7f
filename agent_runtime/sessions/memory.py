"""Conversations that end with the process."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from agent_runtime.events import Message
from agent_runtime.sessions.base import (
    TITLE_CHARACTERS,
    Approval,
    History,
    SessionInfo,
    SessionKey,
    Summary,
    whole_turns,
)
from agent_runtime.sessions.turns import WAIT_SECONDS, Turns


@dataclass(slots=True)
class _Conversation:
    created_at: datetime
    updated_at: datetime
    messages: list[Message] = field(default_factory=list[Message])


class MemorySessions:
    """Not shared with any other process, and gone when this one ends."""

    def __init__(
        self, *, wait_seconds: float = WAIT_SECONDS, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._turns = Turns(wait_seconds)
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
        async with self._turns.turn(key):
            yield

    async def load(self, key: SessionKey, *, limit: int) -> History:
        known = self._conversations.get(key)
        return whole_turns(known.messages[-limit:]) if known and limit else []

    async def count(self, key: SessionKey) -> int:
        known = self._conversations.get(key)
        return len(known.messages) if known else 0

    async def append(self, key: SessionKey, messages: Sequence[Message]) -> None:
        now = self._now()
        # Taken out and put back: the dictionary's order is that of the latest turns.
        known = self._conversations.pop(key, None) or _Conversation(now, now)
        known.messages.extend(messages)
        known.updated_at = now
        self._conversations[key] = known

    async def delete(self, key: SessionKey) -> bool:
        self._summaries.pop(key, None)
        self._approvals = {known.id: known for known in self._approvals.values() if known.key != key}
        return self._conversations.pop(key, None) is not None

    async def list(self, agent: str, owner: str, *, limit: int) -> Sequence[SessionInfo]:
        own = [
            SessionInfo(
                key.session_id,
                known.messages[0].content[:TITLE_CHARACTERS],
                len(known.messages),
                known.created_at,
                known.updated_at,
            )
            for key, known in reversed(self._conversations.items())
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
        return [known for known in self._approvals.values() if (known.key.agent, known.key.owner) == (agent, owner)]

    async def take_approval(self, agent: str, owner: str, approval_id: str) -> Approval | None:
        known = self._approvals.get(approval_id)
        if known is None or (known.key.agent, known.key.owner) != (agent, owner):
            return None
        return self._approvals.pop(approval_id)

    async def expire(self, agent: str, *, before: datetime, limit: int) -> int:
        kept = (known for known in self._approvals.values() if known.key.agent != agent or known.created_at >= before)
        self._approvals = {known.id: known for known in kept}
        old = [key for key, known in self._conversations.items() if key.agent == agent and known.updated_at < before]
        for key in old[:limit]:
            await self.delete(key)
        return len(old[:limit])
