"""Calls that wait for a person: which there are, and what the person says."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from agent_runtime.events import Decision, RunResult
from agent_runtime.server.api.chat import native_words
from agent_runtime.server.api.sse import EventStream, encoded
from agent_runtime.server.auth.authenticator import Caller, Guarded
from agent_runtime.server.dependencies import CurrentAgent, CurrentRuns, owner_of, result_of

router = APIRouter(tags=["approvals"], route_class=Guarded)


class WaitingCall(BaseModel):
    """A call that was made and not carried out."""

    id: str
    run_id: str
    session_id: str
    tool: str
    arguments: dict[str, Any]
    created_at: datetime


class DecisionRequest(BaseModel):
    """What a person says to a call."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    decision: Literal["approve", "deny", "edit"]
    """`edit` approves the call with other arguments."""
    reason: str = Field(default="", max_length=2000)
    """Why it was denied; the model reads it."""
    arguments: dict[str, Any] | None = None
    """What the call is made with; for `edit` only."""

    @model_validator(mode="after")
    def _fits(self) -> DecisionRequest:
        if (self.decision == "edit") != (self.arguments is not None):
            raise ValueError("`arguments` go with the decision edit, and with no other")
        return self


@router.get("/approvals")
async def approvals(agent: CurrentAgent, caller: Caller, user_id: str | None = None) -> list[WaitingCall]:
    """The calls of the caller's runs that wait, the oldest first."""
    waiting = await agent.approvals(owner=owner_of(caller, user_id))
    return [
        WaitingCall(
            id=call.id,
            run_id=call.run_id,
            session_id=call.key.session_id,
            tool=call.tool,
            arguments=_shown(call.arguments),
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
    """Decide, and wait for the answer of the run that goes on; its events are at `GET /runs/{run_id}/events` too.

    With `Accept: text/event-stream` the answer is those events, as `POST /chat/stream` sends them.
    Of several who decide at the same time one is answered with the run, the others with 404.
    """
    decision = Decision(
        "deny" if body.decision == "deny" else "approve",
        body.reason,
        None if body.arguments is None else json.dumps(body.arguments, ensure_ascii=False),
    )
    owner = owner_of(caller, user_id)
    run = await runs.begin(agent, agent.resolve(approval_id, decision, owner=owner), owner)
    if "text/event-stream" in request.headers.get("accept", ""):
        return EventStream(run, native_words(agent))
    return Response(encoded(await result_of(run, request)), media_type="application/json")


def _shown(arguments: str) -> dict[str, Any]:
    """The arguments as an object; what the model wrote that is none is shown as it is."""
    try:
        read: Any = json.loads(arguments or "{}")
    except ValueError:
        read = arguments
    return read if isinstance(read, dict) else {"?": read}  # pyright: ignore[reportUnknownVariableType]
