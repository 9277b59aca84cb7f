"""The command line as a person types it: every command with its flags and what they are for."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from agent_runtime import __version__

FILTERS = {
    "status": "up, degraded, draining, registered, stale or down",
    "type": "its agent_type",
    "tool": "has this tool",
    "tag": "has this tag",
    "owner": "its owner",
    "q": "words that occur in its name, description, owner, tags or tools",
}
TLS = {
    "certificate": "answer over https with this certificate",
    "key": "its private key",
    "client_ca": "ask callers for a certificate of these authorities",
}
_EPILOG = "To begin: `myagent new NAME` makes an agent. `myagent COMMAND --help` says more of each."
_AGENTS = """\
What the registry knows. A filter given twice takes either value; different filters must all hold. The registry's token
is MYAGENT_DISCOVERY_TOKEN, the authorities that its certificate is checked against MYAGENT_DISCOVERY_CA. While the
registry is away its last list is shown with its age; the exit status is 1."""
_REGISTER = """\
Keeps an entry in the registry for something that is not written in Python: while this process runs, or while the
command behind -- runs, which gets its signals and gives its exit status. Ctrl-C and SIGTERM take the entry out.

  myagent register --name billing --endpoint http://10.0.0.7:8080 --health http://127.0.0.1:8080/health
  myagent register --file registration.yaml -- ./billing --port 8080

