import json

import pytest
from pydantic import ValidationError

from discovery.contract import AgentRecord, Registered, Registration, is_loopback
from tests.discovery.conftest import MINIMAL, registration


def problem_of(**changes: object) -> tuple[tuple[str | int, ...], str]:
    with pytest.raises(ValidationError) as caught:
        Registration(**MINIMAL | changes)
    first = caught.value.errors(include_url=False)[0]
    return first["loc"], first["msg"]


def test_five_fields_are_a_registration() -> None:
    assert registration().instance_id == "default"
    assert registration().ttl_seconds is None


@pytest.mark.parametrize("missing", sorted(MINIMAL))
def test_each_of_the_five_fields_is_required(missing: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Registration(**{field: value for field, value in MINIMAL.items() if field != missing})
    assert [entry["loc"] for entry in caught.value.errors()] == [(missing,)]


def test_tools_are_names_or_objects_and_stay_as_they_were_sent() -> None:
    tools = ["a", {"name": "b", "description": "does b", "input_schema": {"type": "object"}}]
    assert registration(tools=tools).model_dump(mode="json", exclude_none=True)["tools"] == tools


def test_a_tool_that_is_neither_is_named_by_its_place() -> None:
    assert problem_of(tools=["a", 7]) == (("tools", 1), "must be a name or an object with a name")


def test_fields_of_a_later_protocol_are_ignored() -> None:
    assert not hasattr(registration(hologram=True), "hologram")


@pytest.mark.parametrize(
    "field", ["system_prompt", "prompt", "instructions", "messages", "api_key", "password", "secret", "token", "Token"]
)
@pytest.mark.parametrize("where", ["top", "metadata", "deep in metadata"])
def test_what_must_never_be_sent_is_refused_wherever_it_stands_without_its_value(field: str, where: str) -> None:
    bad = {"top": {field: "hush"}, "metadata": {"metadata": {field: "hush"}}}.get(
        where, {"metadata": {"a": [{"b": {field: "hush"}}]}}
    )
    with pytest.raises(ValidationError) as caught:
        registration(**bad)
    assert caught.value.errors()[0]["type"] == "forbidden_field"
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "a/b", "a\nb", "a\x00", "x" * 129, "..", "."])
def test_a_name_that_cannot_be_part_of_an_address_is_refused(name: str) -> None:
    assert problem_of(name=name)[0] == ("name",)


@pytest.mark.parametrize("name", ["customer-service", "Zürich 1", "a.b_c:d", "x" * 128])
def test_other_names_are_fine(name: str) -> None:
    assert registration(name=name).name == name


@pytest.mark.parametrize(
    "endpoint", ["", "localhost:8000", "ftp://h", "http://", "javascript:alert(1)", "http://h:99999", "http://a b/"]
)
def test_an_endpoint_is_an_absolute_web_address(endpoint: str) -> None:
    assert problem_of(endpoint=endpoint)[0] == ("endpoint",)


def test_an_endpoint_with_a_password_is_refused_because_everyone_reads_the_list() -> None:
    assert "password" in problem_of(endpoint="http://me:hush@host:1")[1]


@pytest.mark.parametrize(
    "changes",
    [
        {"tools": ["t"] * 513},
        {"tags": ["t"] * 65},
        {"metadata": {"a": "x" * (16 * 1024)}},
        {"ttl_seconds": 0},
        {"ttl_seconds": -1},
        {"ttl_seconds": float("inf")},
        {"ttl_seconds": float("nan")},
        {"metadata": {"a": float("nan")}},
        {"metadata": {"a": "\ud800"}},
        {"description": "\ud800"},
        {"status": "stale"},
    ],
)
def test_limits_hold(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        registration(**changes)


@pytest.mark.parametrize("depth", [220, 254, 900])
def test_what_is_nested_deeper_than_readers_go_is_refused_and_not_a_crash(depth: int) -> None:
    deep = json.loads('{"a":' * depth + "1" + "}" * depth)
    for changes in ({"metadata": deep}, {"tools": [{"name": "t", "input_schema": deep}]}):
        with pytest.raises(ValidationError):
            registration(**changes)


def test_a_model_carries_provider_and_name_and_nothing_else() -> None:
    sent = {"provider": "openai", "name": "gpt-4o", "endpoint": "https://secret.example", "key": "hush"}
    assert registration(model=sent).model_dump()["model"] == {"provider": "openai", "name": "gpt-4o"}
    assert registration(model="openai/gpt-4o").model == registration(model=sent).model
    assert registration(model="gpt-4o").model_dump()["model"] == {"provider": None, "name": "gpt-4o"}


def test_a_record_of_a_registry_that_knows_only_the_minimal_contract_is_readable() -> None:
    record = AgentRecord.model_validate(MINIMAL)
    assert (record.status, record.instances, record.last_seen) == ("registered", [], None)


def test_times_are_aware_and_a_missing_zone_is_utc() -> None:
    record = AgentRecord.model_validate(
        MINIMAL | {"since": "2026-03-01T12:00:00", "last_seen": "2026-03-01T14:00+02:00"}
    )
    assert record.since == record.last_seen
    assert '"since":"2026-03-01T12:00:00.000Z"' in record.model_dump_json()


def test_a_status_of_a_later_registry_is_readable() -> None:
    assert AgentRecord.model_validate(MINIMAL | {"status": "hibernating"}).status == "hibernating"


def test_an_answer_needs_no_more_than_a_name() -> None:
    assert Registered.model_validate({"name": "a", "surprise": 1}).lease is None


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("http://localhost:1", True),
        ("http://127.0.0.2", True),
        ("http://[::1]:80", True),
        ("127.0.0.1", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("http://discovery:9000", False),
        ("http://10.0.0.1", False),
        ("http://[", False),
    ],
)
def test_loopback_is_told_by_the_address_alone(address: str, loopback: bool) -> None:
    assert is_loopback(address) is loopback
