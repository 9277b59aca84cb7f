"""`myagent test`: conversations beside the file, held and checked."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.agents import myagent, write_agent
from tests.openai_server import calls, refuses, says, serving_openai

EXAMPLES = Path(__file__).parents[3] / "examples"
ADD = {"index": 0, "id": "c1", "function": {"name": "add", "arguments": '{"a": 2, "b": 3}'}}
SUITE = """\
- name: sums
  turns:
    - say: what is 2 + 3?
      calls: [{add: {a: 2, b: 3}}]
      answer: {contains: ["5"], lacks: ["six"], matches: "It is \\\\d"}
- name: greeting
  turns:
    - {say: hello, calls: []}
"""


def write(folder: Path, endpoint: str, suite: str = SUITE) -> None:
    write_agent(folder, model={"name": "test-model", "endpoint": endpoint}, tools=["calculator:add"])
    (folder / "conversations.yaml").write_text(suite)


async def test_conversations_that_go_as_expected_end_with_status_0(tmp_path: Path) -> None:
    async with serving_openai(calls([ADD]), says("It is 5."), says("Hello!")) as openai:
        write(tmp_path, openai.url)
        held = await myagent("test", cwd=tmp_path)
    assert held.status == 0, held.err
    assert "2 of 2 conversations went as expected with openai/test-model" in held.out


async def test_each_failure_names_the_expected_and_the_actual_value(tmp_path: Path) -> None:
    wrong = {"index": 0, "id": "c1", "function": {"name": "add", "arguments": '{"a": 2, "b": 4}'}}
    async with serving_openai(calls([wrong]), says("It is six."), refuses(401)) as openai:
        write(tmp_path, openai.url)
        held = await myagent("test", "--junit", "report.xml", cwd=tmp_path)
    assert held.status == 1
    assert "expected add to be called with b=3, got 4" in held.out
    assert "the answer contains 'six'" in held.out
    assert "does not match" in held.out
    assert "refused model.api_key" in held.out
    suite = ElementTree.parse(tmp_path / "report.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("2", "2")


async def test_recorded_replies_make_the_suite_run_without_a_model(tmp_path: Path) -> None:
    async with serving_openai(calls([ADD]), says("It ", "is 5."), says("Hello!")) as openai:
        write(tmp_path, openai.url)
        assert (await myagent("test", "--record", cwd=tmp_path)).status == 0
    replayed = await myagent("test", "--replay", cwd=tmp_path)
    assert replayed.status == 0, replayed.out
    assert "with recorded" in replayed.out


async def test_a_question_that_was_not_recorded_says_to_record_again(tmp_path: Path) -> None:
    async with serving_openai(calls([ADD]), says("It is 5."), says("Hello!")) as openai:
        write(tmp_path, openai.url)
        await myagent("test", "--record", cwd=tmp_path)
    (tmp_path / "conversations.yaml").write_text(SUITE.replace("hello", "good morning"))
    replayed = await myagent("test", "--replay", cwd=tmp_path)
    assert replayed.status == 1
    assert "record again with myagent test --record" in replayed.out


@pytest.mark.parametrize(
    ("suite", "says_so"),
    [
        (None, "conversations.yaml: no such file; it lists conversations, such as"),
        ("- {name: x, turns: []}", "0.turns: List should have at least 1 item"),
        ("- {name: x, turn: [{say: hi}]}", "0.turn: Extra inputs are not permitted"),
        ("[", "is not valid YAML"),
    ],
)
async def test_a_suite_that_cannot_be_used_is_a_problem_of_the_file(
    tmp_path: Path, suite: str | None, says_so: str
) -> None:
    write_agent(tmp_path)
    if suite is not None:
        (tmp_path / "conversations.yaml").write_text(suite)
    held = await myagent("test", cwd=tmp_path)
    assert held.status == 2
    assert says_so in held.err


async def test_replaying_without_a_recording_says_how_to_make_one(tmp_path: Path) -> None:
    write(tmp_path, "http://127.0.0.1:9/v1")
    held = await myagent("test", "--replay", cwd=tmp_path)
    assert held.status == 1
    assert "create it with myagent test --record" in held.err


@pytest.mark.model
async def test_the_conversations_of_the_customer_service_example_go_as_expected(tmp_path: Path) -> None:
    file = EXAMPLES / "customer-service" / "agent.yaml"
    store = f"sqlite:///{tmp_path / 'sessions.db'}"
    held = await myagent("test", "--config", file, cwd=tmp_path, environment={"MYAGENT_SESSION_STORE": store})
    assert held.status == 0, held.out + held.err
