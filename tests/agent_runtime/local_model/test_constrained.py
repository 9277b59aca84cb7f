"""Reading a question without a model: which tool, which arguments, and what is left open."""

from __future__ import annotations

import enum
from datetime import date
from typing import Any, Literal

import pytest

from agent_runtime.events import ToolSpec
from agent_runtime.local_model.constrained import choose, draft
from agent_runtime.local_model.quantities import days_in, numbers_in
from agent_runtime.local_model.tool_schema import object_schema
from agent_runtime.local_model.wording import Question
from agent_runtime.tools import FunctionTool

TODAY = date(2026, 3, 18)  # a Wednesday


class Carrier(enum.Enum):
    ROYAL_MAIL = "royal_mail"
    COURIER = "courier"


def find_parcels(
    minimum_weight: float | None = None,
    maximum_weight: float | None = None,
    state: Literal["in_transit", "delivered", "returned"] | None = None,
    carrier: Carrier | None = None,
    sent_from: date | None = None,
    sent_to: date | None = None,
    recipient: str | None = None,
    insured: bool | None = None,
    limit: int = 10,
) -> None:
    """Find the parcels that were sent.

    Args:
        minimum_weight: At least this many kilos.
        maximum_weight: At most this many kilos.
        state: Where the parcel is.
        carrier: Who carries it.
        sent_from: The first day.
        sent_to: The last day.
        recipient: Who gets it.
        insured: Whether it is insured.
        limit: How many parcels to list.
    """


def get_weather(city: str, unit: Literal["celsius", "fahrenheit"] = "celsius") -> None:
    """Get the weather of a city."""


def add(a: float, b: float) -> None:
    """Add two numbers."""


def search_handbook(query: str) -> None:
    """Search the company handbook by meaning."""


def spec(function: Any) -> ToolSpec:
    return FunctionTool(function).spec


PARCELS, WEATHER, ADD, HANDBOOK = map(spec, (find_parcels, get_weather, add, search_handbook))


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("parcels above 5 kilos", {"minimum_weight": 5}),
        ("parcels heavier than 2.5 kilos, but no more than 10", {"minimum_weight": 2.5, "maximum_weight": 10}),
        ("Parcels between 2 and 4 kilos", {"minimum_weight": 2, "maximum_weight": 4}),
        ("parcels of 1-3 kilos", {"minimum_weight": 1, "maximum_weight": 3}),
        ("parcels of 7 kilos or more", {"minimum_weight": 7}),
        ("which parcels are in transit?", {"state": "in_transit"}),
        ("any returns by Royal Mail?", {"state": "returned", "carrier": "royal_mail"}),
        ("parcels that were not delivered", {}),
        ("show me 3 parcels", {"limit": 3}),
        ("insured parcels", {"insured": True}),
        ("parcels that are not insured", {"insured": False}),
        ("parcels for Ada Lovelace", {"recipient": "Ada Lovelace"}),
        ("Could you find Ada's parcels?", {"recipient": "Ada"}),
        ("parcels for ada lovelace under 5 kilos", {"recipient": "ada lovelace", "maximum_weight": 5}),
        ('parcels for "the front desk"', {"recipient": "the front desk"}),
        ("parcels sent since 1 March", {"sent_from": "2026-03-01"}),
        ("parcels sent last week", {"sent_from": "2026-03-09", "sent_to": "2026-03-15"}),
        ("parcels sent before 2026-02-01", {"sent_to": "2026-02-01"}),
        ("parcels", {}),
    ],
)
def test_what_the_words_say_becomes_arguments_and_the_rest_is_left_out(text: str, known: dict[str, Any]) -> None:
    sketch = draft(text, PARCELS, TODAY)
    assert (sketch.known, sketch.open) == (known, {})


def test_a_required_argument_that_the_words_do_not_tell_is_left_to_the_model_with_an_end() -> None:
    sketch = draft("what is the weather?", WEATHER, TODAY)
    assert sketch.known == {}
    assert object_schema(sketch.open) == {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 80}},
        "required": ["city"],
        "additionalProperties": False,
    }
    assert sketch.arguments({"city": "Oslo", "made_up": 1}) == {"city": "Oslo"}


def test_of_several_mentioned_values_the_model_chooses_one() -> None:
    sketch = draft("parcels that are delivered or returned", PARCELS, TODAY)
    assert sketch.open == {"state": {"enum": ["delivered", "returned"]}}


def test_a_generous_draft_leaves_every_unmentioned_argument_to_the_model_which_may_say_null() -> None:
    sketch = draft("parcels over 5 kilos", PARCELS, TODAY, generous=True)
    assert sketch.known == {"minimum_weight": 5}
    assert sketch.open["recipient"] == {"anyOf": [{"type": "string", "maxLength": 80}, {"type": "null"}]}
    assert sketch.arguments({"recipient": None}) == {"minimum_weight": 5}


