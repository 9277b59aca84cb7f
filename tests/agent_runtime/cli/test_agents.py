"""`myagent agents` against a real registry: as a person types it, on a pipe and on a terminal."""

import asyncio
import io
import json
import re
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from agent_runtime.cli.agents import ago, cache_folder, watch
from agent_runtime.cli.terminal import console
from discovery.app import create_app as create_registry
from discovery.client import DiscoveryClient
from discovery.contract import FilterValues, Registration
from discovery.settings import Settings
from tests.agents import Ended, eventually, free_port, myagent, on_a_terminal, running, started
from tests.event_registry import event_registry
from tests.serving import serve

ADA: dict[str, Any] = {
    "name": "billing",
    "endpoint": "http://127.0.0.1:8001",
    "agent_type": "react",
    "tools": ["invoice", "refund"],
    "version": "1.2.0",
    "owner": "Ada",
    "model": "openai/gpt-4o-mini",
    "tags": ["money"],
    "ttl_seconds": 60,
}
MAIL: dict[str, Any] = {
    "name": "mail",
    "endpoint": "http://127.0.0.1:8002",
    "agent_type": "mcp_server",
    "tools": [],
    "version": "2",
}


@asynccontextmanager
async def a_registry(*agents: dict[str, Any], port: int = 0) -> AsyncGenerator[str]:
    app = create_registry(Settings(database_url="memory://"))
    async with serve(app, port=port) as url, DiscoveryClient(url) as client:
        for agent in agents:
            await client.register(Registration(**agent))
        yield url


async def agents_command(folder: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> Ended:
    """The command with a cache folder and a home of its own."""
    return await myagent("agents", *arguments, cwd=folder, environment=at_home(folder) | dict(environment or {}))


def at_home(folder: Path) -> dict[str, str]:
    return {"XDG_CACHE_HOME": str(folder / "cache"), "HOME": str(folder)}


async def test_an_agent_is_an_aligned_line_and_a_summary_ends_the_list(tmp_path: Path) -> None:
    async with a_registry(ADA, MAIL) as url:
        ended = await agents_command(tmp_path, environment={"MYAGENT_DISCOVERY_URL": url})
    assert (ended.status, ended.err) == (0, "")
    # The command may be slow to start on a busy machine.
    assert re.sub(r"\d+ s ago", "just now", ended.out).splitlines() == [
        "NAME     STATUS      VERSION  MODEL               TOOLS  OWNER  ENDPOINT               SEEN",
        "billing  up          1.2.0    openai/gpt-4o-mini      2  Ada    http://127.0.0.1:8001  just now",
        "mail     registered  2        -                       0  -      http://127.0.0.1:8002  just now",
        f"2 agents at {url}: 1 up, 1 registered",
    ]


async def test_the_flag_wins_over_the_variable_and_filters_reach_the_registry(tmp_path: Path) -> None:
    nobody = {"MYAGENT_DISCOVERY_URL": f"http://127.0.0.1:{free_port()}"}
    async with a_registry(ADA, MAIL) as url:
        ended = await agents_command(
            tmp_path, "--url", url, "--tag", "money", "--tag", "x", "-q", "ADA", "--type", "react", environment=nobody
        )
        none = await agents_command(tmp_path, "--discovery-url", url, "--owner", "Ben", "--tool", "invoice")
        wrong = await agents_command(tmp_path, "--discovery-url", url, "--status", "upp")
    assert [line.split()[0] for line in ended.out.splitlines()] == ["NAME", "billing", "1"]
    assert ended.out.splitlines()[-1] == f"1 agent at {url}, filtered: 1 up"
    assert (none.status, none.err) == (0, "")
    assert none.out == f"No agent at {url} matches. `myagent agents` without filters lists all agents.\n"
    assert (wrong.status, wrong.out) == (1, "")
    assert f"{url} refuses the request: 400 Bad Request: status: Input should be 'up'" in wrong.err


async def test_an_empty_list_says_which_command_starts_an_agent(tmp_path: Path) -> None:
    async with a_registry() as url:
        ended = await agents_command(tmp_path, "--discovery-url", url)
        as_json = await agents_command(tmp_path, "--discovery-url", url, "--json")
    assert (ended.status, ended.err) == (0, "")
    assert f"myagent run agent.yaml --discovery-url {url}" in ended.out
    away = await agents_command(tmp_path, "--discovery-url", url)
    assert (as_json.status, as_json.out) == (0, "[]\n")
    assert (away.status, away.out) == (1, "")
    assert "its list from " in away.err
    assert " is empty" in away.err


async def test_json_is_the_array_of_the_registry(tmp_path: Path) -> None:
    async with a_registry(ADA, MAIL) as url:
        ended = await agents_command(tmp_path, "--discovery-url", url, "--json", "--tag", "money")
    (agent,) = json.loads(ended.out)
    assert (ended.status, agent["name"], agent["status"], agent["instances"][0]["version"]) == (
        0,
        "billing",
        "up",
        "1.2.0",
    )


@pytest.mark.parametrize("flags", [(), ("--json",)])
async def test_an_unavailable_registry_shows_its_last_list_with_its_age(tmp_path: Path, flags: tuple[str, ...]) -> None:
    async with a_registry(ADA, MAIL) as url:
        before = await agents_command(tmp_path, "--discovery-url", url, *flags)
    away = await agents_command(tmp_path, "--discovery-url", url, *flags)
    chosen = await agents_command(tmp_path, "--discovery-url", url, "--owner", "Ada", "--json")
    assert (before.status, away.status, chosen.status) == (0, 1, 1)
    assert away.out.count("billing") == before.out.count("billing") > 0
    assert f"myagent: {url} is not available (" in away.err
    assert "this is its list from " in away.err
    assert " ago" in away.err or "just now" in away.err
    assert len(away.err.splitlines()) == 1
    assert [agent["name"] for agent in json.loads(chosen.out)] == ["billing"]


async def test_an_unavailable_registry_without_a_cached_list_is_one_sentence(tmp_path: Path) -> None:
    for flags in ((), ("--json",)):
        ended = await agents_command(tmp_path, "--discovery-url", f"http://127.0.0.1:{free_port()}", *flags)
        assert (ended.status, ended.out) == (1, "")
        assert "no earlier list is cached" in ended.err
        assert "Start a registry with `myagent discovery`" in ended.err
        assert len(ended.err.splitlines()) == 1


async def test_the_token_of_the_environment_is_sent_and_a_refusal_is_not_hidden_behind_an_old_list(
    tmp_path: Path,
) -> None:
    heard: list[str] = []

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        heard.append(dict(scope["headers"]).get(b"authorization", b"").decode())
        status = 200 if heard[-1] == "Bearer let-me-in" else 401
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"[]"})

    async with serve(guarded, lifespan="off") as url:
        arguments = ("--discovery-url", url)
        let_in = await agents_command(tmp_path, *arguments, environment={"MYAGENT_DISCOVERY_TOKEN": "let-me-in"})
        refused = await agents_command(tmp_path, *arguments)
        watching = await agents_command(tmp_path, *arguments, "--watch")
    assert (let_in.status, heard[0], {*heard[1:]}) == (0, "Bearer let-me-in", {""})
    for ended in (refused, watching):
        assert (ended.status, ended.out) == (1, "")
        assert "refuses the request: 401 Unauthorized" in ended.err
        assert "MYAGENT_DISCOVERY_TOKEN" in ended.err


