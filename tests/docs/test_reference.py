"""The reference pages agree with the code: complete, and without entries that do not exist."""

import argparse
import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

from agent_runtime.agent import Agent
from agent_runtime.cli.main import app as command_line
from agent_runtime.config import AgentConfig
from agent_runtime.events import ToolResult, Usage
from agent_runtime.models.scripted import ScriptedModel
from agent_runtime.observability import Telemetry
from agent_runtime.server.app import create_app as create_agent_app
from discovery import __main__ as registry
from discovery import cli as registry_commands
from discovery.app import create_app as create_registry_app
from discovery.settings import Settings
from tests.docs.pages import PAGES, ROOT, codes, rows, text_of
from tests.docs.words import keys_of
from tests.serving import serve

# --- the agent file


def test_every_key_of_the_agent_file_is_in_the_reference_with_its_type_and_default() -> None:
    known = sorted(set(keys_of(AgentConfig)))
    documented = {
        (codes(cells[0])[0], cells[1], cells[2]) for _, first, cells in rows("docs/configuration.md") if first == "key"
    }
    assert sorted(documented) == known


def test_every_key_has_an_example() -> None:
    for _, first, cells in rows("docs/configuration.md"):
        if first == "key" and cells[1] != "section":
            name = codes(cells[0])[0].rpartition(".")[2]
            values = re.findall(r"`([^`]+)`", cells[1])
            assert f"`{name}:" in cells[3] or values, cells


def test_the_presets_are_on_the_page() -> None:
    documented = {codes(cells[0])[0] for _, first, cells in rows("docs/configuration.md") if first == "`agent_type`"}
    assert documented == set(AgentConfig.model_json_schema()["properties"]["agent_type"]["enum"])


# --- commands


def flags_in(parser: argparse.ArgumentParser) -> set[str]:
    return {flag for action in parser._actions for flag in action.option_strings} - {"-h", "--help"}


def commands() -> Iterator[tuple[str, set[str]]]:
    group = typer.main.get_command(command_line)
    for name, command in [("myagent", group), *((f"myagent {name}", one) for name, one in group.commands.items())]:
        yield name, {flag for param in command.params for flag in param.opts if flag.startswith("-")}


def parsers() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    yield "myagent-discovery", registry._parser()
    for action in registry_commands._parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, parser in action.choices.items():
                yield f"myagent-discovery {name}", parser


def test_every_command_and_flag_is_on_the_page_and_no_other() -> None:
    documented: dict[str, set[str]] = {}
    for heading in re.findall(r"^##+ (myagent.*)$", text_of("docs/commands.md"), re.MULTILINE):
        documented[heading] = set()
    for heading, first, cells in rows("docs/commands.md"):
        if first == "flag":
            documented[heading] |= {flag.split()[0] for flag in codes(cells[0])}
    documented["myagent"].discard("--help")
    known = {name: flags_in(parser) for name, parser in parsers()} | dict(commands())
    assert documented == known


# --- environment


class RecordingEnvironment(dict[str, str]):
    """An environment that records which variables are read."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.names.add(key)
        return super().get(key, default)


VARIABLE = re.compile(r"(MYAGENT|DISCOVERY|OTEL|AWS|OPENAI|OLLAMA|XDG|NO)_[A-Z_]+[A-Z]|AWS_REGION|NO_COLOR")


def variables_read() -> set[str]:
    """Names of variables in the code, without prose, and those that the registry's settings read."""
    found: set[str] = set()
    for file in (ROOT / "agent_runtime").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and VARIABLE.fullmatch(node.value):
                found.add(node.value)
    environment = RecordingEnvironment()
    Settings.from_environment(environment)
    return found | environment.names


def test_every_environment_variable_is_on_the_page_and_no_other() -> None:
    documented = {
        name for _, first, cells in rows("docs/commands.md") if first == "variable" for name in codes(cells[0])
    }
    for_libraries = {"AWS_ENDPOINT_URL"}  # read by the AWS SDK
    for_examples = {"MYAGENT_TOOL_ANSWER"}
    assert documented - for_libraries == variables_read() | for_examples


def test_every_variable_on_a_page_is_read_by_the_code() -> None:
    known = variables_read() | {"AWS_ENDPOINT_URL"}
    build_arguments = {"PYTHON_VERSION"}
    for page in PAGES:
        named = {match[0] for match in re.finditer(r"(?:MYAGENT|DISCOVERY|OTEL|AWS)_[A-Z_]*[A-Z]", text_of(page))}
        assert named - known - build_arguments == set(), page


# --- routes


def documented_routes(page: str) -> set[str]:
    found: set[str] = set()
    for _, first, cells in rows(page):
        if first == "route":
            found |= set(codes(cells[0]))
    return found


def routes_of(app: Any) -> Iterator[tuple[frozenset[str], str]]:
    waiting = list(app.routes)
    while waiting:
        route = waiting.pop()
        if router := getattr(route, "original_router", None):
            prefix = route.include_context.prefix
            for inner in router.routes:
                yield frozenset(getattr(inner, "methods", None) or ()), prefix + inner.path
        elif path := getattr(route, "path", None):
            yield frozenset(getattr(route, "methods", None) or ()), path


def shown(methods: frozenset[str], path: str) -> set[str]:
    return {f"{method} {path}" for method in methods - {"HEAD"}} or {path}


