"""Logs, metrics and traces. Imports are light: the OpenTelemetry SDK is imported at the first measurement."""

from agent_runtime.observability.logs import JsonFormatter, TextFormatter, set_up_logging
from agent_runtime.observability.telemetry import Telemetry, process_telemetry

__all__ = ["JsonFormatter", "Telemetry", "TextFormatter", "process_telemetry", "set_up_logging"]
