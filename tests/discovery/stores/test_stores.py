"""One suite for every store."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from discovery.contract import Conflict, Reachability, Registration
from discovery.registry import LastSeen, Line, Snapshot, Store, StoreError
from discovery.registry.history import ContractDiff, GuardState
from discovery.registry.leases import Record
from discovery.registry.rules import register, remove
from discovery.registry.table import GUARD, Change, Draft, Table
from discovery.stores import open_store
from tests.discovery.conftest import registration

T0 = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
WHOLE = T0.replace(microsecond=123000)  # nested times are kept as the wire writes them
FULL = registration(
    name="a'b\"ü",
    tools=["a", {"name": "b", "description": "d", "input_schema": {"type": "object", "x": [1, None, 1.5]}}],
    public_endpoint="https://a.example",
    instance_id="pod-1",
    boot_id="b1",
    ttl_seconds=90,
    status="degraded",
    checks=[{"name": "db", "ok": False, "reason": "gone"}],
    description="does\nthings 🎉",
    owner="team",
    tags=["x", "y"],
    skills=["s", {"name": "t", "tags": ["u"]}],
    protocols=["chat"],
    links={"docs": "https://docs.example"},
    model={"name": "meta/llama"},
    config_fingerprint="f00",
    metadata={"n": {"m": [1, 2.5, True, None]}, "odd": "\u0000"},
)


def record(said: Registration = FULL, *, revision: int = 1) -> Record:
    return Record(
        registration=said,
        revision=revision,
        registered_at=T0,
        last_seen=T0 + timedelta(2),
        believed_from=T0 + timedelta(2),
        status="degraded",
        reason="because 'so'",
        since=T0 + timedelta(1),
        observed_address="10.0.0.7",
        turns=(T0, T0 + timedelta(1)),
        earlier=(Conflict(boot_id="b0", endpoint="http://old:1", last_seen=WHOLE),),
        conflict=Conflict(boot_id="b0", endpoint="http://old:1", last_seen=WHOLE),
        reachability=Reachability(ok=False, reason="connection refused", checked_at=WHOLE, latency_ms=1.5),
    )


def change(one: Record, kind: str = "registered", **more: object) -> Change:
    return Change(revision=one.revision, at=T0, kind=kind, key=one.key, record=one, reason="because", **more)  # type: ignore[arg-type]


def removal(one: Record, revision: int) -> Change:
    return Change(revision=revision, at=T0, kind="removed", key=one.key, record=None, before=one, reason="asked to")


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    urls = {"memory": "memory://", "sqlite": f"sqlite:///{tmp_path / 'registry.db'}"}
    return urls.get(request.param) or request.getfixturevalue("postgres_url")


@pytest.fixture
async def store(store_url: str) -> AsyncGenerator[Store]:
    opened = open_store(store_url)
    yield opened
    await opened.aclose()


async def write(store: Store, *changes: Change) -> None:
    async with store.transaction() as transaction:
        await transaction.append(changes)


async def names(store: Store) -> list[str]:
    return sorted(record.registration.name for record in (await store.load()).records)


async def test_a_new_store_is_empty_at_revision_zero_and_has_a_lineage_of_its_own(store: Store) -> None:
    found = await store.load()
    assert (list(found.records), found.revision) == ([], 0)
    assert len(found.lineage) >= 8
    async with store.transaction() as transaction:
        assert (transaction.revision, transaction.lineage) == (0, found.lineage)


async def test_what_was_written_is_loaded_in_full(store: Store) -> None:
    await write(store, change(record()))
    found = await store.load()
    assert (list(found.records), found.revision) == ([record()], 1)


async def test_a_record_without_any_of_the_optional_parts_comes_back_as_it_was(store: Store) -> None:
    bare = Record(registration(), 1, T0, T0, T0, "registered", "sends no heartbeats", T0)
    await write(store, change(bare))
    assert list((await store.load()).records) == [bare]


async def test_writing_a_key_again_replaces_it_and_instances_are_kept_apart(store: Store) -> None:
    other = record(FULL.model_copy(update={"instance_id": "pod-2"}), revision=2)
    again = record(revision=3)._replace(registration=registration(name=FULL.name, instance_id="pod-1"))
    await write(store, change(record()), change(other), change(again, "updated"))
    found = await store.load()
    assert sorted(found.records, key=lambda one: one.key) == [again, other]
    assert found.revision == 3
    await write(store, removal(again, 4))
    assert [one.key for one in (await store.load()).records] == [other.key]


async def test_several_changes_of_one_key_in_one_transaction_end_with_the_last(store: Store) -> None:
    await write(store, change(record()), removal(record(), 2), change(record(revision=3)))
    assert list((await store.load()).records) == [record(revision=3)]
    await write(store, change(record(revision=4), "updated"), removal(record(), 5))
    assert (list((await store.load()).records), (await store.load()).revision) == ([], 5)
    assert [entry.revision for entry in await store.history(FULL.name, limit=9)] == [5, 4, 3, 2, 1]


async def test_a_transaction_that_fails_leaves_nothing_behind(store: Store, request: pytest.FixtureRequest) -> None:
    if "memory" in request.node.name:
        pytest.skip("memory does not fail")
    await write(store, change(record()))

    async def fails() -> None:
        async with store.transaction() as transaction:
            await transaction.append([removal(record(), 2)])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fails()
    found = await store.load()
    assert (list(found.records), found.revision) == ([record()], 1)


async def test_a_sighting_moves_last_seen_forward_and_nothing_else(store: Store) -> None:
    await write(store, change(record()))
    later = T0 + timedelta(days=5)
    earlier = LastSeen(FULL.name, "pod-1", T0)
    await store.save_last_seen([LastSeen("nobody", "default", later), LastSeen(FULL.name, "pod-1", later), earlier])
    (found,) = (await store.load()).records
    assert found == record()._replace(last_seen=later, believed_from=later)
    assert list(await store.seen_after(T0 + timedelta(3))) == [LastSeen(FULL.name, "pod-1", later)]
    assert list(await store.seen_after(later)) == []
    assert (await store.load()).revision == 1


async def test_a_refill_leaves_exactly_what_was_given_under_its_lineage(store: Store) -> None:
    await write(store, change(record(registration(name="old"))))
    async with store.transaction() as transaction:
        await transaction.refill([record(revision=7)], 7, "another-lineage")
    found = await store.load()
    assert (list(found.records), found.revision, found.lineage) == ([record(revision=7)], 7, "another-lineage")
    assert [hit.name for hit in await store.search(["things"], every=True, limit=9)] == [FULL.name]
    assert not await store.search(["old"], every=True, limit=9)


async def test_the_changes_since_a_revision_come_in_order_with_the_newest_record(store: Store) -> None:
    guard = GuardState(since=WHOLE, until=WHOLE + timedelta(minutes=15), silent=["a", "b", "c"])
    newest = record(revision=3)._replace(reason="newest")
    diff = ContractDiff(added=["x"], removed=["y"], breaking=True)
    await write(
        store,
        change(record()),
        Change(revision=2, at=T0, kind="guard", key=GUARD, record=None, reason="3 fell silent", guard=guard),
        change(newest, "updated", fields=("version",), tools=diff),
        change(record(registration(name="gone"), revision=4)),
        removal(record(registration(name="gone")), 5),
        Change(revision=6, at=T0, kind="guard", key=GUARD, record=None, reason="it is over"),
    )
    found = list(await store.since(0))
    assert [(one.revision, one.kind, one.key[0]) for one in found] == [
        (1, "registered", FULL.name),
        (2, "guard", ""),
        (3, "updated", FULL.name),
        (4, "registered", "gone"),
        (5, "removed", "gone"),
        (6, "guard", ""),
    ]
    assert (found[0].record, found[2].record, found[3].record) == (newest, newest, None)
    assert (found[1].guard, found[5].guard) == (guard, None)
    assert (found[2].fields, found[2].tools, found[2].reason) == (("version",), diff, "because")
    assert [one.revision for one in await store.since(4)] == [5, 6]
    async with store.transaction() as transaction:
        assert list(await transaction.since(5)) == found[5:]


async def test_the_history_of_a_name_is_newest_first_in_pages_and_outlives_it(store: Store) -> None:
    await write(store, *(change(record(revision=step), "updated") for step in range(1, 6)), removal(record(), 6))
    await write(store, change(record(registration(name="other"), revision=7)))
    newest = await store.history(FULL.name, limit=2)
    assert [(entry.revision, entry.kind, entry.status) for entry in newest] == [
        (6, "removed", "removed"),
        (5, "updated", "degraded"),
    ]
    assert (newest[0].endpoint, newest[0].version, newest[0].boot_id) == (FULL.endpoint, FULL.version, "b1")
    assert [entry.revision for entry in await store.history(FULL.name, limit=9, before=3)] == [2, 1]
    assert list(await store.history("nobody", limit=9)) == []


async def test_old_history_is_forgotten_and_the_table_stays(store: Store) -> None:
    old = change(record())._replace(at=T0 - timedelta(days=31))
    await write(store, old, change(record(revision=2), "updated"))
    await store.prune_history(T0 - timedelta(days=30))
    assert [entry.revision for entry in await store.history(FULL.name, limit=9)] == [2]
    assert len((await store.load()).records) == 1


FLEET = [
    registration(name="orders", description="Answers about ORDERS", tools=["get_orderStatus"], ttl_seconds=30),
    registration(name="mail", tools=[{"name": "send", "description": "Post a letter about an order"}], owner="Ada"),
    registration(name="zürich", tools=[], tags=["money"], skills=[{"name": "fx", "examples": ["What is a franc?"]}]),
]


@pytest.mark.parametrize(
    ("words", "every", "found"),
    [
        (["orders"], True, ["orders"]),
        (["order"], True, ["orders", "mail"]),
        (["ord"], True, ["orders", "mail"]),
        (["rders"], True, []),
        (["order", "letter"], True, ["mail"]),
        (["order", "franc"], True, []),
        (["order", "franc"], False, ["orders", "mail", "zürich"]),
        (["status"], True, ["orders"]),
        (["ada"], True, ["mail"]),
        (["franc"], True, ["zürich"]),
        (["zürich"], True, ["zürich"]),
        (["nothing"], False, []),
    ],
)
async def test_words_are_found_where_they_begin_the_best_fit_first(
    store: Store, words: list[str], every: bool, found: list[str]
) -> None:
    await write(store, *(change(record(said, revision=place)) for place, said in enumerate(FLEET, 1)))
    hits = await store.search(words, every=every, limit=9)
    assert {hit.name for hit in hits} == set(found)
    if words == ["order"]:
        assert hits[0].name == "orders"
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert len(await store.search(words, every=every, limit=1)) == min(1, len(found))


async def test_what_changed_or_went_is_found_as_it_is_now(store: Store) -> None:
    one = record(FLEET[0])
    await write(store, change(one))
    said = FLEET[0].model_copy(update={"description": "Answers about parcels", "tools": []})
    changed = one._replace(registration=said, revision=2)
    await write(store, change(changed, "updated", fields=("description", "tools")))
    assert [hit.name for hit in await store.search(["parcels"], every=True, limit=9)] == ["orders"]
    assert not await store.search(["status"], every=True, limit=9)
    await write(store, removal(one, 3))
    assert not await store.search(["parcels"], every=True, limit=9)


async def test_what_is_exported_fills_another_store_that_is_empty_and_no_other(store: Store, tmp_path: Path) -> None:
    await write(store, change(record()), change(record(revision=2), "updated", fields=("version",)))
    snapshot, lines = await store.load(), list(await store.export())
    assert [(line.name, line.entry.revision) for line in lines] == [(FULL.name, 1), (FULL.name, 2)]
    target = open_store(f"sqlite:///{tmp_path / 'target.db'}")
    await target.fill(snapshot, lines)
    assert await target.load() == snapshot
    assert list(await target.export()) == lines
    with pytest.raises(StoreError, match="not empty"):
        await store.fill(Snapshot([], 0, "x"), list[Line]())
    await target.aclose()


async def test_writers_take_turns_and_each_sees_what_the_one_before_it_wrote(store: Store) -> None:
    async def one_more(name: str) -> None:
        async with store.transaction() as transaction:
            await transaction.append([change(record(registration(name=name), revision=transaction.revision + 1))])

    await asyncio.gather(*(one_more(f"n{number}") for number in range(20)))
    found = await store.load()
    assert found.revision == 20
    assert sorted(one.revision for one in found.records) == list(range(1, 21))


EVERYTHING_ELSE: dict[str, Any] = {
    "endpoint": "https://b.example",
    "agent_type": "react",
    "tools": ["c"],
    "version": "2",
    "public_endpoint": None,
    "boot_id": "b2",
    "ttl_seconds": None,
    "status": "draining",
    "checks": [],
    "description": "does other things",
    "owner": None,
    "tags": [],
    "skills": ["v"],
    "protocols": ["a2a"],
    "links": None,
    "model": {"provider": "p", "name": "n"},
    "config_fingerprint": None,
    "metadata": {},
}


async def test_the_latest_registration_is_kept_whichever_of_its_fields_changed(store: Store) -> None:
    table, now = Table(), WHOLE

    async def apply(*registrations: Registration | None) -> None:
        nonlocal now
        now += timedelta(seconds=1)
        draft = Draft(table, now)
        for one in registrations:
            if one is None:
                remove(draft, FULL.name, None, None)
            else:
                register(draft, one, "10.0.0.7")
        await write(store, *draft.changes)
        for change in draft.changes:
            table.apply(change)
        assert list((await store.load()).records) == list(table)

    one_by_one = [FULL.model_validate(FULL.model_dump() | {field: EVERYTHING_ELSE[field]}) for field in EVERYTHING_ELSE]
    other = FULL.model_validate(FULL.model_dump() | EVERYTHING_ELSE)
    for registered in (FULL, *one_by_one, other, FULL):
        await apply(registered)
    await apply(*one_by_one)
    await apply(other, None, FULL)
    await apply(None, other)
    await apply(FULL, None)
    assert set(EVERYTHING_ELSE) == set(Registration.model_fields) - {"name", "instance_id"}


async def test_a_closed_store_opens_again_when_it_is_used(store: Store) -> None:
    await write(store, change(record()))
    await store.aclose()
    await store.check()
    assert await names(store) == [FULL.name]


async def test_a_cancelled_write_leaves_the_store_usable(store: Store) -> None:
    async def put(revisions: Sequence[int]) -> None:
        for revision in revisions:
            await write(store, change(record(revision=revision), "updated"))

    for step in range(10):
        writing = asyncio.create_task(put(range(1000 * step + 1, 1000 * step + 1000)))
        for _ in range(step):
            await asyncio.sleep(0)
        writing.cancel()
        await asyncio.wait({writing})
    await write(store, change(record(revision=20_000), "updated"))
    found = await store.load()
    assert (len(found.records), found.revision) == (1, 20_000)


@pytest.mark.parametrize("url", ["mysql://u:hush@h/d", "registry.db", "sqlite:///", "sqlite://x", "postgresql:x"])
def test_a_url_of_no_store_is_refused_without_repeating_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="use sqlite:///") as caught:
        open_store(url)
    assert "hush" not in str(caught.value)
