"""A secret that is rotated while the agent runs: fetched again when it is refused, or by the clock."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import Response

from agent_runtime import Agent, ModelError, StartError, StoreError
from agent_runtime.agent_file import load
from agent_runtime.observability import Telemetry
from agent_runtime.secrets import MIN_RENEW_SECONDS, SecretResolver
from agent_runtime.server.app import create_app
from tests.agents import eventually, write_agent
from tests.openai_server import refuses, says
from tests.serving import serve


class Vault:
    """A secrets file of a laptop, and the environment that names it."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "secrets.yaml"
        self.environment = {"MYAGENT_SECRETS": f"yaml:{self._file}"}

    def hold(self, **secrets: str) -> None:
        self._file.write_text("".join(f"{name}: {value!r}\n" for name, value in secrets.items()))
        self._file.chmod(0o600)

    def lose(self) -> None:
        self._file.unlink()


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault(tmp_path)


class Provider:
    """An OpenAI-compatible endpoint that accepts one key at a time."""

    def __init__(self, key: str, *, status: int = 401) -> None:
        self.accepted = key
        self.asked: list[str] = []
        self.status = status
        self.together: asyncio.Barrier | None = None


@asynccontextmanager
async def providing(provider: Provider) -> AsyncGenerator[str]:
    app = FastAPI()

    @app.post("/v1/chat/completions")
    @app.post("/openai/deployments/{_}/chat/completions")
    async def _(request: Request) -> Response:
        given = request.headers.get("api-key") or request.headers["authorization"].removeprefix("Bearer ")
        provider.asked.append(given)
        if given == provider.accepted:
            return says("Hello.")()
        if provider.together:
            await provider.together.wait()
        return refuses(provider.status)()

    async with serve(app) as url:
        yield url


def agent(folder: Path, vault: Vault, telemetry: Telemetry | None = None, **sections: Any) -> Agent:
    return Agent(write_agent(folder, **sections), environment=vault.environment, telemetry=telemetry)


def model(url: str, **more: Any) -> dict[str, Any]:
    return {"name": "test-model", "endpoint": f"{url}/v1", "api_key": "${secret:key}", "max_retries": 0, **more}


def refreshes(telemetry: Telemetry) -> dict[str, int]:
    """How often secrets were fetched again, by what came of it."""
    lines = [line for line in telemetry.prometheus_text().decode().splitlines() if "secret_refreshes_total{" in line]
    return {line.split('outcome="')[1].split('"')[0]: int(float(line.split()[-1])) for line in lines}


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("azure", [False, True], ids=["openai", "azure"])
async def test_a_key_that_the_provider_refuses_is_fetched_again_and_the_run_goes_on(
    tmp_path: Path, vault: Vault, azure: bool, status: int
) -> None:
    vault.hold(key="sk-old")
    provider, telemetry = Provider("sk-old", status=status), Telemetry()
    async with providing(provider) as url:
        more = {"provider": "azure_openai", "deployment": "gpt", "endpoint": url, "name": None} if azure else {}
        async with agent(tmp_path, vault, telemetry, model=model(url, **more)) as helper:
            await helper.run("hi")
            vault.hold(key="sk-new")
            provider.accepted = "sk-new"
            assert (await helper.run("hi")).answer == "Hello."
            assert (await helper.run("hi")).answer == "Hello."
            assert {"sk-old", "sk-new"} <= helper.secrets
    assert provider.asked == ["sk-old", "sk-old", "sk-new", "sk-new"]
    assert refreshes(telemetry) == {"renewed": 1}


async def test_a_key_of_a_fallback_is_fetched_again_too(tmp_path: Path, vault: Vault) -> None:
    vault.hold(key="sk-old")
    provider = Provider("sk-new")
    async with providing(provider) as url:
        broken = {"name": "broken", "endpoint": "http://127.0.0.1:9/v1", "max_retries": 0, "fallback": [model(url)]}
        async with agent(tmp_path, vault, model=broken) as helper:
            vault.hold(key="sk-new")
            assert (await helper.run("hi")).answer == "Hello."
    assert provider.asked == ["sk-old", "sk-new"]


async def test_many_runs_that_are_refused_at_once_fetch_the_secret_once(tmp_path: Path, vault: Vault) -> None:
    vault.hold(key="sk-old")
    provider, telemetry = Provider("sk-new"), Telemetry()
    provider.together = asyncio.Barrier(8)
    async with providing(provider) as url, agent(tmp_path, vault, telemetry, model=model(url)) as helper:
        vault.hold(key="sk-new")
        async with asyncio.timeout(20):
            results = await asyncio.gather(*(helper.run("hi") for _ in range(8)))
    assert [result.answer for result in results] == ["Hello."] * 8
    assert sorted(provider.asked) == ["sk-new"] * 8 + ["sk-old"] * 8
    assert refreshes(telemetry) == {"renewed": 1}


