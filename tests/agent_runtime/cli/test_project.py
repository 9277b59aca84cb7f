"""`myagent new`, `schema` and `doctor`, as a person meets them."""

import json
from pathlib import Path

import pytest

from discovery.app import create_app as create_registry
from discovery.settings import Settings
from discovery.tokens import read_tokens
from tests.agents import myagent, write_agent
from tests.openai_server import refuses, says, serving_openai
from tests.serving import serve


@pytest.mark.model
async def test_a_new_agent_answers_at_once_with_the_built_in_model(tmp_path: Path) -> None:
    made = await myagent("new", "counter", cwd=tmp_path)
    assert made.status == 0
    assert "myagent chat counter/agent.yaml" in made.out
    validated = await myagent("validate", "--config", "counter/agent.yaml", cwd=tmp_path)
    assert validated.status == 0
    question = "how many days until 2099-01-01?"
    answered = await myagent("chat", "--config", "counter/agent.yaml", question, cwd=tmp_path)
    assert answered.status == 0
    assert "days until Thursday, 01 January 2099" in answered.out
    examined = await myagent("doctor", "--config", "counter/agent.yaml", cwd=tmp_path)
    assert examined.status == 0
    assert "local/smollm2-135m answers" in examined.out


async def test_a_folder_that_is_there_and_a_bad_name_are_one_sentence_and_nothing_is_touched(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    taken = await myagent("new", "taken", cwd=tmp_path)
    assert taken.status == 1
    assert "already exists" in taken.err
    assert list((tmp_path / "taken").iterdir()) == []
    bad = await myagent("new", "Not A Name", cwd=tmp_path)
    assert bad.status == 1
    assert "lower-case letters, digits and hyphens" in bad.err
    assert not (tmp_path / "Not A Name").exists()


async def test_the_schema_is_json_schema_and_says_what_each_key_is_for(tmp_path: Path) -> None:
    printed = await myagent("schema", cwd=tmp_path)
    assert printed.status == 0
    schema = json.loads(printed.out)
    assert schema["properties"]["name"]["description"].startswith("Lower-case letters")
    assert schema["additionalProperties"] is False


async def test_doctor_checks_each_component_on_its_own(
    tmp_path: Path,
) -> None:
    async with serving_openai(refuses(401, "no such key")) as openai:
        write_agent(
            tmp_path,
            model={"name": "test-model", "endpoint": openai.url, "api_key": "${KEY}", "max_retries": 0},
            agent_type="stateful",
            session={"store": "sqlite:///sessions.db"},
            discovery={"url": "http://127.0.0.1:9"},
            tools=["calculator:add"],
        )
        examined = await myagent("doctor", "--json", cwd=tmp_path, environment={"KEY": "sk-secret-of-a-person"})
    assert examined.status == 1
    findings = {finding["what"]: finding for finding in json.loads(examined.out)}
    assert "refused model.api_key" in findings["model"]["detail"]
    assert findings["model.api_key"] == {"what": "model.api_key", "ok": True, "detail": "from environment KEY"}
    assert findings["tools[0]"]["ok"]
    assert findings["session.store"]["ok"]
    assert "the agent runs without it" in findings["discovery.url"]["detail"]
    assert "sk-secret-of-a-person" not in examined.out + examined.err


async def test_doctor_accepts_a_token_that_registers_and_does_not_read(tmp_path: Path) -> None:
    tokens = read_tokens("register:t0ps3cret")
    registry = create_registry(Settings(database_url="memory://", tokens=tokens))
    async with serving_openai(says("Hello.")) as openai, serve(registry) as url:
        found: list[bool] = []
        for token in ("t0ps3cret", "stranger"):
            model = {"name": "test-model", "endpoint": openai.url}
            write_agent(tmp_path, model=model, discovery={"url": url, "token": "${TOKEN}"})
            examined = await myagent("doctor", "--json", cwd=tmp_path, environment={"TOKEN": token})
            assert token not in examined.out + examined.err
            found += [finding["ok"] for finding in json.loads(examined.out) if finding["what"] == "discovery.url"]
    assert found == [True, False]


async def test_doctor_passes_when_everything_is_available(tmp_path: Path) -> None:
    async with serving_openai(says("Hello.")) as openai:
        write_agent(tmp_path, model={"name": "test-model", "endpoint": openai.url})
        examined = await myagent("doctor", cwd=tmp_path)
    assert examined.status == 0
    assert "ok" in examined.out
    assert "NO" not in examined.out


async def test_doctor_lists_the_problems_of_a_file_that_cannot_be_used(tmp_path: Path) -> None:
    write_agent(tmp_path, name="Bad!", tolls=[])
    examined = await myagent("doctor", cwd=tmp_path)
    assert examined.status == 1
    assert "did you mean `tools`?" in examined.out
