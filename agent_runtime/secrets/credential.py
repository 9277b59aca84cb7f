"""Credentials that may be rotated while the agent runs, and Postgres connections that use one."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Credential(Generic[T]):
    """A value that does not change; those that follow a secret are made by `SecretResolver`."""

    def __init__(self, value: T) -> None:
        self._value = value

    @property
    def value(self) -> T:
        """The current value: read it again for each use."""
        return self._value

    async def renewed(self, refused: T) -> T | None:
        """The value to retry with after `refused` was rejected; None if there is no newer one."""
        return None


class PostgresLogin:
    """Opens connections to one database with its current URL, as the password may be rotated."""

    def __init__(self, url: Credential[str]) -> None:
        self._url = url

    def pool(self, *, max_size: int, command_timeout: float) -> Any:
        """A connection pool, not yet open; a lost connection is replaced when it is next used."""
        import asyncpg

        driver: Any = asyncpg  # it has no type annotations
        return driver.create_pool(
            connect=self.connect, min_size=1, max_size=max_size, timeout=5, command_timeout=command_timeout
        )

    async def connect(self, *_dsn: object, **options: Any) -> Any:
        """One connection. If the password is refused, the secret is fetched again and a new one is tried once."""
        import asyncpg

        driver: Any = asyncpg
        url = self._url.value
        try:
            return await driver.connect(url, **options)
        except asyncpg.InvalidAuthorizationSpecificationError:
            newer = await self._url.renewed(url)
            if newer is None:
                raise
        return await driver.connect(newer, **options)
