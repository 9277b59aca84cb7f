"""Words, and where they stand in a record: what every store indexes, and why a hit is one. Pure."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from unicodedata import normalize

from discovery.contract.models import AgentRecord, Matched, Registration, Skill, ToolInfo

MOST_WORDS = 16
LONGEST_TEXT = 200
LONGEST_WORD = 64
WEIGHTS = {"name": 8.0, "tools": 4.0, "skills": 4.0, "description": 3.0, "tags": 2.0, "owner": 1.0}

_WORD = re.compile(r"[^\W_]+")
_GENITIVE = re.compile("['\N{RIGHT SINGLE QUOTATION MARK}]s\\b")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
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


def words_in(text: str) -> list[str]:
    """The words of a text, in one spelling: `get_orderStatus` is get, order and status."""
    plain = normalize("NFKC", _CAMEL.sub(" ", _GENITIVE.sub("", text))).casefold()
    return [word[:LONGEST_WORD] for word in _WORD.findall(plain)]


def wanted(text: str) -> list[str]:
    """The words of a search box: all of them count."""
    return list(dict.fromkeys(words_in(text)))[:MOST_WORDS]


def asked(question: str) -> list[str]:
    """The words of a question that say what it is about, without a plural's s; all words where none does."""
    words = wanted(question)
    telling = [word for word in words if word not in _FILLER] or words
    return [word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word for word in telling]


def texts(said: Registration | AgentRecord) -> Iterator[tuple[str, str]]:
    """What can be found, as (field, text)."""
    yield "name", said.name
    yield "description", said.description or ""
    yield "owner", said.owner or ""
    for tag in said.tags:
        yield "tags", tag
    for tool in said.tools:
        yield "tools", f"{tool.name}: {tool.description or ''}" if isinstance(tool, ToolInfo) else tool
    for skill in said.skills:
        if isinstance(skill, Skill):
            yield "skills", " ".join([f"{skill.name}: {skill.description or ''}", *skill.tags, *skill.examples])
        else:
            yield "skills", skill


def indexed(said: Registration) -> dict[str, str]:
    """The words of each field, in one spelling and parted by blanks: what a full-text index takes."""
    columns: dict[str, list[str]] = {field: [] for field in WEIGHTS}
    for field, text in texts(said):
        columns[field] += words_in(text)
    return {field: " ".join(words) for field, words in columns.items()}


def matched(said: Registration | AgentRecord, words: Iterable[str], *, every: bool = True) -> list[Matched] | None:
    """Where words, or words that begin like them, stand; None where they do not."""
    missing, found = set(words), list[Matched]()
    looked_for = tuple(missing)
    for field, text in texts(said):
        said_here = words_in(text)
        there = {word for word in looked_for if any(one.startswith(word) for one in said_here)}
        if there:
            found.append(Matched(field=field, text=" ".join(text.split())[:LONGEST_TEXT].rstrip(": ")))
            missing -= there
    return found if found and not (every and missing) else None


def ranked(registered: Iterable[Registration], words: Sequence[str], *, every: bool, limit: int) -> list[Found]:
    """The names that fit best, for a store without an index of its own."""
    best: dict[str, float] = {}
    for said in registered:
        if matched(said, words, every=every) is not None:
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
