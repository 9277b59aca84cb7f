"""Every code block of the pages: agent files are loaded, Python and commands are run or parsed."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ConfigDict, TypeAdapter, create_model

from agent_runtime.agent import Agent
from agent_runtime.agent_file import load
from agent_runtime.cli.evals import Conversation
from agent_runtime.cli.project import create_agent
from agent_runtime.config import AgentConfig, secret_paths
from agent_runtime.events import RunResult
from agent_runtime.server.api.approvals import DecisionRequest
from agent_runtime.server.api.chat import ChatRequest
from agent_runtime.server.app import create_app as create_agent_app
from discovery.app import create_app as create_registry_app
from discovery.contract import AgentRecord, Problem, Registered, Registration
from discovery.registry.history import HistoryEntry
from discovery.settings import Settings
from tests.docs.commands import commands_in, problem_with
from tests.docs.pages import PAGES, ROOT, Block, blocks, blocks_of, text_of
from tests.serving import serve

LANGUAGES = {"yaml", "json", "python", "sh", "text"}
RUN_SECONDS = 60


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the agent of `myagent new`, the tools and documents of the examples, and the files of all pages."""
    home = create_agent("greeter", tmp_path)
    shutil.copy(ROOT / "examples/customer-service/orders.py", home)
    shutil.copy(ROOT / "examples/customer-service/orders.csv", home)
    shutil.copytree(ROOT / "examples/handbook/handbook", home / "handbook")
    for block in blocks("python"):
        if block.title:
            (home / block.title).write_text(block.text, encoding="utf-8")
    return home


def write_files(page: str, folder: Path) -> None:
    """Write the files of one page into the folder; other pages may have files of the same names."""
    for block in blocks_of(page):
        if block.title and block.language in {"yaml", "python"} and "/" not in block.title:
            (folder / block.title).write_text(block.text, encoding="utf-8")


def each(found: list[Block]) -> Any:
    return pytest.mark.parametrize("block", found, ids=str)


def test_every_block_has_a_language_that_is_tested() -> None:
    wrong = [
        f"{block} {block.language}" for page in PAGES for block in blocks_of(page) if block.language not in LANGUAGES
    ]
    alone = [str(block) for block in blocks("text") if block.page != "docs/commands.md"]
    assert (wrong, alone) == ([], [])


def test_a_file_is_the_same_on_every_page() -> None:
    known: dict[str, str] = {}
    for block in blocks("python"):
        if block.title:
            assert known.setdefault(block.title, block.text) == block.text, block


# --- YAML


def is_fragment(tree: Any) -> bool:
    return isinstance(tree, dict) and tree.keys() <= AgentConfig.model_fields.keys()


@each([block for block in blocks("yaml") if is_fragment(yaml.safe_load(block.text)) and block.title != "wrong.yaml"])
async def test_agent_files_and_parts_of_them_are_valid(block: Block, folder: Path) -> None:
    write_files(block.page, folder)
    written = yaml.safe_load(block.text)
    complete = {"name": "example", "model": {"provider": "local"}} | written
    file = folder / "read.yaml"
    file.write_text(block.text if complete == written else yaml.safe_dump(complete), encoding="utf-8")
    variables = re.findall(r"\$\{([A-Z_]+)", block.text)
    secrets = folder / "secrets.yaml"
    secrets.touch(mode=0o600)
    paths = secret_paths(complete)
    keys = ("endpoint", "api_key", "password", "current", "next")
    values: dict[str, Any] = {}
    for path in paths:
        values[path] = dict.fromkeys(keys, "x")
    values |= dict.fromkeys([path for path in paths if f"{{secret:{path}}}" in block.text], "x")
    if "azure" in block.text and "#endpoint" in block.text:
        values["myteam/agents/azure"]["endpoint"] = "https://my-team.openai.azure.com"
    secrets.write_text(yaml.safe_dump(values), encoding="utf-8")
    environment = dict.fromkeys(variables, "https://example.com") | {"MYAGENT_SECRETS": f"yaml:{secrets}"}
    read = await load(file, environment=environment, overrides={"discovery": {"url": "http://discovery:9000"}})
    assert read.config.name == complete["name"]


