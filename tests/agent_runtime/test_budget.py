"""What one agent leaves another: narrows, never widens, and survives whatever is sent."""

import asyncio
from dataclasses import dataclass

from agent_runtime.budget import Allowance, allowed, current, left_of, read
from agent_runtime.events import Usage


@dataclass(frozen=True)
class Limits:
    max_tokens: int = 1000
    guarded: bool = False
    timeout_seconds: float = 60


async def test_what_is_left_travels_as_headers_one_agent_deeper() -> None:
    now = asyncio.get_running_loop().time()
    headers = Allowance(depth=1, deadline=now + 10, tokens=100, spent=[Usage(20, 10)]).headers()
    arrived = read(headers)
    assert (arrived.depth, arrived.tokens) == (2, 70)
    assert 9 < (arrived.seconds() or 0) <= 10


async def test_a_request_without_headers_is_the_first_of_its_chain() -> None:
    assert read({}) == Allowance()
    assert Allowance().narrowed(Limits()) == {}


async def test_headers_that_make_no_sense_count_as_not_sent() -> None:
    for nonsense in ("", "many", "-1", "nan", "inf", "1e99", "٣٤"):
        sent = read({"x-myagent-tokens": nonsense, "x-myagent-seconds": nonsense, "x-myagent-depth": nonsense})
        assert sent.narrowed(Limits(max_tokens=1, timeout_seconds=0.001)) == {}


async def test_limits_are_narrowed_and_never_widened() -> None:
    narrow = read({"x-myagent-tokens": "10", "x-myagent-seconds": "5"})
    assert narrow.narrowed(Limits())["max_tokens"] == 10
    assert narrow.narrowed(Limits())["timeout_seconds"] <= 5
    assert narrow.narrowed(Limits(max_tokens=5, timeout_seconds=1)) == {}


async def test_a_deadline_that_has_passed_leaves_nothing_and_not_less() -> None:
    late = Allowance(deadline=asyncio.get_running_loop().time() - 5, tokens=0)
    assert late.headers() == {"x-myagent-depth": "1", "x-myagent-seconds": "0.000", "x-myagent-tokens": "0"}


async def test_runs_at_once_do_not_see_each_others() -> None:
    async def depth_within(depth: int) -> tuple[int, int | None]:
        with allowed(Allowance(depth=depth)):
            await asyncio.sleep(0)
            with left_of(asyncio.get_running_loop().time() + 1, 10 * depth):
                await asyncio.sleep(0)
                return current().depth, current().tokens

    assert await asyncio.gather(*(depth_within(depth) for depth in (1, 2, 3))) == [(1, 10), (2, 20), (3, 30)]
    assert current() == Allowance()