async def test_every_route_of_an_agent_is_on_the_page_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "agent.yaml").write_text("name: greeter\nmodel: {provider: local}\n")
    async with Agent(tmp_path / "agent.yaml", model=ScriptedModel([])) as agent:
        known = {name for route in routes_of(create_agent_app(agent)) for name in shown(*route)}
    parts = {name for name in known if "/page/" in name or "oauth2-redirect" in name}
    assert documented_routes("docs/endpoints.md") - {"/page/"} == known - parts


def test_every_route_of_the_registry_is_on_the_page_with_its_scope_and_no_other() -> None:
    app = create_registry_app(Settings(database_url="memory://"))
    known = {name for route in routes_of(app) for name in shown(*route)}
    assert documented_routes("docs/protocol.md") == known
    scopes = {
        route: cells[1] for _, first, cells in rows("docs/protocol.md") if first == "route" for route in codes(cells[0])
    }
    described = app.openapi()["paths"]
    for route, scope in scopes.items():
        method, path = route.split(" ")
        if path in described:
            security = described[path][method.lower()].get("security")
            assert (security[0]["bearer"][0] if security else "–") == scope, route


# --- metrics


def metrics_in(text: str) -> set[str]:
    """The names in Prometheus' text format, without the `_created` series."""
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    return {name for name in kinds if not name.endswith("_created")}


def documented_metrics(heading: str) -> set[str]:
    return {
        codes(cells[0])[0] for under, first, cells in rows("docs/operating.md") if (under, first) == (heading, "metric")
    }


async def test_every_metric_of_an_agent_is_on_the_page_and_no_other() -> None:
    telemetry = Telemetry()
    with telemetry.run("greeter", "hi", {"greet"}) as observe:
        observe(ToolResult("c1", "greet", "hello"))
    async for _ in telemetry.model("greeter", ScriptedModel([("Hello.", Usage(2, 1))])).stream([]):
        pass
    telemetry.secrets_refreshed("greeter", "renewed")
    assert metrics_in(telemetry.prometheus_text().decode()) == documented_metrics("Of an agent")


async def test_every_metric_of_the_registry_is_on_the_page_and_no_other() -> None:
    import httpx

    async with serve(create_registry_app(Settings(database_url="memory://"))) as url, httpx.AsyncClient() as client:
        answer = await client.get(f"{url}/metrics")
    assert metrics_in(answer.text) == documented_metrics("Of the registry")


# --- error codes

CODE = re.compile(r"[a-z]+(_[a-z]+)*")
CALLS = {"problem": 1, "_problem": 1, "problem_response": 2, "Refusal": 1, "_refusal": 1}


def codes_raised(folder: Path) -> set[str]:
    """The error codes in the code: arguments of functions that create errors, and values named `code`."""
    found: set[str] = set()
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            found |= {value for value in _codes_at(node) if CODE.fullmatch(value)}
    return found


def _codes_at(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords):
            place = CALLS.get(name)
            given: list[ast.expr] = [args[place]] if place is not None and len(args) > place else []
            given += [keyword.value for keyword in keywords if keyword.arg == "code"]
        case ast.Tuple(elts=[ast.Constant(value=int(status)), code]) if 400 <= status < 600:
            given = [code]
        case ast.Assign(targets=[ast.Name(id="CODES")], value=ast.Dict(values=values)):
            given = list(values)
        case ast.Assign(targets=[ast.Name(id="code")], value=value):
            given = [value]
        case ast.Assign(targets=[ast.Tuple(elts=[ast.Name(id="code"), *_])], value=ast.Tuple(elts=[code, *_])):
            given = [code]
        case ast.FunctionDef(args=arguments):
            given = [
                default
                for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
                if argument.arg == "code" and default is not None
            ]
        case _:
            given = []
    for one in given:
        for inner in ast.walk(one):
            if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
                yield inner.value


def documented_codes(page: str) -> set[str]:
    return {code for _, first, cells in rows(page) if first == "code" for code in codes(cells[0])}


def test_every_error_code_of_an_agent_is_on_the_page_and_no_other() -> None:
    from typing import get_args

    from agent_runtime.errors import ModelFault

    known = codes_raised(ROOT / "agent_runtime" / "server") | {f"model_{fault}" for fault in get_args(ModelFault)}
    assert documented_codes("docs/endpoints.md") == known


def test_every_error_code_of_the_registry_is_on_the_page_and_no_other() -> None:
    not_answers = {"loopback_endpoint", "unspecified_endpoint"}  # of warnings
    assert documented_codes("docs/protocol.md") == codes_raised(ROOT / "discovery") - not_answers


def test_the_warnings_of_a_registration_are_on_the_page() -> None:
    assert "`loopback_endpoint` and `unspecified_endpoint`" in text_of("docs/protocol.md")


# --- extras and images


def test_every_extra_is_on_the_page_and_no_other() -> None:
    import tomllib

    project: Mapping[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    known = set(project["optional-dependencies"]) - {"dev"}
    documented = {codes(cells[0])[0] for _, first, cells in rows("docs/deploying.md") if first == "extra"}
    assert documented == known


def test_every_build_argument_is_on_the_page_with_its_default() -> None:
    image = (ROOT / "Dockerfile.agent").read_text(encoding="utf-8")
    known: dict[str, str] = {}
    for name, default in re.findall(r"^ARG (\w+)=?(\S*)$", image, re.MULTILINE):
        known[name] = known.get(name) or default
    documented = {
        codes(cells[0])[0]: (codes(cells[1]) or [""])[0]
        for _, first, cells in rows("docs/deploying.md")
        if first == "build argument"
    }
    assert documented == known
