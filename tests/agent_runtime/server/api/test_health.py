from pathlib import Path

import pytest

from agent_runtime.models.scripted import ScriptedModel
from tests.agent_runtime.server.served import serving


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_a_served_agent_is_alive_and_ready(tmp_path: Path, path: str) -> None:
    async with serving(tmp_path, ScriptedModel([])) as client:
        answer = await client.get(path)
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_health_says_who_answers_here(tmp_path: Path) -> None:
    async with serving(tmp_path, ScriptedModel([]), version="1.2.3", agent_type="stateful") as client:
        answer = await client.get("/health")
    assert answer.json() == {
        "status": "up",
        "name": "helper",
        "version": "1.2.3",
        "agent_type": "stateful",
        "model": "scripted",
        "answering": "scripted",
        "tools": ["add", "shout"],
        "checks": [],
        "discovery": {"registered": False, "reason": "no registry is configured"},
    }


async def test_health_shows_neither_prompt_nor_secret(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets.yaml"
    secrets.write_text("key: hush-hush\n")
    secrets.chmod(0o600)
    environment = {"MYAGENT_SECRETS": f"yaml:{secrets}"}
    prompt = "Keep ${secret:key} to yourself."
    async with serving(tmp_path, ScriptedModel([]), environment=environment, system_prompt=prompt) as client:
        bodies = [(await client.get(path)).text for path in ("/health", "/openapi.json", "/docs")]
    assert all("hush-hush" not in body and "to yourself" not in body for body in bodies)


async def test_the_description_of_the_api_loads_and_names_every_route(tmp_path: Path) -> None:
    async with serving(tmp_path, ScriptedModel([]), version="1.2.3", description="Adds.") as client:
        document = (await client.get("/openapi.json")).json()
        assert (await client.get("/docs")).status_code == 200
    assert (document["info"]["title"], document["info"]["version"]) == ("helper", "1.2.3")
    routes = {(method, path) for path, methods in document["paths"].items() for method in methods}
    assert routes >= {
        ("post", "/chat"),
        ("post", "/chat/stream"),
        ("get", "/sessions/{session_id}"),
        ("delete", "/sessions/{session_id}"),
        ("get", "/livez"),
        ("get", "/readyz"),
        ("get", "/health"),
    }
