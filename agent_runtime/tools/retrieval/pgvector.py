"""A vector index in Postgres with pgvector, shared by all replicas of an agent."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg

from agent_runtime.errors import StartError, ToolError
from agent_runtime.secrets import Credential, PostgresLogin
from agent_runtime.tools.retrieval.documents import Passage

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

    from agent_runtime.tools.retrieval.documents import Embed

_log = logging.getLogger(__name__)

_FAILURES = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended($1, 2))"  # the session store uses the seeds 0 and 1

_INSERT = (
    "INSERT INTO {} (corpus, key, source, heading, page, text, embedding)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7::text::vector) ON CONFLICT DO NOTHING"  # another replica may insert too
)


class PgVectorIndex:
    """The passages of one search of one agent; `corpus` identifies them in the database."""

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
        async with self._lock("extension") as connection:
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
        self._table = f"context_passages_{size}"  # a column has vectors of one size
        passages_by_key = {_key(passage): passage for passage in passages}
        try:
            async with self._lock("schema") as connection:
                await connection.execute(_create_table(self._table, size))
            stored = await self._keys(self._pool)
            new = {key: passage for key, passage in passages_by_key.items() if key not in stored}
            vectors = await embed(list(new.values())) if new else ()
            rows = [self._row(*row) for row in zip(new, new.values(), vectors, strict=True)]
            async with self._lock(self._corpus) as connection:
                deleted = [key for key in await self._keys(connection) if key not in passages_by_key]
                delete = f"DELETE FROM {self._table} WHERE corpus = $1 AND key = ANY($2::bytea[])"
                await connection.execute(delete, self._corpus, deleted)
                await connection.executemany(_INSERT.format(self._table), rows)
        except _FAILURES as error:
            raise StartError(f"the vector index in Postgres cannot be filled: {_reason(error)}") from error
        _log.info("vector index: %d passages, %d new, %d deleted", len(passages_by_key), len(new), len(deleted))

    async def _keys(self, connection: Any) -> set[bytes]:
        rows = await connection.fetch(f"SELECT key FROM {self._table} WHERE corpus = $1", self._corpus)
        return {bytes(row[0]) for row in rows}

    def _row(self, key: bytes, passage: Passage, vector: NDArray[float32]) -> tuple[Any, ...]:
        source, heading, text = map(_storable, (passage.source, passage.heading, passage.text))
        return self._corpus, key, source, heading, passage.page, text, _to_text(vector)

    async def search(self, vector: NDArray[float32], *, top_k: int, min_similarity: float) -> list[Passage]:
        query = (
            f"SELECT source, heading, text, page FROM {self._table}"
            " WHERE corpus = $1 AND 1 - (embedding <=> $2::text::vector) >= $3"
            " ORDER BY embedding <=> $2::text::vector LIMIT $4"
        )
        try:
            rows = await self._pool.fetch(query, self._corpus, _to_text(vector), min_similarity, top_k)
        except _FAILURES as error:
            _log.warning("the vector index in Postgres failed: %s", _reason(error))
            raise ToolError("The documents cannot be searched at the moment.") from error
        return [Passage(*row) for row in rows]

    @asynccontextmanager
    async def _lock(self, name: str) -> AsyncGenerator[Any]:
        """A transaction that holds a lock, so that replicas run it one after the other."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(_LOCK, name)
            yield connection


def _create_table(name: str, size: int) -> str:
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


def _to_text(vector: NDArray[float32]) -> str:
    return f"[{','.join(map(repr, vector.tolist()))}]"


def _storable(text: str) -> str:
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def _reason(error: BaseException) -> str:
    first = next(iter(str(error).splitlines()), "")  # the other lines are hints of the server
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
