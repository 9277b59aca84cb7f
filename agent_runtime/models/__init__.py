"""The door to the models: `model_for` picks one by its provider."""

from __future__ import annotations

from collections.abc import Iterable

from agent_runtime.config import ModelConfig, ModelEndpoint
from agent_runtime.models.base import Model
from agent_runtime.secrets import SecretResolver, credential_for

__all__ = ["Model", "model_for", "preload"]


def model_for(config: ModelConfig, resolver: SecretResolver | None = None) -> Model:
    """The model that the file names, not yet opened; with its fallbacks, if it has some.

    With the file's secrets at hand, a key that is refused is fetched again.
    """
    if not config.fallback:
        return _one(config, resolver)
    from agent_runtime.models.fallback import FallbackModel

    others = [_one(other, resolver, "fallback", index) for index, other in enumerate(config.fallback)]
    return FallbackModel([_one(config, resolver), *others])


def preload(configs: Iterable[ModelConfig]) -> None:
    """Import what the first question to these models would have to wait for; in a thread."""
    if any(one.provider != "local" for config in configs for one in (config, *config.fallback)):
        from agent_runtime.models.openai_compatible import http_library

        http_library()


def _one(config: ModelEndpoint, resolver: SecretResolver | None, *place: str | int) -> Model:
    if config.provider == "local":
        from agent_runtime.models.local import BUILT_IN, LocalModel

        return LocalModel(config.name or BUILT_IN, parameters=config.parameters, timeout_seconds=config.timeout_seconds)
    key = credential_for(resolver, ("model", *place, "api_key"), config.api_key)
    if config.provider == "azure_openai":
        from agent_runtime.models.azure_deployment import AzureDeployment

        return AzureDeployment(config, key)
    from agent_runtime.models.openai_compatible import OpenAICompatible

    return OpenAICompatible(config, key)
