"""Where secrets are read from: the interface of a source, and the sources that are files."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import yaml

from agent_runtime.config import Fetched, SecretNotAvailable
from agent_runtime.errors import StartError


class SecretSource(Protocol):
    """Reads secrets."""

    async def fetch(self, paths: Sequence[str]) -> Fetched:
        """The text of each secret, or the reason why it is not available (not found, access denied, network).

        Raises:
            SecretNotAvailable: no secret is available, with the reason.
        """
        ...


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
        # The Python SDK reads AWS_DEFAULT_REGION only; AWS_REGION is what every other SDK and container sets.
        return AwsSecretsManager(environment.get("AWS_REGION"))
    if kind == "file":
        return FileSecrets(Path(place or "/run/secrets"))
    if kind == "yaml" and place:
        return YamlSecrets(Path(place))
    raise StartError(
        f"MYAGENT_SECRETS={specification} is not a secret source; use aws, file:/run/secrets or yaml:secrets.local.yaml"
    )


class FileSecrets:
    """A folder with one file per secret, as Docker and Kubernetes mount them.

    The secret `team/key` is the file `team/key` in the folder; one newline at the end of the file is removed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def fetch(self, paths: Sequence[str]) -> Fetched:
        return await asyncio.to_thread(lambda: {path: self._read(path) for path in paths})

    def _read(self, path: str) -> str | SecretNotAvailable:
        try:
            folder = self._folder.resolve()
            # Links are followed first: Kubernetes mounts each secret as a link to a file in the same folder.
            file = (folder / path).resolve()
            if not file.is_relative_to(folder):
                return SecretNotAvailable(f"is outside of {self._folder}")
            text = file.read_bytes().decode()
        except UnicodeDecodeError:
            return SecretNotAvailable("is binary and not UTF-8 text")
        except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the path
            return SecretNotAvailable(f"not found in {self._folder}")
        except PermissionError:
            return SecretNotAvailable(f"access denied to its file in {self._folder}")
        except OSError as error:
            return SecretNotAvailable(f"its file in {self._folder} cannot be read: {error.strerror}")
        return text.removesuffix("\r\n") if text.endswith("\r\n") else text.removesuffix("\n")


class YamlSecrets:
    """A flat YAML map from secret paths to values, for a laptop; a value that is a map is a JSON secret, for `#key`."""

    def __init__(self, file: Path) -> None:
        self._file = file

    async def fetch(self, paths: Sequence[str]) -> Fetched:
        values = await asyncio.to_thread(self._load)
        return {path: self._text(values.get(path)) for path in paths}

    def _text(self, value: Any) -> str | SecretNotAvailable:
        if value is None:
            return SecretNotAvailable(f"not found in {self._file}")
        return value if isinstance(value, str) else json.dumps(value, default=str)

    def _load(self) -> dict[str, Any]:
        try:
            if stat.S_IMODE(self._file.stat().st_mode) & 0o077:
                raise SecretNotAvailable(f"{self._file} can be read by other users; run: chmod 600 {self._file}")
            document: Any = yaml.safe_load(self._file.read_text(encoding="utf-8"))
        except OSError as error:
            raise SecretNotAvailable(f"{self._file} cannot be read: {error.strerror}") from None
        except (yaml.YAMLError, UnicodeDecodeError):
            raise SecretNotAvailable(f"{self._file} is not valid YAML") from None  # its text may hold a secret
        if not isinstance(document, dict):
            raise SecretNotAvailable(f"{self._file} must map secret paths to values")
        return cast("dict[str, Any]", document)
