"""`myagent test`: the conversations beside an agent file, run as a test suite.

`conversations.yaml` is a list of conversations. Each turn has a message, the tools that should be called, and what the
answer should contain. With a recording of the model's replies, the suite runs without a key.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import sys
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from agent_runtime.agent import Agent
from agent_runtime.agent_file import load
from agent_runtime.cli import EXIT_FAILED
from agent_runtime.cli.terminal import console, status_mark
from agent_runtime.engine import unmarked
from agent_runtime.errors import ConfigError, ModelError, MyAgentError, Problem, StartError
from agent_runtime.events import Message, ModelChunk, RunResult, ToolCall, ToolSpec, ToolUse, Usage
from agent_runtime.models import Model, ModelWrapper, model_for

_NO_SUITE = "no such file; it lists conversations, such as `- {name: small talk, turns: [{say: hello, calls: []}]}`"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ExpectedAnswer(_Strict):
    """What is expected of an answer; every given condition must hold."""

    contains: list[str] = Field(default_factory=list)
    lacks: list[str] = Field(default_factory=list)
    matches: str | None = None


class Turn(_Strict):
    """One message and the expected calls and answer.

    A call is the name of a tool, or a name with arguments that must be among those of the call.
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
    """The result of one conversation; without failures it passed."""

    name: str
    seconds: float = 0
    failures: list[str] = field(default_factory=list[str])


def load_conversations(file: Path) -> list[Conversation]:
    """Read a file of conversations.

    Raises:
        ConfigError: it is missing or invalid.
    """
    try:
        document: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
        return TypeAdapter(list[Conversation]).validate_python(document)
    except OSError as error:
        message = _NO_SUITE if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
        raise ConfigError(str(file), [Problem(message)]) from error
    except yaml.YAMLError as error:
        raise ConfigError(str(file), [Problem(f"is not valid YAML: {error}")]) from error
    except ValidationError as error:
        problems = [Problem(item["msg"], ".".join(map(str, item["loc"]))) for item in error.errors()]
        raise ConfigError(str(file), problems) from error


def run_tests(path: Path, suite: Path, *, recording: Literal["record", "replay"] | None, junit: Path | None) -> int:
    """Run the conversations of `suite` with an agent file and print the results; returns the exit status.

    Raises:
        ConfigError: a file is invalid, or the JUnit report cannot be written.
    """
    outcomes = asyncio.run(_run_suite(path, suite, recording))
    if junit is not None:
        try:
            junit.write_text(junit_report(path.stem, outcomes), encoding="utf-8")
        except OSError as error:
            raise ConfigError(str(junit), [Problem(f"cannot be written: {error.strerror}")]) from error
    return EXIT_FAILED if any(outcome.failures for outcome in outcomes) else 0


async def _run_suite(path: Path, suite: Path, recording: Literal["record", "replay"] | None) -> list[Outcome]:
    conversations = await asyncio.to_thread(load_conversations, suite)
    file = await load(path)
    replies = suite.with_suffix(".jsonl")
    model: Model | None = None
    if recording == "record":
        model = RecordingModel(model_for(file.config.model, file.resolver), replies)
    elif recording == "replay":
        model = RecordedModel(replies)
    out = console(sys.stdout)
    outcomes: list[Outcome] = []
    async with Agent(file, model=model) as agent:
        for number, conversation in enumerate(conversations):
            outcome = await _run_conversation(agent, conversation, f"test-{number}-{time.monotonic()}")
            outcomes.append(outcome)
            mark = status_mark(not outcome.failures)
            out.print(mark.append(f"  {outcome.name}  {outcome.seconds:.1f} s", style="default"))
            for failure in outcome.failures:
                out.print(f"      {failure}")
        passed = sum(not outcome.failures for outcome in outcomes)
        out.print(f"{passed} of {len(outcomes)} conversations went as expected with {agent.model_label}")
    return outcomes


async def _run_conversation(agent: Agent, conversation: Conversation, session_id: str) -> Outcome:
    started = time.monotonic()
    outcome = Outcome(conversation.name)
    for position, turn in enumerate(conversation.turns, 1):
        try:
            result = await agent.run(turn.say, session_id=session_id, owner="myagent test")
        except MyAgentError as error:
            outcome.failures.append(f"turn {position}: {error}")
            break
        outcome.failures += [f"turn {position}: {failure}" for failure in _failures(turn, result)]
    outcome.seconds = time.monotonic() - started
    return outcome


