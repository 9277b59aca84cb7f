from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.leases import Record, standing
from tests.discovery.conftest import registration

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def record(ttl: float | None = 30, **changes: object) -> Record:
    return Record(registration(ttl_seconds=ttl, **changes), 1, T0, T0, T0, T0)


def after(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("seconds", "status", "since", "until"),
    [
        (0, "up", 0, 30),
        (29.9, "up", 0, 30),
        (30, "stale", 30, 90),
        (89.9, "stale", 30, 90),
        (90, "down", 90, 690),
        (689.9, "down", 90, 690),
        (690, "removed", 690, None),
        (10_000, "removed", 690, None),
    ],
)
def test_silence_makes_stale_after_one_lease_down_after_three_removed_after_ten_minutes_more(
    seconds: float, status: str, since: float, until: float | None
) -> None:
    stands = standing(record(), after(seconds))
    assert (stands.status, stands.since, stands.until) == (
        status,
        after(since),
        None if until is None else after(until),
    )


@pytest.mark.parametrize("reported", ["up", "degraded", "draining"])
def test_within_its_lease_an_agent_is_what_it_says_it_is(reported: str) -> None:
    assert standing(record(status=reported), after(1)).status == reported


def test_without_a_lease_an_agent_is_registered_for_ever() -> None:
    stands = standing(record(ttl=None), after(10**8))
    assert (stands.status, stands.until) == ("registered", None)


def test_the_reason_names_the_check_that_fails() -> None:
    failing = record(status="degraded", checks=[{"name": "warehouse", "ok": False, "reason": "connection refused"}])
    assert "warehouse: connection refused" in standing(failing, after(1)).reason


def test_silence_of_the_registry_itself_does_not_count_and_is_told() -> None:
    restarted = replace(record(), believed_from=after(1000))
    assert standing(restarted, after(1029)).status == "up"
    assert "registry itself was away" in standing(restarted, after(1029)).reason
    assert standing(restarted, after(1030)).status == "stale"


@given(ttl=st.floats(0.1, 86_400), silence=st.floats(0, 400_000))
def test_what_is_said_to_come_next_comes_then_and_not_before(ttl: float, silence: float) -> None:
    one = record(ttl=ttl)
    now = standing(one, after(silence))
    assert now.since <= after(silence)
    if now.until is not None:
        assert standing(one, now.until).status != now.status
        assert standing(one, now.until - timedelta(microseconds=1)).status == now.status
