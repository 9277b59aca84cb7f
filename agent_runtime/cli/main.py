"""The commands. Besides the server the only place that starts an event loop, and the one that reads the environment."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NoReturn

from agent_runtime.agent_file import AgentFile, load
from agent_runtime.cli.arguments import FILTERS, TLS, make_parser
from agent_runtime.config import AgentConfig, dotted
from agent_runtime.errors import ConfigError, MyAgentError, Problem
from agent_runtime.masking import LOG_MASK
from agent_runtime.observability import set_up_logging
from agent_runtime.tls import DISCOVERY_FILES

EXIT_FAILED, EXIT_FILE = 1, 2


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The `myagent` command. Exit status 0 is well, 2 a problem of the file or the command line, 1 anything else."""
    parser = make_parser()
    if not (sys.argv[1:] if argv is None else argv):
        parser.print_help(sys.stderr)
        sys.exit(EXIT_FILE)
    arguments = parser.parse_args(argv)
    set_up_logging(getattr(arguments, "log_level", "warning"), getattr(arguments, "log_format", "text"))
    try:
        sys.exit(_COMMANDS[arguments.command](arguments))
    except ConfigError as error:
        print(LOG_MASK(str(error)), file=sys.stderr)
        sys.exit(EXIT_FILE)
    except MyAgentError as error:
        print(LOG_MASK(f"myagent: {error}"), file=sys.stderr)
        sys.exit(EXIT_FAILED)
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)


def _run(arguments: argparse.Namespace) -> int:
    from agent_runtime.observability import process_telemetry
    from agent_runtime.server.serve import run, serve

    config = arguments.config
    shared = config.is_dir()  # several agents share one port
    overrides = _overrides(arguments, os.environ)

    async def serve_files() -> None:
        files = await _usable(config, overrides) if shared else [await load(config, overrides=overrides)]
        with process_telemetry(os.environ, LOG_MASK) as telemetry:
            await serve(
                files,
                shared=shared,
                allow_anonymous=arguments.allow_anonymous,
                reload=arguments.reload,
                overrides=overrides,
                telemetry=telemetry,
            )

    run(serve_files())
    return 0


async def _usable(folder: Path, overrides: dict[str, dict[str, Any]]) -> list[AgentFile]:
    """The agents of a folder; a bad file is reported and left out."""
    from agent_runtime.server.host import agent_files

    files: list[AgentFile] = []
    for path in await asyncio.to_thread(agent_files, folder):
        try:
            files.append(await load(path, overrides=overrides))
        except ConfigError as error:
            print(LOG_MASK(f"{error}\n{path} is left out"), file=sys.stderr)
    if not files:
        raise ConfigError(str(folder), [Problem("holds no usable agent file: NAME.yaml, or NAME/agent.yaml")])
    return files