def _failures(turn: Turn, result: RunResult) -> Iterator[str]:
    """How the result of a turn differs from what is expected."""
    if turn.calls is not None:
        yield from _call_failures(turn.calls, [use for step in result.steps for use in step.tool_calls])
    for text in turn.answer.contains:
        if text not in result.answer:
            yield f"the answer does not contain {text!r}: {result.answer[:200]!r}"
    for text in turn.answer.lacks:
        if text in result.answer:
            yield f"the answer contains {text!r}"
    if turn.answer.matches and not re.search(turn.answer.matches, result.answer):
        yield f"the answer does not match {turn.answer.matches!r}: {result.answer[:200]!r}"


def _call_failures(expected: Sequence[str | dict[str, dict[str, Any]]], actual: Sequence[ToolUse]) -> Iterator[str]:
    calls: list[tuple[str, dict[str, Any]]] = []
    for call in expected:
        calls += [(call, {})] if isinstance(call, str) else call.items()
    names = [name for name, _ in calls]
    if names != [use.name for use in actual]:
        yield f"expected calls of {names or 'no tool'}, got {[use.name for use in actual] or 'none'}"
        return
    for use, (_, arguments) in zip(actual, calls, strict=True):
        for name, value in arguments.items():
            if use.arguments.get(name) != value:
                yield f"expected {use.name} to be called with {name}={value!r}, got {use.arguments.get(name)!r}"


def junit_report(agent: str, outcomes: Sequence[Outcome]) -> str:
    """The outcomes as JUnit XML."""
    failures = sum(bool(outcome.failures) for outcome in outcomes)
    suite = ElementTree.Element("testsuite", name=agent, tests=str(len(outcomes)), failures=str(failures))
    for outcome in outcomes:
        case = ElementTree.SubElement(
            suite, "testcase", classname=agent, name=outcome.name, time=f"{outcome.seconds:.3f}"
        )
        if outcome.failures:
            ElementTree.SubElement(case, "failure", message=outcome.failures[0]).text = "\n".join(outcome.failures)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True)


class RecordingModel(ModelWrapper):
    """Passes requests to a model and records its replies in a file, one JSON object per line."""

    def __init__(self, model: Model, file: Path) -> None:
        super().__init__(model)
        self._file = file
        self._lines: list[str] = []

    async def __aexit__(self, *exc_info: object) -> None:
        await super().__aexit__(*exc_info)
        await asyncio.to_thread(self._file.write_text, "".join(self._lines), encoding="utf-8")

    async def stream(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec] = (), **options: Any
    ) -> AsyncGenerator[ModelChunk, None]:
        reply: list[ModelChunk] = []
        async for chunk in self._model.stream(messages, tools, **options):
            reply.append(chunk)
            yield chunk
        entry = {"question": _fingerprint(messages, tools), "reply": [_recorded(chunk) for chunk in reply]}
        self._lines.append(json.dumps(entry) + "\n")


class RecordedModel:
    """Answers from a recording: the same request gets the same reply, any other an error."""

    label = "recorded"

    def __init__(self, file: Path) -> None:
        self._file = file
        self._replies: dict[str, list[list[ModelChunk]]] = {}

    async def __aenter__(self) -> RecordedModel:
        try:
            text = await asyncio.to_thread(self._file.read_text, encoding="utf-8")
        except OSError as error:
            raise StartError(f"{self._file}: {error.strerror}; create it with myagent test --record") from error
        for line in text.splitlines():
            entry = json.loads(line)
            self._replies.setdefault(entry["question"], []).append([_replayed(chunk) for chunk in entry["reply"]])
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._replies.clear()

    async def stream(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec] = (), **_: Any
    ) -> AsyncGenerator[ModelChunk, None]:
        replies = self._replies.get(_fingerprint(messages, tools))
        if not replies:
            raise ModelError("the recording has no reply to this request: record again with myagent test --record")
        for chunk in replies.pop(0) if len(replies) > 1 else replies[0]:
            yield chunk


def _fingerprint(messages: Sequence[Message], tools: Sequence[ToolSpec]) -> str:
    """Identifies a request; without the ids of calls, which differ each time."""
    contents = [
        [message.role, unmarked(message.content), [[call.name, call.arguments] for call in message.tool_calls]]
        for message in messages
    ]
    text = json.dumps([contents, [[tool.name, tool.description, tool.parameters] for tool in tools]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _recorded(chunk: ModelChunk) -> Any:
    return chunk if isinstance(chunk, str) else {type(chunk).__name__: asdict(chunk)}


def _replayed(chunk: Any) -> ModelChunk:
    if isinstance(chunk, str):
        return chunk
    return ToolCall(**chunk["ToolCall"]) if "ToolCall" in chunk else Usage(**chunk["Usage"])
