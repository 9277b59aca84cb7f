"""The loop, in both dialects: tool calls of the model, their results, and the events of a run."""

import asyncio
from pathlib import Path

import pytest

from agent_runtime import Finished, ModelError, RunStarted, Text, Thought, ToolCalled, ToolResult, Usage
from agent_runtime.engine import unmarked
from agent_runtime.events import Message, ToolCall
from agent_runtime.models.scripted import ScriptedModel
from tests.agent_runtime.speaking import Speaker, events_of, finished, scripted_agent


@pytest.fixture(params=["native", "react"])
def speaker(request: pytest.FixtureRequest) -> Speaker:
    return Speaker(request.param)


def results(events: list[object]) -> list[tuple[str, bool]]:
    return [(event.content, event.is_error) for event in events if isinstance(event, ToolResult)]


async def test_an_answer_without_tools_is_streamed_and_finishes_the_run(tmp_path: Path, speaker: Speaker) -> None:
    model = ScriptedModel([speaker.answers("Hello!", usage=Usage(7, 3))])
    events = await events_of(scripted_agent(tmp_path, speaker.dialect, model))
    assert isinstance(events[0], RunStarted)
    assert events[1:] == [Text("Hello!"), Finished("Hello!", "finished", (), Usage(7, 3))]


async def test_one_tool_then_an_answer(tmp_path: Path, speaker: Speaker) -> None:
    model = ScriptedModel(
        [speaker.calls("add", a=2, b=3, usage=Usage(10, 5)), speaker.answers("It is 5.", usage=Usage(20, 4))]
    )
    events = await events_of(scripted_agent(tmp_path, speaker.dialect, model))
    called, result = [event for event in events if isinstance(event, ToolCalled | ToolResult)]
    assert isinstance(called, ToolCalled)
    assert (called.name, called.arguments) == ("add", {"a": 2, "b": 3})
    assert isinstance(result, ToolResult)
    assert (result.call_id, result.name, result.content, result.is_error) == (called.call_id, "add", "5", False)
    end = finished(events)
    assert (end.answer, end.stop_reason, end.usage) == ("It is 5.", "finished", Usage(30, 9))
    [step] = end.steps
    [use] = step.tool_calls
    assert (use.name, use.arguments, use.result, use.is_error) == ("add", {"a": 2, "b": 3}, "5", False)


async def test_the_model_reads_the_result_of_its_call(tmp_path: Path, speaker: Speaker) -> None:
    model = ScriptedModel([speaker.calls("add", a=2, b=3), speaker.answers("5")])
    await events_of(scripted_agent(tmp_path, speaker.dialect, model))
    last = model.asked[1].messages[-1]
    assert unmarked(last.content) == ("5" if speaker.dialect == "native" else "Observation: 5")
    assert last.role == ("tool" if speaker.dialect == "native" else "user")


async def test_the_system_prompt_comes_first_and_the_tools_are_explained(tmp_path: Path, speaker: Speaker) -> None:
    model = ScriptedModel([speaker.answers("ok")])
    await events_of(scripted_agent(tmp_path, speaker.dialect, model, system_prompt="You add."))
    [asked] = model.asked
    system, user = asked.messages
    assert system.role == "system"
    assert system.content.startswith("You add.")
    assert user == Message("user", "What is 2 + 3?")
    if speaker.dialect == "native":
        assert [tool.name for tool in asked.tools] == ["add", "shout", "fail"]
        assert asked.stop == ()
    else:
        assert "- add: Add two numbers." in system.content
        assert asked.tools == ()
        assert asked.stop == ("\nObservation:",)


async def test_an_agent_without_tools_has_no_tool_instructions(tmp_path: Path, speaker: Speaker) -> None:
    model = ScriptedModel(["Just an answer."])
    events = await events_of(scripted_agent(tmp_path, speaker.dialect, model, tools=[]))
    assert finished(events).answer == "Just an answer."
    assert [message.role for message in model.asked[0].messages] == ["user"]


