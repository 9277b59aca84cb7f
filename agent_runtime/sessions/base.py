"""The interface of a session store, its data, and the deletion of old conversations."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Protocol

from agent_runtime.background import BackgroundTask
from agent_runtime.events import Message

_log = logging.getLogger(__name__)

TITLE_CHARACTERS = 80

_EXPIRE_SECONDS = 24 * 60 * 60.0  # between two deletions of old conversations
_EXPIRE_TIMEOUT_SECONDS = 300  # the rest is deleted the next time
_EXPIRE_BATCH = 200  # sessions in one transaction: limits how long an append waits


@dataclass(frozen=True, slots=True)
class SessionKey:
    """The key of a conversation. `owner` is the authenticated caller; a caller has access to its own sessions only."""

    agent: str
    owner: str
    session_id: str

    def __str__(self) -> str:
        return "\n".join(self.columns)  # none of them contains a line break

    @property
    def columns(self) -> tuple[str, str, str]:
        """The key as columns of a table."""
        return self.agent, self.owner, self.session_id


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """One conversation in a list. `title` is the beginning of its first message; times are aware, in UTC."""

    session_id: str
    title: str
    messages: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Summary:
    """A summary of the first `covered` messages of a conversation. The messages themselves are kept."""

    text: str
    covered: int


@dataclass(frozen=True, slots=True)
class Approval:
    """A tool call that waits for approval. `arguments` is JSON text, `state` the opaque checkpoint of its run."""

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
        """Lock the conversation for one turn: other turns wait, in this process and in other replicas.

        Raises:
            SessionBusy: another turn held the conversation for too long.
        """
        ...

    async def load(self, key: SessionKey, *, limit: int) -> list[Message]:
        """The latest messages, at most `limit`, oldest first; the first one is a user's message."""
        ...

    async def count(self, key: SessionKey) -> int:
        """The number of messages."""
        ...

    async def append(self, key: SessionKey, messages: Sequence[Message]) -> None:
        """Append the messages of one turn, atomically."""
        ...

    async def delete(self, key: SessionKey) -> bool:
        """Delete the conversation, its summary and its approvals; returns whether it existed."""
        ...

    async def list(self, agent: str, owner: str, *, limit: int) -> Sequence[SessionInfo]:
        """An owner's conversations with an agent, at most `limit`, latest first."""
        ...

    async def load_summary(self, key: SessionKey) -> Summary | None:
        """The last summary that was saved."""
        ...

    async def save_summary(self, key: SessionKey, summary: Summary) -> None:
        """Replace the summary."""
        ...

    async def save_approval(self, approval: Approval) -> None:
        """Save a pending approval, until it is taken."""
        ...

    async def approvals(self, agent: str, owner: str) -> Sequence[Approval]:
        """The pending approvals of an owner, oldest first."""
        ...

    async def take_approval(self, agent: str, owner: str, approval_id: str) -> Approval | None:
        """Remove and return a pending approval; of concurrent callers, in all replicas, exactly one gets it."""
        ...

    async def expire(self, agent: str, *, before: datetime, limit: int) -> int:
        """Delete an agent's approvals, and at most `limit` of its conversations, that have been idle since `before`.

        Returns the number of deleted conversations.
        """
        ...


def from_user_message(messages: Sequence[Message]) -> list[Message]:
    """The messages from the first user's message on: providers reject a tool result without its call."""
    first = next((index for index, message in enumerate(messages) if message.role == "user"), len(messages))
    return list(messages[first:])


def retention(
    store: SessionStore,
    agent: str,
    ttl_days: float | None,
    *,
    interval_seconds: float = _EXPIRE_SECONDS,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> BackgroundTask:
    """Deletes an agent's conversations that are older than `session.ttl_days`, at once and daily, until the block ends.

    Without `ttl_days` it does nothing. Errors are logged.
    """

    async def expire_daily(age: timedelta) -> None:
        while True:
            await _expire(store, agent, now() - age)
            await asyncio.sleep(interval_seconds)

    work = None if ttl_days is None else partial(expire_daily, timedelta(days=ttl_days))
    return BackgroundTask(work, name=f"retention of {agent}")


async def _expire(store: SessionStore, agent: str, before: datetime) -> None:
    deleted = 0
    try:
        async with asyncio.timeout(_EXPIRE_TIMEOUT_SECONDS):
            while count := await store.expire(agent, before=before, limit=_EXPIRE_BATCH):
                deleted += count
    except Exception as error:  # a store may raise anything; the background task tries again the next time
        _log.warning("%s: old sessions could not be deleted: %s: %s", agent, type(error).__name__, error)
    if deleted:
        _log.info("%s: deleted %d sessions older than session.ttl_days", agent, deleted)
