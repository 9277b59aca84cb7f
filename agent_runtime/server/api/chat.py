"""The native face: one message in, an answer or a stream of events out, and a broken stream picked up again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from agent_runtime.agent import Agent
from agent_runtime.conversation import MAX_MESSAGE_CHARACTERS
from agent_runtime.events import (
    ApprovalRequired,
    Finished,
    Plan,
    RunResult,
    RunStarted,
    Text,
    Thought,
    ToolCalled,
    ToolResult,
)
from agent_runtime.server.api.sse import EventStream, Words, encoded, sse
from agent_runtime.server.auth.authenticator import Caller, Guarded
from agent_runtime.server.dependencies import CurrentAgent, CurrentRuns, owner_of, result_of, shown_problem
from agent_runtime.server.runs import Failed, RunEvent
from agent_runtime.sessions import SessionInfo

router = APIRouter(tags=["chat"], route_class=Guarded)

_PRINTABLE = r"^[^\x00-\x1f\x7f]+$"
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {}}, "description": "Server-sent events"}
}


class ChatRequest(BaseModel):
    """One message to the agent."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    message: Annotated[str, Field(min_length=1, max_length=MAX_MESSAGE_CHARACTERS, pattern=r"\S")]
    """What is said to the agent."""
    session_id: Annotated[str, Field(min_length=1, max_length=128, pattern=_PRINTABLE)] | None = None
    """The conversation it belongs to; a new one where it is not given."""
    user_id: Annotated[str, Field(min_length=1, max_length=128, pattern=_PRINTABLE)] | None = None
    """Whose conversation it is: sessions of one user are never shown to another."""


class Cancelled(BaseModel):
    """What became of a run that was asked to stop."""

    run_id: str
    stop_reason: str | None
    """`cancelled`, or why it had ended before; null while it is still ending."""


@router.post("/chat", response_model=RunResult)
async def chat(body: ChatRequest, request: Request, agent: CurrentAgent, runs: CurrentRuns, caller: Caller) -> Response:
    """Answer one message and wait for the whole of the answer."""
    owner = owner_of(caller, body.user_id)
    run = await runs.start(agent, body.message, session_id=body.session_id, owner=owner)
    return Response(encoded(await result_of(run, request)), media_type="application/json")


@router.post("/chat/stream", response_class=StreamingResponse, responses=_EVENTS)
async def chat_stream(body: ChatRequest, agent: CurrentAgent, runs: CurrentRuns, caller: Caller) -> EventStream:
    """Answer one message as server-sent events.

    `run_started`, then any of `plan`, `thought`, `tool_call`, `tool_result` and `text` (a delta of the answer only),
    then `finished` or `failed`. A stream that breaks is picked up with `GET /runs/{run_id}/events`.
    """
    owner = owner_of(caller, body.user_id)
    run = await runs.start(agent, body.message, session_id=body.session_id, owner=owner)
    return EventStream(run, native_words(agent))


@router.get("/runs/{run_id}/events", response_class=StreamingResponse, responses=_EVENTS)
async def run_events(
    run_id: str,
    agent: CurrentAgent,
    runs: CurrentRuns,
    caller: Caller,
    user_id: str | None = None,
    last_event_id: Annotated[int | None, Header(ge=0)] = None,
    after: Annotated[int, Query(alias="last_event_id", ge=0)] = 0,
) -> EventStream:
    """The events of a run behind the one that was read last, whether it is under way or over.

    `Last-Event-ID` is a header, or the parameter `last_event_id` where a client cannot send headers.
    """
    run = runs.get(run_id, owner=owner_of(caller, user_id))
    return EventStream(run, native_words(agent), after=after if last_event_id is None else last_event_id)


@router.post("/runs/{run_id}/cancel", response_model=Cancelled)
async def cancel_run(run_id: str, runs: CurrentRuns, caller: Caller, user_id: str | None = None) -> Response:
    """Stop a run; it ends with the answer so far, and nothing of it is remembered. Fine when it is over already."""
    run = runs.get(run_id, owner=owner_of(caller, user_id))
    reason = await run.cancelled()
    return JSONResponse({"run_id": run.run_id, "stop_reason": reason}, 200 if reason else 202)


@router.get("/sessions")
async def sessions(
    agent: CurrentAgent,
    caller: Caller,
    user_id: str | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> list[SessionInfo]:
    """The caller's conversations, the latest first; `title` is the beginning of what was said first."""
    return list(await agent.sessions(owner=owner_of(caller, user_id), limit=limit))


@router.get("/sessions/{session_id}")
async def session(
    session_id: str, agent: CurrentAgent, caller: Caller, user_id: str | None = None
) -> list[dict[str, Any]]:
    """What the agent remembers of a conversation, oldest message first."""
    return [asdict(message) for message in await agent.history(session_id, owner=owner_of(caller, user_id))]


@router.delete("/sessions/{session_id}", status_code=204)
async def forget_session(session_id: str, agent: CurrentAgent, caller: Caller, user_id: str | None = None) -> Response:
    """Forget a conversation; also fine where there was none."""
    await agent.forget(session_id, owner=owner_of(caller, user_id))
    return Response(status_code=204)


def native_words(agent: Agent) -> Words:
    """A run's events as this face names them."""

    def words(number: int, event: RunEvent) -> Iterable[bytes]:
        if isinstance(event, Failed):
            failure = shown_problem(event.error, agent.secrets)
            failure["message"] = failure.pop("detail")
            yield sse(encoded(failure), event="failed", number=number)
        else:
            yield sse(encoded(event), event=_event_name(event), number=number)

    return words


def _event_name(event: RunEvent) -> str:
    match event:
        case RunStarted():
            return "run_started"
        case Plan():
            return "plan"
        case Thought():
            return "thought"
        case ToolCalled():
            return "tool_call"
        case ToolResult():
            return "tool_result"
        case ApprovalRequired():
            return "approval_required"
        case Text():
            return "text"
        case Finished():
            return "finished"
        case Failed():
            return "failed"
