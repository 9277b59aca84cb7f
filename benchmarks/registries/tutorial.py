"""A registry as a tutorial writes it: FastAPI, a table, a connection and a commit for each request.

python -m benchmarks.registries.tutorial FILE
"""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Generator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.registries.serving import serve

TABLE = """
CREATE TABLE IF NOT EXISTS agents (
    name TEXT PRIMARY KEY, endpoint TEXT NOT NULL, agent_type TEXT NOT NULL, version TEXT NOT NULL,
    tools TEXT NOT NULL, details TEXT NOT NULL, last_seen TEXT NOT NULL
)
"""
PUT = "INSERT OR REPLACE INTO agents VALUES (?, ?, ?, ?, ?, ?, ?)"


class Agent(BaseModel):
    """What an agent says of itself."""

    name: str
    endpoint: str
    agent_type: str
    version: str
    tools: list[dict[str, Any]]
    boot_id: str | None = None
    ttl_seconds: float | None = None
    description: str | None = None
    owner: str | None = None
    tags: list[str] = []
    protocols: list[str] = []
    model: str | None = None


def application(path: str) -> FastAPI:
    """The whole of it. As durable as ours: WAL, and every commit is synced."""

    @contextmanager
    def connected() -> Generator[sqlite3.Connection]:
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("PRAGMA synchronous = FULL")
            yield connection

    app = FastAPI()
    with connected() as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(TABLE)

    def register(agent: Agent) -> dict[str, str]:
        said = agent.model_dump()
        tools = json.dumps(said.pop("tools"))
        columns = (agent.name, agent.endpoint, agent.agent_type, agent.version, tools, json.dumps(said))
        with connected() as connection:
            connection.execute(PUT, (*columns, datetime.now(UTC).isoformat()))
        return {"name": agent.name}

    def agents() -> list[dict[str, Any]]:
        with connected() as connection:
            found = connection.execute("SELECT tools, details, last_seen FROM agents ORDER BY name").fetchall()
        return [json.loads(details) | {"tools": json.loads(tools), "last_seen": seen} for tools, details, seen in found]

    register.__annotations__ = {"agent": Agent, "return": dict[str, str]}
    app.post("/register")(register)
    app.get("/agents")(agents)
    return app


if __name__ == "__main__":
    serve(application(sys.argv[1]))
