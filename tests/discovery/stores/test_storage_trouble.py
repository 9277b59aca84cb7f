"""A disk that is full and a file that may not be written, with the registry as a process of its own."""

import ctypes
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.discovery.conftest import MINIMAL, eventually
from tests.discovery.test_command import SECONDS, environment

FULL_BYTES = 400 * 1024

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of a running process are Linux's")


@contextmanager
def registry(database: Path, **options: Any) -> Iterator[tuple[subprocess.Popen[str], httpx.AsyncClient]]:
    command = [sys.executable, "-m", "discovery", "--port", "0", "--database-url", f"sqlite:///{database}"]
    process = subprocess.Popen(
        command, cwd=database.parent, stdout=subprocess.PIPE, text=True, env=environment(), **options
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().rpartition(" ")[2].strip()
        yield process, httpx.AsyncClient(base_url=url, trust_env=False, timeout=SECONDS)
    finally:
        process.kill()
        process.communicate(timeout=SECONDS)


def _obey_file_modes() -> None:
    """Nothing is read-only to root, unless it gives that up (CAP_DAC_OVERRIDE, for what it executes next)."""
    if os.geteuid() == 0:
        ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)


def _limit_files(pid: int, size_bytes: int) -> None:
    """The files of a process may not grow larger."""
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size_bytes, resource.RLIM_INFINITY))


def _writable(folder: Path, writable: bool) -> None:
    for path in [folder, *folder.iterdir()]:
        path.chmod((0o755 if path.is_dir() else 0o644) if writable else (0o555 if path.is_dir() else 0o444))


async def answer(http: httpx.AsyncClient, name: str, **more: Any) -> int:
    return (await http.post("/register", json=MINIMAL | {"name": name} | more)).status_code


async def test_a_full_disk_is_503_and_all_that_was_acknowledged_is_there_when_there_is_room(tmp_path: Path) -> None:
    database = tmp_path / "registry.db"
    bulk = {"metadata": {"x": "y" * 15_000}, "ttl_seconds": 60}
    with registry(database) as (process, http):
        async with http:
            _limit_files(process.pid, FULL_BYTES)
            kept: list[str] = []
            while (status := await answer(http, f"agent-{len(kept):03}", **bulk)) == 201:
                kept.append(f"agent-{len(kept):03}")
                assert len(kept) < 500
            assert status == 503
            trouble = await http.get("/readyz")
            assert (trouble.status_code, trouble.json()["code"]) == (503, "store_unavailable")
            assert str(database) in trouble.json()["detail"]
            assert await answer(http, kept[0], **bulk) == 200  # a heartbeat needs no disk
            assert [agent["name"] for agent in (await http.get("/agents")).json()] == kept
            _limit_files(process.pid, resource.RLIM_INFINITY)

            async def is_taken() -> bool:
                return await answer(http, "late", **bulk) in {200, 201}

            await eventually(is_taken, 15)
            assert (await http.get("/readyz")).status_code == 200
    with registry(database) as (_, http):
        async with http:
            assert [agent["name"] for agent in (await http.get("/agents")).json()] == [*kept, "late"]


async def test_a_file_that_may_not_be_written_is_503_until_it_may(tmp_path: Path) -> None:
    database = tmp_path / "registry.db"
    with registry(database) as (_, http):
        async with http:
            assert await answer(http, "kept") == 201
    _writable(tmp_path, False)
    with registry(database, preexec_fn=_obey_file_modes) as (_, http):
        async with http:
            trouble = await http.get("/readyz")
            assert trouble.status_code == 503
            assert "readonly" in trouble.json()["detail"] or "unable to open" in trouble.json()["detail"]
            assert await answer(http, "new") == 503
            _writable(tmp_path, True)

            async def is_taken() -> bool:
                return await answer(http, "new") in {200, 201}

            await eventually(is_taken, 15)
            assert [agent["name"] for agent in (await http.get("/agents")).json()] == ["kept", "new"]
