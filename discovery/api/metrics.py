"""What an operator watches: `/livez`, `/readyz`, `/health` and `/metrics`."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter, Response
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from discovery.api.auth import OPEN, Config, Scoped, Table, needs
from discovery.api.openapi import problems
from discovery.contract import Check
from discovery.registry import Registry, StoreError
from discovery.settings import version

STATUSES = ("up", "degraded", "draining", "registered", "stale", "down")

router = APIRouter(route_class=Scoped)


@router.get("/livez", summary="Is the process alive?", response_model=dict[str, str], openapi_extra=OPEN)
async def livez() -> dict[str, str]:
    """Does not look at the storage: restarting this process would not repair it."""
    return {"status": "ok"}


@router.get(
    "/readyz",
    summary="Is the table loaded and the storage usable?",
    openapi_extra=OPEN,
    responses=problems(_503="Not now; `detail` says why"),
)
async def readyz(table: Table) -> dict[str, str]:
    """503 with the reason while registrations cannot be kept."""
    await table.check()
    return {"status": "ok"}


@router.get("/health", summary="Named checks, for people", openapi_extra=needs("read"))
async def health(table: Table, settings: Config) -> dict[str, Any]:
    """Always 200: this describes, /readyz decides."""
    try:
        await table.check()
        store = Check(name="store", ok=True)
    except StoreError as error:
        store = Check(name="store", ok=False, reason=str(error))
    return {
        "status": "ok" if store.ok else "degraded",
        "version": version(),
        "instances": len(table.records),
        "revision": table.revision,
        "guard": table.guard and table.guard.model_dump(mode="json") | {"silent": len(table.guard.silent)},
        "probe": settings.probe,
        "open_to_network": settings.open_to_network,
        "checks": [store.model_dump(exclude_none=True)],
    }


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