With --health the entry appears when that address first answers; then an answer below 400 is reported as up, any other
as degraded, and while nothing answers there is no heartbeat: the registry shows stale, and then down.
The registry's token is MYAGENT_DISCOVERY_TOKEN, or in --token-file."""
_UP = """\
Starts the registry with its portal and the example agents, prints the portal's address, and stops all of it on Ctrl-C.
The model is the first of: --model, OPENAI_API_KEY (with OPENAI_BASE_URL and OPENAI_MODEL), an Ollama that answers on
this machine, the built-in small one."""


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; `command` of what it returns is the name of the command."""
    parser = argparse.ArgumentParser(
        prog="myagent", description="Run agents that are one YAML file each.", epilog=_EPILOG
    )
    parser.add_argument("--version", action="version", version=f"myagent {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_use_commands(commands)
    _add_author_commands(commands)
    _add_stack_commands(commands)
    return parser


def _add_use_commands(commands: Any) -> None:
    run = _command(commands, "run", "serve an agent, or a folder of them, and announce it to discovery")
    run.add_argument("--host", help="address to listen on (server.host)")
    run.add_argument("--port", type=int, help="port to listen on, 0 for a free one (server.port)")
    run.add_argument("--service-url", help="address that other services reach it at (MYAGENT_SERVICE_URL)")
    run.add_argument("--public-url", help="address that browsers reach it at (MYAGENT_PUBLIC_URL)")
    run.add_argument("--discovery-url", help="the registry (MYAGENT_DISCOVERY_URL)")
    for name, what in TLS.items():
        run.add_argument(f"--tls-{name.replace('_', '-')}", metavar="FILE", help=f"{what} (server.tls.{name})")
    run.add_argument("--reload", action="store_true", help="swap an agent in when its file or its tools are edited")
    run.add_argument(
        "--allow-anonymous", action="store_true", help="listen beyond loopback although nobody needs a key"
    )
    _add_log_flags(run)

    chat = _command(commands, "chat", "talk to an agent in the terminal and see its steps")
    chat.add_argument("message", nargs="?", help="one message; without it, a conversation")
    chat.add_argument("--session", metavar="ID", help="go on with this session of a stateful agent")


def _add_author_commands(commands: Any) -> None:
    validate = _command(commands, "validate", "check an agent file and say where each value comes from")
    validate.add_argument("--json", action="store_true", help="print the result as JSON")

    schema = commands.add_parser("schema", help="print the JSON Schema of the agent file, for editors")
    schema.set_defaults(command="schema")

    new = commands.add_parser("new", help="make a folder with an agent that runs at once")
    new.set_defaults(command="new")
    new.add_argument("name", help="lower-case letters, digits and hyphens; also the folder's name")

    doctor = _command(commands, "doctor", "say what an agent file needs and whether it is there")
    doctor.add_argument("--json", action="store_true", help="print the result as JSON")

    policy = _command(commands, "iam-policy", "print the AWS policy that an agent file, or a folder of them, needs")
    policy.add_argument("--region", default="*", help="of the Secrets Manager (any)")
    policy.add_argument("--account", default="*", help="the number of the AWS account (any)")
    policy.add_argument(
        "--kms-key", action="append", default=[], metavar="ARN", help="a customer managed key of the secrets, if any"
    )

    test = _command(commands, "test", "hold the conversations beside an agent file and check what comes of them")
    test.add_argument("--conversations", metavar="FILE", help="the suite (conversations.yaml beside the agent file)")
    test.add_argument("--junit", metavar="FILE", help="write the outcome as JUnit XML")
    tape = test.add_mutually_exclusive_group()
    tape.add_argument("--record", action="store_true", help="keep the model's replies in conversations.jsonl")
    tape.add_argument("--replay", action="store_true", help="answer from conversations.jsonl: no model, no key")


def _add_stack_commands(commands: Any) -> None:
    agents = commands.add_parser("agents", help="what the registry knows", description=_AGENTS)
    agents.set_defaults(command="agents")
    agents.add_argument("--discovery-url", "--url", metavar="URL", help="the registry (MYAGENT_DISCOVERY_URL)")
    for name, values in FILTERS.items():
        agents.add_argument(f"-{name}" if name == "q" else f"--{name}", action="append", metavar="X", help=values)
    mode = agents.add_mutually_exclusive_group()
    mode.add_argument("--json", dest="mode", action="store_const", const="json", help="print the array")
    mode.add_argument(
        "--watch", dest="mode", action="store_const", const="watch", help="again when it changes, until Ctrl-C"
    )

    _add_register(commands)

    up = commands.add_parser(
        "up",
        help="a whole local stack: registry, portal, example agents, a model",
        description=_UP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    up.set_defaults(command="up")
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
    discovery.set_defaults(command="discovery")
    discovery.add_argument("arguments", nargs=argparse.REMAINDER)


def _add_register(commands: Any) -> None:
    register = commands.add_parser(
        "register",
        help="keep something that is not Python in the registry",
        description=_REGISTER,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    register.set_defaults(command="register")
    register.add_argument("--name", help="what it is called; an agent of that name is replaced")
    register.add_argument("--endpoint", metavar="URL", help="where services reach it")
    register.add_argument("--type", dest="agent_type", metavar="X", help="what it is, such as mcp_server (service)")
    register.add_argument("--version", metavar="X", help="its version (unknown)")
    register.add_argument("--tool", dest="tools", action="append", metavar="NAME", help="something it can do")
    register.add_argument("--description", metavar="TEXT", help="what it is for")
    register.add_argument("--owner", metavar="X", help="the team that answers for it")
    register.add_argument("--tag", dest="tags", action="append", metavar="X", help="a word to find it by")
    register.add_argument("--instance-id", metavar="ID", help="which of several that share the name (default)")
    register.add_argument(
        "--file", type=Path, help="YAML or JSON with these and all other fields, tool schemas too; flags win over it"
    )
    register.add_argument("--discovery-url", "--url", metavar="URL", help="the registry (MYAGENT_DISCOVERY_URL)")
    register.add_argument("--token-file", type=Path, metavar="FILE", help="holds the registry's token")
    register.add_argument("--heartbeat-seconds", type=float, metavar="S", help="how often it is renewed (30)")
    register.add_argument("--health", metavar="URL", help="asked at every heartbeat how the thing is")
    register.add_argument("--once", action="store_true", help="register for ever, without a lease, and end")
    _add_log_flags(register)
    register.add_argument("argv", nargs="*", metavar="-- COMMAND", help="run this, and keep the entry while it runs")


def _add_log_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    parser.add_argument("--log-format", default="text", choices=["text", "json"], help="json: one object a line")


def _agent_file(text: str) -> Path:
    """The path that was given, or the agent.yaml in it."""
    path = Path(text)
    return path / "agent.yaml" if (path / "agent.yaml").is_file() else path


def _command(commands: Any, name: str, summary: str) -> argparse.ArgumentParser:
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
    parser.set_defaults(command=name)
    return parser
