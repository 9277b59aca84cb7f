"""The native protocol: a message in, an answer or a stream of events out, streams that can be resumed, sessions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.sse import format_sse_event
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
from agent_runtime.server.api.sse import EventEncoder, RunEventStream, json_bytes, json_str
from agent_runtime.server.auth.authenticator import AuthenticatedRoute, Caller
from agent_runtime.server.dependencies import CurrentAgent, CurrentRuns, session_owner, wait_for_result
from agent_runtime.server.problems import masked_problem
from agent_runtime.server.run import Failed, RunEvent
from agent_runtime.sessions import SessionInfo

router = APIRouter(tags=["chat"], route_class=AuthenticatedRoute)

_PRINTABLE = r"^[^\x00-\x1f\x7f]+$"
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {}}, "description": "Server-sent events"}
}


class ChatRequest(BaseModel):
    """One message to the agent."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    message: Annotated[str, Field(min_length=1, max_length=MAX_MESSAGE_CHARACTERS, pattern=r"\S")]
    """The message to the agent."""
    session_id: Annotated[str, Field(min_length=1, max_length=128, pattern=_PRINTABLE)] | None = None
    """The conversation it belongs to; by default a new one."""
    user_id: Annotated[str, Field(min_length=1, max_length=128, pattern=_PRINTABLE)] | None = None
    """The user who owns the session: sessions of one user are never shown to another."""


class Cancelled(BaseModel):
    """The outcome of a cancellation."""

    run_id: str
    stop_reason: str | None
    """`cancelled`, or the reason if the run had ended before; null while it is still ending."""


@router.post("/chat", response_model=RunResult)
async def chat(body: ChatRequest, request: Request, agent: CurrentAgent, runs: CurrentRuns, caller: Caller) -> Response:
    """Answer one message, in one response."""
    owner = session_owner(caller, body.user_id)
    run = await runs.start(agent, body.message, session_id=body.session_id, owner=owner)
    return Response(json_bytes(await wait_for_result(run, request)), media_type="application/json")


@router.post("/chat/stream", response_class=StreamingResponse, responses=_EVENTS)
async def chat_stream(body: ChatRequest, agent: CurrentAgent, runs: CurrentRuns, caller: Caller) -> RunEventStream:
    """Answer one message as server-sent events.

    `run_started`, then any of `plan`, `thought`, `tool_call`, `tool_result` and `text` (a delta of the answer only),
    then `finished` or `failed`. `GET /runs/{run_id}/events` resumes a broken stream.
    """
    owner = session_owner(caller, body.user_id)
    run = await runs.start(agent, body.message, session_id=body.session_id, owner=owner)
    return RunEventStream(run, chat_events(agent))


@router.get("/runs/{run_id}/events", response_class=StreamingResponse, responses=_EVENTS)
async def run_events(
    run_id: str,
    agent: CurrentAgent,
    runs: CurrentRuns,
    caller: Caller,
    user_id: str | None = None,
    last_event_id: Annotated[int | None, Header(ge=0)] = None,
    after: Annotated[int, Query(alias="last_event_id", ge=0)] = 0,
) -> RunEventStream:
    """The events of a run after the last one that was read, whether it is in progress or has ended.

    `Last-Event-ID` is a header, or the parameter `last_event_id` for clients that cannot send headers.
    """
    run = runs.get(run_id, owner=session_owner(caller, user_id))
    return RunEventStream(run, chat_events(agent), after=after if last_event_id is None else last_event_id)


@router.post("/runs/{run_id}/cancel", response_model=Cancelled)
async def cancel_run(run_id: str, runs: CurrentRuns, caller: Caller, user_id: str | None = None) -> Response:
    """Cancel a run; it ends with the answer so far and is not saved. Safe if the run has ended."""
    run = runs.get(run_id, owner=session_owner(caller, user_id))
    reason = await run.cancel_and_wait()
    return JSONResponse({"run_id": run.run_id, "stop_reason": reason}, 200 if reason else 202)


@router.get("/sessions")
async def sessions(
    agent: CurrentAgent,
    caller: Caller,
    user_id: str | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> list[SessionInfo]:
    """The caller's conversations, latest first; `title` is the beginning of the first message."""
    return list(await agent.sessions(owner=session_owner(caller, user_id), limit=limit))


@router.get("/sessions/{session_id}")
async def session(
    session_id: str, agent: CurrentAgent, caller: Caller, user_id: str | None = None
) -> list[dict[str, Any]]:
    """The stored messages of a conversation, oldest first."""
    return [asdict(message) for message in await agent.history(session_id, owner=session_owner(caller, user_id))]


@router.delete("/sessions/{session_id}", status_code=204)
async def forget_session(session_id: str, agent: CurrentAgent, caller: Caller, user_id: str | None = None) -> Response:
    """Delete a conversation; succeeds also if there is none."""
    await agent.forget(session_id, owner=session_owner(caller, user_id))
    return Response(status_code=204)


def chat_events(agent: Agent) -> EventEncoder:
    """Encodes the events of a run with the names of this protocol."""

    def encode(number: int, event: RunEvent) -> Iterable[bytes]:
        if isinstance(event, Failed):
            failure = masked_problem(event.error, agent.secrets)
            failure["message"] = failure.pop("detail")
            yield format_sse_event(data_str=json_str(failure), event="failed", id=str(number))
        else:
            yield format_sse_event(data_str=json_str(event), event=_event_name(event), id=str(number))

    return encode


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
