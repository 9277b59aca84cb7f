"""Turns a question into a tool call that is valid whatever a small model writes.

Chooses the tool, reads arguments from the question, and narrows the schema of the others for the model to decode under.
Pure: no model, no clock. Parts of a JSON Schema that are not supported are left to the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from agent_runtime.events import ToolSpec
from agent_runtime.local_model.quantities import MONEY, Days, Number, days_in, numbers_in
from agent_runtime.local_model.tool_schema import FREE_TEXT, Parameter, Role, bounded, parameters_of
from agent_runtime.local_model.wording import Mention, Question, Span, alike, stems, subject_stems

# The score from which a question is about a tool: a word of its name, or two weaker matches.
_RELEVANT = 2


@dataclass(slots=True)
class Draft:
    """An incomplete call: the known arguments, and the schemas of those that the model decodes."""

    known: dict[str, Any] = field(default_factory=dict[str, Any])
    open: dict[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    evidence: int = 0  # how much of the question matches this tool

    def arguments(self, decoded: Mapping[str, Any]) -> dict[str, Any]:
        """All arguments, with those that the model decoded; null leaves one out."""
        return self.known | {name: value for name, value in decoded.items() if name in self.open and value is not None}


def choose(text: str, tools: Sequence[ToolSpec], today: date) -> list[ToolSpec]:
    """The tools that the question may be about: one, several with the same score, or none for small talk."""
    question = Question(text)
    if question.is_small_talk():
        return []
    vocabularies = [_vocabulary(tool) for tool in tools]
    ranked: list[tuple[float, ToolSpec]] = []
    for tool, vocabulary in zip(tools, vocabularies, strict=True):
        shared = {word: weight for word in question.subject() if (weight := _weight(word, vocabulary))}
        evidence = draft(text, tool, today).evidence
        takes_anything = any(_is_free_text(parameter) for parameter in parameters_of(tool.parameters))
        if sum(shared.values()) + evidence < _RELEVANT and not takes_anything:
            continue
        # A word that several tools share hardly distinguishes them.
        rank = sum(weight**2 / sum(_weight(word, other) for other in vocabularies) for word, weight in shared.items())
        ranked.append((rank + evidence, tool))
    best = max((rank for rank, _ in ranked), default=0)
    return [tool for rank, tool in ranked if rank > best - 0.01]


def draft(text: str, tool: ToolSpec, today: date, *, generous: bool = False) -> Draft:
    """Read the tool's arguments from the question.

    Args:
        text: the message of the user.
        tool: the tool to call.
        today: what "yesterday" is counted from.
        generous: leave every optional argument that was not found to the model, which may answer null.
    """
    return _Reader(text, tool, today).read(generous=generous)


class _Reader:
    """Reads one question for one tool: the most certain kinds first, as each part of the text is used once."""

    def __init__(self, text: str, tool: ToolSpec, today: date) -> None:
        self._question = Question(text)
        self._tool = tool
        self._today = today
        self._parameters = parameters_of(tool.parameters)
        self._draft = Draft()
        self._taken: list[Span] = []

    def read(self, *, generous: bool) -> Draft:
        for parameter in self._parameters:
            self._read_choice(parameter)
        self._read_days()
        self._read_numbers()
        self._read_texts()
        for parameter in self._parameters:
            if parameter.name not in self._draft.known and parameter.name not in self._draft.open:
                self._leave(parameter, generous)
        return self._draft

    def _fill(self, parameter: Parameter, value: Any, span: Span | None = None) -> None:
        self._draft.known[parameter.name] = value
        if span:
            self._taken.append(span)
            self._draft.evidence += 2

    def _unfilled(self, *kinds: str) -> list[Parameter]:
        return [p for p in self._parameters if p.kind in kinds and p.name not in self._draft.known]

    def _leave(self, parameter: Parameter, generous: bool) -> None:
        """An argument that was not found: for the model if it is required, else the default."""
        if parameter.required and len(parameter.choices) == 1:
            self._draft.known[parameter.name] = parameter.choices[0]
        elif parameter.required:
            self._draft.open[parameter.name] = bounded(parameter.schema)
        elif generous:
            self._draft.open[parameter.name] = bounded(parameter.schema, nullable=True)

    def _read_choice(self, parameter: Parameter) -> None:
        if parameter.kind == "flag":
            subject = " ".join(word for word in stems(parameter.name) if word not in {"includ", "only", "is", "with"})
            if subject and (mention := self._question.find(subject)):
                self._fill(parameter, not mention.negated, mention.span)
            return
        many = parameter.kind == "list"
        choices = (parameter.schema["items"].get("enum", ()) if many else parameter.choices) if parameter.schema else ()
        found = self._mentioned(choices)
        if many and found:
            for _, mention in found:
                self._taken.append(mention.span)
            self._fill(parameter, [value for value, _ in found], found[0][1].span)
        elif len(found) == 1:
            self._fill(parameter, found[0][0], found[0][1].span)
        elif found:  # several are mentioned and one is needed: the model chooses
            self._draft.open[parameter.name] = {"enum": [value for value, _ in found]}
            self._draft.evidence += 2

    def _mentioned(self, choices: Sequence[Any]) -> list[tuple[Any, Mention]]:
        """The values that the question mentions, except those inside a longer one (`west` in `south_west`)."""
        found = [(value, mention) for value in choices if (mention := self._question.find(str(value)))]
        return [
            (value, mention)
            for value, mention in found
            if not mention.negated
            and not any(_inside(mention.span, other.span) and mention.span != other.span for _, other in found)
        ]

    def _read_days(self) -> None:
        open_ends = {p.role: p for p in reversed(self._unfilled("date"))}
        if not open_ends:
            return
        for days in days_in(self._question.text, self._today):
            for role, value in _day_values(days):
                # "until the 24th" bounds a range where the tool has one, and names a day where it asks for a day.
                plain = role == "lower" or days.first == days.last
                parameter = open_ends.pop(role, None) or (open_ends.pop("plain", None) if plain else None)
                if parameter is not None:
                    text = value.isoformat()
                    self._fill(
                        parameter, f"{text}T00:00:00" if parameter.schema["format"] == "date-time" else text, days.span
                    )
            self._taken.append(days.span)

    def _read_numbers(self) -> None:
        exact: list[Number] = []
        for number in numbers_in(self._question.text):
            if any(_inside(number.span, span) for span in self._taken):
                continue
            matching = [p for p in self._unfilled("number") if _suits(number, p)]
            if matching:
                self._fill(max(matching, key=lambda p: _overlap(number, p)), number.value, number.span)
            elif number.bound != "count":
                exact.append(number)
        if exact:
            self._read_exact(exact)

    def _read_exact(self, numbers: Sequence[Number]) -> None:
        """Numbers without a bound go to the parameters without one, in their order where there are as many."""
        plain = [p for p in self._unfilled("number") if p.role == "plain"]
        if not all(number.bound == "exact" for number in numbers) or any(p.required for p in plain):
            plain = [p for p in plain if p.required]
        if plain and len(plain) == len(numbers):
            for parameter, number in zip(plain, numbers, strict=True):
                self._fill(parameter, number.value, number.span)
        elif plain:
            for parameter in plain:
                choice = [number.value for number in numbers]
                self._draft.open[parameter.name] = {"enum": choice if parameter.required else [*choice, None]}
        elif len(numbers) == 1 and numbers[0].units & MONEY:  # "orders of £500": both ends of the range
            for parameter in self._unfilled("number"):
                if parameter.role in {"lower", "upper"} and _overlap(numbers[0], parameter):
                    self._fill(parameter, numbers[0].value, numbers[0].span)

    def _read_texts(self) -> None:
        texts = self._unfilled("text")
        for parameter in [p for p in texts if _is_free_text(p)]:
            self._draft.known[parameter.name] = self._question.text
            texts.remove(parameter)
        if not texts:
            return
        known = {
            *_vocabulary(self._tool),
            *(stem for p in self._parameters for v in p.choices for stem in stems(str(v))),
        }
        names = self._question.names(known, self._taken)
        if names:
            self._draft.evidence += 1
        if len(names) == 1 and len(texts) == 1:
            self._draft.known[texts[0].name] = names[0]
        elif names:
            for parameter in texts:
                choice: Mapping[str, Any] = {"enum": names}
                self._draft.open[parameter.name] = choice if parameter.required else {"enum": [*names, None]}


def _vocabulary(tool: ToolSpec) -> dict[str, int]:
    """The stems that indicate a tool, with their weights."""
    words = dict.fromkeys(subject_stems(tool.description), 1)
    for parameter in parameters_of(tool.parameters):
        words |= dict.fromkeys(subject_stems(f"{parameter.name} {parameter.description}"), 1)
    return words | dict.fromkeys(subject_stems(tool.name), 3)


def _weight(word: str, vocabulary: Mapping[str, int]) -> int:
    return max((weight for other, weight in vocabulary.items() if alike(word, other)), default=0)


def _is_free_text(parameter: Parameter) -> bool:
    """Whether it takes the whole question, as the parameter of a search does."""
    return parameter.kind == "text" and parameter.required and bool(set(stems(parameter.name)) & FREE_TEXT)


def _suits(number: Number, parameter: Parameter) -> bool:
    if parameter.schema.get("type") == "integer" and not isinstance(number.value, int):
        return False
    if number.bound == "exact":
        return parameter.role == "count" and bool(_overlap(number, parameter))
    return parameter.role == number.bound


def _overlap(number: Number, parameter: Parameter) -> int:
    """How many units of the number match the parameter; all words of money match each other."""
    money = bool(number.units & MONEY) and bool(parameter.vocabulary & MONEY)
    return money + sum(1 for unit in number.units if any(alike(unit, word) for word in parameter.vocabulary))


def _day_values(days: Days) -> list[tuple[Role, date]]:
    if days.bound == "lower":
        return [("lower", days.first)]
    if days.bound == "upper":
        return [("upper", days.last)]
    return [("lower", days.first), ("upper", days.last)]


def _inside(inner: Span, outer: Span) -> bool:
    return outer[0] <= inner[0] and inner[1] <= outer[1]
