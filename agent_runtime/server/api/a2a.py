"""The A2A face: JSON-RPC of protocol 1.0 and 0.3 on one URL, and the card that says so.

A task is one run, a context is a session; the text of the answer is the one artifact of a task.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, cast

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
from a2a.types.a2a_pb2 import Message, Role, Task, TaskState, TaskStatus
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from agent_runtime.agent import Agent
from agent_runtime.errors import CallerError, MyAgentError
from agent_runtime.events import Finished, StopReason, Text
from agent_runtime.masking import masked
from agent_runtime.server.api.agent_card import card_of
from agent_runtime.server.auth.authenticator import admitted, caller_of
from agent_runtime.server.dependencies import owner_of, problem_of
from agent_runtime.server.lazy_mount import CARD_PATH
from agent_runtime.server.runs import Failed, Run, RunEvent, Runs

REMEMBERED_TASKS = 1000
_STATES: dict[StopReason, TaskState] = {
    "cancelled": TaskState.TASK_STATE_CANCELED,
    "model_error": TaskState.TASK_STATE_FAILED,
    "approval_required": TaskState.TASK_STATE_INPUT_REQUIRED,
}


def make(agent: Agent, path: str) -> A2AFace:
    """The face of an agent that answers at `path` of its port."""
    return A2AFace(agent, path)


class A2AFace:
    """Card and JSON-RPC of one agent."""

    def __init__(self, agent: Agent, path: str) -> None:
        self._agent = agent
        self._path = path
        self._handler = DefaultRequestHandler(
            agent_executor=_Executor(agent), task_store=_LatestTasks(), agent_card=card_of(agent, path)
        )
        calls = create_jsonrpc_routes(self._handler, "/a2a", _Callers(), enable_v0_3_compat=True)
        self._app = Router([*calls, Route(CARD_PATH, self._card)])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; only the card is for everybody."""
        request = Request(scope)
        if not request.url.path.endswith(CARD_PATH):
            await admitted(request)
        await self._app(scope, receive, send)

    async def aclose(self) -> None:
        """End the tasks that are under way."""
        await self._handler.aclose()

    async def _card(self, request: Request) -> Response:
        card = agent_card_to_dict(card_of(self._agent, self._path, asked_at=str(request.base_url)))
        body = json.dumps(card, sort_keys=True)
        headers = {
            "etag": f'W/"{hashlib.sha256(body.encode()).hexdigest()[:32]}"',
            "cache-control": "private, max-age=60",  # private: its addresses depend on where it was asked for
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
        return owner_of(self._caller, None)


class _Callers(DefaultServerCallContextBuilder):
    """Whose call it is: tasks and sessions belong to the caller's key."""

    def build(self, request: Request) -> ServerCallContext:
        context = super().build(request)
        context.state["runs"] = request.state.runs
        return context

    def build_user(self, request: Request) -> User:
        return _Caller(caller_of(request))


class _LatestTasks(InMemoryTaskStore):
    """The tasks that were written last; a process that serves for months does not keep them all."""

    def __init__(self) -> None:
        super().__init__()
        self._order: OrderedDict[str, ServerCallContext] = OrderedDict()

    async def save(self, task: Task, context: ServerCallContext) -> None:
        await super().save(task, context)
        self._order[task.id] = ServerCallContext(user=context.user)
        self._order.move_to_end(task.id)
        while len(self._order) > REMEMBERED_TASKS:
            oldest, owner = self._order.popitem(last=False)
            await super().delete(oldest, owner)


class _Executor(AgentExecutor):
    """Runs the agent for a task, and says how it goes in A2A's events."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        assert context.task_id is not None
        assert context.context_id is not None
        progress = TaskUpdater(event_queue, context.task_id, context.context_id)
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
            await progress.reject(self._reason(progress, error))
            return
        await progress.start_work()
        streams = call.state.get("method") in {"SendStreamingMessage", "message/stream"}
        try:
            await self._report(run, progress, streams=streams)
        finally:
            run.cancel()  # when this task is cancelled; else the run is over

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        await TaskUpdater(event_queue, context.task_id or "", context.context_id or "").cancel()

    async def _report(self, run: Run, progress: TaskUpdater, *, streams: bool) -> None:
        """The answer as one artifact: in pieces for who reads a stream, else whole."""
        seen, pieces = 0, 0
        with run.reading():
            while events := await run.next_events(seen):
                seen += len(events)
                if streams and (text := _text(events)):
                    await self._answer(progress, run, text, append=pieces > 0)
                    pieces += 1
                match events[-1]:
                    case Finished() as finished:
                        await self._finish(run, progress, finished, streamed=pieces > 0)
                    case Failed(error):
                        await progress.failed(self._reason(progress, error))
                    case _:
                        pass

    async def _answer(self, progress: TaskUpdater, run: Run, text: str, *, append: bool = False) -> None:
        await progress.add_artifact([new_text_part(text)], artifact_id=run.run_id, name="answer", append=append)

    async def _finish(self, run: Run, progress: TaskUpdater, finished: Finished, *, streamed: bool) -> None:
        state = _STATES.get(finished.stop_reason, TaskState.TASK_STATE_COMPLETED)
        waits = state == TaskState.TASK_STATE_INPUT_REQUIRED  # then what was said is not the answer but why it waits
        if finished.answer and not streamed and not waits:
            await self._answer(progress, run, finished.answer)
        message = _said(progress, finished.answer) if waits else None
        await progress.update_status(state, message, metadata=_facts(finished))

    def _reason(self, progress: TaskUpdater, error: MyAgentError) -> Message:
        return _said(progress, masked(str(problem_of(error)["detail"]), self._agent.secrets))


def _said(progress: TaskUpdater, text: str) -> Message:
    return Message(
        role=Role.ROLE_AGENT,
        message_id=uuid.uuid4().hex,
        task_id=progress.task_id,
        context_id=progress.context_id,
        parts=[new_text_part(text)],
    )


def _text(events: Sequence[RunEvent]) -> str:
    return "".join(event.delta for event in events if isinstance(event, Text))


def _facts(finished: Finished) -> dict[str, Any]:
    usage = finished.usage
    return {
        "stop_reason": finished.stop_reason,
        "usage": {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens},
    }