@pytest.mark.parametrize(
    ("name", "arguments", "complaint"),
    [
        ("add", '{"a": 2}', "b: Field required"),
        ("add", '{"a": 2, "b": "many"}', "b: Input should be a valid integer"),
        ("add", '{"a": 2, "b": 3, "c": 4}', "c: Extra inputs are not permitted"),
        ("add", '{"a": 2,', "not valid JSON"),
        ("add", "[2, 3]", "must be a JSON object" ),
        ("subtract", "{}", "There is no tool subtract; available tools: add, shout, fail."),
        ("fail", '{"reason": "no database"}', "fail failed: RuntimeError: no database"),
    ],
)  # fmt: skip
async def test_an_invalid_call_is_reported_to_the_model_and_the_run_goes_on(
    tmp_path: Path, speaker: Speaker, name: str, arguments: str, complaint: str
) -> None:
    if speaker.dialect == "react" and arguments.startswith("["):
        complaint = "must be a JSON object"
    model = ScriptedModel([speaker.calls_raw(name, arguments), speaker.answers("Sorry.")])
    events = await events_of(scripted_agent(tmp_path, speaker.dialect, model))
    [(content, is_error)] = results(list(events))
    assert is_error
    assert complaint in content
    assert content in model.asked[1].messages[-1].content
    assert finished(events).answer == "Sorry."
    assert finished(events).steps[0].tool_calls[0].is_error


async def test_a_tool_that_takes_too_long_is_reported_to_the_model(tmp_path: Path, speaker: Speaker) -> None:
    code = "import asyncio\nasync def dream() -> str:\n    await asyncio.Event().wait()\n"
    model = ScriptedModel([speaker.calls("dream"), speaker.answers("It sleeps.")])
    tools = [{"function": "calculator:dream", "timeout_seconds": 0.02}]
    events = await events_of(scripted_agent(tmp_path, speaker.dialect, model, code=code, tools=tools))
    assert results(list(events)) == [("dream did not finish within 0.02 s.", True)]
    assert finished(events).answer == "It sleeps."


async def test_a_tool_error_is_what_the_model_reads(tmp_path: Path, speaker: Speaker) -> None:
    code = """
from agent_runtime import ToolError
def find(id: int) -> str:
    raise ToolError(f"no order {id}; ask for it")
"""
    model = ScriptedModel([speaker.calls("find", id=7), speaker.answers("Which order?")])
    events = await events_of(scripted_agent(tmp_path, speaker.dialect, model, code=code, tools=["calculator:find"]))
    assert results(list(events)) == [("no order 7; ask for it", True)]


async def test_the_result_of_a_direct_tool_is_the_answer_and_the_model_is_not_asked_again(
    tmp_path: Path, speaker: Speaker
) -> None:
    model = ScriptedModel([speaker.calls("shout", text="hello")])
    tools = [{"function": "calculator:shout", "answer": "direct"}]
    events = await events_of(scripted_agent(tmp_path, speaker.dialect, model, tools=tools))
    assert (finished(events).answer, finished(events).stop_reason) == ("HELLO!", "finished")
    assert len(model.asked) == 1


async def test_a_direct_tool_that_failed_is_no_answer(tmp_path: Path, speaker: Speaker) -> None:
    model = ScriptedModel([speaker.calls("fail", reason="x"), speaker.answers("It failed.")])
    tools = [{"function": "calculator:fail", "answer": "direct"}]
    events = await events_of(scripted_agent(tmp_path, speaker.dialect, model, tools=tools))
    assert finished(events).answer == "It failed."


async def test_an_error_of_the_model_is_raised_unchanged(tmp_path: Path, speaker: Speaker) -> None:
    error = ModelError("the model is away", fault="unreachable")
    model = ScriptedModel([speaker.calls("add", a=1, b=2), error])
    with pytest.raises(ModelError) as caught:
        await events_of(scripted_agent(tmp_path, speaker.dialect, model))
    assert caught.value is error


