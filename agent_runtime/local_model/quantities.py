"""The numbers and days of a question, and how it bounds them: "over £1.2k", "between 5 and 10", "since March".

English only, and independent of tools and schemas.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Literal

from agent_runtime.local_model.wording import Span, stem, stems

Bound = Literal["lower", "upper", "count", "exact"]

_CURRENCIES = {
    "£": "pound", "$": "dollar", "€": "euro", "quid": "pound", "gbp": "pound", "usd": "dollar", "eur": "euro",
}  # fmt: skip
MONEY = frozenset(stems("pounds dollars euros amount price cost total value money spend"))

_SCALES = {"k": 1e3, "m": 1e6, "bn": 1e9, "hundred": 1e2, "thousand": 1e3, "million": 1e6, "grand": 1e3}
_SMALL = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_SPELLED = {"a": 1} | {word: i for i, word in enumerate(_SMALL)} | {word: 20 + 10 * i for i, word in enumerate(_TENS)}
_SPELLED_OUT = "|".join(sorted(_SPELLED, key=len, reverse=True))
# "a" and "one" are numbers only before a scale ("a hundred"); a digit behind # or a letter belongs to an identifier.
_NUMBER = re.compile(
    r"(?<![\w#.,])(?<![A-Za-z]-)(?P<sign>[£$€])?\s?"
    rf"(?:(?P<digits>\d+(?:,\d{{3}})*(?:\.\d+)?)(?P<suffix>k|m|bn)?|(?P<spelled>{_SPELLED_OUT}))"
    r"(?P<scales>(?:\s+(?:hundred|thousand|million|grand))*)\b",
    re.IGNORECASE,
)

_FILLER = r"(?:\s+(?:the|a|an|about|around|roughly|is|of|amount))*\s*$"
_NOT = r"\b(?:no|not|\w+n't)\s+(?:\w+\s+)?"
_BEFORE: tuple[tuple[Bound, str], ...] = (
    ("upper", _NOT + r"(?:(?:more|greater|bigger|larger|higher) than|over|above|exceed\w*)"),
    ("lower", _NOT + r"(?:(?:less|fewer|lower|smaller) than|under|below)"),
    ("upper", r"\b(?:below|under|beneath|at most|up to|max(?:imum)?|within|until)|<=?|≤"),
    ("upper", r"\b(?:less|fewer|lower|smaller|cheaper|shorter|younger|earlier) than"),
    ("lower", r"\b(?:above|over|beyond|exceed\w*|at least|starting at|upwards of|min(?:imum)?|from)|>=?|≥"),
    ("lower", r"\b(?:more|\w+er) than"),
    ("count", r"\b(?:top|first|last|latest|newest|best|biggest|largest|smallest|limit(?: to)?)"),
)
_LED_BY: tuple[tuple[Bound, re.Pattern[str]], ...] = tuple(
    (bound, re.compile(f"(?:{pattern}){_FILLER}")) for bound, pattern in _BEFORE
)
_AFTER: tuple[tuple[Bound, str], ...] = (
    (
        "lower",
        r"or (?:more|above|over|higher)|and (?:up|over|above|more)|plus\b(?!\s*[£$€\d])|\+(?!\s*[£$€\d])|upwards",
    ),
    ("upper", r"or (?:less|below|under|lower|fewer)|and (?:under|below|less)|tops\b|max\b"),
)
_FOLLOWED_BY: tuple[tuple[Bound, re.Pattern[str]], ...] = tuple(
    (bound, re.compile(rf"\s*(?:\w+\s+)?(?:{pattern})")) for bound, pattern in _AFTER
)
_SUPERLATIVE = re.compile(r"\s*(?:\w{3,}est|best|top|most)\b")
_BETWEEN = re.compile(r"\bbetween" + _FILLER)
_GAP = re.compile(r"\s*(?:\w+\s+)?(?:and|to|-|\u2013|\u2014)\s*")
_PLAIN_GAP = re.compile(r"\s*(?:to|-|\u2013|\u2014)\s*")
_TIME = frozenset(stems("days weeks months years hours minutes"))

_MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december",
)  # fmt: skip
_MONTH = rf"(?P<month>{'|'.join(_MONTHS)}|{'|'.join(month[:3] for month in _MONTHS if month != 'may')})"
_YEAR = r"(?:,?\s+(?P<year>(?:19|20)\d\d))"
_DAYS = tuple(
    re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE)
    for pattern in (
        r"(?P<iso>\d{4}-\d\d-\d\d)",
        rf"(?P<day>\d{{1,2}})(?:st|nd|rd|th)?\s+(?:of\s+)?{_MONTH}{_YEAR}?",
        rf"{_MONTH}\s+(?P<day>\d{{1,2}})(?:st|nd|rd|th)?{_YEAR}?",
        rf"{_MONTH}{_YEAR}",
        rf"(?:in|during|since|from|after|until|before)\s+{_MONTH}",  # bare, "may" and "march" are verbs too
        r"(?P<word>today|yesterday|tomorrow)",
        r"(?P<which>this|last|previous|current|next)\s+(?P<unit>week|month|year)",
        r"(?:last|past)\s+(?P<count>\d{1,4})\s+(?P<back>day|week)s",
        r"(?:in|during|since|from|after|until|before)\s+(?P<only_year>(?:19|20)\d\d)",
    )
)
_OPENING = re.compile(r"(?:since|from|after|until|before)\b", re.IGNORECASE)  # may be the first word of a match
_SINCE = re.compile(r"\b(?:since|from|after|starting)(?:\s+(?:the|on))*\s*$", re.IGNORECASE)
_UNTIL = re.compile(r"\b(?:until|till|before|up to|to|by)(?:\s+(?:the|on))*\s*$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Number:
    """A number of the question, what bounds it, and the stems of what it counts."""

    value: int | float
    span: Span
    bound: Bound
    units: frozenset[str]


@dataclass(frozen=True, slots=True)
class Days:
    """A day or a run of days of the question; `bound` says whether it opens or closes a range."""

    first: date
    last: date
    span: Span
    bound: Bound


def numbers_in(text: str) -> list[Number]:
    """The numbers of a text in their order; digits of identifiers (`#1042`) are none."""
    found: list[Number] = []
    for match in _NUMBER.finditer(text):
        if (match["spelled"] or "").lower() in {"a", "one"} and not match["scales"]:
            continue
        before, after = text[: match.start()].lower().replace("\u2019", "'"), text[match.end() :].lower()
        number = Number(_value(match), match.span(), _bound(before, after), _units(match["sign"], after))
        if found and (bounds := _as_range(text, found[-1], number)):
            found[-1], number = bounds
        found.append(number)
    return found


def days_in(text: str, today: date) -> list[Days]:
    """The days that a text names, in their order, as seen from `today`."""
    found: list[Days] = []
    read: list[Span] = []
    for pattern in _DAYS:
        for match in pattern.finditer(text):
            if any(match.start() < end and start < match.end() for start, end in read):
                continue  # an earlier, more specific pattern matched it
            read.append(match.span())
            ends = _ends({name: part.lower() for name, part in match.groupdict().items() if part}, today)
            if ends is not None:
                lead = text[: match.start()] + (opening[0] if (opening := _OPENING.match(match[0])) else "")
                bound: Bound = "lower" if _SINCE.search(lead) else "upper" if _UNTIL.search(lead) else "exact"
                found.append(Days(*ends, match.span(), bound))
    found.sort(key=lambda days: days.span)
    if len(found) == 2 and re.search(r"\b(?:between|from)\b", text[: found[0].span[0]].lower()):
        found = [replace(found[0], bound="lower"), replace(found[1], bound="upper")]
    return found


def _value(match: re.Match[str]) -> int | float:
    value = float(match["digits"].replace(",", "")) if match["digits"] else float(_SPELLED[match["spelled"].lower()])
    for scale in ((match["suffix"] or "").lower(), *match["scales"].lower().split()):
        value *= _SCALES.get(scale, 1)
    value = round(value, 6)
    return int(value) if value == int(value) else value


def _bound(before: str, after: str) -> Bound:
    for bound, pattern in _LED_BY:
        if pattern.search(before):
            # "the last 7 days" is a time, not a count of things.
            return "exact" if bound == "count" and _units(None, after) & _TIME else bound
    if _SUPERLATIVE.match(after):
        return "count"
    for bound, pattern in _FOLLOWED_BY:
        if pattern.match(after):
            return bound
    return "exact"


def _units(sign: str | None, after: str) -> frozenset[str]:
    following = re.match(r"\s*([^\W\d_]+)", after)
    words = [_CURRENCIES[sign]] if sign else []
    words += [_CURRENCIES.get(following[1], following[1])] if following else []
    return frozenset(stem(word) for word in words)


def _as_range(text: str, low: Number, high: Number) -> tuple[Number, Number] | None:
    """The two numbers as the ends of one range, where they are: "between 5 and 10", "5 to 10", "5-10 pounds"."""
    between, gap = bool(_BETWEEN.search(text[: low.span[0]].lower())), text[low.span[1] : high.span[0]]
    if not (_GAP.fullmatch(gap) if between or low.bound == "lower" else _PLAIN_GAP.fullmatch(gap)):
        return None
    if low.value > high.value or (high.bound not in {"exact", "upper"}):
        return None
    units = low.units | high.units
    return replace(low, bound="lower", units=units), replace(high, bound="upper", units=units)


def _ends(parts: dict[str, str], today: date) -> tuple[date, date] | None:
    """The first and last day of a match; None if there is no such day."""
    try:
        if iso := parts.get("iso"):
            return (day := date.fromisoformat(iso)), day
        if word := parts.get("word"):
            return (day := today + timedelta({"yesterday": -1, "tomorrow": 1}.get(word, 0))), day
        if count := parts.get("count"):
            return today - timedelta(int(count) * (7 if parts["back"] == "week" else 1)), today
        if year := parts.get("only_year"):
            return date(int(year), 1, 1), date(int(year), 12, 31)
        if unit := parts.get("unit"):
            return _period(unit, {"this": 0, "current": 0, "next": 1}.get(parts["which"], -1), today)
        return _in_month(parts, today)
    except ValueError:  # the 31st of June
        return None


def _period(unit: str, offset: int, today: date) -> tuple[date, date]:
    if unit == "week":
        monday = today - timedelta(today.weekday()) + timedelta(7 * offset)
        return monday, monday + timedelta(6)
    if unit == "year":
        return date(today.year + offset, 1, 1), date(today.year + offset, 12, 31)
    years, month = divmod(today.month - 1 + offset, 12)
    return _month_of(today.year + years, month + 1)


def _in_month(parts: dict[str, str], today: date) -> tuple[date, date]:
    """Without a year, the latest such day that is not in the future."""
    month = next(i for i, name in enumerate(_MONTHS, start=1) if name.startswith(parts["month"]))
    number = int(parts.get("day", 0))
    year = int(parts.get("year", today.year))
    first, last = (day := date(year, month, number), day) if number else _month_of(year, month)
    if "year" not in parts and first > today:
        first, last = (first.replace(year=year - 1),) * 2 if number else _month_of(year - 1, month)
    return first, last


def _month_of(year: int, month: int) -> tuple[date, date]:
    first = date(year, month, 1)
    return first, (first + timedelta(31)).replace(day=1) - timedelta(1)
