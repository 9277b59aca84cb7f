"""What is counted and traced, every name in one place.

Prometheus for `/metrics`, OpenTelemetry under the GenAI semantic conventions (v1.37) where a collector is named. What
was said is traced only when asked for: names, sizes and times always, texts never by default.
"""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from typing import Any

from agent_runtime.errors import ModelError, MyAgentError, StartError
from agent_runtime.events import (
    Event,
    Finished,
    Message,
    ModelChunk,
    RunStarted,
    ToolCalled,
    ToolResult,
    ToolSpec,
    Usage,
)
from agent_runtime.models import Model, ModelWrapper
from agent_runtime.observability.run_context import current_run

_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Telemetry:
    """The instruments of one process, shared by its agents; each agent is a label.

    `captures_content` puts what was said into spans too: for a laptop, not for customers' data. `mask` takes secrets
    out of the name of a model.
    """

    def __init__(self, *, captures_content: bool = False, mask: Callable[[str], str] = str) -> None:
        self._mask = mask
        metrics: Any = importlib.import_module("prometheus_client")
        self._metrics = metrics
        self.registry: Any = metrics.CollectorRegistry()
        named: dict[str, Any] = {"registry": self.registry}
        self._runs = metrics.Counter("myagent_runs", "Runs that ended, by why.", ["agent", "stop_reason"], **named)
        self._run_seconds = metrics.Histogram(
            "myagent_run_duration_seconds", "How long runs took.", ["agent"], buckets=_BUCKETS, **named
        )
        self._active = metrics.Gauge("myagent_runs_active", "Runs under way.", ["agent"], **named)
        self._tool_seconds = metrics.Histogram(
            "myagent_tool_duration_seconds", "How long tools took.", ["agent", "tool", "outcome"],
            buckets=_BUCKETS, **named,
        )  # fmt: skip
        self._model_seconds = metrics.Histogram(
            "myagent_model_duration_seconds", "How long replies of the model took.", ["agent", "model", "outcome"],
            buckets=_BUCKETS, **named,
        )  # fmt: skip
        self._tokens = metrics.Counter(
            "myagent_tokens", "Tokens as the provider counted them.", ["agent", "model", "type"], **named
        )
        self._refreshes = metrics.Counter(
            "myagent_secret_refreshes", "Times that secrets were fetched again.", ["agent", "outcome"], **named
        )
        self._captures_content = captures_content
        self._tracer: Any = importlib.import_module("opentelemetry.trace").get_tracer("myagent")
        meter: Any = importlib.import_module("opentelemetry.metrics").get_meter("myagent")
        self._operation_seconds = meter.create_histogram(
            "gen_ai.client.operation.duration", unit="s", description="How long operations of the model took."
        )
        self._token_usage = meter.create_histogram(
            "gen_ai.client.token.usage", unit="{token}", description="Tokens of one operation, in and out."
        )

    def rendered(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return self._metrics.generate_latest(self.registry)

    def model(self, agent: str, model: Model) -> Model:
        """A model whose replies are timed, counted and traced; it is still its owner's to open and close."""
        return _ObservedModel(self, agent, model)

    async def observed(self, agent: str, message: str, events: AsyncGenerator[Event]) -> AsyncGenerator[Event]:
        """Pass a run's events on, and count and trace what they say."""
        started = time.monotonic()
        run = _RunSpans(self._tracer, agent, message if self._captures_content else None)
        self._active.labels(agent).inc()
        stop_reason = "cancelled"  # unless it ends otherwise
        try:
            async with aclosing(events):
                async for event in events:
                    match event:
                        case RunStarted(run_id, session_id):
                            current_run.set((run_id, session_id))
                            run.begin(run_id, session_id)
                        case ToolCalled():
                            run.tool_called(event)
                        case ToolResult(_, name, _, is_error, duration_ms):
                            outcome = "error" if is_error else "ok"
                            self._tool_seconds.labels(agent, name, outcome).observe(duration_ms / 1000)
                            run.tool_returned(event)
                        case Finished():
                            stop_reason = event.stop_reason
                            run.finished(event)
                        case _:
                            pass
                    yield event
        except MyAgentError as error:
            stop_reason = "model_error" if isinstance(error, ModelError) else "error"
            run.failed(error)
            raise
        finally:
            run.end()
            self._active.labels(agent).dec()
            self._runs.labels(agent, stop_reason).inc()
            self._run_seconds.labels(agent).observe(time.monotonic() - started)

    def model_replied(self, agent: str, model: str, outcome: str, seconds: float, usage: Usage) -> None:
        """One reply of a model, whole or broken off."""
        model = self._mask(model)
        self._model_seconds.labels(agent, model, outcome).observe(seconds)
        attributes = _of_model(model)
        failed = {"error.type": outcome} if outcome not in {"ok", "cancelled"} else {}
        self._operation_seconds.record(seconds, {**attributes, **failed})
        for kind, tokens in (("input", usage.input_tokens), ("output", usage.output_tokens)):
            self._tokens.labels(agent, model, kind).inc(tokens)
            if tokens:
                self._token_usage.record(tokens, {**attributes, "gen_ai.token.type": kind})

    def secrets_fetched_again(self, agent: str, outcome: str) -> None:
        """Because one was refused, or by the clock; `outcome` says what came of it."""
        self._refreshes.labels(agent, outcome).inc()

    def model_span(self, model: str) -> Any:
        """A span around one reply, below the run's."""
        model = self._mask(model)
        name = model.partition("/")[2] or model
        return self._tracer.start_span(f"chat {name}", context=_run_context.get(), attributes=_of_model(model))


def _of_model(label: str) -> dict[str, str]:
    """The attributes that every span and figure of a model carries."""
    provider, _, name = label.partition("/")
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": name or label,
    }


