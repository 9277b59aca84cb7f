"""Records as a reader sees them: one object per name, and the whole list kept ready as bytes with a tag."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b

from pydantic import TypeAdapter

from discovery.contract import AgentRecord, InstanceRecord
from discovery.leases import Record, changes_at
from discovery.table import Table

BEST_FIRST = ("up", "degraded", "registered", "draining", "stale", "down", "removed")
LAG = timedelta(seconds=1)
# Every heartbeat moves these, and a list that is polled should not look new for that.
_RESTLESS = {"last_seen", "next_transition_at"}
_UNTAGGED = {"__all__": {**dict.fromkeys(_RESTLESS, True), "instances": {"__all__": _RESTLESS}}}
_AGENTS = TypeAdapter(list[AgentRecord])


@dataclass(frozen=True, slots=True)
class Prepared:
    """`GET /agents`, ready to send."""

    agents: tuple[AgentRecord, ...]
    body: bytes
    etag: str
    revision: int


class Listing:
    """The list, made again only where something changed; moved times reach it within a second."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[AgentRecord, bytes]] = {}
        self._changed: set[str] = set()
        self._heard: set[str] = set()
        self._prepared: Prepared | None = None
        self._made_at: datetime | None = None

    def changed(self, name: str) -> None:
        """Something about a name is different."""
        self._changed.add(name)

    def heard(self, name: str) -> None:
        """A heartbeat moved the times of a name."""
        self._heard.add(name)

    def forget(self) -> None:
        """Everything may be different."""
        self.__init__()

    def prepared(self, table: Table, now: datetime) -> Prepared:
        """The list as it is now."""
        ready, made_at = self._prepared, self._made_at
        fresh = ready is not None and made_at is not None and timedelta(0) <= now - made_at < LAG
        if ready is not None and ready.revision == table.revision and (fresh or not self._heard):
            return ready
        again = self._changed if fresh else self._changed | self._heard
        for name in table.names if ready is None else again:
            self._make(table, name)
        self._changed = set()
        if not fresh:
            self._heard, self._made_at = set(), now
        ordered = [self._made[name] for name in sorted(self._made)]
        body = b"[" + b",".join(encoded for _, encoded in ordered) + b"]"
        etag = f'W/"{table.lineage[:8]}-{table.revision}"'
        self._prepared = Prepared(tuple(agent for agent, _ in ordered), body, etag, table.revision)
        return self._prepared

    def _make(self, table: Table, name: str) -> None:
        agent = agent_record(table, name)
        if agent is None:
            self._made.pop(name, None)
        else:
            self._made[name] = agent, agent.model_dump_json().encode()


def encoded(agents: list[AgentRecord], besides: str = "") -> tuple[bytes, str]:
    """Agents as they are sent, and a weak tag of them; `besides` is what else of the answer the tag stands for."""
    tagged = _AGENTS.dump_json(agents, exclude=_UNTAGGED) + besides.encode()
    return _AGENTS.dump_json(agents), f'W/"{blake2b(tagged, digest_size=12).hexdigest()}"'


def agent_record(table: Table, name: str) -> AgentRecord | None:
    """All instances of one name as one object, the best of them on top; None where none is left."""
    until = None if table.guard is None else table.guard.until
    return merged(table.instances(name), until)


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