@each([block for block in blocks("yaml") if not is_fragment(yaml.safe_load(block.text))])
def test_other_yaml_files_match_their_titles(block: Block) -> None:
    tree: Any = yaml.safe_load(block.text)
    match block.title:
        case "conversations.yaml":
            assert TypeAdapter(list[Conversation]).validate_python(tree)
        case "secrets.local.yaml":
            assert all(isinstance(value, str | dict) for value in tree.values())
        case "kubernetes.yaml":
            container = tree["spec"]["template"]["spec"]["containers"][0]
            assert problem_with(["myagent", *container["args"]]) is None
        case title:
            raise AssertionError(f"{block}: no test reads {title!r}")


def test_the_agent_of_getting_started_is_the_one_that_new_creates(folder: Path) -> None:
    shown = next(block for block in blocks("yaml") if block.title == "greeter/agent.yaml")
    assert shown.text == (folder / "agent.yaml").read_text(encoding="utf-8")


# --- JSON

_STRICT = ConfigDict(extra="forbid")
SHAPES: dict[str, Any] = {
    "POST /register": Registration,
    "answer of POST /register": Registered,
    "GET /agents": list[AgentRecord],
    "GET /agents/{name}/history": list[HistoryEntry],
    "an error of the registry": Problem,
    "an error of an agent": create_model(
        "AgentProblem",
        __config__=_STRICT,
        type=str,
        title=str,
        status=int,
        code=str,
        detail=str,
        hint=str,
        request_id=str,
    ),
    "POST /chat": ChatRequest,
    "answer of POST /chat": RunResult,
    "POST /approvals/{approval_id}": DecisionRequest,
    "GET /health of an agent": None,
}


@each(blocks("json"))
def test_json_matches_the_models_of_the_api(block: Block) -> None:
    shape = SHAPES[block.title]
    if shape is not None:
        read = TypeAdapter(shape).validate_python(json.loads(block.text))
        written = TypeAdapter(shape).dump_python(read, mode="json")
        assert keys_in(json.loads(block.text)) <= keys_in(written), "an unknown field"


def keys_in(tree: Any) -> set[str]:
    if isinstance(tree, dict):
        return {*tree, *(key for name, value in tree.items() if name != "arguments" for key in keys_in(value))}
    return {key for item in tree for key in keys_in(item)} if isinstance(tree, list) else set()


async def test_the_health_of_an_agent_has_the_fields_of_the_page(folder: Path) -> None:
    import httpx

    shown = next(block for block in blocks("json") if block.title == "GET /health of an agent")
    async with served(folder) as addresses, httpx.AsyncClient() as client:
        answer = (await client.get(f"{addresses['127.0.0.1:8000']}/health")).json()
    assert answer.keys() == json.loads(shown.text).keys()


# --- Python and commands, against a real registry and a real agent


@asynccontextmanager
async def served(folder: Path) -> AsyncGenerator[dict[str, str]]:
    """Start the two servers of the pages; return their addresses instead of 127.0.0.1:8000 and :9000."""
    async with AsyncExitStack() as stack:
        registry = await stack.enter_async_context(serve(create_registry_app(Settings(database_url="memory://"))))
        agent = await stack.enter_async_context(Agent(folder / "agent.yaml"))
        url = await stack.enter_async_context(serve(create_agent_app(agent)))
        yield {"127.0.0.1:8000": url, "127.0.0.1:9000": registry}


