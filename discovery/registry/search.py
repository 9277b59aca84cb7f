"""Ranking of agents by the words of a query, and what the stores index."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from discovery.contract import (
    AgentRecord,
    Matched,
    Registration,
    match_words,
    query_words,
    searchable_texts,
    split_words,
)

WEIGHTS = {"name": 8.0, "tools": 4.0, "skills": 4.0, "description": 3.0, "tags": 2.0, "owner": 1.0}

_FILLER = frozenset(
    words
    for line in (
        "a about agent agents an and any are as at be by can could do does find for from get give has have help how i",
        "in is it know me my of on one or our please service show some tell that the their them there this to us want",
        "we what where which who with you your",
    )
    for words in line.split()
)


@dataclass(frozen=True, slots=True)
class Found:
    """A name that a store found, and how well it fits. Scores compare within one answer only; more is better."""

    name: str
    score: float


@dataclass(frozen=True, slots=True)
class Hit:
    """An agent that a search found, how well it fits (within this answer), and why."""

    agent: AgentRecord
    score: float
    matched: list[Matched]


def asked(question: str) -> list[str]:
    """The words of a question that say what it is about, without a plural's s; all words where none does."""
    words = query_words(question)
    telling = [word for word in words if word not in _FILLER] or words
    return [word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word for word in telling]


def indexed(said: Registration) -> dict[str, str]:
    """The words of each field, in one spelling and parted by blanks: what a full-text index takes."""
    columns: dict[str, list[str]] = {field: [] for field in WEIGHTS}
    for field, text in searchable_texts(said):
        columns[field] += split_words(text)
    return {field: " ".join(words) for field, words in columns.items()}


def ranked(registered: Iterable[Registration], words: Sequence[str], *, every: bool, limit: int) -> list[Found]:
    """The names that fit best, for a store without an index of its own."""
    best: dict[str, float] = {}
    for said in registered:
        if match_words(said, words, every=every) is not None:
            best[said.name] = max(best.get(said.name, 0.0), _score(said, words))
    ordered = sorted(best.items(), key=lambda pair: (-pair[1], pair[0]))
    return [Found(name, score) for name, score in ordered[:limit]]


def _score(said: Registration, words: Sequence[str]) -> float:
    columns = {field: text.split() for field, text in indexed(said).items()}
    return sum(
        WEIGHTS[field] * any(one.startswith(word) for one in there)
        for word in words
        for field, there in columns.items()
    )
