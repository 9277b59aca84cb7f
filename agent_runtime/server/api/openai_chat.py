"""OpenAI's chat completions: the request model, and a run as a completion or a stream of its chunks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

from fastapi.sse import format_sse_event
from pydantic import BaseModel, ConfigDict, Field

from agent_runtime.events import Finished, Message, RunResult, RunStarted, StopReason, Text, Usage
from agent_runtime.server.api.openai_errors import OpenAIRequestError, openai_error, refuse_unsupported
from agent_runtime.server.api.sse import json_str
from agent_runtime.server.problems import masked_problem
from agent_runtime.server.run import Failed, RunEvent

UserId = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]
TEXT_PARTS = {"text", "input_text", "output_text"}
OWN_TOOLS = "the agent has its own tools and runs them itself"
_UNSUPPORTED = {
    "tools": OWN_TOOLS,
    "functions": OWN_TOOLS,
    "tool_choice": OWN_TOOLS,
    "function_call": OWN_TOOLS,
    "web_search_options": OWN_TOOLS,
    "response_format": "output_schema in the agent file sets the format of answers",
    "modalities": "the agent answers in text only",
    "audio": "the agent answers in text only",
    "logprobs": "an answer may take several model calls",
    "top_logprobs": "an answer may take several model calls",
    "logit_bias": "the agent file sets the model's parameters",
    "stop": "the agent decides where an answer ends",
}
_NO_OP_VALUES: dict[str, Sequence[Any]] = {
    "tool_choice": ("auto", "none"),
    "function_call": ("auto", "none"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
}


class StreamOptions(BaseModel):
    """Options of a stream."""

    include_usage: bool = False


class ChatMessage(BaseModel):
    """One message of the request."""

    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Any]] | None = None


class ChatCompletionsRequest(BaseModel):
    """A conversation whose last message is the question. Sampling parameters are accepted and ignored."""

    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)

    model: str
    """The agent's name, as `/v1/models` lists it."""
    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    """The last one is the user's question, the others are its history; system messages are ignored."""
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    user: UserId | None = None
    """The user who owns the session: sessions of one user are never shown to another."""
    metadata: dict[str, str] | None = None
    """`session_id` names a conversation of a stateful agent; its stored history then replaces the earlier messages."""

    def refuse_unsupported(self) -> None:
        """Reject parameters that the agent cannot honour.

        Raises:
            OpenAIRequestError: for the first such parameter.
        """
        if self.n not in (None, 1):
            raise OpenAIRequestError("n is not supported: the agent returns one answer", param="n")
        refuse_unsupported(self.model_extra or {}, _UNSUPPORTED, _NO_OP_VALUES)


def conversation_of(messages: Sequence[ChatMessage], param: str) -> tuple[str, list[Message]]:
    """The question, and the messages before it. System messages are ignored: the agent has its own system prompt.

    Raises:
        OpenAIRequestError: for a part that is not text, a tool message, or a last message that is not the user's.
    """
    conversation: list[Message] = []
    for at, message in enumerate(messages):
        place = f"{param}[{at}]"
        if message.role in {"tool", "function"} or (message.model_extra or {}).get("tool_calls"):
            raise OpenAIRequestError(f"{place} belongs to a tool of the client: {OWN_TOOLS}", param=place)
        text = _text_of(message.content, f"{place}.content")
        if message.role in {"user", "assistant"}:
            conversation.append(Message("user" if message.role == "user" else "assistant", text))
    if not conversation or conversation[-1].role != "user":
        raise OpenAIRequestError("the last message must be the user's question", param=param, code="invalid_value")
    question = conversation.pop()
    return question.content, conversation


def _text_of(content: str | Sequence[dict[str, Any]] | None, place: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    texts: list[str] = []
    for at, part in enumerate(content):
        kind = part.get("type")
        text = part.get("refusal" if kind == "refusal" else "text")
        if kind not in TEXT_PARTS | {"refusal"} or not isinstance(text, str):
            shown = kind if isinstance(kind, str) else "of another type"
            raise OpenAIRequestError(f"the agent accepts text only, and this part is {shown}", param=f"{place}[{at}]")
        texts.append(text)
    return "\n".join(texts)


def finish_reason(stop_reason: StopReason) -> Literal["stop", "length"]:
    """The stop reason in OpenAI's terms: `length` for every limit of the agent."""
    return "stop" if stop_reason in {"finished", "cancelled", "approval_required"} else "length"


def usage_of(usage: Usage) -> dict[str, Any]:
    """Tokens of all model calls of the run."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
    }


def completion(result: RunResult, *, model: str, created: int) -> dict[str, Any]:
    """The complete answer, without the agent's own tool calls: no client could answer them."""
    message: dict[str, Any] = {"role": "assistant", "content": result.answer, "refusal": None, "annotations": []}
    choice: dict[str, Any] = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": finish_reason(result.stop_reason),
    }
    return {
        "id": f"chatcmpl-{result.run_id}",
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [choice],
        "usage": usage_of(result.usage),
        "system_fingerprint": None,
    }


class ChunkEncoder:
    """Encodes a run as the chunks of a stream."""

    def __init__(self, run_id: str, *, model: str, created: int, include_usage: bool, secrets: frozenset[str]) -> None:
        self._head: dict[str, Any] = {
            "id": f"chatcmpl-{run_id}",
            "object": "chat.completion.chunk",
            "created": created,
            "model": model,
            "system_fingerprint": None,
        }
        self._include_usage = include_usage
        self._secrets = secrets

    def __call__(self, _number: int, event: RunEvent) -> Iterable[bytes]:
        """Encode one event of the run; thoughts, plans and the agent's own tool calls produce nothing."""
        match event:
            case RunStarted():
                yield self._delta({"role": "assistant", "content": "", "refusal": None})
            case Text(delta):
                yield self._delta({"content": delta})
            case Finished(_, stop_reason, _, usage):
                yield self._delta({}, finish_reason(stop_reason))
                if self._include_usage:
                    yield _event({**self._head, "choices": [], "usage": usage_of(usage)})
                yield format_sse_event(data_str="[DONE]")
            case Failed(error):
                problem = masked_problem(error, self._secrets)
                yield _event(openai_error(problem["status"], problem["code"], problem["detail"])[1])
            case _:
                pass

    def _delta(self, delta: dict[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        usage = {"usage": None} if self._include_usage else {}
        return _event({**self._head, "choices": [choice], **usage})


def _event(body: dict[str, Any]) -> bytes:
    return format_sse_event(data_str=json_str(body))
