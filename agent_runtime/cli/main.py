"""The `myagent` command: its commands, error messages and exit statuses.

A command imports what it needs when it runs, so that `myagent --help` stays quick.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer import Argument, Option

from agent_runtime import cli
from agent_runtime.errors import ConfigError, MyAgentError

app = typer.Typer(
    name="myagent",
    help="Run agents that are defined by one YAML file each.",
    epilog="Use `myagent new NAME` to create an agent, and `myagent COMMAND --help` for details of a command.",
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,  # rich takes longer to import than everything else that --help needs
    pretty_exceptions_enable=False,
)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run a command line. Exits with 0 for success, 2 for an invalid file or command line, 1 for any other failure."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # pyright: ignore
    try:
        status = typer.main.get_command(app).main(argv, prog_name="myagent", standalone_mode=False)
        sys.exit(status or 0)
    except typer.TyperException as error:
        context: typer.Context | None = getattr(error, "ctx", None)
        command = context.command_path if context else "myagent"
        _fail(f"{command}: {error.format_message()}\nTry '{command} --help' for help.", error.exit_code)
    except ConfigError as error:
        _fail(str(error), cli.EXIT_USAGE)
    except MyAgentError as error:
        _fail(f"myagent: {error}", cli.EXIT_FAILED)
    except (KeyboardInterrupt, asyncio.CancelledError, typer.Abort):
        sys.exit(cli.EXIT_INTERRUPTED)


def _fail(message: str, status: int) -> NoReturn:
    from agent_runtime.masking import LOG_MASK

    print(LOG_MASK(message), file=sys.stderr)
    sys.exit(status)


@app.callback(invoke_without_command=True)
def prepare(
    context: typer.Context, version: Annotated[bool, Option("--version", help="Show the installed version")] = False
) -> None:
    """Set up the log for the commands that have no log options, or show the version or the help."""
    if version:
        from agent_runtime import __version__

        print(f"myagent {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(cli.EXIT_USAGE)
    if context.invoked_subcommand not in {"run", "register"}:
        from agent_runtime.observability import set_up_logging

        set_up_logging("error", "text")  # a command reports its own result


@app.command()
def run(
    file: cli.FolderArgument = None,
    config: cli.ConfigOption = None,
    host: Annotated[str | None, Option(help="The address to listen on (server.host)")] = None,
    port: Annotated[int | None, Option(help="The port to listen on, 0 for a free one (server.port)")] = None,
    service_url: Annotated[str | None, Option(envvar="MYAGENT_SERVICE_URL", help="The address for services")] = None,
    public_url: Annotated[str | None, Option(envvar="MYAGENT_PUBLIC_URL", help="The address for browsers")] = None,
    discovery_url: Annotated[str | None, Option(envvar="MYAGENT_DISCOVERY_URL", help="The registry")] = None,
    tls_certificate: Annotated[Path | None, Option(help="Serve HTTPS with this certificate")] = None,
    tls_key: Annotated[Path | None, Option(help="The private key of the certificate")] = None,
    tls_client_ca: Annotated[Path | None, Option(help="Require client certificates of these authorities")] = None,
    reload: Annotated[bool, Option("--reload", help="Reload an agent when its file or its tools change")] = False,
    allow_anonymous: Annotated[bool, Option("--allow-anonymous", help="Listen beyond loopback without a key")] = False,
    log_level: cli.LevelOption = "info",
    log_format: cli.FormatOption = "text",
) -> None:
    """Serve an agent or a folder of agents, and register them."""
    from agent_runtime.cli.run import overrides, serve_path
    from agent_runtime.observability import set_up_logging

    path = cli.agent_file(file, config)
    set_up_logging(log_level, log_format)
    server = cli.given(host=host, port=port, service_url=service_url, public_url=public_url)
    tls = cli.given(certificate=tls_certificate, key=tls_key, client_ca=tls_client_ca)
    settings = overrides(server, tls, discovery_url, os.environ)
    serve_path(path, settings, os.environ, reload=reload, allow_anonymous=allow_anonymous)


@app.command()
def chat(
    file: Annotated[str | None, Argument(metavar="FILE", help="The agent file  [default: agent.yaml]")] = None,
    message: Annotated[str | None, Argument(metavar="MESSAGE", help="One message; else a conversation")] = None,
    config: cli.ConfigOption = None,
    session: Annotated[str, Option(help="The session of a stateful agent to continue")] = "terminal",
) -> None:
    """Talk to an agent in the terminal and see its steps."""
    from agent_runtime.cli.run import converse

    if file is not None and message is None and (config is not None or not cli.is_agent_file(file)):
        file, message = None, file
    converse(cli.agent_file(Path(file) if file else None, config), message, session or "terminal")


@app.command()
def validate(file: cli.FileArgument = None, config: cli.ConfigOption = None, as_json: cli.JsonOption = False) -> int:
    """Check an agent file and show where each value comes from."""
    from agent_runtime.cli.project import show_validity

    return show_validity(cli.agent_file(file, config), as_json=as_json)


@app.command()
def schema() -> None:
    """Print the JSON Schema of the agent file, for editors."""
    from agent_runtime.config import AgentConfig

    print(json.dumps(AgentConfig.model_json_schema(), indent=2))


@app.command()
def new(name: Annotated[str, Argument(metavar="NAME", help="Lower-case letters, digits and hyphens")]) -> None:
    """Create a folder with an agent that works without a key."""
    from agent_runtime.cli.project import create_agent

    create_agent(name, Path.cwd())
    print(f"Created {name}/agent.yaml and {name}/tools.py. Next:")
    print(f"  myagent chat {name}/agent.yaml\n  myagent run {name}/agent.yaml")


@app.command()
def doctor(file: cli.FileArgument = None, config: cli.ConfigOption = None, as_json: cli.JsonOption = False) -> int:
    """Check that everything an agent file needs is available."""
    from agent_runtime.cli.project import show_findings

    return show_findings(cli.agent_file(file, config), as_json=as_json)


@app.command("iam-policy")
def iam_policy(
    file: cli.FolderArgument = None,
    config: cli.ConfigOption = None,
    region: Annotated[str, Option(help="The AWS region of the secrets; * for any")] = "*",
    account: Annotated[str, Option(help="The AWS account of the secrets; * for any")] = "*",
    kms_key: Annotated[list[str] | None, Option(metavar="ARN", help="A customer managed key; repeatable")] = None,
) -> None:
    """Print the AWS policy that an agent file or a folder needs."""
    from agent_runtime.secrets import policy_for
    from agent_runtime.server.host import agent_files

    path = cli.agent_file(file, config)
    files = agent_files(path) if path.is_dir() else [path]
    policy = policy_for(files, region=region, account=account, kms_keys=kms_key or [])
    print(json.dumps(policy, indent=2))
    if not policy["Statement"]:
        print(f"{path} refers to no secret, so the agent needs no permission", file=sys.stderr)


@app.command("test")
def run_conversations(
    file: cli.FileArgument = None,
    config: cli.ConfigOption = None,
    conversations: Annotated[Path | None, Option(help="The suite  [default: conversations.yaml beside FILE]")] = None,
    junit: Annotated[Path | None, Option(help="Write the results as JUnit XML")] = None,
    record: Annotated[bool, Option("--record", help="Record the model's replies in conversations.jsonl")] = False,
    replay: Annotated[bool, Option("--replay", help="Answer from conversations.jsonl, without a model")] = False,
) -> int:
    """Run the conversations beside an agent file and check them."""
    from agent_runtime.cli.evals import run_tests

    cli.exclude("myagent test", {"--record": record, "--replay": replay})
    path = cli.agent_file(file, config)
    suite = conversations or path.with_name("conversations.yaml")
    return run_tests(path, suite, recording="record" if record else "replay" if replay else None, junit=junit)


@app.command()
def agents(
    discovery_url: cli.RegistryOption = cli.DEFAULT_REGISTRY,
    status: Annotated[list[str] | None, Option(metavar="X", help="Only with this status, such as up or stale")] = None,
    agent_type: Annotated[list[str] | None, Option("--type", metavar="X", help="Only this agent_type")] = None,
    tool: Annotated[list[str] | None, Option(metavar="X", help="Only agents with this tool")] = None,
    tag: Annotated[list[str] | None, Option(metavar="X", help="Only agents with this tag")] = None,
    owner: Annotated[list[str] | None, Option(metavar="X", help="Only agents of this owner")] = None,
    text: Annotated[
        list[str] | None,
        Option("-q", metavar="X", help="Only agents with these words in name, description, owner, tags or tools"),
    ] = None,
    as_json: cli.JsonOption = False,
    watch: Annotated[bool, Option("--watch", help="Print the list again whenever it changes, until Ctrl-C")] = False,
) -> None:
    """List the agents of the registry.

    A filter given twice matches either value; different filters must all match. MYAGENT_DISCOVERY_TOKEN is the token of
    the registry, MYAGENT_DISCOVERY_CA the file of the authorities that issued its certificate. If the registry is not
    available, the last list is shown with its age, and the exit status is 1.
    """
    from agent_runtime.cli.agents import show_agents

    cli.exclude("myagent agents", {"--json": as_json, "--watch": watch})
    filters: Any = cli.given(status=status, type=agent_type, tool=tool, tag=tag, owner=owner, q=text)
    show_agents(discovery_url, filters, "json" if as_json else "watch" if watch else "once", os.environ)


@app.command(
    options_metavar="[OPTIONS] [-- COMMAND]",
    context_settings={"allow_extra_args": True},
    epilog="""\b
