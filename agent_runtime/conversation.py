"""One turn of a conversation: recall, run, remember; or keep a call that waits for a person, and go on later."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from datetime import UTC, datetime

from agent_runtime.components import Rooms
from agent_runtime.engine.history import recalled
from agent_runtime.engine.run_state import Decision, Paused
from agent_runtime.errors import UnknownApproval
from agent_runtime.events import ApprovalRequired, Event, Finished, Message, RunStarted
from agent_runtime.sessions import Approval, SessionKey

_WAITING = "This needs a person's approval: {tool} waits for it, and nothing was done yet."


async def answered(
    rooms: Rooms, started: RunStarted, key: SessionKey, message: str, given: Sequence[Message] | None
) -> AsyncGenerator[Event]:
    """Answer a message. `given` takes the place of what is remembered, and nothing of the turn is remembered then."""
    yield started
    remembers = rooms.remembers and given is None
    async with _held(rooms, key, remembers=remembers):
        before = await _before(rooms, key) if remembers else list(given or ())
        history = [*before, Message("user", message)]
        events = rooms.engine_now().run(history)
        kept = _kept(rooms, started, key, len(before), history, events, remembers)
        async with aclosing(events), aclosing(kept):
            async for event in kept:
                yield event


async def resumed(rooms: Rooms, started: RunStarted, approval: Approval, decision: Decision) -> AsyncGenerator[Event]:
    """Go on with a run after a person's decision; what was said in the session meanwhile stands before it."""
    yield started
    paused = Paused.from_json(approval.state)
    async with _held(rooms, approval.key, remembers=rooms.remembers):
        before = await _before(rooms, approval.key) if rooms.remembers else []
        history = [*before, *paused.turn]
        events = rooms.engine_now().resume(history, paused, decision)
        kept = _kept(rooms, started, approval.key, len(before), history, events, rooms.remembers)
        async with aclosing(events), aclosing(kept):
            async for event in kept:
                yield event


async def taken(rooms: Rooms, approval_id: str, owner: str) -> Approval:
    """Take a waiting call, once and for all.

    Raises:
        UnknownApproval: there is none of this id for this owner, or somebody was quicker.
    """
    agent = rooms.file.config.name
    approval = await rooms.store.take_approval(agent, owner, approval_id) if rooms.store else None
    if approval is None:
        raise UnknownApproval(f"there is no approval {approval_id[:64]!r} that waits: it was decided, or never was")
    return approval


async def _kept(
    rooms: Rooms,
    started: RunStarted,
    key: SessionKey,
    begun: int,
    history: list[Message],
    events: AsyncGenerator[Event | Paused],
    remembers: bool,
) -> AsyncGenerator[Event]:
    """The events of a run; its end, or its waiting, is kept before anybody reads of it."""
    async for event in events:
        if isinstance(event, Paused):
            approval = await _waiting(rooms, started, key, event)
            yield ApprovalRequired(approval.id, event.pending.name, event.pending.arguments)
            said = event.said or _WAITING.format(tool=event.pending.name)
            yield Finished(said, "approval_required", event.steps, event.usage)
            return
        if isinstance(event, Finished) and remembers and rooms.store:
            await rooms.store.append(key, history[begun:])
        yield event


async def _waiting(rooms: Rooms, started: RunStarted, key: SessionKey, paused: Paused) -> Approval:
    assert rooms.store is not None  # where a tool is guarded there is a store
    call = paused.pending
    now = datetime.now(UTC)
    approval = Approval(uuid.uuid4().hex, key, started.run_id, call.name, call.arguments, paused.to_json(), now)
    await rooms.store.save_approval(approval)
    return approval


async def _before(rooms: Rooms, key: SessionKey) -> list[Message]:
    assert rooms.store is not None
    return await recalled(rooms.store, key, rooms.engine.model, rooms.file.config.session)


def _held(rooms: Rooms, key: SessionKey, *, remembers: bool) -> AbstractAsyncContextManager[None]:
    """One turn of a session at a time, in all replicas."""
    return rooms.store.turn(key) if rooms.store and remembers else nullcontext()
