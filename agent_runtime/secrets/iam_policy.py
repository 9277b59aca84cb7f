"""The least-privilege IAM policy of an agent: read the secrets that its file names, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from agent_runtime.config import read_document, secret_paths

_WITH_SUFFIX = re.compile(r"-[A-Za-z0-9]{6}$")
_PARTITIONS = {"cn-": "aws-cn", "us-gov-": "aws-us-gov"}


def policy_for(
    files: Iterable[Path], *, region: str = "*", account: str = "*", kms_keys: Sequence[str] = ()
) -> dict[str, Any]:
    """The policy document for the agents of these files. It does not call AWS and reads no secret.

    `kms_keys` are the ARNs of the customer managed keys that encrypt the secrets, if any.

    Raises:
        ConfigError: a file is missing or not valid YAML.
    """
    paths = dict.fromkeys(path for file in files for path in secret_paths(read_document(file)[0]))
    resources = [_arn(path, region, account) for path in paths]
    statements: list[dict[str, Any]] = []
    if resources:
        statements.append(_statement("ReadSecrets", "secretsmanager:GetSecretValue", resources))
    if len(resources) > 1:
        # Batches have no resources: AWS checks the permission above for each secret of a batch.
        statements.append(_statement("ReadSecretsInBatches", "secretsmanager:BatchGetSecretValue", "*"))
    if resources and kms_keys:
        condition = {"StringLike": {"kms:ViaService": f"secretsmanager.{region}.amazonaws.com"}}
        statements.append({**_statement("DecryptSecrets", "kms:Decrypt", list(kms_keys)), "Condition": condition})
    return {"Version": "2012-10-17", "Statement": statements}


def _statement(sid: str, action: str, resource: str | list[str]) -> dict[str, Any]:
    return {"Sid": sid, "Effect": "Allow", "Action": action, "Resource": resource}


def _arn(path: str, region: str, account: str) -> str:
    """AWS appends a hyphen and six characters to a secret's name; a full ARN has them already."""
    if path.startswith("arn:"):
        return path if _WITH_SUFFIX.search(path) else f"{path}-??????"
    partition = next((name for prefix, name in _PARTITIONS.items() if region.startswith(prefix)), "aws")
    return f"arn:{partition}:secretsmanager:{region}:{account}:secret:{path}-??????"
