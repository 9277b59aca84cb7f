"""`myagent validate` and `myagent doctor`: whether an agent file is valid, and whether what it needs is available.

`doctor` opens each component on its own, so that one failure does not hide another.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from agent_runtime.agent_file import AgentFile, load
from agent_runtime.cli import EXIT_FAILED, EXIT_USAGE
from agent_runtime.cli.terminal import console, print_table, status_mark
from agent_runtime.components import needs_store
from agent_runtime.config import dotted
from agent_runtime.errors import ConfigError, MyAgentError, StartError
from agent_runtime.events import Message
from agent_runtime.masking import LOG_MASK
from agent_runtime.models import Model, model_for
from agent_runtime.server.auth.oidc import Issuer
from agent_runtime.sessions import store_for
from agent_runtime.tls import port_tls, registry_tls
from agent_runtime.tools import tool_for
from discovery.client import DiscoveryClient, DiscoveryError


def show_validity(path: Path, *, as_json: bool) -> int:
    """Print whether an agent file is valid and where its values come from; returns the exit status.

    Raises:
        ConfigError: it is invalid; with `as_json` the problems are printed instead.
    """
    try:
        file = asyncio.run(load(path))
    except ConfigError as error:
        if not as_json:
            raise
        problems = [{"line": p.line, "path": p.path, "message": p.message} for p in error.problems]
        print(json.dumps({"valid": False, "file": error.file, "problems": problems}, indent=2))
        return EXIT_USAGE
    origins = {dotted(place): origin for place, origin in file.origins.items()}
    if as_json:
        result = {"valid": True, "file": str(file.path), "name": file.config.name, "origins": origins}
        print(json.dumps(result, indent=2))
        return 0
    print(f"{file.path} is valid: {file.config.name} {file.config.version}, {file.config.agent_type}")
    if origins:
        print_table(console(sys.stdout), [(f"  {place}", f"from {origin}") for place, origin in origins.items()])
    return 0


def show_findings(path: Path, *, as_json: bool) -> int:
    """Print what an agent file needs and whether it is available; returns the exit status."""
    findings = [replace(finding, detail=LOG_MASK(finding.detail)) for finding in asyncio.run(examine(path))]
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        rows = [(status_mark(finding.ok), finding.what, finding.detail) for finding in findings]
        print_table(console(sys.stdout), rows)
    return 0 if all(finding.ok for finding in findings) else EXIT_FAILED


@dataclass(frozen=True, slots=True)
class Finding:
    """One requirement of the agent; `detail` names its origin, or what is wrong and what to do."""

    what: str
    ok: bool
    detail: str


async def examine(path: Path) -> list[Finding]:
    """The requirements of an agent file, in the order in which they are opened."""
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
        make_tool = partial(tool_for, entry, file.folder, config, resolver=file.resolver, index=index)
        findings.append(await _open(f"tools[{index}]", make_tool, _tool_detail))
    if needs_store(config):
        store = config.session.store.get_secret_value()
        findings.append(await _open("session.store", partial(store_for, store, file.folder), _store_detail))
    findings += await _authentication(file)
    if config.discovery.url:
        findings.append(await _discovery(file))
    return findings


async def _model(file: AgentFile) -> Finding:
    """Send the model a message: only an answer proves that key, name and endpoint are right."""

    async def greeting(model: Model) -> str:
        async for _ in model.stream([Message("user", "Say hello.")]):
            return f"{model.label} answers"
        return f"{model.label} gives an empty answer"

    try:
        async with model_for(file.config.model, file.resolver) as model:
            return Finding("model", True, await greeting(model))
    except MyAgentError as error:
        return Finding("model", False, str(error))


async def _open(
    what: str, make: Callable[[], AbstractAsyncContextManager[Any]], detail: Callable[[Any], str]
) -> Finding:
    try:
        async with make() as component:
            return Finding(what, True, detail(component))
    except (MyAgentError, ImportError) as error:
        return Finding(what, False, str(error))


def _tool_detail(tool: Any) -> str:
    return f"{tool.spec.name}: {tool.spec.description.splitlines()[0]}"


def _store_detail(store: Any) -> str:
    return f"{type(store).__name__} is ready"


async def _authentication(file: AgentFile) -> list[Finding]:
    """The certificates of the agent's port, and the issuer of the tokens that it accepts."""
    server, findings = file.config.server, list[Finding]()
    if server.tls:
        try:
            await port_tls(server.tls, file.folder)
            findings.append(Finding("server.tls", True, f"{server.tls.certificate} and its key are valid"))
        except StartError as error:
            findings.append(Finding("server.tls", False, str(error)))
    if server.oidc:
        try:
            async with Issuer(server.oidc, file.folder) as issuer:
                findings.append(
                    Finding("server.oidc", True, f"{server.oidc.issuer} publishes {await issuer.check()} keys")
                )
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
            if error.code == "forbidden_scope":  # a token for registering need not read
                return Finding("discovery.url", True, f"{client.address} accepts the token, which cannot read the list")
            return Finding("discovery.url", False, f"{client.address}: {error} (the agent runs without it)")
    return Finding("discovery.url", True, f"{client.address} lists {len(agents)} agents")


def _place(file: str, line: int | None, path: str) -> str:
    return " ".join(part for part in (f"{file}:{line}" if line else file, path) if part)
