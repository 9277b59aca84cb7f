"""The models: `model_for` makes the one that an agent file names."""

from __future__ import annotations

from collections.abc import Iterable

from agent_runtime.config import ModelConfig, ModelEndpoint
from agent_runtime.models.base import FallbackModel, Model, ModelWrapper
from agent_runtime.secrets import Credential, SecretResolver, credential_for

__all__ = ["FallbackModel", "Model", "ModelWrapper", "model_for", "preload"]


def model_for(config: ModelConfig, resolver: SecretResolver | None = None) -> Model:
    """The model that the file names with its fallbacks, not yet opened.

    With a resolver, a secret that the provider refuses is fetched again.
    """
    model = _endpoint_model(config, resolver)
    if not config.fallback:
        return model
    others = [_endpoint_model(other, resolver, "fallback", index) for index, other in enumerate(config.fallback)]
    return FallbackModel([model, *others])


def preload(configs: Iterable[ModelConfig]) -> None:
    """Import what the first request to these models would have to wait for; blocks, so call it in a thread."""
    if any(one.provider != "local" for config in configs for one in (config, *config.fallback)):
        from agent_runtime.models.openai import load_client

        load_client()


def _endpoint_model(config: ModelEndpoint, resolver: SecretResolver | None, *location: str | int) -> Model:
    if config.provider == "local":
        from agent_runtime.models.local import BUILT_IN, LocalModel

        return LocalModel(config.name or BUILT_IN, parameters=config.parameters, timeout_seconds=config.timeout_seconds)
    from agent_runtime.models.openai import OpenAIModel

    key = credential_for(resolver, ("model", *location, "api_key"), config.api_key)
    headers = {name: value.get_secret_value() for name, value in config.headers.items()}
    followed = resolver.credential(("model", *location, "headers"), headers) if resolver else Credential(headers)
    return OpenAIModel(config, key, followed)
