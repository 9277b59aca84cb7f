"""OpenAI's face: what speaks to OpenAI speaks to the agent, which is listed as a model of its own name.

The agent owns its system prompt and its tools. Its tool calls happen here and are not sent: a client could only try to
answer them. Thoughts and plans are not sent either. A field that asks for what the agent cannot do is refused with
400; sampling parameters and the like are accepted and left out of account, for they are the agent file's.

Memory: a request that brings its own earlier messages is answered from those and nothing is remembered. A stateful
agent's session is named with `metadata.session_id`, or, in the Responses API, followed with `previous_response_id`;
its memory then stands for the earlier messages. `user` is the user whose session it is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from agent_runtime.agent import Agent
from agent_runtime.events import Message
from agent_runtime.server.api.openai_chat import ChatChunks, ChatCompletionsRequest, completion, conversation_of
from agent_runtime.server.api.openai_errors import Unsupported
from agent_runtime.server.api.openai_responses import (
    ResponseEvents,
    ResponseShape,
    ResponsesRequest,
    response_id,
    session_of,
    unknown_response,
)
from agent_runtime.server.api.sse import EventStream, Words, encoded
from agent_runtime.server.auth.authenticator import Caller, Guarded
from agent_runtime.server.dependencies import CurrentAgent, CurrentRuns, owner_of, result_of
from agent_runtime.server.runs import Failed, Run

router = APIRouter(prefix="/v1", tags=["openai"], route_class=Guarded)

FIRST_EVENT_SECONDS = 5.0


@router.get("/models")
async def models(agent: CurrentAgent) -> dict[str, Any]:
    """The agent, as the one model there is."""
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
    remembered = agent.remembers and session_id is not None
    run = await runs.start(
        agent,
        question,
        session_id=session_id,
        owner=owner_of(caller, body.user),
        history=None if remembered else history,
    )
    created = int(time.time())
    if not body.stream:
        return _json(completion(await result_of(run, request), model=body.model, created=created), run)
    include_usage = body.stream_options is not None and body.stream_options.include_usage
    chunks = ChatChunks(
        run.run_id, model=body.model, created=created, include_usage=include_usage, secrets=agent.secrets
    )
    return await _stream(run, chunks)


@router.post("/responses")
async def responses(
    body: ResponsesRequest, request: Request, agent: CurrentAgent, runs: CurrentRuns, caller: Caller
) -> Response:
    """Answer the last message of the input, as a response or as a stream of its events.

    The answers of a stateful agent are stored, unless `store` is false or the request brings its own history, and can
    be followed with `previous_response_id`.
    """
    _check_model(body.model, agent)
    body.refuse_unsupported()
    question, given = body.conversation()
    owner = owner_of(caller, body.user)
    session_id, history = await _memory(body, given, agent, owner)
    run = await runs.start(agent, question, session_id=session_id, owner=owner, history=history)
    shape = ResponseShape(response_id(run.run_id, run.session_id), run.run_id, body.model, int(time.time()), body)
    if not body.stream:
        result = await result_of(run, request)
        return _json(shape.ended(result.answer, result.stop_reason, result.usage), run)
    return await _stream(run, ResponseEvents(shape, agent.secrets))


async def _memory(
    body: ResponsesRequest, given: list[Message], agent: Agent, owner: str
) -> tuple[str | None, Sequence[Message] | None]:
    """The session that is gone on with, and the history that stands for it where it must not be written."""
    session_id = (body.metadata or {}).get("session_id")
    if previous := body.previous_response_id:
        if given:
            message = "with previous_response_id, input is the new question only: what was said before is remembered"
            raise Unsupported(message, param="input")
        session_id = session_of(previous)
        if not (known := await agent.history(session_id, owner=owner)):
            raise unknown_response(previous)
        return session_id, (known if body.store is False else None)
    if body.store is False and session_id and agent.remembers:
        return session_id, await agent.history(session_id, owner=owner)
    if not agent.remembers or body.store is False or (given and not session_id):
        return session_id, given
    return session_id, None


async def _stream(run: Run, words: Words) -> Response:
    """The stream of a run. One that fails at once is an error with its own status, which clients act upon."""
    try:
        async with asyncio.timeout(FIRST_EVENT_SECONDS):
            for event in await run.next_events(1):
                if isinstance(event, Failed):
                    raise event.error
    except TimeoutError:
        pass  # the model takes its time: the stream begins, and is kept awake
    stream = EventStream(run, words)
    stream.headers["x-run-id"] = run.run_id
    return stream


def _json(body: dict[str, Any], run: Run) -> Response:
    return Response(encoded(body), media_type="application/json", headers={"x-run-id": run.run_id})


def _model(agent: Agent) -> dict[str, Any]:
    owner = agent.config.discovery.owner or "myagent"
    return {"id": agent.config.name, "object": "model", "created": int(time.time()), "owned_by": owner}


def _check_model(given: str, agent: Agent) -> None:
    name = agent.config.name
    if given != name:
        message = f"the model {given[:128]!r} does not exist; this agent answers as {name!r}"
        raise Unsupported(message, param="model", code="model_not_found", status=404)
