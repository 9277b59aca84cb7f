"""What all tests share: an environment of their own, and real servers to talk to."""

import asyncio
import os
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings

from tests.postgres import database_url, running_pgvector, running_postgres

# How long an example takes says more of the machine's other work than of ours.
settings.register_profile("shared-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared-machine")

OURS = ("MYAGENT_", "DISCOVERY_", "AWS_", "OPENAI_", "OLLAMA_")


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the person who runs the tests reaches what is tested."""
    for name in [name for name in os.environ if name.startswith(OURS)]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def postgres_server() -> Generator[str]:
    """The URL of a real server's maintenance database."""
    pytest.importorskip("asyncpg", reason="needs the postgres extra")
    with running_postgres() as url:
        yield url


@pytest.fixture
async def postgres_url(postgres_server: str) -> AsyncGenerator[str]:
    """The URL of an empty database of this test's own."""
    async with _own_database(postgres_server) as url:
        yield url


@pytest.fixture(scope="session")
def pgvector_server(postgres_server: str) -> Generator[str]:
    """The URL of the maintenance database of a server with pgvector."""
    with running_pgvector(postgres_server, has_vector=asyncio.run(_has_vector(postgres_server))) as url:
        yield url


@pytest.fixture
async def pgvector_url(pgvector_server: str) -> AsyncGenerator[str]:
    """The URL of an empty database of this test's own, on a server with pgvector."""
    async with _own_database(pgvector_server) as url:
        yield url


@asynccontextmanager
async def _own_database(server: str) -> AsyncGenerator[str]:
    import asyncpg

    database = f"test_{uuid4().hex}"
    connection = await asyncpg.connect(server, timeout=10)
    try:
        await connection.execute(f"CREATE DATABASE {database} TEMPLATE template1")
        yield database_url(server, database)
        await connection.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
    finally:
        await connection.close(timeout=10)


async def _has_vector(server: str) -> bool:
    import asyncpg

    connection = await asyncpg.connect(server, timeout=10)
    try:
        return bool(await connection.fetchval("SELECT 1 FROM pg_available_extensions WHERE name = 'vector'"))
    finally:
        await connection.close(timeout=10)
