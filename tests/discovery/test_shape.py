"""The house rules that a reviewer should not have to remember."""

import ast
from pathlib import Path

import pytest

import discovery

PACKAGE = Path(discovery.__file__).parent
# From the ground up; a file may import only what stands below it.
FLOORS = [
    "fields",
    "replies",
    "gathered",
    "heads",
    "tls",
    "contract",
    "reading",
    "endpoint",
    "event_stream",
    "addresses",
    "faces",
    "catalog",
    "catalog_query",
    "outbound",
    "reach",
    "history",
    "leases",
    "search",
    "filters",
    "last_list",
    "calls",
    "client",
    "asgi",
    "contract_diff",
    "table",
    "listing",
    "watch",
    "packed",
    "paging",
    "decisions",
    "answers",
    "stores.base",
    "writer",
    "stores.rows",
    "stores.postgres_rows",
    "stores.postgres",
    "stores.memory",
    "stores.sqlite_process",
    "stores.sqlite_file",
    "stores.sqlite_rows",
    "stores.sqlite_schema",
    "stores.sqlite",
    "stores",
    "transfer",
    "tokens",
    "settings",
    "heartbeats",
    "finding",
    "registry",
    "background",
    "probe",
    "mcp_face",
    "problems",
    "auth",
    "deps",
    "events",
    "ard",
    "mcp_door",
    "metrics",
    "description",
    "portal",
    "api",
    "express",
    "protocol",
    "app",
    "commands",
    "__main__",
]
FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> list[tuple[str, list[str]]]:
    found: list[tuple[str, list[str]]] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            found.append((node.module or "", [one.name for one in node.names]))
        elif isinstance(node, ast.Import):
            found += [(one.name, []) for one in node.names]
    return found


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_imports_only_what_stands_below_it(path: Path) -> None:
    name = name_of(path)
    if name == "__init__":
        assert imports(path) == []
        return
    for module, names in imports(path):
        assert module.split(".")[0] != "agent_runtime"
        if module.split(".")[0] != "discovery":
            continue
        below = [module.removeprefix("discovery.")] if module != "discovery" else names
        for one in below:
            assert FLOORS.index(one) < FLOORS.index(name), f"{name} imports {one}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert (node.end_lineno or 0) - node.lineno < 50, node.name
