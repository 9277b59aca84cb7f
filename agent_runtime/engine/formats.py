"""How a model calls tools: with the provider's native tool calls, or with thought, action and observation in text.

Pure: a dialect turns messages into a prompt and parses a reply as it streams. The messages of a session are the same
in both dialects, so a file may change its dialect and keep its sessions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from agent_runtime.events import Message, ToolCall, ToolSpec

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request to the model."""

    messages: Sequence[Message]
    tools: Sequence[ToolSpec] = ()
    stop: Sequence[str] = ()
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The final answer. `unsent` is the part of the text that the parser has not returned yet."""

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


class Parser(Protocol[T_co]):
    """Parses one reply while it streams."""

    def feed(self, delta: str) -> str:
        """Take a delta of text; returns the part of it that belongs to the answer."""
        ...

    def finish(self, calls: Sequence[ToolCall]) -> T_co:
        """The whole reply. `calls` are the native tool calls in it."""
        ...


class Dialect(Protocol):
    """One way to call tools."""

    @property
    def shows_thoughts(self) -> bool:
        """Whether text beside a tool call is a thought, and never part of the answer."""
        ...

    def prompt(self, system_prompt: str, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> Prompt:
        """The request for the next reply."""
        ...

    def parser(self, step: int) -> Parser[Reply]:
        """A parser for reply number `step` of a run."""
        ...


class Native:
    """The provider's own tool calls. All text is for the user and shown as it comes."""

    shows_thoughts = False

    def prompt(self, system_prompt: str, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> Prompt:
        """The messages as they are, after the system prompt."""
        return Prompt([*_system(system_prompt), *messages], tools)

    def parser(self, step: int) -> Parser[Reply]:
        """A parser that returns every delta."""
        return _NativeParser()


class _NativeParser:
    def __init__(self) -> None:
        self._text: list[str] = []

    def feed(self, delta: str) -> str:
        self._text.append(delta)
        return delta

    def finish(self, calls: Sequence[ToolCall]) -> Reply:
        text = "".join(self._text)
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
            return Prompt([*_system(system_prompt), *_as_text(messages)])
        listed = "\n".join(f"- {tool.name}: {tool.description} Arguments: {_compact(tool)}" for tool in tools)
        instructions = _INSTRUCTIONS.format(tools=listed)
        whole = f"{system_prompt.rstrip()}\n\n{instructions}" if system_prompt else instructions
        return Prompt([*_system(whole), *_as_text(messages)], stop=["\nObservation:"])

    def parser(self, step: int) -> Parser[Reply]:
        """A parser that returns only what follows `Final Answer:`."""
        return _ReactParser(step)


class _ReactParser:
    def __init__(self, step: int) -> None:
        self._step = step
        self._text = ""
        self._returned = 0  # characters of the text that `feed` is done with: returned, or a marker and white space
        self._is_answer = False

    def feed(self, delta: str) -> str:
        self._text += delta
        if not self._is_answer:
            final = _FINAL.search(self._text)
            # White space after the marker may continue in the next delta: the answer begins at its first character.
            if final is None or final.end() == len(self._text) or self._has_action_before(final.start()):
                return ""
            self._is_answer, self._returned = True, final.end()
        visible = self._text[self._returned :]
        self._returned = len(self._text)
        return visible

    def finish(self, calls: Sequence[ToolCall]) -> Reply:
        if self._is_answer:
            start = _FINAL.search(self._text)
            return Answer(self._text[start.end() if start else 0 :])
        if action := _ACTION.search(self._text):
            return self._tool_call(action)
        if not self._text.strip():
            return Malformed(self._text, _HINT)
        if _THOUGHT.search(self._text) or _INPUT.search(self._text) or _FINAL.search(self._text):
            return Malformed(self._text, _HINT)
        answer = self._text.strip()  # a model that ignores the form and simply answers
        return Answer(answer, unsent=answer)

    def _has_action_before(self, position: int) -> bool:
        action = _ACTION.search(self._text)
        return action is not None and action.start() < position

    def _tool_call(self, action: re.Match[str]) -> ToolCalls:
        thought = _THOUGHT.sub("", self._text[: action.start()]).strip()
        given = _INPUT.search(self._text, action.end())
        arguments = _first_object(self._text[given.end() :]) if given else "{}"
        return ToolCalls(thought, (ToolCall(f"call_{self._step}", action["name"].strip("`'\" "), arguments),))


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


def _as_text(messages: Sequence[Message]) -> list[Message]:
    prompt: list[Message] = []
    for message in messages:
        if message.role == "tool":
            prompt.append(Message("user", f"Observation: {message.content}"))
        elif message.tool_calls:
            call = "\n".join(f"Action: {c.name}\nAction Input: {c.arguments}" for c in message.tool_calls)
            thought = f"Thought: {message.content}\n" if message.content else ""
            prompt.append(Message("assistant", thought + call))
        else:
            prompt.append(message)
    return prompt


def _compact(tool: ToolSpec) -> str:
    return json.dumps(tool.parameters, ensure_ascii=False, separators=(",", ":"))


def _system(text: str) -> list[Message]:
    return [Message("system", text)] if text else []


DIALECTS: Mapping[str, Dialect] = {"native": Native(), "react": React()}
