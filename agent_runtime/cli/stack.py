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
from typing import Any, cast

import httpx
import yaml

from agent_runtime.cli.child_process import stop_child
from agent_runtime.errors import StartError

BUILT_IN_HINT = (
    "The built-in model is small (135 million parameters): it finds the right tool and arguments for plain questions,\n"
    "and little more. For a better one, set OPENAI_API_KEY, start Ollama, or pass --model owner/repo (downloaded once)."
)
STATE = Path(".myagent")  # registry, sessions and logs


@dataclass(frozen=True, slots=True)
class _AgentFolder:
    name: str
    file: Path
    port: int
    missing_extra: str | None


class LocalStack:
    """One run of `myagent up`, with the agents of `folders`.

    `agents` are folders with an agent.yaml each, by default the shipped examples. `install` is a command that installs
    missing extras: the agents that need them start after it, all others at once.
    """

    def __init__(self, agents: Sequence[Path], *, port: int, model: str | None, install: str | None) -> None:
        self.folders = list(agents) or _shipped_examples()
        self._port = port
        self._hub_id = model
        self._install = install
        self._started = time.monotonic()
        self._children = AsyncExitStack()
        self._logs = STATE / "logs"

    @property
    def _portal(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def run(self) -> int:
        """Start everything, wait for Ctrl-C, stop everything; returns the exit status."""
        agents = [_agent_folder(folder) for folder in self.folders]
        model = await choose_model(self._hub_id, os.environ)
        self._prepare()
        task = asyncio.current_task()
        assert task is not None
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        try:
            async with self._children:
                await self._start_all(agents, model)
        except asyncio.CancelledError:
            self._say("stopped")
        return 0

    def _prepare(self) -> None:
        self._logs.mkdir(parents=True, exist_ok=True)
        for file in STATE.glob("registry.db*"):
            file.unlink()  # the agents of the previous run

    async def _start_all(self, agents: Sequence[_AgentFolder], model: ModelChoice) -> None:
        self._say(f"model: {model.label}")
        registry = f"sqlite:///{(STATE / 'registry.db').resolve()}"
        command = [sys.executable, "-m", "discovery", "--port", str(self._port), "--database-url", registry]
        ended = [await self._spawn("discovery", command, {})]
        await self._answering("discovery", f"{self._portal}/readyz", ended[0])
        self._say(f"portal: {self._portal}")
        if self._hub_id:
            await asyncio.to_thread(self._download, self._hub_id)
        installed = asyncio.create_task(self._installed(agents))
        starts = [asyncio.create_task(self._start_agent(agent, model, installed)) for agent in agents]
        try:
            children = await asyncio.gather(*starts)
        finally:
            for task in (installed, *starts):
                task.cancel()
        ended += [child for child in children if child]
        print(f"\n  Open {self._portal} and talk to them. Ctrl-C stops everything.", flush=True)
        if model.is_built_in:
            print("\n".join(f"  {line}" for line in BUILT_IN_HINT.splitlines()), flush=True)
        first, _ = await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
        raise StartError(f"{next(iter(first)).get_name()} exited unexpectedly; see {self._logs}")

    async def _start_agent(
        self, agent: _AgentFolder, model: ModelChoice, installed: asyncio.Task[None]
    ) -> asyncio.Task[int] | None:
        if agent.missing_extra:
            await asyncio.shield(installed)
            if _missing_extra(yaml.safe_load(agent.file.read_text(encoding="utf-8"))):
                self._say(f"{agent.name}: skipped, it needs pip install 'myagent[{agent.missing_extra}]'")
                return None
        self._say(f"{agent.name}: loading")
        variables = {
            **model.environment,
            "MYAGENT_DISCOVERY_URL": self._portal,
            "MYAGENT_PORTAL_ORIGIN": self._portal,
            "MYAGENT_TOOL_ANSWER": "direct" if model.is_built_in else "model",
            "MYAGENT_SESSION_STORE": f"sqlite:///{(STATE / f'{agent.name}.db').resolve()}",
        }
        command = [sys.executable, "-m", "agent_runtime", "run", "--config", str(agent.file)]
        if not _is_free(agent.port):
            command += ["--port", "0"]  # the registry knows the port
        ended = await self._spawn(agent.name, command, variables)
        record = await self._registered(agent.name, ended)
        self._say(f"{agent.name}: {record['endpoint']} answers with {_model_label(record)}")
        return ended

    async def _installed(self, agents: Sequence[_AgentFolder]) -> None:
        """Run the install command, if an agent needs it, and report its progress."""
        extras = sorted({agent.missing_extra for agent in agents if agent.missing_extra})
        if not extras or not self._install:
            return
        self._say(f"installing {', '.join(extras)} in the background; see {self._logs / 'install.log'}")
        ended = await self._spawn("install", ["/bin/sh", "-c", f"{self._install} {' '.join(extras)}"], {})
        while not ended.done():
            await asyncio.wait({ended}, timeout=15)
            if not ended.done():
                self._say(f"installing {', '.join(extras)}: {self._last_line('install')[:80]} …")
        if ended.result() != 0:
            self._say(f"installing {', '.join(extras)} failed: {self._last_line('install')}")
        importlib.invalidate_caches()

    def _download(self, hub_id: str) -> None:
        from agent_runtime.local_model.weights import find_weights

        shown = -1.0

        def progress(done: int, total: int) -> None:
            nonlocal shown
            if total and (done == total or done - shown > total / 20):
                shown = done
                self._say(f"downloading {hub_id}: {done / 1e6:.0f} of {total / 1e6:.0f} MB")

        find_weights(hub_id, progress=progress)

    async def _spawn(self, name: str, command: Sequence[str], variables: Mapping[str, str]) -> asyncio.Task[int]:
        """Start a child process that writes to its own log; the task returns its exit status."""
        with (self._logs / f"{name}.log").open("wb") as log:
            child = await asyncio.create_subprocess_exec(
                *_ended_with_parent(),
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
        raise StartError(f"{name} did not start: {self._last_line(name)}")

    async def _registered(self, name: str, ended: asyncio.Task[int]) -> dict[str, Any]:
        """Wait until an agent is registered and answers; returns its record."""
        record: dict[str, Any] = await self._answering(name, f"{self._portal}/agents/{name}", ended)
        await self._answering(name, f"{record['endpoint']}/livez", ended)
        return record

    def _last_line(self, name: str) -> str:
        lines = (self._logs / f"{name}.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else "the log is empty"

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


def _ended_with_parent() -> list[str]:
    """The prefix of a command that the kernel ends when this process is killed; empty outside Linux."""
    setpriv = shutil.which("setpriv") if sys.platform == "linux" else None
    return [setpriv, "--pdeathsig", "TERM"] if setpriv else []


def _shipped_examples() -> list[Path]:
    here = Path(__file__).parent
    # In a wheel the examples are inside the package, in a checkout beside it.
    folder = next((path for path in (here / "examples", here.parent / "examples") if path.is_dir()), None)
    if folder is None:
        raise StartError("the examples are not installed; use your own agent folders: myagent up FOLDER …")
    files = {file: yaml.safe_load(file.read_text(encoding="utf-8")) for file in folder.glob("*/agent.yaml")}
    # An example with an MCP server needs that server first; its README starts both.
    return sorted(file.parent for file, document in files.items() if "mcp_servers" not in document)


def _agent_folder(folder: Path) -> _AgentFolder:
    file = folder / "agent.yaml" if folder.is_dir() else folder
    try:
        document: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
        name = str(document["name"])
        server: dict[str, Any] = document.get("server") or {}
        port = int(server.get("port", 8000))
    except OSError as error:
        raise StartError(f"{file} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, TypeError, KeyError, ValueError, AttributeError) as error:
        raise StartError(f"{file} is not an agent file; run myagent validate {file} for details") from error
    return _AgentFolder(name, file, port, _missing_extra(document))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _missing_extra(document: Any) -> str | None:
    """The extra that `--install` can add; for any other, the agent itself reports what is missing."""
    tools: list[Any] = cast("dict[str, Any]", document).get("tools") or []
    searches = any(isinstance(tool, dict) and "context" in tool for tool in tools)
    return "vector" if searches and importlib.util.find_spec("sentence_transformers") is None else None


def _model_label(record: Mapping[str, Any]) -> str:
    model: dict[str, Any] = record.get("model") or {}
    return f"{model.get('provider')}/{model.get('name')}" if model else "an unknown model"
