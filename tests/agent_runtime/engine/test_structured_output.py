"""Answers that are JSON of a known form: in both dialects, with tools, and corrected once."""

import json
from pathlib import Path
from typing import Any

import pytest

from agent_runtime import Agent, ConfigError, ModelError, Text
from agent_runtime.agent_file import load
from agent_runtime.engine.structured_output import read_schema
from agent_runtime.models.scripted import ScriptedModel
from tests.agent_runtime.speaking import Speaker, events_of, finished, scripted_agent
from tests.agents import write_agent

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"sum": {"type": "integer"}, "unit": {"enum": ["pounds", "euros"]}},
    "required": ["sum"],
    "additionalProperties": False,
}
GOOD = '{"sum": 5, "unit": "euros"}'


@pytest.fixture(params=["native", "react"])
def say(request: pytest.FixtureRequest) -> Speaker:
    return Speaker(request.param)


def agent(folder: Path, say: Speaker, model: ScriptedModel, **sections: Any) -> Agent:
    return scripted_agent(folder, say.dialect, model, **{"output_schema": SCHEMA, **sections})


async def test_a_valid_answer_is_given_after_tools_were_called(tmp_path: Path, say: Speaker) -> None:
    model = ScriptedModel([say.calls("add", "Adding.", a=2, b=3), say.answers(GOOD)])
    events = await events_of(agent(tmp_path, say, model))
    assert json.loads(finished(events).answer) == {"sum": 5, "unit": "euros"}
    assert [event.delta for event in events if isinstance(event, Text)] == [GOOD]


async def test_the_schema_is_part_of_the_prompt(tmp_path: Path, say: Speaker) -> None:
    model = ScriptedModel([say.answers(GOOD)])
    await events_of(agent(tmp_path, say, model, system_prompt="Be brief."))
    system = model.asked[0].messages[0].content
    assert system.startswith("Be brief.\n\nYour final answer must be one JSON value")
    assert json.dumps(SCHEMA, separators=(",", ":")) in system


async def test_a_schema_goes_with_the_request_unless_tools_are_called_in_text(tmp_path: Path, say: Speaker) -> None:
    model = ScriptedModel([say.answers(GOOD), say.answers(GOOD)])
    await events_of(agent(tmp_path, say, model))
    await events_of(agent(tmp_path, say, model, tools=[]))
    assert [asked.schema for asked in model.asked] == [SCHEMA if say.dialect == "native" else None, SCHEMA]


async def test_an_invalid_answer_is_not_shown_and_the_model_corrects_it(tmp_path: Path, say: Speaker) -> None:
    model = ScriptedModel([say.answers('{"sum": "five"}'), say.answers(GOOD)])
    events = await events_of(agent(tmp_path, say, model))
    assert [event.delta for event in events if isinstance(event, Text)] == [GOOD]
    assert finished(events).stop_reason == "finished"
    wrong, hint = model.asked[1].messages[-2:]
    assert '{"sum": "five"}' in wrong.content
    assert "['sum'] does not fit the schema: 'five' is not of type 'integer'" in hint.content


async def test_a_correction_is_not_remembered(tmp_path: Path, say: Speaker) -> None:
    model = ScriptedModel([say.answers("five"), say.answers(GOOD)])
    async with agent(tmp_path, say, model, agent_type="stateful") as stateful:
        await stateful.run("2 + 3?", session_id="s")
        assert [message.content for message in await stateful.history("s")] == ["2 + 3?", GOOD]


async def test_a_second_invalid_answer_is_an_error_of_the_model(tmp_path: Path, say: Speaker) -> None:
    model = ScriptedModel([say.answers("five"), say.answers('{"sum": 5, "more": 1}'), say.answers(GOOD)])
    async with agent(tmp_path, say, model, agent_type="stateful") as stateful:
        with pytest.raises(ModelError, match="does not fit output_schema, even when asked again: ") as caught:
            await stateful.run("2 + 3?", session_id="s")
        assert caught.value.fault == "failed"
        assert await stateful.history("s") == []
        assert (await stateful.run("2 + 3?")).answer == GOOD  # the next run may correct an answer again


@pytest.mark.parametrize("text", [f"```json\n{GOOD}\n```", f"```\n{GOOD}\n```", f"\n {GOOD}\n"])
async def test_a_code_fence_is_removed(tmp_path: Path, text: str) -> None:
    model = ScriptedModel([text])
    assert finished(await events_of(agent(tmp_path, Speaker("native"), model))).answer == GOOD


async def test_a_limit_ends_a_run_with_the_best_answer_so_far(tmp_path: Path, say: Speaker) -> None:
    model = ScriptedModel([say.calls("add", a=2, b=3)])
    last = finished(await events_of(agent(tmp_path, say, model, limits={"max_steps": 1})))
    assert (last.stop_reason, last.answer) == ("max_steps", "5")


# --- the file


async def test_a_schema_may_be_in_a_file_beside_the_agents(tmp_path: Path) -> None:
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "answer.json").write_text(json.dumps(SCHEMA))
    model = ScriptedModel([GOOD])
    async with agent(tmp_path, Speaker("native"), model, output_schema="schemas/answer.json") as one:
        assert (await one.run("2 + 3?")).answer == GOOD


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("none.json", "names a file that does not exist: "),
        ("broken.json", "names a file that cannot be read as JSON: "),
        ("list.json", "names a file that holds no JSON Schema: "),
        ({"type": "objekt"}, "is no JSON Schema: 'objekt' is not valid under any of the given schemas"),
        ({"$ref": "https://example.com/schema.json"}, "refers to https://example.com/schema.json, which is not in it"),
        ({"items": [{"$ref": "#/$defs/none"}]}, "is no JSON Schema: "),
        ({"properties": {"a": {"$ref": "#/$defs/none"}}}, "refers to #/$defs/none, which is not in it"),
        ({"$schema": "https://example.com/my-own"}, "is written in an unknown form of JSON Schema: "),
        (5, "must be the name of a file beside this one, or a JSON Schema"),
        (["a"], "must be the name of a file beside this one, or a JSON Schema"),
    ],
)
async def test_an_invalid_schema_is_one_problem_of_the_file(tmp_path: Path, source: Any, message: str) -> None:
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ConfigError) as caught:
        await load(write_agent(tmp_path, output_schema=source), environment={})
    [problem] = caught.value.problems
    assert (problem.path, problem.message[: len(message)]) == ("output_schema", message)
    assert problem.line


async def test_a_direct_answer_and_a_schema_exclude_each_other(tmp_path: Path) -> None:
    direct = [{"function": "calculator:add", "answer": "direct"}]
    with pytest.raises(ConfigError, match="is not together with a tool whose answer is `direct`"):
        await load(write_agent(tmp_path, output_schema=SCHEMA, tools=direct), environment={})


def test_a_schema_may_refer_to_itself(tmp_path: Path) -> None:
    schema = {
        "$id": "urn:tree",
        "$defs": {"tree": {"type": "array", "items": {"$ref": "#/$defs/tree"}}},
        "$ref": "#/$defs/tree",
    }
    answers = read_schema(schema, tmp_path)
    assert answers.error("[[], [[]]]") == ""
    assert answers.error("[[1]]").startswith("[0][0] does not fit the schema: ")
