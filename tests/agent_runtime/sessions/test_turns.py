"""One turn of a session at a time: within a process, and among processes that share a store."""

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from shutil import rmtree

import pytest

from agent_runtime import SessionBusy, StoreError
from agent_runtime.events import Message
from agent_runtime.secrets import Credential
from agent_runtime.sessions import SessionKey, SessionStore
from agent_runtime.sessions.postgres import PostgresSessions
from agent_runtime.sessions.sqlite import SqliteSessions
from tests.agent_runtime.sessions.replica import Counting, replica
from tests.agents import eventually, running

KEY = SessionKey("helper", "ada", "s1")
OTHER = SessionKey("helper", "ada", "s2")


def store(url: str, folder: Path, *, wait_seconds: float) -> SessionStore:
    if url == "memory":
        return SqliteSessions(None, wait_seconds=wait_seconds)
    if url.startswith("sqlite"):
        return SqliteSessions(folder / "sessions.db", wait_seconds=wait_seconds)
    return PostgresSessions(Credential(url), wait_seconds=wait_seconds)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue("postgres_url") if request.param == "postgres" else request.param


@asynccontextmanager
async def two(url: str, folder: Path, *, wait_seconds: float) -> AsyncGenerator[tuple[SessionStore, SessionStore]]:
    """Two stores on the same data, as two processes have them; in memory it can only be the same one."""
    async with asyncio.timeout(20), store(url, folder, wait_seconds=wait_seconds) as first:
        if url == "memory":
            yield first, first
            return
        async with store(url, folder, wait_seconds=wait_seconds) as second:
            yield first, second


async def test_a_second_turn_of_a_session_begins_when_the_first_is_over(url: str, tmp_path: Path) -> None:
    order: list[str] = []

    async def turn(on: SessionStore, name: str) -> None:
        async with on.turn(KEY):
            order.append(f"{name} begins")
            await asyncio.sleep(0)
            order.append(f"{name} ends")

    async with two(url, tmp_path, wait_seconds=10) as (first, second):
        async with first.turn(KEY):
            waiting = [asyncio.create_task(turn(on, name)) for on, name in ((first, "a"), (second, "b"), (second, "c"))]
            async with second.turn(OTHER):  # another session waits for nobody
                assert order == []
        await asyncio.gather(*waiting)
    assert [line.split()[1] for line in order] == ["begins", "ends"] * 3


async def test_who_waits_for_too_long_is_told_that_the_session_is_busy(url: str, tmp_path: Path) -> None:
    async with two(url, tmp_path, wait_seconds=0.1) as stores:
        async with stores[0].turn(KEY):
            for other in stores:
                with pytest.raises(SessionBusy, match="another turn of this session is still running"):
                    async with other.turn(KEY):
                        pass
        for other in stores:  # and its waiting has left nothing behind
            async with other.turn(KEY):
                pass


async def test_a_turn_that_is_cancelled_frees_the_session(url: str, tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def turn(on: SessionStore) -> None:
        async with on.turn(KEY):
            begun.set()
            await asyncio.Event().wait()

    async with two(url, tmp_path, wait_seconds=10) as (first, second):
        holding = asyncio.create_task(turn(first))
        await begun.wait()
        waiting = [asyncio.create_task(turn(on)) for on in (first, second)]
        async with first.turn(OTHER):
            pass
        for task in (*waiting, holding):
            task.cancel()
        await asyncio.wait([*waiting, holding])
        for on in (second, first):
            async with on.turn(KEY):
                pass


async def test_a_turn_that_failed_frees_the_session(url: str, tmp_path: Path) -> None:
    async with two(url, tmp_path, wait_seconds=5) as (first, second):
        with pytest.raises(RuntimeError):
            async with first.turn(KEY):
                raise RuntimeError
        async with second.turn(KEY):
            pass


async def test_a_process_with_many_turns_does_not_starve_another(durable: str, tmp_path: Path) -> None:
    async with two(durable, tmp_path, wait_seconds=20) as (busy, other):
        done = 0

        async def turn() -> None:
            nonlocal done
            async with busy.turn(KEY):
                await asyncio.sleep(0.01)
                done += 1

        queue = [asyncio.create_task(turn()) for _ in range(100)]
        await asyncio.sleep(0)
        async with other.turn(KEY):
            assert done < 90
        await asyncio.gather(*queue)


async def test_many_sessions_at_once_need_no_connection_each(postgres_url: str, tmp_path: Path) -> None:
    gate, begun = asyncio.Event(), asyncio.Semaphore(0)

    async def turn(on: SessionStore, number: int) -> None:
        async with on.turn(SessionKey("helper", "ada", f"s{number}")):
            begun.release()
            await gate.wait()

    async with asyncio.timeout(20), store(postgres_url, tmp_path, wait_seconds=10) as opened:
        tasks = [asyncio.create_task(turn(opened, number)) for number in range(200)]  # the server takes 50 connections
        for _ in tasks:
            await begun.acquire()
        gate.set()
        await asyncio.gather(*tasks)


async def test_a_turn_whose_lock_was_lost_is_not_kept(postgres_url: str, tmp_path: Path) -> None:
    import asyncpg

    async def lost() -> bool:
        try:
            await opened.append(KEY, [])
        except StoreError as error:
            return "the connection that locked this session was lost" in str(error)
        return False

    async with asyncio.timeout(20), store(postgres_url, tmp_path, wait_seconds=10) as opened:
        async with opened.turn(KEY):
            admin = await asyncpg.connect(postgres_url)
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid IN"
                " (SELECT pid FROM pg_locks WHERE locktype = 'advisory')"
            )
            await admin.close()
            await eventually(lost)
        async with opened.turn(KEY):
            await opened.append(KEY, [Message("user", "again"), Message("assistant", "ok")])


