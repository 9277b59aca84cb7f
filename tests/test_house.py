"""The house rules that a reviewer should not have to remember: floors, sizes, the public face, no foreign address."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import agent_runtime
import discovery
import infrastructure
import myagent

ROOT = Path(agent_runtime.__file__).parents[1]
PACKAGES = [Path(package.__file__).parent for package in (agent_runtime, discovery, infrastructure)]
FILES = sorted(file for package in PACKAGES for file in package.rglob("*.py"))
MOST_LINES, MOST_LINES_OF_A_FUNCTION = 300, 50

HEAVY = ["openai", "torch", "asyncpg", "aioboto3", "mcp", "a2a", "fastapi", "uvicorn", "sentence_transformers"]


def name_of(file: Path) -> str:
    """`agent_runtime.server` of agent_runtime/server/app.py."""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(file) for file in FILES}


def imported(file: Path) -> Iterator[str]:
    """Our modules that a file imports, anywhere in it: `from agent_runtime import loading` is `loading`."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(file)} imports relatively"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found = [name if name in MODULES else str(node.module) for name in names]
        elif isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        else:
            continue
        yield from (name for name in found if name in MODULES)


RUNTIME = [file for file in FILES if name_of(file).startswith("agent_runtime")]


def test_no_file_stands_in_a_circle_of_imports_not_even_a_deferred_one() -> None:
    waiting = {name_of(file): set(imported(file)) - {name_of(file)} for file in FILES}
    while free := [name for name, needs in waiting.items() if not needs & waiting.keys()]:
        for name in free:
            del waiting[name]
    assert waiting == {}, "these files import each other"


def test_the_runtime_knows_of_discovery_its_client_its_contract_and_what_both_servers_share() -> None:
    known = {module for file in RUNTIME for module in imported(file) if module.startswith("discovery")}
    assert known <= {
        "discovery.client",
        "discovery.contract",
        "infrastructure.heads",
        "infrastructure.tls",
    }


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_a_file_and_its_functions_can_be_read_at_a_sitting(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < MOST_LINES_OF_A_FUNCTION, node.name


@pytest.mark.parametrize("package", [agent_runtime, discovery, myagent], ids=lambda package: package.__name__)
def test_the_public_face_is_a_sorted_and_complete_list(package: object) -> None:
    names = list(getattr(package, "__all__", []))
    assert names == sorted(set(names))
    assert [name for name in names if not hasattr(package, name)] == []


def test_every_name_that_the_runtime_imports_for_its_users_is_in_its_list() -> None:
    tree = ast.parse(Path(agent_runtime.__file__).read_text(encoding="utf-8"))
    offered = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("agent_runtime")
        for alias in node.names
    }
    assert offered | {"__version__"} == set(agent_runtime.__all__) == set(myagent.__all__)


IMPORTING = """
import os, sys

class Watched(dict):
    def get(self, key, default=None):
        reader = sys._getframe(1).f_globals["__name__"]  # a library may read its own variables
        assert reader.partition(".")[0] not in ("agent_runtime", "discovery", "myagent"), f"{reader} reads {key}"
        return super().get(key, default)
    __getitem__ = __contains__ = get

os.environ = Watched(os.environ)
os.getenv = os.environ.get
import MODULE
print(sorted(name for name in HEAVY if name in sys.modules))
"""


@pytest.mark.parametrize("module", ["agent_runtime", "myagent", "discovery.client", "discovery.contract"])
def test_importing_loads_nothing_heavy_prints_nothing_and_reads_no_environment(module: str, tmp_path: Path) -> None:
    code = IMPORTING.replace("MODULE", module).replace("HEAVY", str(HEAVY))
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")
    assert list(tmp_path.iterdir()) == []


def tracked_files() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout: git knows which files are the project's")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=30, check=True)
    return [ROOT / name for name in done.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def test_no_file_names_a_package_registry_or_a_folder_of_one_machine() -> None:
    # Put together here, so that this file does not hold them itself.
    hosts = [
        ".".join(parts)
        for parts in (
            ("pypi", "org"),
            ("files", "pythonhosted", "org"),
            ("registry", "npmjs", "org"),
            ("deb", "debian", "org"),
            ("download", "pytorch", "org"),
        )
    ]
    folders = ["/".join(("", *parts, "")) for parts in (("work",), ("root", ".pyenv"), ("Users", "runner"))]
    found = [
        f"{file.relative_to(ROOT)} names {word}"
        for file in tracked_files()
        for word in (*hosts, *folders)
        if word.encode() in file.read_bytes()
    ]
    assert found == []
