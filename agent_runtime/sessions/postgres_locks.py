"""Locks that replicas hold against each other in one Postgres database; a replica that dies frees its own.

A lock belongs to a connection. Those that nobody disputes are all held on one connection of this process, so that many
turns at once cost no connections. Only who has to wait for another replica waits on a connection of its own, in the
database's own queue: first come, first served.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg

from agent_runtime.secrets import PostgresLogin
from agent_runtime.sessions.turns import busy

# A connection that the server cut can show as an "internal" error of the client.
FAILURES = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)

_COMMAND_SECONDS = 10
_WAITING = 8  # connections that may wait for other replicas at once
_NUMBER = "hashtextextended($1, 1)"  # 0 is the number that a turn's append locks


class AdvisoryLocks:
    """Named locks; within one process, a name must be asked for once at a time."""

    def __init__(self, login: PostgresLogin) -> None:
        self._login = login
        self._shared: Any = None
        self._using = asyncio.Lock()
        self._waiting = asyncio.Semaphore(_WAITING)
        self._freeing: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Free all locks."""
        if self._freeing:
            await asyncio.wait(self._freeing, timeout=5)
        shared, self._shared = self._shared, None
        if shared is not None:
            await _closed(shared)

    @asynccontextmanager
    async def held(self, name: str, *, deadline: float) -> AsyncGenerator[Any]:
        """Hold a lock; yields the connection that it lives and dies with. Raises SessionBusy at the deadline."""
        try:
            connection = await self._taken(name)
        except BaseException:
            await self._free(name)  # it may have been taken before this was cancelled
            raise
        if connection is None:
            async with self._queued(name, deadline) as connection:
                yield connection
            return
        try:
            yield connection
        finally:
            await self._free(name)

    async def _taken(self, name: str) -> Any:
        """The shared connection, if the lock was free."""
        async with self._using:
            if self._shared is None or self._shared.is_closed():
                self._shared = await self._login.connect(timeout=5)
            question = f"SELECT pg_try_advisory_lock({_NUMBER})"
            return self._shared if await self._shared.fetchval(question, name, timeout=_COMMAND_SECONDS) else None

    async def _free(self, name: str) -> None:
        """Free a lock even if this is cancelled meanwhile: else nobody had the session until this process ends."""
        task = asyncio.create_task(self._unlock(name))
        self._freeing.add(task)
        task.add_done_callback(self._freeing.discard)
        await asyncio.shield(task)

    async def _unlock(self, name: str) -> None:
        async with self._using:
            if self._shared is None or self._shared.is_closed():
                return
            try:
                await self._shared.fetchval(f"SELECT pg_advisory_unlock({_NUMBER})", name, timeout=_COMMAND_SECONDS)
            except FAILURES:
                self._shared.terminate()  # better all are free than one is held for ever

    @asynccontextmanager
    async def _queued(self, name: str, deadline: float) -> AsyncGenerator[Any]:
        waiting = asyncio.timeout_at(deadline)
        async with AsyncExitStack() as stack:
            try:
                async with waiting:
                    await stack.enter_async_context(self._waiting)
                    connection = await self._login.connect(timeout=5)
                    stack.push_async_callback(_closed, connection)
                    await connection.execute(f"SELECT pg_advisory_lock({_NUMBER})", name)
            except TimeoutError:
                if waiting.expired():
                    raise busy() from None
                raise
            yield connection


async def _closed(connection: Any) -> None:
    try:
        await connection.close(timeout=2)
    except BaseException as error:
        connection.terminate()  # the server frees the lock as soon as the socket is gone
        if not isinstance(error, FAILURES):
            raise
