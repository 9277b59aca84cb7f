"""`output_schema`: answers that are JSON of a known form, in either dialect and with any model.

The schema is part of the prompt, an answer is held back until it is validated, and an invalid one goes back to the
model once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from agent_runtime.engine.formats import Answer, Dialect, Malformed, Prompt, Reply
from agent_runtime.events import Message, ToolCall, ToolSpec

if TYPE_CHECKING:  # loaded where a file has a schema: most have none, and every start would pay for it
    from jsonschema.protocols import Validator

_INSTRUCTIONS = """\
Your final answer must be one JSON value that fits this JSON Schema, and nothing else: no explanation, no code fence.
{schema}"""
_HINT = "Your answer cannot be used: {error} Answer again, with the corrected JSON and nothing else."
_ERROR = "the model's answer does not fit output_schema, even when asked again: {error}"
_CODE_FENCE = re.compile(r"\A```\w*\s*\n(.*)\n\s*```\Z", re.DOTALL)


class AnswerSchema:
    """A JSON Schema for answers. It refers to nothing outside itself: nothing is ever fetched.

    Raises:
        ValueError: it is not a valid schema; with one sentence for the owner of the agent file.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.schema = schema
        self._validator = _validator(schema)

    def error(self, answer: str) -> str:
        """What is wrong with an answer, as a sentence for the model; empty where it is valid."""
        from jsonschema.exceptions import ValidationError, best_match  # pyright: ignore[reportUnknownVariableType]

        try:
            value: Any = json.loads(answer)
        except ValueError as error:
            return f"it is not valid JSON: {error}."
        error = cast("ValidationError | None", best_match(self._validator.iter_errors(value)))
        if error is None:
            return ""
        where = "".join(f"[{part!r}]" for part in error.absolute_path)
        return f"{where or 'the whole of it'} does not fit the schema: {error.message[:500]}."


def read_schema(source: str | Mapping[str, Any], folder: Path) -> AnswerSchema:
    """The schema in the agent file, or in the file that it names.

    Raises:
        ValueError: with one sentence for the owner of the agent file.
    """
    return AnswerSchema(_from_file(folder / source) if isinstance(source, str) else source)


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


def _validator(schema: Mapping[str, Any]) -> Validator:
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import Draft202012Validator, validator_for
    from referencing import Registry

    unknown: Any = None
    found = validator_for(schema, unknown) if "$schema" in schema else Draft202012Validator
    kind = cast("type[Validator] | None", found)
    if kind is None:
        raise ValueError(f"is written in an unknown form of JSON Schema: {schema['$schema']}")
    try:
        kind.check_schema(dict(schema))
    except SchemaError as error:
        raise ValueError(f"is no JSON Schema: {error.message.splitlines()[0]}") from None
    _check_references(schema)
    return kind(dict(schema), registry=Registry())


def _check_references(schema: Mapping[str, Any]) -> None:
    from referencing import Registry, Resource
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    registry: Registry[Any] = Registry()
    resource = Resource.from_contents(schema, default_specification=DRAFT202012)
    address = resource.id() or ""
    resolver = registry.with_resource(address, resource).resolver(address)
    for reference in _references(schema):
        try:
            resolver.lookup(reference)
        except Unresolvable:
            raise ValueError(f"refers to {reference}, which is not in it") from None


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for item in cast("list[Any]", node):
            yield from _references(item)
    elif isinstance(node, dict):
        known = cast("dict[str, Any]", node)
        if isinstance(known.get("$ref"), str):
            yield known["$ref"]
        yield from _references(list(known.values()))


@dataclass(frozen=True, slots=True)
class StructuredOutput:
    """A dialect whose answers are validated against a schema."""

    dialect: Dialect
    answers: AnswerSchema

    @property
    def shows_thoughts(self) -> bool:
        """As the dialect does."""
        return self.dialect.shows_thoughts

    def prompt(self, system_prompt: str, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> Prompt:
        """The dialect's request, with the schema."""
        schema = json.dumps(self.answers.schema, ensure_ascii=False, separators=(",", ":"))
        instructions = f"{system_prompt}\n\n{_INSTRUCTIONS.format(schema=schema)}".lstrip()
        prompt = self.dialect.prompt(instructions, messages, tools)
        # Where tools are called in text, a reply that must be JSON could not call one.
        calls_in_text = self.shows_thoughts and bool(tools)
        return Prompt(prompt.messages, prompt.tools, prompt.stop, None if calls_in_text else self.answers.schema)

    def answer_filter(self) -> Callable[[str], str]:
        """Nothing is shown before the answer is valid."""
        return lambda _: ""

    def read(self, text: str, calls: Sequence[ToolCall], step: int) -> Reply:
        """The dialect's reply, if its answer is valid."""
        reply = self.dialect.read(text, calls, step)
        if not isinstance(reply, Answer):
            return reply
        fenced = _CODE_FENCE.match(reply.text.strip())
        answer = fenced[1].strip() if fenced else reply.text.strip()
        if error := self.answers.error(answer):
            return Malformed(reply.text, _HINT.format(error=error), _ERROR.format(error=error))
        return Answer(answer, unsent=answer)
