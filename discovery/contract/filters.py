"""Which agents a reader asked for. Pure, and shared by the registry and by clients of one that cannot filter."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Self, TypedDict, cast

from discovery.contract.models import AgentRecord
from discovery.registry.search import matched, wanted


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
    plain words in any case: each, or one that begins like it, must stand somewhere in what the agent says of itself.
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
        searched = [wanted(text) for text in self.q]
        return [agent for agent in agents if self.hold(agent) and (not searched or _mentions(agent, searched))]

    def hold(self, agent: AgentRecord) -> bool:
        """Whether an agent is chosen, as far as that shows without its words."""
        there = (
            (self.status, {agent.status}),
            (self.type, {agent.agent_type}),
            (self.tool, {tool if isinstance(tool, str) else tool.name for tool in agent.tools} if self.tool else ()),
            (self.tag, agent.tags),
            (self.owner, {agent.owner}),
        )
        return all(not values or any(value in found for value in values) for values, found in there)


def _mentions(agent: AgentRecord, searched: list[list[str]]) -> bool:
    return any(bool(words) and matched(agent, words) is not None for words in searched)
