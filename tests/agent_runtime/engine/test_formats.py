"""What is particular to a dialect: malformed replies, and which part of a streamed text is shown."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime import Text, ToolCalled
from agent_runtime.engine.formats import DIALECTS, Answer, Malformed, Reply, ToolCalls
from agent_runtime.events import Message, ToolCall, ToolSpec
from agent_runtime.models.scripted import ScriptedModel
from tests.agent_runtime.speaking import events_of, finished, scripted_agent


def read(text: str, *, cuts: tuple[int, ...] = ()) -> tuple[str, Reply]:
    """The part of a text that is shown while it streams in these pieces, and the parsed reply."""
    react = DIALECTS["react"]
    answer_of = react.answer_filter()
    edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    shown = "".join(answer_of(text[start:end]) for start, end in pairwise(edges))
    return shown, react.read(text, [], 0)


def call(name: str, arguments: str, thought: str = "") -> ToolCalls:
    return ToolCalls(thought, (ToolCall("call_0", name, arguments),))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Thought: t\nAction: add\nAction Input: {\"a\": 1}", call("add", '{"a": 1}', "t")),
        ("Action: add\nAction Input: {\"a\": 1}\nObservation: 5\nFinal Answer: made up", call("add", '{"a": 1}')),
        ("Action: `add`\nAction Input:\n```json\n{\"a\": 1}\n```", call("add", '{"a": 1}')),
        ("  Action:  add  \n  Action Input: {\"a\": {\"b\": 1}} and so on", call("add", '{"a": {"b": 1}}')),
        ("Action: add", call("add", "{}")),
        ("Action: add\nAction Input: one and two", call("add", "one and two")),
        ("Action: add\nAction Input: {\"a\": 1", call("add", '{"a": 1')),
        ("Thought: I know\nFinal Answer: 5", Answer("5", "")),
        ("Final Answer:\n\n  five\nand more", Answer("five\nand more", "")),
        ("Final Answer: use Action: add", Answer("use Action: add", "")),
        ("Final Answer: first\nAction: add", Answer("first\nAction: add", "")),
        ("  It is five. ", Answer("It is five.", "It is five.")),
        ("Therefore the Final Answer: is five", Answer(*["Therefore the Final Answer: is five"] * 2)),
    ],
)  # fmt: skip
def test_a_react_reply_is_parsed(text: str, expected: Reply) -> None:
    assert read(text)[1] == expected


@pytest.mark.parametrize("text", ["", " \n ", "Thought: hm", "Thought: hm\nFinal Answer: ", "Action Input: {}"])
def test_a_react_reply_that_fits_no_form_is_malformed(text: str) -> None:
    reading = read(text)[1]
    assert isinstance(reading, Malformed)
    assert reading.text == text


_words = st.text(st.sampled_from("ab: \n\té{}"), max_size=12)
_parts = st.lists(
    st.sampled_from(
        ["Thought:", "Action:", "Action Input:", "Final Answer:", "\n", " ", '{"a": 1}', "add", "Observation:"]
    )
    | _words,
    max_size=10,
)


@given(parts=_parts, cuts=st.lists(st.integers(0, 200), max_size=20))
def test_a_react_reply_is_parsed_the_same_in_chunks_of_any_size(parts: list[str], cuts: list[int]) -> None:
    text = "".join(parts)
    whole = read(text)
    assert read(text, cuts=tuple(cuts)) == whole
    assert read(text, cuts=tuple(range(len(text)))) == whole


@given(parts=_parts)
def test_only_the_answer_of_a_react_reply_is_shown(parts: list[str]) -> None:
    shown, reading = read("".join(parts))
    match reading:
        case Answer(text, unsent):
            assert shown + unsent == text
        case _:
            assert shown == ""


@given(thought=st.text(max_size=30), answer=st.text(min_size=1, max_size=30))
def test_a_thought_is_never_shown_as_answer(thought: str, answer: str) -> None:
    text = f"Thought: {thought.replace(':', ' ')}\nFinal Answer: {answer}"
    shown, reading = read(text, cuts=tuple(range(len(text))))
    if isinstance(reading, Answer):
        assert shown == answer.lstrip(" \t\n")


async def test_a_malformed_reply_is_corrected_and_is_never_part_of_the_history(tmp_path: Path) -> None:
    model = ScriptedModel(
        ["Thought: hm, what now", 'Action: add\nAction Input: {"a": 1, "b": 1}', "Final Answer: 2", "Final Answer: x"]
    )
    sections: dict[str, Any] = {"reasoning": {"dialect": "react", "memory": True}}
    async with scripted_agent(tmp_path, "react", model, **sections) as agent:
        assert (await agent.run("1 + 1?", session_id="s")).answer == "2"
        history = await agent.history("s")
    malformed, hint = model.asked[1].messages[-2:]
    assert (malformed, hint.role) == (Message("assistant", "Thought: hm, what now"), "user")
    assert hint.content.startswith("Your reply fits neither form.")
    assert malformed not in model.asked[2].messages
    assert hint not in model.asked[2].messages
    assert [message.role for message in history] == ["user", "assistant", "tool", "assistant"]
    assert "hm, what now" not in str(history)


async def test_an_empty_native_reply_is_requested_again(tmp_path: Path) -> None:
    model = ScriptedModel(["", "Here I am."])
    events = await events_of(scripted_agent(tmp_path, "native", model))
    assert finished(events).answer == "Here I am."
    assert "Your reply was empty" in model.asked[1].messages[-1].content


async def test_a_model_that_sends_only_empty_replies_hits_max_steps(tmp_path: Path) -> None:
    events = await events_of(scripted_agent(tmp_path, "native", ScriptedModel([""] * 3), limits={"max_steps": 3}))
    assert finished(events).stop_reason == "max_steps"


async def test_a_react_answer_is_streamed_while_it_is_written(tmp_path: Path) -> None:
    reply = ["Thought: easy", "\nFinal", " Answer", ": ", "It ", "is ", "5."]
    events = await events_of(scripted_agent(tmp_path, "react", ScriptedModel([reply])))
    assert [event.delta for event in events if isinstance(event, Text)] == ["It ", "is ", "5."]


async def test_a_react_model_that_invents_the_observation_gets_the_real_one(tmp_path: Path) -> None:
    invented = 'Action: add\nAction Input: {"a": 2, "b": 3}\nObservation: invented\nThought: ok\nFinal Answer: invented'
    model = ScriptedModel([invented, "Final Answer: 5"])
    events = await events_of(scripted_agent(tmp_path, "react", model))
    assert finished(events).answer == "5"
    assert "invented" not in str(model.asked[1].messages)
    assert len([event for event in events if isinstance(event, ToolCalled)]) == 1


def test_a_react_model_is_shown_native_calls_as_text() -> None:
    history = [
        Message("user", "2 + 3?"),
        Message("assistant", "adding", (ToolCall("c1", "add", '{"a": 2, "b": 3}'),)),
        Message("tool", "5", tool_call_id="c1"),
        Message("assistant", "It is 5."),
    ]
    prompt = DIALECTS["react"].prompt("", history, [ToolSpec("add", "Add.", {"type": "object"})])
    assert list(prompt.messages)[1:] == [
        Message("user", "2 + 3?"),
        Message("assistant", 'Thought: adding\nAction: add\nAction Input: {"a": 2, "b": 3}'),
        Message("user", "Observation: 5"),
        Message("assistant", "It is 5."),
    ]
