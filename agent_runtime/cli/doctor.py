"""`myagent doctor`: what an agent file needs, part by part, and whether it is there.

Opens each part by itself, so that one that is missing does not hide the others, and closes it again.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from agent_runtime.agent_file import AgentFile, load
from agent_runtime.components import needs_store
from agent_runtime.config import dotted
from agent_runtime.errors import ConfigError, MyAgentError, StartError
from agent_runtime.events import Message
from agent_runtime.models import Model, model_for
from agent_runtime.server.auth.oidc import Issuer
from agent_runtime.sessions import store_for
from agent_runtime.tls import port_tls, registry_tls
from agent_runtime.tools import tool_for
from discovery.client.client import DiscoveryClient, DiscoveryError


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that the agent needs; `detail` says where it comes from, or what is wrong and what to do."""

    what: str
    ok: bool
    detail: str


async def examine(path: Path) -> list[Finding]:
    """Everything about one agent file, in the order in which it would be needed."""
    try:
        file = await load(path)
    except ConfigError as error:
        return [
            Finding(_place(error.file, problem.line, problem.path), False, problem.message)
            for problem in error.problems
        ]
    except StartError as error:
        return [Finding(str(path), False, str(error))]
    config = file.config
    findings = [Finding(str(path), True, f"{config.name} {config.version}, {config.agent_type}")]
    findings += [Finding(dotted(place), True, f"from {origin}") for place, origin in file.origins.items()]
    findings.append(await _model(file))
    for index, entry in enumerate(config.tools):
        made = partial(tool_for, entry, file.folder, config, resolver=file.resolver, index=index)
        findings.append(await _opened(f"tools[{index}]", made, _tool_detail))
    if needs_store(config):
        store = config.session.store.get_secret_value()
        findings.append(await _opened("session.store", partial(store_for, store, file.folder), _store_detail))
    findings += await _door(file)
    if config.discovery.url:
        findings.append(await _discovery(file))
    return findings


async def _model(file: AgentFile) -> Finding:
    """Ask the model for one word: a key, a name and an endpoint prove themselves by nothing less."""

    async def greeting(model: Model) -> str:
        async for _ in model.stream([Message("user", "Say hello.")]):
            return f"{model.label} answers"
        return f"{model.label} answers with nothing"

    try:
        async with model_for(file.config.model, file.resolver) as model:
            return Finding("model", True, await greeting(model))
    except MyAgentError as error:
        return Finding("model", False, str(error))


async def _opened(
    what: str, make: Callable[[], AbstractAsyncContextManager[Any]], detail: Callable[[Any], str]
) -> Finding:
    try:
        async with make() as opened:
            return Finding(what, True, detail(opened))
    except (MyAgentError, ImportError) as error:
        return Finding(what, False, str(error))


def _tool_detail(tool: Any) -> str:
    return f"{tool.spec.name}: {tool.spec.description.splitlines()[0]}"


def _store_detail(store: Any) -> str:
    return f"{type(store).__name__} is ready"


async def _door(file: AgentFile) -> list[Finding]:
    """The certificates of the agent's port, and the issuer whose tokens it takes."""
    server, findings = file.config.server, list[Finding]()
    if server.tls:
        try:
            await port_tls(server.tls, file.folder)
            findings.append(Finding("server.tls", True, f"{server.tls.certificate} and its key are good"))
        except StartError as error:
            findings.append(Finding("server.tls", False, str(error)))
    if server.oidc:
        try:
            async with Issuer(server.oidc, file.folder) as issuer:
                findings.append(Finding("server.oidc", True, f"{server.oidc.issuer} shows {await issuer.check()} keys"))
        except MyAgentError as error:
            findings.append(Finding("server.oidc", False, str(error)))
    return findings


async def _discovery(file: AgentFile) -> Finding:
    settings = file.config.discovery
    token = settings.token.get_secret_value() if settings.token else None
    try:
        tls = await registry_tls(settings, file.folder)
    except StartError as error:
        return Finding("discovery", False, str(error))
    async with DiscoveryClient(settings.url or "", token=token, tls=tls) as client:
        try:
            agents = await client.agents()
        except DiscoveryError as error:
            if error.code == "forbidden_scope":  # a token that registers need not read
                return Finding("discovery.url", True, f"{client.address} knows this token, which may not read its list")
            return Finding("discovery.url", False, f"{client.address}: {error} (the agent runs all the same)")
    return Finding("discovery.url", True, f"{client.address} lists {len(agents)} agents")


def _place(file: str, line: int | None, path: str) -> str:
    return " ".join(part for part in (f"{file}:{line}" if line else file, path) if part)
