"""Opening a connection: an attempt that fails, or is cancelled at any moment, leaves nothing behind."""

import asyncio
import sqlite3
import threading
from pathlib import Path

import pytest

from infrastructure.sqlite import connect


async def cancelled_after(turns: int, path: Path | str) -> None:
    """Open and close a connection in a task that is cancelled after so many turns of the event loop."""

    async def use() -> None:
        connection = await connect(path)
        try:
            await asyncio.Event().wait()
        finally:
            await connection.close()

    task = asyncio.create_task(use())
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("name", [":memory:", "a.db"])
def test_a_cancelled_attempt_leaves_no_thread_that_reports_to_a_closed_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    errors: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", errors.append)
    running = set(threading.enumerate())
    for turns in range(1, 30):
        asyncio.run(cancelled_after(turns, name if name == ":memory:" else tmp_path / name))
    for thread in set(threading.enumerate()) - running:
        thread.join(timeout=5)
    assert errors == []
    assert set(threading.enumerate()) <= running


def test_a_file_that_cannot_be_opened_is_an_error_of_the_driver_and_leaves_no_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", errors.append)
    running = set(threading.enumerate())
    for _ in range(20):
        with pytest.raises(sqlite3.OperationalError):
            asyncio.run(connect(tmp_path / "missing" / "a.db"))
    assert errors == []
    assert set(threading.enumerate()) <= running
