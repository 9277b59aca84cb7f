"""AWS Secrets Manager through aioboto3, with the SDK's own credential chain and endpoint settings."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any, cast

import aioboto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, EndpointConnectionError, NoCredentialsError, NoRegionError

from agent_runtime.placeholders import SecretNotAvailable

_REASONS = {
    "ResourceNotFoundException": "not found",
    "AccessDeniedException": "access denied",
    "AccessDenied": "access denied",
    "InvalidRequestException": "marked as deleted",
    "DecryptionFailure": "its KMS key refused to decrypt it",
}


class AwsSecretsManager:
    """Reads current values. `region` None leaves the choice to the SDK, which itself honours `AWS_ENDPOINT_URL`."""

    def __init__(self, region: str | None = None) -> None:
        self._region = region
        self._stack = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._client: Any = None

    async def __aenter__(self) -> AwsSecretsManager:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def fetch(self, path: str) -> str:
        try:
            client = await self._opened()
            answer: Any = await client.get_secret_value(SecretId=path)
        except ClientError as error:
            response = cast("dict[str, Any]", error.response)
            code: str = response.get("Error", {}).get("Code", "an error without a code")
            raise SecretNotAvailable(_REASONS.get(code, f"AWS answered {code}")) from None
        except NoRegionError:
            raise SecretNotAvailable("no AWS region is set; set AWS_REGION") from None
        except NoCredentialsError:
            raise SecretNotAvailable("no AWS credentials were found by the SDK's chain") from None
        except EndpointConnectionError as error:
            raise SecretNotAvailable(f"AWS Secrets Manager cannot be reached: {error}") from None
        except (BotoCoreError, ValueError) as error:  # botocore says ValueError of an endpoint that is no URL
            raise SecretNotAvailable(f"AWS Secrets Manager: {error}") from None
        if "SecretString" in answer:
            return cast("str", answer["SecretString"])
        try:
            return cast("bytes", answer["SecretBinary"]).decode()
        except UnicodeDecodeError:
            raise SecretNotAvailable("is binary and not UTF-8 text") from None

    async def _opened(self) -> Any:
        async with self._opening:
            if self._client is None:
                config = Config(connect_timeout=3, read_timeout=5, retries={"max_attempts": 2, "mode": "standard"})
                session: Any = aioboto3.Session(region_name=self._region)
                self._client = await self._stack.enter_async_context(session.client("secretsmanager", config=config))
            return self._client
