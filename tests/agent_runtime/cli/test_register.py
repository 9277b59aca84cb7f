"""`myagent register`: real processes beside a real registry, and commands that they run."""

import asyncio
import fcntl
import json
import os
import pty
import signal
import sys
import termios
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from discovery.app import create_app as create_registry
from discovery.client import DiscoveryClient
from discovery.contract import AgentRecord
from discovery.settings import Settings
from discovery.tokens import read_tokens
from tests.agents import Ended, eventually, free_port, myagent, started
from tests.serving import serve

BILLING = ("--name", "billing", "--endpoint", "http://10.0.0.7:8080")
NOBODY = ("--discovery-url", "http://127.0.0.1:9")
WAITS = """
import signal, sys
def leave(number, frame):
    print("left by", signal.Signals(number).name, flush=True)
    sys.exit(3)
signal.signal(signal.SIGTERM, leave)
signal.signal(signal.SIGUSR1, lambda number, frame: print("heard SIGUSR1", flush=True))
signal.signal(signal.SIGINT, lambda number, frame: print("heard SIGINT", flush=True))
print("running", flush=True)
while True:
    signal.pause()
"""


class Registry:
    """A real one, and a look at its list."""

    def __init__(self, client: DiscoveryClient) -> None:
        self._client = client
        self.flags = ("--discovery-url", client.url)

    async def listed(self) -> list[AgentRecord]:
        return await self._client.agents()

    async def entry(self, **wanted: Any) -> AgentRecord:
        """The one entry, as soon as it is as wanted."""

        async def found() -> AgentRecord | None:
            agents = await self.listed()
            return next((a for a in agents if all(getattr(a, key) == value for key, value in wanted.items())), None)

        return await eventually(found, 15)


@asynccontextmanager
async def a_registry(*, token: str | None = None, **settings: Any) -> AsyncGenerator[Registry]:
    app = create_registry(Settings(database_url="memory://", **settings))
    async with asyncio.timeout(40), serve(app) as url, DiscoveryClient(url, token=token) as client:
        yield Registry(client)


async def register(folder: Path, *arguments: str | Path, **environment: str) -> Ended:
    return await myagent("register", *arguments, cwd=folder, environment=environment)


