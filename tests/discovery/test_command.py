"""The command as a process: what a shell, a container and a person see."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

SECONDS = 20


def environment(**variables: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DISCOVERY_")}
    root = str(Path(__file__).parents[2])
    return inherited | {"PYTHONPATH": root} | variables


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "discovery", *arguments],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env=environment(**variables),
    )


@contextmanager
def running(
    folder: Path, *arguments: str, prefix: Sequence[str] = (), **variables: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = subprocess.Popen(
        [*prefix, sys.executable, "-m", "discovery", "--port", "0", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**variables),
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()  # the one line, once it serves; ends at once when the process does
        yield process, line.rpartition(" ")[2].strip()
    finally:
        process.kill()
        process.communicate(timeout=SECONDS)


def test_help_names_the_flags_and_the_variables() -> None:
    shown = run("--help")
    assert shown.returncode == 0
    flags = ("--host", "--port", "--database-url", "--log-level")
    for word in (*flags, "DISCOVERY_ALLOW_ANONYMOUS", "DISCOVERY_TOKENS", "DISCOVERY_PROBE", "DISCOVERY_DOMAIN"):
        assert word in shown.stdout


def test_version_is_one_line() -> None:
    shown = run("--version")
    assert (shown.returncode, shown.stdout.split()[0]) == (0, "myagent-discovery")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_the_portal_is_and_ends_cleanly_when_asked(tmp_path: Path, number: signal.Signals) -> None:
    with running(tmp_path) as (process, url):
        assert url.startswith("http://127.0.0.1:")
        assert httpx.get(f"{url}/agents", trust_env=False).json() == []
        assert (tmp_path / "registry.db").exists()
        process.send_signal(number)
        out, errors = process.communicate(timeout=SECONDS)
        assert (process.returncode, out, errors) == (0, "", "")


def test_it_ends_in_time_although_a_client_never_finishes(tmp_path: Path) -> None:
    with running(tmp_path) as (process, url):
        with closing(socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])))) as slow:
            slow.sendall(b"POST /register HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
            process.terminate()
            process.communicate(timeout=SECONDS)
        assert process.returncode == 0


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"DISCOVERY_HOST": "0.0.0.0"}, "DISCOVERY_ALLOW_ANONYMOUS=1"),
        ({"DISCOVERY_TOKENS": "read:ok,hush"}, "DISCOVERY_TOKENS entry 2 must begin with"),
        ({"DISCOVERY_PORT": "x"}, "must be a number"),
        ({"DISCOVERY_DATABASE_URL": "mysql://u:hush@h/d"}, "use sqlite:///"),
    ],
)
def test_a_wrong_setting_is_one_sentence_and_status_2(variables: dict[str, str], words: str) -> None:
    refused = run(**variables)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert words in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert "hush" not in refused.stderr


def test_a_port_in_use_is_one_sentence_and_status_1() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        refused = run("--port", str(other.getsockname()[1]), "--database-url", "memory://")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "is in use" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


@pytest.mark.parametrize("host", ["203.0.113.9", "no-such-host.invalid"])
def test_an_address_of_another_machine_is_one_sentence_and_status_1(host: str) -> None:
    refused = run("--host", host, "--database-url", "memory://", DISCOVERY_ALLOW_ANONYMOUS="1")
    assert refused.returncode == 1
    assert len(refused.stderr.splitlines()) == 1


def test_open_to_the_network_is_logged_loudly_and_told_to_the_portal(tmp_path: Path) -> None:
    arguments = ("--host", "0.0.0.0", "--database-url", "memory://")
    with running(tmp_path, *arguments, DISCOVERY_ALLOW_ANONYMOUS="1") as (process, url):
        assert httpx.get(f"{url}/health", trust_env=False).json()["open_to_network"] is True
        process.terminate()
        _, errors = process.communicate(timeout=SECONDS)
        assert "WARNING" in errors
        assert "anyone who reaches this machine" in errors


def test_with_tokens_it_listens_everywhere_without_a_warning_and_writes_no_token_anywhere(tmp_path: Path) -> None:
    secrets = tmp_path / "tokens"
    secrets.write_text("read:t0ps3cret\nregister:t0ps3cret:a-*\n", encoding="utf-8")
    arguments = ("--host", "0.0.0.0", "--database-url", "memory://", "--log-level", "debug")
    with running(tmp_path, *arguments, DISCOVERY_TOKENS=f"file:{secrets}") as (process, url):
        for token, status in {"t0ps3cret": 200, "t0ps3cret2": 401}.items():
            headers = {"authorization": f"Bearer {token}"}
            answer = httpx.get(f"{url}/health", trust_env=False, headers=headers)
            assert answer.status_code == status
            assert token not in answer.text
        assert httpx.get(f"{url}/agents", trust_env=False).status_code == 401
        process.terminate()
        out, errors = process.communicate(timeout=SECONDS)
        assert "t0ps3cret" not in out + errors
        assert "WARNING" not in errors


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("hard", "is_low"), [(512, True), (4096, False)])
def test_the_limit_of_open_files_is_raised_and_a_low_one_is_logged(tmp_path: Path, hard: int, is_low: bool) -> None:
    shell = ["sh", "-c", f'ulimit -Sn 256 && ulimit -Hn {hard} && exec "$0" "$@"']
    with running(tmp_path, "--database-url", "memory://", prefix=shell) as (process, _):
        limits = Path(f"/proc/{process.pid}/limits").read_text(encoding="utf-8")
        line = next(line for line in limits.splitlines() if line.startswith("Max open files"))
        assert line.split()[3:5] == [str(hard), str(hard)]
        process.terminate()
        _, errors = process.communicate(timeout=SECONDS)
        assert (f"the limit of open files is {hard}" in errors) == is_low


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    body = {"endpoint": "http://127.0.0.1:8000", "agent_type": "tool", "tools": [], "version": "1"}
    for number in range(3):
        with running(tmp_path) as (process, url):
            answer = httpx.post(f"{url}/register", json=body | {"name": f"agent-{number}"}, trust_env=False)
            assert answer.status_code == 201
            process.kill()
    with running(tmp_path) as (_, url):
        names = [agent["name"] for agent in httpx.get(f"{url}/agents", trust_env=False).json()]
    assert names == ["agent-0", "agent-1", "agent-2"]
