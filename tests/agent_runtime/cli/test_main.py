"""The commands, as a person types them: real processes."""

import json
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.agents import Ended, myagent, on_a_terminal, running, write_agent
from tests.openai_server import call, calls, refuses, says, serving_openai

FLAGS = {
    "run": [
        "FILE",
        "--config",
        "--host",
        "--port",
        "--service-url",
        "--public-url",
        "--discovery-url",
        "--allow-anonymous",
        "--log-level",
    ],
    "chat": ["FILE", "MESSAGE", "--config", "--session"],
    "validate": ["--config", "--json"],
    "agents": ["--discovery-url", "--status", "--type", "--tool", "--tag", "--owner", "-q", "--json", "--watch"],
    "register": ["--name", "--endpoint", "--file", "--token-file", "--health", "--once", "-- COMMAND"],
    "up": ["--model", "--port", "--install", "FOLDER"],
}
BROKEN = """\
name: helper
model:
  provider: local
  tiemout_seconds: 5
tools:
  - nowhere:search
system_prompt: ${MISSING_VARIABLE}
"""


def model_at(url: str) -> dict[str, Any]:
    return {"provider": "openai", "name": "test-model", "endpoint": url, "max_retries": 0}


def is_one_sentence(ended: Ended, status: int, *parts: str) -> None:
    """Nothing but one line on standard error."""
    assert (ended.status, ended.out) == (status, "")
    assert len(ended.err.splitlines()) == 1, ended.err
    for part in parts:
        assert part in ended.err


@pytest.mark.parametrize("command", FLAGS)
async def test_the_help_of_a_command_names_its_flags(tmp_path: Path, command: str) -> None:
    ended = await myagent(command, "--help", cwd=tmp_path)
    assert (ended.status, ended.err) == (0, "")
    assert [flag for flag in FLAGS[command] if flag not in ended.out] == []


async def test_the_help_names_every_command(tmp_path: Path) -> None:
    ended = await myagent("--help", cwd=tmp_path)
    assert (ended.status, ended.err) == (0, "")
    assert [command for command in (*FLAGS, "discovery", "--version") if command not in ended.out] == []


