"""`myagent new`, `validate` and `doctor`: creates an agent, and checks its file and what the file needs."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import ValidationError

from agent_runtime.agent_file import AgentFile, load
from agent_runtime.cli import EXIT_FAILED, EXIT_USAGE
from agent_runtime.cli.terminal import console, print_table, status_mark
from agent_runtime.components import needs_store
from agent_runtime.config import AgentConfig, OidcConfig, ToolConfig, dotted
from agent_runtime.errors import ConfigError, MyAgentError, StartError
from agent_runtime.events import Message
from agent_runtime.masking import LOG_MASK
from agent_runtime.models import model_for
from agent_runtime.server.auth.oidc import Issuer
from agent_runtime.sessions import store_for
from agent_runtime.tls import ServerFiles, port_tls, registry_tls
from agent_runtime.tools import tool_for
from discovery.client import DiscoveryClient, DiscoveryError

AGENT_FILE = """\
# yaml-language-server: $schema=agent.schema.json
name: {name}
description: Counts the days until a date.
agent_type: stateful

model:
  provider: local # the built-in model, without a key. A better one:
  # provider: openai
  # name: gpt-4o-mini
  # api_key: "${{OPENAI_API_KEY}}"

system_prompt: |
  You are a helpful assistant. Be brief.

tools: # functions in tools.py beside this file; `answer: direct` makes the result the answer, word for word
  - {{function: "tools:days_until", answer: direct}}

server: {{port: 8000}}
# discovery: {{url: "http://127.0.0.1:9000", heartbeat_seconds: 10}}
"""

_TOOLS = '''\
from datetime import date


def days_until(day: date) -> str:
    """Count the days until a date.

    Args:
        day: The date, such as 2030-12-24.
    """
    days = (day - date.today()).days
    return f"{abs(days)} days {'until' if days >= 0 else 'since'} {day:%A, %d %B %Y}"
'''


def create_agent(name: str, parent: Path) -> Path:
    """Create the folder `name` in `parent` with an agent file, its tools and the schema for editors.

    Raises:
        StartError: the name is invalid, or the folder exists.
    """
    try:
        AgentConfig.model_validate({"name": name, "model": {"provider": "local"}})
    except ValidationError as error:
        raise StartError(f"{name!r} is not a valid name: use lower-case letters, digits and hyphens") from error
    folder = parent / name
    try:
        folder.mkdir()
    except FileExistsError as error:
        raise StartError(f"{folder} already exists; choose another name, or remove it first") from error
    (folder / "agent.yaml").write_text(AGENT_FILE.format(name=name), encoding="utf-8")
    (folder / "tools.py").write_text(_TOOLS, encoding="utf-8")
    schema = json.dumps(AgentConfig.model_json_schema(), indent=2)
    (folder / "agent.schema.json").write_text(schema + "\n", encoding="utf-8")
    return folder


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
    findings = asyncio.run(_examine(path))
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


async def _examine(path: Path) -> list[Finding]:
    try:
        file = await load(path)
    except ConfigError as error:
        places = [f"{error.file}:{one.line}" if one.line else error.file for one in error.problems]
        problems = zip(places, error.problems, strict=True)
        return [Finding(f"{place} {one.path}".strip(), False, LOG_MASK(one.message)) for place, one in problems]
    except StartError as error:
        return [Finding(str(path), False, LOG_MASK(str(error)))]
    config = file.config
    findings = [Finding(str(path), True, f"{config.name} {config.version}, {config.agent_type}")]
    findings += [Finding(dotted(place), True, f"from {origin}") for place, origin in file.origins.items()]
    for what, check in _checks(file):
        try:  # each on its own, so that one failure does not hide another
            findings.append(Finding(what, True, LOG_MASK(await check)))
        except (MyAgentError, ImportError) as error:
            findings.append(Finding(what, False, LOG_MASK(str(error))))
    return findings


def _checks(file: AgentFile) -> Iterator[tuple[str, Awaitable[str]]]:
    """What the agent opens, in that order. A check returns the detail of its finding, or raises."""
    config = file.config
    yield "model", _check_model(file)
    for index, entry in enumerate(config.tools):
        yield f"tools[{index}]", _check_tool(file, entry, index)
    if needs_store(config):
        yield "session.store", _check_store(file)
    if config.server.tls:
        yield "server.tls", _check_certificate(file, config.server.tls)
    if config.server.oidc:
        yield "server.oidc", _check_issuer(file, config.server.oidc)
    if config.discovery.url:
        yield "discovery.url", _check_registry(file, config.discovery.url)


async def _check_model(file: AgentFile) -> str:
    """Send the model a message: only an answer proves that key, name and endpoint are right."""
    async with model_for(file.config.model, file.resolver) as model:
        async for _ in model.stream([Message("user", "Say hello.")]):
            return f"{model.label} answers"
        return f"{model.label} gives an empty answer"


async def _check_tool(file: AgentFile, entry: ToolConfig, index: int) -> str:
    async with tool_for(entry, file.folder, file.config, resolver=file.resolver, index=index) as tool:
        return f"{tool.spec.name}: {tool.spec.description.splitlines()[0]}"


async def _check_store(file: AgentFile) -> str:
    async with store_for(file.config.session.store.get_secret_value(), file.folder) as store:
        return f"{type(store).__name__} is ready"


async def _check_certificate(file: AgentFile, files: ServerFiles) -> str:
    await port_tls(files, file.folder)
    return f"{files.certificate} and its key are valid"


async def _check_issuer(file: AgentFile, oidc: OidcConfig) -> str:
    async with Issuer(oidc, file.folder) as issuer:
        return f"{oidc.issuer} publishes {await issuer.check()} keys"


async def _check_registry(file: AgentFile, url: str) -> str:
    settings = file.config.discovery
    token = settings.token.get_secret_value() if settings.token else None
    tls = await registry_tls(settings, file.folder)
    async with DiscoveryClient(url, token=token, tls=tls) as client:
        try:
            return f"{client.address} lists {len(await client.agents())} agents"
        except DiscoveryError as error:
            if error.code == "forbidden_scope":  # a token for registering need not read
                return f"{client.address} accepts the token, which cannot read the list"
            raise StartError(f"{client.address}: {error} (the agent runs without it)") from error
