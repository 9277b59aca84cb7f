"""The door to the secret sources: `source_for` picks one by its specification."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from agent_runtime.errors import StartError
from agent_runtime.secrets.base import SecretSource

__all__ = ["SecretSource", "source_for"]


def source_for(specification: str, environment: Mapping[str, str]) -> SecretSource:
    """The source that `MYAGENT_SECRETS` names: `aws`, `file:` and a folder, or `yaml:` and the path of a file.

    Raises:
        StartError: the specification names no source, or its extra is not installed.
    """
    kind, _, place = specification.partition(":")
    if kind == "aws" and not place:
        try:
            from agent_runtime.secrets.aws import AwsSecretsManager
        except ModuleNotFoundError as error:
            raise StartError(
                "secrets come from AWS Secrets Manager, which needs an extra: pip install 'myagent[aws]' "
                "(or set MYAGENT_SECRETS=yaml:secrets.local.yaml on a laptop)"
            ) from error
        # the Python SDK reads AWS_DEFAULT_REGION only; AWS_REGION is what every other SDK and container sets
        return AwsSecretsManager(environment.get("AWS_REGION"))
    if kind == "file":
        from agent_runtime.secrets.files import FolderOfFiles

        return FolderOfFiles(Path(place or "/run/secrets"))
    if kind == "yaml" and place:
        from agent_runtime.secrets.yaml import LocalYaml

        return LocalYaml(Path(place))
    raise StartError(
        f"MYAGENT_SECRETS={specification} names no secret source; use aws, file:/run/secrets or yaml:secrets.local.yaml"
    )
