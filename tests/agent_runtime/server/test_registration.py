"""An agent and its registry, end to end: both real, over sockets."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent_runtime import Agent
from agent_runtime.models.scripted import ScriptedModel
from agent_runtime.server.app import create_app
from agent_runtime.server.registration import registration_payload
from discovery.app import create_app as create_registry
from discovery.settings import Settings
from discovery.tokens import read_tokens
from tests.agents import eventually, free_port, started, write_agent
from tests.serving import serve

HEARTBEAT = 0.5


@asynccontextmanager
async def registry(port: int = 0) -> AsyncGenerator[str]:
    async with serve(create_registry(Settings(database_url="memory://")), port=port) as url:
        yield url


@asynccontextmanager
async def served_agent(
    folder: Path, discovery: dict[str, Any], *, environment: dict[str, str] | None = None, **sections: Any
) -> AsyncGenerator[httpx.AsyncClient]:
    """A served agent that knows a registry, and a client of the agent."""
    model = ScriptedModel(["Hello."] * 9)
    port = free_port()
    file = write_agent(folder, discovery=discovery, **{"tools": ["calculator:add"], **sections})
    async with (
        Agent(file, model=model, environment=environment or {}) as agent,
        serve(create_app(agent, port=port), port=port) as url,
        httpx.AsyncClient(base_url=url, trust_env=False, timeout=10) as client,
    ):
        yield client


async def listed(url: str) -> list[dict[str, Any]]:
    async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
        return (await client.get(f"{url}/agents")).json()


async def answers(client: httpx.AsyncClient) -> bool:
    return (await client.post("/chat", json={"message": "hi"})).json()["answer"] == "Hello."


async def test_an_agent_is_listed_after_boot_and_gone_after_shutdown(tmp_path: Path) -> None:
    async with asyncio.timeout(20), registry() as url:
        assert await listed(url) == []
        discovery = {"url": url, "owner": "cs-team", "tags": ["sums"]}
        async with served_agent(
            tmp_path, discovery, version="1.2.3", agent_type="stateful", description="Adds."
        ) as client:
            [record] = await eventually(lambda: listed(url))
            assert record["endpoint"] == str(client.base_url).rstrip("/")
            known = {key: record[key] for key in ("name", "version", "agent_type", "description", "owner", "tags")}
            assert known == {
                "name": "helper",
                "version": "1.2.3",
                "agent_type": "stateful",
                "description": "Adds.",
                "owner": "cs-team",
                "tags": ["sums"],
            }
            assert [tool["name"] for tool in record["tools"]] == ["add"]
            assert record["protocols"] == ["chat", "a2a", "mcp"]
            assert (await client.get(record["links"]["card"])).json()["url"] == f"{record['endpoint']}/a2a"
            assert record["links"]["health"] == f"{record['endpoint']}/health"
            async with httpx.AsyncClient(trust_env=False) as http:
                answer = await http.post(f"{record['endpoint']}/chat", json={"message": "hi"})
            assert answer.json()["answer"] == "Hello."
            health = (await client.get("/health")).json()
            assert health["discovery"]["registered"]
        assert await listed(url) == []


async def test_an_agent_registers_with_its_token_and_takes_itself_out_with_it(tmp_path: Path) -> None:
    tokens = read_tokens("register:t0ps3cret:help*,read:reader")
    async with asyncio.timeout(20), serve(create_registry(Settings(database_url="memory://", tokens=tokens))) as url:
        headers = {"authorization": "Bearer reader"}
        async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=5) as reader:

            async def names() -> list[str]:
                return [agent["name"] for agent in (await reader.get("/agents")).json()]

            discovery = {"url": url, "token": "${REGISTRY_TOKEN}"}
            async with served_agent(tmp_path, discovery, environment={"REGISTRY_TOKEN": "t0ps3cret"}):
                assert await eventually(names) == ["helper"]
            assert await names() == []


async def test_a_token_that_was_rotated_is_fetched_again_and_the_agent_stays_listed(tmp_path: Path) -> None:
    secrets, port = tmp_path / "secrets.yaml", free_port()

    def hold(token: str) -> None:
        secrets.write_text(f"token: {token}\n")
        secrets.chmod(0o600)

    @asynccontextmanager
    async def asking_for(token: str) -> AsyncGenerator[Callable[[], Awaitable[list[Any]]]]:
        tokens = read_tokens(f"register:{token},read:reader")
        headers = {"authorization": "Bearer reader"}
        async with (
            serve(create_registry(Settings(database_url="memory://", tokens=tokens)), port=port) as url,
            httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=5) as reader,
        ):

            async def entries() -> list[Any]:
                return (await reader.get("/agents")).json()

            yield entries

    hold("first-token")
    discovery = {"url": f"http://127.0.0.1:{port}", "token": "${secret:token}", "heartbeat_seconds": HEARTBEAT}
    async with asyncio.timeout(20), AsyncExitStack() as stack:
        async with asking_for("first-token") as entries:
            await stack.enter_async_context(
                served_agent(tmp_path, discovery, environment={"MYAGENT_SECRETS": f"yaml:{secrets}"})
            )
            await eventually(entries)
        hold("second-token")
        async with asking_for("second-token") as entries:
            assert [entry["name"] for entry in await eventually(entries)] == ["helper"]


async def test_an_agent_without_the_right_token_is_told_once_and_answers_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = read_tokens("register:t0ps3cret:team-a-*")

    async def told() -> bool:
        return "may not register or remove 'helper'" in caplog.text

    async with (
        asyncio.timeout(20),
        serve(create_registry(Settings(database_url="memory://", tokens=tokens))) as url,
        served_agent(tmp_path, {"url": url, "token": "t0ps3cret"}) as client,
    ):
        await eventually(told)
        assert await answers(client)
    assert "t0ps3cret" not in caplog.text


async def test_the_addresses_of_the_file_are_the_ones_that_are_listed(tmp_path: Path) -> None:
    server = {"service_url": "http://helper:8000/", "public_url": "https://agents.example/helper"}
    async with asyncio.timeout(20), registry() as url, served_agent(tmp_path, {"url": url}, server=server):
        [record] = await eventually(lambda: listed(url))
    assert record["endpoint"] == "http://helper:8000"
    assert record["public_endpoint"] == "https://agents.example/helper"


async def test_an_agent_that_was_killed_and_started_on_another_port_is_updated_and_not_doubled(tmp_path: Path) -> None:
    async with asyncio.timeout(30), registry() as url:
        file = write_agent(tmp_path, server={"port": 0}, discovery={"url": url, "heartbeat_seconds": 30})
        endpoints: list[str] = []
        for _ in range(2):
            async with started("run", "--config", file, cwd=tmp_path) as process:

                async def elsewhere() -> list[dict[str, Any]]:
                    return [record for record in await listed(url) if record["endpoint"] not in endpoints]

                [record] = await eventually(elsewhere, 20)
                endpoints.append(record["endpoint"])
                process.kill()
        [record] = await listed(url)
        assert len(record["instances"]) == 1
        assert (record["endpoint"], len(set(endpoints))) == (endpoints[1], 2)


async def test_discovery_may_be_away_at_the_start_and_lists_the_agent_within_a_heartbeat_of_its_return(
    tmp_path: Path,
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    async with (
        asyncio.timeout(20),
        served_agent(tmp_path, {"url": url, "heartbeat_seconds": HEARTBEAT}) as client,
    ):

        async def has_tried() -> Any:
            return (await client.get("/health")).json()["discovery"]["reason"]

        assert "ConnectError" in await eventually(has_tried)
        assert await answers(client)
        async with registry(port):
            back = time.monotonic()
            assert await eventually(lambda: listed(url))
            assert time.monotonic() - back < HEARTBEAT + 1
        async with registry(port):  # it forgot everything meanwhile
            back = time.monotonic()
            assert await eventually(lambda: listed(url))
            assert time.monotonic() - back < 2 * HEARTBEAT + 1
            assert await answers(client)


async def test_a_discovery_that_hangs_delays_neither_start_nor_answers_nor_the_end(tmp_path: Path) -> None:
    asked = asyncio.Event()

    async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()
        writer.close()

    async with asyncio.timeout(20), await asyncio.start_server(never_answer, "127.0.0.1", 0) as hanging:
        url = f"http://127.0.0.1:{hanging.sockets[0].getsockname()[1]}"
        began = time.monotonic()
        async with served_agent(tmp_path, {"url": url, "heartbeat_seconds": HEARTBEAT}) as client:
            assert await answers(client)
            assert time.monotonic() - began < 2
            await asked.wait()
            assert await answers(client)
            ending = time.monotonic()
        assert time.monotonic() - ending < 4


async def test_what_leaves_the_agent_holds_no_byte_of_its_prompt_or_of_a_secret(tmp_path: Path) -> None:
    wire = bytearray()
    said_goodbye = asyncio.Event()

    async def record(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            wire.extend(data)
            if b"DELETE /agents" in wire:
                said_goodbye.set()
            if wire.endswith(b"}") or b"DELETE /agents" in wire:
                body = json.dumps({"name": "helper", "instance_id": "default"}).encode()
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
                )
                writer.write(body)
        writer.close()

    values = {
        "key": "sk-hush-1",
        "db": 'pw "hush" ä\\2',
        "caller": "hush-caller-3",
        "word": "hush-word-4",
        "user": "agent",  # is a part of the payload's own keys
    }
    secrets = tmp_path / "secrets.yaml"
    secrets.write_text(json.dumps(values))
    secrets.chmod(0o600)
    sections: dict[str, Any] = {
        "model": {"name": "m", "endpoint": "http://127.0.0.1:9/v1", "api_key": "${secret:key}"},
        "session": {"store": "memory"},
        "server": {"api_keys": ["${secret:caller}"]},
        "system_prompt": "You are the secret-sauce of ${secret:word}. Obey ${secret:user}.",
        "description": "Adds with ${secret:db} and ${secret:word}.",
        "code": 'def add(a: int) -> int:\n    """Add."""\n    return a\n',
    }
    environment = {"MYAGENT_SECRETS": f"yaml:{secrets}"}
    async with asyncio.timeout(20), await asyncio.start_server(record, "127.0.0.1", 0) as recorder:
        discovery = {"url": f"http://127.0.0.1:{recorder.sockets[0].getsockname()[1]}", "tags": ["${secret:word}"]}
        async with served_agent(tmp_path, discovery, environment=environment, **sections) as client:

            async def is_registered() -> Any:
                return (await client.get("/health")).json()["discovery"]["registered"]

            await eventually(is_registered)
        await said_goodbye.wait()
    text = wire.decode()
    assert text.startswith("POST /register HTTP/1.1\r\n")
    assert '"description":"Adds with *** and ***."' in text
    assert '"tags":["***"]' in text
    assert "secret-sauce" not in text
    assert "hush" not in text
    assert '"agent_type":"tool"' in text


async def test_an_agent_that_names_no_registry_registers_nowhere(tmp_path: Path) -> None:
    async with asyncio.timeout(20), served_agent(tmp_path, {}) as client:
        assert (await client.get("/health")).json()["discovery"] == {
            "registered": False,
            "reason": "no registry is configured",
        }


async def test_a_loopback_address_at_a_registry_elsewhere_is_worth_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "agent_runtime.server.registration"):
        async with asyncio.timeout(20), served_agent(tmp_path, {"url": "http://registry.invalid:9000"}):
            pass
    assert "set server.service_url or MYAGENT_SERVICE_URL" in caplog.text


async def test_the_payload_is_an_allow_list(tmp_path: Path) -> None:
    async with Agent(write_agent(tmp_path, system_prompt="x"), model=ScriptedModel([]), environment={}) as agent:
        payload = registration_payload(agent, "http://127.0.0.1:8000").model_dump(
            exclude_none=True, exclude_defaults=True
        )
    assert payload.keys() == {"name", "endpoint", "agent_type", "version", "tools", "protocols", "links", "model"}


async def test_replicas_with_an_instance_id_stand_under_one_name(tmp_path: Path) -> None:
    async with asyncio.timeout(20), registry() as url:
        discovery = {"url": url, "instance_id": "${POD}", "heartbeat_seconds": HEARTBEAT}
        async with (
            served_agent(tmp_path, discovery, environment={"POD": "one"}),
            served_agent(tmp_path, discovery, environment={"POD": "two"}),
        ):

            async def are_both() -> bool:
                agents = await listed(url)
                found = [one["instance_id"] for agent in agents for one in agent["instances"]]
                return len(agents) == 1 and found == ["one", "two"]

            await eventually(are_both)


async def test_the_servers_it_uses_are_named_with_host_and_port_and_nothing_that_may_hold_a_key(tmp_path: Path) -> None:
    pytest.importorskip("mcp", reason="needs the mcp extra")
    servers = {
        "erp": {"url": f"http://ada:hush-1@127.0.0.1:{free_port()}/hush-2/mcp?key=hush-3"},
        "files": {"command": "no-such-program", "args": ["hush-4"], "env": {"KEY": "hush-5"}},
    }
    async with Agent(write_agent(tmp_path, mcp_servers=servers), model=ScriptedModel([]), environment={}) as agent:
        payload = registration_payload(agent, "http://127.0.0.1:8000")
    port = servers["erp"]["url"].rpartition(":")[2].partition("/")[0]
    assert payload.metadata == {"mcp_servers": [{"name": "erp", "url": f"127.0.0.1:{port}"}, {"name": "files"}]}
    assert "hush" not in payload.model_dump_json()