def _overrides(arguments: argparse.Namespace, environment: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Flags win over variables, variables over the file."""
    server = {
        "host": arguments.host,
        "port": arguments.port,
        "service_url": arguments.service_url or environment.get("MYAGENT_SERVICE_URL"),
        "public_url": arguments.public_url or environment.get("MYAGENT_PUBLIC_URL"),
    }
    if tls := {key: _absolute(getattr(arguments, f"tls_{key}")) for key in TLS if getattr(arguments, f"tls_{key}")}:
        server["tls"] = tls
    discovery = {"url": arguments.discovery_url or environment.get("MYAGENT_DISCOVERY_URL")}
    discovery |= {key: _absolute(environment.get(name)) for key, name in DISCOVERY_FILES.items()}
    chosen = {"server": server, "discovery": discovery}
    given = {
        section: {key: value for key, value in values.items() if value not in (None, "")}
        for section, values in chosen.items()
    }
    return {section: values for section, values in given.items() if values}


def _absolute(name: str | None) -> str | None:
    """A file that the shell names is relative to where it stands, not to the agent file."""
    return str(Path(name).absolute()) if name else None


def _chat(arguments: argparse.Namespace) -> int:
    from agent_runtime.cli.terminal import converse

    return converse(arguments.config, arguments.message, arguments.session or "terminal")


def _validate(arguments: argparse.Namespace) -> int:
    try:
        file = asyncio.run(load(arguments.config))
    except ConfigError as error:
        if not arguments.json:
            raise
        problems = [{"line": p.line, "path": p.path, "message": p.message} for p in error.problems]
        print(json.dumps({"valid": False, "file": error.file, "problems": problems}, indent=2))
        return EXIT_FILE
    if arguments.json:
        origins = {dotted(path): origin for path, origin in file.origins.items()}
        print(
            json.dumps({"valid": True, "file": str(file.path), "name": file.config.name, "origins": origins}, indent=2)
        )
    else:
        _print_valid(file)
    return 0


def _print_valid(file: AgentFile) -> None:
    print(f"{file.path} is valid: {file.config.name} {file.config.version}, {file.config.agent_type}")
    width = max((len(dotted(path)) for path in file.origins), default=0)
    for path, origin in file.origins.items():
        print(f"  {dotted(path):{width}}  from {origin}")


def _schema(_arguments: argparse.Namespace) -> int:
    print(json.dumps(AgentConfig.model_json_schema(), indent=2))
    return 0


def _new(arguments: argparse.Namespace) -> int:
    from agent_runtime.cli.scaffold import create_agent

    folder = create_agent(arguments.name, Path.cwd())
    print(f"{folder.name}/agent.yaml and {folder.name}/tools.py are there. Next:")
    print(f"  myagent chat --config {folder.name}/agent.yaml")
    print(f"  myagent run --config {folder.name}/agent.yaml")
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    from agent_runtime.cli.doctor import examine

    findings = [replace(finding, detail=LOG_MASK(finding.detail)) for finding in asyncio.run(examine(arguments.config))]
    if arguments.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        width = max(len(finding.what) for finding in findings)
        for finding in findings:
            print(f"  {'ok' if finding.ok else 'NO':3} {finding.what:{width}}  {finding.detail}")
    return 0 if all(finding.ok for finding in findings) else EXIT_FAILED


def _iam_policy(arguments: argparse.Namespace) -> int:
    from agent_runtime.secrets import policy_for

    config = arguments.config
    files = [config]
    if config.is_dir():
        from agent_runtime.server.host import agent_files

        files = agent_files(config)
    policy = policy_for(files, region=arguments.region, account=arguments.account, kms_keys=arguments.kms_key)
    print(json.dumps(policy, indent=2))
    if not policy["Statement"]:
        print(f"{config} names no secret, so the agent needs no permission", file=sys.stderr)
    return 0


def _test(arguments: argparse.Namespace) -> int:
    from agent_runtime.cli.evals import hold, junit

    config = arguments.config
    suite = Path(arguments.conversations or config.with_name("conversations.yaml"))
    tape = "record" if arguments.record else "replay" if arguments.replay else None
    outcomes = asyncio.run(hold(config, suite, tape))
    if arguments.junit:
        Path(arguments.junit).write_text(junit(config.stem, outcomes), encoding="utf-8")
    return EXIT_FAILED if any(outcome.complaints for outcome in outcomes) else 0


def _agents(arguments: argparse.Namespace) -> int:
    from agent_runtime.cli.agents import show_agents

    chosen: Any = {name: getattr(arguments, name) for name in FILTERS if getattr(arguments, name)}
    return show_agents(arguments.discovery_url, chosen, arguments.mode or "once", os.environ)


def _register(arguments: argparse.Namespace) -> int:
    from agent_runtime.cli.agents import DEFAULT_URL
    from agent_runtime.cli.register import COMMAND_LINE, FLAGS, keep_registered, read_entry, register_once

    if arguments.once and (arguments.health or arguments.heartbeat_seconds or arguments.argv):
        lasting = "goes without --health, --heartbeat-seconds and a command: it keeps nothing up"
        raise ConfigError(COMMAND_LINE, [Problem(lasting, "--once")])

    async def register() -> int:
        entry = await read_entry(
            {field: value for field in FLAGS if (value := getattr(arguments, field)) is not None},
            file=arguments.file,
            url=arguments.discovery_url or os.environ.get("MYAGENT_DISCOVERY_URL") or DEFAULT_URL,
            token=os.environ.get("MYAGENT_DISCOVERY_TOKEN") or None,
            token_file=arguments.token_file,
            heartbeat_seconds=arguments.heartbeat_seconds,
            health=arguments.health,
            environment=os.environ,
        )
        return await (register_once(entry) if arguments.once else keep_registered(entry, arguments.argv))

    return asyncio.run(register())


def _up(arguments: argparse.Namespace) -> int:
    from agent_runtime.cli.stack import LocalStack

    stack = LocalStack(arguments.agents, port=arguments.port, model=arguments.model, install=arguments.install)
    return asyncio.run(stack.run())


def _discovery(arguments: argparse.Namespace) -> NoReturn:
    # The registry is a service of its own: it takes this process over rather than being imported into the runtime.
    os.execv(sys.executable, [sys.executable, "-m", "discovery", *arguments.arguments])


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "run": _run,
    "chat": _chat,
    "validate": _validate,
    "schema": _schema,
    "new": _new,
    "doctor": _doctor,
    "iam-policy": _iam_policy,
    "test": _test,
    "agents": _agents,
    "register": _register,
    "up": _up,
    "discovery": _discovery,
}