async def run(command: list[str], folder: Path, **variables: str) -> tuple[int, str]:
    """The exit status of a command, and its output."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    environment = kept | {"PYTHONPATH": str(ROOT), "COLUMNS": "120", "HF_HUB_OFFLINE": "1"} | variables
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    async with asyncio.timeout(RUN_SECONDS):
        printed, _ = await process.communicate()
    return process.returncode or 0, printed.decode()


def with_addresses(text: str, addresses: dict[str, str]) -> str:
    for known, url in addresses.items():
        text = text.replace(f"http://{known}", url)
    return text


RUNNER = """
import ast, asyncio, inspect, pathlib, sys
code = compile(pathlib.Path(sys.argv[1]).read_text(), sys.argv[1], "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
done = eval(code, {"__name__": "__main__"})
if inspect.iscoroutine(done):
    asyncio.run(done)
"""


@pytest.mark.model
@each([block for block in blocks("python") if not block.title])
async def test_python_blocks_run(block: Block, folder: Path) -> None:
    async with served(folder) as addresses:
        script = folder / "block.py"
        script.write_text(with_addresses(block.text, addresses), encoding="utf-8")
        status, printed = await run([sys.executable, "-c", RUNNER, str(script)], folder, OPENAI_API_KEY="none")
    assert status == 0, printed
    assert "Traceback" not in printed


@pytest.mark.model
@each([block for block in blocks("python") if block.title.startswith("test_")])
async def test_tests_on_the_pages_pass(block: Block, folder: Path) -> None:
    write_files(block.page, folder)
    (folder / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    status, printed = await run([sys.executable, "-m", "pytest", "-q", block.title], folder)
    assert status == 0, printed


@each([block for block in blocks("python") if block.title and not block.title.startswith("test_")])
async def test_python_files_on_the_pages_run_without_warnings(block: Block, folder: Path) -> None:
    status, printed = await run([sys.executable, "-W", "error", block.title], folder)
    assert (status, printed) == (0, "")


@each(blocks("sh"))
def test_every_command_exists(block: Block) -> None:
    assert [found for words in commands_in(block.text) if (found := problem_with(words))] == []


def ends(block: Block) -> bool:
    """Whether the commands end by themselves: no server, and no installation."""
    programs = list(commands_in(block.text))
    serving = any(
        words[:2] in (["myagent", "run"], ["myagent", "discovery"], ["myagent", "register"]) for words in programs
    )
    return not serving and (block.output is not None or any(words[0] == "curl" for words in programs))


@pytest.mark.model
@each([block for block in blocks("sh") if ends(block)])
async def test_commands_print_the_output_on_the_page(block: Block, folder: Path) -> None:
    if block.title:  # another terminal: the environment is already active
        text = "\n".join(line for line in block.text.splitlines() if not line.startswith(". "))
    else:
        text = block.text
    bin_folder = Path(sys.executable).parent
    async with served(folder) as addresses:
        write_files(block.page, folder)
        status, printed = await run(
            ["bash", "-ec", with_addresses(text, addresses)],
            folder,
            PATH=f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
            MYAGENT_DISCOVERY_URL=addresses["127.0.0.1:9000"],
        )
    if block.output is None:
        assert status == 0, printed
        assert '"code"' not in printed, "an error was answered"
        return
    assert as_pattern(block.output).search(printed), f"{printed}\ndoes not match\n{block.output}"


def as_pattern(output: str) -> re.Pattern[str]:
    """An output as a pattern; `…` matches any text."""
    lines = [re.escape(line.rstrip()).replace("…", ".*") for line in output.rstrip().splitlines()]
    return re.compile("\\s*\n".join(lines), re.MULTILINE)


def test_links_and_pictures_exist() -> None:
    """Only of the pages outside the site: mkdocs checks the others."""
    for page in ("README.md", "CONTRIBUTING.md"):
        for target in re.findall(r"(?:\]\(|src=\"|srcset=\")([^)\"#]+)", text_of(page)):
            assert target.startswith("http") or (ROOT / target).exists(), f"{page}: {target}"


def pages_with_routes() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for route in re.findall(r"`((?:GET|POST|DELETE) /[^`? ]*)", text_of(page)):
            yield page, route


async def test_every_route_on_a_page_exists(folder: Path) -> None:
    from tests.docs.test_reference import documented_routes

    known = documented_routes("docs/endpoints.md") | documented_routes("docs/protocol.md")
    known |= {"GET /.well-known/agent-card.json"}
    wrong = {(page, route) for page, route in pages_with_routes() if route not in known}
    assert wrong == set()
