"""`GET /metrics`: every metric of the registry, in the text format of Prometheus."""

from collections import Counter
from collections.abc import Iterator

from fastapi import APIRouter, Response
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from discovery.api.auth import Scoped, Table, needs
from discovery.api.openapi import problems
from discovery.registry import Registry

STATUSES = ("up", "degraded", "draining", "registered", "stale", "down")

router = APIRouter(route_class=Scoped)


class _Table(Collector):
    """Reads the registry at each scrape: nothing is counted twice."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        registry, watch = self._registry, self._registry.watch
        records = registry.records
        instances = GaugeMetricFamily("discovery_instances", "Instances by status.", labels=["status"])
        counted = Counter(record.status for record in records)
        for status in STATUSES:
            instances.add_metric([status], counted[status])
        yield instances
        agents = len({record.registration.name for record in records})
        yield GaugeMetricFamily("discovery_agents", "Names in the list.", value=agents)
        conflicts = sum(record.conflict is not None for record in records)
        yield GaugeMetricFamily("discovery_conflicts", "Entries that two live processes claim.", value=conflicts)
        refused = sum(record.reachability is not None and not record.reachability.ok for record in records)
        yield GaugeMetricFamily("discovery_unreachable", "Endpoints that the probe could not use.", value=refused)
        guard = registry.guard
        silent = len(guard.silent) if guard else 0
        yield GaugeMetricFamily("discovery_guard_active", "1 during mass silence.", value=int(guard is not None))
        yield GaugeMetricFamily("discovery_guard_silent", "Agents that fell silent at once.", value=silent)
        yield GaugeMetricFamily(
            "discovery_store_up", "1 while changes can be kept.", value=int(registry.trouble is None)
        )
        yield CounterMetricFamily("discovery_changes", "Changes of the table: its revision.", value=registry.revision)
        yield CounterMetricFamily("discovery_heartbeats", "Unchanged registrations.", value=registry.heartbeats)
        yield GaugeMetricFamily("discovery_event_readers", "Open streams of /events.", value=watch.readers)
        yield CounterMetricFamily("discovery_event_readers_dropped", "Streams let go as too slow.", value=watch.dropped)


@router.get(
    "/metrics",
    summary="For Prometheus",
    openapi_extra=needs("read"),
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {}}, "description": "The text format of Prometheus"},
        **problems(_503="The table is not loaded"),
    },
)
async def metrics(table: Table) -> Response:
    """How many agents in which state, whether changes can be kept, and who reads the events."""
    collected = CollectorRegistry(auto_describe=False)
    collected.register(_Table(table))
    return Response(generate_latest(collected), media_type=CONTENT_TYPE_LATEST)
