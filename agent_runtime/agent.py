"""`Agent`: the one assembler. It opens the rooms that a file asks for, and every way to run goes through `stream`."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, nullcontext
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from agent_runtime.blocking import OwnLoop
from agent_runtime.engine.question import checked_message, checked_session_id
from agent_runtime.events import Event, Finished, Message, RunResult, RunStarted

if TYPE_CHECKING:  # all that an agent consists of is imported when the first one is opened
    from agent_runtime.agent_file import AgentFile
    from agent_runtime.components import Rooms
    from agent_runtime.config import AgentConfig
    from agent_runtime.engine.run_state import Decision
    from agent_runtime.models import Model
    from agent_runtime.observability.telemetry import Telemetry
    from agent_runtime.secrets import Credential
    from agent_runtime.sessions import Approval, SessionInfo, SessionKey
    from agent_runtime.tools import Check, Tool


class Agent:
    """One agent, from its file.

    In a script `Agent(config="agent.yaml").chat("…")` is all there is. In asynchronous code, `async with Agent(…) as
    agent: await agent.run("…")`; an agent that is run without `async with` opens itself at its first run and closes
    with `aclose()`, or at the latest when the event loop ends.

    Args:
        config: the path of an agent file, or one that `load` has read already.
        model: a model to use in place of the file's, for tests; it is opened and closed with the agent.
        environment: where the file's variables come from; the process's environment by default.
        overrides: what wins over the file, section by section: `{"server": {"port": 0}}`.
        telemetry: the instruments that count and trace what the agent does; none by default.
    """

    def __init__(
        self,
        config: Path | str | AgentFile,
        *,
        model: Model | None = None,
        environment: Mapping[str, str] | None = None,
        overrides: Mapping[str, Mapping[str, Any]] | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._source = config
        self._given_model = model
        self._environment = environment
        self._overrides = overrides
        self._telemetry = telemetry
        self._lifetime: AsyncGenerator[None, None] | None = None
        self._opening: asyncio.Lock | None = None
        self._own_loop: OwnLoop | None = None
        self._starting = threading.Lock()
        self._own_session = uuid.uuid4().hex
        self._rooms: Rooms

    # --- what it is, once it is open

    @property
    def config(self) -> AgentConfig:
        """What the file says, with its placeholders filled."""
        return self._rooms.file.config

    @property
    def folder(self) -> Path:
        """What relative paths in the file are relative to."""
        return self._rooms.file.folder

    @property
    def secrets(self) -> frozenset[str]:
        """Values that came from the secret source: for masking, never for showing."""
        return self._rooms.file.secrets

    @property
    def api_keys(self) -> list[str]:
        """The keys that callers may send now: those of the file, as they were fetched last."""
        return self._rooms.callers.value

    @property
    def registry_token(self) -> Credential[str | None]:
        """What the agent proves itself with to the registry."""
        return self._rooms.registry_token

    @property
    def model_label(self) -> str:
        """Provider and name of the model that answers, such as `local/smollm2-135m`."""
        return self._rooms.model.label

    @property
    def answering(self) -> str:
        """The model that answered last: another one than `model_label` while a fallback stands in for it."""
        return getattr(self._rooms.model, "answering", self.model_label)

    @property
    def tools(self) -> tuple[Tool, ...]:
        """What the agent can do, in the order of the file."""
        return tuple(self._rooms.toolbox.now().values())

    @property
    def checks(self) -> tuple[Check, ...]:
        """The parts that may be away while the agent answers, such as MCP servers, and how each of them is."""
        return self._rooms.toolbox.checks

    @property
    def is_degraded(self) -> bool:
        """Whether one of those parts is away: the agent answers, and can do less than its file says."""
        return not all(check.ok for check in self.checks)

    @property
    def remembers(self) -> bool:
        """Whether a session's earlier turns are kept and shown to the model."""
        return self._rooms.remembers

    @property
    def telemetry(self) -> Telemetry | None:
        """The instruments that were given, for `/metrics`."""
        return self._telemetry

    @property
    def is_open(self) -> bool:
        """Whether model, tools and sessions are ready."""
        return self._lifetime is not None

    # --- asynchronous use

    async def __aenter__(self) -> Agent:
        await self._open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close what the agent opened; safe to call twice."""
        lifetime, self._lifetime = self._lifetime, None
        if lifetime is not None:
            await lifetime.aclose()

    async def run(self, message: str, *, session_id: str | None = None, owner: str = "") -> RunResult:
        """Answer one message.

        `session_id` names a conversation that a stateful agent remembers; without one, each run is a new one.
        `owner` is whose conversation it is.

        Raises:
            ConfigError, StartError: at the first run, when the agent could not be opened.
            ModelError: the model gave no usable reply; nothing was remembered.
            CallerError: the message or the session id cannot be used.
        """
        started: RunStarted | None = None
        async with aclosing(self.stream(message, session_id=session_id, owner=owner)) as events:
            async for event in events:
                match event:
                    case RunStarted():
                        started = event
                    case Finished(answer, stop_reason, steps, usage) if started:
                        return RunResult(started.run_id, started.session_id, answer, stop_reason, steps, usage)
                    case _:
                        pass
        raise AssertionError("a run ends with Finished or raises")

    async def stream(
        self,
        message: str,
        *,
        session_id: str | None = None,
        owner: str = "",
        history: Sequence[Message] | None = None,
    ) -> AsyncGenerator[Event, None]:
        """Answer one message as events: RunStarted first, Finished last. Raises as `run` does.

        `history` stands in for what the agent remembers of the session; nothing of such a turn is remembered.
        """
        from agent_runtime import conversation as turns

        message, session_id = checked_message(message), checked_session_id(session_id)
        await self._open()
        started = RunStarted(uuid.uuid4().hex, session_id)
        events = turns.answered(self._rooms, started, self._key(owner, session_id), message, history)
        async with aclosing(self._observed(message, events)) as observed:
            async for event in observed:
                yield event

    async def approvals(self, *, owner: str = "") -> Sequence[Approval]:
        """The calls of an owner's runs that wait for a person, the oldest first."""
        await self._open()
        return await self._rooms.store.approvals(self.config.name, owner) if self._rooms.store else []

    async def resolve(self, approval_id: str, decision: Decision, *, owner: str = "") -> AsyncGenerator[Event, None]:
        """Go on with the run whose call waits, as `stream` does; of many who decide, exactly one does.

        Raises:
            UnknownApproval: it never was, is somebody else's, or was decided already.
        """
        await self._open()
        from agent_runtime import conversation as turns

        approval = await turns.taken(self._rooms, approval_id, owner)
        started = RunStarted(uuid.uuid4().hex, approval.key.session_id)
        events = turns.resumed(self._rooms, started, approval, decision)
        async with aclosing(self._observed("", events)) as observed:
            async for event in observed:
                yield event

    async def forget(self, session_id: str, *, owner: str = "") -> bool:
        """Delete a conversation; says whether there was one."""
        await self._open()
        key = self._key(owner, checked_session_id(session_id))
        return await self._rooms.store.delete(key) if self._rooms.store else False

    async def history(self, session_id: str, *, owner: str = "") -> list[Message]:
        """What the agent remembers of a conversation, as far as the model is shown it."""
        await self._open()
        if self._rooms.store is None:
            return []
        key = self._key(owner, checked_session_id(session_id))
        return await self._rooms.store.load(key, limit=self.config.session.history_messages)

    async def sessions(self, *, owner: str = "", limit: int = 50) -> Sequence[SessionInfo]:
        """An owner's conversations, the latest first; none where the agent remembers none."""
        await self._open()
        store = self._rooms.store
        return await store.list(self.config.name, owner, limit=limit) if store else []

    # --- use in a script

    def chat(self, message: str, *, session_id: str | None = None) -> str:
        """Answer one message from a script or a notebook: the same as `run`, and the script waits.

        Without a `session_id`, all calls on one Agent are one conversation. Raises as `run` does.
        """
        with self._starting:  # a web framework may call from several threads
            own_loop = self._own_loop = self._own_loop or OwnLoop()
        return own_loop.run(self.run(message, session_id=session_id or self._own_session)).answer

    def close(self) -> None:
        """Close what `chat` opened. A script that ends without it is fine; a long-lived program should call it."""
        own_loop, self._own_loop = self._own_loop, None
        if own_loop is not None:
            own_loop.run(self.aclose())
            own_loop.close()

    def __enter__(self) -> Agent:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- inside

    async def _observed(self, message: str, events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
        tools = self._rooms.toolbox.now()
        with self._telemetry.run(self.config.name, message, tools) if self._telemetry else nullcontext() as observe:
            async with aclosing(events):
                async for event in events:
                    if observe:
                        observe(event)
                    yield event

    def _key(self, owner: str, session_id: str) -> SessionKey:
        from agent_runtime.sessions import SessionKey

        return SessionKey(self.config.name, owner, session_id)

    async def _open(self) -> None:
        if self._lifetime is not None:
            return
        self._opening = self._opening or asyncio.Lock()
        async with self._opening:
            if self._lifetime is None:
                lifetime = self._opened()
                await anext(lifetime)
                self._lifetime = lifetime

    async def _opened(self) -> AsyncGenerator[None, None]:
        """Everything the agent owns, open between its one yield.

        A generator and not a plain exit stack, because an event loop closes the generators that are still open when
        it ends: an agent that nobody closed closes all the same.
        """
        from agent_runtime.agent_file import AgentFile, load
        from agent_runtime.components import open_rooms

        file = self._source
        if not isinstance(file, AgentFile):
            file = await load(file, environment=self._environment, overrides=self._overrides)
        async with AsyncExitStack() as stack:
            self._rooms = await open_rooms(file, stack, given_model=self._given_model, telemetry=self._telemetry)
            yield
