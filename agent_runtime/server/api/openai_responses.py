"""OpenAI's Responses API: the request model, and a run as a response or a stream of its events."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi.sse import format_sse_event
from pydantic import BaseModel, ConfigDict, Field

from agent_runtime.events import Finished, Message, RunStarted, StopReason, Text, Usage
from agent_runtime.server.api.openai_chat import OWN_TOOLS, ChatMessage, UserId, conversation_of
from agent_runtime.server.api.openai_errors import OpenAIRequestError, openai_error, refuse_unsupported
from agent_runtime.server.api.sse import json_str
from agent_runtime.server.problems import masked_problem
from agent_runtime.server.run import Failed, RunEvent

_UNSUPPORTED = {
    "tools": OWN_TOOLS,
    "tool_choice": OWN_TOOLS,
    "background": "a run continues without its client; follow it with stream",
    "conversation": "chain responses with previous_response_id, or name a session in metadata.session_id",
    "prompt": "the agent has its own prompt",
    "top_logprobs": "an answer may take several model calls",
}
_NO_OP_VALUES: dict[str, Sequence[Any]] = {"tool_choice": ("auto", "none")}


class InputItem(BaseModel):
    """One item of the input: a message."""

    model_config = ConfigDict(extra="allow")

    type: str = "message"
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: str | list[dict[str, Any]] | None = None


class ResponsesRequest(BaseModel):
    """A question, or a conversation that ends with one. Sampling parameters are accepted and ignored."""

    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)

    model: str
    """The agent's name, as `/v1/models` lists it."""
    input: str | Annotated[list[InputItem], Field(min_length=1)]
    """The question, or messages: the last one is the question, the others are its history."""
    previous_response_id: str | None = None
    """The response of a stateful agent to continue from; the session continues in its current state."""
    store: bool | None = None
    """False: the turn is not stored and cannot be continued."""
    stream: bool | None = None
    text: dict[str, Any] | None = None
    user: UserId | None = None
    """The user who owns the session: sessions of one user are never shown to another."""
    metadata: dict[str, str] | None = None
    """`session_id` names a conversation of a stateful agent; the map is returned with the response."""

    def refuse_unsupported(self) -> None:
        """Reject parameters that the agent cannot honour.

        Raises:
            OpenAIRequestError: for the first such parameter.
        """
        refuse_unsupported(self.model_extra or {}, _UNSUPPORTED, _NO_OP_VALUES)
        form: Any = (self.text or {}).get("format")
        if form and form != {"type": "text"}:
            reason = "output_schema in the agent file sets the format of answers"
            raise OpenAIRequestError(f"text.format is not supported: {reason}", param="text.format")

    def conversation(self) -> tuple[str, list[Message]]:
        """The question, and the messages before it.

        Raises:
            OpenAIRequestError: for an item that is not a message, or a last message that is not the user's.
        """
        if isinstance(self.input, str):
            return self.input, []
        messages: list[ChatMessage] = []
        for at, item in enumerate(self.input):
            if item.type != "message" or item.role is None:
                raise OpenAIRequestError(
                    f"the input may contain messages only, and this item is {item.type}", param=f"input[{at}]"
                )
            messages.append(ChatMessage(role=item.role, content=item.content))
        return conversation_of(messages, "input")


def response_id(run_id: str, session_id: str) -> str:
    """The id of a response. It contains the session id, so that any replica can continue from it."""
    return f"resp_{run_id}{base64.urlsafe_b64encode(session_id.encode()).decode().rstrip('=')}"


def session_of(response_id: str) -> str:
    """The session that a response belongs to.

    Raises:
        OpenAIRequestError: the id was not issued by this agent.
    """
    _, _, rest = response_id.partition("resp_")
    coded = rest[32:]
    try:
        session_id = base64.urlsafe_b64decode(coded + "=" * (-len(coded) % 4)).decode()
    except (binascii.Error, ValueError):
        session_id = ""
    if not session_id or not session_id.isprintable():
        raise unknown_response(response_id)
    return session_id


