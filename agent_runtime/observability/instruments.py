"""The instruments on the OpenTelemetry SDK, `/metrics` as Prometheus text, and export to a collector.

Every metric is named here: those of models by the GenAI semantic conventions, which define none for runs, tools and
secrets. The SDK takes 50 ms to import, so `telemetry.py` imports this module at the first measurement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from opentelemetry import metrics, trace
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Status
from prometheus_client import CollectorRegistry, generate_latest

from agent_runtime.errors import StartError

RUN_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
# The GenAI conventions prescribe these buckets.
MODEL_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TOKENS = tuple(4**power for power in range(14))


class Instruments:
    """The metrics and the tracer of one process.

    `tracers` is the process's tracer provider by default; `readers` read the metrics besides `/metrics`.
    """

    def __init__(
        self,
        tracers: TracerProvider | None = None,
        readers: Sequence[MetricReader] = (),
        resource: Resource | None = None,
    ) -> None:
        self._registry = CollectorRegistry()
        prometheus = PrometheusMetricReader(disable_target_info=True, scope_info_enabled=False, registry=self._registry)
        self._tracers = tracers
        self._meters = MeterProvider(
            [prometheus, *readers],
            resource=resource or Resource.get_empty(),
            exemplar_filter=AlwaysOffExemplarFilter(),
            shutdown_on_exit=False,
        )
        self.tracer = trace.get_tracer("myagent", tracer_provider=tracers)
        meter = self._meters.get_meter("myagent")
        self.runs = meter.create_counter("myagent.runs", "", "Runs that ended, by stop reason.")
        self.run_seconds = _histogram(meter, "myagent.run.duration", "s", RUN_SECONDS, "Duration of runs.")
        self.active = meter.create_up_down_counter("myagent.runs.active", "", "Runs in progress.")
        self.tool_seconds = _histogram(meter, "myagent.tool.duration", "s", RUN_SECONDS, "Duration of tool calls.")
        self.secret_refreshes = meter.create_counter("myagent.secret.refreshes", "", "Refreshes of secrets.")
        self.model_seconds = _histogram(
            meter, "gen_ai.client.operation.duration", "s", MODEL_SECONDS, "Duration of a model's replies."
        )
        self.tokens = _histogram(
            meter, "gen_ai.client.token.usage", "{token}", TOKENS, "Tokens of a reply, as the provider counted them."
        )

    @classmethod
    def to_collector(cls, mask: Callable[[str], str]) -> Instruments:
        """Export to the collector that the `OTEL_*` variables name, with what libraries of this process record.

        Raises:
            StartError: the `otel` extra is not installed.
        """
        try:
            from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        except ModuleNotFoundError as error:
            raise StartError("OTEL_EXPORTER_OTLP_ENDPOINT needs an extra: pip install 'myagent[otel]'") from error
        resource = Resource.create()
        tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
        tracers.add_span_processor(BatchSpanProcessor(MaskedSpans(OTLPSpanExporter(), mask)))
        instruments = cls(tracers, [PeriodicExportingMetricReader(OTLPMetricExporter())], resource)
        trace.set_tracer_provider(tracers)
        metrics.set_meter_provider(instruments._meters)
        return instruments

    def prometheus_text(self) -> bytes:
        """All metrics in the Prometheus text format."""
        return generate_latest(self._registry)

    def shutdown(self) -> None:
        """Export what is pending, within the exporters' own time-out."""
        if self._tracers:
            self._tracers.shutdown()
        self._meters.shutdown()


def _histogram(
    meter: metrics.Meter, name: str, unit: str, buckets: Sequence[float], description: str
) -> metrics.Histogram:
    return meter.create_histogram(name, unit, description, explicit_bucket_boundaries_advisory=buckets)


class MaskedSpans(SpanExporter):
    """Removes secrets from spans, including those of libraries, before another exporter sends them."""

    def __init__(self, exporter: SpanExporter, mask: Callable[[str], str]) -> None:
        self._exporter = exporter
        self._mask = mask

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return self._exporter.export([_masked(span, self._mask) for span in spans])

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def _masked(span: ReadableSpan, mask: Callable[[str], str]) -> ReadableSpan:
    status = Status(span.status.status_code, mask(span.status.description) if span.status.description else None)
    events = [Event(mask(event.name), _values(event.attributes, mask), event.timestamp) for event in span.events]
    return ReadableSpan(
        mask(span.name),
        span.context,
        span.parent,
        span.resource,
        _values(span.attributes, mask),
        events,
        span.links,
        span.kind,
        status=status,
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _values(attributes: Mapping[str, Any] | None, mask: Callable[[str], str]) -> dict[str, Any]:
    def value_of(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(value_of(item) for item in cast("tuple[Any, ...]", value))
        return mask(value) if isinstance(value, str) else value

    return {name: value_of(value) for name, value in (attributes or {}).items()}
