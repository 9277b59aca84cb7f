"""Passages in Postgres with pgvector, shared by every replica of an agent and ranked there."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg

from agent_runtime.errors import StartError, ToolError
from agent_runtime.secrets import Credential, PostgresLogin
from agent_runtime.tools.retrieval.documents import Passage
from agent_runtime.tools.retrieval.index import Embed

_log = logging.getLogger(__name__)

_FAILURES = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended($1, 2))"  # 0 and 1 are the session store's

_INSERT = (
    "INSERT INTO {} (corpus, key, source, heading, page, text, embedding)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7::text::vector) ON CONFLICT DO NOTHING"  # of another replica that began with us
)


class PgVectorIndex:
    """The passages of one search of one agent: `corpus` tells them from others in the same database."""

    is_durable = True

    def __init__(self, url: Credential[str], corpus: str) -> None:
        self._login = PostgresLogin(url)
        self._corpus = corpus
        self._stack = AsyncExitStack()
        self._pool: Any
        self._table = ""

    async def __aenter__(self) -> PgVectorIndex:
        try:
            self._pool = await self._stack.enter_async_context(self._login.pool(max_size=4, command_timeout=60))
            await self._create_extension()
        except (*_FAILURES, ValueError) as error:
            await self._stack.aclose()
            raise StartError(f"the vector index in Postgres cannot be opened: {_reason(error)}") from error
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def _create_extension(self) -> None:
        async with self._locked("extension") as connection:
            if await connection.fetchval("SELECT 1 FROM pg_extension WHERE extname = 'vector'"):
                return
            try:
                await connection.execute("CREATE EXTENSION vector")
            except asyncpg.PostgresError as error:
                raise StartError(
                    "index: pgvector needs the extension `vector` in the database of session.store: install pgvector "
                    f"on its server and run CREATE EXTENSION vector as its owner ({_reason(error)})"
                ) from error

    async def fill(self, passages: Sequence[Passage], embed: Embed) -> None:
        size = int((await embed(passages[:1])).shape[1])
        self._table = f"context_passages_{size}"  # a column of vectors has one length
        wanted = {_key(passage): passage for passage in passages}
        try:
            async with self._locked("schema") as connection:
                await connection.execute(_table(self._table, size))
            known = await self._keys(self._pool)
            new = {key: passage for key, passage in wanted.items() if key not in known}
            vectors = await embed(list(new.values())) if new else ()
            rows = [self._row(key, *one) for key, one in zip(new, zip(new.values(), vectors, strict=True), strict=True)]
            async with self._locked(self._corpus) as connection:
                gone = [key for key in await self._keys(connection) if key not in wanted]
                delete = f"DELETE FROM {self._table} WHERE corpus = $1 AND key = ANY($2::bytea[])"
                await connection.execute(delete, self._corpus, gone)
                await connection.executemany(_INSERT.format(self._table), rows)
        except _FAILURES as error:
            raise StartError(f"the vector index in Postgres cannot be filled: {_reason(error)}") from error
        _log.info("the vector index: %d passages, %d of them new, %d gone", len(wanted), len(new), len(gone))

    async def _keys(self, connection: Any) -> set[bytes]:
        rows = await connection.fetch(f"SELECT key FROM {self._table} WHERE corpus = $1", self._corpus)
        return {bytes(row[0]) for row in rows}

    def _row(self, key: bytes, passage: Passage, vector: Any) -> tuple[Any, ...]:
        source, heading, text = map(_storable, (passage.source, passage.heading, passage.text))
        return self._corpus, key, source, heading, passage.page, text, _written(vector)

    async def search(self, vector: Any, *, top_k: int, least: float) -> list[Passage]:
        query = (
            f"SELECT source, heading, text, page FROM {self._table}"
            " WHERE corpus = $1 AND 1 - (embedding <=> $2::text::vector) >= $3"
            " ORDER BY embedding <=> $2::text::vector LIMIT $4"
        )
        try:
            rows = await self._pool.fetch(query, self._corpus, _written(vector), least, top_k)
        except _FAILURES as error:
            _log.warning("the vector index in Postgres failed: %s", _reason(error))
            raise ToolError("The documents cannot be searched at the moment.") from error
        return [Passage(*row) for row in rows]

    @asynccontextmanager
    async def _locked(self, name: str) -> AsyncGenerator[Any]:
        """A transaction that no other replica is in at the same time."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(_LOCK, name)
            yield connection


def _table(name: str, size: int) -> str:
    return f"""
        CREATE TABLE IF NOT EXISTS {name} (
            corpus text NOT NULL,
            key bytea NOT NULL,
            source text NOT NULL,
            heading text NOT NULL,
            page integer,
            text text NOT NULL,
            embedding vector({size}) NOT NULL,
            PRIMARY KEY (corpus, key)
        )
    """


def _key(passage: Passage) -> bytes:
    parts = (passage.source, str(passage.page), passage.heading, passage.text)
    return hashlib.sha256("\0".join(parts).encode(errors="surrogatepass")).digest()


def _written(vector: Any) -> str:
    return f"[{','.join(map(repr, vector.tolist()))}]"


def _storable(text: str) -> str:
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def _reason(error: BaseException) -> str:
    first = next(iter(str(error).splitlines()), "")  # what follows are the server's hints, line by line
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