Examples:
  myagent register --name billing --endpoint http://10.0.0.7:8080 --health http://127.0.0.1:8080/health
  myagent register --file registration.yaml -- ./billing --port 8080""",
)
def register(
    context: typer.Context,
    name: Annotated[str | None, Option(help="The name; replaces a registered agent of the same name")] = None,
    endpoint: Annotated[str | None, Option(help="The address for other services")] = None,
    agent_type: Annotated[str | None, Option("--type", help="Such as mcp_server  [default: service]")] = None,
    version: Annotated[str | None, Option(help="Its version  [default: unknown]")] = None,
    tools: Annotated[list[str] | None, Option("--tool", metavar="NAME", help="A tool; repeatable")] = None,
    description: Annotated[str | None, Option(help="What it does")] = None,
    owner: Annotated[str | None, Option(help="The team responsible for it")] = None,
    tags: Annotated[list[str] | None, Option("--tag", metavar="TAG", help="A tag; repeatable")] = None,
    instance_id: Annotated[str | None, Option(help="One of several of this name  [default: default]")] = None,
    file: Annotated[Path | None, Option(help="YAML or JSON with these and all other fields; flags win")] = None,
    discovery_url: cli.RegistryOption = cli.DEFAULT_REGISTRY,
    token_file: Annotated[Path | None, Option(help="A file with the token for the registry")] = None,
    heartbeat_seconds: Annotated[float | None, Option(help="The time between two heartbeats  [default: 30]")] = None,
    health: Annotated[str | None, Option(help="The health address to check before every heartbeat")] = None,
    once: Annotated[bool, Option("--once", help="Register permanently, without a lease, and exit")] = False,
    log_level: cli.LevelOption = "info",
    log_format: cli.FormatOption = "text",
) -> int:
    """Register a service that is not written in Python.

    The service is registered while this process runs, or while the command after -- runs: it receives the signals of
    this process, and its exit status is returned. Ctrl-C and SIGTERM remove the service from the registry.

    With --health, the service is registered when that address first answers. From then on, a status below 400 is
    reported as up and any other as degraded; without an answer no heartbeat is sent, and the registry shows stale, then
    down. The token of the registry is in MYAGENT_DISCOVERY_TOKEN or --token-file.
    """
    from agent_runtime.cli.register import FLAGS, register_service
    from agent_runtime.observability import set_up_logging

    set_up_logging(log_level, log_format)
    return register_service(
        {field: value for field in FLAGS if (value := context.params[field]) or value == ""},
        context.args,
        file=file,
        url=discovery_url,
        token_file=token_file,
        heartbeat_seconds=heartbeat_seconds,
        health=health,
        once=once,
        environment=os.environ,
    )


@app.command()
def up(
    agents: Annotated[list[Path] | None, Argument(metavar="FOLDER", help="Agents  [default: the examples]")] = None,
    model: Annotated[str | None, Option(help="A GGUF model of the hub: owner/repo or owner/repo:file.gguf")] = None,
    port: Annotated[int, Option(help="The port of the registry and portal")] = 9000,
    install: Annotated[str | None, Option(help="A command that installs the extras that some agents need")] = None,
) -> None:
    """Start a local stack: registry, portal, agents and a model.

    Prints the address of the portal, and stops everything on Ctrl-C. The model is the first available of: --model,
    OPENAI_API_KEY (with OPENAI_BASE_URL and OPENAI_MODEL), an Ollama on this machine, the small built-in model.
    """
    from agent_runtime.cli.stack import LocalStack

    asyncio.run(LocalStack(agents or [], port=port, model=model, install=install).run())


@app.command(
    add_help_option=False,  # --help is the registry's own
    options_metavar="[ARGUMENTS]",
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
def discovery(context: typer.Context) -> NoReturn:
    """Start the registry; the same as myagent-discovery."""
    # The registry is a service of its own: it replaces this process rather than being imported into the runtime.
    os.execv(sys.executable, [sys.executable, "-m", "discovery", *context.args])
