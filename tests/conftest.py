"""What all tests share: an environment of their own, and real servers to talk to."""

import os
from collections.abc import AsyncGenerator, Generator
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings

from tests.postgres import database_url, running_postgres

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
    import asyncpg

    database = f"test_{uuid4().hex}"
    connection = await asyncpg.connect(postgres_server, timeout=10)
    try:
        await connection.execute(f"CREATE DATABASE {database} TEMPLATE template1")
        yield database_url(postgres_server, database)
        await connection.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
    finally:
        await connection.close(timeout=10)
