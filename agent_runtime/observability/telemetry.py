"""What is measured and traced of runs, models, tools and secrets, and when.

Spans follow OpenTelemetry's GenAI semantic conventions. Names, sizes and times are always recorded, contents only where
the operator enables it.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import AsyncGenerator, Callable, Container, Generator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Any

from agent_runtime.errors import ModelError
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
from agent_runtime.observability.logs import current_run

if TYPE_CHECKING:  # the SDK is imported at the first measurement
    from opentelemetry.trace import Span

    from agent_runtime.observability.instruments import Instruments

PROVIDERS = {"azure_openai": "azure.ai.openai"}
"""Our names of providers for which the conventions have another one."""


class Telemetry:
    """Metrics and traces of one process, shared by its agents; the agent is an attribute of each measurement.

    Args:
        captures_content: record messages, arguments and results in spans too; not for production data.
        mask: removes secrets from the names of models.
        instruments: where measurements go; by default only `prometheus_text` shows them.
    """

    def __init__(
        self,
        *,
        captures_content: bool = False,
        mask: Callable[[str], str] = str,
        instruments: Instruments | None = None,
    ) -> None:
        self.captures_content = captures_content
        self.mask = mask
        self._instruments = instruments
        self._lock = threading.Lock()

    def load(self) -> Instruments:
        """Import the SDK and create the instruments, once; a server does it in a thread before the first run."""
        with self._lock:
            if self._instruments is None:
                from agent_runtime.observability.instruments import Instruments

                self._instruments = Instruments()
            return self._instruments

    def prometheus_text(self) -> bytes:
        """All metrics in the Prometheus text format."""
        return self.load().prometheus_text()

    def model(self, agent: str, model: Model) -> Model:
        """Wrap a model so that its replies are measured and traced; the caller still opens and closes it."""
        return _ObservedModel(self, agent, model)

    @contextmanager
    def run(self, agent: str, message: str, tools: Container[str]) -> Generator[Callable[[Event], None]]:
        """Measure and trace one run: call the yielded function with each of its events in order.

        `tools` are the names of the agent's tools: a name that the model made up is counted as `unknown`.
        """
        instruments, started, labels = self.load(), time.monotonic(), {"agent": agent}
        instruments.active.add(1, labels)
        # An exception is not recorded in the span: its message may quote contents.
        with instruments.tracer.start_as_current_span(
            f"invoke_agent {agent}",
            attributes={"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": agent},
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            run = _Run(instruments, span, agent, message if self.captures_content else None, tools)
            try:
                yield run.observe
            except Exception as error:
                run.stop_reason = "model_error" if isinstance(error, ModelError) else "error"
                span.set_attribute("error.type", getattr(error, "fault", type(error).__name__))
                raise
            finally:
                run.end_tools()
                instruments.active.add(-1, labels)
                instruments.runs.add(1, {**labels, "stop_reason": run.stop_reason})
                instruments.run_seconds.record(time.monotonic() - started, labels)

    def secrets_refreshed(self, agent: str, outcome: str) -> None:
        """Count a refresh of an agent's secrets; its outcome is `renewed`, `unchanged` or `failed`."""
        self.load().secret_refreshes.add(1, {"agent": agent, "outcome": outcome})