def unknown_response(response_id: str) -> OpenAIRequestError:
    """The error for a response that was not stored, or that belongs to another caller."""
    return OpenAIRequestError(
        f"previous response {response_id[:128]!r} is not found: it was not stored, or the agent keeps no sessions",
        param="previous_response_id",
        code="previous_response_not_found",
    )


@dataclass(frozen=True, slots=True)
class ResponseBuilder:
    """Builds the response objects of one run."""

    response_id: str
    run_id: str
    model: str
    created: int
    request: ResponsesRequest

    def body(self, status: str, output: Sequence[dict[str, Any]] = (), **changes: Any) -> dict[str, Any]:
        """The response object."""
        return {
            "id": self.response_id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "max_output_tokens": None,
            "model": self.model,
            "output": list(output),
            "parallel_tool_calls": True,
            "previous_response_id": self.request.previous_response_id,
            "reasoning": {"effort": None, "summary": None},
            "store": self.request.store is not False,
            "temperature": None,
            "text": {"format": {"type": "text"}},
            "tool_choice": "auto",
            "tools": [],
            "top_p": None,
            "truncation": "disabled",
            "usage": None,
            "user": self.request.user,
            "metadata": self.request.metadata or {},
            **changes,
        }

    def ended(self, answer: str, stop_reason: StopReason, usage: Usage) -> dict[str, Any]:
        """The response object of a run that has an answer, complete or cut at a limit."""
        ended = {"finished": "completed", "approval_required": "completed", "cancelled": "cancelled"}
        status = ended.get(stop_reason, "incomplete")
        details = {"incomplete_details": {"reason": "max_output_tokens"}} if status == "incomplete" else {}
        item = self.item("completed" if status == "completed" else "incomplete", answer)
        return self.body(status, [item], usage=_usage(usage), **details)

    def item(self, status: str, text: str | None = None) -> dict[str, Any]:
        """The only item of the output: the agent's message."""
        content = [] if text is None else [_part(text)]
        return {
            "id": f"msg_{self.run_id}",
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": content,
        }


class ResponseEventEncoder:
    """Encodes a run as the typed events of a stream."""

    def __init__(self, builder: ResponseBuilder, secrets: frozenset[str]) -> None:
        self._builder = builder
        self._secrets = secrets
        self._sequence = 0

    def __call__(self, _number: int, event: RunEvent) -> Iterable[bytes]:
        """Encode one event of the run; thoughts, plans and the agent's own tool calls produce nothing."""
        builder, place = (
            self._builder,
            {"item_id": f"msg_{self._builder.run_id}", "output_index": 0, "content_index": 0},
        )
        match event:
            case RunStarted():
                yield self._event("response.created", response=builder.body("in_progress"))
                yield self._event("response.in_progress", response=builder.body("in_progress"))
                yield self._event("response.output_item.added", output_index=0, item=builder.item("in_progress"))
                yield self._event("response.content_part.added", **place, part=_part(""))
            case Text(delta):
                yield self._event("response.output_text.delta", **place, delta=delta, logprobs=[])
            case Finished(answer, stop_reason, _, usage):
                body = builder.ended(answer, stop_reason, usage)
                yield self._event("response.output_text.done", **place, text=answer, logprobs=[])
                yield self._event("response.content_part.done", **place, part=_part(answer))
                yield self._event("response.output_item.done", output_index=0, item=body["output"][0])
                # The API has no event for a cancelled response; it is reported as incomplete.
                name = "completed" if body["status"] == "completed" else "incomplete"
                yield self._event(f"response.{name}", response=body)
            case Failed(error):
                problem = masked_problem(error, self._secrets)
                status, _ = openai_error(problem["status"], problem["code"], problem["detail"])
                code = "rate_limit_exceeded" if status == 429 else "server_error"
                failure = {"code": code, "message": problem["detail"]}
                yield self._event("response.failed", response=builder.body("failed", error=failure))
            case _:
                pass

    def _event(self, name: str, **data: Any) -> bytes:
        data_str = json_str({"type": name, "sequence_number": self._sequence, **data})
        self._sequence += 1
        return format_sse_event(data_str=data_str, event=name)


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.total_tokens,
    }
