"""What is asked of a secret source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from agent_runtime.config.placeholders import Fetched


class SecretSource(Protocol):
    """A place that secrets are read from. Opened with `async with`, for as long as one reading takes."""

    async def __aenter__(self) -> SecretSource: ...

    async def __aexit__(self, *exc_info: object) -> None: ...

    async def fetch(self, paths: Sequence[str]) -> Fetched:
        """Each secret's text, or the reason it cannot be had (not found, access denied, network), for the operator.

        Raises:
            SecretNotAvailable: with the reason, where none of them can be had.
        """
        ...