async def test_discovery_is_a_command_with_a_help_of_its_own(tmp_path: Path) -> None:
    ended = await myagent("discovery", "--help", cwd=tmp_path)
    assert (ended.status, ended.err) == (0, "")
    assert "--database-url" in ended.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rnu",), "myagent: No such command 'rnu'. Did you mean 'run'?"),
        (("nothing-like-it",), "myagent: No such command 'nothing-like-it'."),
        (("--vresion",), "myagent: No such option: --vresion (Possible options: --version)"),
        (("run", "--prot", "1"), "myagent run: No such option: --prot (Possible options: --host, --port)"),
        (("run", "--port", "http"), "myagent run: Invalid value for '--port'"),
        (("run", "--log-level", "loud"), "myagent run: Invalid value for '--log-level'"),
        (("validate", "one.yaml", "two.yaml"), "myagent validate: Got unexpected extra argument"),
        (("new",), "myagent new: Missing argument 'NAME'."),
    ],
)
async def test_an_invalid_command_line_is_one_message_with_status_2(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    ended = await myagent(*arguments, cwd=tmp_path)
    command = message.partition(":")[0]
    assert (ended.status, ended.out) == (2, "")
    first, second = ended.err.splitlines()
    assert first.startswith(message)
    assert second == f"Try '{command} --help' for help."


async def test_flags_that_exclude_each_other_are_one_sentence(tmp_path: Path) -> None:
    is_one_sentence(await myagent("test", "--record", "--replay", cwd=tmp_path), 2, "myagent test --replay: cannot be")


# --- the agent file as an argument


@pytest.mark.parametrize("command", ["validate", "doctor", "iam-policy", "chat", "run", "test"])
async def test_the_agent_file_can_be_an_argument(tmp_path: Path, command: str) -> None:
    ended = await myagent(command, "nowhere.yaml", cwd=tmp_path)
    assert ended.status != 0
    assert "nowhere.yaml" in ended.err + ended.out or command == "test"
    assert "Traceback" not in ended.err


async def test_an_agent_file_that_is_given_twice_is_one_sentence(tmp_path: Path) -> None:
    write_agent(tmp_path)
    ended = await myagent("validate", "agent.yaml", "--config", "other.yaml", cwd=tmp_path)
    is_one_sentence(ended, 2, "myagent: the agent file is given twice: agent.yaml as an argument and other.yaml with")


@pytest.mark.parametrize(
    "arguments", [("helper/agent.yaml", "2 + 3?"), ("helper", "2 + 3?"), ("2 + 3?", "--config", "helper")]
)
async def test_chat_takes_a_file_and_a_message(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    async with serving_openai(says("It is 5.")) as openai:
        write_agent(tmp_path / "helper", model=model_at(openai.url))
        ended = await myagent("chat", *arguments, cwd=tmp_path)
    assert (ended.status, ended.out) == (0, "It is 5.\n")


async def test_chat_with_a_file_only_is_a_conversation(tmp_path: Path) -> None:
    write_agent(tmp_path / "helper")
    ended = await myagent("chat", "helper/agent.yaml", cwd=tmp_path)
    assert (ended.status, ended.err) == (0, "")
    assert "helper answers with openai/test-model" in ended.out


# --- the terminal


@pytest.mark.parametrize(("more", "is_coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
async def test_doctor_has_colours_on_a_terminal_unless_no_color_is_set(
    tmp_path: Path, more: dict[str, str], is_coloured: bool
) -> None:
    write_agent(tmp_path)
    status, shown = await on_a_terminal("doctor", cwd=tmp_path, environment=more)
    assert status == 1
    assert "agent.yaml" in shown
    assert ("\x1b[" in shown) == is_coloured


async def test_the_help_loads_nothing_that_only_commands_need(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from agent_runtime.cli.main import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit:\n    pass\n"
        "print({'rich', 'httpx', 'yaml', 'fastapi', 'uvicorn'} & set(sys.modules))\n"
    )
    async with running([sys.executable, "-c", code], tmp_path) as process:
        out, _ = await process.communicate()
    assert out.decode().splitlines()[-1] == "set()"


# --- validate


async def test_validate_says_where_values_come_from_and_never_what_they_are(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets.yaml"
    secrets.write_text("team/key: hush-hush\n")
    secrets.chmod(0o600)
    environment = {"MYAGENT_SECRETS": f"yaml:{secrets}", "PROMPT": "open-word"}
    write_agent(
        tmp_path,
        model={"name": "m", "api_key": "${secret:team/key}"},
        server={"api_keys": ["${secret:team/key}"]},
        system_prompt="${PROMPT} ${TONE:-kindly}",
    )
    plain = await myagent("validate", cwd=tmp_path, environment=environment)
    as_json = await myagent("validate", "--json", cwd=tmp_path, environment=environment)
    assert (plain.status, plain.err, as_json.status, as_json.err) == (0, "", 0, "")
    assert "agent.yaml is valid: helper 1.0.0, tool" in plain.out
    assert json.loads(as_json.out) == {
        "valid": True,
        "file": "agent.yaml",
        "name": "helper",
        "origins": {
            "model.api_key": "secret team/key",
            "server.api_keys[0]": "secret team/key",
            "system_prompt": "environment PROMPT, default of TONE",
        },
    }
    for path, origin in json.loads(as_json.out)["origins"].items():
        assert any(path in line and origin in line for line in plain.out.splitlines())
    assert "hush-hush" not in plain.out + as_json.out
    assert "open-word" not in plain.out + as_json.out


@pytest.mark.parametrize("command", [("validate",), ("run",), ("chat", "hi")])
async def test_every_problem_of_a_file_is_a_line_and_the_status_is_2(tmp_path: Path, command: tuple[str, ...]) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text(BROKEN)
    ended = await myagent(*command, "--config", file, cwd=tmp_path)
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.splitlines() == [
        f"{file}:4 model.tiemout_seconds: unknown key; did you mean `timeout_seconds`?",
        f"{file}:6 tools[0]: nowhere cannot be imported: ModuleNotFoundError: No module named 'nowhere'",
        f"{file}:7 system_prompt: environment variable MISSING_VARIABLE is not set",
    ]


async def test_validate_as_json_lists_the_problems(tmp_path: Path) -> None:
    (tmp_path / "agent.yaml").write_text(BROKEN)
    ended = await myagent("validate", "--json", cwd=tmp_path)
    assert (ended.status, ended.err) == (2, "")
    found = json.loads(ended.out)
    assert (found["valid"], found["file"]) == (False, "agent.yaml")
    assert [(problem["line"], problem["path"]) for problem in found["problems"]] == [
        (4, "model.tiemout_seconds"),
        (6, "tools[0]"),
        (7, "system_prompt"),
    ]
    assert all(problem["message"] for problem in found["problems"])


async def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    is_one_sentence(await myagent("validate", cwd=tmp_path), 2, "agent.yaml: no such file; set another with --config")


async def test_a_secret_source_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    write_agent(tmp_path, system_prompt="${secret:x}")
    ended = await myagent("validate", cwd=tmp_path, environment={"MYAGENT_SECRETS": "vault"})
    is_one_sentence(ended, 1, "MYAGENT_SECRETS=vault is not a secret source")


# --- chat


async def test_chat_prints_the_answer_and_the_steps_apart(tmp_path: Path) -> None:
    async with serving_openai(calls([call("add", '{"a": 2, "b": 3}')]), says("It is ", "5.")) as openai:
        write_agent(tmp_path, model=model_at(openai.url), tools=["calculator:add"])
        ended = await myagent("chat", "2 + 3?", cwd=tmp_path)
    assert (ended.status, ended.out) == (0, "It is 5.\n")
    assert [line.split()[:2] for line in ended.err.splitlines()] == [["calls", "add"], ["result", "1"]]


async def test_chat_goes_on_with_a_session(tmp_path: Path) -> None:
    async with serving_openai(says("Hello Ada."), says("You are Ada.")) as openai:
        session = {"store": "sqlite:///sessions.db"}
        write_agent(tmp_path, model=model_at(openai.url), agent_type="stateful", session=session)
        for message in ("I am Ada.", "Who am I?"):
            assert (await myagent("chat", message, "--session", "ada", cwd=tmp_path)).status == 0
    contents = [message["content"] for message in openai.asked[1].body["messages"]]
    assert contents == ["I am Ada.", "Hello Ada.", "Who am I?"]


async def test_chat_without_a_message_is_a_conversation_that_ends_with_the_input(tmp_path: Path) -> None:
    write_agent(tmp_path)
    ended = await myagent("chat", cwd=tmp_path)  # its input is empty
    assert (ended.status, ended.err) == (0, "")
    assert "helper answers with openai/test-model" in ended.out


async def test_no_model_in_reach_is_one_sentence(tmp_path: Path) -> None:
    with socket.socket() as unused:  # bound and not listening
        unused.bind(("127.0.0.1", 0))
        write_agent(tmp_path, model=model_at(f"http://127.0.0.1:{unused.getsockname()[1]}/v1"))
        ended = await myagent("chat", "hi", cwd=tmp_path)
    is_one_sentence(ended, 1, "myagent: the model test-model cannot be reached at model.endpoint: ")


async def test_a_refused_key_is_one_sentence_without_the_key(tmp_path: Path) -> None:
    async with serving_openai(refuses(401, "Incorrect key hush-hush")) as openai:
        write_agent(tmp_path, model={**model_at(openai.url), "api_key": "${KEY}"})
        ended = await myagent("chat", "hi", cwd=tmp_path, environment={"KEY": "hush-hush"})
    is_one_sentence(ended, 1, "the provider refused model.api_key for test-model (HTTP 401)")
    assert "hush-hush" not in ended.err


async def test_a_session_store_out_of_reach_is_one_sentence(tmp_path: Path) -> None:
    pytest.importorskip("asyncpg", reason="needs the postgres extra")
    store = "postgresql://agents:hush-hush@127.0.0.1:9/agents"
    write_agent(tmp_path, agent_type="stateful", session={"store": store})
    ended = await myagent("chat", "hi", cwd=tmp_path)
    is_one_sentence(ended, 1, "the session store in Postgres cannot be opened: ")
    assert "hush-hush" not in ended.err


async def test_an_empty_message_is_one_sentence(tmp_path: Path) -> None:
    write_agent(tmp_path)
    is_one_sentence(await myagent("chat", " ", cwd=tmp_path), 1, "myagent: the message is empty")


async def test_a_folder_with_an_agent_file_means_that_file(tmp_path: Path) -> None:
    write_agent(tmp_path / "helper")
    validated = await myagent("validate", "--config", "helper", cwd=tmp_path)
    assert validated.status == 0
    assert validated.out.startswith("helper/agent.yaml is valid")


async def test_no_command_shows_all_commands_and_how_to_begin(tmp_path: Path) -> None:
    ended = await myagent(cwd=tmp_path)
    assert (ended.status, ended.out) == (2, "")
    assert "run " in ended.err
    assert "myagent new NAME" in ended.err
