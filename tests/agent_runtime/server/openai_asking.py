"""OpenAI's own client, asking a served agent over a real socket."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from agent_runtime import Usage
from agent_runtime.models.scripted import ScriptedModel
from tests.agent_runtime.server.served import serving
from tests.agent_runtime.speaking import Speaker

SAY = Speaker("native")
HI: Any = [{"role": "user", "content": "hi"}]


@asynccontextmanager
async def asking(
    folder: Path, model: ScriptedModel, *, key: str = "none", **sections: Any
) -> AsyncGenerator[AsyncOpenAI]:
    async with (
        serving(folder, model, **sections) as http,
        AsyncOpenAI(base_url=f"{http.base_url}/v1", api_key=key, max_retries=0, timeout=10) as client,
    ):
        yield client


def adding() -> ScriptedModel:
    """Calls a tool of the agent's own, and then answers."""
    return ScriptedModel([SAY.calls("add", a=2, b=3, usage=Usage(10, 2)), ["It is ", "5.", Usage(20, 3)]])


def error_of(refused: pytest.ExceptionInfo[openai.APIStatusError]) -> dict[str, Any]:
    """What the body says, after a check of its shape and of what else an error has."""
    body = refused.value.response.json()
    assert list(body) == ["error"]
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert refused.value.response.headers["content-type"] == "application/json"
    assert refused.value.response.headers["x-request-id"]
    return body["error"]
