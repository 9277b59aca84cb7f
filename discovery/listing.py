"""Records as a reader sees them: one object per name, and the whole list as bytes with a tag. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from itertools import groupby

from pydantic import TypeAdapter

from discovery.contract import AgentRecord, InstanceRecord
from discovery.leases import Record, Standing, standing

BEST_FIRST = ("up", "degraded", "registered", "draining", "stale", "down", "removed")
# Every heartbeat moves these, and a list that is polled should not look new for that.
_RESTLESS = {"last_seen", "next_transition_at"}
_UNTAGGED = {"__all__": {**dict.fromkeys(_RESTLESS, True), "instances": {"__all__": _RESTLESS}}}
_AGENTS = TypeAdapter(list[AgentRecord])


@dataclass(frozen=True, slots=True)
class Listing:
    """`GET /agents`, ready to send."""

    agents: tuple[AgentRecord, ...]
    body: bytes
    etag: str
    made_at: datetime
    good_until: datetime | None  # when the first of its statuses changes by itself


def make_listing(records: Iterable[Record], now: datetime) -> Listing:
    """All names that are not past their removal, sorted by name."""
    agents: list[AgentRecord] = []
    by_name = sorted(records, key=lambda record: record.key)
    for _, instances in groupby(by_name, key=lambda record: record.registration.name):
        agent = agent_record(instances, now)
        if agent is not None:
            agents.append(agent)
    changes = [i.next_transition_at for agent in agents for i in agent.instances if i.next_transition_at is not None]
    body, etag = encoded(agents)
    return Listing(tuple(agents), body, etag, made_at=now, good_until=min(changes, default=None))


def encoded(agents: list[AgentRecord], besides: str = "") -> tuple[bytes, str]:
    """Agents as they are sent, and a weak tag of them; `besides` is what else of the answer the tag stands for."""
    tagged = _AGENTS.dump_json(agents, exclude=_UNTAGGED) + besides.encode()
    return _AGENTS.dump_json(agents), f'W/"{blake2b(tagged, digest_size=12).hexdigest()}"'


def agent_record(records: Iterable[Record], now: datetime) -> AgentRecord | None:
    """All instances of one name as one object, the best of them on top; None where none is left."""
    standings = [(record, standing(record, now)) for record in records]
    alive = [(record, stands) for record, stands in standings if stands.status != "removed"]
    if not alive:
        return None
    best, stands = min(alive, key=_goodness)
    said = best.registration.model_dump(include=set(AgentRecord.model_fields), exclude={"status"})
    return AgentRecord(
        **said,
        status=stands.status,
        status_reason=stands.reason,
        since=stands.since,
        last_seen=best.last_seen,
        next_transition_at=stands.until,
        instances=[_instance(record, stands) for record, stands in sorted(alive, key=lambda pair: pair[0].key)],
    )


def _goodness(pair: tuple[Record, Standing]) -> tuple[int, float, str]:
    # Between equals the youngest registration, not the latest heartbeat: the top must not flicker.
    record, stands = pair
    return BEST_FIRST.index(stands.status), -record.registered_at.timestamp(), record.registration.instance_id


def _instance(record: Record, stands: Standing) -> InstanceRecord:
    said = record.registration.model_dump(include=set(InstanceRecord.model_fields), exclude={"status"})
    return InstanceRecord(
        **said,
        status=stands.status,
        status_reason=stands.reason,
        since=stands.since,
        registered_at=record.registered_at,
        last_seen=record.last_seen,
        next_transition_at=stands.until,
        observed_address=record.observed_address,
        revision=record.revision,
    )
