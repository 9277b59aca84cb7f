"""Several models as one."""

import asyncio
import logging
from pathlib import Path

import pytest

from agent_runtime import Agent, ModelError
from agent_runtime.config import ModelConfig
from agent_runtime.errors import ModelFault
from agent_runtime.events import Message, ModelChunk
from agent_runtime.models import FallbackModel, model_for
from agent_runtime.models.scripted import Reply, ScriptedModel
from tests.agents import write_agent
from tests.openai_server import refuses, says, serving_openai, streams

QUESTION = [Message("user", "2 + 3?")]
HALF = {"choices": [{"delta": {"content": "Half"}}]}


class Named(ScriptedModel):
    """A scripted model that can be told from another; knows whether it is open."""

    def __init__(self, label: str, replies: list[Reply]) -> None:
        super().__init__(replies)
        self.label = label
        self.is_open = False

    async def __aenter__(self) -> ScriptedModel:
        self.is_open = True
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.is_open = False


async def said(model: FallbackModel) -> list[ModelChunk]:
    return [chunk async for chunk in model.stream(QUESTION)]


@pytest.mark.parametrize("fault", ["unreachable", "rate_limited", "quota", "context_overflow", "failed"])
async def test_the_next_model_answers_where_the_one_before_cannot(fault: ModelFault) -> None:
    first, second = Named("first", [ModelError("away", fault=fault)]), Named("second", ["five"])
    async with FallbackModel([first, second]) as model:
        assert await said(model) == ["five"]
        assert (model.label, model.answering) == ("first", "second")
        assert second.asked == first.asked


async def test_a_model_that_was_refused_hides_behind_no_other() -> None:
    async with FallbackModel([Named("a", [ModelError("key", fault="auth")]), Named("b", ["five"])]) as model:
        with pytest.raises(ModelError, match="key"):
            await said(model)


async def test_a_reply_that_was_begun_is_not_begun_again_by_another() -> None:
    half = [streams(HALF, whole=False)]
    async with serving_openai(*half) as broken, serving_openai(says("five")) as whole:
        model = model_for(config(broken.url, whole.url))
        received: list[ModelChunk] = []
        async with asyncio.timeout(10), model:
            with pytest.raises(ModelError, match="the connection to the model first broke"):
                received += [chunk async for chunk in model.stream(QUESTION)]
        assert whole.asked == []


def config(*urls: str) -> ModelConfig:
    first, *others = (
        {"provider": "openai", "name": name, "endpoint": url, "max_retries": 0}
        for name, url in zip(("first", "second", "third"), urls, strict=False)
    )
    return ModelConfig.model_validate({**first, "fallback": others})


async def test_when_none_can_answer_the_last_one_says_why() -> None:
    models = [Named("a", [ModelError("a is away")]), Named("b", [ModelError("b is away")])]
    async with FallbackModel(models) as model:
        with pytest.raises(ModelError, match="b is away"):
            await said(model)


async def test_a_change_of_the_model_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    away = ModelError("too many", fault="rate_limited")
    first, second = Named("first", [away, away, "one"]), Named("second", ["two", "two"])
    with caplog.at_level(logging.INFO, "agent_runtime"):
        async with FallbackModel([first, second]) as model:
            assert [await said(model) for _ in range(3)] == [["two"], ["two"], ["one"]]
    assert [record.getMessage() for record in caplog.records] == [
        "second answers in place of first: too many",
        "first answers again",
    ]


async def test_all_models_are_opened_and_closed_together() -> None:
    models = [Named("a", []), Named("b", [])]
    async with FallbackModel(models):
        assert [model.is_open for model in models] == [True, True]
    assert [model.is_open for model in models] == [False, False]


async def test_a_model_that_cannot_be_opened_closes_the_others() -> None:
    class Closed(Named):
        async def __aenter__(self) -> ScriptedModel:
            raise RuntimeError("no weights")

    first = Named("a", [])
    with pytest.raises(RuntimeError, match="no weights"):
        async with FallbackModel([first, Closed("b", [])]):
            pass
    assert not first.is_open


async def test_the_fallbacks_of_a_file_are_asked_in_its_order(tmp_path: Path) -> None:
    async with (
        serving_openai(refuses(429, code="insufficient_quota")) as first,
        serving_openai(refuses(400, "This model's maximum context length is 8192 tokens.")) as second,
        serving_openai(says("five")) as third,
    ):
        section = config(first.url, second.url, third.url).model_dump(exclude_defaults=True)
        async with asyncio.timeout(10), Agent(write_agent(tmp_path, model=section), environment={}) as agent:
            assert (await agent.run("2 + 3?")).answer == "five"
            assert agent.model_label == "openai/first"
            assert agent.answering == "openai/third"
        assert [len(server.asked) for server in (first, second, third)] == [1, 1, 1]
