"""`myagent up`: the registry with its portal and some agents as child processes, for a machine without Docker.

Each child is an ordinary command. Ctrl-C and SIGTERM stop them in order; on Linux they also end when this process is
killed.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml
from pydantic import BaseModel, Field, ValidationError

from agent_runtime.errors import StartError

BUILT_IN_HINT = """
  The built-in model is small (135 million parameters): it finds the right tool and arguments for plain questions,
  and little more. For a better one, set OPENAI_API_KEY, start Ollama, or pass --model owner/repo (downloaded once)."""
STATE = Path(".myagent")  # registry, sessions and logs
LOGS = STATE / "logs"
STOP_SECONDS = 10.0


class _Server(BaseModel):
    port: int = 8000


class _AgentFile(BaseModel):
    """What has to be known of an agent before it is started."""

    name: str
    server: _Server = Field(default_factory=_Server)
    tools: list[Any] = Field(default_factory=list[Any])
    mcp_servers: Any = None

    def lacks_vector(self) -> bool:
        """Whether it needs the extra that `--install` can add; any other the agent itself reports."""
        searches = any("context" in tool for tool in self.tools)
        return searches and importlib.util.find_spec("sentence_transformers") is None


class LocalStack:
    """One run of `myagent up`, with the agents of `folders`.

    `agents` are folders with an agent.yaml each, by default the shipped examples. `install` is a command that installs
    missing extras: the agents that need them start after it, all others at once.
    """

    def __init__(self, agents: Sequence[Path], *, port: int, model: str | None, install: str | None) -> None:
        self.folders = list(agents) or _shipped_examples()
        self._port = port
        self._portal = f"http://127.0.0.1:{port}"
        self._hub_id = model
        self._install = install
        self._started = time.monotonic()
        self._children = AsyncExitStack()

    async def run(self) -> None:
        """Start everything, wait for Ctrl-C, and stop everything."""
        files = [folder / "agent.yaml" if folder.is_dir() else folder for folder in self.folders]
        agents = {file: _read_agent(file) for file in files}
        model = await choose_model(self._hub_id, os.environ)
        _clear_state()
        task = asyncio.current_task()
        assert task is not None
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        try:
            async with self._children:
                await self._start_all(agents, model)
        except asyncio.CancelledError:
            self._say("stopped")

    async def _start_all(self, agents: Mapping[Path, _AgentFile], model: ModelChoice) -> None:
        self._say(f"model: {model.label}")
        registry = f"sqlite:///{(STATE / 'registry.db').resolve()}"
        command = [sys.executable, "-m", "discovery", "--port", str(self._port), "--database-url", registry]
        ended = [await self._spawn("discovery", command, {})]
        await self._answering("discovery", f"{self._portal}/readyz", ended[0])
        self._say(f"portal: {self._portal}")
        if self._hub_id:
            await asyncio.to_thread(self._download, self._hub_id)
        is_lacking = any(agent.lacks_vector() for agent in agents.values())
        installed = asyncio.create_task(self._add_vector(self._install if is_lacking else None))
        starts = [asyncio.create_task(self._start_agent(file, agents[file], model, installed)) for file in agents]
        try:
            ended += filter(None, await asyncio.gather(*starts))
        finally:
            for task in (installed, *starts):
                task.cancel()
        print(f"\n  Open {self._portal} and talk to them. Ctrl-C stops everything.", flush=True)
        if model.is_built_in:
            print(BUILT_IN_HINT, flush=True)
        first, _ = await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
        raise StartError(f"{next(iter(first)).get_name()} exited unexpectedly; see {LOGS}")

    async def _start_agent(
        self, file: Path, agent: _AgentFile, model: ModelChoice, installed: asyncio.Task[None]
    ) -> asyncio.Task[int] | None:
        if agent.lacks_vector():
            await asyncio.shield(installed)
            if agent.lacks_vector():
                self._say(f"{agent.name}: skipped, it needs pip install 'myagent[vector]'")
                return None
        self._say(f"{agent.name}: loading")
        variables = {
            **model.environment,
            "MYAGENT_DISCOVERY_URL": self._portal,
            "MYAGENT_PORTAL_ORIGIN": self._portal,
            "MYAGENT_TOOL_ANSWER": "direct" if model.is_built_in else "model",
            "MYAGENT_SESSION_STORE": f"sqlite:///{(STATE / f'{agent.name}.db').resolve()}",
        }
        port = agent.server.port if _is_free(agent.server.port) else 0  # the registry knows the port
        command = [sys.executable, "-m", "agent_runtime", "run", str(file), "--port", str(port)]
        ended = await self._spawn(agent.name, command, variables)
        record: dict[str, Any] = await self._answering(agent.name, f"{self._portal}/agents/{agent.name}", ended)
        await self._answering(agent.name, f"{record['endpoint']}/livez", ended)
        label = "{provider}/{name}".format_map(record["model"]) if record.get("model") else "an unknown model"
        self._say(f"{agent.name}: {record['endpoint']} answers with {label}")
        return ended

    async def _add_vector(self, install: str | None) -> None:
        """Run the install command, if there is one, and report its progress."""
        if not install:
            return
        self._say(f"installing vector in the background; see {LOGS / 'install.log'}")
        ended = await self._spawn("install", ["/bin/sh", "-c", f"{install} vector"], {})
        while not (await asyncio.wait({ended}, timeout=15))[0]:
            self._say(f"installing vector: {_last_line('install')[:80]} …")
        if ended.result() != 0:
            self._say(f"installing vector failed: {_last_line('install')}")
        importlib.invalidate_caches()

    def _download(self, hub_id: str) -> None:
        """Download a model: with a progress bar on a terminal, with a line for every 5 % elsewhere."""
        from rich.progress import DownloadColumn, Progress

        from agent_runtime.local_model.weights import find_weights

        shown = -1.0
        columns = (*Progress.get_default_columns(), DownloadColumn())
        with Progress(*columns, transient=True, disable=not sys.stdout.isatty()) as bar:
            task = bar.add_task(f"downloading {hub_id}", total=None)

            def progress(done: int, total: int) -> None:
                nonlocal shown
                bar.update(task, completed=done, total=total)
                if bar.disable and total and (done == total or done - shown > total / 20):
                    shown = done
                    self._say(f"downloading {hub_id}: {done / 1e6:.0f} of {total / 1e6:.0f} MB")

            find_weights(hub_id, progress=progress)

    async def _spawn(self, name: str, command: Sequence[str], variables: Mapping[str, str]) -> asyncio.Task[int]:
        """Start a child process that writes to its own log; the task returns its exit status."""
        # On Linux the kernel ends the child when this process is killed.
        setpriv = shutil.which("setpriv") if sys.platform == "linux" else None
        with (LOGS / f"{name}.log").open("wb") as log:
            child = await asyncio.create_subprocess_exec(
                *([setpriv, "--pdeathsig", "TERM"] if setpriv else []),
                *command,
                env={**os.environ, **variables},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches this process only, which stops the children in order
            )
        self._children.push_async_callback(stop_child, child)
        return asyncio.create_task(child.wait(), name=name)

    async def _answering(self, name: str, url: str, ended: asyncio.Task[int]) -> Any:
        """Wait for the JSON at a URL; raises `StartError` with the last log line if the process exits first."""
        async with httpx.AsyncClient(timeout=2, trust_env=False) as client:
            while not ended.done():
                try:
                    answer = await client.get(url)
                    if answer.is_success:
                        return answer.json()
                except (httpx.HTTPError, ValueError):
                    pass
                await asyncio.wait({ended}, timeout=0.1)
        raise StartError(f"{name} did not start: {_last_line(name)}")

    def _say(self, text: str) -> None:
        print(f"{time.monotonic() - self._started:6.1f} s  {text}", flush=True)


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """The model of the agents, as the variables that the example files read."""

    label: str
    environment: Mapping[str, str]

    @property
    def is_built_in(self) -> bool:
        """Whether it is the built-in model."""
        return not self.environment


async def choose_model(hub_id: str | None, environment: Mapping[str, str]) -> ModelChoice:
    """The first available of: `--model`, an OpenAI key, an Ollama on this machine, the built-in model."""
    if hub_id:
        return ModelChoice(hub_id, {"MYAGENT_MODEL_PROVIDER": "local", "MYAGENT_MODEL_NAME": hub_id})
    if key := environment.get("OPENAI_API_KEY"):
        endpoint = environment.get("OPENAI_BASE_URL", "")
        return _openai(environment.get("OPENAI_MODEL", "gpt-4o-mini"), endpoint, key, "OPENAI_API_KEY")
    address = environment.get("OLLAMA_HOST") or "127.0.0.1:11434"
    address = address if "://" in address else f"http://{address}"
    if name := await _ollama_model(address):
        return _openai(name, f"{address}/v1", "", f"Ollama at {address}")
    return ModelChoice("the built-in model", {})


def _openai(name: str, endpoint: str, key: str, source: str) -> ModelChoice:
    variables = {
        "MYAGENT_MODEL_PROVIDER": "openai",
        "MYAGENT_MODEL_NAME": name,
        "MYAGENT_MODEL_ENDPOINT": endpoint or "https://api.openai.com/v1",
        "MYAGENT_MODEL_API_KEY": key,
    }
    return ModelChoice(f"{name} ({source})", variables)


async def _ollama_model(address: str) -> str | None:
    try:
        async with httpx.AsyncClient(timeout=1, trust_env=False) as client:
            models = (await client.get(f"{address}/api/tags")).json()["models"]
        return str(models[0]["name"]) if models else None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError):
        return None


def _clear_state() -> None:
    LOGS.mkdir(parents=True, exist_ok=True)
    for file in STATE.glob("registry.db*"):
        file.unlink()  # the agents of the previous run


def _last_line(name: str) -> str:
    lines = (LOGS / f"{name}.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "the log is empty"


async def stop_child(child: asyncio.subprocess.Process) -> None:
    """Terminate a process that is still running, and kill it if it does not exit in time."""
    if child.returncode is not None:
        return
    child.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await child.wait()
    except TimeoutError:
        child.kill()
        await child.wait()


def _shipped_examples() -> list[Path]:
    # In a wheel the examples are inside the package, in a checkout beside it.
    folders = (parent / "examples" for parent in Path(__file__).parents[1:3])
    folder = next((folder for folder in folders if folder.is_dir()), None)
    if folder is None:
        raise StartError("the examples are not installed; use your own agent folders: myagent up FOLDER …")
    # An example with an MCP server needs that server first; its README starts both.
    return [file.parent for file in sorted(folder.glob("*/agent.yaml")) if not _read_agent(file).mcp_servers]


def _read_agent(file: Path) -> _AgentFile:
    try:
        return _AgentFile.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise StartError(f"{file} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValidationError) as error:
        raise StartError(f"{file} is not an agent file; run myagent validate {file} for details") from error


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
