"""Records as a reader sees them: one object per name, and the whole list kept ready as bytes with a tag."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any

from discovery.contract import AgentRecord, InstanceRecord, format_timestamp
from discovery.registry.leases import Record, changes_at
from discovery.registry.table import Table

BEST_FIRST = ("up", "degraded", "registered", "draining", "stale", "down", "removed")
LAG = timedelta(seconds=1)
# Every heartbeat moves these, and a list that is polled should not look new for that.
_RESTLESS = {"last_seen", "next_transition_at"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One agent of the list: as filters see it, and as it is sent. `pieces` is that without its moving times."""

    agent: AgentRecord
    pieces: Sequence[bytes]
    sent: bytes

    @classmethod
    def of(cls, agent: AgentRecord) -> "Entry":
        """Encode an agent. The moving times come last in its object and in those of its instances."""
        text = agent.model_dump_json(exclude={*_RESTLESS, "instances"})[:-1] + ',"instances":['
        pieces: list[bytes] = []
        for one in agent.instances:
            pieces.append((text + one.model_dump_json(exclude=_RESTLESS)[:-1]).encode())
            text = "},"
        pieces.append(b"}]")
        return cls(agent, pieces, _sent(pieces, agent))

    def at(self, agent: AgentRecord) -> "Entry":
        """The same agent at other times."""
        return Entry(agent, self.pieces, _sent(self.pieces, agent))


@dataclass(frozen=True, slots=True)
class Prepared:
    """`GET /agents`, ready to send."""

    entries: Sequence[Entry]
    body: bytes
    etag: str
    revision: int

    @property
    def agents(self) -> tuple[AgentRecord, ...]:
        """What is in it."""
        return tuple(entry.agent for entry in self.entries)


class Listing:
    """The list, made again only where something changed; moved times reach it within a second."""

    def __init__(self) -> None:
        self._made: dict[str, Entry] = {}
        self._order: list[str] | None = None  # the names, until one comes or goes
        self._changed: set[str] = set()
        self._heard: set[str] = set()
        self._prepared: Prepared | None = None
        self._made_at: datetime | None = None

    def changed(self, name: str) -> None:
        """Something about a name is different."""
        self._changed.add(name)

    def heard(self, *names: str) -> None:
        """A heartbeat moved the times of a name."""
        self._heard.update(names)

    def forget(self) -> None:
        """Everything may be different."""
        self.__init__()

    def prepared(self, table: Table, now: datetime) -> Prepared:
        """The list as it is now."""
        ready, made_at = self._prepared, self._made_at
        fresh = ready is not None and made_at is not None and timedelta(0) <= now - made_at < LAG
        if ready is not None and ready.revision == table.revision and (fresh or not self._heard):
            return ready
        for name in table.names if ready is None else self._changed:
            self._make(table, name)
        if not fresh:
            for name in self._heard - self._changed:
                self._move(table, name)
            self._heard, self._made_at = set(), now
        self._changed = set()
        if self._order is None:
            self._order = sorted(self._made)
        entries = [self._made[name] for name in self._order]
        self._prepared = Prepared(entries, as_list(entries), tag_of(table), table.revision)
        return self._prepared

    def _make(self, table: Table, name: str) -> None:
        agent = agent_record(table, name)
        if (agent is None) == (name in self._made):
            self._order = None
        if agent is None:
            self._made.pop(name, None)
        else:
            self._made[name] = Entry.of(agent)

    def _move(self, table: Table, name: str) -> None:
        made, until = self._made.get(name), table.guard and table.guard.until
        agent = made and _moved(made.agent, table.instances(name), until)
        if made and agent:
            self._made[name] = made.at(agent)
        else:
            self._make(table, name)


def tag_of(table: Table) -> str:
    """The weak tag of the whole list: it says which changes are in it, not which heartbeats."""
    return f'W/"{table.lineage[:8]}-{table.revision}"'


def as_list(entries: Iterable[Entry]) -> bytes:
    """Agents as one array."""
    return b"[" + b",".join([entry.sent for entry in entries]) + b"]"


def chosen_tag(entries: Iterable[Entry], besides: str) -> str:
    """A weak tag of some agents; `besides` is what else of the answer it stands for."""
    said = blake2b(besides.encode(), digest_size=12)
    for entry in entries:
        for piece in entry.pieces:
            said.update(piece)
    return f'W/"{said.hexdigest()}"'


def agent_record(table: Table, name: str) -> AgentRecord | None:
    """All instances of one name as one object, the best of them on top; None where none is left."""
    until = None if table.guard is None else table.guard.until
    return merged(table.instances(name), until)


def _moved(agent: AgentRecord, records: Sequence[Record], guarded_until: datetime | None) -> AgentRecord | None:
    """The same agent with the times of now; None where more than times is different."""
    there = {record.registration.instance_id: record for record in records}
    instances: list[InstanceRecord] = []
    for one in agent.instances:
        record = there.get(one.instance_id)
        if record is None or record.reachability is not one.reachability or record.conflict is not one.conflict:
            return None
        instances.append(one.model_copy(update=_times(record, guarded_until)))
    best = min(records, key=_goodness)
    return agent.model_copy(update={**_times(best, guarded_until), "instances": instances})


def _times(record: Record, guarded_until: datetime | None) -> dict[str, Any]:
    return {"last_seen": record.last_seen, "next_transition_at": _next(record, guarded_until)}


def _sent(pieces: Sequence[bytes], agent: AgentRecord) -> bytes:
    parts: list[bytes] = []
    for piece, one in zip(pieces, (*agent.instances, agent), strict=True):
        seen, due = one.last_seen, one.next_transition_at
        told = (f'"{format_timestamp(moment)}"' if moment else "null" for moment in (seen, due))
        parts += piece, b',"last_seen":%b,"next_transition_at":%b' % tuple(text.encode() for text in told)
    return b"".join(parts) + b"}"


def merged(records: Iterable[Record], guarded_until: datetime | None) -> AgentRecord | None:
    """As `agent_record`, of records that were taken from a table earlier."""
    alive = sorted(records, key=_goodness)
    if not alive:
        return None
    best = alive[0]
    said = best.registration.model_dump(include=set(AgentRecord.model_fields), exclude={"status"})
    return AgentRecord(
        **said,
        status=best.status,
        status_reason=best.reason,
        since=best.since,
        last_seen=best.last_seen,
        next_transition_at=_next(best, guarded_until),
        reachability=best.reachability,
        conflict=next((one.conflict for one in alive if one.conflict), None),
        instances=[_instance(record, guarded_until) for record in sorted(alive, key=lambda record: record.key)],
    )


def _goodness(record: Record) -> tuple[int, float, str]:
    # Between equals the youngest registration, not the latest heartbeat: the top must not flicker.
    return BEST_FIRST.index(record.status), -record.registered_at.timestamp(), record.registration.instance_id


def _next(record: Record, guarded_until: datetime | None) -> datetime | None:
    due = changes_at(record)
    held = guarded_until is not None and record.status in {"stale", "down"}
    return max(due, guarded_until) if due and held and guarded_until else due


def _instance(record: Record, guarded_until: datetime | None) -> InstanceRecord:
    said = record.registration.model_dump(include=set(InstanceRecord.model_fields), exclude={"status"})
    return InstanceRecord(
        **said,
        status=record.status,
        status_reason=record.reason,
        since=record.since,
        registered_at=record.registered_at,
        last_seen=record.last_seen,
        next_transition_at=_next(record, guarded_until),
        observed_address=record.observed_address,
        reachability=record.reachability,
        conflict=record.conflict,
        revision=record.revision,
    )
