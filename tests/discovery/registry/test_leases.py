"""What time makes of one record, and of a fleet that falls silent at once."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.registry.leases import LIVE, Record, after_restart, changes_at, due_transition, mass_silence, reported
from discovery.registry.table import moved
from tests.discovery.conftest import registration

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def record(ttl: float | None = 30, **changes: object) -> Record:
    said = registration(ttl_seconds=ttl, **changes)
    status, reason = reported(said)
    return Record(said, 1, T0, T0, T0, status, reason, T0)


def at(one: Record, seconds: float) -> Record | None:
    """A record as sweeps at every change and at the end would leave it; None once it is removed."""
    while (due := changes_at(one)) is not None and due <= after(seconds):
        step = due_transition(one, due)
        assert step is not None
        if step.status == "removed":
            return None
        one = moved(one, step, due)
    assert due_transition(one, after(seconds)) is None
    return one


@pytest.mark.parametrize(
    ("seconds", "status", "since", "until"),
    [
        (0, "up", 0, 30),
        (29.9, "up", 0, 30),
        (30, "stale", 30, 90),
        (89.9, "stale", 30, 90),
        (90, "down", 90, 690),
        (689.9, "down", 90, 690),
    ],
)
def test_silence_makes_stale_after_one_lease_and_down_after_three(
    seconds: float, status: str, since: float, until: float
) -> None:
    one = at(record(), seconds)
    assert one is not None
    assert (one.status, one.since, changes_at(one)) == (status, after(since), after(until))


def test_ten_minutes_down_and_it_is_removed() -> None:
    assert at(record(), 690) is None


@pytest.mark.parametrize("reported_status", ["up", "degraded", "draining"])
def test_within_its_lease_an_agent_is_what_it_says_it_is(reported_status: str) -> None:
    one = at(record(status=reported_status), 1)
    assert one is not None
    assert one.status == reported_status


def test_without_a_lease_an_agent_is_registered_for_ever() -> None:
    one = record(ttl=None)
    assert (one.status, changes_at(one), due_transition(one, after(10**8))) == ("registered", None, None)


def test_the_reason_names_the_check_that_fails() -> None:
    failing = record(status="degraded", checks=[{"name": "warehouse", "ok": False, "reason": "connection refused"}])
    assert "warehouse: connection refused" in failing.reason


@pytest.mark.parametrize("silence", [0, 45, 100])
def test_after_a_restart_each_status_gets_its_full_term(silence: float) -> None:
    one = at(record(), silence)
    assert one is not None
    again = after_restart(one, after(5000))
    due = changes_at(again)
    assert due == after(5000 + {"up": 30, "stale": 60, "down": 600}[one.status])
    assert due_transition(again, due - timedelta(microseconds=1)) is None


def test_one_that_turns_again_and_again_says_so() -> None:
    one = record()
    for minute in range(4):
        assert "times" not in one.reason
        step = due_transition(one._replace(status="up", believed_from=after(60 * minute)), after(60 * minute + 30))
        assert step is not None
        one = moved(one._replace(status="up"), step, after(60 * minute + 30))
    assert one.reason == "no heartbeat within its lease of 30 s; its status changed 4 times within 10 minutes"
    step = due_transition(one, after(3000))
    assert step is not None
    assert moved(one, step, after(3000)).reason == "no heartbeat for three leases of 30 s"


@given(ttl=st.floats(0.1, 86_400), silence=st.floats(0, 400_000))
def test_what_is_said_to_come_next_comes_then_and_not_before(ttl: float, silence: float) -> None:
    one = at(record(ttl=ttl), silence)
    if one is None:
        return
    due = changes_at(one)
    assert due is not None
    assert due > after(silence)
    assert due_transition(one, due - timedelta(microseconds=1)) is None
    assert due_transition(one, due) is not None


def fleet(size: int, silent: int, *, spread: float = 59) -> list[Record]:
    step = spread / max(1, silent - 1)
    return [
        record(name=f"agent-{number:04}")._replace(
            **({"status": "stale", "since": after(number * step)} if number < silent else {}),
        )
        for number in range(size)
    ]


@pytest.mark.parametrize(
    ("size", "silent", "guarded"),
    [(9, 9, False), (10, 2, False), (10, 3, True), (20, 3, True), (21, 3, False), (100, 14, False), (100, 15, True)],
)
def test_fifteen_in_a_hundred_and_three_at_least_of_ten_and_more_are_mass_silence(
    size: int, silent: int, guarded: bool
) -> None:
    assert (mass_silence(fleet(size, silent), after(60)) is not None) == guarded


def test_silence_that_is_spread_over_more_than_a_minute_is_none() -> None:
    assert mass_silence(fleet(100, 15, spread=61), after(62)) is None


def test_agents_without_a_lease_do_not_count() -> None:
    records = [*fleet(9, 9), *(record(ttl=None, name=f"forever-{number}") for number in range(20))]
    assert mass_silence(records, after(60)) is None


def test_it_says_who_is_silent_and_ends_by_itself_after_15_minutes() -> None:
    records = fleet(10, 3)
    guard = mass_silence(records, after(60))
    assert guard is not None
    assert guard.silent == ["agent-0000", "agent-0001", "agent-0002"]
    assert (guard.since, guard.until) == (T0, after(900))
    assert mass_silence(records, guard.until - timedelta(milliseconds=1)) is not None
    assert mass_silence(records, guard.until) is None


def test_it_ends_when_enough_are_back() -> None:
    back = [one._replace(status="up") if one.registration.name == "agent-0001" else one for one in fleet(10, 3)]
    assert mass_silence(back, after(60)) is None


@given(st.lists(st.tuples(st.floats(0, 2000), st.sampled_from([*LIVE, "stale", "down"])), max_size=40))
def test_it_can_never_stick(fallen: list[tuple[float, str]]) -> None:
    records = [
        record(name=f"n{place}")._replace(status=status, since=after(since))
        for place, (since, status) in enumerate(fallen)
    ]
    last = max((since for since, _ in fallen), default=0)
    assert mass_silence(records, after(last + 900)) is None
