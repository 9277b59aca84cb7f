"""Plans: made first, revised when a step fails, and part of the events."""

from pathlib import Path

import pytest

from agent_runtime import Agent
from agent_runtime.events import Event, Plan
from agent_runtime.models.scripted import ScriptedModel
from tests.agent_runtime.speaking import Speaker, events_of, finished, scripted_agent
from tests.agents import write_agent


@pytest.fixture(params=["native", "react"])
def speaker(request: pytest.FixtureRequest) -> Speaker:
    return Speaker(request.param)


def plans(events: list[Event]) -> list[list[tuple[str, str]]]:
    return [[(step.text, step.status) for step in event.steps] for event in events if isinstance(event, Plan)]


def planner(folder: Path, speaker: Speaker, model: ScriptedModel, **sections: object) -> Agent:
    return scripted_agent(
        folder, speaker.dialect, model, reasoning={"dialect": speaker.dialect, "plan": True}, **sections
    )


async def test_a_plan_is_made_first_and_each_step_is_marked_as_done(tmp_path: Path, speaker: Speaker) -> None:
    model = ScriptedModel(
        [
            "1. Add 2 and 3\n2. Shout the sum",
            speaker.calls("add", a=2, b=3),
            speaker.calls("shout", text="five"),
            speaker.answers("FIVE!"),
        ]
    )
    events = await events_of(planner(tmp_path, speaker, model))
    assert plans(events) == [
        [("Add 2 and 3", "pending"), ("Shout the sum", "pending")],
        [("Add 2 and 3", "done"), ("Shout the sum", "pending")],
        [("Add 2 and 3", "done"), ("Shout the sum", "done")],
        [("Add 2 and 3", "done"), ("Shout the sum", "done")],
    ]
    assert finished(events).answer == "FIVE!"


async def test_the_model_is_asked_for_the_plan_without_tools_and_shown_it_with_every_step(
    tmp_path: Path, speaker: Speaker
) -> None:
    model = ScriptedModel(["- Add the numbers", speaker.calls("add", a=2, b=3), speaker.answers("5")])
    await events_of(planner(tmp_path, speaker, model, system_prompt="You add."))
    asked, first, second = model.asked
    assert not asked.tools
    assert asked.messages[0].content.startswith("You add.")
    assert "add" in asked.messages[0].content
    assert "1. [ ] Add the numbers" in first.messages[0].content
    assert "1. [x] Add the numbers" in second.messages[0].content


async def test_a_step_that_failed_makes_the_model_revise_what_is_left(tmp_path: Path, speaker: Speaker) -> None:
    model = ScriptedModel(
        [
            "1. Look it up\n2. Answer",
            speaker.calls("fail"),
            "1. Add instead\n2. Answer",
            speaker.calls("add", a=2, b=3),
            speaker.answers("5"),
        ]
    )
    events = await events_of(planner(tmp_path, speaker, model))
    assert plans(events)[1:4] == [
        [("Look it up", "failed"), ("Answer", "pending")],
        [("Look it up", "failed"), ("Add instead", "pending"), ("Answer", "pending")],
        [("Look it up", "failed"), ("Add instead", "done"), ("Answer", "pending")],
    ]
    revision = model.asked[2]
    assert not revision.tools
    assert "[!] Look it up" in revision.messages[0].content
    assert any("Result: " in message.content for message in revision.messages)


async def test_a_reply_without_a_list_is_a_plan_of_one_step(tmp_path: Path, speaker: Speaker) -> None:
    model = ScriptedModel(["I will just answer.", speaker.answers("Hello!")])
    events = await events_of(planner(tmp_path, speaker, model))
    assert plans(events)[0] == [("Answer the question.", "pending")]
    assert finished(events).answer == "Hello!"


async def test_asking_for_a_plan_counts_as_a_step_and_the_limit_holds(tmp_path: Path, speaker: Speaker) -> None:
    model = ScriptedModel(["1. Think"])
    events = await events_of(planner(tmp_path, speaker, model, limits={"max_steps": 1}))
    assert finished(events).stop_reason == "max_steps"


async def test_a_plan_is_not_remembered_in_the_session(tmp_path: Path, speaker: Speaker) -> None:
    model = ScriptedModel(["1. Answer", speaker.answers("Hello!")])
    agent = planner(tmp_path, speaker, model, agent_type="stateful")
    async with agent:
        await agent.run("Hi", session_id="s")
        assert [message.content for message in await agent.history("s")] == ["Hi", "Hello!"]


@pytest.mark.parametrize(
    ("agent_type", "dialect", "plan", "memory"),
    [
        ("tool", "native", False, False),
        ("stateful", "native", False, True),
        ("react", "react", False, False),
        ("planning", "native", True, False),
        ("stateful_react", "react", False, True),
        ("stateful_react_plan", "react", True, True),
    ],
)
async def test_each_preset_answers_a_two_step_question(
    tmp_path: Path, agent_type: str, dialect: str, plan: bool, memory: bool
) -> None:
    speaker = Speaker(dialect)
    script = ["1. Add\n2. Shout"] if plan else []
    model = ScriptedModel(
        [*script, speaker.calls("add", a=2, b=3), speaker.calls("shout", text="five"), speaker.answers("FIVE!")]
    )
    agent = scripted_agent(tmp_path, dialect, model, agent_type=agent_type, reasoning={})
    async with agent:
        result = await agent.run("Shout 2 + 3", session_id="s")
        assert result.answer == "FIVE!"
        assert [use.name for step in result.steps for use in step.tool_calls] == ["add", "shout"]
        assert bool(await agent.history("s")) is memory


@pytest.mark.model
@pytest.mark.parametrize(
    "agent_type", ["tool", "stateful", "react", "planning", "stateful_react", "stateful_react_plan"]
)
async def test_each_preset_answers_a_one_step_question_with_the_built_in_model(tmp_path: Path, agent_type: str) -> None:
    code = '''
def find_orders(minimum_amount: float) -> str:
    """Find the orders of customers.

    Args:
        minimum_amount: Only orders of at least this many pounds.
    """
    return f"3 orders from {minimum_amount:g} pounds"
'''
    sections = {"agent_type": agent_type, "model": {"provider": "local"}, "session": {"store": "memory"}}
    file = write_agent(
        tmp_path, code=code, **{"tools": [{"function": "calculator:find_orders", "answer": "direct"}], **sections}
    )
    async with Agent(file, environment={}) as agent:
        result = await agent.run("Which orders are above 500 pounds?")
    assert result.answer == "3 orders from 500 pounds"
