"""The commands. Besides the server the only place that starts an event loop, and the one that reads the environment."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from agent_runtime import __version__
from agent_runtime.config import AgentConfig
from agent_runtime.errors import ConfigError, MyAgentError, Problem
from agent_runtime.loading import AgentFile, load
from agent_runtime.logs import set_up_logging

EXIT_FAILED, EXIT_FILE = 1, 2


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The `myagent` command. Exit status 0 is well, 2 a problem of the file or the command line, 1 anything else."""
    arguments = _parser().parse_args(argv)
    set_up_logging(getattr(arguments, "log_level", "warning"), getattr(arguments, "log_format", "text"))
    try:
        sys.exit(arguments.command(arguments))
    except ConfigError as error:
        print(error, file=sys.stderr)
        sys.exit(EXIT_FILE)
    except MyAgentError as error:
        print(f"myagent: {error}", file=sys.stderr)
        sys.exit(EXIT_FAILED)
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="myagent", description="Run agents that are one YAML file each.")
    parser.add_argument("--version", action="version", version=f"myagent {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_use_commands(commands)
    _add_author_commands(commands)
    _add_stack_commands(commands)
    return parser


def _add_use_commands(commands: Any) -> None:
    run = _command(commands, "run", _run, "serve an agent, or a folder of them, and announce it to discovery")
    run.add_argument("--host", help="address to listen on (server.host)")
    run.add_argument("--port", type=int, help="port to listen on, 0 for a free one (server.port)")
    run.add_argument("--service-url", help="address that other services reach it at (MYAGENT_SERVICE_URL)")
    run.add_argument("--public-url", help="address that browsers reach it at (MYAGENT_PUBLIC_URL)")
    run.add_argument("--discovery-url", help="the registry (MYAGENT_DISCOVERY_URL)")
    run.add_argument("--reload", action="store_true", help="swap an agent in when its file or its tools are edited")
    run.add_argument(
        "--allow-anonymous", action="store_true", help="listen beyond loopback although nobody needs a key"
    )
    run.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    run.add_argument("--log-format", default="text", choices=["text", "json"], help="json: one object a line")

    chat = _command(commands, "chat", _chat, "talk to an agent in the terminal and see its steps")
    chat.add_argument("message", nargs="?", help="one message; without it, a conversation")
    chat.add_argument("--session", metavar="ID", help="go on with this session of a stateful agent")


def _add_author_commands(commands: Any) -> None:
    validate = _command(commands, "validate", _validate, "check an agent file and say where each value comes from")
    validate.add_argument("--json", action="store_true", help="print the result as JSON")

    schema = commands.add_parser("schema", help="print the JSON Schema of the agent file, for editors")
    schema.set_defaults(command=_schema)

    new = commands.add_parser("new", help="make a folder with an agent that runs at once")
    new.set_defaults(command=_new)
    new.add_argument("name", help="lower-case letters, digits and hyphens; also the folder's name")

    doctor = _command(commands, "doctor", _doctor, "say what an agent file needs and whether it is there")
    doctor.add_argument("--json", action="store_true", help="print the result as JSON")

    test = _command(commands, "test", _test, "hold the conversations beside an agent file and check what comes of them")
    test.add_argument("--conversations", metavar="FILE", help="the suite (conversations.yaml beside the agent file)")
    test.add_argument("--junit", metavar="FILE", help="write the outcome as JUnit XML")
    tape = test.add_mutually_exclusive_group()
    tape.add_argument("--record", action="store_true", help="keep the model's replies in conversations.jsonl")
    tape.add_argument("--replay", action="store_true", help="answer from conversations.jsonl: no model, no key")


def _add_stack_commands(commands: Any) -> None:
    agents = commands.add_parser("agents", help="what the registry knows", description=_AGENTS)
    agents.set_defaults(command=_agents)
    agents.add_argument("--discovery-url", "--url", metavar="URL", help="the registry (MYAGENT_DISCOVERY_URL)")
    for name, values in _FILTERS.items():
        agents.add_argument(f"-{name}" if name == "q" else f"--{name}", action="append", metavar="X", help=values)
    mode = agents.add_mutually_exclusive_group()
    mode.add_argument("--json", dest="mode", action="store_const", const="json", help="print the array")
    mode.add_argument("--watch", dest="mode", action="store_const", const="watch", help="again every 2 s, until Ctrl-C")

    up = commands.add_parser(
        "up",
        help="a whole local stack: registry, portal, example agents, a model",
        description=_UP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    up.set_defaults(command=_up)
    up.add_argument(
        "agents", nargs="*", type=Path, metavar="FOLDER", help="agent folders; the shipped examples if none"
    )
    up.add_argument("--model", metavar="HUB-ID", help="a GGUF model to download once and use: owner/repo[:file.gguf]")
    up.add_argument("--port", type=int, default=9000, help="port of the registry and portal (9000)")
    up.add_argument("--install", metavar="COMMAND", help="installs what agents lack; those that lack it start after it")

    discovery = commands.add_parser(
        "discovery",
        help="start the registry; the same as myagent-discovery",
        add_help=False,
        prefix_chars="\0",  # nothing begins with it: every flag is the registry's to read, `--help` too
    )
    discovery.set_defaults(command=_discovery)
    discovery.add_argument("arguments", nargs=argparse.REMAINDER)


_FILTERS = {
    "status": "up, degraded, draining, registered, stale or down",
    "type": "its agent_type",
    "tool": "has this tool",
    "tag": "has this tag",
    "owner": "its owner",
    "q": "words that occur in its name, description, owner, tags or tools",
}
_AGENTS = """\
What the registry knows. A filter given twice takes either value; different filters must all hold. The registry's token
is MYAGENT_DISCOVERY_TOKEN. While the registry is away its last list is shown with its age; the exit status is 1."""
_UP = """\
Starts the registry with its portal and the example agents, prints the portal's address, and stops all of it on Ctrl-C.
The model is the first of: --model, OPENAI_API_KEY (with OPENAI_BASE_URL and OPENAI_MODEL), an Ollama that answers on
this machine, the built-in small one."""


def _agent_file(text: str) -> Path:
    """The path that was given, or the agent.yaml in it."""
    path = Path(text)
    return path / "agent.yaml" if (path / "agent.yaml").is_file() else path


def _command(commands: Any, name: str, function: Any, summary: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=summary[0].upper() + summary[1:] + "."
    )
    parser.add_argument(
        "--config",
        default="agent.yaml",
        metavar="FILE",
        type=_agent_file,
        help="the agent file (agent.yaml), or its folder",
    )
    parser.set_defaults(command=function)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    from agent_runtime.serving import serve
    from agent_runtime.telemetry import traced

    config = arguments.config
    shared = config.is_dir()  # several agents share one port
    overrides = _overrides(arguments, os.environ)

    async def serve_files() -> None:
        files = await _usable(config, overrides) if shared else [await load(config, overrides=overrides)]
        with traced(os.environ) as telemetry:
            await serve(
                files,
                shared=shared,
                allow_anonymous=arguments.allow_anonymous,
                reload=arguments.reload,
                overrides=overrides,
                telemetry=telemetry,
            )

    asyncio.run(serve_files())
    return 0


async def _usable(folder: Path, overrides: dict[str, dict[str, Any]]) -> list[AgentFile]:
    """The agents of a folder; a bad file is reported and left out."""
    from agent_runtime.fleet import agent_files

    files: list[AgentFile] = []
    for path in await asyncio.to_thread(agent_files, folder):
        try:
            files.append(await load(path, overrides=overrides))
        except ConfigError as error:
            print(f"{error}\n{path} is left out", file=sys.stderr)
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
    discovery = {"url": arguments.discovery_url or environment.get("MYAGENT_DISCOVERY_URL")}
    chosen = {"server": server, "discovery": discovery}
    given = {
        section: {key: value for key, value in values.items() if value not in {None, ""}}
        for section, values in chosen.items()
    }
    return {section: values for section, values in given.items() if values}


def _chat(arguments: argparse.Namespace) -> int:
    from agent_runtime.terminal import converse

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
        origins = {_dotted(path): origin for path, origin in file.origins.items()}
        print(
            json.dumps({"valid": True, "file": str(file.path), "name": file.config.name, "origins": origins}, indent=2)
        )
    else:
        _print_valid(file)
    return 0


def _print_valid(file: AgentFile) -> None:
    print(f"{file.path} is valid: {file.config.name} {file.config.version}, {file.config.agent_type}")
    width = max((len(_dotted(path)) for path in file.origins), default=0)
    for path, origin in file.origins.items():
        print(f"  {_dotted(path):{width}}  from {origin}")


def _dotted(path: tuple[str | int, ...]) -> str:
    return ".".join(map(str, path))


def _schema(_arguments: argparse.Namespace) -> int:
    print(json.dumps(AgentConfig.model_json_schema(), indent=2))
    return 0


def _new(arguments: argparse.Namespace) -> int:
    from agent_runtime.scaffold import create_agent

    folder = create_agent(arguments.name, Path.cwd())
    print(f"{folder.name}/agent.yaml and {folder.name}/tools.py are there. Next:")
    print(f"  myagent chat --config {folder.name}/agent.yaml")
    print(f"  myagent run --config {folder.name}/agent.yaml")
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    from agent_runtime.doctor import examine

    findings = asyncio.run(examine(arguments.config))
    if arguments.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        width = max(len(finding.what) for finding in findings)
        for finding in findings:
            print(f"  {'ok' if finding.ok else 'NO':3} {finding.what:{width}}  {finding.detail}")
    return 0 if all(finding.ok for finding in findings) else EXIT_FAILED


def _test(arguments: argparse.Namespace) -> int:
    from agent_runtime.evals import hold, junit

    config = arguments.config
    suite = Path(arguments.conversations or config.with_name("conversations.yaml"))
    tape = "record" if arguments.record else "replay" if arguments.replay else None
    outcomes = asyncio.run(hold(config, suite, tape))
    if arguments.junit:
        Path(arguments.junit).write_text(junit(config.stem, outcomes), encoding="utf-8")
    return EXIT_FAILED if any(outcome.complaints for outcome in outcomes) else 0


def _agents(arguments: argparse.Namespace) -> int:
    from agent_runtime.agents_command import show_agents

    chosen: Any = {name: getattr(arguments, name) for name in _FILTERS if getattr(arguments, name)}
    return show_agents(arguments.discovery_url, chosen, arguments.mode or "once", os.environ)


def _up(arguments: argparse.Namespace) -> int:
    from agent_runtime.local_stack import LocalStack

    stack = LocalStack(arguments.agents, port=arguments.port, model=arguments.model, install=arguments.install)
    return asyncio.run(stack.run())


def _discovery(arguments: argparse.Namespace) -> NoReturn:
    # The registry is a service of its own: it takes this process over rather than being imported into the runtime.
    os.execv(sys.executable, [sys.executable, "-m", "discovery", *arguments.arguments])
