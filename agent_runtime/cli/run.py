"""`myagent run` and `myagent chat`: agents on a port, and one agent in the terminal."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

from agent_runtime.agent import Agent
from agent_runtime.agent_file import AgentFile, load
from agent_runtime.bridge import BlockingPortal
from agent_runtime.cli import given
from agent_runtime.errors import ConfigError, MyAgentError, Problem
from agent_runtime.events import Event, Finished, Plan, Text, Thought, ToolCalled, ToolResult
from agent_runtime.masking import LOG_MASK
from agent_runtime.tls import DISCOVERY_FILES

Overrides = dict[str, dict[str, Any]]
"""Settings that replace those of an agent file, by section."""

_MARKS = {"pending": "○", "done": "●", "failed": "✗"}


def overrides(
    server: Mapping[str, Any], tls: Mapping[str, Path], discovery_url: str | None, environment: Mapping[str, str]
) -> Overrides:
    """The settings of the command line. Its paths are relative to the current folder, not to the agent file."""
    files = {key: Path(environment[name]) for key, name in DISCOVERY_FILES.items() if environment.get(name)}
    return given(
        server=given(**server, tls={key: str(path.absolute()) for key, path in tls.items()}),
        discovery=given(url=discovery_url, **{key: str(path.absolute()) for key, path in files.items()}),
    )


def serve_path(
    path: Path, overrides: Overrides, environment: Mapping[str, str], *, reload: bool, allow_anonymous: bool
) -> None:
    """Serve an agent file, or the agents of a folder on one port, until SIGINT or SIGTERM."""
    from agent_runtime.observability import process_telemetry
    from agent_runtime.server.serve import run, serve

    shared = path.is_dir()

    async def serve_files() -> None:
        files = await _load_folder(path, overrides) if shared else [await load(path, overrides=overrides)]
        with process_telemetry(environment, LOG_MASK) as telemetry:
            await serve(
                files,
                shared=shared,
                allow_anonymous=allow_anonymous,
                reload=reload,
                overrides=overrides,
                telemetry=telemetry,
            )

    run(serve_files())


async def _load_folder(folder: Path, overrides: Overrides) -> list[AgentFile]:
    """The agents of a folder; an invalid file is reported and skipped."""
    from agent_runtime.server.host import agent_files

    files: list[AgentFile] = []
    for path in await asyncio.to_thread(agent_files, folder):
        try:
            files.append(await load(path, overrides=overrides))
        except ConfigError as error:
            print(LOG_MASK(f"{error}\n{path} is skipped"), file=sys.stderr)
    if not files:
        raise ConfigError(str(folder), [Problem("contains no valid agent file: NAME.yaml, or NAME/agent.yaml")])
    return files


def converse(config: Path, message: str | None, session: str) -> None:
    """Answer one message, or every line that is typed. Raises as `Agent` does."""
    from agent_runtime.cli.terminal import console

    agent = Agent(config)
    portal = BlockingPortal()  # not `asyncio.run`: Ctrl-C must interrupt the reading of a line
    try:
        portal.call(agent.__aenter__)
        if message:
            portal.call(_show_answer, agent, message, session)
            return
        greeting = f"{agent.config.name} answers with {agent.model_label}; an empty line or Ctrl-D ends."
        console(sys.stdout).print(greeting, style="dim")
        while line := _read_line():
            try:
                portal.call(_show_answer, agent, line, session)
            except MyAgentError as error:
                print(LOG_MASK(f"myagent: {error}"), file=sys.stderr)
    finally:
        portal.call(agent.aclose)
        portal.close()


def _read_line() -> str:
    try:
        return input("> ").strip()
    except EOFError:
        print()
        return ""


async def _show_answer(agent: Agent, message: str, session: str) -> None:
    """Print the answer to standard output as it streams, and the steps to standard error."""
    from agent_runtime.cli.terminal import console

    steps = console(sys.stderr)
    async with aclosing(agent.stream(message, session_id=session)) as events:
        async for event in events:
            if isinstance(event, Text):
                print(event.delta, end="", flush=True)
                continue
            if isinstance(event, Finished):
                print()
            if step := _step(event):
                steps.print(f"  {step}", style="dim")


def _step(event: Event) -> str | None:
    match event:
        case Plan(steps):
            return "plan     " + " · ".join(f"{_MARKS[step.status]} {step.text}" for step in steps)
        case Thought(text):
            return f"thought  {text}"
        case ToolCalled(_, name, arguments):
            return f"calls    {name} {json.dumps(arguments, ensure_ascii=False)}"
        case ToolResult(_, _, content, is_error, duration_ms):
            lines = len(content.splitlines())
            size = content if is_error else f"{lines} line{'' if lines == 1 else 's'}"
            return f"{'error' if is_error else 'result':8} {size} in {duration_ms} ms"
        case Finished(_, stop_reason) if stop_reason != "finished":
            return f"stopped  {stop_reason}"
        case _:
            return None
