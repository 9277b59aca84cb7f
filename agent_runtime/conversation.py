"""One turn of a session: read the history, run the engine, save the turn; or keep a call that waits for a person."""

from __future__ import annotations

import uuid
from collections.abc import Generator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime

from agent_runtime.components import Components
from agent_runtime.engine import Checkpoint, RunState, recall
from agent_runtime.errors import CallerError, UnknownApproval
from agent_runtime.events import ApprovalRequired, Decision, Emit, Event, Finished, Message, RunResult, RunStarted
from agent_runtime.sessions import Approval, SessionKey, SessionStore

MAX_MESSAGE_CHARACTERS = 200_000
_WAITING = "This needs a person's approval: {tool} waits for it, and nothing was done yet."


def checked_message(message: str) -> str:
    """The message.

    Raises:
        CallerError: it is empty or too long.
    """
    if not message.strip():
        raise CallerError("the message is empty")
    if len(message) > MAX_MESSAGE_CHARACTERS:
        raise CallerError(f"the message has {len(message)} characters; at most {MAX_MESSAGE_CHARACTERS} are read")
    return message


def checked_session_id(session_id: str | None) -> str:
    """The name of a session, or a new one.

    Raises:
        CallerError: it cannot be the name of a session.
    """
    if session_id is None:
        return uuid.uuid4().hex
    if not 1 <= len(session_id) <= 128 or not session_id.isprintable():
        raise CallerError("a session id has 1 to 128 printable characters")
    return session_id


@dataclass(frozen=True, slots=True)
class Conversation:
    """One session of an open agent."""

    components: Components
    key: SessionKey

    async def answer(self, message: str, history: Sequence[Message] | None, emit: Emit) -> RunResult:
        """Answer a message. A `history` replaces what the session holds, and nothing of the turn is saved then.

        Raises:
            CallerError: the message is empty or too long.
        """
        state = RunState([Message("user", checked_message(message))], history or ())
        return await self._run(state, emit, message, saves=self.components.remembers and history is None)

    async def go_on(self, state: RunState, emit: Emit) -> RunResult:
        """Go on with a run that waited; turns that were added meanwhile are part of its history."""
        return await self._run(state, emit, saves=self.components.remembers)

    async def messages(self) -> list[Message]:
        """The latest messages, as many as the model may be shown."""
        store, most = self.components.store, self.components.file.config.session.history_messages
        return await store.load(self.key, limit=most) if store else []

    async def delete(self) -> bool:
        """Delete the session; returns whether there was one."""
        return await self.components.store.delete(self.key) if self.components.store else False

    async def _run(self, state: RunState, emit: Emit, message: str = "", *, saves: bool) -> RunResult:
        """One run, from its first event to its last."""
        started = RunStarted(uuid.uuid4().hex, self.key.session_id)
        with self._observed(message, emit) as emit:
            await emit(started)
            async with self._turn(saves):
                if saves:
                    session = self.components.file.config.session
                    state.history = await recall(self._store, self.key, self.components.engine.model, session)
                end = await self.components.engine_for_run().run(state, emit)
                if isinstance(end, Checkpoint):
                    end = await self._wait(started, end, emit)
                elif saves:
                    await self._store.append(self.key, state.turn)
            await emit(end)
        return RunResult(started.run_id, started.session_id, end.answer, end.stop_reason, end.steps, end.usage)

    async def _wait(self, started: RunStarted, checkpoint: Checkpoint, emit: Emit) -> Finished:
        """Save a call that waits for a person: the run ends here, and its state is part of what is saved."""
        call, state = checkpoint.call, checkpoint.state
        approval_id, saved = uuid.uuid4().hex, checkpoint.to_json()
        approval = Approval(
            approval_id, self.key, started.run_id, call.name, call.arguments, saved, created_at=datetime.now(UTC)
        )
        await self._store.save_approval(approval)
        await emit(ApprovalRequired(approval_id, call.name, call.arguments))
        answer = state.answer or _WAITING.format(tool=call.name)
        return Finished(answer, "approval_required", tuple(state.steps), state.usage)

    @contextmanager
    def _observed(self, message: str, emit: Emit) -> Generator[Emit]:
        """Count and trace what is emitted in the block, where the agent has telemetry."""
        if self.components.telemetry is None:
            yield emit
            return
        with self.components.telemetry.run(self.key.agent, message, self.components.toolbox.now()) as observe:

            async def observed(event: Event) -> None:
                observe(event)
                await emit(event)

            yield observed

    def _turn(self, saves: bool) -> AbstractAsyncContextManager[object]:
        """One turn of a session at a time, in all replicas."""
        return self._store.turn(self.key) if saves else nullcontext()

    @property
    def _store(self) -> SessionStore:
        assert self.components.store is not None  # there is one where turns are saved or calls may wait
        return self.components.store


async def resume(components: Components, owner: str, approval_id: str, decision: Decision, emit: Emit) -> RunResult:
    """Decide on a waiting call and go on with its run: of many who decide, exactly one does.

    Raises:
        UnknownApproval: no such call of this owner waits for a decision.
        StoreError: the saved state of the run cannot be read; the call goes on waiting.
    """
    agent, store = components.file.config.name, components.store
    waiting: Sequence[Approval] = await store.approvals(agent, owner) if store else []
    approval = next((one for one in waiting if one.id == approval_id), None)
    if store and approval:
        state = Checkpoint.from_json(approval.state).decided(decision)  # before it is taken: an error must not lose it
        if await store.take_approval(agent, owner, approval_id):
            return await Conversation(components, approval.key).go_on(state, emit)
    raise UnknownApproval(f"there is no approval {approval_id[:64]!r} that waits: it was decided, or never was")
