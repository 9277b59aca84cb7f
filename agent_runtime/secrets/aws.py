"""AWS Secrets Manager through aioboto3, with the SDK's own credential chain and endpoint settings."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import aioboto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, EndpointConnectionError, NoCredentialsError, NoRegionError

from agent_runtime.config import Fetched, SecretNotAvailable

BATCH = 20  # the maximum of BatchGetSecretValue

_NOT_ACCEPTED = "AWS does not accept the credentials that the SDK's chain found"
_REASONS = {
    "ResourceNotFoundException": "not found",
    "AccessDeniedException": "access denied",
    "AccessDenied": "access denied",
    "InvalidRequestException": "marked as deleted",
    "DecryptionFailure": "its KMS key could not decrypt it",
    "ThrottlingException": "AWS throttled the requests",
    "UnrecognizedClientException": _NOT_ACCEPTED,
    "InvalidClientTokenId": _NOT_ACCEPTED,
    "InvalidSignatureException": _NOT_ACCEPTED,
    "SignatureDoesNotMatch": _NOT_ACCEPTED,
    "ExpiredTokenException": "the AWS credentials have expired",
    "ExpiredToken": "the AWS credentials have expired",
}


class AwsSecretsManager:
    """Reads current values. Without a `region` the SDK chooses one; the SDK also reads `AWS_ENDPOINT_URL`."""

    def __init__(self, region: str | None = None) -> None:
        self._region = region

    async def fetch(self, paths: Sequence[str]) -> Fetched:
        # Two attempts fit into the resolver's time limit, so that each secret gets its own reason.
        config = Config(connect_timeout=2, read_timeout=4, retries={"max_attempts": 2, "mode": "standard"})
        try:
            session: Any = aioboto3.Session(region_name=self._region)
            async with session.client("secretsmanager", config=config) as client:
                return await _fetch(client, paths)
        except (BotoCoreError, ValueError) as error:  # botocore raises ValueError if the endpoint is not a URL
            raise _reason(error) from None


async def _fetch(client: Any, paths: Sequence[str]) -> Fetched:
    if len(paths) == 1:
        return {paths[0]: await _fetch_one(client, paths[0])}
    batches = [paths[start : start + BATCH] for start in range(0, len(paths), BATCH)]
    responses = await asyncio.gather(*(_fetch_batch(client, batch) for batch in batches))
    return {path: text for response in responses for path, text in response.items()}


async def _fetch_batch(client: Any, paths: Sequence[str]) -> Fetched:
    """Fetch a batch; secrets missing in the response, or all if batches are denied, are fetched one by one."""
    found: dict[str, str | SecretNotAvailable] = {}
    try:
        response: Any = await client.batch_get_secret_value(SecretIdList=list(paths))
    except ClientError:
        response = {}  # often a policy that allows each secret, but not batches
    except (BotoCoreError, ValueError) as error:
        return dict.fromkeys(paths, _reason(error))
    for secret in response.get("SecretValues", ()):
        found |= {name: _text(secret) for name in (secret["Name"], secret["ARN"])}
    for failure in response.get("Errors", ()):
        found[failure["SecretId"]] = _from_code(failure["ErrorCode"])
    missing = [path for path in paths if path not in found]
    return found | dict(
        zip(missing, await asyncio.gather(*(_fetch_one(client, path) for path in missing)), strict=True)
    )


async def _fetch_one(client: Any, path: str) -> str | SecretNotAvailable:
    try:
        return _text(await client.get_secret_value(SecretId=path))
    except (ClientError, BotoCoreError, ValueError) as error:
        return _reason(error)


def _text(secret: Any) -> str | SecretNotAvailable:
    if "SecretString" in secret:
        return cast("str", secret["SecretString"])
    try:
        return cast("bytes", secret["SecretBinary"]).decode()
    except UnicodeDecodeError:
        return SecretNotAvailable("is binary and not UTF-8 text")


def _reason(error: Exception) -> SecretNotAvailable:
    match error:
        case ClientError():
            failure = cast("Any", error)
            code: str = failure.response.get("Error", {}).get("Code", "an error without a code")
            if not failure.operation_name.endswith("GetSecretValue"):  # a step to the credentials, such as AssumeRole
                return SecretNotAvailable(f"no AWS credentials: {failure.operation_name} failed with {code}")
            return _from_code(code)
        case NoRegionError():
            return SecretNotAvailable("no AWS region is set; set AWS_REGION")
        case NoCredentialsError():
            return SecretNotAvailable("the SDK's credential chain found no AWS credentials")
        case EndpointConnectionError():
            return SecretNotAvailable(f"AWS Secrets Manager cannot be reached: {error}")
        case _:
            return SecretNotAvailable(f"AWS Secrets Manager: {error}")


def _from_code(code: str) -> SecretNotAvailable:
    return SecretNotAvailable(_REASONS.get(code, f"AWS returned {code}"))
