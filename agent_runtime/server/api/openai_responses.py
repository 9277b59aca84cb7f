"""The Responses API in OpenAI's words: what a request asks of the agent, and a run as the answer to it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from agent_runtime.events import Finished, Message, RunStarted, StopReason, Text, Usage
from agent_runtime.server.api.openai_chat import OWN_TOOLS, ChatMessage, UserId, conversation_of
from agent_runtime.server.api.openai_errors import Unsupported, openai_error, refuse_unsupported
from agent_runtime.server.api.sse import encoded, sse
from agent_runtime.server.dependencies import shown_problem
from agent_runtime.server.runs import Failed, RunEvent

_REFUSED = {
    "tools": OWN_TOOLS,
    "tool_choice": OWN_TOOLS,
    "background": "a run goes on without its reader; follow it with stream",
    "conversation": "chain answers with previous_response_id, or name a session in metadata.session_id",
    "prompt": "the prompt is the agent's own",
    "top_logprobs": "an answer may take several replies of the model",
}
_HARMLESS: dict[str, Sequence[Any]] = {"tool_choice": ("auto", "none")}


class InputItem(BaseModel):
    """One item of the input: a message."""

    model_config = ConfigDict(extra="allow")

    type: str = "message"
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: str | list[dict[str, Any]] | None = None


class ResponsesRequest(BaseModel):
    """A question, or a conversation that ends with one. Fields that change nothing here are accepted."""

    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)

    model: str
    """The agent's name, as `/v1/models` lists it."""
    input: str | Annotated[list[InputItem], Field(min_length=1)]
    """The question, or messages of which the last is the question and the ones before are its history."""
    previous_response_id: str | None = None
    """The answer of a stateful agent that this question follows; it goes on with that session as it now stands."""
    store: bool | None = None
    """False: nothing of this turn is remembered, and no later one can follow it."""
    stream: bool | None = None
    text: dict[str, Any] | None = None
    user: UserId | None = None
    """Whose conversation it is: sessions of one user are never shown to another."""
    metadata: dict[str, str] | None = None
    """`session_id` names a conversation of a stateful agent; all of it comes back with the answer."""

    def refuse_unsupported(self) -> None:
        """Refuse what the agent cannot serve as it is meant.

        Raises:
            Unsupported: naming the first field of that kind.
        """
        refuse_unsupported(self.model_extra or {}, _REFUSED, _HARMLESS)
        form: Any = (self.text or {}).get("format")
        if form and form != {"type": "text"}:
            reason = "the form of an answer is the agent's, from output_schema in its file"
            raise Unsupported(f"text.format is not supported: {reason}", param="text.format")

    def conversation(self) -> tuple[str, list[Message]]:
        """The question, and what was said before it.

        Raises:
            Unsupported: an item that is no message, or a last one that is not the user's.
        """
        if isinstance(self.input, str):
            return self.input, []
        messages: list[ChatMessage] = []
        for at, item in enumerate(self.input):
            if item.type != "message" or item.role is None:
                raise Unsupported(f"the agent reads messages, and this item is {item.type}", param=f"input[{at}]")
            messages.append(ChatMessage(role=item.role, content=item.content))
        return conversation_of(messages, "input")


def response_id(run_id: str, session_id: str) -> str:
    """The id of an answer: it holds the session, so that a later question can follow it on any replica."""
    return f"resp_{run_id}{base64.urlsafe_b64encode(session_id.encode()).decode().rstrip('=')}"


def session_of(given: str) -> str:
    """The session that an answer belongs to.

    Raises:
        Unsupported: it is no id of this agent's.
    """
    _, _, rest = given.partition("resp_")
    coded = rest[32:]
    try:
        session_id = base64.urlsafe_b64decode(coded + "=" * (-len(coded) % 4)).decode()
    except (binascii.Error, ValueError):
        session_id = ""
    if not session_id or not session_id.isprintable():
        raise unknown_response(given)
    return session_id


def unknown_response(given: str) -> Unsupported:
    """No answer of this id is remembered, or it is somebody else's."""
    return Unsupported(
        f"previous response {given[:128]!r} is not found: it was not stored, or the agent keeps no sessions",
        param="previous_response_id",
        code="previous_response_not_found",
    )


@dataclass(frozen=True, slots=True)
class ResponseShape:
    """What all bodies of one answer have in common."""

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
        """The response object of a run that gave an answer, whole or cut short at a limit."""
        ended = {"finished": "completed", "approval_required": "completed", "cancelled": "cancelled"}
        status = ended.get(stop_reason, "incomplete")
        details = {"incomplete_details": {"reason": "max_output_tokens"}} if status == "incomplete" else {}
        item = self.item("completed" if status == "completed" else "incomplete", answer)
        return self.body(status, [item], usage=_usage(usage), **details)

    def item(self, status: str, text: str | None = None) -> dict[str, Any]:
        """The one item of the output: the agent's message."""
        content = [] if text is None else [_part(text)]
        return {
            "id": f"msg_{self.run_id}",
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": content,
        }


class ResponseEvents:
    """A run as the typed events of one stream."""

    def __init__(self, shape: ResponseShape, secrets: frozenset[str]) -> None:
        self._shape = shape
        self._secrets = secrets
        self._sequence = 0

    def __call__(self, _number: int, event: RunEvent) -> Iterable[bytes]:
        """The events for one of the run's; thoughts, plans and the agent's own tool calls have none."""
        shape, place = self._shape, {"item_id": f"msg_{self._shape.run_id}", "output_index": 0, "content_index": 0}
        match event:
            case RunStarted():
                yield self._event("response.created", response=shape.body("in_progress"))
                yield self._event("response.in_progress", response=shape.body("in_progress"))
                yield self._event("response.output_item.added", output_index=0, item=shape.item("in_progress"))
                yield self._event("response.content_part.added", **place, part=_part(""))
            case Text(delta):
                yield self._event("response.output_text.delta", **place, delta=delta, logprobs=[])
            case Finished(answer, stop_reason, _, usage):
                body = shape.ended(answer, stop_reason, usage)
                yield self._event("response.output_text.done", **place, text=answer, logprobs=[])
                yield self._event("response.content_part.done", **place, part=_part(answer))
                yield self._event("response.output_item.done", output_index=0, item=body["output"][0])
                # There is no event for a cancelled answer: it is one that is not complete.
                name = "completed" if body["status"] == "completed" else "incomplete"
                yield self._event(f"response.{name}", response=body)
            case Failed(error):
                problem = shown_problem(error, self._secrets)
                status, _ = openai_error(problem["status"], problem["code"], problem["detail"])
                code = "rate_limit_exceeded" if status == 429 else "server_error"
                failure = {"code": code, "message": problem["detail"]}
                yield self._event("response.failed", response=shape.body("failed", error=failure))
            case _:
                pass

    def _event(self, name: str, **data: Any) -> bytes:
        block = sse(encoded({"type": name, "sequence_number": self._sequence, **data}), event=name)
        self._sequence += 1
        return block


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
