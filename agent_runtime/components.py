"""The components of an agent, opened on one exit stack as its file describes them; and the presets of `agent_type`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from agent_runtime import budget
from agent_runtime.agent_file import AgentFile
from agent_runtime.config import AgentConfig, AgentType
from agent_runtime.engine import DIALECTS, Engine, StructuredOutput, read_schema
from agent_runtime.errors import StartError
from agent_runtime.masking import masked
from agent_runtime.models import Model, model_for
from agent_runtime.observability import Telemetry
from agent_runtime.secrets import Credential, credential_for, periodic_refresh
from agent_runtime.sessions import SessionStore, retention, store_for
from agent_runtime.tools import Toolbox, tool_for, toolsets_for

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Preset:
    """What an `agent_type` sets."""

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
class Components:
    """What an open agent works with. There is a `store` where turns are saved or a call may have to wait."""

    file: AgentFile
    model: Model
    engine: Engine
    toolbox: Toolbox
    store: SessionStore | None
    remembers: bool
    callers: Credential[list[str]]
    registry_token: Credential[str | None]
    telemetry: Telemetry | None

    def engine_for_run(self) -> Engine:
        """The engine of one run: with the tools that there are now, within the budget that a calling agent left."""
        limits = self.file.config.limits
        narrower = budget.current().narrower(timeout_seconds=limits.timeout_seconds, max_tokens=limits.max_tokens)
        limits = limits.model_copy(update=narrower) if narrower else limits
        return replace(self.engine, tools=self.toolbox.now(), limits=limits)


async def open_components(
    file: AgentFile, stack: AsyncExitStack, *, given_model: Model | None, telemetry: Telemetry | None
) -> Components:
    """Open everything; the stack closes it in reverse.

    Raises:
        StartError: a component cannot be opened; the message says what the operator can do.
    """
    config = file.config
    if telemetry:
        file.resolver.on_refresh = partial(telemetry.secrets_refreshed, config.name)
    await stack.enter_async_context(periodic_refresh(file.resolver, config.secrets.refresh_seconds))
    _log.info("%s: opening the model", config.name)
    model = await stack.enter_async_context(given_model or model_for(config.model, file.resolver))
    toolbox = await _open_tools(file, stack)
    return Components(
        file,
        model,
        _engine(file, telemetry.model(config.name, model) if telemetry else model, toolbox),
        toolbox,
        await _open_store(file, stack),
        remembers_sessions(config),
        file.resolver.credential(("server", "api_keys"), [key.get_secret_value() for key in config.server.api_keys]),
        credential_for(file.resolver, ("discovery", "token"), config.discovery.token),
        telemetry,
    )


async def _open_tools(file: AgentFile, stack: AsyncExitStack) -> Toolbox:
    tools = [
        await stack.enter_async_context(tool_for(entry, file.folder, file.config, resolver=file.resolver, index=index))
        for index, entry in enumerate(file.config.tools)
    ]
    toolsets = toolsets_for(file.config, file.folder, file.resolver)
    return Toolbox(tools, [await stack.enter_async_context(toolset) for toolset in toolsets])


async def _open_store(file: AgentFile, stack: AsyncExitStack) -> SessionStore | None:
    if not needs_store(file.config):
        return None
    session = file.config.session
    url = session.store.get_secret_value()
    login = file.resolver.credential(("session", "store"), url)
    store = await stack.enter_async_context(store_for(url, file.folder, login=login))
    await stack.enter_async_context(retention(store, file.config.name, session.ttl_days))
    return store


def _engine(file: AgentFile, model: Model, toolbox: Toolbox) -> Engine:
    config = file.config
    preset, reasoning = PRESETS[config.agent_type], config.reasoning
    # The local model's calls are decoded under a grammar: it cannot make any in text.
    is_local = config.model.provider == "local"
    dialect = DIALECTS["native" if is_local else reasoning.dialect or preset.dialect]
    if config.output_schema is not None:
        try:
            dialect = StructuredOutput(dialect, read_schema(config.output_schema, file.folder))
        except ValueError as error:  # the file has changed since it was checked
            raise StartError(f"output_schema {error}") from error
    return Engine(
        model,
        toolbox.now(),
        dialect,
        config.limits,
        config.system_prompt,
        plans=preset.plan if reasoning.plan is None else reasoning.plan,
        marks_results=not is_local,  # it takes its calls from the words of the question, and would repeat the marks
        mask=lambda text: masked(text, file.secrets),
    )


def remembers_sessions(config: AgentConfig) -> bool:
    """Whether earlier turns of a session are saved: what the preset says, unless the file says otherwise."""
    chosen = config.reasoning.memory
    return PRESETS[config.agent_type].memory if chosen is None else chosen


def needs_store(config: AgentConfig) -> bool:
    """Whether anything has to be saved: earlier turns, or a call that may have to wait for a person."""
    entries = [*config.tools, *config.mcp_servers.values()]
    has_approvals = any(getattr(entry, "approval", None) == "required" for entry in entries)
    return has_approvals or remembers_sessions(config)
