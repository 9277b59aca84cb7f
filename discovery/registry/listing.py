"""Records as a reader sees them: one object per name, and the whole list as bytes with an entity tag."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b

from discovery.contract import AgentRecord, InstanceRecord, Registration, match_words
from discovery.registry.leases import Record, changes_at
from discovery.registry.search import Found, Hit
from discovery.registry.table import Table

BEST_FIRST = ("up", "degraded", "registered", "draining", "stale", "down", "removed")
MAX_LAG = timedelta(seconds=1)  # of the times that heartbeats move
_OF_AGENT = tuple(AgentRecord.model_fields.keys() & Registration.model_fields.keys() - {"status"})
_OF_INSTANCE = tuple(InstanceRecord.model_fields.keys() & Registration.model_fields.keys() - {"status"})


@dataclass(frozen=True, slots=True)
class Entry:
    """One agent of the list: as an object for filters, and as JSON."""

    agent: AgentRecord
    json: bytes

    @classmethod
    def of(cls, agent: AgentRecord) -> "Entry":
        """Encode an agent."""
        return cls(agent, agent.model_dump_json().encode())


@dataclass(frozen=True, slots=True)
class Prepared:
    """`GET /agents`, ready to send."""

    entries: Sequence[Entry]
    body: bytes
    etag: str
    revision: int
    lineage: str

    @property
    def agents(self) -> tuple[AgentRecord, ...]:
        """The agents in it."""
        return tuple(entry.agent for entry in self.entries)


class Listing:
    """The list, encoded again only for names that changed, and only when a reader asks for it."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._outdated: set[str] | None = None  # None: all of them
        self._moved: set[str] = set()  # names of which heartbeats moved the times
        self._prepared: Prepared | None = None
        self._prepared_at: datetime | None = None

    def changed(self, name: str) -> None:
        """A change of the table concerns this name."""
        if self._outdated is not None:
            self._outdated.add(name)

    def moved(self, *names: str) -> None:
        """Heartbeats moved the times of these names."""
        self._moved.update(names)

    def reset(self) -> None:
        """The table was replaced."""
        self.__init__()

    def prepared(self, table: Table, now: datetime) -> Prepared:
        """The list as it is now; times that heartbeats moved may lag by a second."""
        ready, at = self._prepared, self._prepared_at
        is_recent = at is not None and timedelta(0) <= now - at < MAX_LAG
        if ready is not None and ready.revision == table.revision and (is_recent or not self._moved):
            return ready
        outdated = set(table.names) if self._outdated is None else self._outdated
        if not is_recent:
            outdated = outdated | self._moved
            self._moved, self._prepared_at = set(), now
        for name in outdated:
            agent = agent_record(table, name)
            if agent is None:
                self._entries.pop(name, None)
            else:
                self._entries[name] = Entry.of(agent)
        self._outdated = set()
        entries = [self._entries[name] for name in sorted(self._entries)]
        self._prepared = Prepared(entries, as_list(entries), tag_of(table), table.revision, table.lineage)
        return self._prepared


def tag_of(table: Table) -> str:
    """The weak tag of the whole list: it identifies the changes in it, not the heartbeats."""
    return f'W/"{table.lineage[:8]}-{table.revision}"'


def as_list(entries: Iterable[Entry]) -> bytes:
    """Agents as one JSON array."""
    return b"[" + b",".join([entry.json for entry in entries]) + b"]"


def selection_tag(entries: Iterable[Entry], context: str) -> str:
    """The weak tag of some agents: the revisions of their instances, and a text for all else it depends on."""
    digest = blake2b(context.encode(), digest_size=12)
    for entry in entries:
        revisions = [one.revision for one in entry.agent.instances]
        digest.update(f"{entry.agent.name}/{revisions}".encode())
    return f'W/"{digest.hexdigest()}"'


def agent_record(table: Table, name: str) -> AgentRecord | None:
    """All instances of one name as one object, the best of them on top; None where none is left."""
    until = None if table.guard is None else table.guard.until
    return merged(table.instances(name), until)


def hits_of(table: Table, found: Iterable[Found], words: Sequence[str]) -> list[Hit]:
    """What a store found, as the agents are now, with the places where the words occur."""
    hits: list[Hit] = []
    for name, score in found:
        agent = agent_record(table, name)
        if agent is not None:
            places = match_words(agent, words, every=False) or []
            hits.append(Hit(agent.model_copy(update={"matched": places}), score, places))
    return hits


def merged(records: Iterable[Record], guarded_until: datetime | None) -> AgentRecord | None:
    """As `agent_record`, from the records of one name."""
    ranked = sorted(records, key=_rank)
    if not ranked:
        return None
    best = ranked[0]
    return AgentRecord(
        **{field: getattr(best.registration, field) for field in _OF_AGENT},
        status=best.status,
        status_reason=best.reason,
        since=best.since,
        last_seen=best.last_seen,
        next_transition_at=_next_transition(best, guarded_until),
        reachability=best.reachability,
        conflict=next((one.conflict for one in ranked if one.conflict), None),
        instances=[_instance(record, guarded_until) for record in sorted(ranked, key=lambda record: record.key)],
    )


def _rank(record: Record) -> tuple[int, float, str]:
    # Among equals the latest registration, not the latest heartbeat: the best must not alternate.
    return BEST_FIRST.index(record.status), -record.registered_at.timestamp(), record.registration.instance_id


def _next_transition(record: Record, guarded_until: datetime | None) -> datetime | None:
    due = changes_at(record)
    is_guarded = guarded_until is not None and record.status in {"stale", "down"}
    return max(due, guarded_until) if due and is_guarded and guarded_until else due


def _instance(record: Record, guarded_until: datetime | None) -> InstanceRecord:
    return InstanceRecord(
        **{field: getattr(record.registration, field) for field in _OF_INSTANCE},
        status=record.status,
        status_reason=record.reason,
        since=record.since,
        registered_at=record.registered_at,
        last_seen=record.last_seen,
        next_transition_at=_next_transition(record, guarded_until),
        observed_address=record.observed_address,
        reachability=record.reachability,
        conflict=record.conflict,
        revision=record.revision,
    )
