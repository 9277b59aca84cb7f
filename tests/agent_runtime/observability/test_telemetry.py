"""What operators see: metrics, spans at a collector, and log lines with the ids of their run."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request, Response

from agent_runtime import ModelError
from agent_runtime.events import Event, Finished, RunStarted, ToolResult, Usage
from agent_runtime.models.scripted import ScriptedModel
from agent_runtime.observability import Telemetry
from tests.agents import eventually, free_port, started, write_agent
from tests.openai_server import calls, refuses, says, serving_openai
from tests.serving import serve

ADD = {"index": 0, "id": "c1", "function": {"name": "add", "arguments": '{"a": 2, "b": 3}'}}
FAIL = {"index": 0, "id": "c1", "function": {"name": "fail", "arguments": '{"reason": "no luck"}'}}


@asynccontextmanager
async def served(folder: Path, *flags: str, **environment: str) -> AsyncGenerator[tuple[httpx.AsyncClient, Any]]:
    port = free_port()
    async with (
        started("run", "--port", str(port), *flags, cwd=folder, environment=environment) as process,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=20) as client,
    ):
        assert process.stdout
        line = await process.stdout.readline()
        if b"answers at" not in line:
            raise AssertionError(line + (await process.communicate())[1])
        yield client, process


def write(folder: Path, url: str) -> None:
    model = {"name": "test-model", "endpoint": url, "max_retries": 0}
    write_agent(folder, model=model, tools=["calculator:add", "calculator:fail"])


async def test_metrics_count_runs_tools_tokens_and_failures_of_the_model(tmp_path: Path) -> None:
    replies = [calls([ADD], usage=(10, 5)), says("It is 5.", usage=(20, 4)), refuses(401)]
    async with serving_openai(*replies) as openai:
        write(tmp_path, openai.url)
        async with served(tmp_path) as (client, _):
            assert (await client.post("/chat", json={"message": "what is 2 + 3?"})).status_code == 200
            assert (await client.post("/chat", json={"message": "and now?"})).status_code == 502
            answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    lines = answer.text.splitlines()
    assert 'myagent_runs_total{agent="helper",stop_reason="finished"} 1.0' in lines
    assert 'myagent_runs_total{agent="helper",stop_reason="model_error"} 1.0' in lines
    model = 'gen_ai_agent_name="helper",gen_ai_operation_name="chat",gen_ai_provider_name="openai"'
    model += ',gen_ai_request_model="test-model"'
    assert f'gen_ai_client_token_usage_sum{{{model},gen_ai_token_type="input"}} 30.0' in lines
    assert f'gen_ai_client_token_usage_sum{{{model},gen_ai_token_type="output"}} 9.0' in lines
    assert f'gen_ai_client_operation_duration_seconds_count{{error_type="",{model}}} 2.0' in lines
    assert f'gen_ai_client_operation_duration_seconds_count{{error_type="auth",{model}}} 1.0' in lines
    assert 'myagent_tool_duration_seconds_count{agent="helper",outcome="ok",tool="add"} 1.0' in lines
    assert 'myagent_runs_active{agent="helper"} 0.0' in lines


def samples(telemetry: Telemetry, name: str) -> set[str]:
    lines = telemetry.prometheus_text().decode().splitlines()
    return {line.removeprefix(name) for line in lines if line.startswith(f"{name}{{")}


def run(telemetry: Telemetry, event: Event, error: BaseException) -> None:
    with telemetry.run("helper", "hi", ()) as observe:
        observe(event)
        assert samples(telemetry, "myagent_runs_active") == {'{agent="helper"} 1.0'}
        raise error


@pytest.mark.parametrize(
    ("error", "stop_reason"),
    [
        (ModelError("no reply"), "model_error"),
        (RuntimeError("unexpected"), "error"),
        (asyncio.CancelledError(), "cancelled"),
        (GeneratorExit(), "cancelled"),
    ],
    ids=lambda value: getattr(type(value), "__name__", "") if isinstance(value, BaseException) else value,
)
def test_an_exception_passes_through_a_run_and_is_its_stop_reason(error: BaseException, stop_reason: str) -> None:
    telemetry = Telemetry()
    with pytest.raises(type(error)):
        run(telemetry, RunStarted("r1", "s1"), error)
    assert samples(telemetry, "myagent_runs_total") == {f'{{agent="helper",stop_reason="{stop_reason}"}} 1.0'}
    assert samples(telemetry, "myagent_runs_active") == {'{agent="helper"} 0.0'}


def test_closing_a_stream_after_its_last_event_keeps_the_stop_reason() -> None:
    telemetry = Telemetry()
    with pytest.raises(GeneratorExit):
        run(telemetry, Finished("Hello.", "max_steps"), GeneratorExit())
    assert samples(telemetry, "myagent_runs_total") == {'{agent="helper",stop_reason="max_steps"} 1.0'}


def test_a_tool_name_that_the_model_made_up_is_no_label() -> None:
    telemetry = Telemetry()
    with telemetry.run("helper", "hi", {"add": object()}) as observe:
        for name in ("add", "made_up_1", "made_up_2"):
            observe(ToolResult("c1", name, "", is_error=name != "add"))
    assert samples(telemetry, "myagent_tool_duration_seconds_count") == {
        '{agent="helper",outcome="ok",tool="add"} 1.0',
        '{agent="helper",outcome="error",tool="unknown"} 2.0',
    }


async def test_agents_of_one_process_share_metrics_and_processes_do_not() -> None:
    telemetry, other = Telemetry(), Telemetry()
    for agent in ("adder", "greeter"):
        with telemetry.run(agent, "hi", ()):
            async for _ in telemetry.model(agent, ScriptedModel([("Hello.", Usage(3, 1))])).stream([]):
                pass
    reasons = {f'{{agent="{agent}",stop_reason="cancelled"}} 1.0' for agent in ("adder", "greeter")}
    assert samples(telemetry, "myagent_runs_total") == reasons
    assert len(samples(telemetry, "gen_ai_client_operation_duration_seconds_count")) == 2
    assert other.prometheus_text() == b""


async def test_a_reply_that_is_not_read_to_its_end_is_counted_as_cancelled() -> None:
    telemetry = Telemetry()
    reply = telemetry.model("helper", ScriptedModel([("Hel", "lo.")])).stream([])
    assert await anext(reply) == "Hel"
    await reply.aclose()
    [sample] = samples(telemetry, "gen_ai_client_operation_duration_seconds_count")
    assert 'error_type="cancelled"' in sample


async def test_a_script_does_not_import_the_sdk(tmp_path: Path) -> None:
    write_agent(tmp_path, model={"provider": "local"})
    code = (
        "import sys; from agent_runtime import Agent; from agent_runtime.models.scripted import ScriptedModel\n"
        "agent = Agent('agent.yaml', model=ScriptedModel(['Hello.'])); print(agent.chat('hi')); agent.close()\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'prometheus_client'))])"
    )
    command = [sys.executable, "-c", code]
    done = await asyncio.to_thread(subprocess.run, command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout == "Hello.\n[]\n", done.stderr


@asynccontextmanager
async def collecting() -> AsyncGenerator[tuple[str, list[bytes], list[bytes]]]:
    app, bodies, metrics = FastAPI(), list[bytes](), list[bytes]()

    @app.post("/v1/traces")
    async def _(request: Request) -> Response:
        bodies.append(await request.body())
        return Response(media_type="application/x-protobuf")

    @app.post("/v1/metrics")
    async def _(request: Request) -> Response:
        metrics.append(await request.body())
        return Response(media_type="application/x-protobuf")

    async with serve(app) as url:
        yield url, bodies, metrics


def spans_of(bodies: list[bytes]) -> dict[str, dict[str, Any]]:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    spans: dict[str, dict[str, Any]] = {}
    for body in bodies:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    values = {item.key: item.value.string_value or item.value.int_value for item in span.attributes}
                    spans[span.name] = {"parent": span.parent_span_id, "id": span.span_id, **values}
    return spans


def metrics_of(bodies: list[bytes]) -> dict[str, dict[tuple[Any, ...], int]]:
    """Of each histogram the sum of tokens, or the count of durations, by its attributes."""
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    names = ("gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model", "gen_ai.token.type")
    figures: dict[str, dict[tuple[Any, ...], int]] = {}
    for resource in ExportMetricsServiceRequest.FromString(bodies[-1]).resource_metrics:
        for scope in resource.scope_metrics:
            for metric in (metric for metric in scope.metrics if metric.name.startswith("gen_ai.")):
                for point in metric.histogram.data_points:
                    values = {item.key: item.value.string_value for item in point.attributes}
                    key = tuple(values.get(name, "") for name in names)
                    counted = point.sum if metric.name.endswith("usage") else point.count
                    figures.setdefault(metric.name, {})[key] = int(counted)
    return figures


@pytest.mark.parametrize("captured", [False, True])
async def test_spans_follow_the_genai_conventions_and_hold_what_was_said_only_when_asked(
    tmp_path: Path, captured: bool
) -> None:
    async with serving_openai(calls([ADD]), says("It is 5.")) as openai, collecting() as (collector, bodies, metrics):
        write(tmp_path, openai.url)
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector,
            "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": str(captured).lower(),
        }
        async with served(tmp_path, **environment) as (client, process):
            await client.post("/chat", json={"message": "a most private question", "session_id": "s1"})
            process.terminate()
            _, log = await process.communicate()
            assert process.returncode == 0, log
    spans = spans_of(bodies)
    run, tool, chat = spans["invoke_agent helper"], spans["execute_tool add"], spans["chat test-model"]
    assert run["gen_ai.operation.name"] == "invoke_agent"
    assert run["gen_ai.conversation.id"] == "s1"
    assert (run["gen_ai.usage.input_tokens"], run["gen_ai.usage.output_tokens"]) == (20, 10)
    assert tool["gen_ai.tool.name"] == "add"
    assert chat["gen_ai.request.model"] == "test-model"
    assert tool["parent"] == chat["parent"] == run["id"]
    assert (b"a most private question" in b"".join(bodies)) is captured
    figures = metrics_of(metrics)
    assert figures["gen_ai.client.operation.duration"] == {("chat", "openai", "test-model", ""): 2}
    assert figures["gen_ai.client.token.usage"] == {
        ("chat", "openai", "test-model", "input"): 20,
        ("chat", "openai", "test-model", "output"): 10,
    }


async def test_lines_of_a_json_log_are_objects_that_know_their_run_and_session(tmp_path: Path) -> None:
    async with serving_openai(calls([FAIL]), says("It failed.")) as openai:
        write(tmp_path, openai.url)
        async with served(tmp_path, "--log-format", "json") as (client, process):
            run = (await client.post("/chat", json={"message": "try", "session_id": "s1"})).json()
            process.terminate()
            _, log = await process.communicate()
    entries = [json.loads(line) for line in log.decode().splitlines()]
    [failure] = [entry for entry in entries if entry["message"] == "tool fail failed"]
    assert (failure["run_id"], failure["session_id"], failure["level"]) == (run["run_id"], "s1", "warning")
    assert "RuntimeError: no luck" in failure["exception"]


async def test_a_collector_that_is_away_neither_stops_nor_slows_the_agent(tmp_path: Path) -> None:
    async with serving_openai(says("Hello.")) as openai:
        write(tmp_path, openai.url)
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
        async with served(tmp_path, **environment) as (client, process), asyncio.timeout(20):
            assert (await client.post("/chat", json={"message": "hi"})).json()["answer"] == "Hello."
            process.terminate()

            async def gone() -> bool:
                return process.returncode is not None

            await eventually(gone, 15)
