"""The words of a search and of a record: what every store indexes, how hits are ranked and why they match. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

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

_STOP_WORDS = frozenset(
    words
    for line in (
        "a about agent agents an and any are as at be by can could do does find for from get give has have help how i",
        "in is it know me my of on one or our please service show some tell that the their them there this to us want",
        "we what where which who with you your",
    )
    for words in line.split()
)


class Found(NamedTuple):
    """A name that a store found, with its score: more is better, comparable within one answer only."""

    name: str
    score: float


@dataclass(frozen=True, slots=True)
class Hit:
    """An agent that a search found, with its score within this answer, and where it matched."""

    agent: AgentRecord
    score: float
    matched: list[Matched]


def asked(question: str) -> list[str]:
    """The significant words of a question, without a plural's s; all words where there is none."""
    words = query_words(question)
    significant = [word for word in words if word not in _STOP_WORDS] or words
    plurals = [len(word) > 3 and word.endswith("s") and not word.endswith("ss") for word in significant]
    return [word[:-1] if plural else word for word, plural in zip(significant, plurals, strict=True)]


def indexed(agent: Registration) -> dict[str, str]:
    """The words of each field, in one spelling and parted by blanks: what a full-text index takes."""
    columns: dict[str, list[str]] = {field: [] for field in WEIGHTS}
    for field, text in searchable_texts(agent):
        columns[field] += split_words(text)
    return {field: " ".join(words) for field, words in columns.items()}


def ranked(registered: Iterable[Registration], words: Sequence[str], *, every: bool, limit: int) -> list[Found]:
    """The names that fit best, for a store without an index of its own."""
    best: dict[str, float] = {}
    for agent in registered:
        if match_words(agent, words, every=every) is not None:
            best[agent.name] = max(best.get(agent.name, 0.0), _score(agent, words))
    ordered = sorted(best.items(), key=lambda pair: (-pair[1], pair[0]))
    return [Found(name, score) for name, score in ordered[:limit]]


def _score(agent: Registration, words: Sequence[str]) -> float:
    columns = {field: text.split() for field, text in indexed(agent).items()}
    return sum(
        WEIGHTS[field] * any(one.startswith(word) for one in present)
        for word in words
        for field, present in columns.items()
    )
