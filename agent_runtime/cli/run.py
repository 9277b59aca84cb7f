"""`myagent run`: settings from flags and variables, and the agents of a file or a folder."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent_runtime.agent_file import AgentFile, load
from agent_runtime.errors import ConfigError, Problem
from agent_runtime.masking import LOG_MASK
from agent_runtime.observability import process_telemetry
from agent_runtime.server.host import agent_files
from agent_runtime.server.serve import run, serve
from agent_runtime.tls import DISCOVERY_FILES

Overrides = dict[str, dict[str, Any]]
"""Settings that replace those of an agent file, by section."""


def serve_path(
    path: Path, overrides: Overrides, environment: Mapping[str, str], *, reload: bool, allow_anonymous: bool
) -> None:
    """Serve an agent file, or the agents of a folder on one port, until SIGINT or SIGTERM."""
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
    files: list[AgentFile] = []
    for path in await asyncio.to_thread(agent_files, folder):
        try:
            files.append(await load(path, overrides=overrides))
        except ConfigError as error:
            print(LOG_MASK(f"{error}\n{path} is skipped"), file=sys.stderr)
    if not files:
        raise ConfigError(str(folder), [Problem("contains no valid agent file: NAME.yaml, or NAME/agent.yaml")])
    return files


def overrides(
    environment: Mapping[str, str], *, tls: Mapping[str, str | None], discovery_url: str | None, **server: Any
) -> Overrides:
    """The settings of flags and variables that were given; a flag takes precedence over its variable."""
    server["service_url"] = server["service_url"] or environment.get("MYAGENT_SERVICE_URL")
    server["public_url"] = server["public_url"] or environment.get("MYAGENT_PUBLIC_URL")
    server["tls"] = {key: _absolute(name) for key, name in tls.items() if name}
    discovery: dict[str, Any] = {"url": discovery_url or environment.get("MYAGENT_DISCOVERY_URL")}
    discovery |= {key: _absolute(environment.get(name)) for key, name in DISCOVERY_FILES.items()}
    sections = {
        section: {key: value for key, value in values.items() if value not in (None, "", {})}
        for section, values in (("server", server), ("discovery", discovery))
    }
    return {section: values for section, values in sections.items() if values}


def _absolute(name: str | None) -> str | None:
    """A path in the shell is relative to the working directory, not to the agent file."""
    return str(Path(name).absolute()) if name else None