async def test_ctrl_c_ends_a_watch_with_status_0(tmp_path: Path) -> None:
    async with a_registry(ADA) as url:
        command = ("agents", "--discovery-url", url, "--watch")
        async with started(*command, cwd=tmp_path, environment=at_home(tmp_path)) as process:
            assert process.stdout is not None
            shown = [await process.stdout.readline() for _ in range(3)]
            process.send_signal(signal.SIGINT)
            _, errors = await process.communicate()
    assert shown[2].decode() == f"1 agent at {url}: 1 up\n"
    assert (process.returncode, errors) == (0, b"")


async def test_a_closed_pipe_ends_the_command_without_an_error(tmp_path: Path) -> None:
    many = [ADA | {"name": f"billing-{number:04}", "description": "x" * 4000} for number in range(100)]
    async with a_registry(*many) as url:
        line = f"{sys.executable} -W error -m agent_runtime agents --json --discovery-url {url} | head -1"
        command = ["bash", "-o", "pipefail", "-c", line]
        async with running(command, tmp_path, at_home(tmp_path)) as process:
            out, errors = await process.communicate()
    assert (process.returncode, out, errors) == (0, b"[\n", b"")


async def test_json_and_watch_exclude_each_other(tmp_path: Path) -> None:
    ended = await agents_command(tmp_path, "--json", "--watch")
    assert ended.status == 2
    assert "myagent agents --watch: cannot be combined with --json" in ended.err


async def test_the_help_names_the_variable_of_the_token(tmp_path: Path) -> None:
    ended = await agents_command(tmp_path, "--help")
    for word in ("MYAGENT_DISCOVERY_TOKEN", "MYAGENT_DISCOVERY_URL", "--discovery-url", "--url", "--watch", "-q"):
        assert word in ended.out


# ---- a terminal ----


