"""The rooms that one agent file asks for, opened on one exit stack; and what each `agent_type` stands for."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from agent_runtime import budget as allowance
from agent_runtime.agent_file import AgentFile
from agent_runtime.config import AgentConfig, AgentType
from agent_runtime.engine.formats import DIALECTS
from agent_runtime.engine.loop import Engine
from agent_runtime.engine.structured_output import AnswerSchema, read_schema
from agent_runtime.errors import StartError
from agent_runtime.masking import masked
from agent_runtime.models import Model, model_for
from agent_runtime.observability.telemetry import Telemetry
from agent_runtime.secrets import Credential, credential_for, periodic_refresh
from agent_runtime.sessions import SessionStore, retention, store_for
from agent_runtime.tools import Toolbox, tool_for, toolsets_for

_log = logging.getLogger(__name__)


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
class Rooms:
    """What an open agent works with. `store` is there where the agent remembers, or where a call may have to wait."""

    file: AgentFile
    model: Model
    engine: Engine
    toolbox: Toolbox
    store: SessionStore | None
    remembers: bool
    answers: AnswerSchema | None
    callers: Credential[list[str]]
    registry_token: Credential[str | None]

    def engine_now(self) -> Engine:
        """The engine of one run: the tools that are there now, what an asking agent leaves it, a reader of its own."""
        dialect = self.answers.dialect(self.engine.dialect) if self.answers else self.engine.dialect
        settings = self.file.config.limits
        narrower = allowance.current().narrowed(settings)
        limits = settings.model_copy(update=narrower) if narrower else settings
        return replace(self.engine, tools=self.toolbox.now(), dialect=dialect, limits=limits)


async def open_rooms(
    file: AgentFile, stack: AsyncExitStack, *, given_model: Model | None, telemetry: Telemetry | None
) -> Rooms:
    """Open everything; the stack closes it in reverse.

    Raises:
        StartError: a part cannot be opened; the message says what the operator can do.
    """
    config = file.config
    if telemetry:
        file.resolver.on_refresh = partial(telemetry.secrets_fetched_again, config.name)
    await stack.enter_async_context(periodic_refresh(file.resolver, config.secrets.refresh_seconds))
    _log.info("%s: opening the model", config.name)
    model = await stack.enter_async_context(given_model or model_for(config.model, file.resolver))
    tools = [
        await stack.enter_async_context(tool_for(entry, file.folder, config, resolver=file.resolver, index=index))
        for index, entry in enumerate(config.tools)
    ]
    toolsets = toolsets_for(config, file.folder, file.resolver)
    toolbox = Toolbox(tools, [await stack.enter_async_context(toolset) for toolset in toolsets])
    preset, chosen = PRESETS[config.agent_type], config.reasoning
    remembers = remembers_sessions(config)
    store: SessionStore | None = None
    if needs_store(config):
        url = config.session.store.get_secret_value()
        login = file.resolver.credential(("session", "store"), url)
        store = await stack.enter_async_context(store_for(url, file.folder, login=login))
        await stack.enter_async_context(retention(store, config.name, config.session.ttl_days))
    # The local model's calls are decoded under a grammar: asked for in text, it would make none.
    is_local = config.model.provider == "local"
    dialect = "native" if is_local else chosen.dialect or preset.dialect
    engine = Engine(
        telemetry.model(config.name, model) if telemetry else model,
        toolbox.now(),
        DIALECTS[dialect],
        config.limits,
        config.system_prompt,
        plans=preset.plan if chosen.plan is None else chosen.plan,
        mask=lambda text: masked(text, file.secrets),
        fences=not is_local,  # it takes its calls from the words of the question, and would repeat the marks
    )
    keys = [key.get_secret_value() for key in config.server.api_keys]
    callers = file.resolver.credential(("server", "api_keys"), keys)
    token = credential_for(file.resolver, ("discovery", "token"), config.discovery.token)
    return Rooms(file, model, engine, toolbox, store, remembers, _answer_schema(file), callers, token)


def remembers_sessions(config: AgentConfig) -> bool:
    """Whether the earlier turns of a session are kept: what the preset says, unless the file says otherwise."""
    chosen = config.reasoning.memory
    return PRESETS[config.agent_type].memory if chosen is None else chosen


def needs_store(config: AgentConfig) -> bool:
    """Whether anything has to be kept: earlier turns, or a call that may have to wait for a person."""
    entries = [*config.tools, *config.mcp_servers.values()]
    asks_people = any(getattr(entry, "approval", None) == "required" for entry in entries)
    return asks_people or remembers_sessions(config)


def _answer_schema(file: AgentFile) -> AnswerSchema | None:
    if file.config.output_schema is None:
        return None
    try:
        return read_schema(file.config.output_schema, file.folder)
    except ValueError as error:  # it was good when the file was read
        raise StartError(f"output_schema {error}") from error
