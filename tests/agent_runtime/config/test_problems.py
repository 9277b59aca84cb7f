"""Bad input: what an owner of a file reads when it cannot be used."""

import asyncio
import string
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_runtime import ConfigError
from agent_runtime.agent_file import load

GOOD = "name: helper\nmodel: {provider: local}\n"
Line = tuple[int | None, str, str]


async def problems(folder: Path, text: str, **environment: str) -> list[Line]:
    file = folder / "agent.yaml"
    file.write_bytes(text.encode())
    return await problems_of(file, **environment)


async def problems_of(file: Path, **environment: str) -> list[Line]:
    with pytest.raises(ConfigError) as caught:
        await load(file, environment=environment)
    return [(problem.line, problem.path, problem.message) for problem in caught.value.problems]


async def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        await load(tmp_path / "none.yaml", environment={})
    said = "no such file; set another with --config, or create an agent with `myagent new NAME`"
    assert str(caught.value) == f"{tmp_path / 'none.yaml'}: {said}"


async def test_a_folder_is_not_an_agent_file(tmp_path: Path) -> None:
    assert await problems_of(tmp_path) == [(None, "", "is a folder; use the path of the agent file in it")]


async def test_a_file_that_is_not_text_cannot_be_read(tmp_path: Path) -> None:
    file = tmp_path / "agent.yaml"
    file.write_bytes(b"\xff\xfe\x00")
    [(line, path, message)] = await problems_of(file)
    assert (line, path) == (None, "")
    assert message.startswith("cannot be read: ")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("name: helper\n\tmodel: x\n", 2),
        ("name: helper\nmodel: {provider: local\n", 3),
        ("name: helper\nmodel: 'local\n", 3),
        (f"{GOOD}---\n{GOOD}", 3),
        (f"{GOOD}description: !!python/object:os.system x\n", 3),
        ("name: *nobody\n", 1),
        ("name: a\x00b\n", None),
        (f"{GOOD}version: 2024-13-45\n", None),
        ("&a [*a]\n", None),
        ("[" * 3000, None),
    ],
)
async def test_broken_yaml_is_one_sentence_with_its_line(tmp_path: Path, text: str, line: int | None) -> None:
    [(found, path, message)] = await problems(tmp_path, text)
    assert (found, path) == (line, "")
    assert message.startswith("is not valid YAML: ")
    assert "\n" not in message


@pytest.mark.parametrize("text", ["", "# only a comment\n", "just words\n", "- a\n- b\n", "5\n"])
async def test_a_file_that_is_no_map_says_what_it_should_be(tmp_path: Path, text: str) -> None:
    assert await problems(tmp_path, text) == [(1, "", "must be a map of keys such as `name:` and `model:`")]


async def test_a_key_that_stands_twice_is_reported_at_its_second_place(tmp_path: Path) -> None:
    text = f"{GOOD}server:\n  port: 1\n  port: 2\nname: other\n"
    assert await problems(tmp_path, text) == [
        (5, "server.port", "the key is duplicated"),
        (6, "name", "the key is duplicated"),
    ]