async def line_of(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


async def test_an_entry_is_there_while_the_process_runs_and_gone_after_sigterm(tmp_path: Path) -> None:
    more = ("--type", "go", "--version", "2.1", "--tool", "invoice", "--tool", "refund", "--tag", "money")
    about = ("--description", "Sends invoices.", "--owner", "finance", "--instance-id", "pod-1")
    async with a_registry() as registry:
        command = ("register", *BILLING, *more, *about, *registry.flags, "--heartbeat-seconds", "20")
        async with started(*command, cwd=tmp_path) as process:
            entry = await registry.entry(name="billing")
            process.terminate()
            out, errors = await process.communicate()
        assert await registry.listed() == []
    assert (process.returncode, out) == (0, b"")
    assert b"registered with http" in errors
    assert (entry.endpoint, entry.agent_type, entry.version, entry.tools) == (
        "http://10.0.0.7:8080",
        "go",
        "2.1",
        ["invoice", "refund"],
    )
    assert (entry.description, entry.owner, entry.tags, entry.status) == ("Sends invoices.", "finance", ["money"], "up")
    assert [(one.instance_id, one.ttl_seconds) for one in entry.instances] == [("pod-1", 60)]


async def test_fields_that_are_not_given_have_defaults(tmp_path: Path) -> None:
    async with a_registry() as registry, started("register", *BILLING, *registry.flags, cwd=tmp_path):
        entry = await registry.entry(name="billing")
    assert (entry.agent_type, entry.version, entry.tools) == ("service", "unknown", [])


FIELDS = {
    "name": "billing",
    "endpoint": "http://${HOST:-10.0.0.1}:8080",
    "version": "1",
    "tools": [{"name": "invoice", "description": "Send one.", "input_schema": {"type": "object"}}, "refund"],
    "protocols": ["mcp"],
    "links": {"docs": "https://docs.example/billing"},
    "metadata": {"team": {"floor": 3}},
}


@pytest.mark.parametrize("name", ["registration.yaml", "registration.json"])
async def test_a_file_holds_all_fields_and_a_flag_wins_over_it(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(json.dumps(FIELDS, indent="\t" if name.endswith(".json") else 2))
    async with a_registry() as registry:
        command = ("register", "--file", name, "--version", "2", *registry.flags)
        async with started(*command, cwd=tmp_path, environment={"HOST": "billing.internal"}):
            entry = await registry.entry(name="billing")
    assert (entry.version, entry.endpoint) == ("2", "http://billing.internal:8080")
    [invoice, refund] = entry.tools
    assert not isinstance(invoice, str)
    assert (invoice.input_schema, refund) == ({"type": "object"}, "refund")
    assert entry.links is not None
    assert (entry.protocols, entry.links.docs, entry.metadata) == (
        ["mcp"],
        "https://docs.example/billing",
        {"team": {"floor": 3}},
    )


@pytest.mark.parametrize(
    ("flags", "text", "sentences"),
    [
        ((), None, ["myagent register --endpoint: is required", "myagent register --name: is required"]),
        (("--name", "a/b", "--endpoint", "x"), None, ["register --endpoint: must be an absolute", "--name: must not"]),
        ((*BILLING, "--health", "x"), None, ["myagent register --health: must be an http:// or https:// address"]),
        ((*BILLING, "--url", "x:9"), None, ["myagent register --discovery-url: must be an http:// or https:// addr"]),
        ((*BILLING, "--heartbeat-seconds", "0"), None, ["register --heartbeat-seconds: must be more than 0"]),
        ((*BILLING, "--heartbeat-seconds", "soon"), None, ["register: Invalid value for '--heartbeat-seconds'"]),
        ((*BILLING, "--token-file", "nowhere"), None, ["--token-file: nowhere cannot be read: No such file"]),
        ((*BILLING, "--token-file", "f.yaml"), "two words", ["--token-file: f.yaml must contain one token"]),
        (
            (*BILLING, "--once", "--health", "http://x"),
            None,
            ["register --once: cannot be combined with --health"],
        ),
        ((*BILLING, "--", "no-such-command", "-x"), None, ["no-such-command: cannot be run: No such file"]),
        ((*BILLING, "--", "/"), None, ["/: cannot be run: Permission denied"]),
        (("--file", "nowhere.json"), None, ["nowhere.json: cannot be read: No such file"]),
        (("--file", "nowhere.yaml"), None, ["nowhere.yaml: no such file"]),
        (("--file", "f.json"), "{\n\n]", ["f.json:3: is not valid JSON"]),
        (("--file", "f.json"), "[]", ["f.json: must be an object"]),
        (("--file", "f.yaml"), "name: a", ["--endpoint, or `endpoint:` in f.yaml: is required"]),
        (("--file", "f.yaml", *BILLING), "nmae: a\ntag: [x]", ["f.yaml:1 nmae: unknown key; did you mean `name`?"]),
        (("--file", "f.yaml", *BILLING), "\nttl_seconds: 3", ["f.yaml:2 ttl_seconds: unknown key; known keys:"]),
        (("--file", "f.yaml", *BILLING), "tools:\n- {name: 3}", ["f.yaml:2 tools[0].name: must be a text"]),
        (("--file", "f.yaml", *BILLING), "metadata: {api_key: hush}", ["'api_key' must not be sent"]),
        (("--file", "f.yaml", *BILLING), "owner: ${NOT_SET}", ["f.yaml:1 owner: environment variable NOT_SET is not"]),
        (("--file", "f.yaml", *BILLING), "owner: ${secret:a/b}", ["secret a/b: a registration is public"]),
    ],
)
async def test_invalid_input_is_reported_at_its_place(
    tmp_path: Path, flags: tuple[str, ...], text: str | None, sentences: list[str]
) -> None:
    for name in ("f.yaml", "f.json"):
        (tmp_path / name).write_text(text or "")
    ended = await register(tmp_path, *(flags if "--url" in flags else (*NOBODY, *flags)))
    assert (ended.status, ended.out) == (2, "")
    for sentence in sentences:
        assert sentence in ended.err
    assert "Traceback" not in ended.err
    assert "hush" not in ended.err


async def test_once_is_for_ever_and_a_registry_that_is_away_is_one_sentence(tmp_path: Path) -> None:
    async with a_registry() as registry:
        ended = await register(tmp_path, *BILLING, "--once", MYAGENT_DISCOVERY_URL=registry.flags[1])
        [entry] = await registry.listed()
    assert (ended.status, ended.out) == (0, f"billing/default is registered at {registry.flags[1]}\n")
    assert entry.status == "registered"
    away = await register(tmp_path, *BILLING, "--once", *registry.flags)
    assert (away.status, away.out, len(away.err.splitlines())) == (1, "", 1)
    assert f"{registry.flags[1]} did not register billing: ConnectError" in away.err


async def test_the_token_is_the_files_or_else_the_environments_and_is_never_shown(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t0ps3cret\n")
    tokens = read_tokens("register:t0ps3cret:bil*,read:reader")
    async with a_registry(token="reader", tokens=tokens) as registry:
        command = (*BILLING, "--once", *registry.flags)
        from_file = await register(tmp_path, *command, "--token-file", "token", MYAGENT_DISCOVERY_TOKEN="wrong")
        from_environment = await register(tmp_path, *command, MYAGENT_DISCOVERY_TOKEN="t0ps3cret")
        wrong = await register(tmp_path, *command, MYAGENT_DISCOVERY_TOKEN="wr0ng")
    assert [from_file.status, from_environment.status, wrong.status] == [0, 0, 1]
    assert "401 Unauthorized" in wrong.err
    assert "s3cret" not in from_file.out + from_file.err + from_environment.out + from_environment.err
    assert "wr0ng" not in wrong.err


class Thing:
    """Something that is not Python, with a health address."""

    status = 200

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": b"never mind"})


async def test_a_health_address_decides_between_up_degraded_and_down(tmp_path: Path) -> None:
    thing, port = Thing(), free_port()
    health = ("--health", f"http://127.0.0.1:{port}/health", "--heartbeat-seconds", "0.2")
    async with a_registry() as registry, started("register", *BILLING, *registry.flags, *health, cwd=tmp_path) as side:
        async with serve(thing, port=port, lifespan="off"):
            await registry.entry(status="up")
            thing.status = 503
            entry = await registry.entry(status="degraded")
            assert [(one.name, one.ok, one.reason) for one in entry.instances[0].checks] == [
                ("health", False, "503 Service Unavailable")
            ]
            thing.status = 200
            await registry.entry(status="up")
        await registry.entry(status="down")
        async with serve(thing, port=port, lifespan="off"):
            await registry.entry(status="up")
            side.terminate()
            _, errors = await side.communicate()
    told = errors.decode()
    assert told.count("does not answer") == told.count("answers again") == 1
    assert f"http://127.0.0.1:{port}/health does not answer" in told


async def test_before_the_health_address_answers_there_is_no_entry_and_sigterm_ends_the_waiting(tmp_path: Path) -> None:
    health = ("--health", f"http://127.0.0.1:{free_port()}/health", "--log-level", "debug")
    async with a_registry() as registry, started("register", *BILLING, *registry.flags, *health, cwd=tmp_path) as side:
        assert side.stderr is not None
        while b"not ready yet" not in await side.stderr.readline():
            pass
        assert await registry.listed() == []
        side.terminate()
        assert await side.wait() == 0


# ---- a command behind it ----


@pytest.mark.parametrize(("program", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", 137)])
async def test_exit_status_and_streams_of_the_command_are_passed_on(tmp_path: Path, program: str, status: int) -> None:
    ended = await register(tmp_path, *BILLING, *NOBODY, "--", "sh", "-c", f"echo out; echo err >&2; {program}")
    assert (ended.status, ended.out) == (status, "out\n")
    assert "err\n" in ended.err


async def test_an_entry_lasts_as_long_as_the_command_which_receives_every_signal(tmp_path: Path) -> None:
    async with a_registry() as registry:
        command = ("register", *BILLING, *registry.flags, "--", sys.executable, "-c", WAITS)
        async with started(*command, cwd=tmp_path) as process:
            assert await line_of(process) == "running"
            await registry.entry(name="billing")
            process.send_signal(signal.SIGUSR1)
            assert await line_of(process) == "heard SIGUSR1"
            process.send_signal(signal.SIGTERM)
            assert await line_of(process) == "left by SIGTERM"
            assert await process.wait() == 3
        assert await registry.listed() == []


async def test_ctrl_c_in_a_terminal_reaches_the_command_once(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    arguments = [sys.executable, "-m", "agent_runtime", "register", *BILLING, *NOBODY]
    try:
        process = await asyncio.create_subprocess_exec(
            *arguments,
            *("--", sys.executable, "-c", WAITS),
            cwd=tmp_path,
            stdin=theirs,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # a terminal's foreground, as in a shell
        )
        async with asyncio.timeout(30):
            assert await line_of(process) == "running"
            os.write(ours, b"\x03")
            assert await line_of(process) == "heard SIGINT"
            process.terminate()
            assert await line_of(process) == "left by SIGTERM"
            assert await process.wait() == 3
    finally:
        os.close(ours)
        os.close(theirs)


async def test_a_newer_process_under_the_same_name_is_warned_about(tmp_path: Path) -> None:
    async with a_registry() as registry:
        command = ("register", *BILLING, *registry.flags, "--heartbeat-seconds", "0.2")
        async with started(*command, cwd=tmp_path) as first:
            await registry.entry(name="billing")
            async with started(*command, "--version", "2", cwd=tmp_path) as second:
                await registry.entry(version="2")
                assert first.stderr is not None
                while b"another process registered as billing/default" not in (line := await first.stderr.readline()):
                    assert line
                second.terminate()
                await second.wait()
            await registry.entry(version="unknown")


async def test_the_help_says_what_health_means_and_where_the_token_comes_from(tmp_path: Path) -> None:
    ended = await register(tmp_path, "--help")
    assert (ended.status, ended.err) == (0, "")
    for word in ("MYAGENT_DISCOVERY_TOKEN", "--token-file", "--health", "degraded", "stale", "--once", "exit status"):
        assert word in ended.out


async def test_a_health_check_sends_no_credentials(tmp_path: Path) -> None:
    heard: list[dict[bytes, bytes]] = []

    async def noting(scope: Any, receive: Any, send: Any) -> None:
        heard.append(dict(scope["headers"]))
        await Thing()(scope, receive, send)

    async with a_registry() as registry, serve(noting, lifespan="off") as url:
        command = ("register", *BILLING, *registry.flags, "--health", url)
        async with started(*command, cwd=tmp_path, environment={"MYAGENT_DISCOVERY_TOKEN": "t0ps3cret"}):
            await registry.entry(status="up")
    assert heard
    assert all(b"authorization" not in headers for headers in heard)
