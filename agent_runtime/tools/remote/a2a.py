"""A client for other agents over A2A, protocol version 1.0 or 0.3, whichever the agent card offers.

Imported when the first remote agent is opened: the A2A SDK takes a second to import.
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
    """The part of an answer that was received so far."""

    state: str = "no state"
    done: bool = False
    task_id: str = ""
    usage: Usage = field(default_factory=Usage)
    artifacts: dict[str, str] = field(default_factory=dict[str, str])
    message: str = ""
    started: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def text(self) -> str:
        """The artifacts, or the last message if there are none."""
        return "\n\n".join(text for text in self.artifacts.values() if text) or self.message

    async def read(self, responses: AsyncGenerator[StreamResponse]) -> None:
        """Read all responses."""
        async with aclosing(responses):
            async for response in responses:
                self._add(response)
                self.started.set()

    def _add(self, response: StreamResponse) -> None:
        if response.HasField("message"):
            self.message, self.state, self.done = _text(response.message), "completed", True
        elif response.HasField("task"):
            self.task_id = response.task.id
            self.artifacts |= {artifact.artifact_id: _text(artifact) for artifact in response.task.artifacts}
            self._set_status(response.task.status)
        elif response.HasField("artifact_update"):
            update = response.artifact_update
            previous = self.artifacts.get(update.artifact.artifact_id, "") if update.append else ""
            self.artifacts[update.artifact.artifact_id] = previous + _text(update.artifact)
        elif response.HasField("status_update"):
            self.task_id = response.status_update.task_id
            self._set_status(response.status_update.status)
            self._set_usage(MessageToDict(response.status_update.metadata).get("usage"))

    def _set_usage(self, usage: Any) -> None:
        with suppress(TypeError, ValueError, KeyError):  # the metadata of another runtime may be anything
            self.usage = Usage(int(usage["input_tokens"]), int(usage["output_tokens"]))

    def _set_status(self, status: TaskStatus) -> None:
        self.state = TaskState.Name(status.state).removeprefix("TASK_STATE_").lower().replace("_", " ")
        self.done = status.state == TaskState.TASK_STATE_COMPLETED
        if status.HasField("message"):
            self.message = _text(status.message)


class _RotatedKey(httpx.Auth):
    """Retries a request whose key was rejected, if the key was rotated."""

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


class A2AClient:
    """Asks agents with one API key and one TLS configuration; keeps connections open until it is closed."""

    def __init__(self, api_key: Credential[str | None], tls: ssl.SSLContext | None = None) -> None:
        self._api_key = api_key
        self._tls = tls
        self._clients: dict[bool, httpx.AsyncClient] = {}

    async def __aenter__(self) -> A2AClient:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.aclose()

    async def ask(self, record: AgentRecord, message: str, budget: Budget) -> Answer:
        """Ask an agent and wait for its complete answer; the tokens that it used are added to `budget.spent`.

        Cancelling this cancels the task of the other agent.
        """
        http = self._http(record.endpoint)
        client = ClientFactory(ClientConfig(httpx_client=http)).create(await _card(http, record))
        key = self._api_key.value
        headers = budget.headers() | ({"authorization": f"Bearer {key}"} if key else {})
        context = ClientCallContext(service_parameters=headers, timeout=budget.seconds())
        request = SendMessageRequest(message=new_text_message(message, role=Role.ROLE_USER))
        answer = Answer()
        responses = cast("AsyncGenerator[StreamResponse]", client.send_message(request, context=context))
        reading = asyncio.create_task(answer.read(responses), name=f"ask-{record.name}")
        try:
            await asyncio.shield(reading)
        except asyncio.CancelledError:
            await _cancel(client, answer, context)  # while reading: the first response contains the task id
            raise
        finally:
            reading.cancel()
            await asyncio.wait({reading})
            budget.spent.append(answer.usage)
        return answer

    def _http(self, endpoint: str) -> httpx.AsyncClient:
        loopback = is_loopback(endpoint)
        if loopback not in self._clients:
            # A proxy cannot reach the loopback interface of this machine.
            self._clients[loopback] = httpx.AsyncClient(
                verify=True if self._tls is None else self._tls,
                timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
                trust_env=not loopback,
                auth=_RotatedKey(self._api_key),
            )
        return self._clients[loopback]


async def _card(http: httpx.AsyncClient, record: AgentRecord) -> AgentCard:
    if record.links and record.links.card:
        async with asyncio.timeout(CARD_SECONDS):
            return await A2ACardResolver(http, record.links.card).get_agent_card("/")
    if record.protocols and "a2a" not in record.protocols:
        raise ValueError(f"it does not support a2a, only {', '.join(record.protocols)}")
    address = record.endpoint.rstrip("/") + "/a2a"
    interface = AgentInterface(url=address, protocol_binding="JSONRPC", protocol_version="1.0")
    return AgentCard(name=record.name, supported_interfaces=[interface], capabilities=AgentCapabilities(streaming=True))


async def _cancel(client: Client, answer: Answer, context: ClientCallContext) -> None:
    """Best effort: otherwise the other agent stops at its deadline."""
    with suppress(Exception):
        async with asyncio.timeout(CANCEL_SECONDS):
            await answer.started.wait()
            await client.cancel_task(CancelTaskRequest(id=answer.task_id), context=context)


def _text(holder: Message | Artifact) -> str:
    return "".join(part.text for part in holder.parts)
