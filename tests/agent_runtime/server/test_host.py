"""Many agents in one process, and swapping one while it serves."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from discovery.app import create_app as create_registry
from discovery.settings import Settings
from tests.agents import eventually, free_port, myagent, started, write_agent
from tests.openai_server import calls, says, serving_openai, stalls
from tests.serving import serve


@asynccontextmanager
async def serving(folder: Path, *flags: str) -> AsyncGenerator[httpx.AsyncClient]:
    port = free_port()
    async with (
        started("run", "--config", str(folder), "--port", str(port), *flags, cwd=folder) as process,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=20) as client,
    ):
        assert process.stdout
        line = await process.stdout.readline()
        if b"answers at" not in line:
            raise AssertionError(line + (await process.communicate())[1])
        yield client


def model_at(url: str) -> dict[str, Any]:
    return {"model": {"name": "test-model", "endpoint": url}}


async def ask(client: httpx.AsyncClient, name: str) -> str:
    answer = await client.post(f"/{name}/chat", json={"message": "hi"})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["answer"])


async def test_each_agent_of_a_folder_answers_under_its_name_and_the_root_lists_them(tmp_path: Path) -> None:
    async with serving_openai(says("I am one."), says("I am two.")) as openai:
        write_agent(tmp_path / "first", name="one", **model_at(openai.url))
        write_agent(tmp_path / "second", name="two", **model_at(openai.url))
        async with serving(tmp_path) as client:
            assert await ask(client, "one") == "I am one."
            assert await ask(client, "two") == "I am two."
            listed = (await client.get("/")).json()["agents"]
            assert [agent["name"] for agent in listed] == ["one", "two"]
            assert (await client.get("/livez")).status_code == 200
            missing = await client.get("/three/health")
            assert missing.status_code == 404
            assert "available agents: one, two" in missing.json()["detail"]


async def test_one_bad_file_is_reported_with_its_line_and_the_others_run(tmp_path: Path) -> None:
    async with serving_openai(says("I am well.")) as openai:
        write_agent(tmp_path / "good", name="good", **model_at(openai.url))
        write_agent(tmp_path / "bad", name="Bad!")
        async with serving(tmp_path) as client:
            assert await ask(client, "good") == "I am well."


async def test_a_folder_without_a_usable_agent_is_a_problem_of_the_file(tmp_path: Path) -> None:
    write_agent(tmp_path / "bad", name="Bad!")
    ended = await myagent("run", "--config", str(tmp_path), cwd=tmp_path)
    assert ended.status == 2
    assert "bad/agent.yaml:1 name: must be lower-case letters" in ended.err
    assert "contains no valid agent file" in ended.err


async def test_two_files_with_one_name_are_one_agent_and_one_sentence(tmp_path: Path) -> None:
    async with serving_openai(says("I am one.")) as openai:
        write_agent(tmp_path / "first", name="one", **model_at(openai.url))
        write_agent(tmp_path / "second", name="one", **model_at(openai.url))
        async with serving(tmp_path) as client:
            assert await ask(client, "one") == "I am one."
            assert len((await client.get("/")).json()["agents"]) == 1


async def test_every_agent_of_the_process_is_announced_at_its_own_address(tmp_path: Path) -> None:
    async with serve(create_registry(Settings(database_url="memory://"))) as registry:
        for name in ("one", "two"):
            write_agent(tmp_path / name, name=name, discovery={"url": registry, "heartbeat_seconds": 0.5})
        async with serving(tmp_path) as client, httpx.AsyncClient(trust_env=False) as portal:

            async def both_listed() -> dict[str, str]:
                agents = (await portal.get(f"{registry}/agents")).json()
                return {a["name"]: a["endpoint"] for a in agents} if len(agents) == 2 else {}

            endpoints = await eventually(both_listed)
            assert endpoints == {name: f"{client.base_url}".rstrip("/") + f"/{name}" for name in ("one", "two")}


async def test_an_edited_file_is_swapped_in_and_an_invalid_edit_keeps_the_old_one_serving(tmp_path: Path) -> None:
    async with serving_openai(says("Old."), says("New."), says("Still new.")) as openai:
        write_agent(tmp_path / "one", name="one", version="1.0.0", **model_at(openai.url))
        async with serving(tmp_path, "--reload") as client:
            assert await ask(client, "one") == "Old."
            write_agent(tmp_path / "one", name="one", version="2.0.0", **model_at(openai.url))

            async def swapped() -> bool:
                return (await client.get("/one/health")).json()["version"] == "2.0.0"

            await eventually(swapped, 10)
            assert await ask(client, "one") == "New."
            write_agent(tmp_path / "one", name="one", version="3.0.0", nonsense=True, **model_at(openai.url))
            assert await ask(client, "one") == "Still new."
            assert (await client.get("/one/health")).json()["version"] == "2.0.0"


async def test_a_run_under_way_finishes_on_the_old_agent(tmp_path: Path) -> None:
    async with serving_openai(stalls("It is ")) as openai:
        write_agent(
            tmp_path / "one", name="one", version="1.0.0", limits={"timeout_seconds": 4}, **model_at(openai.url)
        )
        async with serving(tmp_path, "--reload") as client:
            asking = asyncio.create_task(client.post("/one/chat", json={"message": "hi"}))

            async def asked() -> bool:
                return bool(openai.asked)

            await eventually(asked)
            write_agent(tmp_path / "one", name="one", version="2.0.0", **model_at(openai.url))

            async def swapped() -> bool:
                return (await client.get("/one/health")).json()["version"] == "2.0.0"

            await eventually(swapped, 10)
            answer = (await asking).json()
            assert answer["stop_reason"] == "timeout"
            assert answer["answer"] == "It is "


async def test_an_edited_tool_is_swapped_in_too(tmp_path: Path) -> None:
    tool = 'def tell() -> str:\n    """Tell it."""\n    return "{}"\n'
    call = {"index": 0, "id": "c1", "function": {"name": "tell", "arguments": "{}"}}
    async with serving_openai(calls([call]), calls([call])) as openai:
        sections = {"tools": [{"function": "calculator:tell", "answer": "direct"}], **model_at(openai.url)}
        write_agent(tmp_path / "one", name="one", code=tool.format("old"), version="1.0.0", **sections)
        async with serving(tmp_path, "--reload") as client:
            assert await ask(client, "one") == "old"
            write_agent(tmp_path / "one", name="one", code=tool.format("new"), version="2.0.0", **sections)

            async def swapped() -> bool:
                return (await client.get("/one/health")).json()["version"] == "2.0.0"

            await eventually(swapped, 10)
            assert await ask(client, "one") == "new"
