"""An agent that answers over https, and one that asks a registry and other agents which do."""

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent_runtime import Agent, StartError
from agent_runtime.events import ToolCall
from agent_runtime.models.scripted import ScriptedModel
from agent_runtime.server.app import create_app
from discovery.app import create_app as create_registry
from discovery.settings import Settings
from tests.agents import eventually, free_port, myagent, started, write_agent
from tests.certificates import Authority, Pair, options
from tests.serving import serve


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ours")


def named(pair: Pair, **more: str) -> dict[str, str]:
    return {"certificate": pair.certificate, "key": pair.key, **more}


@asynccontextmanager
async def registry(pair: Pair, *, client_ca: str | None = None) -> AsyncGenerator[str]:
    app = create_registry(Settings(database_url="memory://"))
    async with serve(app, **options(pair, client_ca)) as url:
        yield url


async def ready(process: asyncio.subprocess.Process) -> str:
    """The address that the command prints."""
    assert process.stdout
    line = (await process.stdout.readline()).decode()
    found = re.search(r"answers at (\S+) ", line)
    if found is None:
        raise AssertionError(line + str(await process.communicate()))
    return found[1]


async def test_the_command_answers_over_https_and_is_listed_at_that_address(tmp_path: Path, ours: Authority) -> None:
    pair, agent = ours.issue(), ours.issue("agent")
    async with registry(pair, client_ca=ours.ca) as url:
        write_agent(
            tmp_path,
            server={"port": 0, "tls": named(pair)},
            discovery={"url": url, "ca": ours.ca, **named(agent)},
        )
        async with (
            started("run", cwd=tmp_path) as process,
            httpx.AsyncClient(verify=ours.client(agent), trust_env=False) as http,
        ):
            address = await ready(process)
            assert address.startswith("https://127.0.0.1:")
            assert (await http.get(f"{address}/livez")).json() == {"status": "ok"}

            async def listed() -> list[dict[str, Any]]:
                return (await http.get(f"{url}/agents")).json()

            [record] = await eventually(listed, 10)
            assert record["endpoint"] == address
            card = (await http.get(record["links"]["card"])).json()
            assert card["url"] == f"{address}/a2a"


async def test_only_who_has_a_certificate_gets_a_connection_and_the_agent_is_announced_all_the_same(
    tmp_path: Path, ours: Authority
) -> None:
    pair = ours.issue()
    async with serve(create_registry(Settings(database_url="memory://"))) as url:
        write_agent(tmp_path, server={"port": 0, "tls": named(pair, client_ca=ours.ca)}, discovery={"url": url})
        async with started("run", cwd=tmp_path) as process, httpx.AsyncClient(trust_env=False) as plain:
            address = await ready(process)

            async def listed() -> list[dict[str, Any]]:
                return (await plain.get(f"{url}/agents")).json()

            assert (await eventually(listed, 10))[0]["endpoint"] == address
            async with httpx.AsyncClient(verify=ours.client(ours.issue("agent")), trust_env=False) as http:
                assert (await http.get(f"{address}/livez")).status_code == 200
            async with httpx.AsyncClient(verify=ours.client(), trust_env=False) as http:
                with pytest.raises(httpx.TransportError):
                    await http.get(f"{address}/livez")


async def test_flags_name_the_certificates_of_a_folder_of_agents(tmp_path: Path, ours: Authority) -> None:
    pair = ours.issue()
    write_agent(tmp_path / "agents" / "one", name="one")
    flags = ("--port", "0", "--tls-certificate", "ours/localhost.pem", "--tls-key", pair.key)
    async with (
        started("run", "--config", "agents", *flags, cwd=tmp_path) as process,
        httpx.AsyncClient(verify=ours.client(), trust_env=False) as http,
    ):
        address = await ready(process)
        assert (await http.get(f"{address}/health")).json()["name"] == "one"


async def test_a_certificate_in_one_of_many_files_is_not_left_out_of_account_in_silence(
    tmp_path: Path, ours: Authority
) -> None:
    write_agent(tmp_path / "agents" / "one", name="one", server={"tls": named(ours.issue())})
    ended = await myagent("run", "--config", "agents", cwd=tmp_path)
    assert ended.status == 1
    assert "use --tls-certificate and --tls-key" in ended.err


