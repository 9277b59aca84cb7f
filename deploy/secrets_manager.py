"""The mocked AWS of the local stack, with authorisation by key and policy.

moto checks signatures and actions. This adds a check of the secret's ARN, and `?` in the resources of a policy.

    python secrets_manager.py HOST PORT FILE     writes the administrator's key to FILE, as AWS credentials
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from moto import server, settings
from moto.core.exceptions import JsonRESTError
from moto.iam.access_control import IAMPolicyStatement, IAMRequest
from moto.iam.models import iam_backends
from moto.moto_api._internal.responses import MotoAPIResponse
from moto.secretsmanager.responses import SecretsManagerResponse

ACCOUNT = "123456789012"
FULL_ACCESS = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


def matches(pattern: str, text: str) -> re.Match[str] | None:
    """Whether a pattern of a policy matches: `*` is any text, `?` any character."""
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), text)


def resource(response: Any) -> str:
    """The ARN of the secret that a request to the Secrets Manager is for."""
    return arn(response, response._get_param("SecretId"))


def arn(response: Any, name: str | None) -> str:
    """The ARN of a secret, also of one that does not exist."""
    if not name:
        return "*"
    known = response.backend.secrets.get(name)
    return known.arn if known else f"arn:aws:secretsmanager:{response.region}:{ACCOUNT}:secret:{name}-000000"


def batch_get_secret_value(response: Any) -> str:
    """Return those secrets of a batch that the caller may read, as AWS does."""
    answer = json.loads(unfiltered_batch(response))
    denied = [name for name in response._get_param("SecretIdList", if_none=[]) if not may_read(response, name)]
    hidden = {arn(response, name) for name in denied}
    answer["SecretValues"] = [secret for secret in answer["SecretValues"] if secret["ARN"] not in hidden]
    answer["Errors"] = [error for error in answer["Errors"] if error["SecretId"] not in denied] + [
        {"SecretId": name, "ErrorCode": "AccessDeniedException", "Message": "access denied"} for name in denied
    ]
    return json.dumps(answer)


class SecretsRequest(IAMRequest):
    """Raises errors in JSON, as the Secrets Manager does."""

    def _raise_access_denied(self) -> None:
        raise JsonRESTError("AccessDeniedException", f"{self._access_key.arn} may not {self._action}")

    def _raise_invalid_access_key(self, _: str) -> None:
        raise JsonRESTError("UnrecognizedClientException", "The security token included in the request is invalid.")

    def _raise_signature_does_not_match(self) -> None:
        raise JsonRESTError("InvalidSignatureException", "The signature does not match.")


def authorize(response: Any, resource: str) -> None:
    """Authenticate and authorise a request to the Secrets Manager."""
    response._authenticate_and_authorize_action(SecretsRequest, resource)


def may_read(response: Any, name: str) -> bool:
    """Whether the caller's policies allow reading this secret."""
    request = SecretsRequest(
        account_id=response.current_account,
        method=response.method,
        path=response.raw_path,
        data=response.data,
        body=response.raw_body,
        headers=response.headers,
        action="GetSecretValue",
    )
    try:
        request.check_action_permitted(arn(response, name))
    except JsonRESTError:
        return False
    return True


def deny(*_: object) -> tuple[int, dict[str, str], str]:
    """Replaces moto's own API, which shows all data and can switch the authorisation off."""
    return 403, {}, "not available"


def administrator() -> str:
    """Create a key with full access, as a credentials file."""
    backend = iam_backends[ACCOUNT]["aws"]
    backend.create_user(region_name="eu-west-1", user_name="administrator")
    backend.put_user_policy("administrator", "everything", json.dumps(FULL_ACCESS))
    key = backend.create_access_key("administrator")
    return f"[default]\naws_access_key_id = {key.access_key_id}\naws_secret_access_key = {key.secret_access_key}\n"


if __name__ == "__main__":
    host, port, file = sys.argv[1:]
    settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
    IAMPolicyStatement._match = staticmethod(matches)
    SecretsManagerResponse._determine_resource = resource
    SecretsManagerResponse._authenticate_and_authorize_normal_action = authorize
    unfiltered_batch = SecretsManagerResponse.batch_get_secret_value
    SecretsManagerResponse.batch_get_secret_value = batch_get_secret_value
    for name in [name for name in vars(MotoAPIResponse) if not name.startswith("_") and name != "dashboard"]:
        setattr(MotoAPIResponse, name, deny)
    Path(file).write_text(administrator(), encoding="utf-8")
    server.main(["--host", host, "--port", port])
