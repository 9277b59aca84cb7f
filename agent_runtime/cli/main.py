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
from typing import Any, NoReturn

import typer

from agent_runtime.cli import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE
from agent_runtime.cli import arguments as args
from agent_runtime.errors import ConfigError, MyAgentError, Problem

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
        _fail(str(error), EXIT_USAGE)
    except MyAgentError as error:
        _fail(f"myagent: {error}", EXIT_FAILED)
    except (KeyboardInterrupt, asyncio.CancelledError, typer.Abort):
        sys.exit(EXIT_INTERRUPTED)


def _fail(message: str, status: int) -> NoReturn:
    from agent_runtime.masking import LOG_MASK

    print(LOG_MASK(message), file=sys.stderr)
    sys.exit(status)


@app.callback(invoke_without_command=True)
def prepare(
    context: typer.Context,
    version: args.VersionOption = False,
) -> None:
    """Set up the log for the commands that have no log options, or show the help if there is no command."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(EXIT_USAGE)
    if context.invoked_subcommand not in {"run", "register"}:
        from agent_runtime.observability import set_up_logging

        set_up_logging("warning", "text")


@app.command()
def run(
    file: args.AgentFilesArgument = None,
    config: args.ConfigOption = None,
    host: args.HostOption = None,
    port: args.PortOption = None,
    service_url: args.ServiceUrlOption = None,
    public_url: args.PublicUrlOption = None,
    discovery_url: args.RunDiscoveryUrlOption = None,
    tls_certificate: args.TlsCertificateOption = None,
    tls_key: args.TlsKeyOption = None,
    tls_client_ca: args.TlsClientCaOption = None,
    reload: args.ReloadOption = False,
    allow_anonymous: args.AllowAnonymousOption = False,
    log_level: args.LogLevelOption = "info",
    log_format: args.LogFormatOption = "text",
) -> None:
    """Serve an agent or a folder of agents, and register them."""
    from agent_runtime.cli.run import overrides, serve_path
    from agent_runtime.observability import set_up_logging

    path = args.agent_file(file, config)
    set_up_logging(log_level, log_format)
    settings = overrides(
        os.environ,
        tls={"certificate": tls_certificate, "key": tls_key, "client_ca": tls_client_ca},
        host=host,
        port=port,
        service_url=service_url,
        public_url=public_url,
        discovery_url=discovery_url,
    )
    serve_path(path, settings, os.environ, reload=reload, allow_anonymous=allow_anonymous)


@app.command()
def chat(
    file: args.ChatFileArgument = None,
    message: args.MessageArgument = None,
    config: args.ConfigOption = None,
    session: args.SessionOption = "terminal",
) -> None:
    """Talk to an agent in the terminal and see its steps."""
    from agent_runtime.cli.terminal import converse

    if file is not None and message is None and (config is not None or not args.is_agent_file(file)):
        file, message = None, file
    converse(args.agent_file(Path(file) if file else None, config), message, session or "terminal")


@app.command()
def validate(
    file: args.AgentFileArgument = None, config: args.ConfigOption = None, as_json: args.JsonOption = False
) -> int:
    """Check an agent file and show where each value comes from."""
    from agent_runtime.cli.doctor import show_validity

    return show_validity(args.agent_file(file, config), as_json=as_json)


@app.command()
def schema() -> None:
    """Print the JSON Schema of the agent file, for editors."""
    from agent_runtime.config import AgentConfig

    print(json.dumps(AgentConfig.model_json_schema(), indent=2))


@app.command()
def new(name: args.NewNameArgument) -> None:
    """Create a folder with an agent that works without a key."""
    from agent_runtime.cli.scaffold import create_agent

    folder = create_agent(name, Path.cwd())
    print(f"Created {folder.name}/agent.yaml and {folder.name}/tools.py. Next:")
    print(f"  myagent chat {folder.name}/agent.yaml")
    print(f"  myagent run {folder.name}/agent.yaml")


@app.command()
def doctor(
    file: args.AgentFileArgument = None, config: args.ConfigOption = None, as_json: args.JsonOption = False
) -> int:
    """Check that everything an agent file needs is available."""
    from agent_runtime.cli.doctor import show_findings

    return show_findings(args.agent_file(file, config), as_json=as_json)


@app.command("iam-policy")
def iam_policy(
    file: args.AgentFilesArgument = None,
    config: args.ConfigOption = None,
    region: args.RegionOption = "*",
    account: args.AccountOption = "*",
    kms_key: args.KmsKeyOption = None,
) -> None:
    """Print the AWS policy that an agent file or a folder needs."""
    from agent_runtime.secrets import policy_for
    from agent_runtime.server.host import agent_files

    path = args.agent_file(file, config)
    files = agent_files(path) if path.is_dir() else [path]
    policy = policy_for(files, region=region, account=account, kms_keys=kms_key or [])
    print(json.dumps(policy, indent=2))
    if not policy["Statement"]:
        print(f"{path} refers to no secret, so the agent needs no permission", file=sys.stderr)


@app.command("test")
def run_conversations(
    file: args.AgentFileArgument = None,
    config: args.ConfigOption = None,
    conversations: args.ConversationsOption = None,
    junit: args.JunitOption = None,
    record: args.RecordOption = False,
    replay: args.ReplayOption = False,
) -> int:
    """Run the conversations beside an agent file and check them."""
    from agent_runtime.cli.evals import run_tests

    if record and replay:
        raise ConfigError("myagent test", [Problem("cannot be combined with --record", "--replay")])
    path = args.agent_file(file, config)
    suite = conversations or path.with_name("conversations.yaml")
    return run_tests(path, suite, recording="record" if record else "replay" if replay else None, junit=junit)


@app.command(help=args.AGENTS_HELP, short_help="List the agents of the registry.")
def agents(
    discovery_url: args.DiscoveryUrlOption = None,
    status: args.StatusFilter = None,
    agent_type: args.TypeFilter = None,
    tool: args.ToolFilter = None,
    tag: args.TagFilter = None,
    owner: args.OwnerFilter = None,
    text: args.TextFilter = None,
    as_json: args.JsonOption = False,
    watch: args.WatchOption = False,
) -> int:
    """List the agents of the registry."""
    from agent_runtime.cli.agents import show_agents

    if as_json and watch:
        raise ConfigError("myagent agents", [Problem("cannot be combined with --json", "--watch")])
    filters = {"status": status, "type": agent_type, "tool": tool, "tag": tag, "owner": owner, "q": text}
    chosen: Any = {name: values for name, values in filters.items() if values}
    return show_agents(discovery_url, chosen, "json" if as_json else "watch" if watch else "once", os.environ)


@app.command(help=args.REGISTER_HELP, short_help="Register a service that is not written in Python.")
def register(
    name: args.RegisteredNameOption = None,
    endpoint: args.EndpointOption = None,
    agent_type: args.RegisteredTypeOption = None,
    version: args.RegisteredVersionOption = None,
    tools: args.RegisteredToolsOption = None,
    description: args.DescriptionOption = None,
    owner: args.OwnerOption = None,
    tags: args.RegisteredTagsOption = None,
    instance_id: args.InstanceIdOption = None,
    file: args.RegistrationFileOption = None,
    discovery_url: args.DiscoveryUrlOption = None,
    token_file: args.TokenFileOption = None,
    heartbeat_seconds: args.HeartbeatOption = None,
    health: args.HealthOption = None,
    once: args.OnceOption = False,
    log_level: args.LogLevelOption = "info",
    log_format: args.LogFormatOption = "text",
    command: args.CommandArgument = None,
) -> int:
    """Register a service that is not written in Python."""
    from agent_runtime.cli.register import register_service
    from agent_runtime.observability import set_up_logging

    set_up_logging(log_level, log_format)
    fields = {
        "name": name,
        "endpoint": endpoint,
        "agent_type": agent_type,
        "version": version,
        "tools": tools,
        "description": description,
        "owner": owner,
        "tags": tags,
        "instance_id": instance_id,
    }
    return register_service(
        {field: value for field, value in fields.items() if value or value == ""},
        command or [],
        file=file,
        url=discovery_url,
        token_file=token_file,
        heartbeat_seconds=heartbeat_seconds,
        health=health,
        once=once,
        environment=os.environ,
    )


@app.command(help=args.UP_HELP, short_help="Start a local stack: registry, portal, agents and a model.")
def up(
    agents: args.FoldersArgument = None,
    model: args.HubModelOption = None,
    port: args.RegistryPortOption = 9000,
    install: args.InstallOption = None,
) -> int:
    """Start a local stack: registry, portal, agents and a model."""
    from agent_runtime.cli.stack import LocalStack

    return asyncio.run(LocalStack(agents or [], port=port, model=model, install=install).run())


@app.command(
    add_help_option=False,  # --help is the registry's own
    context_settings={"ignore_unknown_options": True},
    short_help="Start the registry; the same as myagent-discovery.",
)
def discovery(arguments: args.DiscoveryArguments = None) -> NoReturn:
    """Start the registry; the same as myagent-discovery."""
    # The registry is a service of its own: it replaces this process rather than being imported into the runtime.
    os.execv(sys.executable, [sys.executable, "-m", "discovery", *(arguments or [])])
