"""One question to another agent over A2A, protocol 1.0 or 0.3, whichever its card offers.

Loaded with the first `agent:` in a file, because the library behind it takes a second to import.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any, cast

import httpx
from a2a.client import A2ACardResolver, Client, ClientCallContext, ClientConfig, ClientFactory
from a2a.helpers.proto_helpers import new_text_message
from a2a.types.a2a_pb2 import (
    AgentCapabilities,
    AgentCard,
    AgentInterface,
    Artifact,
    CancelTaskRequest,
    Message,
    Role,
    SendMessageRequest,
    StreamResponse,
    TaskState,
    TaskStatus,
)
from google.protobuf.json_format import MessageToDict

from agent_runtime.budget import Budget
from agent_runtime.events import Usage
from agent_runtime.secrets import Credential
from discovery.contract import AgentRecord, is_loopback

CONNECT_SECONDS = 5.0
CARD_SECONDS = 10.0
CANCEL_SECONDS = 2.0


@dataclass(slots=True)
class Answer:
    """What has arrived of an answer so far."""

    state: str = "no state"
    done: bool = False
    task_id: str = ""
    usage: Usage = field(default_factory=Usage)
    artifacts: dict[str, str] = field(default_factory=dict[str, str])
    said: str = ""
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def text(self) -> str:
        """The artifacts, or what was said where there are none."""
        return "\n\n".join(text for text in self.artifacts.values() if text) or self.said

    async def read(self, responses: AsyncGenerator[StreamResponse]) -> None:
        """Take everything, to the end."""
        async with aclosing(responses):
            async for response in responses:
                self._take(response)
                self.begun.set()

    def _take(self, response: StreamResponse) -> None:
        if response.HasField("message"):
            self.said, self.state, self.done = _text(response.message), "completed", True
        elif response.HasField("task"):
            self.task_id = response.task.id
            self.artifacts |= {artifact.artifact_id: _text(artifact) for artifact in response.task.artifacts}
            self._take_status(response.task.status)
        elif response.HasField("artifact_update"):
            update = response.artifact_update
            before = self.artifacts.get(update.artifact.artifact_id, "") if update.append else ""
            self.artifacts[update.artifact.artifact_id] = before + _text(update.artifact)
        elif response.HasField("status_update"):
            self.task_id = response.status_update.task_id
            self._take_status(response.status_update.status)
            self._take_usage(MessageToDict(response.status_update.metadata).get("usage"))

    def _take_usage(self, used: Any) -> None:
        with suppress(TypeError, ValueError, KeyError):  # another runtime's metadata may mean anything
            self.usage = Usage(int(used["input_tokens"]), int(used["output_tokens"]))

    def _take_status(self, status: TaskStatus) -> None:
        self.state = TaskState.Name(status.state).removeprefix("TASK_STATE_").lower().replace("_", " ")
        self.done = status.state == TaskState.TASK_STATE_COMPLETED
        if status.HasField("message"):
            self.said = _text(status.message)


class _Renewing(httpx.Auth):
    """Sends a request again whose key was refused, where that has been rotated meanwhile."""

    def __init__(self, key: Credential[str | None]) -> None:
        self._key = key

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        key = self._key.value
        response = yield request
        if response.status_code not in {401, 403} or request.headers.get("authorization") != f"Bearer {key}":
            return
        if newer := await self._key.renewed(key):
            request.headers["authorization"] = f"Bearer {newer}"
            yield request


class A2ACaller:
    """Asks agents with one key, and with what is trusted and shown over https; keeps its connections until closed."""

    def __init__(self, api_key: Credential[str | None], tls: ssl.SSLContext | None = None) -> None:
        self._api_key = api_key
        self._tls = tls
        self._clients: dict[bool, httpx.AsyncClient] = {}

    async def __aenter__(self) -> A2ACaller:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.aclose()

    async def ask(self, record: AgentRecord, message: str, left: Budget) -> Answer:
        """Wait for the whole answer; what the agent used of the tokens is noted in what is left.

        Giving up cancels the task over there.
        """
        http = self._http(record.endpoint)
        client = ClientFactory(ClientConfig(httpx_client=http)).create(await _card(http, record))
        key = self._api_key.value
        headers = left.headers() | ({"authorization": f"Bearer {key}"} if key else {})
        context = ClientCallContext(service_parameters=headers, timeout=left.seconds())
        request = SendMessageRequest(message=new_text_message(message, role=Role.ROLE_USER))
        answer = Answer()
        responses = cast("AsyncGenerator[StreamResponse]", client.send_message(request, context=context))
        reading = asyncio.create_task(answer.read(responses), name=f"ask-{record.name}")
        try:
            await asyncio.shield(reading)
        except asyncio.CancelledError:
            await _cancel(client, answer, context)  # still reading: the first response has the name of the task
            raise
        finally:
            reading.cancel()
            await asyncio.wait({reading})
            left.spent.append(answer.usage)
        return answer

    def _http(self, endpoint: str) -> httpx.AsyncClient:
        local = is_loopback(endpoint)
        if local not in self._clients:
            # A proxy cannot reach this machine's loopback.
            self._clients[local] = httpx.AsyncClient(
                verify=True if self._tls is None else self._tls,
                timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
                trust_env=not local,
                auth=_Renewing(self._api_key),
            )
        return self._clients[local]


async def _card(http: httpx.AsyncClient, record: AgentRecord) -> AgentCard:
    if record.links and record.links.card:
        async with asyncio.timeout(CARD_SECONDS):
            return await A2ACardResolver(http, record.links.card).get_agent_card("/")
    if record.protocols and "a2a" not in record.protocols:
        raise ValueError(f"it speaks {', '.join(record.protocols)} and not a2a")
    address = record.endpoint.rstrip("/") + "/a2a"
    interface = AgentInterface(url=address, protocol_binding="JSONRPC", protocol_version="1.0")
    return AgentCard(name=record.name, supported_interfaces=[interface], capabilities=AgentCapabilities(streaming=True))


async def _cancel(client: Client, answer: Answer, context: ClientCallContext) -> None:
    """Best effort: the other agent's own deadline is the truth."""
    with suppress(Exception):
        async with asyncio.timeout(CANCEL_SECONDS):
            await answer.begun.wait()
            await client.cancel_task(CancelTaskRequest(id=answer.task_id), context=context)


def _text(holder: Message | Artifact) -> str:
    return "".join(part.text for part in holder.parts)
