"""Nothing leaks: canaries in every secret, in the prompt and in what is said, and every byte that the agent wrote.

The prompt may be found at the model's endpoint, the key in the header that is meant for it, and what was said where the
conversation is kept and shown. Nothing may be found anywhere else: not while all goes well, nor while anything fails.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("a2a", reason="needs the a2a extra")
pytest.importorskip("mcp", reason="needs the mcp extra")
pytest.importorskip("opentelemetry.sdk", reason="needs the otel extra")

from tests.agent_runtime.canary import Canary, World, canary, world
from tests.agents import eventually, myagent, write_agent
from tests.openai_server import answers_with, refuses, says, stalls, streams

Fault = Callable[[World], Awaitable[object]]

MAY = {f"{said} in {place}" for said in ("question", "answer") for place in ("model body", "client", "files", "rows")}
MAY |= {"prompt in model body", "name in model body"}


def replying(reply: Callable[[str], Any]) -> Fault:
    async def fault(around: World) -> None:
        around.reply = reply
        await around.ask()
        around.reply = None

    return fault


def leaking(how: str) -> Fault:
    return lambda around: around.leak("leak", how=how)


def refusing(place: str) -> Fault:
    """The place refuses, and quotes all that it was sent; until that has been noticed."""

    async def fault(around: World) -> None:
        around.refused = frozenset({place})
        before = around.arrived.get("stderr", 0)

        async def noticed() -> bool:
            await around.ask()
            return around.arrived.get("stderr", 0) > before

        await eventually(noticed, 10)
        around.refused = frozenset()

    return fault


async def hang_up(around: World) -> None:
    around.reply = lambda _: stalls("It is ")()
    headers = {"authorization": f"Bearer {around.value('caller')}"}
    body = {"message": around.value("question")}
    async with around.client.stream("POST", "/chat/stream", json=body, headers=headers) as answer:
        async for line in answer.aiter_lines():
            if "It is" in line:
                break
    around.reply = None


async def ask_badly(around: World) -> None:
    key = {"authorization": f"Bearer {around.value('caller')}"}
    asked: list[tuple[str, dict[str, str], bytes]] = [
        ("/chat", {"authorization": f"Bearer {around.value('caller')}x"}, b'{"message": "hi"}'),
        ("/v1/chat/completions", {"authorization": "Basic eA=="}, b"{}"),
        ("/chat", key, b'{"message": '),
        ("/chat", key, b'{"message": "hi", "session_id": ["hi"]}'),
        ("/chat", key, b"x" * 1_100_000),
        ("/a2a", key, b'{"jsonrpc": "2.0"}'),
        ("/mcp", key, b"[]"),
        ("/runs/none/cancel", key, b""),
        ("/approvals/none", key, b'{"decision": "approve"}'),
    ]
    for path, headers, body in asked:
        answer = await around.client.post(path, content=body, headers={**headers, "content-type": "application/json"})
        assert answer.status_code < 500, (path, answer.text)
        around.record("client", repr(answer.headers.raw).encode() + answer.content)


FAULTS: dict[str, Fault] = {
    "all is well": World.ask,
    "the provider refuses the key and quotes all": replying(lambda sent: refuses(401, sent)()),
    "the provider fails and quotes all": replying(lambda sent: refuses(500, sent)()),
    "the provider forbids and quotes all": replying(lambda sent: refuses(403, sent)()),
    "the provider knows no such model": replying(lambda sent: refuses(404, sent)()),
    "the request is bad, says the provider, and quotes all": replying(lambda sent: refuses(400, sent)()),
    "the conversation is too long": replying(lambda sent: refuses(400, sent, code="context_length_exceeded")()),
    "the rate is limited": replying(lambda sent: refuses(429, sent)()),
    "the quota is used up": replying(lambda sent: refuses(429, sent, code="insufficient_quota")()),
    "a page comes in place of an API": replying(lambda sent: answers_with(sent)()),
    "the stream breaks off": replying(lambda sent: streams("{", whole=False)()),
    "the stream holds an error": replying(lambda sent: streams({"error": {"message": sent}})()),
    "the model says nothing": replying(lambda _: says()()),
    "the model stalls": lambda around: hang_up(around),
    "a tool raises an error with secrets": leaking("raise"),
    "a tool raises a chain of errors": leaking("chain"),
    "a tool raises what it encoded": leaking("encoded"),
    "a tool logs secrets in two parts": leaking("log"),
    "a tool logs a line that cannot be formatted": leaking("malformed log"),
    "a tool warns": leaking("warn"),
    "a thread of a tool dies": leaking("thread"),
    "a destructor fails": leaking("destructor"),
    "a task of a tool fails and is forgotten": lambda around: around.leak("forget"),
    "callers ask badly": ask_badly,
    "the MCP server refuses": refusing("tools"),
    "the registry refuses": refusing("registry"),
    "the collector refuses": refusing("collector"),
}


@pytest.fixture(params=["sqlite", "postgres"])
def role_or_none(request: pytest.FixtureRequest) -> tuple[str, Any, str] | None:
    """A role of a database with its connection and URL; none where sessions are kept in SQLite."""
    return request.getfixturevalue("role") if request.param == "postgres" else None


async def rows(server: Any) -> bytes:
    tables = await server.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    return repr([list(await server.fetch(f"SELECT * FROM {table[0]}")) for table in tables]).encode()


async def test_no_byte_that_the_agent_writes_holds_a_secret_or_the_prompt(
    tmp_path: Path, role_or_none: tuple[str, Any, str] | None
) -> None:
    password, url, server, faults = canary("db"), "sqlite:///sessions.db", None, dict(FAULTS)
    if role_or_none:
        role, server, template = role_or_none
        password = Canary("db", password.core, password.core)
        url = template.replace("${secret:password}", "${secret:db}")
        await change_password(server, role, password.value)
        faults["the database ends all connections"] = lambda around: lose_database(around, server, role)
        faults["the database refuses the password"] = lambda around: refuse_password(around, server, role)
    leaks: dict[str, set[str]] = {}
    async with asyncio.timeout(110), world(tmp_path, url, password) as around:

        async def ready() -> bool:
            with suppress(httpx.TransportError):
                return (await around.client.get("/health")).json()["discovery"]["registered"]
            return around.process.returncode is not None

        await eventually(ready, 30)
        assert await around.ask() == [200] * 8, bytes(around.seen["stderr"]).decode()
        for name, fault in faults.items():
            await fault(around)
            if server:
                around.record("rows", await rows(server))
            leaks[name] = around.found() - MAY
        # What was looked at is really what was written.
        places = {"model headers", "model body", "its header", "registry", "tools", "collector", "stderr", "client"}
        assert places <= around.arrived.keys()
        around.process.terminate()
        async with asyncio.timeout(15):
            await around.process.wait()
        leaks["it ends"] = around.found() - MAY
    assert [f"{name}: {', '.join(sorted(found))}" for name, found in leaks.items() if found] == []


async def change_password(server: Any, name: str, password: str) -> None:
    await server.execute(f"ALTER ROLE {name} PASSWORD '{password}'")


async def lose_database(around: World, server: Any, name: str) -> None:
    await server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", name)
    await around.ask()


async def refuse_password(around: World, server: Any, name: str) -> None:
    await change_password(server, name, "another")
    await lose_database(around, server, name)
    await around.ask()
    await change_password(server, name, around.value("db"))


RUN = ("run", "--log-level", "debug")
BROKEN: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "a secret where a number is meant": (("validate", "--json"), {"server": {"port": "${secret:key}"}}),
    "a secret where one of some words is meant": (RUN, {"agent_type": "${secret:key}"}),
    "a secret where a tool is meant": (("validate",), {"tools": ["m${secret:core}:f"]}),
    "a secret where an address is meant": (("validate",), {"model": {"name": "m", "endpoint": "ftp://${secret:key}"}}),
    "a secret where a file is meant": (("doctor",), {"output_schema": "${secret:key}"}),
    "a key of it that is not there": (RUN, {"system_prompt": "${secret:key#none}"}),
    "a database that is not there": (
        RUN,
        {"agent_type": "stateful", "session": {"store": "postgresql://me:${secret:key}@127.0.0.1:9/db"}},
    ),
    "a database address that is none": (RUN, {"agent_type": "stateful", "session": {"store": "${secret:key}://x"}}),
    "a program of an MCP server that is not there": (
        RUN,
        {"mcp_servers": {"shop": {"command": "${secret:core}", "args": ["${secret:key}"], "required": True}}},
    ),
    "a model and a registry that are not there": (
        ("doctor",),
        {
            "model": {"name": "m-${secret:core}", "endpoint": "http://127.0.0.1:9/${secret:core}", "max_retries": 0},
            "discovery": {"url": "http://127.0.0.1:9/${secret:core}"},
        },
    ),
}


@pytest.mark.parametrize("broken", BROKEN)
async def test_no_command_that_fails_shows_a_secret(tmp_path: Path, broken: str) -> None:
    secret, secrets = canary("key"), tmp_path / "secrets"
    await asyncio.to_thread(secrets.mkdir)
    for name, value in {"key": secret.value, "core": secret.core}.items():
        await asyncio.to_thread((secrets / name).write_text, value)
    command, sections = BROKEN[broken]
    file = write_agent(tmp_path / "agent", **sections)
    ended = await myagent(*command, cwd=file.parent, environment={"MYAGENT_SECRETS": f"file:{secrets}"})
    shown = (ended.out + ended.err).encode()
    assert not any(trace in shown for trace in secret.traces), ended
    assert ended.status
    assert "Traceback" not in ended.err
