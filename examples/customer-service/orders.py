"""The orders of a small office-furniture shop: two tools over the table in orders.csv."""

from __future__ import annotations

import csv
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Literal

ORDERS = Path(__file__).with_name("orders.csv")
MOST_ROWS = 20

Status = Literal["pending", "shipped", "delivered", "cancelled", "refunded"]
Region = Literal["north", "south", "east", "west"]
Period = Literal["today", "yesterday", "this_week", "last_week", "this_month", "last_month", "this_year", "last_year"]


def search_orders(
    minimum_amount: float | None = None,
    maximum_amount: float | None = None,
    period: Period | None = None,
    status: Status | None = None,
    customer: str | None = None,
    region: Region | None = None,
) -> str:
    """Find the orders that customers placed, what was bought and sold, with their number and total.

    Args:
        minimum_amount: Only orders of at least this many pounds.
        maximum_amount: Only orders of at most this many pounds.
        period: When the order was placed.
        status: Where the order stands.
        customer: The name of the customer, or a part of it.
        region: Where the customer is.
    """
    first, last = bounds(period, today())
    rows = query(
        """
        SELECT id, ordered_on, customer, product, amount, status, region FROM orders
        WHERE amount >= coalesce(:minimum, amount) AND amount <= coalesce(:maximum, amount)
        AND ordered_on BETWEEN :first AND :last
        AND status = coalesce(:status, status) AND region = coalesce(:region, region)
        AND instr(lower(customer), lower(coalesce(:customer, ''))) > 0
        ORDER BY ordered_on DESC, id DESC
        """,
        minimum=minimum_amount, maximum=maximum_amount, first=first, last=last,
        status=status, region=region, customer=customer,
    )  # fmt: skip
    filters = _filter_words(minimum_amount, maximum_amount, period, status, customer, region)
    if not rows:
        return f"There are no orders{filters}."
    total = sum(row[4] for row in rows)
    summary = f"{len(rows)} order{'s' if len(rows) > 1 else ''}{filters}, £{total:,.2f} together"
    if len(rows) > MOST_ROWS:
        summary += f"; the newest {MOST_ROWS} are shown"
    shown = [(*row[:4], f"£{row[4]:,.2f}", *row[5:]) for row in rows[:MOST_ROWS]]
    return f"{summary}.\n\n" + table(("Order", "Date", "Customer", "Product", "Amount", "Status", "Region"), shown)


def top_customers(period: Period | None = None, count: int = 5) -> str:
    """Rank the best customers by how much they spent, the top spender first.

    Args:
        period: When they spent it.
        count: How many customers to list.
    """
    first, last = bounds(period, today())
    rows = query(
        """
        SELECT customer, count(*), sum(amount) FROM orders
        WHERE ordered_on BETWEEN :first AND :last AND status NOT IN ('cancelled', 'refunded')
        GROUP BY customer ORDER BY sum(amount) DESC, customer LIMIT :count
        """,
        first=first, last=last, count=max(1, min(count, MOST_ROWS)),
    )  # fmt: skip
    when = f" {_words(period)}" if period else ""
    if not rows:
        return f"No customer spent anything{when}."
    shown = [(customer, number, f"£{spent:,.2f}") for customer, number, spent in rows]
    summary = f"The top {len(rows)} customers{when}; cancelled and refunded orders do not count."
    return f"{summary}\n\n" + table(("Customer", "Orders", "Spent"), shown)


def today() -> date:
    """The day that "today" and every other period are counted from."""
    return datetime.now().astimezone().date()


def query(sql: str, **values: str | float | None) -> list[tuple]:
    """Run a SELECT on the table `orders` as of today."""
    with closing(sqlite3.connect(":memory:")) as database, ORDERS.open(encoding="utf-8", newline="") as file:
        database.execute("CREATE TABLE orders (id INTEGER, ordered_on, customer, product, amount REAL, status, region)")
        # The file has the number of days before today, so that "last month" always has orders.
        rows = [{**row, "ordered_on": str(today() - timedelta(int(row["days_ago"])))} for row in csv.DictReader(file)]
        database.executemany(
            "INSERT INTO orders VALUES (:id, :ordered_on, :customer, :product, :amount, :status, :region)", rows
        )
        return database.execute(sql, values).fetchall()


def bounds(period: Period | None, day: date) -> tuple[str, str]:
    """The first and the last day of a period, as seen from `day`; weeks start on Monday."""
    week, month, year = day - timedelta(day.weekday()), day.replace(day=1), day.replace(month=1, day=1)
    before = timedelta(1)
    first, last = {
        "today": (day, day),
        "yesterday": (day - before, day - before),
        "this_week": (week, day),
        "last_week": (week - timedelta(7), week - before),
        "this_month": (month, day),
        "last_month": ((month - before).replace(day=1), month - before),
        "this_year": (year, day),
        "last_year": (year.replace(year=year.year - 1), year - before),
        None: (date.min, day),
    }[period]
    return str(first), str(last)


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = (heads, ["---"] * len(heads), *rows)
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _filter_words(
    minimum: float | None, maximum: float | None, period: str | None, status: str | None, customer: str | None,
    region: str | None,
) -> str:  # fmt: skip
    """The filters in words, so that the answer shows how the question was understood."""
    parts = [
        f"from £{minimum:,.2f}" if minimum is not None else "",
        f"up to £{maximum:,.2f}" if maximum is not None else "",
        f"of customers named {customer!r}" if customer else "",
        f"in the {region}" if region else "",
        f"with status {status}" if status else "",
        f"placed {_words(period)}" if period else "",
    ]
    return "".join(f" {part}" for part in parts if part)


def _words(name: str | None) -> str:
    return (name or "").replace("_", " ")