# The run's span as the parent of its model's spans: they are made in another room.
_run_context: ContextVar[Any] = ContextVar("run_context", default=None)


class _RunSpans:
    """The span of a run and those of its tools. Explicit parents: a generator has no context of its own."""

    def __init__(self, tracer: Any, agent: str, message: str | None) -> None:
        self._tracer = tracer
        self._message = message
        self._context: Any = None
        self._span: Any = tracer.start_span(
            f"invoke_agent {agent}", attributes={"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": agent}
        )
        self._tools: dict[str, Any] = {}

    def begin(self, run_id: str, session_id: str) -> None:
        self._span.set_attributes({"gen_ai.conversation.id": session_id, "myagent.run.id": run_id})
        if self._message is not None:
            said = [{"role": "user", "parts": [{"type": "text", "content": self._message}]}]
            self._span.set_attribute("gen_ai.input.messages", json.dumps(said))
        self._context = importlib.import_module("opentelemetry.trace").set_span_in_context(self._span)
        _run_context.set(self._context)

    def tool_called(self, call: ToolCalled) -> None:
        attributes = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": call.name,
            "gen_ai.tool.call.id": call.call_id,
        }
        if self._message is not None:
            attributes["gen_ai.tool.call.arguments"] = json.dumps(dict(call.arguments))
        self._tools[call.call_id] = self._tracer.start_span(
            f"execute_tool {call.name}", context=self._context, attributes=attributes
        )

    def tool_returned(self, result: ToolResult) -> None:
        span = self._tools.pop(result.call_id, None)
        if span is None:
            return
        if result.is_error:
            span.set_attribute("error.type", "tool_error")
        if self._message is not None:
            span.set_attribute("gen_ai.tool.call.result", result.content)
        span.end()

    def finished(self, event: Finished) -> None:
        self._span.set_attributes(
            {
                "gen_ai.usage.input_tokens": event.usage.input_tokens,
                "gen_ai.usage.output_tokens": event.usage.output_tokens,
                "gen_ai.response.finish_reasons": [event.stop_reason],
            }
        )
        if self._message is not None:
            said = [{"role": "assistant", "parts": [{"type": "text", "content": event.answer}]}]
            self._span.set_attribute("gen_ai.output.messages", json.dumps(said))

    def failed(self, error: MyAgentError) -> None:
        self._span.set_attribute("error.type", getattr(error, "fault", type(error).__name__))

    def end(self) -> None:
        for span in self._tools.values():
            span.end()
        self._span.end()


