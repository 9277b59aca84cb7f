"""`myagent up` as the process that a person starts."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from agent_runtime.local_model.weights import find_weights
from tests.agent_runtime.local_model.hub import REPO, Hub, running

pytestmark = pytest.mark.model

AGENT = "name: greeter\nmodel:\n  provider: local\n  name: '${MYAGENT_MODEL_NAME:-smollm2-135m}'\nserver: {port: 0}\n"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def started(folder: Path, *flags: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    (folder / "agent").mkdir(exist_ok=True)
    (folder / "agent" / "agent.yaml").write_text(AGENT)
    process = subprocess.Popen(
        [sys.executable, "-m", "agent_runtime", "up", *flags, "agent"],
        cwd=folder, env={**os.environ, "OLLAMA_HOST": "127.0.0.1:9", **variables}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        finally:
            process.kill()
            if process.stdout is not None:
                process.stdout.close()


def said_until(process: subprocess.Popen[str], wanted: str) -> str:
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if wanted in line:
            return said
    raise AssertionError(f"{wanted!r} never came:\n{said}")


def gone(url: str) -> bool:
    """Whether nobody answers there any more, at the latest in ten seconds."""
    for _ in range(100):
        try:
            httpx.get(url, timeout=1)
        except httpx.HTTPError:
            return True
        # another process is ending: there is no event to wait for
        subprocess.run(["sleep", "0.1"], check=True)
    return False


def test_up_starts_the_registry_and_the_agent_and_ctrl_c_stops_both(tmp_path: Path) -> None:
    port = free_port()
    with started(tmp_path, "--port", str(port)) as process:
        said = said_until(process, f"Open http://127.0.0.1:{port}")
        assert "model: the built-in model" in said
        (record,) = httpx.get(f"http://127.0.0.1:{port}/agents").json()
        assert record["name"] == "greeter"
        assert httpx.get(f"{record['endpoint']}/health").json()["discovery"]["registered"]
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0
    assert gone(f"http://127.0.0.1:{port}/livez")
    assert gone(f"{record['endpoint']}/livez")


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux ends the children of a killed process")
def test_when_up_is_killed_nothing_of_it_stays(tmp_path: Path) -> None:
    port = free_port()
    with started(tmp_path, "--port", str(port)) as process:
        said_until(process, "Open")
        (record,) = httpx.get(f"http://127.0.0.1:{port}/agents").json()
        process.kill()
        process.wait(timeout=10)
        assert gone(f"{record['endpoint']}/livez")
        assert gone(f"http://127.0.0.1:{port}/livez")


def test_a_model_of_the_hub_is_downloaded_once_with_progress_and_answers(tmp_path: Path) -> None:
    weights = find_weights("smollm2-135m").read_bytes()  # real ones, so that the engine has something to load
    with running(Hub({"model-Q4_K_M.gguf": weights})) as hub:
        variables = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hub"), "NO_PROXY": "127.0.0.1"}
        for expected in (f"downloading {REPO}: {len(weights) / 1e6:.0f} of {len(weights) / 1e6:.0f} MB", ""):
            port = free_port()
            with started(tmp_path, "--model", REPO, "--port", str(port), **variables) as process:
                said = said_until(process, "Open")
                assert expected in said
                assert f"answers with local/{REPO}" in said
                (record,) = httpx.get(f"http://127.0.0.1:{port}/agents").json()
                answer = httpx.post(f"{record['endpoint']}/chat", json={"message": "Hello!"}, timeout=60).json()
                assert answer["answer"]
        assert hub.asked.count(f"GET /{REPO}/resolve/main/model-Q4_K_M.gguf") == 1


def test_a_port_in_use_is_one_sentence_and_status_1(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with started(tmp_path, "--port", str(taken.getsockname()[1])) as process:
            said = process.communicate(timeout=30)[0]
            assert process.returncode == 1
    assert "discovery did not start" in said
    assert "Traceback" not in said


def test_a_folder_without_an_agent_file_is_one_sentence_and_status_1(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "agent_runtime", "up", "nothing-here"],
        cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "myagent: nothing-here cannot be read: No such file or directory\n"
