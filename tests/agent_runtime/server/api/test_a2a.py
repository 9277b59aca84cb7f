"""The A2A face, as the official client of the protocol sees it, in both versions."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("a2a", reason="needs the a2a extra")

from a2a.client import A2ACardResolver, Client, ClientConfig, ClientFactory
from a2a.client.errors import A2AClientError
from a2a.helpers.proto_helpers import get_artifact_text, new_text_message
from a2a.types.a2a_pb2 import (
    CancelTaskRequest,
    GetTaskRequest,
    Role,
    SendMessageRequest,
    StreamResponse,
    Task,
    TaskState,
)
from a2a.utils.errors import TaskNotFoundError

from agent_runtime.errors import ModelError
from agent_runtime.events import Usage
from agent_runtime.models.scripted import ScriptedModel
from tests.agent_runtime.server.served import serving
from tests.agents import called

VERSIONS = ("1.0", "0.3")


class Endless(ScriptedModel):
    """Says one word and then nothing for ever; knows whether it was stopped."""

    def __init__(self) -> None:
        super().__init__([])
        self.begun, self.stopped = asyncio.Event(), asyncio.Event()

    async def stream(self, messages: Any, tools: Any = (), **options: Any) -> Any:
        self.begun.set()
        try:
            yield "Hm"
            await asyncio.Event().wait()
        finally:
            self.stopped.set()


@asynccontextmanager
async def a2a_client(
    http: httpx.AsyncClient, version: str = "1.0", *, streaming: bool = True
) -> AsyncGenerator[Client]:
    """The official client, held to one version of the protocol by what it keeps of the card."""
    card = await A2ACardResolver(http, str(http.base_url)).get_agent_card()
    kept = [one for one in card.supported_interfaces if one.protocol_version == version]
    assert kept
    del card.supported_interfaces[:]
    card.supported_interfaces.extend(kept)
    yield ClientFactory(ClientConfig(httpx_client=http, streaming=streaming)).create(card)


async def sent(client: Client, text: str, *, context_id: str | None = None) -> list[StreamResponse]:
    message = new_text_message(text, role=Role.ROLE_USER, context_id=context_id)
    return [answer async for answer in client.send_message(SendMessageRequest(message=message))]


def answer_of(task: Task) -> str:
    return "".join(get_artifact_text(artifact, "") for artifact in task.artifacts)


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_official_client_asks_and_reads_the_whole_answer(tmp_path: Path, version: str) -> None:
    model = ScriptedModel([[called("add", '{"a": 2, "b": 3}')], ["It ", "is ", "5.", Usage(10, 3)]])
    async with serving(tmp_path, model) as http, a2a_client(http, version, streaming=False) as client:
        [response] = await sent(client, "2 + 3?", context_id="c1")
    task = response.task
    assert task.status.state == TaskState.TASK_STATE_COMPLETED
    assert (answer_of(task), task.context_id, len(task.artifacts[0].parts)) == ("It is 5.", "c1", 1)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_stream_brings_the_answer_in_pieces_and_ends_with_the_state(tmp_path: Path, version: str) -> None:
    model = ScriptedModel([["It ", "is ", "5.", Usage(10, 3)]])
    async with serving(tmp_path, model) as http, a2a_client(http, version) as client:
        responses = await sent(client, "2 + 3?")
    pieces = [response.artifact_update for response in responses if response.HasField("artifact_update")]
    assert "".join(get_artifact_text(piece.artifact) for piece in pieces) == "It is 5."
    assert [piece.append for piece in pieces] == [False] + [True] * (len(pieces) - 1)
    last = responses[-1].status_update
    assert last.status.state == TaskState.TASK_STATE_COMPLETED
    assert dict(last.metadata)["stop_reason"] == "finished"


async def test_a_context_is_a_session(tmp_path: Path) -> None:
    model = ScriptedModel(["Hello Ada.", "Ada.", "I do not know."])
    async with serving(tmp_path, model, agent_type="stateful") as http, a2a_client(http, streaming=False) as client:
        [first] = await sent(client, "I am Ada.")
        await sent(client, "Who am I?", context_id=first.task.context_id)
        await sent(client, "Who am I?")
    assert len(first.task.context_id) >= 16
    assert [len(asked.messages) for asked in model.asked] == [1, 3, 1]


async def test_a_task_can_be_read_again(tmp_path: Path) -> None:
    async with serving(tmp_path, ScriptedModel(["Hi."])) as http, a2a_client(http, streaming=False) as client:
        [response] = await sent(client, "hello")
        again = await client.get_task(GetTaskRequest(id=response.task.id))
    assert answer_of(again) == "Hi."


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_task_that_is_cancelled_stops_the_model(tmp_path: Path, version: str) -> None:
    model = Endless()
    async with serving(tmp_path, model) as http, a2a_client(http, version) as client:
        message = new_text_message("Think.", role=Role.ROLE_USER)
        states: list[Any] = []
        task_id = ""
        async for response in client.send_message(SendMessageRequest(message=message)):
            if response.HasField("task"):
                task_id = response.task.id
            elif response.HasField("artifact_update"):
                await client.cancel_task(CancelTaskRequest(id=task_id))
            else:
                states.append(response.status_update.status.state)
        await asyncio.wait_for(model.stopped.wait(), 5)
    assert states[-1] == TaskState.TASK_STATE_CANCELED


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_model_that_fails_makes_a_failed_task_with_the_reason(tmp_path: Path, version: str) -> None:
    model = ScriptedModel([ModelError("the endpoint is away", fault="unreachable")])
    async with serving(tmp_path, model) as http, a2a_client(http, version, streaming=False) as client:
        [response] = await sent(client, "hello")
    assert response.task.status.state == TaskState.TASK_STATE_FAILED
    assert response.task.status.message.parts[0].text == "the endpoint is away"


@pytest.mark.parametrize("streaming", [True, False])
async def test_a_call_that_waits_for_a_person_leaves_the_task_waiting(tmp_path: Path, streaming: bool) -> None:
    tools = [{"function": "calculator:add", "approval": "required"}]
    model = ScriptedModel([[called("add", '{"a": 2, "b": 3}')]])
    async with serving(tmp_path, model, tools=tools) as http, a2a_client(http, streaming=streaming) as client:
        last = (await sent(client, "2 + 3?"))[-1]
    status = last.status_update.status if streaming else last.task.status
    assert status.state == TaskState.TASK_STATE_INPUT_REQUIRED
    assert "approval" in status.message.parts[0].text


async def test_what_the_agent_cannot_be_asked_is_rejected_with_a_sentence(tmp_path: Path) -> None:
    async with serving(tmp_path, ScriptedModel([])) as http, a2a_client(http, streaming=False) as client:
        [empty] = await sent(client, " ")
        [control] = await sent(client, "hello", context_id="a\x00b")
    for response, reason in ((empty, "the message is empty"), (control, "printable")):
        assert response.task.status.state == TaskState.TASK_STATE_REJECTED
        assert reason in response.task.status.message.parts[0].text


async def test_a_body_that_is_no_call_gets_a_json_rpc_error(tmp_path: Path) -> None:
    async with serving(tmp_path, ScriptedModel([])) as http:
        wrong = {
            "": -32700,
            "[]": -32600,
            '{"jsonrpc": "2.0", "id": 1, "method": "Nothing"}': -32601,
            '{"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": 3}}': -32602,
        }
        for body, code in wrong.items():
            answer = await http.post("/a2a", content=body, headers={"A2A-Version": "1.0"})
            assert (body, answer.json()["error"]["code"]) == (body, code)
        too_long = await http.post("/a2a", content=b'"' + b"x" * 2_000_000 + b'"')
        assert too_long.json()["error"]["message"] == "Payload too large"
        assert (await http.get("/a2a")).status_code == 405


async def test_the_card_is_honest(tmp_path: Path) -> None:
    server = {"api_keys": ["k1"]}
    async with serving(
        tmp_path, ScriptedModel([]), server=server, description="Adds.", version="1.2.3", discovery={"tags": ["sums"]}
    ) as http:
        answer = await http.get("/.well-known/agent-card.json")
        again = await http.get("/.well-known/agent-card.json", headers={"if-none-match": answer.headers["etag"]})
        address = str(http.base_url).rstrip("/")
    card = answer.json()
    assert (card["name"], card["description"], card["version"]) == ("helper", "Adds.", "1.2.3")
    assert [(one["url"], one["protocolVersion"]) for one in card["supportedInterfaces"]] == [
        (f"{address}/a2a", "1.0"),
        (f"{address}/a2a", "0.3"),
    ]
    assert card["url"] == f"{address}/a2a"
    add, _shout = card["skills"]
    assert (add["id"], add["description"], add["tags"]) == ("add", "Add two numbers.", ["sums"])
    assert card["capabilities"]["streaming"] is True
    assert card["securitySchemes"]["bearer"]["httpAuthSecurityScheme"]["scheme"] == "bearer"
    assert answer.headers["cache-control"] == "private, max-age=60"
    assert again.status_code == 304


async def test_the_card_gives_the_address_that_its_reader_can_use(tmp_path: Path) -> None:
    server = {"service_url": "http://helper:8000/", "public_url": "https://agents.example/helper"}
    async with serving(tmp_path, ScriptedModel([]), server=server) as http:

        async def first_address(host: str) -> str:
            card = (await http.get("/.well-known/agent-card.json", headers={"host": host})).json()
            return card["supportedInterfaces"][0]["url"]

        assert await first_address("helper:8000") == "http://helper:8000/a2a"
        assert await first_address("agents.example") == "https://agents.example/helper/a2a"
        assert await first_address("evil.example") == "http://helper:8000/a2a"


async def test_keys_guard_the_calls_and_part_the_callers(tmp_path: Path) -> None:
    server = {"api_keys": ["k1", "k2"]}
    model = ScriptedModel(["Hello Ada.", "I do not know you."])
    async with serving(tmp_path, model, server=server, agent_type="stateful") as http:
        async with a2a_client(http, streaming=False) as stranger:
            with pytest.raises(A2AClientError, match="401"):
                await sent(stranger, "hello")
        http.headers["authorization"] = "Bearer k1"
        async with a2a_client(http, streaming=False) as client:
            [first] = await sent(client, "I am Ada.", context_id="c")
            http.headers["authorization"] = "Bearer k2"
            await sent(client, "Who am I?", context_id="c")
            with pytest.raises(TaskNotFoundError):
                await client.get_task(GetTaskRequest(id=first.task.id))
    assert [len(asked.messages) for asked in model.asked] == [1, 1]


async def test_an_agent_that_is_closed_leaves_no_task_behind(tmp_path: Path) -> None:
    model = Endless()
    async with serving(tmp_path, model) as http:
        call = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "SendMessage",
            "params": {
                "message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "Think."}]},
                "configuration": {"returnImmediately": True},
            },
        }
        answer = await http.post("/a2a", json=call, headers={"A2A-Version": "1.0"})
        assert answer.json()["result"]["task"]["id"]
        await asyncio.wait_for(model.begun.wait(), 5)
    await asyncio.wait_for(model.stopped.wait(), 5)