async def test_a_key_that_is_still_the_same_is_not_asked_for_again_at_once(tmp_path: Path, vault: Vault) -> None:
    vault.hold(key="sk-old")
    provider, telemetry = Provider("sk-new"), Telemetry()
    async with providing(provider) as url, agent(tmp_path, vault, telemetry, model=model(url)) as helper:
        for _ in range(3):
            with pytest.raises(ModelError, match=r"refused model\.api_key"):
                await helper.run("hi")
    assert provider.asked == ["sk-old"] * 3
    assert refreshes(telemetry) == {"unchanged": 1}


async def test_a_source_that_is_away_leaves_the_key_as_it_is(tmp_path: Path, vault: Vault) -> None:
    vault.hold(key="sk-old")
    provider, telemetry = Provider("sk-old"), Telemetry()
    async with providing(provider) as url, agent(tmp_path, vault, telemetry, model=model(url)) as helper:
        vault.lose()
        provider.accepted = "sk-other"
        with pytest.raises(ModelError, match=r"refused model\.api_key"):
            await helper.run("hi")
        provider.accepted = "sk-old"
        assert (await helper.run("hi")).answer == "Hello."
    assert refreshes(telemetry) == {"failed": 1}


async def test_a_key_that_is_no_secret_is_not_fetched_again(tmp_path: Path, vault: Vault) -> None:
    vault.hold(other="x")
    provider, telemetry = Provider("sk-new"), Telemetry()
    async with providing(provider) as url:
        plain = model(url, api_key="sk-plain")
        async with agent(tmp_path, vault, telemetry, model=plain, system_prompt="${secret:other}") as helper:
            with pytest.raises(ModelError):
                await helper.run("hi")
    assert provider.asked == ["sk-plain"]
    assert refreshes(telemetry) == {}


async def test_by_the_clock_secrets_are_fetched_again_before_anything_is_refused(tmp_path: Path, vault: Vault) -> None:
    vault.hold(key="sk-old")
    provider, telemetry = Provider("sk-new"), Telemetry()
    sections: dict[str, Any] = {"secrets": {"refresh_seconds": 0.05}}
    async with providing(provider) as url, agent(tmp_path, vault, telemetry, model=model(url), **sections) as helper:
        vault.lose()  # what the clock finds wrong is told, and tried again

        async def told(outcome: str) -> bool:
            return bool(refreshes(telemetry).get(outcome))

        await eventually(lambda: told("failed"))
        vault.hold(key="sk-new")
        await eventually(lambda: told("renewed"))
        assert (await helper.run("hi")).answer == "Hello."
    assert provider.asked == ["sk-new"]


async def test_by_the_clock_the_keys_of_callers_are_rotated_too(tmp_path: Path, vault: Vault) -> None:
    vault.hold(old="key-old", new="key-1")
    sections: dict[str, Any] = {"secrets": {"refresh_seconds": 0.05}, "session": {"store": "memory"}}
    server = {"api_keys": ["${secret:old}", "${secret:new}"]}
    async with (
        agent(tmp_path, vault, server=server, **sections) as helper,
        serve(create_app(helper)) as url,
        httpx.AsyncClient(base_url=url, trust_env=False) as client,
    ):

        async def may_enter(key: str) -> bool:
            answer = await client.get("/sessions/none", headers={"authorization": f"Bearer {key}"})
            return answer.status_code != 401

        assert await may_enter("key-old")
        vault.hold(old="key-1", new="key-2")
        await eventually(lambda: may_enter("key-2"))
        assert await may_enter("key-1")
        assert not await may_enter("key-old")


async def test_a_refused_secret_is_asked_for_again_after_a_while(vault: Vault) -> None:
    vault.hold(key="old")
    now = 1000.0
    resolver = SecretResolver({"a": {"b": "<${secret:key}>"}}, vault.environment, clock=lambda: now)
    await resolver.resolve()
    credential = resolver.credential(("a", "b"), "<old>")
    assert await credential.renewed("<old>") is None
    vault.hold(key="new")
    assert await credential.renewed("<old>") is None
    now += MIN_RENEW_SECONDS
    assert await credential.renewed("<old>") == "<new>" == credential.value
    vault.hold(key="newest")
    assert await credential.renewed("<old>") == "<new>"  # what was refused is not what is known
    assert "new" not in repr(credential)
    assert "new" not in repr(resolver)


