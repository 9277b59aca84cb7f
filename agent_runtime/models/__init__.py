"""The door to the models: `model_for` picks one by its provider."""

from __future__ import annotations

from agent_runtime.config import ModelConfig
from agent_runtime.models.base import Model

__all__ = ["Model", "model_for"]


def model_for(config: ModelConfig) -> Model:
    """The model that the file names, not yet opened."""
    if config.provider == "local":
        from agent_runtime.models.local import BUILT_IN, LocalModel

        return LocalModel(config.name or BUILT_IN, parameters=config.parameters, timeout_seconds=config.timeout_seconds)
    from agent_runtime.models.openai_compatible import OpenAICompatible

    return OpenAICompatible(config)
