"""How much one caller may ask: how often, how much at once, and how large."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from agent_runtime.models.scripted import ScriptedModel
from agent_runtime.server.auth.authenticator import RateLimiter
from tests.agent_runtime.server.auth.test_authenticator import bearer
from tests.agent_runtime.server.openai_asking import HI, asking, error_of
from tests.agent_runtime.server.served import is_problem, serving
from tests.openai_server import says, serving_openai, stalls


class Clock:
    def __init__(self) -> None:
        self.now = 5000.0

    def __call__(self) -> float:
        return self.now


def keys(**limits: Any) -> dict[str, Any]:
    return {"server": {"api_keys": ["key-one", "key-two"], "limits": limits}}


# --- how often


def test_what_a_minute_allows_may_be_used_at_once_and_comes_back_little_by_little() -> None:
    clock = Clock()
    limiter = RateLimiter(60, clock=clock)
    assert [limiter.acquire("ada") for _ in range(60)] == [0] * 60
    assert limiter.acquire("ada") == pytest.approx(1)
    clock.now += 0.4
    assert limiter.acquire("ada") == pytest.approx(0.6)
    clock.now += 0.6
    assert limiter.acquire("ada") == 0
    assert limiter.acquire("ada") == pytest.approx(1)
    assert limiter.acquire("bob") == 0
    clock.now += 3600
    assert [limiter.acquire("ada") for _ in range(60)] == [0] * 60
    assert limiter.acquire("ada") > 0


def test_a_refused_request_does_not_count() -> None:
    clock = Clock()
    limiter = RateLimiter(2, clock=clock)
    assert [limiter.acquire("ada") > 0 for _ in range(100)] == [False, False] + [True] * 98
    clock.now += 30
    assert limiter.acquire("ada") == 0


def test_of_too_many_callers_the_longest_gone_is_forgotten() -> None:
    limiter = RateLimiter(1, clock=Clock(), max_callers=2)
    assert [limiter.acquire(who) > 0 for who in ("a", "b", "a", "b", "c", "b", "a")] == [
        False, False, True, True, False, True, False,
    ]  # fmt: skip


async def test_one_key_that_asks_too_often_waits_and_the_other_does_not(tmp_path: Path) -> None:
    async with serving(tmp_path, ScriptedModel([]), **keys(requests_per_minute=3)) as client:
        statuses = [(await client.get("/sessions", headers=bearer("key-one"))).status_code for _ in range(4)]
        assert statuses == [200, 200, 200, 429]
        answer = await client.post("/chat", headers=bearer("key-one"), content=b"not even JSON")
        problem = is_problem(answer, 429, "too_many_requests")
        assert 1 <= int(answer.headers["retry-after"]) <= 20
        assert "Retry-After" in problem["hint"]
        assert (await client.get("/sessions", headers=bearer("key-two"))).status_code == 200
        assert (await client.get("/livez")).status_code == 200
        for path in ("/a2a", "/mcp"):
            assert (await client.post(path, headers=bearer("key-one"), json={})).status_code == 429


async def test_openais_client_is_told_in_its_own_words(tmp_path: Path) -> None:
    async with asking(tmp_path, ScriptedModel([]), key="key-one", **keys(requests_per_minute=1)) as client:
        await client.models.list()
        with pytest.raises(openai.RateLimitError) as refused:
            await client.chat.completions.create(model="helper", messages=HI)
        error = error_of(refused)
        assert (error["type"], error["code"]) == ("requests", "rate_limit_exceeded")
        assert int(refused.value.response.headers["retry-after"]) >= 1


async def test_keys_are_guessed_no_faster_than_they_are_used(tmp_path: Path) -> None:
    async with serving(tmp_path, ScriptedModel([]), **keys(requests_per_minute=5)) as client:
        statuses = [(await client.get("/sessions", headers=bearer(f"guess-{n}"))).status_code for n in range(7)]
        assert statuses == [401] * 5 + [429] * 2
        assert (await client.get("/sessions", headers=bearer("key-one"))).status_code == 200


async def test_where_nobody_needs_a_key_an_address_is_a_caller(tmp_path: Path) -> None:
    async with serving(tmp_path, ScriptedModel([]), server={"limits": {"requests_per_minute": 2}}) as client:
        assert [(await client.get("/sessions")).status_code for _ in range(3)] == [200, 200, 429]


# --- how much at once


async def test_runs_beyond_the_number_are_refused_until_one_is_over_also_of_a_caller_that_hangs_up(
    tmp_path: Path,
) -> None:
    async with serving_openai(stalls("It is"), says("Hello."), says("Hello again.")) as upstream:
        sections = keys(concurrent_runs=1) | {"model": {"name": "test-model", "endpoint": upstream.url}}
        async with serving(tmp_path, None, **sections) as client:
            body, one, two = {"message": "hi"}, bearer("key-one"), bearer("key-two")
            async with client.stream("POST", "/chat/stream", headers=one, json=body) as stream:
                async for line in stream.aiter_lines():
                    if line.startswith("data: "):
                        run_id = line.partition('"run_id":"')[2].partition('"')[0]
                        break
            for path in ("/chat", "/chat/stream"):
                answer = await client.post(path, headers=one, json=body)
                is_problem(answer, 429, "too_many_requests")
                assert answer.headers["retry-after"] == "5"
            refused = await client.post("/v1/responses", headers=one, json={"model": "helper", "input": "hi"})
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
            assert (await client.post("/chat", headers=two, json=body)).json()["answer"] == "Hello."
            assert (await client.post(f"/runs/{run_id}/cancel", headers=one)).status_code == 200
            assert (await client.post("/chat", headers=one, json=body)).json()["answer"] == "Hello again."


# --- how large


async def test_the_largest_body_is_the_files_to_say(tmp_path: Path) -> None:
    async with serving(tmp_path, ScriptedModel(["a"]), server={"limits": {"max_body_bytes": 2000}}) as client:
        assert (await client.post("/chat", json={"message": "x" * 1900})).status_code == 200
        for path in ("/chat", "/v1/chat/completions", "/mcp"):
            answer = await client.post(path, json={"message": "x" * 2000})
            assert answer.status_code == 413, (path, answer.text)
        refused = await client.post("/a2a", json={"message": "x" * 2000})  # it speaks of errors in JSON-RPC
        assert refused.json()["error"]["message"] == "Payload too large"


async def test_a_caller_without_a_key_is_refused_before_its_body_is_looked_at(tmp_path: Path) -> None:
    async with serving(tmp_path, ScriptedModel([]), **keys()) as client:
        for body in (b"{", b"x" * 3 * 1024 * 1024):
            try:
                answer = await client.post("/chat", content=body, headers={"content-type": "application/json"})
            except httpx.WriteError:  # the connection was closed while we were still sending
                continue
            is_problem(answer, 401, "unauthorized")


async def test_many_at_once_are_counted_one_by_one(tmp_path: Path) -> None:
    async with serving(tmp_path, ScriptedModel([]), **keys(requests_per_minute=10)) as client:
        answers = await asyncio.gather(*(client.get("/sessions", headers=bearer("key-one")) for _ in range(40)))
    assert sorted(answer.status_code for answer in answers) == [200] * 10 + [429] * 30
