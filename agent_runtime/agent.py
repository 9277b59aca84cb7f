"""`Agent`: opens the components that a file describes, and runs them."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from agent_runtime.bridge import BlockingPortal, stream_events
from agent_runtime.events import Decision, Emit, Event, Message, RunResult

if TYPE_CHECKING:  # the components of an agent are imported when the first one is opened
    from agent_runtime.agent_file import AgentFile
    from agent_runtime.components import Components
    from agent_runtime.config import AgentConfig
    from agent_runtime.conversation import Conversation
    from agent_runtime.models import Model
    from agent_runtime.observability import Telemetry
    from agent_runtime.secrets import Credential
    from agent_runtime.sessions import Approval, SessionInfo
    from agent_runtime.tools import Check, Tool


class Agent:
    """One agent, from its file.

    In a script `Agent(config="agent.yaml").chat("…")` is all there is. In asynchronous code, `async with Agent(…) as
    agent: await agent.run("…")`; an agent that is run without `async with` opens itself at its first run and closes
    with `aclose()`, or at the latest when the event loop ends.

    Args:
        config: the path of an agent file, or the result of `load`.
        model: a model to use in place of the file's, for tests; it is opened and closed with the agent.
        environment: the variables of the file; those of the process by default.
        overrides: values that replace those of the file, by section: `{"server": {"port": 0}}`.
        telemetry: counts and traces what the agent does; none by default.
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
        self._portal: BlockingPortal | None = None
        self._portal_lock = threading.Lock()
        self._chat_session = uuid.uuid4().hex
        self._components: Components

    # --- what it is, once it is open

    @property
    def config(self) -> AgentConfig:
        """The agent file, with its placeholders filled."""
        return self._components.file.config

    @property
    def folder(self) -> Path:
        """The folder that relative paths in the file are relative to."""
        return self._components.file.folder

    @property
    def secrets(self) -> frozenset[str]:
        """Values that came from the secret source: for masking, never for showing."""
        return self._components.file.secrets

    @property
    def api_keys(self) -> list[str]:
        """The keys that callers may send: those of the file, as they were fetched last."""
        return self._components.callers.value

    @property
    def registry_token(self) -> Credential[str | None]:
        """The agent's credential for the registry."""
        return self._components.registry_token

    @property
    def model_label(self) -> str:
        """Provider and name of the model that answers, such as `local/smollm2-135m`."""
        return self._components.model.label

    @property
    def answering(self) -> str:
        """The model that answered last: a fallback, while the model itself cannot be reached."""
        return getattr(self._components.model, "answering", self.model_label)

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The tools of the agent, in the order of the file."""
        return tuple(self._components.toolbox.now().values())

    @property
    def checks(self) -> tuple[Check, ...]:
        """The status of components that the agent can answer without, such as MCP servers."""
        return self._components.toolbox.checks

    @property
    def is_degraded(self) -> bool:
        """Whether one of them is unavailable: the agent answers, with fewer tools than its file names."""
        return not all(check.ok for check in self.checks)

    @property
    def remembers(self) -> bool:
        """Whether a session's earlier turns are saved and shown to the model."""
        return self._components.remembers

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
        `owner` is the caller whose conversation it is.

        Raises:
            ConfigError, StartError: the agent could not be opened, at its first run.
            ModelError: the model gave no usable reply; nothing of the turn was saved.
            CallerError: the message or the session id is invalid.
        """
        return await self.answer(message, _discard, session_id=session_id, owner=owner)

    def stream(
        self,
        message: str,
        *,
        session_id: str | None = None,
        owner: str = "",
        history: Sequence[Message] | None = None,
    ) -> AsyncGenerator[Event, None]:
        """Answer one message as events: RunStarted first, Finished last. Raises as `run` does.

        Closing the generator cancels the run, and a run does not get far ahead of a slow reader. A `history` replaces
        what the agent remembers of the session; nothing of such a turn is saved.
        """
        return stream_events(
            lambda emit: self.answer(message, emit, session_id=session_id, owner=owner, history=history)
        )

    async def answer(
        self,
        message: str,
        emit: Emit,
        *,
        session_id: str | None = None,
        owner: str = "",
        history: Sequence[Message] | None = None,
    ) -> RunResult:
        """Answer one message as `stream` does, in the caller's own task: the run waits for `emit` at each event."""
        conversation = await self._conversation(owner, session_id)
        return await conversation.answer(message, history, emit)

    async def approvals(self, *, owner: str = "") -> Sequence[Approval]:
        """The calls of an owner's runs that wait for a person, the oldest first."""
        await self._open()
        store = self._components.store
        return await store.approvals(self.config.name, owner) if store else []

    def resolve(self, approval_id: str, decision: Decision, *, owner: str = "") -> AsyncGenerator[Event, None]:
        """Decide on a call that waits and go on with its run, as `stream` does. Only the first decision counts.

        Raises:
            UnknownApproval: no such call of this owner waits for a decision.
        """
        return stream_events(lambda emit: self.decide(approval_id, decision, emit, owner=owner))

    async def decide(self, approval_id: str, decision: Decision, emit: Emit, *, owner: str = "") -> RunResult:
        """Decide as `resolve` does, in the caller's own task: the run waits for `emit` at each event."""
        from agent_runtime.conversation import resume

        await self._open()
        return await resume(self._components, owner, approval_id, decision, emit)

    async def forget(self, session_id: str, *, owner: str = "") -> bool:
        """Delete a conversation; returns whether there was one."""
        return await (await self._conversation(owner, session_id)).delete()

    async def history(self, session_id: str, *, owner: str = "") -> list[Message]:
        """The latest messages of a conversation, as many as the model may be shown."""
        return await (await self._conversation(owner, session_id)).messages()

    async def sessions(self, *, owner: str = "", limit: int = 50) -> Sequence[SessionInfo]:
        """An owner's conversations, the latest first; none where the agent remembers none."""
        await self._open()
        store = self._components.store
        return await store.list(self.config.name, owner, limit=limit) if store else []

    # --- use in a script

    def chat(self, message: str, *, session_id: str | None = None) -> str:
        """Answer one message from a script or a notebook: as `run`, but blocking.

        Without a `session_id`, all calls on one Agent are one conversation. Raises as `run` does.
        """
        with self._portal_lock:  # a web framework may call from several threads
            portal = self._portal = self._portal or BlockingPortal()
        return portal.call(self.run, message, session_id=session_id or self._chat_session).answer

    def close(self) -> None:
        """Close what `chat` opened. A script may end without it; a long-lived program should call it."""
        portal, self._portal = self._portal, None
        if portal is not None:
            portal.call(self.aclose)
            portal.close()

    def __enter__(self) -> Agent:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- inside

    async def _conversation(self, owner: str, session_id: str | None) -> Conversation:
        from agent_runtime.conversation import Conversation, checked_session_id
        from agent_runtime.sessions import SessionKey

        session_id = checked_session_id(session_id)
        await self._open()
        return Conversation(self._components, SessionKey(self.config.name, owner, session_id))

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
        """Everything the agent owns, open while the generator is suspended.

        A generator and not a plain exit stack, because an event loop that ends closes its open generators: an agent
        that is never closed explicitly is closed then.
        """
        from agent_runtime.agent_file import AgentFile, load
        from agent_runtime.components import open_components

        file = self._source
        if not isinstance(file, AgentFile):
            file = await load(file, environment=self._environment, overrides=self._overrides)
        async with AsyncExitStack() as stack:
            self._components = await open_components(
                file, stack, given_model=self._given_model, telemetry=self._telemetry
            )
            yield


async def _discard(event: Event) -> None:
    """Where `run` emits to: only the result is used."""
