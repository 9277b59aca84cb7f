"""What a part of the agent proves itself with: a value that may be replaced while the agent runs."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class Credential(Generic[T]):
    """One that stays as it is; those that follow a secret come from the secret book."""

    def __init__(self, value: T) -> None:
        self._value = value

    @property
    def value(self) -> T:
        """What to use now: ask again for each use."""
        return self._value

    async def renewed(self, refused: T) -> T | None:
        """What to try once in place of a value that was refused; None where there is nothing newer."""
        return None
