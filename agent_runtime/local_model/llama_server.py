"""The engine: llama.cpp's server inside this process, on a loopback port with a random key.

A request is the JSON body of a chat completion; the reply is streamed in pieces.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any, cast

import httpx

from agent_runtime.errors import ModelError, ModelFault, StartError
from agent_runtime.events import Usage

# The keys of `model.parameters` that configure the engine; all others are sent with each request.
ENGINE_PARAMETERS = frozenset({"n_ctx", "n_parallel", "n_batch", "n_threads", "n_gpu_layers"})

_DEFAULTS = {
    "n_ctx": 4096,  # of one stream
    # The third stream waits for a free slot. More slots would cost memory and make nothing faster: one stream keeps the
    # threads busy.
    "n_parallel": 2,
    # A prompt is read in pieces of so many tokens: only between them can it be stopped, and do other streams go on.
    "n_batch": 64,
    "n_gpu_layers": -1,
}
_CGROUP_CPU = Path("/sys/fs/cgroup/cpu.max")


class LlamaServer:
    """One loaded model, for any number of tasks at once; closing it frees its memory."""

    def __init__(self, weights: Path, *, settings: Mapping[str, Any], timeout_seconds: float) -> None:
        self._weights = weights
        self._settings: dict[str, int] = _DEFAULTS | {"n_threads": usable_threads()} | dict(settings)
        self._timeout_seconds = timeout_seconds
        self.context_tokens = self._settings["n_ctx"]
        self.parameter_count = 0  # known once it is open
        self._server: Any = None
        self._client: httpx.AsyncClient | None = None

    async def open(self) -> None:
        """Load the weights and start to listen, in a thread.

        Raises:
            StartError: the engine is not installed, a setting is invalid, or the weights cannot be loaded.
        """
        for name, value in self._settings.items():
            if type(value) is not int or (value < 1 and name != "n_gpu_layers"):
                raise StartError(f"model.parameters.{name} must be a whole number above zero, not {value!r}.")
        key = secrets.token_urlsafe(32)
        self._server = await asyncio.to_thread(_start, self._weights, self._settings, key)
        self._client = httpx.AsyncClient(
            base_url=self._server.listening_address,
            headers={"Authorization": f"Bearer {key}"},
            timeout=httpx.Timeout(self._timeout_seconds, connect=5),
            # The server closes idle connections at any time; on loopback a new one costs nothing.
            limits=httpx.Limits(max_keepalive_connections=0),
            trust_env=False,  # loopback needs no proxy
        )
        listed: Any = (await self._client.get("/v1/models")).json()
        self.parameter_count = int(listed["data"][0].get("meta", {}).get("n_params", 0))

    async def close(self) -> None:
        """Stop all requests and release the weights. Closing twice is harmless."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()
        # Dropping the last reference stops the engine and waits for its threads.
        last, self._server = [self._server], None
        try:
            await asyncio.to_thread(last.clear)
        except RuntimeError:  # the interpreter is about to end, as after a script that closed nothing
            last.clear()

    async def chat(self, body: Mapping[str, Any]) -> AsyncGenerator[str | Usage]:
        """Yield the reply to a chat completion as it is generated, then the usage; closing it stops the generation.

        Raises:
            ModelError: the engine rejected the request, stopped, or exceeded the time-out.
        """
        request = {**body, "stream": True, "stream_options": {"include_usage": True}}
        try:
            async with self._require_client().stream("POST", "/v1/chat/completions", json=request) as response:
                if response.is_error:
                    raise _refusal(await response.aread())
                async for line in response.aiter_lines():
                    if chunk := _read_line(line):
                        yield chunk
        except httpx.TimeoutException as error:
            raise ModelError(f"The local model did not answer within {self._timeout_seconds:g} s.") from error
        except (httpx.HTTPError, RuntimeError) as error:  # a closed client raises RuntimeError
            raise ModelError("The local model stopped before its reply was complete.", fault="unreachable") from error

    def _require_client(self) -> httpx.AsyncClient:
        if self._client is None:
            raise ModelError("The local model is not running: it has been closed or was never opened.")
        return self._client


def usable_threads() -> int:
    """One thread less than this process has cores: with all of them, other work slows it down severely."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _CGROUP_CPU.read_text(encoding="ascii").split()
        cores = min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):  # not in a container, or no limit ("max")
        pass
    return max(1, cores - 1)


def _start(weights: Path, settings: Mapping[str, Any], key: str) -> Any:
    try:
        import xllamacpp
    except ModuleNotFoundError as error:
        raise StartError('The local model needs its engine: pip install "myagent[local]".') from error
    except ImportError as error:  # it is installed, but a system library that it needs is not
        hint = "on Debian and Ubuntu: apt install libgomp1"
        raise StartError(f"The local model's engine cannot be loaded: {error}; {hint}.") from error
    engine: Any = xllamacpp
    params = engine.CommonParams()
    params.model.path = str(weights)
    params.model_alias = {weights.stem}  # else its answers name the path
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [key]
    params.cors_origins, params.cors_origins_explicit = "", True
    params.ui = params.endpoint_slots = False
    params.sse_ping_interval = -1  # pings would reset the time-out
    params.verbosity = -1  # llama.cpp writes to the process's stderr
    params.fit_params = False  # allocate the configured context
    params.cache_ram_mib = 0  # by default prompts are cached in up to 8 GiB; a slot keeps its last prompt anyhow
    params.kv_unified = False  # in a shared context, one long stream makes all the others fail
    params.n_parallel = settings["n_parallel"]
    params.n_ctx = settings["n_ctx"] * settings["n_parallel"]
    params.n_batch = params.n_ubatch = settings["n_batch"]
    params.n_gpu_layers = settings["n_gpu_layers"]
    params.cpuparams.n_threads = settings["n_threads"]
    try:
        return engine.Server(params)
    except RuntimeError as error:
        raise StartError(
            f"The weights {weights.name} could not be loaded: they may be damaged, of a kind that this version "
            "of xllamacpp does not know, or too large for the memory of this machine."
        ) from error


def _read_line(line: str) -> str | Usage | None:
    """One line of the event stream; None if it has neither text nor usage."""
    kind, _, data = line.partition(":")
    data = data.strip()
    if kind == "error":
        raise _refusal(data.encode())
    if kind != "data" or not data or data == "[DONE]":
        return None
    event = json.loads(data)
    if "error" in event:
        raise _refusal(data.encode())
    if usage := event.get("usage"):  # a chunk of its own, without choices
        return Usage(usage["prompt_tokens"], usage["completion_tokens"])
    return "".join(choice.get("delta", {}).get("content") or "" for choice in event.get("choices", ()))


def _refusal(body: bytes) -> ModelError:
    """The engine's error as a ModelError."""
    try:
        answer: Any = json.loads(body)
        error: Any = answer.get("error", answer)
    except (ValueError, AttributeError):
        error = {}
    detail = cast("dict[str, Any]", error if isinstance(error, dict) else {"message": str(error)})
    message = str(detail.get("message", "")).strip()
    fault: ModelFault = "failed"
    if detail.get("type") == "exceed_context_size_error" or "context size" in message.lower():
        fault = "context_overflow"
    return ModelError(f"The local model rejected the request: {message or 'no reason given'}", fault=fault)
