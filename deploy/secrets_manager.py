"""The mocked AWS of the local stack, with authorisation: every request is signed by a known key whose policy allows it.

moto checks signatures and actions. This adds which secret a request is for, and the `?` in the resources of a policy.

    python secrets_manager.py HOST PORT FILE     FILE gets the administrator's key, as an AWS credentials file
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
EVERYTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


def matches(pattern: str, text: str) -> re.Match[str] | None:
    """Whether a pattern of a policy fits: `*` is any text, `?` any character."""
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), text)


def resource(response: Any) -> str:
    """What a request to the Secrets Manager is for."""
    return arn(response, response._get_param("SecretId"))


def arn(response: Any, name: str | None) -> str:
    """The name of a secret as policies have it, also of one that is not there."""
    if not name:
        return "*"
    known = response.backend.secrets.get(name)
    return known.arn if known else f"arn:aws:secretsmanager:{response.region}:{ACCOUNT}:secret:{name}-000000"


def batch_get_secret_value(response: Any) -> str:
    """As AWS does it: of a batch, those secrets that the caller may read."""
    answer = json.loads(unguarded_batch(response))
    denied = [name for name in response._get_param("SecretIdList", if_none=[]) if not may_read(response, name)]
    hidden = {arn(response, name) for name in denied}
    answer["SecretValues"] = [secret for secret in answer["SecretValues"] if secret["ARN"] not in hidden]
    answer["Errors"] = [error for error in answer["Errors"] if error["SecretId"] not in denied] + [
        {"SecretId": name, "ErrorCode": "AccessDeniedException", "Message": "access denied"} for name in denied
    ]
    return json.dumps(answer)


class Asked(IAMRequest):
    """Says no as the Secrets Manager does, in JSON."""

    def _raise_access_denied(self) -> None:
        raise JsonRESTError("AccessDeniedException", f"{self._access_key.arn} may not {self._action}")

    def _raise_invalid_access_key(self, _: str) -> None:
        raise JsonRESTError("UnrecognizedClientException", "The security token included in the request is invalid.")

    def _raise_signature_does_not_match(self) -> None:
        raise JsonRESTError("InvalidSignatureException", "The signature does not match.")


def authorize(response: Any, resource: str) -> None:
    """Of a request to the Secrets Manager."""
    response._authenticate_and_authorize_action(Asked, resource)


def may_read(response: Any, name: str) -> bool:
    """Whether the policies of who asks allow this one secret."""
    request = Asked(
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


def refuse(*_: object) -> tuple[int, dict[str, str], str]:
    """In place of what would show all data, or end the authorisation."""
    return 403, {}, "not here"


def administrator() -> str:
    """A key that may do everything, as a credentials file."""
    backend = iam_backends[ACCOUNT]["aws"]
    backend.create_user(region_name="eu-west-1", user_name="administrator")
    backend.put_user_policy("administrator", "everything", json.dumps(EVERYTHING))
    key = backend.create_access_key("administrator")
    return f"[default]\naws_access_key_id = {key.access_key_id}\naws_secret_access_key = {key.secret_access_key}\n"


if __name__ == "__main__":
    host, port, file = sys.argv[1:]
    settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
    IAMPolicyStatement._match = staticmethod(matches)
    SecretsManagerResponse._determine_resource = resource
    SecretsManagerResponse._authenticate_and_authorize_normal_action = authorize
    unguarded_batch = SecretsManagerResponse.batch_get_secret_value
    SecretsManagerResponse.batch_get_secret_value = batch_get_secret_value
    for name in [name for name in vars(MotoAPIResponse) if not name.startswith("_") and name != "dashboard"]:
        setattr(MotoAPIResponse, name, refuse)
    Path(file).write_text(administrator(), encoding="utf-8")
    server.main(["--host", host, "--port", port])
