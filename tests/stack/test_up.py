"""`scripts/up` in a fresh clone: from nothing to two agents in the portal, and back to nothing."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.stack.checkout import fresh_clone

pytestmark = pytest.mark.install

# A person's shell may hold a key, and their machine an Ollama: here the built-in model answers.
ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith(("OPENAI_", "MYAGENT_"))}
ENVIRONMENT["OLLAMA_HOST"] = "127.0.0.1:9"


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def up(tmp_path: Path, free_port: int) -> Iterator[subprocess.Popen[str]]:
    clone = fresh_clone(tmp_path)
    process = subprocess.Popen(
        [clone / "scripts" / "up", "--port", str(free_port)],
        cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        finally:
            process.kill()
            if process.stdout is not None:
                process.stdout.close()


def lines_until(process: subprocess.Popen[str], wanted: str) -> list[str]:
    assert process.stdout is not None
    seen: list[str] = []
    for line in process.stdout:
        print(line, end="")  # the time line, for whoever runs this with -s
        seen.append(line)
        if wanted in line:
            return seen
    raise AssertionError(f"{wanted!r} never came:\n{''.join(seen)}")


def test_a_fresh_clone_brings_the_portal_up_and_the_first_agent_answers_while_the_second_is_being_installed(
    up: subprocess.Popen[str], free_port: int
) -> None:
    portal = f"http://127.0.0.1:{free_port}"
    lines_until(up, "customer-service: http://")
    (first,) = httpx.get(f"{portal}/agents").json()
    body = {"message": "show me orders above 500 pounds last month"}
    answer = httpx.post(f"{first['endpoint']}/chat", json=body, timeout=60).json()
    assert answer["steps"][0]["tool_calls"][0]["name"] == "search_orders"
    assert "| Order |" in answer["answer"]
    assert "local" in str(first["model"])  # the page says which model answers

    lines_until(up, f"Open {portal}")
    assert "<html" in httpx.get(portal).text
    records = {record["name"]: record for record in httpx.get(f"{portal}/agents").json()}
    question = {"message": "How many days of holiday do I get?"}
    leave = httpx.post(f"{records['handbook']['endpoint']}/chat", json=question, timeout=60).json()
    assert "27 days" in leave["answer"]

    up.send_signal(signal.SIGINT)
    assert up.wait(timeout=30) == 0
    for record in records.values():
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{record['endpoint']}/livez")
