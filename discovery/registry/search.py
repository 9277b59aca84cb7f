"""The words of a search and of a record: what every store indexes, how hits are ranked and why they match. Pure."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from unicodedata import normalize

from discovery.contract.models import AgentRecord, Matched, Registration, Skill, ToolInfo

MAX_WORDS = 16
MAX_TEXT = 200
MAX_WORD = 64
WEIGHTS = {"name": 8.0, "tools": 4.0, "skills": 4.0, "description": 3.0, "tags": 2.0, "owner": 1.0}

_WORD = re.compile(r"[^\W_]+")
_GENITIVE = re.compile("['\N{RIGHT SINGLE QUOTATION MARK}]s\\b")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
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


def words_in(text: str) -> list[str]:
    """The words of a text, in one spelling: `get_orderStatus` is get, order and status."""
    plain = normalize("NFKC", _CAMEL.sub(" ", _GENITIVE.sub("", text))).casefold()
    return [word[:MAX_WORD] for word in _WORD.findall(plain)]


def wanted(text: str) -> list[str]:
    """The words of a search box: all of them count."""
    return list(dict.fromkeys(words_in(text)))[:MAX_WORDS]


def asked(question: str) -> list[str]:
    """The significant words of a question, without a plural's s; all words where there is none."""
    words = wanted(question)
    significant = [word for word in words if word not in _STOP_WORDS] or words
    plurals = [len(word) > 3 and word.endswith("s") and not word.endswith("ss") for word in significant]
    return [word[:-1] if plural else word for word, plural in zip(significant, plurals, strict=True)]


def texts(agent: Registration | AgentRecord) -> Iterator[tuple[str, str]]:
    """The searchable texts, as (field, text)."""
    yield "name", agent.name
    yield "description", agent.description or ""
    yield "owner", agent.owner or ""
    for tag in agent.tags:
        yield "tags", tag
    for tool in agent.tools:
        yield "tools", f"{tool.name}: {tool.description or ''}" if isinstance(tool, ToolInfo) else tool
    for skill in agent.skills:
        if isinstance(skill, Skill):
            yield "skills", " ".join([f"{skill.name}: {skill.description or ''}", *skill.tags, *skill.examples])
        else:
            yield "skills", skill


def indexed(agent: Registration) -> dict[str, str]:
    """The words of each field, in one spelling and parted by blanks: what a full-text index takes."""
    columns: dict[str, list[str]] = {field: [] for field in WEIGHTS}
    for field, text in texts(agent):
        columns[field] += words_in(text)
    return {field: " ".join(words) for field, words in columns.items()}


def matched(agent: Registration | AgentRecord, words: Iterable[str], *, every: bool = True) -> list[Matched] | None:
    """Where words, or longer words that begin with them, occur; None if they do not."""
    missing, found = set(words), list[Matched]()
    looked_for = tuple(missing)
    for field, text in texts(agent):
        present = words_in(text)
        hits = {word for word in looked_for if any(one.startswith(word) for one in present)}
        if hits:
            found.append(Matched(field=field, text=" ".join(text.split())[:MAX_TEXT].rstrip(": ")))
            missing -= hits
    return found if found and not (every and missing) else None


def ranked(registered: Iterable[Registration], words: Sequence[str], *, every: bool, limit: int) -> list[Found]:
    """The names that fit best, for a store without an index of its own."""
    best: dict[str, float] = {}
    for agent in registered:
        if matched(agent, words, every=every) is not None:
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
