"""Tool calls that wait for approval, and decisions on them."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from agent_runtime.events import Decision, RunResult
from agent_runtime.server.api.chat import chat_events
from agent_runtime.server.api.sse import RunEventStream, json_bytes
from agent_runtime.server.auth.authenticator import AuthenticatedRoute, Caller
from agent_runtime.server.dependencies import CurrentAgent, CurrentRuns, session_owner, wait_for_result

router = APIRouter(tags=["approvals"], route_class=AuthenticatedRoute)


class WaitingCall(BaseModel):
    """A call that was requested and has not been executed."""

    id: str
    run_id: str
    session_id: str
    tool: str
    arguments: dict[str, Any]
    created_at: datetime


class DecisionRequest(BaseModel):
    """A decision on a call."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    decision: Literal["approve", "deny", "edit"]
    """`edit` approves the call with different arguments."""
    reason: str = Field(default="", max_length=2000)
    """The reason for a denial; it is shown to the model."""
    arguments: dict[str, Any] | None = None
    """The new arguments; for `edit` only."""

    @model_validator(mode="after")
    def _fits(self) -> DecisionRequest:
        if (self.decision == "edit") != (self.arguments is not None):
            raise ValueError("`arguments` are required for the decision edit and not allowed for others")
        return self


@router.get("/approvals")
async def approvals(agent: CurrentAgent, caller: Caller, user_id: str | None = None) -> list[WaitingCall]:
    """The waiting calls of the caller's runs, oldest first."""
    waiting = await agent.approvals(owner=session_owner(caller, user_id))
    return [
        WaitingCall(
            id=call.id,
            run_id=call.run_id,
            session_id=call.key.session_id,
            tool=call.tool,
            arguments=_arguments(call.arguments),
            created_at=call.created_at,
        )
        for call in waiting
    ]


@router.post("/approvals/{approval_id}", response_model=RunResult)
async def resolve(
    approval_id: str,
    body: DecisionRequest,
    request: Request,
    agent: CurrentAgent,
    runs: CurrentRuns,
    caller: Caller,
    user_id: str | None = None,
) -> Response:
    """Decide, and wait for the answer of the run that continues; its events are at `GET /runs/{run_id}/events` too.

    With `Accept: text/event-stream` the response is those events, as `POST /chat/stream` sends them.
    If several decide at the same time, one receives the run and the others 404.
    """
    decision = Decision(
        "deny" if body.decision == "deny" else "approve",
        body.reason,
        None if body.arguments is None else json.dumps(body.arguments, ensure_ascii=False),
    )
    owner = session_owner(caller, user_id)
    run = await runs.record(agent, lambda emit: agent.decide(approval_id, decision, emit, owner=owner), owner)
    if "text/event-stream" in request.headers.get("accept", ""):
        return RunEventStream(run, chat_events(agent))
    return Response(json_bytes(await wait_for_result(run, request)), media_type="application/json")


def _arguments(arguments: str) -> dict[str, Any]:
    """The arguments as an object; anything else that the model wrote is under the key `?`."""
    try:
        read: Any = json.loads(arguments or "{}")
    except ValueError:
        read = arguments
    return read if isinstance(read, dict) else {"?": read}  # pyright: ignore[reportUnknownVariableType]
