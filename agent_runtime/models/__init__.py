"""The models: `model_for` makes the one that an agent file names."""

from __future__ import annotations

from collections.abc import Iterable

from agent_runtime.config.agent import ModelConfig, ModelEndpoint
from agent_runtime.models.base import Model
from agent_runtime.secrets.credential import Credential
from agent_runtime.secrets.resolver import SecretBook, key_of

__all__ = ["Model", "model_for", "preload"]


def model_for(config: ModelConfig, book: SecretBook | None = None) -> Model:
    """The model that the file names with its fallbacks, not yet opened.

    With the file's secrets given, a refused key is fetched again.
    """
    if not config.fallback:
        return _one(config, book)
    from agent_runtime.models.base import FallbackModel

    others = [_one(other, book, "fallback", index) for index, other in enumerate(config.fallback)]
    return FallbackModel([_one(config, book), *others])


def preload(configs: Iterable[ModelConfig]) -> None:
    """Import what the first request to these models would have to wait for; blocks, so call it in a thread."""
    if any(one.provider != "local" for config in configs for one in (config, *config.fallback)):
        from agent_runtime.models.openai import load_client

        load_client()


def _one(config: ModelEndpoint, book: SecretBook | None, *place: str | int) -> Model:
    if config.provider == "local":
        from agent_runtime.models.local import BUILT_IN, LocalModel

        return LocalModel(config.name or BUILT_IN, parameters=config.parameters, timeout_seconds=config.timeout_seconds)
    from agent_runtime.models.openai import OpenAIModel

    key = key_of(book, ("model", *place, "api_key"), config.api_key)
    headers = {name: value.get_secret_value() for name, value in config.headers.items()}
    return OpenAIModel(
        config, key, book.credential(("model", *place, "headers"), headers) if book else Credential(headers)
    )