@pytest.mark.parametrize(
    ("section", "reason"),
    [
        ({"server": {"tls": {"certificate": "no.pem", "key": "no.key"}}}, "server.tls: no.pem cannot be read: No such"),
        ({"discovery": {"url": "https://127.0.0.1:9", "ca": "agent.yaml"}}, "agent.yaml contains no certificate"),
    ],
)
async def test_a_file_that_cannot_be_used_is_named_before_anything_is_served(
    tmp_path: Path, section: dict[str, Any], reason: str
) -> None:
    write_agent(tmp_path, **section)
    ended = await myagent("run", "--port", "0", cwd=tmp_path)
    assert (ended.status, ended.out) == (1, "")
    assert reason in ended.err
    assert "Traceback" not in ended.err
    told = await myagent("doctor", cwd=tmp_path)
    assert reason in told.out


async def test_a_key_needs_its_certificate_and_a_typo_in_the_section_is_told_with_its_line(tmp_path: Path) -> None:
    write_agent(tmp_path, discovery={"key": "a.key"}, server={"tls": {"certifcate": "a.pem", "key": "a.key"}})
    ended = await myagent("validate", cwd=tmp_path)
    assert ended.status == 2
    assert "discovery.key: goes with `certificate`" in ended.err
    assert "server.tls.certifcate: unknown key; did you mean `certificate`?" in ended.err


async def test_an_agent_finds_and_asks_another_one_where_both_ask_for_certificates(
    tmp_path: Path, ours: Authority
) -> None:
    pytest.importorskip("a2a", reason="needs the a2a extra")
    pair, shown = ours.issue(), named(ours.issue("agent"))
    port = free_port()
    async with asyncio.timeout(30), registry(pair, client_ca=ours.ca) as url:
        known = {"url": url, "ca": ours.ca, **shown}
        file = write_agent(
            tmp_path / "billing", name="billing", discovery=known, server={"tls": named(pair, client_ca=ours.ca)}
        )
        async with (
            Agent(file, model=ScriptedModel(["7 pounds."]), environment={}) as billing,
            serve(create_app(billing, port=port), port=port, **options(pair, ours.ca)),
            httpx.AsyncClient(verify=ours.client(ours.issue("reader")), trust_env=False) as http,
        ):

            async def listed() -> bool:
                return (await http.get(f"{url}/agents/billing")).status_code == 200

            await eventually(listed, 10)
            for section, answer in ((known, "7 pounds."), (known | {"ca": Authority(tmp_path / "theirs").ca}, None)):
                call = ToolCall("c1", "billing", '{"message": "What does order 7 cost?"}')
                tools = [{"agent": "billing", "answer": "direct"}]
                asking = write_agent(tmp_path / "asking", name="asking", discovery=section, tools=tools)
                model = ScriptedModel([[call], "I cannot tell."])
                async with Agent(asking, model=model, environment={}) as agent:
                    result = await agent.run("What does order 7 cost?")
                assert result.answer == (answer or "I cannot tell.")


async def test_the_agents_command_takes_its_authorities_from_the_environment(tmp_path: Path, ours: Authority) -> None:
    async with registry(ours.issue()) as url:
        for ca, status in ((ours.ca, 0), ("", 1)):
            environment = {"MYAGENT_DISCOVERY_CA": ca, "XDG_CACHE_HOME": str(tmp_path / "cache")}
            ended = await myagent("agents", "--url", url, "--json", cwd=tmp_path, environment=environment)
            assert (ended.status, ended.out.strip()) == (status, "[]"), ended.err
        environment = {"MYAGENT_DISCOVERY_CA": "missing.pem"}
        ended = await myagent("agents", "--url", url, cwd=tmp_path, environment=environment)
        assert "MYAGENT_DISCOVERY_…: missing.pem cannot be read" in ended.err


async def test_the_variable_wins_over_the_file(tmp_path: Path, ours: Authority) -> None:
    async with registry(ours.issue()) as url:
        write_agent(tmp_path, discovery={"url": url, "ca": "agent.yaml"})
        environment = {"MYAGENT_DISCOVERY_CA": "ours/ca.pem"}
        async with (
            started("run", "--port", "0", cwd=tmp_path, environment=environment) as process,
            httpx.AsyncClient(verify=ours.client(), trust_env=False) as http,
        ):
            await ready(process)

            async def listed() -> list[dict[str, Any]]:
                return (await http.get(f"{url}/agents")).json()

            assert await eventually(listed, 10)


async def test_an_agent_in_a_script_is_told_the_same(tmp_path: Path) -> None:
    pytest.importorskip("a2a", reason="needs the a2a extra")
    file = write_agent(tmp_path, discovery={"url": "https://127.0.0.1:9", "ca": "no.pem"}, tools=[{"agent": "billing"}])
    with pytest.raises(StartError, match=r"discovery: .*no\.pem cannot be read"):
        async with Agent(file, model=ScriptedModel([]), environment={}):
            pass