def test_numbers_without_a_bound_go_to_the_required_parameters_in_their_order() -> None:
    assert draft("what is 3 plus 4.5?", ADD, TODAY).known == {"a": 3, "b": 4.5}


def test_a_search_gets_the_question_as_it_was_asked() -> None:
    assert draft("Can I work abroad?", HANDBOOK, TODAY).known == {"query": "Can I work abroad?"}


def test_lists_take_every_value_that_is_mentioned_and_are_bounded_where_they_are_open() -> None:
    def tag(labels: list[Literal["urgent", "billing", "spam"]], notes: list[str]) -> None:
        """Tag a ticket."""

    sketch = draft("tag it as urgent and billing", spec(tag), TODAY)
    assert sketch.known == {"labels": ["urgent", "billing"]}
    assert sketch.open == {
        "notes": {"type": "array", "items": {"type": "string", "maxLength": 80}, "maxItems": 8},
    }


@pytest.mark.parametrize(
    "text", ["hello", "Hi there!", "thanks", "Thank you, that helped", "what can you do?", "how are you?", "", "ok"]
)
def test_small_talk_calls_for_no_tool(text: str) -> None:
    assert choose(text, [PARCELS, WEATHER, HANDBOOK], TODAY) == []


@pytest.mark.parametrize(
    ("text", "tool"),
    [
        ("which parcels are in transit?", PARCELS),
        ("Hello, will the weather be nice in Oslo?", WEATHER),
        ("what is 3 plus 4?", ADD),
        ("may I bring my dog to the office?", HANDBOOK),
    ],
)
def test_the_words_choose_the_tool(text: str, tool: ToolSpec) -> None:
    assert choose(text, [PARCELS, WEATHER, ADD, HANDBOOK], TODAY) == [tool]


def test_what_no_tool_is_about_calls_for_none() -> None:
    assert choose("What is the capital of France?", [PARCELS, WEATHER], TODAY) == []


def test_tools_that_the_words_cannot_tell_apart_are_all_returned() -> None:
    def refund_order(order_id: int) -> None:
        """Refund an order."""

    def cancel_order(order_id: int) -> None:
        """Cancel an order."""

    tools = [spec(refund_order), spec(cancel_order)]
    assert choose("do something about order 1042", tools, TODAY) == tools


@pytest.mark.parametrize(("text", "about"), [("Who are you?", True), ("help", True), ("thanks!", False), ("hi", False)])
def test_questions_about_the_assistant_are_told_from_other_small_talk(text: str, about: bool) -> None:
    assert Question(text).is_about_assistant() is about


@pytest.mark.parametrize(
    ("text", "value", "bound"),
    [
        ("over £1,200", 1200, "lower"),
        ("no more than 1.5k", 1500, "upper"),
        ("not below two hundred", 200, "lower"),
        ("more than a thousand", 1000, "lower"),
        ("the 5 biggest", 5, "count"),
        ("the last 7 days", 7, "exact"),
        ("up to 20", 20, "upper"),
        ("at least $3.50", 3.5, "lower"),
        ("10 or fewer", 10, "upper"),
    ],
)
def test_numbers_are_read_with_what_bounds_them(text: str, value: float, bound: str) -> None:
    assert [(number.value, number.bound) for number in numbers_in(text)] == [(value, bound)]


def test_the_digits_of_an_identifier_are_no_number() -> None:
    assert numbers_in("orders #1042, A-17 and X99") == []


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("yesterday", date(2026, 3, 17), date(2026, 3, 17)),
        ("last month", date(2026, 2, 1), date(2026, 2, 28)),
        ("this week", date(2026, 3, 16), date(2026, 3, 22)),
        ("in December", date(2025, 12, 1), date(2025, 12, 31)),
        ("3rd of April 2025", date(2025, 4, 3), date(2025, 4, 3)),
        ("March 5, 2026", date(2026, 3, 5), date(2026, 3, 5)),
        ("in 2024", date(2024, 1, 1), date(2024, 12, 31)),
        ("the last 14 days", date(2026, 3, 4), TODAY),
    ],
)
def test_days_are_read_as_seen_from_today(text: str, first: date, last: date) -> None:
    assert [(days.first, days.last) for days in days_in(text, TODAY)] == [(first, last)]


def test_a_day_that_does_not_exist_is_none() -> None:
    assert days_in("on 31 June 2026", TODAY) == []


def test_a_day_that_bounds_nothing_is_the_day_that_the_tool_asks_for() -> None:
    def days_until(day: date) -> str:
        """Count the days until a date."""
        return day.isoformat()

    sketch = draft("how many days until 24 December 2026?", FunctionTool(days_until).spec, TODAY)
    assert sketch.known == {"day": "2026-12-24"}
