"""Which model a local stack's agents are started with: the best that this machine offers without a question."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import httpx


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """Which model the agents are started with, in the variables that the example files read."""

    label: str
    environment: Mapping[str, str]

    @property
    def is_built_in(self) -> bool:
        """Whether no better model was found."""
        return not self.environment


async def choose_model(hub_id: str | None, environment: Mapping[str, str]) -> ModelChoice:
    """The first of: the one that was asked for, OpenAI's key, an Ollama on this machine, the built-in one."""
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
