"""Which agents a reader asked for. Pure, and shared by the registry and by clients of one that cannot filter."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Self, TypedDict, cast
from unicodedata import normalize

from discovery.contract import AgentRecord, ToolInfo


class Chosen(TypedDict, total=False):
    """Filters as a caller writes them: one value, or several that are alternatives."""

    status: str | Sequence[str]
    type: str | Sequence[str]
    tool: str | Sequence[str]
    tag: str | Sequence[str]
    owner: str | Sequence[str]
    q: str | Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Values of one filter are alternatives; all filters must hold; one without values holds for everything.

    `status` is that of the best instance, as the list shows it; `type`, `tool`, `tag` and `owner` are exact. `q` is
    plain words in any case: each must occur in the name, the description, the owner, a tag or a tool.
    """

    status: tuple[str, ...] = ()
    type: tuple[str, ...] = ()
    tool: tuple[str, ...] = ()
    tag: tuple[str, ...] = ()
    owner: tuple[str, ...] = ()
    q: tuple[str, ...] = ()

    @classmethod
    def of(cls, chosen: Chosen) -> Self:
        """Filters from keyword arguments."""
        given = cast("Mapping[str, str | Sequence[str]]", chosen)
        return cls(**{name: (value,) if isinstance(value, str) else tuple(value) for name, value in given.items()})

    def __bool__(self) -> bool:
        return any(asdict(self).values())

    @property
    def parameters(self) -> list[tuple[str, str]]:
        """As the query of a request."""
        return [(name, value) for name, values in asdict(self).items() for value in values]

    def choose(self, agents: Iterable[AgentRecord]) -> list[AgentRecord]:
        """The agents that all filters hold for, in their order."""
        wanted = [_folded(words).split() for words in self.q]
        return [agent for agent in agents if self._hold(agent) and (not wanted or _mentions(agent, wanted))]

    def _hold(self, agent: AgentRecord) -> bool:
        there = (
            (self.status, {agent.status}),
            (self.type, {agent.agent_type}),
            (self.tool, {tool if isinstance(tool, str) else tool.name for tool in agent.tools} if self.tool else ()),
            (self.tag, agent.tags),
            (self.owner, {agent.owner}),
        )
        return all(not values or any(value in found for value in values) for values, found in there)


def _mentions(agent: AgentRecord, wanted: list[list[str]]) -> bool:
    texts = [agent.name, agent.description or "", agent.owner or "", *agent.tags]
    for tool in agent.tools:
        texts += [tool.name, tool.description or ""] if isinstance(tool, ToolInfo) else [tool]
    text = _folded("\n".join(texts))
    return any(all(word in text for word in words) for words in wanted)


def _folded(text: str) -> str:
    """One spelling for what reads alike: upper and lower case, an accent in one character or in two."""
    return normalize("NFKC", text).casefold()
