"""The command line. Its commands share these exit statuses, options and arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Argument, Option

from agent_runtime.errors import ConfigError, Problem

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130
DEFAULT_REGISTRY = "http://127.0.0.1:9000"

FileArgument = Annotated[
    Path | None, Argument(metavar="FILE", help="The agent file, or its folder  [default: agent.yaml]")
]
FolderArgument = Annotated[
    Path | None, Argument(metavar="FILE", help="The agent file, or a folder of agents  [default: agent.yaml]")
]
ConfigOption = Annotated[Path | None, Option("--config", help="The same as FILE")]
JsonOption = Annotated[bool, Option("--json", help="Print the result as JSON")]
LevelOption = Annotated[Literal["debug", "info", "warning", "error"], Option(help="The least severe level to log")]
FormatOption = Annotated[Literal["text", "json"], Option(help="Use json for one object per line")]
RegistryOption = Annotated[
    str, Option("--discovery-url", "--url", envvar="MYAGENT_DISCOVERY_URL", help="The address of the registry")
]


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


def exclude(command: str, flags: dict[str, bool]) -> None:
    """Raise `ConfigError` if two of the flags are given."""
    given = [flag for flag, is_given in flags.items() if is_given]
    if len(given) > 1:
        raise ConfigError(command, [Problem(f"cannot be combined with {given[0]}", given[1])])


def given(**values: Any) -> dict[str, Any]:
    """The values that are set."""
    return {key: value for key, value in values.items() if value not in (None, "", [], {})}
