"""Secrets of a laptop: a YAML file outside the repository that only its owner can read."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import yaml

from agent_runtime.config.placeholders import Fetched, SecretNotAvailable


class LocalYaml:
    """A flat map from secret paths to values; a value that is a map is a JSON secret, for `#key`."""

    def __init__(self, file: Path) -> None:
        self._file = file

    async def __aenter__(self) -> LocalYaml:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        return None

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
