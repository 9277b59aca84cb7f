"""Both services against their own OpenAPI documents: whatever is sent, no 5xx, and no answer that is not described."""

import asyncio
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from agent_runtime import Agent
from agent_runtime.models.scripted import ScriptedModel
from agent_runtime.server.app import create_app
from discovery.app import create_app as create_registry
from discovery.settings import Settings
from discovery.tokens import read_tokens
from tests.agents import running, write_agent
from tests.serving import serve

SECONDS = 25  # of requests; the whole of it takes less than a minute
KEY = "key-one"
# What a document cannot say: that a cursor was given out before, that a session's name can be printed.
UNSAYABLE = "positive_data_acceptance"

pytest.importorskip("schemathesis", reason="needs the dev extra")


# What is too large to be read is refused before anybody looks at what is wrong with it.
CONFIG = """
[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 406, 409, 413, 415, 422, 428, 429, "5xx"]
"""


class Greeting(ScriptedModel):
    """Says the same for ever."""

    async def stream(self, messages: Any, tools: Any = (), **options: Any) -> AsyncGenerator[str]:
        yield "Hello."


async def fuzzed(url: str, folder: Path) -> str:
    """Let Schemathesis ask whatever it can think of; what it has to say, and nothing where all was well."""
    (folder / "schemathesis.toml").write_text(CONFIG)
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "--config-file", "schemathesis.toml",
        "run", f"{url}/openapi.json",
        "--header", f"Authorization: Bearer {KEY}", "--max-time", f"{SECONDS}", "--seed", "1",
        "--checks", "all", "--exclude-checks", UNSAYABLE, "--warnings", "off",
    ]  # fmt: skip
    async with asyncio.timeout(SECONDS + 60), running(command, folder) as process:
        out, err = await process.communicate()
    assert b"generated" in out, err.decode()
    return "" if process.returncode == 0 else out.decode() + err.decode()


async def test_the_registry_answers_as_it_says(tmp_path: Path) -> None:
    settings = Settings(database_url="memory://", tokens=read_tokens(f"admin:{KEY}"))
    async with serve(create_registry(settings)) as url:
        assert await fuzzed(url, tmp_path) == ""


async def test_an_agent_answers_as_it_says(tmp_path: Path) -> None:
    file = write_agent(tmp_path, agent_type="stateful", server={"api_keys": [KEY]}, tools=["calculator:add"])
    async with Agent(file, model=Greeting([]), environment={}) as agent, serve(create_app(agent)) as url:
        assert await fuzzed(url, tmp_path) == ""
