"""`Agent`: the one assembler. It opens the rooms that a file asks for, and every way to run goes through `stream`."""

from __future__ import annotations

import asyncio
import logging
import threading
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal
from weakref import WeakValueDictionary

from agent_runtime.config import AgentConfig, AgentType
from agent_runtime.dialects import DIALECTS
from agent_runtime.engine import Engine
from agent_runtime.errors import CallerError, StartError
from agent_runtime.loading import AgentFile, load
from agent_runtime.messages import Event, Finished, Message, RunStarted, Step, StopReason, Usage
from agent_runtime.models import Model, model_for
from agent_runtime.own_loop import OwnLoop
from agent_runtime.sessions import SessionStore, store_for
from agent_runtime.sessions.base import SessionKey
from agent_runtime.tools import tool_for
from agent_runtime.tools.base import Tool

_log = logging.getLogger(__name__)

MAX_MESSAGE_CHARACTERS = 200_000


@dataclass(frozen=True, slots=True)
class Preset:
    """What an `agent_type` stands for."""

    dialect: Literal["native", "react"]
    memory: bool
    plan: bool = False


PRESETS: Mapping[AgentType, Preset] = {
    "tool": Preset("native", memory=False),
    "stateful": Preset("native", memory=True),
    "react": Preset("react", memory=False),
    "planning": Preset("native", memory=False, plan=True),
    "stateful_react": Preset("react", memory=True),
    "stateful_react_plan": Preset("react", memory=True, plan=True),
}


@dataclass(frozen=True, slots=True)
class RunResult:
    """One answered message. `steps` are the model's replies that called tools, with what came of them."""

    run_id: str
    session_id: str
    answer: str
    stop_reason: StopReason
    steps: tuple[Step, ...] = ()
    usage: Usage = field(default_factory=Usage)


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
    """

    def __init__(
        self,
        config: Path | str | AgentFile,
        *,
        model: Model | None = None,
        environment: Mapping[str, str] | None = None,
        overrides: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self._source = config
        self._given_model = model
        self._environment = environment
        self._overrides = overrides
        self._lifetime: AsyncGenerator[None, None] | None = None
        self._opening: asyncio.Lock | None = None
        self._own_loop: OwnLoop | None = None
        self._starting = threading.Lock()
        self._own_session = uuid.uuid4().hex
        self._turns: WeakValueDictionary[SessionKey, asyncio.Lock] = WeakValueDictionary()
        self._file: AgentFile
        self._engine: Engine
        self._sessions: SessionStore | None = None

    # --- what it is, once it is open

    @property
    def config(self) -> AgentConfig:
        """What the file says, with its placeholders filled."""
        return self._file.config

    @property
    def secrets(self) -> frozenset[str]:
        """Values that came from the secret source: for masking, never for showing."""
        return self._file.secrets

    @property
    def model_label(self) -> str:
        """Provider and name of the model that answers, such as `local/smollm2-135m`."""
        return self._engine.model.label

    @property
    def tools(self) -> tuple[Tool, ...]:
        """What the agent can do, in the order of the file."""
        return tuple(self._engine.tools.values())

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
        self, message: str, *, session_id: str | None = None, owner: str = ""
    ) -> AsyncGenerator[Event, None]:
        """Answer one message as events: RunStarted first, Finished last. Raises as `run` does."""
        message, session_id = _checked_message(message), _checked_session_id(session_id)
        await self._open()
        yield RunStarted(uuid.uuid4().hex, session_id)
        key = SessionKey(self.config.name, owner, session_id)
        async with self._turn(key), aclosing(self._remembered_run(key, message)) as events:
            async for event in events:
                yield event

    async def forget(self, session_id: str, *, owner: str = "") -> bool:
        """Delete a conversation; says whether there was one."""
        await self._open()
        key = SessionKey(self.config.name, owner, session_id)
        return await self._sessions.delete(key) if self._sessions else False

    async def history(self, session_id: str, *, owner: str = "") -> list[Message]:
        """What the agent remembers of a conversation, as far as the model is shown it."""
        await self._open()
        if self._sessions is None:
            return []
        key = SessionKey(self.config.name, owner, session_id)
        return await self._sessions.load(key, limit=self.config.session.history_messages)

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

    async def _open(self) -> None:
        if self._lifetime is not None:
            return
        if self._opening is None:
            self._opening = asyncio.Lock()
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
        file = self._source
        if not isinstance(file, AgentFile):
            file = await load(file, environment=self._environment, overrides=self._overrides)
        config = file.config
        async with AsyncExitStack() as stack:
            _log.info("%s: opening the model", config.name)
            model = await stack.enter_async_context(self._given_model or model_for(config.model))
            tools = [await stack.enter_async_context(tool_for(entry, file.folder)) for entry in config.tools]
            preset = PRESETS[config.agent_type]
            remembers = preset.memory if config.reasoning.memory is None else config.reasoning.memory
            self._sessions = None
            if remembers:
                store = store_for(config.session.store.get_secret_value(), file.folder)
                self._sessions = await stack.enter_async_context(store)
            # The local model's calls are decoded under a grammar: asked for in text, it would make none.
            grammar = config.model.provider == "local" and self._given_model is None
            dialect = DIALECTS["native" if grammar else config.reasoning.dialect or preset.dialect]
            plans = preset.plan if config.reasoning.plan is None else config.reasoning.plan
            self._file = file
            self._engine = Engine(model, _by_name(tools), dialect, config.limits, config.system_prompt, plans)
            yield

    @asynccontextmanager
    async def _turn(self, key: SessionKey) -> AsyncGenerator[None]:
        """One turn of a session at a time: the second waits, so that no history is interleaved."""
        lock = self._turns.setdefault(key, asyncio.Lock())
        async with lock:
            yield

    async def _remembered_run(self, key: SessionKey, message: str) -> AsyncGenerator[Event, None]:
        history: list[Message] = []
        if self._sessions:
            history = await self._sessions.load(key, limit=self.config.session.history_messages)
        known = len(history)
        history.append(Message("user", message))
        async with aclosing(self._engine.run(history)) as events:
            async for event in events:
                if isinstance(event, Finished) and self._sessions:
                    await self._sessions.append(key, history[known:])  # before anybody reads that it is finished
                yield event


def _by_name(tools: list[Tool]) -> dict[str, Tool]:
    named: dict[str, Tool] = {}
    for tool in tools:
        if tool.spec.name in named:
            raise StartError(f"two tools are called {tool.spec.name}; give one of them another name")
        named[tool.spec.name] = tool
    return named


def _checked_message(message: str) -> str:
    if not message.strip():
        raise CallerError("the message is empty")
    if len(message) > MAX_MESSAGE_CHARACTERS:
        raise CallerError(f"the message has {len(message)} characters; at most {MAX_MESSAGE_CHARACTERS} are read")
    return message


def _checked_session_id(session_id: str | None) -> str:
    if session_id is None:
        return uuid.uuid4().hex
    if not 1 <= len(session_id) <= 128 or not session_id.isprintable():
        raise CallerError("a session id has 1 to 128 printable characters")
    return session_id
