import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.config import Fetched, Resolution, SecretNotAvailable, resolve, secret_paths


async def filled(tree: Any, secrets: dict[str, str] | None = None, **environment: str) -> Resolution:
    async def fetch(paths: Sequence[str]) -> Fetched:
        return {path: (secrets or {}).get(path, SecretNotAvailable("not found")) for path in paths}

    return await resolve(tree, environment=environment, fetch=fetch)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("${NAME}", "Ada"),
        ("hello ${NAME}, ${NAME}!", "hello Ada, Ada!"),
        ("${NAME:-Bob}", "Ada"),
        ("${MISSING:-Bob}", "Bob"),
        ("${EMPTY:-Bob}", "Bob"),
        ("${MISSING:-http://host:1/v1}", "http://host:1/v1"),
        ("${NAME:?is needed}", "Ada"),
        ("a dollar: $$", "a dollar: $"),
        ("$${NAME}", "${NAME}"),
        ("$NAME costs 5$", "$NAME costs 5$"),
        ("${secret:team/key}", "s3cret"),
        ("postgresql://me:${secret:team/key}@${NAME}/db", "postgresql://me:s3cret@Ada/db"),
        ("${secret:team/json#user}:${secret:team/json#port}", "agents:5432"),
    ],
)
async def test_a_placeholder_is_replaced_by_what_it_names(text: str, expected: str) -> None:
    secrets = {"team/key": "s3cret", "team/json": '{"user": "agents", "port": 5432}'}
    resolution = await filled(text, secrets, NAME="Ada", EMPTY="")
    assert (resolution.tree, resolution.problems) == (expected, [])


@pytest.mark.parametrize("text", ["${MISSING:-}", "${EMPTY}", "${EMPTY:-}", "${secret:team/empty}"])
async def test_a_value_that_is_one_placeholder_and_comes_out_empty_is_none(text: str) -> None:
    resolution = await filled({"value": text, "part": f"[{text}]"}, {"team/empty": ""}, EMPTY="")
    assert resolution.tree == {"value": None, "part": "[]"}
    assert resolution.problems == []


async def test_dictionaries_and_lists_are_walked_and_other_values_stay_as_they_are() -> None:
    tree = {"a": ["${X}", {"b": "${X}"}], "n": 1, "f": 0.5, "t": True, "none": None}
    resolution = await filled(tree, X="x")
    assert resolution.tree == {"a": ["x", {"b": "x"}], "n": 1, "f": 0.5, "t": True, "none": None}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${MISSING}", "environment variable MISSING is not set"),
        ("${MISSING:?ask the data team}", "environment variable MISSING: ask the data team"),
        ("${EMPTY:?ask the data team}", "environment variable EMPTY: ask the data team"),
        ("${MISSING:?}", "environment variable MISSING: is not set"),
        ("${secret:team/none}", "secret team/none: not found"),
        ("${secret:team/text#user}", "secret team/text: is not JSON, so #user cannot be read"),
        ("${secret:team/json#pass}", "secret team/json: its JSON has no key pass"),
        ("${secret:team/list#pass}", "secret team/list: its JSON has no key pass"),
        ("${}", "${} is not a placeholder; write a plain dollar as $$"),
        ("${1X}", "${1X} is not a placeholder; write a plain dollar as $$"),
        ("${NAME", "${NAME is not a placeholder; write a plain dollar as $$"),
        ("${NAME:+x}", "${NAME:+x} is not a placeholder; write a plain dollar as $$"),
        ("${A:-${B}}", "${A:-${B} is not a placeholder; write a plain dollar as $$"),
    ],
)
async def test_a_placeholder_that_cannot_be_filled_says_why_in_one_sentence(text: str, expected: str) -> None:
    secrets = {"team/text": "hush", "team/json": '{"user": "hush"}', "team/list": "[1]"}
    resolution = await filled({"key": [text]}, secrets, EMPTY="")
    assert [(problem.location, problem.message) for problem in resolution.problems] == [(("key", 0), expected)]
    assert resolution.tree == {"key": [text]}


async def test_every_problem_of_a_tree_is_reported() -> None:
    resolution = await filled({"a": "${X} ${Y}", "b": ["${secret:s}"]})
    assert [problem.location for problem in resolution.problems] == [("a",), ("a",), ("b", 0)]


async def test_all_secrets_are_fetched_together_each_once_however_often_it_is_named() -> None:
    fetched: list[Sequence[str]] = []

    async def fetch(paths: Sequence[str]) -> Fetched:
        fetched.append(paths)
        return dict.fromkeys(paths, '{"user": "u", "pass": "p"}')

    tree = ["${secret:db#user}", "${secret:db#pass} ${secret:db}", {"x": "${secret:other#user}"}]
    await resolve(tree, environment={}, fetch=fetch)
    assert fetched == [["db", "other"]] == [secret_paths(tree)]


async def test_a_source_that_does_not_answer_is_a_problem_of_each_value_that_waits_for_it() -> None:
    async def fetch(paths: Sequence[str]) -> Fetched:
        await asyncio.Event().wait()
        raise AssertionError(paths)

    resolution = await resolve(["${secret:a}", "${secret:b}"], environment={}, fetch=fetch, timeout_seconds=0.01)
    assert [problem.message for problem in resolution.problems] == [
        f"secret {path}: the secret source did not answer within 0.01 s" for path in ("a", "b")
    ]


async def test_a_source_that_fails_as_a_whole_is_the_reason_for_each_of_its_secrets() -> None:
    async def fetch(paths: Sequence[str]) -> Fetched:
        raise SecretNotAvailable("the vault is sealed")

    resolution = await resolve(["${secret:a}", "${secret:b}"], environment={}, fetch=fetch)
    assert [problem.message for problem in resolution.problems] == [
        "secret a: the vault is sealed",
        "secret b: the vault is sealed",
    ]


@given(value=st.text(st.sampled_from("${}:-?secret/#aHOME$$"), min_size=1))
def test_what_came_out_of_a_placeholder_is_never_read_as_a_template_again(value: str) -> None:
    tree = {"whole": "${secret:s}", "part": "<${secret:s}>", "variable": "${V}"}
    resolution = asyncio.run(filled(tree, {"s": value}, V=value, HOME="/home/ada", a="x"))
    assert resolution.tree == {"whole": value, "part": f"<{value}>", "variable": value}


async def test_origins_say_where_a_value_came_from_and_never_the_value() -> None:
    tree = {"db": "${USER_NAME}:${secret:db#pass}@${HOST:-localhost}", "plain": "x", "key": "${secret:key}"}
    resolution = await filled(tree, {"db": '{"pass": "hush"}', "key": "hush"}, USER_NAME="ada")
    assert resolution.origins == {
        ("db",): "environment USER_NAME, secret db#pass, default of HOST",
        ("key",): "secret key",
    }


async def test_the_secrets_of_a_tree_are_known_for_masking_and_absent_from_its_repr() -> None:
    secrets = {"db": '{"user": "ada", "pass": "hush-hush"}', "key": "k-123"}
    resolution = await filled({"db": "${secret:db#pass}", "key": "${secret:key}", "v": "${V}"}, secrets, V="open")
    assert resolution.secrets == {"hush-hush", "k-123"}
    assert "hush-hush" not in repr(resolution)
    assert "k-123" not in repr(resolution)
