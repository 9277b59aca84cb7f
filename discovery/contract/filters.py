"""Which agents match filters and words. Shared by the registry, and by clients of a registry without filters."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Self, TypedDict, cast
from unicodedata import normalize

from discovery.contract.models import AgentRecord, Matched, Registration, Skill, ToolInfo

MAX_QUERY_WORDS = 16
MAX_WORD_LENGTH = 64
MAX_MATCHED_TEXT = 200

_WORD = re.compile(r"[^\W_]+")
_GENITIVE = re.compile("['\N{RIGHT SINGLE QUOTATION MARK}]s\\b")
_CAMEL_CASE = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def split_words(text: str) -> list[str]:
    """Normalise a text and split it into words: `get_orderStatus` is get, order and status."""
    plain = normalize("NFKC", _CAMEL_CASE.sub(" ", _GENITIVE.sub("", text))).casefold()
    return [word[:MAX_WORD_LENGTH] for word in _WORD.findall(plain)]


def query_words(text: str) -> list[str]:
    """The distinct words of a search query."""
    return list(dict.fromkeys(split_words(text)))[:MAX_QUERY_WORDS]


def searchable_texts(agent: Registration | AgentRecord) -> Iterator[tuple[str, str]]:
    """The texts of an agent that can be searched, as (field, text)."""
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


def match_words(agent: Registration | AgentRecord, words: Iterable[str], *, every: bool = True) -> list[Matched] | None:
    """The fields of an agent where the words, or words with such a prefix, occur.

    Returns None where nothing matches, or, with `every`, where one of the words is missing.
    """
    missing, matches = set(words), list[Matched]()
    prefixes = tuple(missing)
    for field, text in searchable_texts(agent):
        candidates = split_words(text)
        found = {prefix for prefix in prefixes if any(word.startswith(prefix) for word in candidates)}
        if found:
            matches.append(Matched(field=field, text=" ".join(text.split())[:MAX_MATCHED_TEXT].rstrip(": ")))
            missing -= found
    return matches if matches and not (every and missing) else None


class FilterValues(TypedDict, total=False):
    """Filters as keyword arguments: one value, or a list of alternatives."""

    status: str | Sequence[str]
    type: str | Sequence[str]
    tool: str | Sequence[str]
    tag: str | Sequence[str]
    owner: str | Sequence[str]
    q: str | Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """The values of one filter are alternatives; all filters must match; a filter without values matches everything.

    `status` is that of the best instance, as the list shows it; `type`, `tool`, `tag` and `owner` are exact. Each word
    of `q`, or a word with such a prefix, must occur in the name, description, owner, tags, tools or skills.
    """

    status: tuple[str, ...] = ()
    type: tuple[str, ...] = ()
    tool: tuple[str, ...] = ()
    tag: tuple[str, ...] = ()
    owner: tuple[str, ...] = ()
    q: tuple[str, ...] = ()

    @classmethod
    def of(cls, values: FilterValues) -> Self:
        """Filters from keyword arguments."""
        given = cast("Mapping[str, str | Sequence[str]]", values)
        return cls(**{name: (value,) if isinstance(value, str) else tuple(value) for name, value in given.items()})

    def __bool__(self) -> bool:
        return any(asdict(self).values())

    @property
    def parameters(self) -> list[tuple[str, str]]:
        """The filters as query parameters."""
        return [(name, value) for name, values in asdict(self).items() for value in values]

    def apply(self, agents: Iterable[AgentRecord]) -> list[AgentRecord]:
        """The agents that match all filters, in their order."""
        queries = [query_words(text) for text in self.q]
        return [agent for agent in agents if self.matches(agent) and (not queries or _matches_any(agent, queries))]

    def matches(self, agent: AgentRecord) -> bool:
        """Whether an agent matches all filters except `q`."""
        fields = (
            (self.status, {agent.status}),
            (self.type, {agent.agent_type}),
            (self.tool, {tool if isinstance(tool, str) else tool.name for tool in agent.tools} if self.tool else ()),
            (self.tag, agent.tags),
            (self.owner, {agent.owner}),
        )
        return all(not values or any(value in actual for value in values) for values, actual in fields)


def _matches_any(agent: AgentRecord, queries: list[list[str]]) -> bool:
    return any(bool(words) and match_words(agent, words) is not None for words in queries)
