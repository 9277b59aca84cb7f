"""The A2A protocol: JSON-RPC of versions 1.0 and 0.3 on one URL, and the agent card.

A task is one run, and a context is a session. The text of the answer is the only artifact of a task.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, cast
from urllib.parse import urlsplit

from a2a.auth.user import User
from a2a.helpers.proto_helpers import new_text_part
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.context import ServerCallContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.request_handlers.response_helpers import agent_card_to_dict
from a2a.server.routes.common import DefaultServerCallContextBuilder
from a2a.server.routes.jsonrpc_routes import create_jsonrpc_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types.a2a_pb2 import (
    AgentCapabilities,
    AgentCard,
    AgentInterface,
    AgentSkill,
    HTTPAuthSecurityScheme,
    Message,
    Role,
    SecurityRequirement,
    SecurityScheme,
    StringList,
    Task,
    TaskState,
    TaskStatus,
)
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from agent_runtime.agent import Agent
from agent_runtime.errors import CallerError, MyAgentError
from agent_runtime.events import Finished, StopReason, Text
from agent_runtime.masking import masked
from agent_runtime.server.auth.authenticator import authenticate, caller_of
from agent_runtime.server.dependencies import session_owner
from agent_runtime.server.problems import masked_problem
from agent_runtime.server.registration import CARD_PATH, advertised_endpoint
from agent_runtime.server.run import Failed, Run, RunEvent
from agent_runtime.server.runs import Runs

MAX_RETAINED_TASKS = 1000
PROTOCOL_VERSIONS = ("1.0", "0.3")
_STATES: dict[StopReason, TaskState] = {
    "cancelled": TaskState.TASK_STATE_CANCELED,
    "model_error": TaskState.TASK_STATE_FAILED,
    "approval_required": TaskState.TASK_STATE_INPUT_REQUIRED,
}


class A2AEndpoint:
    """Card and JSON-RPC of an agent with the prefix `path` on its port."""

    def __init__(self, agent: Agent, path: str) -> None:
        self._agent = agent
        self._path = path
        self._handler = DefaultRequestHandler(
            agent_executor=_Executor(agent), task_store=_LatestTasks(), agent_card=card_of(agent, path)
        )
        calls = create_jsonrpc_routes(self._handler, "/a2a", _Callers(), enable_v0_3_compat=True)
        self._app = Router([*calls, Route(CARD_PATH, self._card)])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; only the card is public."""
        request = Request(scope)
        if not request.url.path.endswith(CARD_PATH):
            await authenticate(request)
        await self._app(scope, receive, send)

    async def aclose(self) -> None:
        """Cancel the tasks in progress."""
        await self._handler.aclose()

    async def _card(self, request: Request) -> Response:
        card = agent_card_to_dict(card_of(self._agent, self._path, requested_at=str(request.base_url)))
        body = json.dumps(card, sort_keys=True)
        headers = {
            "etag": f'W/"{hashlib.sha256(body.encode()).hexdigest()[:32]}"',
            "cache-control": "private, max-age=60",  # private: its URLs depend on the Host header
            "vary": "host",
        }
        if headers["etag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return JSONResponse(card, headers=headers)


class _Caller(User):
    def __init__(self, caller: str) -> None:
        self._caller = caller

    @property
    def is_authenticated(self) -> bool:
        return bool(self._caller)

    @property
    def user_name(self) -> str:
        return session_owner(self._caller, None)


class _Callers(DefaultServerCallContextBuilder):
    """Tasks and sessions belong to the authenticated caller."""

    def build(self, request: Request) -> ServerCallContext:
        context = super().build(request)
        context.state["runs"] = request.state.runs
        return context

    def build_user(self, request: Request) -> User:
        return _Caller(caller_of(request))


class _LatestTasks(InMemoryTaskStore):
    """Keeps the tasks that were written last, so that memory stays bounded."""

    def __init__(self) -> None:
        super().__init__()
        self._order: OrderedDict[str, ServerCallContext] = OrderedDict()

    async def save(self, task: Task, context: ServerCallContext) -> None:
        await super().save(task, context)
        self._order[task.id] = ServerCallContext(user=context.user)
        self._order.move_to_end(task.id)
        while len(self._order) > MAX_RETAINED_TASKS:
            oldest, owner = self._order.popitem(last=False)
            await super().delete(oldest, owner)


class _Executor(AgentExecutor):
    """Runs the agent for a task, and reports the run as A2A events."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        assert context.task_id is not None
        assert context.context_id is not None
        updater = TaskUpdater(event_queue, context.task_id, context.context_id)
        if context.current_task is None:
            status = TaskStatus(state=TaskState.TASK_STATE_SUBMITTED)
            history = [context.message] if context.message else []
            task = Task(id=context.task_id, context_id=context.context_id, status=status, history=history)
            await event_queue.enqueue_event(task)
        call = context.call_context
        try:
            run = await cast("Runs", call.state["runs"]).start(
                self._agent, context.get_user_input(), session_id=context.context_id, owner=call.user.user_name
            )
        except CallerError as error:
            await updater.reject(self._reason(updater, error))
            return
        await updater.start_work()
        streams = call.state.get("method") in {"SendStreamingMessage", "message/stream"}
        try:
            await self._report(run, updater, streams=streams)
        finally:
            run.cancel()  # if this task was cancelled; otherwise the run has ended

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        await TaskUpdater(event_queue, context.task_id or "", context.context_id or "").cancel()

    async def _report(self, run: Run, updater: TaskUpdater, *, streams: bool) -> None:
        """Send the answer as one artifact, in pieces to a streaming client."""
        seen, pieces = 0, 0
        with run.reading():
            while events := await run.next_events(seen):
                seen += len(events)
                if streams and (text := _text(events)):
                    await self._answer(updater, run, text, append=pieces > 0)
                    pieces += 1
                match events[-1]:
                    case Finished() as finished:
                        await self._finish(run, updater, finished, streamed=pieces > 0)
                    case Failed(error):
                        await updater.failed(self._reason(updater, error))
                    case _:
                        pass

    async def _answer(self, updater: TaskUpdater, run: Run, text: str, *, append: bool = False) -> None:
        await updater.add_artifact([new_text_part(text)], artifact_id=run.run_id, name="answer", append=append)

    async def _finish(self, run: Run, updater: TaskUpdater, finished: Finished, *, streamed: bool) -> None:
        state = _STATES.get(finished.stop_reason, TaskState.TASK_STATE_COMPLETED)
        is_waiting = state == TaskState.TASK_STATE_INPUT_REQUIRED  # the text is then the reason, not the answer
        if finished.answer and not streamed and not is_waiting:
            await self._answer(updater, run, finished.answer)
        message = _message(updater, finished.answer) if is_waiting else None
        await updater.update_status(state, message, metadata=_metadata(finished))

    def _reason(self, updater: TaskUpdater, error: MyAgentError) -> Message:
        return _message(updater, masked_problem(error, self._agent.secrets)["detail"])


def _message(updater: TaskUpdater, text: str) -> Message:
    return Message(
        role=Role.ROLE_AGENT,
        message_id=uuid.uuid4().hex,
        task_id=updater.task_id,
        context_id=updater.context_id,
        parts=[new_text_part(text)],
    )


def _text(events: Sequence[RunEvent]) -> str:
    return "".join(event.delta for event in events if isinstance(event, Text))


def _metadata(finished: Finished) -> dict[str, Any]:
    usage = finished.usage
    return {
        "stop_reason": finished.stop_reason,
        "usage": {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens},
    }


def card_of(agent: Agent, path: str, *, requested_at: str = "") -> AgentCard:
    """The agent card; `requested_at` is the base URL of the request for it."""
    config, text = agent.config, ["text/plain"]
    description = masked(config.description, agent.secrets) or f"The agent {config.name}."
    card = AgentCard(
        name=config.name,
        description=description,
        version=config.version,
        supported_interfaces=[
            AgentInterface(url=f"{url}/a2a", protocol_binding="JSONRPC", protocol_version=version)
            for url in _urls(agent, path, requested_at)
            for version in PROTOCOL_VERSIONS
        ],
        capabilities=AgentCapabilities(streaming=True, push_notifications=False),
        default_input_modes=text,
        default_output_modes=text,
        skills=_skills(agent, description),
    )
    if config.server.asks:
        bearer = HTTPAuthSecurityScheme(scheme="bearer", description="An API key or a token of the agent.")
        card.security_schemes["bearer"].CopyFrom(SecurityScheme(http_auth_security_scheme=bearer))
        card.security_requirements.append(SecurityRequirement(schemes={"bearer": StringList()}))
    return card


def _skills(agent: Agent, description: str) -> list[AgentSkill]:
    """One skill for each tool; an agent without tools has the skill `answer`."""
    tools = [tool.spec for tool in agent.tools]
    if not tools:
        return [AgentSkill(id="answer", name=agent.config.name, description=description, tags=["answer"])]
    return [
        AgentSkill(
            id=spec.name,
            name=spec.name.replace("_", " "),
            description=masked(spec.description, agent.secrets),
            tags=[*agent.config.discovery.tags] or ["tool"],
        )
        for spec in tools
    ]


def _urls(agent: Agent, path: str, requested_at: str) -> list[str]:
    """The URLs of the agent; the first one has the host that the client used."""
    server = agent.config.server
    configured = [url.rstrip("/") + path for url in (server.service_url, server.public_url) if url]
    if configured:
        requested_host = urlsplit(requested_at).hostname
        return sorted(dict.fromkeys(configured), key=lambda url: urlsplit(url).hostname != requested_host)
    return [requested_at.rstrip("/") or advertised_endpoint(agent, server.port) + path]
