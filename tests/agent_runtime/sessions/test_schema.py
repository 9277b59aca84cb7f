"""A database is brought to this version by whoever opens it first, and never by a program that is older than it."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agent_runtime import StartError
from agent_runtime.events import Message
from agent_runtime.sessions import SessionKey, Summary, store_for
from agent_runtime.sessions.database import MIGRATIONS
from agent_runtime.sessions.postgres import PostgresSessions
from agent_runtime.sessions.sqlite import SqliteSessions

KEY = SessionKey("helper", "ada", "s1")


async def run_sql(url: str, folder: Path, *statements: str) -> list[Any]:
    """Run statements from outside the store; returns the rows of the last one."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(folder / "sessions.db")) as connection:
            rows = [connection.execute(statement).fetchall() for statement in statements]
            connection.commit()
            return rows[-1]
    import asyncpg

    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in [await connection.fetch(statement) for statement in statements][-1]]
    finally:
        await connection.close()


def unversioned(url: str) -> tuple[str, ...]:
    store = SqliteSessions if url.startswith("sqlite") else PostgresSessions
    return (
        *(statement.format(identity=store.identity, timestamp=store.timestamp) for statement in MIGRATIONS[0]),
        "INSERT INTO session_messages (agent, owner, session_id, role, content)"
        " VALUES ('helper', 'ada', 's1', 'user', 'q')",
    )


async def test_a_new_database_has_the_newest_version(durable: str, tmp_path: Path) -> None:
    async with store_for(durable, tmp_path):
        assert await run_sql(durable, tmp_path, "SELECT version FROM session_schema") == [(len(MIGRATIONS),)]


async def test_a_database_without_a_version_is_migrated_and_keeps_its_rows(durable: str, tmp_path: Path) -> None:
    await run_sql(durable, tmp_path, *unversioned(durable))
    async with store_for(durable, tmp_path) as store:
        assert await store.load(KEY, limit=10) == [Message("user", "q")]
        await store.save_summary(KEY, Summary("a question", 1))
    assert await run_sql(durable, tmp_path, "SELECT version FROM session_schema") == [(len(MIGRATIONS),)]


async def test_replicas_that_start_together_migrate_once(durable: str, tmp_path: Path) -> None:
    await run_sql(durable, tmp_path, *unversioned(durable))
    stores = [store_for(durable, tmp_path) for _ in range(6)]
    async with asyncio.timeout(20):
        await asyncio.gather(*(store.__aenter__() for store in stores))
        assert await run_sql(durable, tmp_path, "SELECT version FROM session_schema") == [(len(MIGRATIONS),)]
        await asyncio.gather(*(store.__aexit__(None, None, None) for store in stores))


async def test_a_database_with_a_newer_schema_is_refused_and_not_changed(durable: str, tmp_path: Path) -> None:
    async with store_for(durable, tmp_path):
        pass
    await run_sql(durable, tmp_path, "UPDATE session_schema SET version = 99")
    with pytest.raises(StartError, match=r"was made by a newer myagent \(its schema is version 99, this one knows "):
        async with store_for(durable, tmp_path):
            pass
    assert await run_sql(durable, tmp_path, "SELECT version FROM session_schema") == [(99,)]


async def test_a_migration_that_fails_changes_nothing(durable: str, tmp_path: Path) -> None:
    name = "CREATE TABLE session_summaries (something text)"  # conflicts with the second migration
    await run_sql(durable, tmp_path, *unversioned(durable), name)
    with pytest.raises(StartError, match=r"cannot be opened: .*already exists"):
        async with store_for(durable, tmp_path):
            pass
    await run_sql(durable, tmp_path, "DROP TABLE session_summaries")
    async with store_for(durable, tmp_path) as store:
        assert await store.count(KEY) == 1
