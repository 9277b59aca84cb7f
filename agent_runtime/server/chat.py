"""The native face: one message in, an answer or a stream of events out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, ConfigDict, Field

from agent_runtime.agent import MAX_MESSAGE_CHARACTERS, RunResult
from agent_runtime.errors import MyAgentError
from agent_runtime.messages import (
    Event,
    Finished,
    Plan,
    RunStarted,
    Text,
    Thought,
    ToolCalled,
    ToolResult,
)
from agent_runtime.placeholders import masked
from agent_runtime.server.deps import Caller, CurrentAgent, problem_of

router = APIRouter(tags=["chat"])

_PRINTABLE = r"^[^\x00-\x1f\x7f]+$"


class ChatRequest(BaseModel):
    """One message to the agent."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    message: Annotated[str, Field(min_length=1, max_length=MAX_MESSAGE_CHARACTERS, pattern=r"\S")]
    """What is said to the agent."""
    session_id: Annotated[str, Field(min_length=1, max_length=128, pattern=_PRINTABLE)] | None = None
    """The conversation it belongs to; a new one where it is not given."""
    user_id: Annotated[str, Field(min_length=1, max_length=128, pattern=_PRINTABLE)] | None = None
    """Whose conversation it is: sessions of one user are never shown to another."""


@router.post("/chat")
async def chat(body: ChatRequest, agent: CurrentAgent, caller: Caller) -> RunResult:
    """Answer one message and wait for the whole of the answer."""
    return await agent.run(body.message, session_id=body.session_id, owner=_owner(caller, body.user_id))


@router.post("/chat/stream", response_class=EventSourceResponse)
async def chat_stream(body: ChatRequest, agent: CurrentAgent, caller: Caller) -> AsyncIterator[ServerSentEvent]:
    """Answer one message as server-sent events.

    `run_started`, then any of `thought`, `tool_call`, `tool_result` and `text` (a delta of the answer only), then
    `finished` or `failed`.
    """
    events = agent.stream(body.message, session_id=body.session_id, owner=_owner(caller, body.user_id))
    async with aclosing(_named(events)) as named:
        number = 0
        try:
            async for name, data in named:
                number += 1
                yield ServerSentEvent(event=name, id=str(number), data=data)
        except MyAgentError as error:
            failure = problem_of(error)
            failure["message"] = masked(failure.pop("detail"), agent.secrets)
            yield ServerSentEvent(event="failed", id=str(number + 1), data=failure)


@router.get("/sessions/{session_id}")
async def session(
    session_id: str, agent: CurrentAgent, caller: Caller, user_id: str | None = None
) -> list[dict[str, Any]]:
    """What the agent remembers of a conversation, oldest message first."""
    return [asdict(message) for message in await agent.history(session_id, owner=_owner(caller, user_id))]


@router.delete("/sessions/{session_id}", status_code=204)
async def forget_session(session_id: str, agent: CurrentAgent, caller: Caller, user_id: str | None = None) -> Response:
    """Forget a conversation; also fine where there was none."""
    await agent.forget(session_id, owner=_owner(caller, user_id))
    return Response(status_code=204)


async def _named(events: AsyncGenerator[Event, None]) -> AsyncGenerator[tuple[str, dict[str, Any]], None]:
    async with aclosing(events):
        async for event in events:
            yield _event_name(event), asdict(event)


def _event_name(event: Event) -> str:
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
        case Text():
            return "text"
        case Finished():
            return "finished"


def _owner(caller: str, user_id: str | None) -> str:
    return f"{caller}/{user_id or ''}"
