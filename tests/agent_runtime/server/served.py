"""A served agent for a test, and what every problem of it has in common."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from agent_runtime import Agent
from agent_runtime.models.scripted import ScriptedModel
from agent_runtime.server.app import create_app
from tests.agents import write_agent
from tests.serving import serve


@asynccontextmanager
async def serving(
    folder: Path, model: ScriptedModel | None, /, *, environment: dict[str, str] | None = None, **sections: Any
) -> AsyncGenerator[httpx.AsyncClient]:
    """A served agent over the calculator's tools, with this model in place of its file's, and a client of it."""
    file = write_agent(folder, **{"tools": ["calculator:add", "calculator:shout"], **sections})
    async with (
        asyncio.timeout(20),
        Agent(file, model=model, environment=environment or {}) as agent,
        serve(create_app(agent)) as url,
        httpx.AsyncClient(base_url=url, trust_env=False, timeout=10) as client,
    ):
        yield client


def events(body: str) -> list[tuple[str, str, Any]]:
    """Id, name and data of every server-sent event."""
    found: list[tuple[str, str, Any]] = []
    for block in body.replace("\r\n", "\n").strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            found.append((fields["id"], fields["event"], json.loads(fields["data"])))
    return found


def is_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem's body, after a check of what every one of them has."""
    body = answer.json()
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert {"type", "title", "status", "code", "detail", "request_id"} <= body.keys()
    assert (body["status"], body["code"]) == (status, code)
    assert answer.headers["x-request-id"] == body["request_id"]
    return body