@pytest.mark.parametrize("lost", [False, True], ids=["at the start", "while it runs"])
async def test_a_database_password_that_is_refused_is_fetched_again(
    tmp_path: Path, vault: Vault, role: tuple[str, Any, str], lost: bool
) -> None:
    name, server, url = role
    vault.hold(key="sk", password="pw-old")
    telemetry = Telemetry()

    async def rotate() -> None:
        await server.execute(f"ALTER ROLE {name} PASSWORD 'pw-new'")
        vault.hold(key="sk", password="pw-new")

    async with providing(Provider("sk")) as provider:
        helper = agent(
            tmp_path, vault, telemetry, model=model(provider), agent_type="stateful", session={"store": url}
        )  # fmt: skip
        if lost:
            async with helper:
                await helper.run("one", session_id="s1")
                await rotate()
                await server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", name)

                async def answered() -> bool:
                    with suppress(StoreError):  # the connections that were ended are noticed one by one
                        await helper.run("two", session_id="s1")
                        return True
                    return False

                await eventually(answered, 20)
                remembered = await helper.history("s1")
            assert [message.content for message in remembered] == ["one", "Hello.", "two", "Hello."]
            assert refreshes(telemetry) == {"renewed": 1}
        else:
            file = await load(tmp_path / "agent.yaml", environment=vault.environment)
            await rotate()
            async with Agent(file, telemetry=telemetry) as started:
                await started.run("one", session_id="s1")
            assert refreshes(telemetry) == {"renewed": 1}


async def test_a_database_password_that_stays_wrong_is_the_operators_to_mend(
    tmp_path: Path, vault: Vault, role: tuple[str, Any, str]
) -> None:
    vault.hold(password="pw-wrong")
    helper = agent(tmp_path, vault, agent_type="stateful", session={"store": role[2]})
    with pytest.raises(StartError, match="password authentication failed") as caught:
        await helper.run("hi")
    assert "pw-wrong" not in str(caught.value)


async def test_the_headers_of_an_mcp_server_are_fetched_again_when_it_refuses_them(
    tmp_path: Path, vault: Vault
) -> None:
    mcp = pytest.importorskip("mcp.server", reason="needs the mcp extra")
    server = mcp.MCPServer("words")
    server.add_tool(lambda text: text.upper(), name="shout", description="Shout.")
    app = server.streamable_http_app()
    accepted, given = ["old"], list[str]()

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            token = dict(scope["headers"]).get(b"authorization", b"").decode().removeprefix("Bearer ")
            given.append(token)
            if token not in accepted:
                await Response("no", 401)(scope, receive, send)
                return
        await app(scope, receive, send)

    vault.hold(token="old")
    async with serve(guarded, lifespan="on") as url:
        servers = {"words": {"url": f"{url}/mcp", "headers": {"Authorization": "Bearer ${secret:token}"}}}
        async with agent(tmp_path, vault, mcp_servers=servers) as helper:
            [tool] = helper.tools
            vault.hold(token="new")
            accepted[:] = ["new"]
            assert await tool.call({"text": "hi"}) == "HI"
            assert not helper.is_degraded
    assert given.count("old") == given.index("new")  # never again the old one


async def test_the_key_of_another_agent_is_fetched_again_when_it_refuses_it(tmp_path: Path, vault: Vault) -> None:
    pytest.importorskip("a2a", reason="needs the a2a extra")
    from agent_runtime.models.scripted import ScriptedModel
    from discovery.app import create_app as create_registry
    from discovery.settings import Settings
    from tests.agents import free_port

    port = free_port()
    async with serve(create_registry(Settings(database_url="memory://"))) as registry:
        billing = write_agent(
            tmp_path / "billing",
            name="billing",
            server={"port": port, "api_keys": ["new-key"]},
            discovery={"url": registry},
        )
        vault.hold(key="old-key")
        tools = [{"agent": "billing", "api_key": "${secret:key}"}]
        async with (
            Agent(billing, model=ScriptedModel(["42 pounds."])) as other,
            serve(create_app(other), port=port),
            httpx.AsyncClient(trust_env=False) as client,
        ):

            async def listed() -> Any:
                return (await client.get(f"{registry}/agents")).json()

            await eventually(listed)
            async with agent(tmp_path, vault, tools=tools, discovery={"url": registry}) as helper:
                vault.hold(key="new-key")
                assert await helper.tools[0].call({"message": "How much?"}) == "42 pounds."
