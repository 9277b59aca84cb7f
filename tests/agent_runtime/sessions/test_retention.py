"""Conversations that nobody goes on with are deleted in the background."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent_runtime import StoreError
from agent_runtime.events import Message
from agent_runtime.models.scripted import ScriptedModel
from agent_runtime.sessions import SessionKey, retention, store_for
from agent_runtime.sessions.sqlite import SqliteSessions
from tests.agent_runtime.sessions.test_schema import run_sql
from tests.agent_runtime.speaking import scripted_agent
from tests.agents import eventually

TURN = [Message("user", "q"), Message("assistant", "a")]
OLD, NEW = SessionKey("helper", "", "old"), SessionKey("helper", "", "new")


async def test_an_agent_deletes_what_is_too_old_when_it_is_opened(durable: str, tmp_path: Path) -> None:
    async with store_for(durable, tmp_path) as store:
        await store.append(OLD, TURN)
        await store.append(NEW, TURN)
        await run_sql(
            durable,
            tmp_path,
            "UPDATE session_messages SET created_at = '2020-01-01T00:00:00.000Z' WHERE session_id = 'old'",
        )
        session = {"store": durable, "ttl_days": 30}
        async with scripted_agent(tmp_path, "native", ScriptedModel([]), agent_type="stateful", session=session):

            async def gone() -> bool:
                return await store.count(OLD) == 0

            await eventually(gone)
            assert await store.count(NEW) == 2


async def test_without_a_time_to_live_nothing_is_deleted(tmp_path: Path) -> None:
    async with store_for("memory", tmp_path) as store:
        await store.append(OLD, TURN)
        before = asyncio.all_tasks()
        async with retention(store, "helper", None):
            assert asyncio.all_tasks() == before
        assert await store.count(OLD) == 2


async def test_a_pass_that_fails_is_logged_and_the_next_one_comes(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(SqliteSessions):
        passes = 0

        async def expire(self, agent: str, *, before: datetime, limit: int) -> int:
            self.passes += 1
            if self.passes == 1:
                raise StoreError("the database is away")
            return await super().expire(agent, before=before, limit=limit)

    async with Failing(None) as store:
        await store.append(OLD, TURN)
        with caplog.at_level(logging.WARNING, "agent_runtime"):
            async with retention(
                store, "helper", 2, interval_seconds=0.01, now=lambda: datetime.now(UTC) + timedelta(days=3)
            ):

                async def gone() -> bool:
                    return await store.count(OLD) == 0

                await eventually(gone)
    assert "helper: old sessions could not be deleted: StoreError: the database is away" in caplog.text


async def test_nothing_is_left_running_when_the_block_ends(tmp_path: Path) -> None:
    async with store_for("memory", tmp_path) as store:
        async with retention(store, "helper", 1):
            assert any(task.get_name() == "retention of helper" for task in asyncio.all_tasks())
        assert not any(task.get_name() == "retention of helper" for task in asyncio.all_tasks())
