"""`myagent run`: from its ready line to a clean end."""

import asyncio
import re
import signal
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from discovery.app import create_app as create_registry
from discovery.settings import Settings
from tests.agents import eventually, free_port, myagent, started, write_agent
from tests.openai_server import says, serving_openai, stalls
from tests.serving import serve

READY = re.compile(r"helper answers at (http://[\d.]+:\d+) with openai/test-model\n")


async def ready(process: asyncio.subprocess.Process) -> str:
    """The address of the ready line."""
    assert process.stdout
    line = (await process.stdout.readline()).decode()
    found = READY.fullmatch(line)
    assert found, line or (await process.communicate())[1].decode()
    return found[1]


async def ended(process: asyncio.subprocess.Process, number: int = signal.SIGTERM) -> tuple[int | None, str]:
    process.send_signal(number)
    out, err = await process.communicate()
    assert out == b""
    return process.returncode, err.decode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_an_agent_serves_until_it_is_told_to_stop_and_ends_cleanly(tmp_path: Path, number: int) -> None:
    async with serving_openai(says("Hello.")) as openai:
        model = {"name": "test-model", "endpoint": openai.url}
        session = {"store": "sqlite:///sessions.db"}
        write_agent(tmp_path, server={"port": 0}, model=model, agent_type="stateful", session=session)
        async with started("run", cwd=tmp_path) as process:
            url = await ready(process)
            async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
                answer = await client.post("/chat", json={"message": "hi"})
                assert answer.json()["answer"] == "Hello."
            status, log = await ended(process, number)
    assert status == 0
    assert "Traceback" not in log
    assert "Warning" not in log


async def test_a_stop_does_not_wait_for_a_stream_that_never_ends(tmp_path: Path) -> None:
    async with serving_openai(stalls("It is ")) as openai:
        write_agent(tmp_path, server={"port": 0}, model={"name": "test-model", "endpoint": openai.url})
        async with started("run", cwd=tmp_path) as process:
            url = await ready(process)
            async with (
                httpx.AsyncClient(base_url=url, trust_env=False, timeout=20) as client,
                client.stream("POST", "/chat/stream", json={"message": "hi"}) as answer,
            ):
                async for line in answer.aiter_lines():
                    if "It is" in line:
                        break
                status, log = await ended(process)
    assert status == 0
    assert "Traceback" not in log


async def test_a_stop_while_the_agent_is_starting_ends_it_without_a_traceback(tmp_path: Path) -> None:
    code = "import pathlib, time\npathlib.Path('importing').touch()\ntime.sleep(1)\ndef add() -> None: ...\n"
    write_agent(tmp_path, code=code, tools=["calculator:add"], server={"port": 0})
    async with started("run", cwd=tmp_path) as process:

        async def importing() -> bool:
            return (tmp_path / "importing").exists()

        await eventually(importing, 15)
        process.send_signal(signal.SIGINT)
        out, err = await process.communicate()
    assert (out, process.returncode) == (b"", 130)
    assert b"Traceback" not in err


