"""Spans on their way to a collector, without a secret in their texts: also those that libraries make.

Loaded where a collector is named, because the SDK behind it is an extra.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import Status

Mask = Callable[[str], str]


class MaskedSpans(SpanExporter):
    """An exporter in front of another; it works in that one's thread."""

    def __init__(self, exporter: SpanExporter, mask: Mask) -> None:
        self._exporter = exporter
        self._mask = mask

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return self._exporter.export([_masked(span, self._mask) for span in spans])

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def _masked(span: ReadableSpan, mask: Mask) -> ReadableSpan:
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


def _values(attributes: Mapping[str, Any] | None, mask: Mask) -> dict[str, Any]:
    return {name: _value(value, mask) for name, value in (attributes or {}).items()}


def _value(value: Any, mask: Mask) -> Any:
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, tuple):
        return tuple(_value(item, mask) for item in cast("tuple[Any, ...]", value))
    return value