@pytest.mark.parametrize(
    ("text", "line", "path", "message"),
    [
        ("sistem_prompt: x\n", 3, "sistem_prompt", "unknown key; did you mean `system_prompt`?"),
        ("server:\n  prot: 1\n", 4, "server.prot", "unknown key; did you mean `port`?"),
        (
            "limits: {colour: 1}\n",
            3,
            "limits.colour",
            "unknown key; known are max_steps, max_tool_calls, max_tokens, max_repeated_calls, timeout_seconds",
        ),
        (
            "tools:\n- function: json:detect_encoding\n  anwser: direct\n",
            5,
            "tools[0].anwser",
            "unknown key; did you mean `answer`?",
        ),
        (
            "tools:\n- context: {documents: [a]}\n  timeout: 1\n",
            5,
            "tools[0].timeout",
            "unknown key; known are context, answer",
        ),
        (
            "tools:\n- context:\n    documents: [a]\n    topk: 2\n",
            6,
            "tools[0].context.topk",
            "unknown key; did you mean `top_k`?",
        ),
        (
            "discovery: {url: 'http://d'}\ntools:\n- {agent: billing, apikey: x}\n",
            5,
            "tools[0].apikey",
            "unknown key; did you mean `api_key`?",
        ),
        (
            "mcp_servers:\n  files:\n    comand: uvx\n    url: http://a\n",
            5,
            "mcp_servers.files.comand",
            "unknown key; did you mean `command`?",
        ),
    ],
)
async def test_an_unknown_key_is_an_error_with_its_line_and_the_key_that_was_probably_meant(
    tmp_path: Path, text: str, line: int, path: str, message: str
) -> None:
    assert await problems(tmp_path, GOOD + text) == [(line, path, message)]


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("version: 1.2\n", "version", "must be a text; put it in quotes"),
        ("server: {port: http}\n", "server.port", "must be a whole number"),
        ("server: {port: 70000}\n", "server.port", "must be at most 65535"),
        ("server: 8000\n", "server", "must be a map of keys and values"),
        ("tools: {a: b}\n", "tools", "must be a list: [one, two], or one item per line that begins with `- `"),
        ("limits: {max_steps: 0}\n", "limits.max_steps", "must be at least 1"),
        ("tools: [search]\n", "tools[0]", "must be `module:function`, such as orders:search_orders"),
        (
            "tools: [{function: search}]\n",
            "tools[0].function",
            "must be `module:function`, such as orders:search_orders",
        ),
        (
            "tools: [{fonction: 'a:b'}]\n",
            "tools[0]",
            "a tool is `module:function`, or has one of the keys `function`, `context` and `agent`",
        ),
        (
            "tools: [{context: {documents: [a], name: search it}}]\n",
            "tools[0].context.name",
            "must be letters, digits, `_` and `-`, at most 64, such as search_documents",
        ),
        ("mcp_servers: {a: {}}\n", "mcp_servers.a.url", "is required, or `command`"),
        (
            "mcp_servers: {a: {command: uvx, url: 'http://a'}}\n",
            "mcp_servers.a.url",
            "is not together with `command`: a server is a program or an address",
        ),
        (
            "mcp_servers: {a: {url: a.example}}\n",
            "mcp_servers.a.url",
            "must be an http:// or https:// address, such as https://mcp.example.com/mcp",
        ),
        (
            "mcp_servers: {a: {command: uvx, headers: {a: b}}}\n",
            "mcp_servers.a.headers",
            "are for a server with a `url`; a program takes `env`",
        ),
        (
            "mcp_servers: {'my files': {command: uvx}}\n",
            "mcp_servers.my files",
            "must be letters, digits, `_` and `-`, at most 32, such as warehouse",
        ),
        (
            "tools: [{agent: Billing}]\n",
            "tools[0].agent",
            "must be the name of an agent: lower-case letters, digits and hyphens, at most 63, such as billing",
        ),
        (
            "discovery: {tags: [a]}\ntools: [{agent: billing}]\n",
            "discovery",
            "needs a `url` (or MYAGENT_DISCOVERY_URL): the agent billing is found through it",
        ),
        (
            "agent_type: planing\n",
            "agent_type",
            "must be 'tool', 'stateful', 'react', 'planning', 'stateful_react' or 'stateful_react_plan'",
        ),
    ],
)
async def test_a_wrong_value_names_what_is_wanted(tmp_path: Path, text: str, path: str, message: str) -> None:
    assert await problems(tmp_path, GOOD + text) == [(3, path, message)]


async def test_a_name_has_to_work_as_a_host_name(tmp_path: Path) -> None:
    expected = "must be lower-case letters, digits and hyphens, at most 63, such as customer-service"
    for name in ("My Agent", "-a", "a-", "a" * 64, "ä"):
        text = f"name: {name!r}\nmodel: {{provider: local}}\n"
        assert await problems(tmp_path, text) == [(1, "name", expected)]


async def test_what_is_missing_is_reported_at_the_part_that_lacks_it(tmp_path: Path) -> None:
    assert await problems(tmp_path, "version: '1'\nmodel:\n  provider: openai\n") == [
        (1, "name", "is required"),
        (2, "model.api_key", "is required for OpenAI's own endpoint; use a placeholder: ${OPENAI_API_KEY}"),
        (2, "model.name", "is required for the provider openai, for example gpt-4o-mini"),
    ]


async def test_the_local_provider_takes_neither_endpoint_nor_key(tmp_path: Path) -> None:
    text = "name: helper\nmodel:\n  provider: local\n  endpoint: http://x\n  api_key: y\n"
    expected = "is not for the provider local, which runs in the agent's own process"
    assert await problems(tmp_path, text) == [(4, "model.endpoint", expected), (5, "model.api_key", expected)]


