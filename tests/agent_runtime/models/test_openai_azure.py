"""A deployment in Azure: a real HTTP server with Azure's address scheme, and one that gives Entra tokens."""

import asyncio
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from agent_runtime import ModelError, StartError, Usage
from agent_runtime.config import ModelConfig
from agent_runtime.events import Message, ModelChunk
from agent_runtime.models import model_for
from tests.openai_server import Reply, refuses, says, serving_openai
from tests.serving import serve

KEY = "azure-hush-hush"
QUESTION = [Message("user", "2 + 3?")]


def config(address: str, **more: Any) -> ModelConfig:
    return ModelConfig.model_validate(
        {"provider": "azure_openai", "deployment": "gpt-4o", "endpoint": address, "max_retries": 0, **more}
    )


async def ask(address: str, **more: Any) -> list[ModelChunk]:
    async with asyncio.timeout(20), model_for(config(address, **more)) as model:
        return [chunk async for chunk in model.stream(QUESTION)]


async def test_a_deployment_is_asked_at_its_own_address_with_its_key_and_version() -> None:
    async with serving_openai(says("five", usage=(3, 1))) as server:
        assert await ask(server.resource, api_key=KEY, api_version="2025-01-01") == ["five", Usage(3, 1)]
    [asked] = server.asked
    assert (asked.deployment, asked.headers["api-key"]) == ("gpt-4o", KEY)
    assert asked.query == {"api-version": "2025-01-01"}
    assert asked.body["messages"] == [{"role": "user", "content": "2 + 3?"}]


def test_a_label_names_the_deployment_and_no_address() -> None:
    assert model_for(config("https://secret-resource.openai.azure.com", api_key=KEY)).label == "azure_openai/gpt-4o"


@pytest.mark.parametrize(
    ("reply", "fault", "message"),
    [
        (refuses(401, f"Bad key {KEY}"), "auth", "the provider refused model.api_key for gpt-4o (HTTP 401)"),
        (refuses(404, code="DeploymentNotFound"), "not_found", "the provider knows no deployment gpt-4o"),
        (refuses(429, "Requests to … have exceeded call rate limit"), "rate_limited", "the model gpt-4o is rate"),
        (refuses(403, "Out of call volume quota."), "quota", "the quota for the model gpt-4o is used up"),
        (
            refuses(400, "This model's maximum context length is 128000 tokens.", code="context_length_exceeded"),
            "context_overflow",
            "the conversation is too long for the model gpt-4o",
        ),
    ],
)  # fmt: skip
async def test_azures_refusals_say_whose_turn_it_is(reply: Reply, fault: str, message: str) -> None:
    async with serving_openai(reply) as server:
        with pytest.raises(ModelError) as caught:
            await ask(server.resource, api_key=KEY)
    assert (caught.value.fault, str(caught.value)[: len(message)]) == (fault, message)
    assert KEY not in str(caught.value)


# --- signing in with Entra ID


@asynccontextmanager
async def managed_identity(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[list[dict[str, str]]]:
    """The service that gives a program in Azure the tokens of the identity it runs under; what it was asked."""
    asked: list[dict[str, str]] = []
    app = FastAPI()

    @app.get("/token")
    async def _(request: Request) -> JSONResponse:
        asked.append(dict(request.query_params))
        token = {"access_token": "entra-token", "expires_on": str(int(time.time()) + 3600), "token_type": "Bearer"}
        return JSONResponse({**token, "resource": request.query_params["resource"]})

    async with serve(app) as address:
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{address}/token")
        monkeypatch.setenv("IDENTITY_HEADER", "header")
        yield asked


@pytest.mark.filterwarnings("default")  # of a foreign library
async def test_without_a_key_it_signs_in_as_the_identity_it_runs_under(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("azure.identity.aio", reason="needs the azure extra")
    async with (
        asyncio.timeout(20),
        managed_identity(monkeypatch) as tokens,
        serving_openai(says("five"), says("six")) as server,
        model_for(config(server.resource)) as model,
    ):
        for expected in ("five", "six"):
            assert [chunk async for chunk in model.stream(QUESTION)] == [expected, Usage(10, 5)]
    assert [asked.headers["authorization"] for asked in server.asked] == ["Bearer entra-token"] * 2
    assert [asked["resource"] for asked in tokens] == ["https://cognitiveservices.azure.com"]


@pytest.mark.filterwarnings("default")  # of a foreign library
async def test_an_identity_that_gets_no_token_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("azure.identity.aio", reason="needs the azure extra")
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")  # asks nobody on this machine
    with pytest.raises(ModelError, match=r"^no Entra token for the deployment gpt-4o: ") as caught:
        await ask("http://127.0.0.1:9")
    assert caught.value.fault == "auth"
    assert "\n" not in str(caught.value)


async def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "azure.identity.aio", None)  # as Python marks what cannot be imported
    with pytest.raises(StartError, match=r"model\.api_key is not set, and .*: pip install 'myagent\[azure\]'"):
        await ask("http://127.0.0.1:9")


# --- the file


@pytest.mark.parametrize(
    ("section", "path"),
    [
        ({"endpoint": "https://a"}, ("deployment",)),
        ({"deployment": "gpt-4o"}, ("endpoint",)),
        ({"deployment": "gpt-4o", "endpoint": "https://a", "name": "gpt-4o"}, ("name",)),
        ({"deployment": "gpt-4o", "endpoint": "https://a", "api_version": "x y"}, ("api_version",)),
        ({"provider": "openai", "name": "a", "api_key": "k", "deployment": "b"}, ("deployment",)),
        ({"provider": "openai", "name": "a", "api_key": "k", "api_version": "b"}, ("api_version",)),
        ({"provider": "local", "deployment": "b"}, ("deployment",)),
        ({"deployment": "a", "endpoint": "https://a", "fallback": [{"fallback": []}]}, ("fallback",)),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_named(section: dict[str, Any], path: tuple[str, ...]) -> None:
    from pydantic import ValidationError

    with pytest.raises(ValidationError) as caught:
        ModelConfig.model_validate({"provider": "azure_openai", **section})
    assert [error["loc"] for error in caught.value.errors()] == [path]
