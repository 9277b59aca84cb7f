"""How a model calls tools: with the provider's native tool calls, or with thought, action and observation in text.

Pure: a dialect turns messages into a prompt, shows the answer as it streams, and parses the whole reply. The messages
of a session are the same in both dialects, so a file may change its dialect and keep its sessions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from agent_runtime.events import Message, ToolCall, ToolSpec


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request to the model."""

    messages: Sequence[Message]
    tools: Sequence[ToolSpec] = ()
    stop: Sequence[str] = ()
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The final answer. `unsent` is the part of the text that was not shown while it streamed."""

    text: str
    unsent: str = ""


@dataclass(frozen=True, slots=True)
class ToolCalls:
    """The tools that the model calls; `text` is what it wrote beside them."""

    text: str
    calls: tuple[ToolCall, ...]


@dataclass(frozen=True, slots=True)
class Malformed:
    """A reply that is none of the above; `hint` tells the model how to correct it.

    A run accepts one reply with an `error`: the next one ends it with that error.
    """

    text: str
    hint: str
    error: str = ""


Reply = Answer | ToolCalls | Malformed


class Dialect(Protocol):
    """One way to call tools."""

    @property
    def shows_thoughts(self) -> bool:
        """Whether text beside a tool call is a thought, and never part of the answer."""
        ...

    def prompt(self, system_prompt: str, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> Prompt:
        """The request for the next reply."""
        ...

    def answer_filter(self) -> Callable[[str], str]:
        """A function that takes the deltas of one reply in order, and returns of each what belongs to the answer."""
        ...

    def read(self, text: str, calls: Sequence[ToolCall], step: int) -> Reply:
        """Parse reply number `step` of a run. `calls` are the native tool calls in it."""
        ...


class Native:
    """The provider's own tool calls. All text is for the user and shown as it comes."""

    shows_thoughts = False

    def prompt(self, system_prompt: str, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> Prompt:
        """The messages as they are, after the system prompt."""
        return Prompt([*_system(system_prompt), *messages], tools)

    def answer_filter(self) -> Callable[[str], str]:
        """All text belongs to the answer."""
        return str

    def read(self, text: str, calls: Sequence[ToolCall], step: int) -> Reply:
        """A reply with tool calls, or the answer."""
        if calls:
            return ToolCalls(text, tuple(calls))
        if not text.strip():
            return Malformed(text, "Your reply was empty. Answer the question, or call a tool.")
        return Answer(text)


_INSTRUCTIONS = """\
You can use these tools:
{tools}

Work in steps. To use a tool, write exactly:
Thought: what you need to find out
Action: the name of one tool
Action Input: a JSON object with the tool's arguments
Then stop; the result follows as "Observation:". When you know the answer, write exactly:
Thought: I know the answer
Final Answer: the answer for the user"""

_HINT = (
    "Your reply fits neither form. Write `Action:` with the name of a tool and `Action Input:` with a JSON object, "
    "or `Final Answer:` with the answer."
)
_ACTION = re.compile(r"^[ \t]*Action:[ \t]*(?P<name>[^\n]+?)[ \t]*$", re.MULTILINE)
_INPUT = re.compile(r"^[ \t]*Action Input:[ \t]*", re.MULTILINE)
_FINAL = re.compile(r"^[ \t]*Final Answer:[ \t\n]*", re.MULTILINE)
_THOUGHT = re.compile(r"^[ \t]*Thought:[ \t]*", re.MULTILINE)


class React:
    """Thought, action and observation in text, for models without tool calls."""

    shows_thoughts = True

    def prompt(self, system_prompt: str, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> Prompt:
        """The messages as text, after a system prompt that lists the tools and the form of a reply."""
        if not tools:
            return Prompt([*_system(system_prompt), *messages_as_text(messages)])
        listed = "\n".join(f"- {tool.name}: {tool.description} Arguments: {_compact(tool)}" for tool in tools)
        instructions = _INSTRUCTIONS.format(tools=listed)
        whole = f"{system_prompt.rstrip()}\n\n{instructions}" if system_prompt else instructions
        return Prompt([*_system(whole), *messages_as_text(messages)], stop=["\nObservation:"])

    def answer_filter(self) -> Callable[[str], str]:
        """Only what follows `Final Answer:` belongs to the answer."""
        return _FinalAnswer().feed

    def read(self, text: str, calls: Sequence[ToolCall], step: int) -> Reply:
        """The answer or the call that is written in the text."""
        start = _answer_start(text)
        if start is not None:
            return Answer(text[start:])
        if action := _ACTION.search(text):
            return _tool_call(text, action, step)
        if not text.strip() or any(marker.search(text) for marker in (_THOUGHT, _INPUT, _FINAL)):
            return Malformed(text, _HINT)
        answer = text.strip()  # a model that ignores the form and simply answers
        return Answer(answer, unsent=answer)


class _FinalAnswer:
    """Returns the answer of one reply while it streams."""

    def __init__(self) -> None:
        self._text = ""
        self._is_answer = False

    def feed(self, delta: str) -> str:
        if self._is_answer:
            return delta
        self._text += delta
        start = _answer_start(self._text)
        self._is_answer = start is not None
        return self._text[start:] if self._is_answer else ""


def _answer_start(text: str) -> int | None:
    """Where the final answer begins; None before its first character, and where an action is called before it."""
    final = _FINAL.search(text)
    # White space after the marker may continue in the next delta: the answer begins at its first character.
    if final is None or final.end() == len(text):
        return None
    action = _ACTION.search(text)
    return final.end() if action is None or action.start() > final.start() else None


def _tool_call(text: str, action: re.Match[str], step: int) -> ToolCalls:
    thought = _THOUGHT.sub("", text[: action.start()]).strip()
    given = _INPUT.search(text, action.end())
    arguments = _first_object(text[given.end() :]) if given else "{}"
    return ToolCalls(thought, (ToolCall(f"call_{step}", action["name"].strip("`'\" "), arguments),))


def _first_object(text: str) -> str:
    """The first JSON object of a text, else the text itself: the model is told what is wrong with it."""
    start = text.find("{")
    if start >= 0:
        try:
            value, _ = json.JSONDecoder().raw_decode(text[start:])
        except ValueError:
            return text.strip()
        return json.dumps(value, ensure_ascii=False)
    return text.strip()


def messages_as_text(
    messages: Sequence[Message],
    *,
    thought: str = "Thought: {}\n",
    call: str = "Action: {}\nAction Input: {}",
    result: str = "Observation: {}",
) -> list[Message]:
    """The messages with tool calls and results as text, in the given forms."""
    prompt: list[Message] = []
    for message in messages:
        if message.role == "tool":
            prompt.append(Message("user", result.format(message.content)))
        elif message.tool_calls:
            calls = "\n".join(call.format(one.name, one.arguments) for one in message.tool_calls)
            prompt.append(Message("assistant", (thought.format(message.content) if message.content else "") + calls))
        else:
            prompt.append(message)
    return prompt


def _compact(tool: ToolSpec) -> str:
    return json.dumps(tool.parameters, ensure_ascii=False, separators=(",", ":"))


def _system(text: str) -> list[Message]:
    return [Message("system", text)] if text else []


DIALECTS: Mapping[str, Dialect] = {"native": Native(), "react": React()}
