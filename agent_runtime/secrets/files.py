"""A folder with one file for each secret, as Docker and Kubernetes mount them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from agent_runtime.config.placeholders import Fetched, SecretNotAvailable


class FolderOfFiles:
    """The secret `team/key` is the file `team/key` below the folder; one newline at its end is not part of it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def __aenter__(self) -> FolderOfFiles:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        return None

    async def fetch(self, paths: Sequence[str]) -> Fetched:
        return await asyncio.to_thread(lambda: {path: self._read(path) for path in paths})

    def _read(self, path: str) -> str | SecretNotAvailable:
        try:
            folder = self._folder.resolve()
            # Links are followed first: Kubernetes mounts each secret as one, to a place in the same folder.
            file = (folder / path).resolve()
            if not file.is_relative_to(folder):
                return SecretNotAvailable(f"is outside of {self._folder}")
            text = file.read_bytes().decode()
        except (FileNotFoundError, NotADirectoryError, ValueError) as error:
            if isinstance(error, UnicodeDecodeError):
                return SecretNotAvailable("is binary and not UTF-8 text")
            return SecretNotAvailable(f"not found in {self._folder}")
        except PermissionError:
            return SecretNotAvailable(f"access denied to its file in {self._folder}")
        except OSError as error:
            return SecretNotAvailable(f"its file in {self._folder} cannot be read: {error.strerror}")
        return text.removesuffix("\r\n") if text.endswith("\r\n") else text.removesuffix("\n")