async def test_closing_the_stream_stops_the_model(tmp_path: Path, speaker: Speaker) -> None:
    class Endless(ScriptedModel):
        closed = False

        async def stream(self, messages, tools=(), *, stop=()):  # type: ignore[no-untyped-def]
            try:
                yield "Final Answer: on "
                while True:
                    yield "and on "
                    await asyncio.sleep(0)
            finally:
                self.closed = True

    model = Endless([])
    async with scripted_agent(tmp_path, speaker.dialect, model) as agent:
        events = agent.stream("Go on")
        async for event in events:
            if isinstance(event, Text):
                break
        await events.aclose()
        assert model.closed


async def test_a_cancelled_run_stops_the_tool_that_is_running(tmp_path: Path, speaker: Speaker) -> None:
    code = """
import asyncio
started, stopped = asyncio.Event(), asyncio.Event()
async def wait() -> str:
    started.set()
    try:
        await asyncio.Event().wait()
    finally:
        stopped.set()
async def has_started() -> bool:
    return await started.wait()
def has_stopped() -> bool:
    return stopped.is_set()
"""
    tools = ["calculator:wait", "calculator:has_started", "calculator:has_stopped"]
    agent = scripted_agent(tmp_path, speaker.dialect, ScriptedModel([speaker.calls("wait")]), code=code, tools=tools)
    async with asyncio.timeout(5), agent:
        _, has_started, has_stopped = agent.tools
        run = asyncio.create_task(agent.run("Wait"))
        assert await has_started.call({}) == "true"
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert await has_stopped.call({}) == "true"


async def test_several_calls_of_one_reply_run_at_the_same_time_and_answer_in_order(tmp_path: Path) -> None:
    code = """
import asyncio
both = asyncio.Barrier(2)
async def meet(who: str) -> str:
    async with asyncio.timeout(5), both:
        return f"{who} was there"
"""
    calls = [ToolCall("c1", "meet", '{"who": "Ada"}'), ToolCall("c2", "meet", '{"who": "Bob"}')]
    model = ScriptedModel([["Let them meet.", *calls], "They met."])
    events = await events_of(scripted_agent(tmp_path, "native", model, code=code, tools=["calculator:meet"]))
    assert results(list(events)) == [("Ada was there", False), ("Bob was there", False)]
    assert [type(event) for event in events[2:6]] == [ToolCalled, ToolCalled, ToolResult, ToolResult]
    assert [message.tool_call_id for message in model.asked[1].messages[-2:]] == ["c1", "c2"]
    assert finished(events).answer == "Let them meet.\n\nThey met."


async def test_text_beside_a_native_call_is_shown_and_in_react_it_is_a_thought(
    tmp_path: Path, speaker: Speaker
) -> None:
    model = ScriptedModel([speaker.calls("add", "I have to add.", a=2, b=3), speaker.answers("It is 5.")])
    events = await events_of(scripted_agent(tmp_path, speaker.dialect, model))
    thoughts = [event.text for event in events if isinstance(event, Thought)]
    if speaker.dialect == "native":
        assert (thoughts, finished(events).answer) == ([], "I have to add.\n\nIt is 5.")
    else:
        assert (thoughts, finished(events).answer) == (["I have to add."], "It is 5.")
    assert finished(events).steps[0].thought == "I have to add."


async def test_a_very_long_result_is_cut_and_says_so(tmp_path: Path, speaker: Speaker) -> None:
    model = ScriptedModel([speaker.calls("flood"), speaker.answers("Much.")])
    agent = scripted_agent(
        tmp_path,
        speaker.dialect,
        model,
        code="def flood() -> str:\n    return 'x' * 50_000\n",
        tools=["calculator:flood"],
    )
    [(content, _)] = results(list(await events_of(agent)))
    assert len(content) < 41_000
    assert content.endswith("… truncated: the result has 50000 characters.")
