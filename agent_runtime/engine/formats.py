"""How a model asks for tools: native tool calls, or thought, action and observation in text.

Pure: a dialect renders a neutral history into a prompt, and reads a reply as it streams. The history itself is the
same for both, so a file may change its dialect and keep its sessions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from agent_runtime.events import Message, ToolCall, ToolSpec


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model is asked."""

    messages: Sequence[Message]
    tools: Sequence[ToolSpec] = ()
    stop: Sequence[str] = ()
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The model is done. `unsent` is what of the text the reader had not shown yet."""

    text: str
    unsent: str


@dataclass(frozen=True, slots=True)
class Calls:
    """The model wants tools; `thought` is what it said besides, for the history."""

    thought: str
    calls: tuple[ToolCall, ...]


@dataclass(frozen=True, slots=True)
class Malformed:
    """The reply fits no form of the dialect; `hint` tells the model how to mend it."""

    text: str
    hint: str


Reading = Answer | Calls | Malformed


class Reader(Protocol):
    """Reads one reply."""

    def feed(self, delta: str) -> str:
        """Take a delta of text; the part of it that belongs to the answer comes back."""
        ...

    def finish(self, calls: Sequence[ToolCall]) -> Reading:
        """What the whole reply meant. `calls` are the native ones the model made."""
        ...


class Dialect(Protocol):
    """One way to ask and to read."""

    shows_thoughts: bool
    """Whether the text beside a call is a thought, never shown as an answer."""

    def ask(self, system_prompt: str, history: Sequence[Message], tools: Sequence[ToolSpec]) -> Prompt: ...

    def reader(self, step: int) -> Reader: ...


class Native:
    """The provider's own tool calls. All text is addressed to the user, so all of it is shown."""

    shows_thoughts = False

    def ask(self, system_prompt: str, history: Sequence[Message], tools: Sequence[ToolSpec]) -> Prompt:
        """The history as it is, behind the system prompt."""
        return Prompt([*_system(system_prompt), *history], tools)

    def reader(self, step: int) -> Reader:
        """A reader that shows every delta."""
        return _NativeReader()


class _NativeReader:
    def __init__(self) -> None:
        self._text: list[str] = []

    def feed(self, delta: str) -> str:
        self._text.append(delta)
        return delta

    def finish(self, calls: Sequence[ToolCall]) -> Reading:
        text = "".join(self._text)
        if calls:
            return Calls(text, tuple(calls))
        if not text.strip():
            return Malformed(text, "Your reply was empty. Answer the question, or call a tool.")
        return Answer(text, "")


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

    def ask(self, system_prompt: str, history: Sequence[Message], tools: Sequence[ToolSpec]) -> Prompt:
        """The history retold as text, with the tools and the form of a reply behind the system prompt."""
        if not tools:
            return Prompt([*_system(system_prompt), *_retold(history)])
        listed = "\n".join(f"- {tool.name}: {tool.description} Arguments: {_compact(tool)}" for tool in tools)
        instructions = _INSTRUCTIONS.format(tools=listed)
        whole = f"{system_prompt.rstrip()}\n\n{instructions}" if system_prompt else instructions
        return Prompt([*_system(whole), *_retold(history)], stop=["\nObservation:"])

    def reader(self, step: int) -> Reader:
        """A reader that shows only what stands behind `Final Answer:`."""
        return _ReactReader(step)


class _ReactReader:
    def __init__(self, step: int) -> None:
        self._step = step
        self._text = ""
        self._shown = 0  # characters of the text that are behind the feed: shown, or markers and white space
        self._answering = False

    def feed(self, delta: str) -> str:
        self._text += delta
        if not self._answering:
            final = _FINAL.search(self._text)
            # White space behind the marker may still be growing: the answer begins at its first character.
            if final is None or final.end() == len(self._text) or self._acted_before(final.start()):
                return ""
            self._answering, self._shown = True, final.end()
        visible = self._text[self._shown :]
        self._shown = len(self._text)
        return visible

    def finish(self, calls: Sequence[ToolCall]) -> Reading:
        if self._answering:
            start = _FINAL.search(self._text)
            return Answer(self._text[start.end() if start else 0 :], "")
        if action := _ACTION.search(self._text):
            return self._call(action)
        if not self._text.strip():
            return Malformed(self._text, _HINT)
        if _THOUGHT.search(self._text) or _INPUT.search(self._text) or _FINAL.search(self._text):
            return Malformed(self._text, _HINT)
        answer = self._text.strip()  # a model that ignores the form and simply answers
        return Answer(answer, answer)

    def _acted_before(self, position: int) -> bool:
        action = _ACTION.search(self._text)
        return action is not None and action.start() < position

    def _call(self, action: re.Match[str]) -> Reading:
        thought = _THOUGHT.sub("", self._text[: action.start()]).strip()
        given = _INPUT.search(self._text, action.end())
        arguments = _first_object(self._text[given.end() :]) if given else "{}"
        return Calls(thought, (ToolCall(f"call_{self._step}", action["name"].strip("`'\" "), arguments),))


def _first_object(text: str) -> str:
    """The first JSON object of a text, else the text itself: the tool's room tells the model what is wrong with it."""
    start = text.find("{")
    if start >= 0:
        try:
            value, _ = json.JSONDecoder().raw_decode(text[start:])
        except ValueError:
            return text.strip()
        return json.dumps(value, ensure_ascii=False)
    return text.strip()


def _retold(history: Sequence[Message]) -> list[Message]:
    retold: list[Message] = []
    for message in history:
        if message.role == "tool":
            retold.append(Message("user", f"Observation: {message.content}"))
        elif message.tool_calls:
            call = "\n".join(f"Action: {c.name}\nAction Input: {c.arguments}" for c in message.tool_calls)
            thought = f"Thought: {message.content}\n" if message.content else ""
            retold.append(Message("assistant", thought + call))
        else:
            retold.append(message)
    return retold


def _compact(tool: ToolSpec) -> str:
    return json.dumps(tool.parameters, ensure_ascii=False, separators=(",", ":"))


def _system(text: str) -> list[Message]:
    return [Message("system", text)] if text else []


DIALECTS: dict[str, Dialect] = {"native": Native(), "react": React()}
