"""What the loader asks of a secret source."""

from __future__ import annotations

from typing import Protocol


class SecretSource(Protocol):
    """A place that secrets are read from while an agent starts.

    Opened with `async with`; may be asked for several paths at once.
    """

    async def __aenter__(self) -> SecretSource: ...

    async def __aexit__(self, *exc_info: object) -> None: ...

    async def fetch(self, path: str) -> str:
        """The secret's text.

        Raises:
            SecretNotAvailable: with the reason (not found, access denied, network), for the operator.
        """
        ...