async def test_a_port_in_use_is_one_sentence_before_anything_is_loaded(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        write_agent(tmp_path, server={"port": port})
        run = await myagent("run", cwd=tmp_path)
    assert (run.status, run.out) == (1, "")
    assert run.err == (
        f"myagent: port {port} on 127.0.0.1 is not available (Address already in use); choose another one with --port\n"
    )


async def test_the_port_belongs_to_the_one_that_started_first_although_it_is_still_opening(tmp_path: Path) -> None:
    opening = asyncio.Event()

    async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opening.set()
        await reader.read()
        writer.close()

    port = free_port()
    async with await asyncio.start_server(never_answer, "127.0.0.1", 0) as database:
        store = f"postgresql://agents@127.0.0.1:{database.sockets[0].getsockname()[1]}/agents"
        file = write_agent(tmp_path / "first", agent_type="stateful", session={"store": store}, server={"port": port})
        async with started("run", "--config", file, cwd=tmp_path) as process:
            await opening.wait()
            second = await myagent("run", "--config", write_agent(tmp_path, server={"port": port}), cwd=tmp_path)
            status, log = await ended(process)
    assert (second.status, second.out, len(second.err.splitlines())) == (1, "", 1)
    assert f"port {port} on 127.0.0.1 is not available" in second.err
    assert status == 130
    assert "Traceback" not in log


async def test_a_host_that_is_not_this_machine_is_one_sentence(tmp_path: Path) -> None:
    write_agent(tmp_path, server={"host": "no-such-host.invalid", "port": 0})
    run = await myagent("run", "--allow-anonymous", cwd=tmp_path)
    assert (run.status, run.out, len(run.err.splitlines())) == (1, "", 1)
    assert run.err.startswith("myagent: server.host no-such-host.invalid is not an address of this machine")


async def test_listening_beyond_loopback_without_a_key_is_refused(tmp_path: Path) -> None:
    write_agent(tmp_path, server={"port": 0})
    run = await myagent("run", "--host", "0.0.0.0", cwd=tmp_path)
    assert (run.status, run.out, len(run.err.splitlines())) == (1, "", 1)
    assert "0.0.0.0 can be reached from other machines and server.api_keys of agent.yaml is empty" in run.err
    assert "--allow-anonymous" in run.err


@pytest.mark.parametrize(("flags", "server"), [(["--allow-anonymous"], {}), ([], {"api_keys": ["k"]})])
async def test_listening_beyond_loopback_with_a_key_or_the_flag_is_allowed(
    tmp_path: Path, flags: list[str], server: dict[str, Any]
) -> None:
    write_agent(tmp_path, server={"port": 0, **server})
    async with started("run", "--host", "0.0.0.0", *flags, cwd=tmp_path) as process:
        url = await ready(process)
        assert url.startswith("http://127.0.0.1:")
        assert (await ended(process))[0] == 0


async def test_flags_win_over_variables_and_variables_over_the_file(tmp_path: Path) -> None:
    app = create_registry(Settings(database_url="memory://"))
    async with serve(app) as registry, httpx.AsyncClient(base_url=registry, trust_env=False) as client:
        nowhere = "http://127.0.0.1:9"
        write_agent(
            tmp_path,
            server={"port": 1, "service_url": "http://file:1", "public_url": "http://file:2"},
            discovery={"url": nowhere},
        )
        environment = {
            "MYAGENT_DISCOVERY_URL": nowhere,
            "MYAGENT_SERVICE_URL": "http://variable:1",
            "MYAGENT_PUBLIC_URL": "http://variable:2",
        }
        port = free_port()
        flags = ["--port", str(port), "--discovery-url", registry, "--service-url", "http://flag:1"]

        async def listed() -> Any:
            return (await client.get("/agents")).json()

        async with started("run", *flags, cwd=tmp_path, environment=environment) as process:
            assert await ready(process) == f"http://127.0.0.1:{port}"
            [record] = await eventually(listed)
            assert (record["endpoint"], record["public_endpoint"]) == ("http://flag:1", "http://variable:2")
            assert (await ended(process))[0] == 0
        assert await listed() == []

        environment["MYAGENT_DISCOVERY_URL"] = registry
        async with started("run", "--port", "0", cwd=tmp_path, environment=environment) as process:
            await ready(process)
            [record] = await eventually(listed)
            assert record["endpoint"] == "http://variable:1"
            assert (await ended(process))[0] == 0


async def test_a_key_that_is_a_secret_is_in_no_line_of_the_log(tmp_path: Path) -> None:
    environment = {"KEY": "sk-hush-hush", "CALLER": "caller-hush-hush"}
    model = {"name": "test-model", "endpoint": "http://127.0.0.1:9/v1", "api_key": "${KEY}", "max_retries": 0}
    write_agent(tmp_path, server={"port": 0, "api_keys": ["${CALLER}"]}, model=model)
    async with started("run", "--log-level", "debug", cwd=tmp_path, environment=environment) as process:
        url = await ready(process)
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=10) as client:
            headers = {"authorization": "Bearer caller-hush-hush"}
            assert (await client.post("/chat", headers=headers, json={"message": "hi"})).status_code == 502
        _, log = await ended(process)
    assert "cannot be reached" in log
    assert "hush-hush" not in log
