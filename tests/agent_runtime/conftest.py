import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest


@pytest.fixture(params=["sqlite", "postgres"])
def durable(request: pytest.FixtureRequest) -> str:
    """The URL of a session store that outlives the process; a SQLite file lies beside the agent's."""
    return request.getfixturevalue("postgres_url") if request.param == "postgres" else "sqlite:///sessions.db"


@pytest.fixture
async def role(postgres_url: str) -> AsyncGenerator[tuple[str, Any, str]]:
    """A role whose password the server asks for, a connection that may change it, and the URL with a placeholder."""
    import asyncpg

    name = f"role_{uuid4().hex}"
    connection: Any = await asyncpg.connect(postgres_url, timeout=10)
    try:
        rules = Path(await connection.fetchval("SHOW hba_file"))
        before = await asyncio.to_thread(rules.read_text)
    except OSError:
        await connection.close()
        pytest.skip("the rules of this Postgres cannot be edited from here")
    try:
        asked = f"local all {name} scram-sha-256\nhost all {name} all scram-sha-256\n"
        await asyncio.to_thread(rules.write_text, asked + before)
        await connection.execute("SELECT pg_reload_conf()")
        await connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'pw-old'")
        await connection.execute(f"GRANT ALL ON SCHEMA public TO {name}")
        parts = urlsplit(postgres_url)
        place = parts.netloc.rpartition("@")[2]
        yield name, connection, parts._replace(netloc=f"{name}:${{secret:password}}@{place}").geturl()
    finally:
        await asyncio.to_thread(rules.write_text, before)
        await connection.execute("SELECT pg_reload_conf()")
        await connection.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")
        await connection.close()
