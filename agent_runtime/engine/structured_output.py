"""`output_schema`: answers that are JSON of a known form, whatever the dialect and whatever the model.

The model is told the schema, its answer is held back until it is checked, and a wrong one goes back to the model once.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from agent_runtime.engine.formats import Answer, Dialect, Malformed, Prompt, Reader, Reading
from agent_runtime.errors import ModelError
from agent_runtime.events import Message, ToolCall, ToolSpec

_INSTRUCTIONS = """\
Your final answer must be one JSON value that fits this JSON Schema, and nothing else: no explanation, no code fence.
{schema}"""
_HINT = "Your answer cannot be used: {complaint} Answer again, with the corrected JSON and nothing else."
_FENCE = re.compile(r"\A```\w*\s*\n(.*)\n\s*```\Z", re.DOTALL)


class AnswerSchema:
    """A JSON Schema that answers are held against. It refers to nothing outside itself: nothing is ever fetched."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.schema = schema
        jsonschema, referencing = _libraries()
        self._validator = jsonschema.validators.validator_for(schema)(schema, registry=referencing.Registry())
        self._best_match = jsonschema.exceptions.best_match

    def complaint(self, answer: str) -> str:
        """What is wrong with an answer, as a sentence for the model; empty where it fits."""
        try:
            value: Any = json.loads(answer)
        except ValueError as error:
            return f"it is not valid JSON: {error}."
        error = self._best_match(self._validator.iter_errors(value))
        if error is None:
            return ""
        where = "".join(f"[{part!r}]" for part in error.absolute_path)
        return f"{where or 'the whole of it'} does not fit the schema: {str(error.message)[:500]}."

    def dialect(self, dialect: Dialect) -> Dialect:
        """A dialect for one run whose answers fit the schema."""
        return _Checked(dialect, self)


def read_schema(source: str | Mapping[str, Any], folder: Path) -> AnswerSchema:
    """The schema that the file gives, or the one in the file that it names.

    Raises:
        ValueError: with one sentence for the owner of the agent file.
    """
    schema = _from_file(folder / source) if isinstance(source, str) else source
    jsonschema, _ = _libraries()
    if "$schema" in schema and jsonschema.validators.validator_for(schema, default=None) is None:
        raise ValueError(f"is written in an unknown form of JSON Schema: {schema['$schema']}")
    try:
        jsonschema.validators.validator_for(schema).check_schema(schema)
    except jsonschema.exceptions.SchemaError as error:
        raise ValueError(f"is no JSON Schema: {error.message.splitlines()[0]}") from None
    _check_references(schema)
    return AnswerSchema(schema)


def _from_file(file: Path) -> Mapping[str, Any]:
    try:
        schema: Any = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"names a file that does not exist: {file}") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"names a file that cannot be read as JSON: {file}: {error}") from None
    if not isinstance(schema, dict):
        raise ValueError(f"names a file that holds no JSON Schema: {file}")
    return cast("dict[str, Any]", schema)


def _check_references(schema: Mapping[str, Any]) -> None:
    _, referencing = _libraries()
    newest = referencing.jsonschema.DRAFT202012
    resource = referencing.Resource.from_contents(schema, default_specification=newest)
    address = resource.id() or ""
    resolver = referencing.Registry().with_resource(address, resource).resolver(address)
    for reference in _references(schema):
        try:
            resolver.lookup(reference)
        except referencing.exceptions.Unresolvable:
            raise ValueError(f"refers to {reference}, which is not in it") from None


def _libraries() -> tuple[Any, Any]:
    """Loaded where a file has a schema: most have none, and every start would pay for them."""
    for module in ("jsonschema.validators", "jsonschema.exceptions", "referencing.jsonschema"):
        importlib.import_module(module)
    return importlib.import_module("jsonschema"), importlib.import_module("referencing")


def _references(node: Any) -> list[str]:
    if isinstance(node, list):
        return [reference for item in cast("list[Any]", node) for reference in _references(item)]
    if not isinstance(node, dict):
        return []
    known = cast("dict[str, Any]", node)
    own = [known["$ref"]] if isinstance(known.get("$ref"), str) else []
    return own + [reference for item in known.values() for reference in _references(item)]


class _Schemed(Protocol):
    """What a checked dialect needs of its schema."""

    @property
    def schema(self) -> Mapping[str, Any]: ...

    def complaint(self, answer: str) -> str: ...


class _Checked:
    """A dialect for one run: it knows whether the model has been told already that its answer does not fit."""

    def __init__(self, dialect: Dialect, answers: _Schemed) -> None:
        self._dialect = dialect
        self._answers = answers
        self.shows_thoughts = dialect.shows_thoughts
        self.repaired = False

    def ask(self, system_prompt: str, history: Sequence[Message], tools: Sequence[ToolSpec]) -> Prompt:
        schema = json.dumps(self._answers.schema, ensure_ascii=False, separators=(",", ":"))
        told = f"{system_prompt}\n\n{_INSTRUCTIONS.format(schema=schema)}".lstrip()
        prompt = self._dialect.ask(told, history, tools)
        # Where tools are called in text, a reply that must be JSON could call none.
        in_text = self.shows_thoughts and bool(tools)
        return Prompt(prompt.messages, prompt.tools, prompt.stop, None if in_text else self._answers.schema)

    def reader(self, step: int) -> Reader:
        return _CheckedReader(self._dialect.reader(step), self, self._answers)


class _CheckedReader:
    def __init__(self, reader: Reader, run: _Checked, answers: _Schemed) -> None:
        self._reader = reader
        self._run = run
        self._answers = answers

    def feed(self, delta: str) -> str:
        self._reader.feed(delta)
        return ""  # nothing is shown before it is known to fit

    def finish(self, calls: Sequence[ToolCall]) -> Reading:
        reading = self._reader.finish(calls)
        if not isinstance(reading, Answer):
            return reading
        fenced = _FENCE.match(reading.text.strip())
        answer = fenced[1].strip() if fenced else reading.text.strip()
        complaint = self._answers.complaint(answer)
        if not complaint:
            return Answer(answer, answer)
        if self._run.repaired:
            raise ModelError(f"the model's answer does not fit output_schema, even when asked again: {complaint}")
        self._run.repaired = True
        return Malformed(reading.text, _HINT.format(complaint=complaint))
