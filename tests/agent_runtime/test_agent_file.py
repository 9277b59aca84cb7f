import sys
from pathlib import Path

import pytest

from agent_runtime import Agent, ConfigError, StartError
from agent_runtime.agent_file import load
from tests.agents import write_agent


def write(folder: Path, text: str) -> Path:
    file = folder / "agent.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def local_secrets(folder: Path, text: str) -> dict[str, str]:
    file = folder / "secrets.local.yaml"
    file.write_text(text, encoding="utf-8")
    file.chmod(0o600)
    return {"MYAGENT_SECRETS": f"yaml:{file}"}


async def test_the_smallest_file_has_the_documented_defaults(tmp_path: Path) -> None:
    file = write(tmp_path, "name: helper\nmodel: {provider: local}\n")
    config = (await load(file, environment={})).config
    assert (config.version, config.description, config.agent_type, config.system_prompt) == ("1.0.0", "", "tool", "")
    assert config.session.store.get_secret_value() == "sqlite:///sessions.db"
    assert config.session.history_messages == 50
    assert config.limits.model_dump() == {
        "max_steps": 10,
        "max_tool_calls": 20,
        "max_tokens": 50_000,
        "max_repeated_calls": 3,
        "timeout_seconds": 300,
    }
    assert (config.server.host, config.server.port, config.server.api_keys) == ("127.0.0.1", 8000, [])
    assert (config.discovery.url, config.discovery.heartbeat_seconds) == (None, None)
    assert (config.model.timeout_seconds, config.model.max_retries) == (60, 2)


async def test_a_file_is_filled_from_variables_and_secrets(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        """
name: helper
model:
  name: ${MODEL}
  endpoint: ${ENDPOINT:-http://127.0.0.1:9/v1}
  api_key: ${secret:team/openai}
session: {store: "postgresql://agents:${secret:team/db#password}@db/agents"}
server: {api_keys: ["${secret:team/keys#old}", "${secret:team/keys#new}"]}
""",
    )
    secrets = local_secrets(
        tmp_path, "team/openai: sk-1\nteam/db: {password: pw-1}\nteam/keys: {old: key-1, new: key-2}\n"
    )
    loaded = await load(file, environment={"MODEL": "gpt-4o-mini", **secrets})
    config = loaded.config
    assert (config.model.name, config.model.endpoint) == ("gpt-4o-mini", "http://127.0.0.1:9/v1")
    assert config.model.api_key
    assert config.model.api_key.get_secret_value() == "sk-1"
    assert config.session.store.get_secret_value() == "postgresql://agents:pw-1@db/agents"
    assert [key.get_secret_value() for key in config.server.api_keys] == ["key-1", "key-2"]
    assert loaded.secrets == {"sk-1", "pw-1", "key-1", "key-2"}
    assert loaded.folder == tmp_path


async def test_an_empty_placeholder_counts_as_a_missing_key(tmp_path: Path) -> None:
    file = write(tmp_path, 'name: helper\nmodel: {provider: local, endpoint: "${E:-}", api_key: "${K:-}"}\n')
    model = (await load(file, environment={})).config.model
    assert (model.endpoint, model.api_key) == (None, None)


async def test_no_repr_of_a_loaded_file_shows_a_secret(tmp_path: Path) -> None:
    file = write_agent(
        tmp_path,
        model={"name": "m", "endpoint": "http://127.0.0.1:9/${secret:path}", "api_key": "${secret:key}"},
        system_prompt="the word is ${secret:word}",
    )
    secrets = local_secrets(tmp_path, "path: in-the-path\nkey: the-api-key\nword: in-the-prompt\n")
    loaded = await load(file, environment=secrets)
    for secret in ("in-the-path", "the-api-key", "in-the-prompt"):
        assert secret not in repr(loaded)
        assert secret not in repr(loaded.config.model.api_key)


async def test_a_secret_that_looks_like_a_template_stays_as_it_is(tmp_path: Path) -> None:
    file = write_agent(tmp_path, system_prompt="${secret:odd}")
    secrets = local_secrets(tmp_path, "odd: '${HOME} $$ ${secret:odd}'\n")
    loaded = await load(file, environment={"HOME": "/home/ada", **secrets})
    assert loaded.config.system_prompt == "${HOME} $$ ${secret:odd}"


async def test_overrides_win_over_the_file_and_leave_its_other_keys(tmp_path: Path) -> None:
    file = write_agent(tmp_path, server={"port": 8001, "cors_origins": ["http://a"]})
    overrides = {"server": {"port": 0}, "discovery": {"url": "http://127.0.0.1:9"}}
    config = (await load(file, environment={}, overrides=overrides)).config
    assert (config.server.port, config.server.cors_origins) == (0, ["http://a"])
    assert config.discovery.url == "http://127.0.0.1:9"


async def test_the_placeholder_of_an_overridden_value_is_not_needed(tmp_path: Path) -> None:
    file = write_agent(tmp_path, discovery={"url": "${NOWHERE}"})
    config = (await load(file, environment={}, overrides={"discovery": {"url": "http://127.0.0.1:9"}})).config
    assert config.discovery.url == "http://127.0.0.1:9"


async def test_the_environment_of_the_process_is_read_where_none_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HELPER_PROMPT", "from outside")
    file = write_agent(tmp_path, system_prompt="${HELPER_PROMPT}")
    assert (await load(file)).config.system_prompt == "from outside"


@pytest.mark.parametrize("specification", ["vault", "aws:eu", "yaml:", ""])
async def test_an_unknown_secret_source_is_an_error_of_the_operator(tmp_path: Path, specification: str) -> None:
    file = write_agent(tmp_path, system_prompt="${secret:x}")
    with pytest.raises(StartError, match="is not a secret source; use aws, file:"):
        await load(file, environment={"MYAGENT_SECRETS": specification})


async def test_a_file_without_secrets_opens_no_secret_source(tmp_path: Path) -> None:
    file = write_agent(tmp_path)
    loaded = await load(file, environment={"MYAGENT_SECRETS": "vault"})
    assert loaded.secrets == frozenset()


async def test_an_agent_takes_a_file_that_was_loaded_already(tmp_path: Path) -> None:
    loaded = await load(write_agent(tmp_path, model={"provider": "openai", "name": "m", "api_key": "k"}))
    async with Agent(loaded) as agent:
        assert agent.model_label == "openai/m"


async def test_loading_the_same_file_twice_imports_its_tools_once(tmp_path: Path) -> None:
    code = "loaded = globals().get('loaded', 0) + 1\ndef tool() -> int:\n    return loaded\n"
    file = write_agent(tmp_path, code=code, tools=["calculator:tool"])
    before = set(sys.modules)
    await load(file, environment={})
    new = set(sys.modules) - before
    await load(file, environment={})
    assert set(sys.modules) - before == new


async def test_a_config_error_reads_as_one_line_a_problem(tmp_path: Path) -> None:
    file = write(tmp_path, "name: helper\nmodel: {provider: local}\nserver:\n  port: http\n")
    with pytest.raises(ConfigError) as caught:
        await load(file, environment={})
    assert str(caught.value) == f"{file}:4 server.port: must be a whole number"
