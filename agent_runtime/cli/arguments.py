"""The options and arguments of the commands: each is declared once, as an annotated type."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from agent_runtime.errors import ConfigError, Problem


def agent_file(argument: Path | None, option: Path | None) -> Path:
    """The agent file that a command line names, `agent.yaml` by default; a folder means the `agent.yaml` in it.

    Raises:
        ConfigError: it is given both as an argument and with `--config`.
    """
    if argument is not None and option is not None:
        message = f"the agent file is given twice: {argument} as an argument and {option} with --config"
        raise ConfigError("myagent", [Problem(message)])
    path = argument or option or Path("agent.yaml")
    return path / "agent.yaml" if (path / "agent.yaml").is_file() else path


def is_agent_file(text: str) -> bool:
    """Whether a word on the command line of `chat` names an agent file; otherwise it is a message."""
    return Path(text).suffix in {".yaml", ".yml"} or (len(text) < 256 and (Path(text) / "agent.yaml").is_file())


def _show_version(is_asked: bool) -> None:
    if is_asked:
        from agent_runtime import __version__

        print(f"myagent {__version__}")
        raise typer.Exit


# --- the agent file

AgentFileArgument = Annotated[
    Path | None,
    typer.Argument(metavar="FILE", help="The agent file, or its folder  [default: agent.yaml]", show_default=False),
]
AgentFilesArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="FILE", help="The agent file, or a folder of agents  [default: agent.yaml]", show_default=False
    ),
]
ConfigOption = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="The same as FILE")]

ChatFileArgument = Annotated[
    str | None,
    typer.Argument(metavar="FILE", help="The agent file, or its folder  [default: agent.yaml]", show_default=False),
]
MessageArgument = Annotated[
    str | None,
    typer.Argument(metavar="MESSAGE", help="A message to answer; without it, a conversation", show_default=False),
]
SessionOption = Annotated[
    str, typer.Option("--session", metavar="ID", help="The session of a stateful agent to continue")
]
NewNameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="Lower-case letters, digits and hyphens; also the name of the folder")
]

# --- output

VersionOption = Annotated[
    bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the installed version and exit")
]

JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON")]
LogLevelOption = Annotated[
    Literal["debug", "info", "warning", "error"], typer.Option("--log-level", help="The least severe level to log")
]
LogFormatOption = Annotated[
    Literal["text", "json"], typer.Option("--log-format", help="Use json for one object per line")
]

# --- run

HostOption = Annotated[
    str | None, typer.Option("--host", metavar="HOST", help="The address to listen on (server.host)")
]
PortOption = Annotated[
    int | None, typer.Option("--port", metavar="PORT", help="The port to listen on, 0 for a free one (server.port)")
]
ServiceUrlOption = Annotated[
    str | None,
    typer.Option("--service-url", metavar="URL", help="The address for other services (MYAGENT_SERVICE_URL)"),
]
PublicUrlOption = Annotated[
    str | None, typer.Option("--public-url", metavar="URL", help="The address for browsers (MYAGENT_PUBLIC_URL)")
]
TlsCertificateOption = Annotated[
    str | None,
    typer.Option(
        "--tls-certificate", metavar="FILE", help="Serve HTTPS with this certificate (server.tls.certificate)"
    ),
]
TlsKeyOption = Annotated[
    str | None, typer.Option("--tls-key", metavar="FILE", help="The private key of the certificate (server.tls.key)")
]
TlsClientCaOption = Annotated[
    str | None,
    typer.Option(
        "--tls-client-ca",
        metavar="FILE",
        help="Require client certificates issued by these authorities (server.tls.client_ca)",
    ),
]
ReloadOption = Annotated[
    bool, typer.Option("--reload", help="Reload an agent when its file or the code of its tools changes")
]
AllowAnonymousOption = Annotated[
    bool, typer.Option("--allow-anonymous", help="Listen on other addresses than loopback without requiring a key")
]

# --- the registry

RunDiscoveryUrlOption = Annotated[
    str | None, typer.Option("--discovery-url", metavar="URL", help="The registry (MYAGENT_DISCOVERY_URL)")
]
DiscoveryUrlOption = Annotated[
    str | None, typer.Option("--discovery-url", "--url", metavar="URL", help="The registry (MYAGENT_DISCOVERY_URL)")
]
StatusFilter = Annotated[
    list[str] | None,
    typer.Option("--status", metavar="X", help="Only up, degraded, draining, registered, stale or down"),
]
TypeFilter = Annotated[list[str] | None, typer.Option("--type", metavar="X", help="Only this agent_type")]
ToolFilter = Annotated[list[str] | None, typer.Option("--tool", metavar="X", help="Only agents with this tool")]
TagFilter = Annotated[list[str] | None, typer.Option("--tag", metavar="X", help="Only agents with this tag")]
OwnerFilter = Annotated[list[str] | None, typer.Option("--owner", metavar="X", help="Only agents of this owner")]
TextFilter = Annotated[
    list[str] | None,
    typer.Option("-q", metavar="X", help="Only agents with these words in name, description, owner, tags or tools"),
]
WatchOption = Annotated[bool, typer.Option("--watch", help="Print the list again whenever it changes, until Ctrl-C")]
RegisteredNameOption = Annotated[
    str | None, typer.Option("--name", metavar="NAME", help="The name; replaces a registered agent of the same name")
]
EndpointOption = Annotated[str | None, typer.Option("--endpoint", metavar="URL", help="The address for other services")]
RegisteredTypeOption = Annotated[
    str | None, typer.Option("--type", metavar="X", help="Its agent_type, such as mcp_server  [default: service]")
]
RegisteredVersionOption = Annotated[
    str | None, typer.Option("--version", metavar="X", help="Its version  [default: unknown]")
]
RegisteredToolsOption = Annotated[
    list[str] | None, typer.Option("--tool", metavar="NAME", help="A tool it offers; may be repeated")
]
DescriptionOption = Annotated[str | None, typer.Option("--description", metavar="TEXT", help="What it does")]
OwnerOption = Annotated[str | None, typer.Option("--owner", metavar="X", help="The team responsible for it")]
RegisteredTagsOption = Annotated[
    list[str] | None, typer.Option("--tag", metavar="X", help="A tag to filter by; may be repeated")
]
InstanceIdOption = Annotated[
    str | None,
    typer.Option("--instance-id", metavar="ID", help="Distinguishes instances of one name  [default: default]"),
]
RegistrationFileOption = Annotated[
    Path | None,
    typer.Option(
        "--file", metavar="FILE", help="YAML or JSON with these and all other fields; options take precedence over it"
    ),
]
TokenFileOption = Annotated[
    Path | None, typer.Option("--token-file", metavar="FILE", help="A file with the token for the registry")
]
HeartbeatOption = Annotated[
    float | None,
    typer.Option("--heartbeat-seconds", metavar="S", help="The time between two heartbeats  [default: 30]"),
]
HealthOption = Annotated[
    str | None, typer.Option("--health", metavar="URL", help="The health address to check before every heartbeat")
]
OnceOption = Annotated[bool, typer.Option("--once", help="Register permanently, without a lease, and exit")]
CommandArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="-- COMMAND", help="Run this command and stay registered while it runs", show_default=False),
]

# --- evals and policies

ConversationsOption = Annotated[
    Path | None,
    typer.Option(
        "--conversations",
        metavar="FILE",
        help="The conversations  [default: conversations.yaml beside the agent file]",
    ),
]
JunitOption = Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Write the results as JUnit XML")]
RecordOption = Annotated[bool, typer.Option("--record", help="Record the model's replies in conversations.jsonl")]
ReplayOption = Annotated[
    bool, typer.Option("--replay", help="Replay conversations.jsonl instead of asking a model; needs no key")
]
RegionOption = Annotated[
    str, typer.Option("--region", metavar="REGION", help="The AWS region of the secrets; * for any")
]
AccountOption = Annotated[
    str, typer.Option("--account", metavar="ID", help="The AWS account of the secrets; * for any")
]
KmsKeyOption = Annotated[
    list[str] | None,
    typer.Option("--kms-key", metavar="ARN", help="A customer managed key of the secrets; may be repeated"),
]

# --- the local stack

FoldersArgument = Annotated[
    list[Path] | None,
    typer.Argument(metavar="FOLDER", help="Agent folders  [default: the shipped examples]", show_default=False),
]
HubModelOption = Annotated[
    str | None,
    typer.Option("--model", metavar="HUB-ID", help="A GGUF model to download once: owner/repo or owner/repo:file.gguf"),
]
RegistryPortOption = Annotated[int, typer.Option("--port", metavar="PORT", help="The port of the registry and portal")]
InstallOption = Annotated[
    str | None,
    typer.Option("--install", metavar="COMMAND", help="A command that installs the extras that some agents need"),
]
DiscoveryArguments = Annotated[list[str] | None, typer.Argument(metavar="[ARGUMENTS]", show_default=False)]

# --- descriptions; after a line with \b the layout is kept

AGENTS_HELP = """\
List the agents of the registry.

A filter given twice matches either value; different filters must all match. MYAGENT_DISCOVERY_TOKEN is the token of the
registry, MYAGENT_DISCOVERY_CA the file of the authorities that issued its certificate. If the registry is not
available, the last list is shown with its age, and the exit status is 1."""
REGISTER_HELP = """\
Register a service that is not written in Python.

The service is registered while this process runs, or while the command after -- runs: it receives the signals of this
process, and its exit status is returned. Ctrl-C and SIGTERM remove the service from the registry.

\b
  myagent register --name billing --endpoint http://10.0.0.7:8080 --health http://127.0.0.1:8080/health
  myagent register --file registration.yaml -- ./billing --port 8080

With --health, the service is registered when that address first answers. From then on, a status below 400 is reported
as up and any other as degraded; without an answer no heartbeat is sent, and the registry shows stale, then down. The
token of the registry is in MYAGENT_DISCOVERY_TOKEN or --token-file."""
UP_HELP = """\
Start a local stack: registry, portal, agents and a model.

Prints the address of the portal, and stops everything on Ctrl-C. The model is the first available of: --model,
OPENAI_API_KEY (with OPENAI_BASE_URL and OPENAI_MODEL), an Ollama on this machine, the small built-in model."""