class _ObservedModel(ModelWrapper):
    def __init__(self, telemetry: Telemetry, agent: str, model: Model) -> None:
        super().__init__(model)
        self._telemetry = telemetry
        self._agent = agent

    async def stream(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSpec] = (),
        *,
        stop: Sequence[str] = (),
        schema: Mapping[str, Any] | None = None,
    ) -> AsyncGenerator[ModelChunk, None]:
        started, usage, outcome = time.monotonic(), Usage(), "cancelled"
        span = self._telemetry.model_span(self.label)
        wish: dict[str, Any] = {"schema": schema} if schema else {}  # a model that knows no schemas need not take any
        try:
            async with aclosing(self._model.stream(messages, tools, stop=stop, **wish)) as chunks:
                async for chunk in chunks:
                    if isinstance(chunk, Usage):
                        usage = chunk
                    yield chunk
            outcome = "ok"
        except ModelError as error:
            outcome = error.fault
            span.set_attribute("error.type", error.fault)
            raise
        finally:
            span.set_attributes(
                {"gen_ai.usage.input_tokens": usage.input_tokens, "gen_ai.usage.output_tokens": usage.output_tokens}
            )
            span.end()
            self._telemetry.model_replied(self._agent, self.label, outcome, time.monotonic() - started, usage)


@contextmanager
def traced(environment: Mapping[str, str], mask: Callable[[str], str] = str) -> Generator[Telemetry]:
    """The instruments of a process, and while the block runs a way for its spans and metrics to a collector.

    `OTEL_EXPORTER_OTLP_ENDPOINT` names the collector; what was said is traced only where
    `OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT` is true. `mask` takes secrets out of all that is traced.

    Raises:
        StartError: a collector is named and the `otel` extra is not installed.
    """
    captures = environment.get("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "").lower() == "true"
    providers = _providers(mask) if environment.get("OTEL_EXPORTER_OTLP_ENDPOINT") else []
    try:
        yield Telemetry(captures_content=captures, mask=mask)
    finally:
        for provider in providers:
            provider.shutdown()  # sends what is left, within its own time-out


def _providers(mask: Callable[[str], str]) -> list[Any]:
    """Of spans and of metrics; OTEL_SERVICE_NAME and its kind are read by the SDK itself."""
    try:
        tracing: Any = importlib.import_module("opentelemetry.sdk.trace")
        batches: Any = importlib.import_module("opentelemetry.sdk.trace.export")
        metering: Any = importlib.import_module("opentelemetry.sdk.metrics")
        readers: Any = importlib.import_module("opentelemetry.sdk.metrics.export")
        spans: Any = importlib.import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
        metrics: Any = importlib.import_module("opentelemetry.exporter.otlp.proto.http.metric_exporter")
        masking: Any = importlib.import_module("agent_runtime.observability.masked_spans")
    except ModuleNotFoundError as error:
        raise StartError("OTEL_EXPORTER_OTLP_ENDPOINT needs an extra: pip install 'myagent[otel]'") from error
    tracers = tracing.TracerProvider()
    tracers.add_span_processor(batches.BatchSpanProcessor(masking.MaskedSpans(spans.OTLPSpanExporter(), mask)))
    importlib.import_module("opentelemetry.trace").set_tracer_provider(tracers)
    meters = metering.MeterProvider([readers.PeriodicExportingMetricReader(metrics.OTLPMetricExporter())])
    importlib.import_module("opentelemetry.metrics").set_meter_provider(meters)
    return [tracers, meters]
