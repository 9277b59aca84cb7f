"""A deployment in Azure OpenAI: the same wire as every OpenAI-compatible endpoint, another address and another key."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

from agent_runtime.config import ModelEndpoint
from agent_runtime.errors import ModelError, StartError
from agent_runtime.models.openai_compatible import OpenAICompatible
from agent_runtime.secrets import Credential

_SCOPE = "https://cognitiveservices.azure.com/.default"


class AzureDeployment(OpenAICompatible):
    """One deployment of one resource. Without a key it signs in with Entra ID, as whatever identity it runs under."""

    _schema_beside_tools = True

    def __init__(self, config: ModelEndpoint, key: Credential[str | None]) -> None:
        super().__init__(config, key)
        self._name = config.deployment or ""
        self._token: Callable[[], Awaitable[str]] | None = None

    async def __aenter__(self) -> AzureDeployment:
        try:
            self._token = None if self._key.value else await self._signed_in()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    @property
    def _url(self) -> str:
        resource = (self._config.endpoint or "").rstrip("/")
        version = self._config.api_version
        return f"{resource}/openai/deployments/{quote(self._name, safe='')}/chat/completions?api-version={version}"

    async def _headers(self, key: str | None) -> dict[str, str]:
        return {"Authorization": f"Bearer {await self._token()}"} if self._token else {"api-key": key or ""}

    async def _signed_in(self) -> Callable[[], Awaitable[str]]:
        """What gives an Entra token, from azure-identity's cache or anew; nothing is asked before the first call."""
        try:
            identity = await asyncio.to_thread(importlib.import_module, "azure.identity.aio")
            credential = await self._stack.enter_async_context(identity.DefaultAzureCredential())
        except ImportError as error:
            raise StartError(
                "model.api_key is not set, and signing in with Entra ID needs an extra: pip install 'myagent[azure]'"
            ) from error
        provider: Any = identity.get_bearer_token_provider(credential, _SCOPE)
        failures = importlib.import_module("azure.core.exceptions").AzureError

        async def token() -> str:
            try:
                return str(await provider())
            except failures as error:
                raise ModelError(
                    f"no Entra token for the deployment {self._name}: {_first_line(error)}", fault="refused"
                ) from error

        return token


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:300]
