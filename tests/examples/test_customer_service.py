"""The customer service example: right rows on any day, and the built-in model asks for the right ones."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from agent_runtime.agent_file import load
from agent_runtime.models.local import LocalModel

FOLDER = Path(__file__).parents[2] / "examples" / "customer-service"


@pytest.fixture
def evaluate(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The example's own evaluation; `evaluate.orders` are its tools."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module("evaluate")
    for name in ("evaluate", "orders"):
        sys.modules.pop(name, None)


async def test_the_file_is_valid_and_means_the_built_in_model_where_the_environment_says_nothing() -> None:
    config = (await load(FOLDER / "agent.yaml", environment={})).config
    assert (config.model.provider, config.model.name) == ("local", "smollm2-135m")
    assert config.model.endpoint is None


@pytest.mark.parametrize("today", [date(2026, 1, 1), date(2026, 7, 15), date(2028, 2, 29), date(2029, 12, 31)])
def test_every_period_of_the_tool_is_what_the_questions_mean_by_it(
    evaluate: ModuleType, monkeypatch: pytest.MonkeyPatch, today: date
) -> None:
    orders = evaluate.orders
    monkeypatch.setattr(orders, "today", lambda: today)
    month, year = "strftime('%Y-%m', ordered_on)", "strftime('%Y', ordered_on)"
    for period, condition in {
        "today": "ordered_on = :today",
        "yesterday": "ordered_on = date(:today, '-1 day')",
        "this_week": "ordered_on > date(:today, 'weekday 0', '-7 days')",
        "last_week": "ordered_on > date(:today, 'weekday 0', '-14 days') "
        "AND ordered_on <= date(:today, 'weekday 0', '-7 days')",
        "this_month": f"{month} = strftime('%Y-%m', :today)",
        "last_month": f"{month} = strftime('%Y-%m', :today, 'start of month', '-1 day')",
        "this_year": f"{year} = strftime('%Y', :today)",
        "last_year": f"{year} = strftime('%Y', :today, '-1 year')",
    }.items():
        wanted = orders.query(f"SELECT id FROM orders WHERE {condition}", today=str(today))
        assert evaluate.matches(orders.search_orders(period=period), [str(row[0]) for row in wanted]), period


def test_last_month_has_orders_above_500_pounds_on_every_day_of_the_next_years(
    evaluate: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    for days in range(0, 800, 7):
        monkeypatch.setattr(evaluate.orders, "today", lambda days=days: date(2026, 1, 1) + timedelta(days))
        assert "| delivered |" in evaluate.orders.search_orders(minimum_amount=500, period="last_month")


def test_an_answer_says_how_many_and_how_much_and_shows_at_most_twenty(evaluate: ModuleType) -> None:
    answer = evaluate.orders.search_orders()
    total = sum(row[0] for row in evaluate.orders.query("SELECT amount FROM orders"))
    assert answer.startswith(f"190 orders, £{total:,.2f} together; the newest 20 are shown.\n\n| Order |")
    assert len(answer.splitlines()) == 2 + 2 + 20


def test_no_rows_are_a_sentence_that_repeats_what_was_asked(evaluate: ModuleType) -> None:
    answer = evaluate.orders.search_orders(minimum_amount=100_000, period="last_month", customer="Nobody")
    assert answer == "There are no orders from £100,000.00 of customers named 'Nobody' placed last month."


def test_a_name_is_a_value_and_never_a_part_of_the_query(evaluate: ModuleType) -> None:
    assert evaluate.orders.search_orders(customer="' OR 1=1 --").startswith("There are no orders")


def test_there_are_twenty_questions_and_most_have_rows_today(evaluate: ModuleType) -> None:
    entries = yaml.safe_load(evaluate.QUESTIONS.read_text(encoding="utf-8"))
    assert len({entry["question"] for entry in entries}) == 20
    answered = [evaluate.orders.query(entry["sql"], today=str(evaluate.orders.today())) for entry in entries]
    assert sum(map(bool, answered)) >= 12


@pytest.mark.model
async def test_the_built_in_model_gets_at_least_16_of_the_20_questions_right(evaluate: ModuleType) -> None:
    async with LocalModel() as model:
        outcomes = [outcome async for outcome in evaluate.outcomes(model)]
    wrong = [f"{outcome.question} → {outcome.call}" for outcome in outcomes if not outcome.correct]
    assert len(outcomes) - len(wrong) >= 16, "\n".join(wrong)
