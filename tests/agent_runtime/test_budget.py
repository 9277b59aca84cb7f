"""The budget that one agent leaves another: it narrows limits, never widens them, and invalid headers are ignored."""

import asyncio

from agent_runtime.budget import Budget, applied, current, remaining
from agent_runtime.events import Usage

LIMITS = {"timeout_seconds": 60, "max_tokens": 1000}


async def test_a_budget_travels_as_headers_one_agent_deeper() -> None:
    now = asyncio.get_running_loop().time()
    headers = Budget(depth=1, deadline=now + 10, tokens=100, spent=[Usage(20, 10)]).headers()
    arrived = Budget.from_headers(headers)
    assert (arrived.depth, arrived.tokens) == (2, 70)
    assert 9 < (arrived.seconds() or 0) <= 10


async def test_a_request_without_headers_has_no_limit() -> None:
    assert Budget.from_headers({}) == Budget()
    assert Budget().narrower(**LIMITS) == {}


async def test_invalid_headers_count_as_missing() -> None:
    for nonsense in ("", "many", "-1", "nan", "inf", "1e99", "٣٤"):
        sent = Budget.from_headers(
            {"x-myagent-tokens": nonsense, "x-myagent-seconds": nonsense, "x-myagent-depth": nonsense}
        )
        assert sent.narrower(max_tokens=1, timeout_seconds=0.001) == {}


async def test_limits_are_narrowed_and_never_widened() -> None:
    narrow = Budget.from_headers({"x-myagent-tokens": "10", "x-myagent-seconds": "5"})
    assert narrow.narrower(**LIMITS)["max_tokens"] == 10
    assert narrow.narrower(**LIMITS)["timeout_seconds"] <= 5
    assert narrow.narrower(max_tokens=5, timeout_seconds=1) == {}


async def test_a_deadline_that_has_passed_leaves_no_time() -> None:
    late = Budget(deadline=asyncio.get_running_loop().time() - 5, tokens=0)
    assert late.headers() == {"x-myagent-depth": "1", "x-myagent-seconds": "0.000", "x-myagent-tokens": "0"}


async def test_concurrent_runs_do_not_share_a_budget() -> None:
    async def depth_within(depth: int) -> tuple[int, int | None]:
        with applied(Budget(depth=depth)):
            await asyncio.sleep(0)
            with remaining(asyncio.get_running_loop().time() + 1, 10 * depth):
                await asyncio.sleep(0)
                return current().depth, current().tokens

    assert await asyncio.gather(*(depth_within(depth) for depth in (1, 2, 3))) == [(1, 10), (2, 20), (3, 30)]
    assert current() == Budget()