class _Run:
    """What the events of a run add to its span, and the spans of its tools."""

    def __init__(
        self, instruments: Instruments, span: Span, agent: str, message: str | None, tools: Container[str]
    ) -> None:
        self.stop_reason = "cancelled"  # unless it ends otherwise
        self._instruments = instruments
        self._span = span
        self._agent = agent
        self._message = message  # None: no contents are recorded
        self._tools = tools
        self._tool_spans: dict[str, Span] = {}

    def observe(self, event: Event) -> None:
        match event:
            case RunStarted():
                current_run.set((event.run_id, event.session_id))
                self._span.set_attributes({"gen_ai.conversation.id": event.session_id, "myagent.run.id": event.run_id})
                if self._message:
                    self._span.set_attribute("gen_ai.input.messages", _message_json("user", self._message))
            case ToolCalled():
                self._tool_called(event)
            case ToolResult():
                self._tool_returned(event)
            case Finished():
                self.stop_reason = event.stop_reason
                self._span.set_attributes(_usage(event.usage))
                self._span.set_attribute("gen_ai.response.finish_reasons", [event.stop_reason])
                if self._message is not None:
                    self._span.set_attribute("gen_ai.output.messages", _message_json("assistant", event.answer))
            case _:
                pass

    def end_tools(self) -> None:
        """End the spans of tools that did not return."""
        for span in self._tool_spans.values():
            span.end()

    def _tool_called(self, event: ToolCalled) -> None:
        attributes = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": event.name,
            "gen_ai.tool.call.id": event.call_id,
        }
        if self._message is not None:
            attributes["gen_ai.tool.call.arguments"] = json.dumps(dict(event.arguments))
        self._tool_spans[event.call_id] = self._instruments.tracer.start_span(
            f"execute_tool {event.name}", attributes=attributes
        )

    def _tool_returned(self, event: ToolResult) -> None:
        tool = event.name if event.name in self._tools else "unknown"
        outcome = "error" if event.is_error else "ok"
        attributes = {"agent": self._agent, "tool": tool, "outcome": outcome}
        self._instruments.tool_seconds.record(event.duration_ms / 1000, attributes)
        if span := self._tool_spans.pop(event.call_id, None):
            if event.is_error:
                span.set_attribute("error.type", "tool_error")
            if self._message is not None:
                span.set_attribute("gen_ai.tool.call.result", event.content)
            span.end()


def _message_json(role: str, text: str) -> str:
    return json.dumps([{"role": role, "parts": [{"type": "text", "content": text}]}])


def _usage(usage: Usage) -> dict[str, int]:
    return {"gen_ai.usage.input_tokens": usage.input_tokens, "gen_ai.usage.output_tokens": usage.output_tokens}


class _ObservedModel(ModelWrapper):
    """A model whose replies are measured and traced, each once."""

    def __init__(self, telemetry: Telemetry, agent: str, model: Model) -> None:
        super().__init__(model)
        self._telemetry = telemetry
        provider, _, name = telemetry.mask(model.label).partition("/")
        self._name = name or provider
        self._attributes = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": PROVIDERS.get(provider, provider),
            "gen_ai.request.model": self._name,
            "gen_ai.agent.name": agent,
        }

    async def stream(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSpec] = (),
        *,
        stop: Sequence[str] = (),
        schema: Mapping[str, Any] | None = None,
    ) -> AsyncGenerator[ModelChunk, None]:
        instruments, started = self._telemetry.load(), time.monotonic()
        usage, error_type = Usage(), "cancelled"
        span = instruments.tracer.start_span(f"chat {self._name}", attributes=self._attributes)
        options: dict[str, Any] = {"schema": schema} if schema else {}  # a model without schemas need not accept one
        try:
            async with aclosing(self._model.stream(messages, tools, stop=stop, **options)) as chunks:
                async for chunk in chunks:
                    if isinstance(chunk, Usage):
                        usage = chunk
                    yield chunk
            error_type = ""
        except Exception as error:
            error_type = error.fault if isinstance(error, ModelError) else type(error).__name__
            span.set_attribute("error.type", error_type)
            raise
        finally:
            span.set_attributes(_usage(usage))
            span.end()
            ended = {**self._attributes, "error.type": error_type} if error_type else self._attributes
            instruments.model_seconds.record(time.monotonic() - started, ended)
            for kind, tokens in (("input", usage.input_tokens), ("output", usage.output_tokens)):
                if tokens:
                    instruments.tokens.record(tokens, {**self._attributes, "gen_ai.token.type": kind})


@contextmanager
def process_telemetry(environment: Mapping[str, str], mask: Callable[[str], str] = str) -> Generator[Telemetry]:
    """The telemetry of a process, exported to a collector while the block runs where the environment names one.

    `OTEL_EXPORTER_OTLP_ENDPOINT` names the collector; contents are recorded only if
    `OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT` is true. `mask` removes secrets from what is exported.

    Raises:
        StartError: a collector is named and the `otel` extra is not installed.
    """
    captures = environment.get("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "").lower() == "true"
    instruments: Instruments | None = None
    if environment.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        from agent_runtime.observability.instruments import Instruments

        instruments = Instruments.to_collector(mask)
    try:
        yield Telemetry(captures_content=captures, mask=mask, instruments=instruments)
    finally:
        if instruments:
            instruments.shutdown()
