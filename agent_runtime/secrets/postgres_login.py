"""Connections to Postgres with the address as it is now: its password may be rotated while the agent runs."""

from __future__ import annotations

from typing import Any

import asyncpg

from agent_runtime.secrets.credential import Credential

_connect: Any = asyncpg.connect  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


class PostgresLogin:
    """The way into one database."""

    def __init__(self, url: Credential[str]) -> None:
        self._url = url

    def pool(self, *, max_size: int, command_timeout: float) -> Any:
        """A small pool, not yet open; a connection that was lost is replaced at its next use."""
        return asyncpg.create_pool(  # pyright: ignore[reportUnknownMemberType]
            connect=self.connect, min_size=1, max_size=max_size, timeout=5, command_timeout=command_timeout
        )

    async def connect(self, *_dsn: object, **options: Any) -> Any:
        """One connection. A password that is refused is fetched again, and tried once more if it is another one."""
        url = self._url.value
        try:
            return await _connect(url, **options)
        except asyncpg.InvalidAuthorizationSpecificationError:
            newer = await self._url.renewed(url)
            if newer is None:
                raise
        return await _connect(newer, **options)
