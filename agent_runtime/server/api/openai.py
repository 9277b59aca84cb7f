"""OpenAI-compatible endpoints: any OpenAI client can call the agent, which is listed as a model with its own name.

The agent owns its system prompt and its tools. Its tool calls run here and are not sent to the client, nor are thoughts
and plans. A parameter that the agent cannot honour is rejected with 400; sampling parameters are accepted and ignored,
because the agent file sets them.

Sessions: a request that contains earlier messages is answered from those, and nothing is stored. A stateful agent's
session is named by `metadata.session_id`, or continued with `previous_response_id` in the Responses API; its stored
history then replaces the earlier messages. `user` is the owner of the session.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from agent_runtime.agent import Agent
from agent_runtime.events import Message
from agent_runtime.server.api.openai_chat import ChatCompletionsRequest, ChunkEncoder, completion, conversation_of
from agent_runtime.server.api.openai_errors import OpenAIRequestError
from agent_runtime.server.api.openai_responses import (
    ResponseBuilder,
    ResponseEventEncoder,
    ResponsesRequest,
    response_id,
    session_of,
    unknown_response,
)
from agent_runtime.server.api.sse import EventEncoder, RunEventStream, json_bytes
from agent_runtime.server.auth.authenticator import AuthenticatedRoute, Caller
from agent_runtime.server.dependencies import CurrentAgent, CurrentRuns, session_owner, wait_for_result
from agent_runtime.server.run import Failed, Run

router = APIRouter(prefix="/v1", tags=["openai"], route_class=AuthenticatedRoute)

FIRST_EVENT_SECONDS = 5.0


@router.get("/models")
async def models(agent: CurrentAgent) -> dict[str, Any]:
    """The agent, as the only model."""
    return {"object": "list", "data": [_model(agent)]}


@router.get("/models/{model}")
async def model(model: str, agent: CurrentAgent) -> dict[str, Any]:
    """The agent, as a model."""
    _check_model(model, agent)
    return _model(agent)


@router.post("/chat/completions")
async def chat_completions(
    body: ChatCompletionsRequest, request: Request, agent: CurrentAgent, runs: CurrentRuns, caller: Caller
) -> Response:
    """Answer the last message, as a chat completion or as a stream of its chunks."""
    _check_model(body.model, agent)
    body.refuse_unsupported()
    question, history = conversation_of(body.messages, "messages")
    session_id = (body.metadata or {}).get("session_id")
    uses_session = agent.remembers and session_id is not None
    run = await runs.start(
        agent,
        question,
        session_id=session_id,
        owner=session_owner(caller, body.user),
        history=None if uses_session else history,
    )
    created = int(time.time())
    if not body.stream:
        return _json(completion(await wait_for_result(run, request), model=body.model, created=created), run)
    include_usage = body.stream_options is not None and body.stream_options.include_usage
    chunks = ChunkEncoder(
        run.run_id, model=body.model, created=created, include_usage=include_usage, secrets=agent.secrets
    )
    return await _stream(run, chunks)


@router.post("/responses")
async def responses(
    body: ResponsesRequest, request: Request, agent: CurrentAgent, runs: CurrentRuns, caller: Caller
) -> Response:
    """Answer the last message of the input, as a response or as a stream of its events.

    Responses of a stateful agent are stored unless `store` is false or the request contains its own history. They can
    be continued with `previous_response_id`.
    """
    _check_model(body.model, agent)
    body.refuse_unsupported()
    question, given = body.conversation()
    owner = session_owner(caller, body.user)
    session_id, history = await _session_and_history(body, given, agent, owner)
    run = await runs.start(agent, question, session_id=session_id, owner=owner, history=history)
    builder = ResponseBuilder(response_id(run.run_id, run.session_id), run.run_id, body.model, int(time.time()), body)
    if not body.stream:
        result = await wait_for_result(run, request)
        return _json(builder.ended(result.answer, result.stop_reason, result.usage), run)
    return await _stream(run, ResponseEventEncoder(builder, agent.secrets))


async def _session_and_history(
    body: ResponsesRequest, given: list[Message], agent: Agent, owner: str
) -> tuple[str | None, Sequence[Message] | None]:
    """The session to continue, and the history that replaces it if the turn must not be stored."""
    session_id = (body.metadata or {}).get("session_id")
    if previous := body.previous_response_id:
        if given:
            message = "with previous_response_id, input must be the new question only: the earlier messages are stored"
            raise OpenAIRequestError(message, param="input")
        session_id = session_of(previous)
        if not (known := await agent.history(session_id, owner=owner)):
            raise unknown_response(previous)
        return session_id, (known if body.store is False else None)
    if body.store is False and session_id and agent.remembers:
        return session_id, await agent.history(session_id, owner=owner)
    if not agent.remembers or body.store is False or (given and not session_id):
        return session_id, given
    return session_id, None


async def _stream(run: Run, encode: EventEncoder) -> Response:
    """The stream of a run. A run that fails at once is an error with its own status, so that clients can retry."""
    try:
        async with asyncio.timeout(FIRST_EVENT_SECONDS):
            for event in await run.next_events(1):
                if isinstance(event, Failed):
                    raise event.error
    except TimeoutError:
        pass  # the model is slow: start the stream and keep it open
    stream = RunEventStream(run, encode)
    stream.headers["x-run-id"] = run.run_id
    return stream


def _json(body: dict[str, Any], run: Run) -> Response:
    return Response(json_bytes(body), media_type="application/json", headers={"x-run-id": run.run_id})


def _model(agent: Agent) -> dict[str, Any]:
    owner = agent.config.discovery.owner or "myagent"
    return {"id": agent.config.name, "object": "model", "created": int(time.time()), "owned_by": owner}


def _check_model(given: str, agent: Agent) -> None:
    name = agent.config.name
    if given != name:
        message = f"the model {given[:128]!r} does not exist; this agent answers as {name!r}"
        raise OpenAIRequestError(message, param="model", code="model_not_found", status=404)
