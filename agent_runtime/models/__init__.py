"""The door to the models: `model_for` picks one by its provider."""

from __future__ import annotations

from collections.abc import Iterable

from agent_runtime.config import ModelConfig, ModelEndpoint
from agent_runtime.models.base import Model

__all__ = ["Model", "model_for", "preload"]


def model_for(config: ModelConfig) -> Model:
    """The model that the file names, not yet opened; with its fallbacks, if it has some."""
    if not config.fallback:
        return _one(config)
    from agent_runtime.models.fallback import FallbackModel

    return FallbackModel([_one(config), *(_one(other) for other in config.fallback)])


def preload(configs: Iterable[ModelConfig]) -> None:
    """Import what the first question to these models would have to wait for: about a second, so in a thread."""
    if any(one.provider != "local" for config in configs for one in (config, *config.fallback)):
        from agent_runtime.models.openai_compatible import libraries

        libraries()


def _one(config: ModelEndpoint) -> Model:
    if config.provider == "local":
        from agent_runtime.models.local import BUILT_IN, LocalModel

        return LocalModel(config.name or BUILT_IN, parameters=config.parameters, timeout_seconds=config.timeout_seconds)
    if config.provider == "azure_openai":
        from agent_runtime.models.azure_deployment import AzureDeployment

        return AzureDeployment(config)
    from agent_runtime.models.openai_compatible import OpenAICompatible

    return OpenAICompatible(config)
