import base64
import html
import json
import logging
import sys
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agent_runtime.masking import LOG_MASK, SHORTEST, masked, masked_values
from agent_runtime.observability import JsonFormatter, TextFormatter

SECRET = "p@ss wörd/+&\"'\\1"


def test_the_longest_secret_goes_first() -> None:
    assert masked("key=abcdef, part=abcd", {"abcd", "abcdef"}) == "key=***, part=***"


@pytest.mark.parametrize(
    "written",
    [
        SECRET,
        json.dumps({"a": SECRET}),
        json.dumps({"a": SECRET}, ensure_ascii=False),
        json.dumps({"a": json.dumps({"b": SECRET})}),
        repr([SECRET]),
        repr(SECRET.encode()),
        html.escape(SECRET),
        f"http://host/?q={quote(SECRET)}",
        f"http://host/?q={quote(SECRET, safe='')}",
        f"http://host/?q={quote_plus(SECRET)}",
        f"http://host/?q={quote(SECRET, safe='@/+&')}",
        "".join(f"%{byte:02x}" for byte in SECRET.encode()),
    ],
)
def test_a_secret_is_masked_however_it_was_written_down(written: str) -> None:
    shown = masked(f"before {written} after", {SECRET})
    assert shown.startswith("before ")
    assert shown.endswith(" after")
    assert "***" in shown
    for trace in ("p@ss", "ss w", "rd/", "%40ss", "p%40", "%70%40"):
        assert trace not in shown


@given(before=st.binary(max_size=8), after=st.binary(max_size=8), url_safe=st.booleans())
def test_base64_of_a_text_around_a_secret_shows_no_more_of_it_than_its_edges(
    before: bytes, after: bytes, url_safe: bool
) -> None:
    secret = b"sk-q7Zx\xc3\xa9~?>1234567890"
    encode = base64.urlsafe_b64encode if url_safe else base64.b64encode
    shown = masked(f"Basic {encode(before + secret + after).decode()}", {secret.decode()})
    assert "***" in shown
    left = "".join(shown.removeprefix("Basic ").split("***")).rstrip("=")
    assert len(left) * 6 <= (len(before) + len(after)) * 8 + 16  # two digits may hold some bits of it each


@pytest.mark.parametrize("ascii_only", [True, False])
@given(secret=st.text(min_size=SHORTEST), around=st.text())
def test_a_masked_document_holds_no_secret(ascii_only: bool, secret: str, around: str) -> None:
    assume("*" not in secret)
    document = json.dumps({"before": around, "value": secret}, ensure_ascii=ascii_only)
    for form in (secret, json.dumps(secret, ensure_ascii=ascii_only)[1:-1]):
        assert form not in masked(document, {secret})


def test_each_long_line_of_a_private_key_is_masked() -> None:
    begin, end = (f"-----{word} PRIVATE KEY-----" for word in ("BEGIN", "END"))
    key = f"{begin}\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\nAbc=\n{end}\n"
    assert masked("read MIIEvQIBADANBgkqhkiG9w0BAQEFAASC", {key}) == "read ***"
    assert masked(end, {key}) == end


def test_a_value_that_stands_in_ordinary_texts_by_chance_is_left_alone() -> None:
    assert masked("port 543, host db, user", {"543", "db", ""}) == "port 543, host db, user"


def test_the_keys_of_a_tree_stay() -> None:
    assert masked_values({"token": ["my token", 1, None]}, {"token"}) == {"token": ["my ***", 1, None]}


def test_spans_reach_the_collector_without_secrets() -> None:
    pytest.importorskip("opentelemetry.sdk", reason="needs the otel extra")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from opentelemetry.trace import StatusCode

    from agent_runtime.observability.instruments import MaskedSpans

    collector, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(MaskedSpans(collector, lambda text: masked(text, {"s3cret"}))))
    attributes = {"url": "http://x?key=s3cret", "keys": ["a", "s3cret"], "size": 3}
    span = provider.get_tracer("a library").start_span("GET /s3cret", attributes=attributes)
    span.add_event("sent s3cret", {"body": "s3cret"})
    span.record_exception(ValueError("s3cret is not a number"))
    span.set_status(StatusCode.ERROR, "s3cret is not a number")
    span.end()
    [exported] = collector.get_finished_spans()
    assert (exported.name, exported.parent, exported.context) == ("GET /***", None, span.get_span_context())
    assert exported.attributes == {"url": "http://x?key=***", "keys": ("a", "***"), "size": 3}
    assert exported.status.description == "*** is not a number"
    assert "s3cret" not in exported.to_json()
    assert exported.start_time < exported.end_time
    provider.shutdown()


def record(message: str, *arguments: object, name: str = "httpx", error: Exception | None = None) -> logging.LogRecord:
    exc_info = (type(error), error, error.__traceback__) if error else None
    return logging.LogRecord(name, logging.DEBUG, __file__, 1, message, arguments, exc_info)


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()], ids=["text", "json"])
@pytest.mark.parametrize("name", ["agent_runtime", "httpx", "openai._base_client", "botocore.endpoint"])
def test_no_line_of_the_log_holds_a_secret_whoever_wrote_it(formatter: logging.Formatter, name: str) -> None:
    secret = 'canary-"quoted"-7f3a'
    LOG_MASK.learn({secret})
    try:
        raise RuntimeError(f"refused: {secret}")
    except RuntimeError as error:
        failed = error
    encoded = base64.b64encode(f"user:{secret}".encode()).decode()
    lines = [
        formatter.format(record("key=%s", secret, name=name)),
        formatter.format(record("in two: %s%s", secret[:9], secret[9:], name=name)),
        formatter.format(record("%r", {"headers": {"authorization": f"Basic {encoded}"}}, name=name)),
        formatter.format(record("it failed", name=name, error=failed)),
    ]
    for line in lines:
        assert "***" in line
        assert not any(part in line for part in (secret, json.dumps(secret)[1:-1], encoded[8:-4], "quoted"))
    assert "Traceback" in lines[-1]
    assert sys.excepthook is sys.__excepthook__  # only the command line takes it over
