"""The model that people test their own agents with."""

import pytest

from agent_runtime import ModelError, Usage
from agent_runtime.events import Message, ModelChunk, ToolCall, ToolSpec
from agent_runtime.models.scripted import Asked, ScriptedModel

QUESTION = Message("user", "2 + 3?")


async def said(model: ScriptedModel) -> list[ModelChunk]:
    return [chunk async for chunk in model.stream([QUESTION])]


async def test_replies_come_in_order_as_text_chunks_or_an_error() -> None:
    chunks = ["a", ToolCall("c1", "add", "{}"), Usage(1, 2)]
    async with ScriptedModel(["hello", chunks, ModelError("away", fault="unreachable")]) as model:
        assert await said(model) == ["hello"]
        assert await said(model) == chunks
        with pytest.raises(ModelError, match="away"):
            await said(model)


async def test_every_question_is_recorded() -> None:
    model = ScriptedModel(["5"])
    tool = ToolSpec("add", "Add.", {})
    assert [chunk async for chunk in model.stream([QUESTION], [tool], stop=["x"])] == ["5"]
    assert model.asked == [Asked((QUESTION,), (tool,), ("x",))]


async def test_a_question_too_many_fails() -> None:
    model = ScriptedModel(["one"])
    await said(model)
    with pytest.raises(ModelError, match="the script has 1 replies and was asked once more"):
        await said(model)
