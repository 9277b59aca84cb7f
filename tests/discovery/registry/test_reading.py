"""A registration that is read with the help of the one before is the same as one that is read by itself."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from discovery.contract import Registration
from discovery.registry.reading import Reader
from tests.discovery.conftest import MINIMAL

OTHER: dict[str, list[Any]] = {
    "endpoint": ["http://127.0.0.1:8001", "http:// 127", "ftp://x", None],
    "agent_type": ["router", "", "a\nb"],
    "tools": [[], ["a", {"name": "b", "input_schema": {"type": "object"}}], ["\0"], [{"input_schema": {}}], "a"],
    "version": ["2", "", 2],
    "instance_id": ["pod-1", None],
    "boot_id": ["b1", "b2", None, ""],
    "ttl_seconds": [30, 0.5, 0, -1, None, "30", True],
    "status": ["up", "degraded", "asleep"],
    "checks": [[], [{"name": "disk", "ok": False, "reason": "full"}], [{"name": "disk"}]],
    "description": ["Answers.", "a\0b", None],
    "tags": [["a"], ["a", ""], None],
    "skills": [["a", {"name": "b", "tags": ["c"]}], [{}]],
    "links": [{"card": "http://x/card"}, {"card": "x"}, None],
    "model": ["openai/gpt", {"name": "gpt", "api_key": "k"}, "", None],
    "metadata": [{}, {"a": [1, None]}, {"a": {"Token": "t"}}, {"a": "x" * 20_000}],
    "system_prompt": ["You are"],
    "later": [1, {"a": 1}],
}
one_change = st.sampled_from(sorted(OTHER)).flatmap(lambda name: st.tuples(st.just(name), st.sampled_from(OTHER[name])))
changes = st.lists(one_change, max_size=3).map(dict)
left_out = st.sets(st.sampled_from([*MINIMAL, *OTHER]), max_size=2)


def read(how: Any, body: bytes) -> Registration | None:
    try:
        return how(body)
    except ValueError:
        return None


@given(st.lists(st.tuples(changes, left_out, st.sampled_from([None, 1])), max_size=6))
def test_reading_after_others_is_reading_alone(said: list[tuple[dict[str, Any], set[str], int | None]]) -> None:
    reader = Reader()
    for changed, without, indent in said:
        sent = {name: value for name, value in (MINIMAL | changed).items() if name not in without}
        body = json.dumps(sent, indent=indent).encode()
        alone = read(Registration.model_validate_json, body)
        helped = read(lambda text: reader.read(text).registration, body)
        assert helped == alone
        if alone is not None and helped is not None:
            assert helped.model_dump_json() == alone.model_dump_json()
            reader.remember(reader.read(body))


def test_what_is_repeated_word_for_word_is_the_object_that_was_read_before() -> None:
    reader = Reader()
    body, other = (json.dumps(MINIMAL | {"version": version}).encode() for version in "12")
    first = reader.read(body)
    reader.remember(first)
    assert reader.read(body).registration is first.registration
    assert reader.read(other).registration.tools is first.registration.tools
    assert reader.read(body.replace(b" ", b"")).registration == first.registration


def test_of_too_many_the_one_heard_last_is_forgotten_first() -> None:
    reader = Reader(most=2)
    bodies = [json.dumps(MINIMAL | {"name": name}).encode() for name in "abc"]
    for body in (bodies[0], bodies[1], bodies[0], bodies[2]):
        reader.remember(reader.read(body))
    kept = [reader.read(body) is reader.read(body) for body in bodies]
    assert kept == [True, False, True]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"\xff",
        b'{"name": "a"',
        json.dumps(MINIMAL).encode()[:-1] + b', "metadata": {"a": NaN}}',
        json.dumps(MINIMAL).encode()[:-1] + b', "metadata": {"a": -Infinity}}',
        json.dumps(MINIMAL).encode()[:-1] + b', "metadata": {"a": "\\ud800"}}',
        json.dumps(MINIMAL).encode()[:-1] + b', "metadata": {"a": "\xff"}}',
        json.dumps(MINIMAL).encode()[:-1] + b', "metadata": ' + b'{"a":' * 300 + b"1" + b"}" * 301,
    ],
)
def test_what_is_no_json_for_everybody_is_refused(body: bytes) -> None:
    for how in (Reader().read, Registration.model_validate_json):
        with pytest.raises((msgspec.DecodeError, ValidationError)):
            how(body)


def test_words_that_only_look_like_no_json_are_taken() -> None:
    body = json.dumps(MINIMAL | {"description": "NaN and Infinity"}).encode()
    assert Reader().read(body).registration.description == "NaN and Infinity"