@pytest.mark.parametrize("endpoint", ["localhost:11434", "ollama", "http://", "http://host:port/v1", "http://[::1"])
async def test_an_endpoint_has_to_be_an_address(tmp_path: Path, endpoint: str) -> None:
    text = f"name: helper\nmodel: {{name: m, endpoint: '{endpoint}'}}\n"
    expected = "must be an http:// or https:// address, such as http://127.0.0.1:11434/v1"
    assert await problems(tmp_path, text) == [(2, "model.endpoint", expected)]


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("nowhere:search", "nowhere cannot be imported: ModuleNotFoundError: No module named 'nowhere'"),
        ("json:search", "json has no function search"),
        ("json:codecs", "codecs in json is not a function"),
        ("broken:search", "broken cannot be imported: RuntimeError: no database"),
        ("json:dumps", "dumps cannot be a tool: the parameter kw must be a keyword parameter"),
    ],
)
async def test_a_tool_that_cannot_be_imported_is_one_sentence(tmp_path: Path, reference: str, message: str) -> None:
    (tmp_path / "broken.py").write_text("raise RuntimeError('no database')")
    assert await problems(tmp_path, f"{GOOD}tools:\n- {reference}\n") == [(4, "tools[0]", message)]
    assert await problems(tmp_path, f"{GOOD}tools:\n- function: {reference}\n") == [(4, "tools[0]", message)]


async def test_all_problems_of_a_file_are_reported_together_in_the_order_of_its_lines(tmp_path: Path) -> None:
    (tmp_path / "secrets.yaml").write_text("team/there: x\n")
    (tmp_path / "secrets.yaml").chmod(0o600)
    text = """\
name: helper
model:
  api_key: ${secret:team/not-there}
  tiemout_seconds: 5
tools:
  - nowhere:search
  - function: ${TOOL_MODULE}:search
server:
  port: http
  public_url: ${PUBLIC:?set it to the proxy's address}
description: ${secret:team/there}
"""
    found = await problems(tmp_path, text, MYAGENT_SECRETS=f"yaml:{tmp_path}/secrets.yaml")
    assert found == [
        (2, "model.name", "is required for the provider openai, for example gpt-4o-mini"),
        (3, "model.api_key", f"secret team/not-there: not found in {tmp_path}/secrets.yaml"),
        (4, "model.tiemout_seconds", "unknown key; did you mean `timeout_seconds`?"),
        (6, "tools[0]", "nowhere cannot be imported: ModuleNotFoundError: No module named 'nowhere'"),
        (7, "tools[1].function", "environment variable TOOL_MODULE is not set"),
        (9, "server.port", "must be a whole number"),
        (10, "server.public_url", "environment variable PUBLIC: set it to the proxy's address"),
    ]


async def test_no_message_shows_the_value_of_a_secret(tmp_path: Path) -> None:
    (tmp_path / "secrets.yaml").write_text("s: hush-hush\n")
    (tmp_path / "secrets.yaml").chmod(0o600)
    text = """\
name: ${secret:s}
agent_type: ${secret:s}
model: {provider: "${secret:s}", name: "${secret:s#key}", timeout_seconds: "${secret:s}"}
tools: ["${secret:s}", {function: "${secret:s}"}, {context: "${secret:s}"}]
server: {port: "${secret:s}", api_keys: "${secret:s}"}
limits: "${secret:s}"
"""
    found = await problems(tmp_path, text, MYAGENT_SECRETS=f"yaml:{tmp_path}/secrets.yaml")
    assert len(found) >= 9
    assert "hush-hush" not in str(found)


_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(string.printable, max_size=12)
_keys = st.sampled_from(["name", "model", "tools", "server", "session", "limits", "context", "function", "provider"])
_leaves = _scalars | st.sampled_from(["${X}", "${secret:y}", "json:dumps", "${X:-}"])
_branches = st.lists(_leaves, max_size=3) | st.dictionaries(_keys | st.text(max_size=5), _leaves, max_size=4)
_trees = (
    _leaves
    | _branches
    | st.lists(_branches, max_size=3)
    | st.dictionaries(_keys | st.text(max_size=5), _leaves | _branches, max_size=4)
)


@settings(max_examples=60)
@given(tree=st.dictionaries(_keys, _trees, max_size=5))
def test_whatever_stands_in_a_file_it_is_used_or_refused_with_sentences(tree: object) -> None:
    import yaml

    with TemporaryDirectory() as folder:
        file, secrets = Path(folder) / "agent.yaml", Path(folder) / "secrets.yaml"
        secrets.write_text("other: x\n")
        secrets.chmod(0o600)
        file.write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8")
        try:
            asyncio.run(load(file, environment={"MYAGENT_SECRETS": f"yaml:{secrets}"}))
        except ConfigError as error:
            assert error.problems  # noqa: PT017 - any other exception fails the test


@settings(max_examples=100)
@given(text=st.text(st.sampled_from("name: helpr\n-[]{}&*!|>'\"%@#?$,0123456789\t\x07é"), max_size=60))
def test_no_text_makes_the_loader_stumble(text: str) -> None:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "agent.yaml"
        file.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError):
            asyncio.run(load(file, environment={}))
