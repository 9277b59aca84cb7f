"""Chat completions in OpenAI's words: what a request asks of the agent, and a run as the answer to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from agent_runtime.events import Finished, Message, RunResult, RunStarted, StopReason, Text, Usage
from agent_runtime.server.api.openai_errors import Unsupported, openai_error, refuse_unsupported
from agent_runtime.server.api.sse import encoded, sse
from agent_runtime.server.dependencies import shown_problem
from agent_runtime.server.runs import Failed, RunEvent

UserId = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]
TEXT_PARTS = {"text", "input_text", "output_text"}
OWN_TOOLS = "the agent has tools of its own and runs them itself"
_REFUSED = {
    "tools": OWN_TOOLS,
    "functions": OWN_TOOLS,
    "tool_choice": OWN_TOOLS,
    "function_call": OWN_TOOLS,
    "web_search_options": OWN_TOOLS,
    "response_format": "the form of an answer is the agent's, from output_schema in its file",
    "modalities": "the agent answers with text",
    "audio": "the agent answers with text",
    "logprobs": "an answer may take several replies of the model",
    "top_logprobs": "an answer may take several replies of the model",
    "logit_bias": "the parameters of the model are the agent's",
    "stop": "an answer ends where the agent ends it",
}
_HARMLESS: dict[str, Sequence[Any]] = {
    "tool_choice": ("auto", "none"),
    "function_call": ("auto", "none"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
}


class StreamOptions(BaseModel):
    """What a stream holds besides the answer."""

    include_usage: bool = False


class ChatMessage(BaseModel):
    """One message of the request."""

    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Any]] | None = None


class ChatCompletionsRequest(BaseModel):
    """A conversation whose last message is the question. Fields that change nothing here are accepted."""

    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)

    model: str
    """The agent's name, as `/v1/models` lists it."""
    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    """The last one is the user's question, the ones before it are its history; system messages are left out."""
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    user: UserId | None = None
    """Whose conversation it is: sessions of one user are never shown to another."""
    metadata: dict[str, str] | None = None
    """`session_id` names a conversation of a stateful agent, whose memory then stands for the earlier messages."""

    def refuse_unsupported(self) -> None:
        """Refuse what the agent cannot serve as it is meant.

        Raises:
            Unsupported: naming the first field of that kind.
        """
        if self.n not in (None, 1):
            raise Unsupported("n is not supported: a question has one answer", param="n")
        refuse_unsupported(self.model_extra or {}, _REFUSED, _HARMLESS)


def conversation_of(messages: Sequence[ChatMessage], param: str) -> tuple[str, list[Message]]:
    """The question, and what was said before it. The system prompt is the agent's own: system messages are left out.

    Raises:
        Unsupported: a part that is no text, a tool's message, or a last message that is not the user's.
    """
    said: list[Message] = []
    for at, message in enumerate(messages):
        place = f"{param}[{at}]"
        if message.role in {"tool", "function"} or (message.model_extra or {}).get("tool_calls"):
            raise Unsupported(f"{place} is about a tool of the client's: {OWN_TOOLS}", param=place)
        text = _text_of(message.content, f"{place}.content")
        if message.role in {"user", "assistant"}:
            said.append(Message("user" if message.role == "user" else "assistant", text))
    if not said or said[-1].role != "user":
        raise Unsupported("the last message must be the user's question", param=param, code="invalid_value")
    question = said.pop()
    return question.content, said


def _text_of(content: str | Sequence[dict[str, Any]] | None, place: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    texts: list[str] = []
    for at, part in enumerate(content):
        kind = part.get("type")
        text = part.get("refusal" if kind == "refusal" else "text")
        if kind not in TEXT_PARTS | {"refusal"} or not isinstance(text, str):
            shown = kind if isinstance(kind, str) else "something else"
            raise Unsupported(f"the agent reads text, and this part is {shown}", param=f"{place}[{at}]")
        texts.append(text)
    return "\n".join(texts)


def finish_reason(stop_reason: StopReason) -> Literal["stop", "length"]:
    """Why the answer ended, in OpenAI's words: by itself, by somebody's word, or at a limit of the agent's."""
    return "stop" if stop_reason in {"finished", "cancelled", "approval_required"} else "length"


def usage_of(usage: Usage) -> dict[str, Any]:
    """Tokens of all replies that the answer took."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
    }


def completion(result: RunResult, *, model: str, created: int) -> dict[str, Any]:
    """The whole answer. The calls of the agent's own tools are no part of it: no client could answer them."""
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


class ChatChunks:
    """A run as the chunks of one stream."""

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
        """The chunks of one event; thoughts, plans and the agent's own tool calls have none."""
        match event:
            case RunStarted():
                yield self._delta({"role": "assistant", "content": "", "refusal": None})
            case Text(delta):
                yield self._delta({"content": delta})
            case Finished(_, stop_reason, _, usage):
                yield self._delta({}, finish_reason(stop_reason))
                if self._include_usage:
                    yield sse(encoded({**self._head, "choices": [], "usage": usage_of(usage)}))
                yield sse(b"[DONE]")
            case Failed(error):
                problem = shown_problem(error, self._secrets)
                yield sse(encoded(openai_error(problem["status"], problem["code"], problem["detail"])[1]))
            case _:
                pass

    def _delta(self, delta: dict[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        usage = {"usage": None} if self._include_usage else {}
        return sse(encoded({**self._head, "choices": [choice], **usage}))
