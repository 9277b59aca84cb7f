"""The conversations beside an agent file, run as a suite: `myagent test`.

`conversations.yaml` beside the file is a list of conversations; each has turns of what is said, which tools that should
call, and what the answer should hold. With a recording of the model's replies the suite runs without a key.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self
from xml.etree import ElementTree

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from agent_runtime.agent import Agent
from agent_runtime.agent_file import load
from agent_runtime.engine import unmarked
from agent_runtime.errors import ConfigError, ModelError, MyAgentError, Problem, StartError
from agent_runtime.events import Message, ModelChunk, RunResult, ToolCall, ToolSpec, ToolUse, Usage
from agent_runtime.models import Model, model_for
from agent_runtime.models.base import ModelAround

_NO_SUITE = "no such file; it lists conversations, such as `- {name: small talk, turns: [{say: hello, calls: []}]}`"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ExpectedAnswer(_Strict):
    """What an answer should be like; everything that is given must hold."""

    contains: list[str] = Field(default_factory=list)
    lacks: list[str] = Field(default_factory=list)
    matches: str | None = None


class Turn(_Strict):
    """One message and what should come of it.

    A call is a tool's name, or a name with arguments that must be among those it was given.
    """

    say: str
    calls: list[str | dict[str, dict[str, Any]]] | None = None
    answer: ExpectedAnswer = ExpectedAnswer()


class Conversation(_Strict):
    """Turns of one session."""

    name: str
    turns: list[Turn] = Field(min_length=1)


@dataclass(slots=True)
class Outcome:
    """How one conversation went; no complaints is well."""

    name: str
    seconds: float = 0
    complaints: list[str] = field(default_factory=list[str])


def conversations_of(file: Path) -> list[Conversation]:
    """Read a suite.

    Raises:
        ConfigError: it is missing or not of this form; its owner mends it.
    """
    try:
        document: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
        return TypeAdapter(list[Conversation]).validate_python(document)
    except FileNotFoundError:
        raise ConfigError(str(file), [Problem(_NO_SUITE)]) from None
    except OSError as error:
        raise ConfigError(str(file), [Problem(f"cannot be read: {error.strerror}")]) from error
    except yaml.YAMLError as error:
        raise ConfigError(str(file), [Problem(f"is not valid YAML: {error}")]) from error
    except ValidationError as error:
        problems = [Problem(item["msg"], ".".join(map(str, item["loc"]))) for item in error.errors()]
        raise ConfigError(str(file), problems) from error


async def hold(config: Path, suite: Path, tape: Literal["record", "replay"] | None) -> list[Outcome]:
    """Hold a suite with the agent of a file, print how each conversation went, and return that.

    The tape, beside the suite, ends in `.jsonl`. Raises as `conversations_of` and `Agent` do.
    """
    conversations = await asyncio.to_thread(conversations_of, suite)
    file = await load(config)
    recording = suite.with_suffix(".jsonl")
    model: Model | None = None
    if tape == "record":
        model = RecordingModel(model_for(file.config.model, file.resolver), recording)
    elif tape == "replay":
        model = RecordedModel(recording)
    outcomes: list[Outcome] = []
    async with Agent(file, model=model) as agent, aclosing(run_suite(agent, conversations)) as held:
        async for outcome in held:
            outcomes.append(outcome)
            print(f"  {'ok' if not outcome.complaints else 'NO':3} {outcome.name}  {outcome.seconds:.1f} s", flush=True)
            for complaint in outcome.complaints:
                print(f"      {complaint}", flush=True)
        well = sum(not outcome.complaints for outcome in outcomes)
        print(f"{well} of {len(outcomes)} conversations went as expected with {agent.model_label}", flush=True)
    return outcomes


async def run_suite(agent: Agent, suite: Sequence[Conversation]) -> AsyncGenerator[Outcome, None]:
    """Hold every conversation, one after another, each in a session of its own."""
    for number, conversation in enumerate(suite):
        started = time.monotonic()
        outcome = Outcome(conversation.name)
        for position, turn in enumerate(conversation.turns, 1):
            try:
                result = await agent.run(turn.say, session_id=f"test-{number}-{started}", owner="myagent test")
            except MyAgentError as error:
                outcome.complaints.append(f"turn {position}: {error}")
                break
            outcome.complaints += [f"turn {position}: {complaint}" for complaint in complaints(turn, result)]
        outcome.seconds = time.monotonic() - started
        yield outcome


def complaints(turn: Turn, result: RunResult) -> Iterator[str]:
    """What is not as the turn expects it."""
    if turn.calls is not None:
        yield from _about_calls(turn.calls, [use for step in result.steps for use in step.tool_calls])
    for text in turn.answer.contains:
        if text not in result.answer:
            yield f"the answer does not contain {text!r}: {result.answer[:200]!r}"
    for text in turn.answer.lacks:
        if text in result.answer:
            yield f"the answer contains {text!r}"
    if turn.answer.matches and not re.search(turn.answer.matches, result.answer):
        yield f"the answer does not match {turn.answer.matches!r}: {result.answer[:200]!r}"


def _about_calls(expected: Sequence[str | dict[str, dict[str, Any]]], made: Sequence[ToolUse]) -> Iterator[str]:
    wanted: list[tuple[str, dict[str, Any]]] = []
    for call in expected:
        wanted += [(call, {})] if isinstance(call, str) else call.items()
    names = [name for name, _ in wanted]
    if names != [use.name for use in made]:
        yield f"expected calls of {names or 'no tool'}, got {[use.name for use in made] or 'none'}"
        return
    for use, (_, arguments) in zip(made, wanted, strict=True):
        for name, value in arguments.items():
            if use.arguments.get(name) != value:
                yield f"{use.name} was to be called with {name}={value!r}, got {use.arguments.get(name)!r}"


def junit(agent: str, outcomes: Sequence[Outcome]) -> str:
    """The outcomes as JUnit XML, as CI systems read it."""
    failures = sum(bool(outcome.complaints) for outcome in outcomes)
    suite = ElementTree.Element("testsuite", name=agent, tests=str(len(outcomes)), failures=str(failures))
    for outcome in outcomes:
        case = ElementTree.SubElement(
            suite, "testcase", classname=agent, name=outcome.name, time=f"{outcome.seconds:.3f}"
        )
        if outcome.complaints:
            ElementTree.SubElement(case, "failure", message=outcome.complaints[0]).text = "\n".join(outcome.complaints)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True)


class RecordingModel(ModelAround):
    """Passes questions on to a model and writes its replies to a file, one JSON line each."""

    def __init__(self, model: Model, file: Path) -> None:
        super().__init__(model)
        self._file = file

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._file.write_text, "", encoding="utf-8")
        return await super().__aenter__()

    async def stream(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSpec] = (),
        *,
        stop: Sequence[str] = (),
        schema: Mapping[str, Any] | None = None,
    ) -> AsyncGenerator[ModelChunk, None]:
        reply: list[ModelChunk] = []
        wish: dict[str, Any] = {"schema": schema} if schema else {}
        async for chunk in self._model.stream(messages, tools, stop=stop, **wish):
            reply.append(chunk)
            yield chunk
        line = json.dumps({"question": _fingerprint(messages, tools), "reply": [_recorded(chunk) for chunk in reply]})
        await asyncio.to_thread(self._append, line)

    def _append(self, line: str) -> None:
        with self._file.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


class RecordedModel:
    """Answers from a recording: the same question gets the same reply, any other one an error that says so."""

    label = "recorded"

    def __init__(self, file: Path) -> None:
        self._file = file
        self._replies: dict[str, list[list[ModelChunk]]] = {}

    async def __aenter__(self) -> RecordedModel:
        try:
            text = await asyncio.to_thread(self._file.read_text, encoding="utf-8")
        except OSError as error:
            raise StartError(f"{self._file}: {error.strerror}; make it with myagent test --record") from error
        for line in text.splitlines():
            entry = json.loads(line)
            self._replies.setdefault(entry["question"], []).append([_replayed(chunk) for chunk in entry["reply"]])
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._replies.clear()

    async def stream(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSpec] = (),
        *,
        stop: Sequence[str] = (),
        schema: Mapping[str, Any] | None = None,
    ) -> AsyncGenerator[ModelChunk, None]:
        replies = self._replies.get(_fingerprint(messages, tools))
        if not replies:
            raise ModelError("the recording has no reply to this question: record again with myagent test --record")
        for chunk in replies.pop(0) if len(replies) > 1 else replies[0]:
            yield chunk


def _fingerprint(messages: Sequence[Message], tools: Sequence[ToolSpec]) -> str:
    """What a question is recognised by: not the ids of calls, which providers invent anew each time."""
    asked = [
        [message.role, unmarked(message.content), [[call.name, call.arguments] for call in message.tool_calls]]
        for message in messages
    ]
    text = json.dumps([asked, [[tool.name, tool.description, tool.parameters] for tool in tools]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _recorded(chunk: ModelChunk) -> Any:
    return chunk if isinstance(chunk, str) else {type(chunk).__name__: asdict(chunk)}


def _replayed(chunk: Any) -> ModelChunk:
    if isinstance(chunk, str):
        return chunk
    return ToolCall(**chunk["ToolCall"]) if "ToolCall" in chunk else Usage(**chunk["Usage"])