async def test_a_database_that_is_gone_is_a_store_error_and_no_busy_session(
    postgres_url: str, postgres_server: str, tmp_path: Path
) -> None:
    import asyncpg

    async with asyncio.timeout(20), store(postgres_url, tmp_path, wait_seconds=10) as opened:
        async with opened.turn(KEY):
            pass
        admin = await asyncpg.connect(postgres_server)
        name = postgres_url.split("?")[0].rsplit("/", 1)[1]
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.close()

        async def refused() -> bool:
            with pytest.raises(StoreError, match="the session store in Postgres failed: "):
                async with opened.turn(KEY):
                    pass
            return True

        assert await refused()
        assert await refused()


async def test_locks_whose_folder_was_cleaned_up_are_made_anew(tmp_path: Path) -> None:
    async with asyncio.timeout(20), store("sqlite", tmp_path, wait_seconds=10) as opened:
        rmtree(tmp_path / ".myagent")
        async with opened.turn(KEY):
            pass


# --- real processes


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "tests.agent_runtime.sessions.replica", *map(str, arguments)]


async def test_fifty_turns_of_one_session_in_two_processes_keep_the_history_in_order(
    durable: str, tmp_path: Path
) -> None:
    root = Path(__file__).parents[3]
    async with (
        asyncio.timeout(60),
        running(command("turns", tmp_path / "a", _shared(durable, tmp_path), "a", 25), root) as first,
        running(command("turns", tmp_path / "b", _shared(durable, tmp_path), "b", 25), root) as second,
    ):
        for process in (first, second):
            _, errors = await process.communicate()
            assert (process.returncode, errors.decode()) == (0, "")
    async with replica(tmp_path / "c", _shared(durable, tmp_path), Counting()) as agent:
        history = await agent.history("s")
    assert [message.role for message in history] == ["user", "assistant"] * 50
    # Each turn was shown all turns before it and no half one.
    assert [message.content for message in history if message.role == "assistant"] == [
        str(2 * n + 1) for n in range(50)
    ]
    assert {message.content for message in history if message.role == "user"} == {
        f"{name} {number}" for name in "ab" for number in range(25)
    }


async def test_a_process_that_is_killed_in_a_turn_leaves_no_half_turn_and_frees_the_session(
    durable: str, tmp_path: Path
) -> None:
    url = _shared(durable, tmp_path)
    async with asyncio.timeout(30):
        async with running(command("hang", tmp_path / "a", url), Path(__file__).parents[3]) as process:
            assert process.stdout
            assert await process.stdout.readline() == b"called\n"
            process.kill()
            await process.wait()
        async with replica(tmp_path / "b", url, Counting()) as agent:
            assert (await agent.run("next", session_id="s")).answer == "1"
            assert [message.content for message in await agent.history("s")] == ["next", "1"]


def _shared(url: str, folder: Path) -> str:
    """One SQLite file for replicas whose agent files lie in different folders."""
    return f"sqlite:///{folder / 'sessions.db'}" if url.startswith("sqlite") else url