class Terminal(io.StringIO):
    """What a terminal would have been sent."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("more", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
async def test_colours_appear_on_a_terminal_only_and_no_color_turns_them_off(
    tmp_path: Path, more: dict[str, str], coloured: bool
) -> None:
    async with a_registry(ADA) as url:
        command = ("agents", "--discovery-url", url)
        status, shown = await on_a_terminal(*command, cwd=tmp_path, environment=at_home(tmp_path) | more)
    assert status == 0
    assert "billing" in shown
    assert ("\x1b[32mup    \x1b[0m" in shown, "\x1b" in shown) == (coloured, coloured)


async def until(condition: Callable[[], Any]) -> None:
    async def holds() -> Any:
        return condition()

    await eventually(holds)


@asynccontextmanager
async def watching(url: str, folder: Path, **chosen: Any) -> AsyncGenerator[Callable[..., Awaitable[str]]]:
    """A watch under way; what is yielded waits until the terminal shows one text and does not show another."""
    terminal = Terminal()

    async def shows(text: str, without: str = "\0") -> str:
        async def is_there() -> str | None:
            screen = terminal.getvalue().rpartition("\x1b[2J\x1b[H")[2]
            return screen if text in screen and without not in screen else None

        return await eventually(is_there)

    async with asyncio.timeout(30), DiscoveryClient(url, cache_folder=folder) as client:
        task = asyncio.create_task(watch(client, cast("FilterValues", chosen), console(terminal)))
        try:
            yield shows
        finally:
            task.cancel()
            await asyncio.wait({task})
        assert task.cancelled()


async def test_a_watch_shows_the_last_list_while_the_registry_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent_runtime.cli.agents.POLL_SECONDS", 0.05)
    port = free_port()
    async with watching(f"http://127.0.0.1:{port}", tmp_path) as shows:
        assert "no earlier list is cached" in await shows("is not available")
        async with a_registry(ADA, port=port):
            assert "billing" in await shows("1 agent", without="not available")
        away = await shows("is not available (")
        assert "billing" in away
        assert "this is its list from just now" in away
        async with a_registry(MAIL, port=port):
            assert "mail" in await shows("1 agent", without="not available")


async def test_a_watch_reads_the_list_again_after_an_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_runtime.cli.agents.POLL_SECONDS", 3600)  # nothing comes of waiting
    async with event_registry() as registry, watching(registry.url, tmp_path, tag="money") as shows:
        await shows("No agent at")
        await until(lambda: registry.readers)
        registry.agents = [ADA, MAIL]
        registry.send("registered", 1, name="billing")
        assert "mail" not in await shows("billing")  # the filters hold for what comes later too
        read_by_then = registry.lists
        registry.agents = [ADA | {"status": "down"}]
        for revision in range(2, 200):
            registry.send("status", revision, name="billing")
        await shows("1 down")
        assert registry.lists - read_by_then < 20


async def test_a_watch_follows_the_events_of_a_real_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_runtime.cli.agents.POLL_SECONDS", 3600)
    async with a_registry(ADA) as url, watching(url, tmp_path) as shows, DiscoveryClient(url) as client:
        await shows("1 agent")
        await client.register(Registration(**MAIL))
        assert "mail" in await shows("2 agents")
        await client.remove("billing")
        await shows("1 agent", without="billing")


async def test_a_watch_reconnects_a_broken_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_runtime.cli.agents.POLL_SECONDS", 0.05)
    async with event_registry() as registry, watching(registry.url, tmp_path) as shows:
        await until(lambda: registry.readers)
        registry.break_off()
        await until(lambda: len(registry.readers) > 1)
        registry.agents = [ADA]
        registry.send("registered", 1, name="billing")
        await shows("billing")


# ---- words ----

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "just now"),
        (2, "just now"),
        (59, "59 s ago"),
        (120, "2 min ago"),
        (7200, "2 h ago"),
        (3 * 86_400, "3 days ago"),
    ],
)
def test_a_time_is_shown_in_the_largest_useful_unit(seconds: int, words: str) -> None:
    assert ago(NOW - timedelta(seconds=seconds), NOW) == words


async def test_text_of_an_agent_cannot_move_the_cursor_and_wide_letters_stay_aligned(tmp_path: Path) -> None:
    bad = MAIL | {"name": "bad", "owner": "x" * 300, "version": "a\x1b[2J\u202eb"}
    wide = MAIL | {"name": "wide", "version": "客服助手"}

    async def careless(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps([bad, wide]).encode()})

    async with serve(careless, lifespan="off") as url:
        ended = await agents_command(tmp_path, "--discovery-url", url)
    lines = ended.out.splitlines()
    assert [line for line in lines if not line.isprintable()] == []
    assert "x" * 39 + "…" in lines[1]
    assert "x" * 40 not in lines[1]
    assert lines[0].index("MODEL") == lines[2].index("-") + 4


async def test_an_output_without_the_letters_gets_a_question_mark(tmp_path: Path) -> None:
    async with a_registry(MAIL | {"owner": "zürich"}) as url:
        ended = await agents_command(tmp_path, "--discovery-url", url, environment={"PYTHONIOENCODING": "ascii"})
    assert (ended.status, ended.err) == (0, "")
    assert "z?rich" in ended.out


@pytest.mark.parametrize(("named", "folder"), [("/var/c", "/var/c/myagent"), ("c", "~/.cache/myagent")])
def test_the_cache_is_in_the_users_folder(named: str, folder: str) -> None:
    assert cache_folder({"XDG_CACHE_HOME": named}) == Path(folder).expanduser()
    assert cache_folder({}) == Path.home() / ".cache" / "myagent"
