"""The client's reading of `GET /events`: real streams, that break off, come back and talk nonsense."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from discovery.client import DiscoveryClient, DiscoveryError, RegistryEvent
from tests.discovery.conftest import MINIMAL, RunRegistry, eventually, registration
from tests.event_registry import EventRegistry, event_registry


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("discovery.client.client.RECONNECT_SECONDS", 0.0)


@asynccontextmanager
async def reading(last_id: str | None = None) -> AsyncGenerator[tuple[EventRegistry, AsyncGenerator[RegistryEvent]]]:
    """A registry, and what one client reads of its events."""
    async with (
        asyncio.timeout(10),
        event_registry() as registry,
        DiscoveryClient(registry.url) as client,
        aclosing(client.events(last_id=last_id)) as events,
    ):
        yield registry, events


async def read(registry: EventRegistry, events: AsyncGenerator[RegistryEvent], *sent: Any) -> RegistryEvent:
    """The next event, once the stream is open and these bytes were sent."""
    opened = len(registry.readers)
    waiting = asyncio.ensure_future(anext(events))
    if not opened:
        await eventually(lambda: registry.readers)
    for data in sent:
        registry.send_raw(data)
    return await waiting


RESET = b'id: t-4\nevent: reset\ndata: {"revision": 4, "at": "2026-03-01T12:00:00Z", "reason": "a new reader"}\n\n'


async def test_events_come_with_their_record_as_they_are_sent() -> None:
    async with reading() as (registry, events):
        reset = await read(registry, events, RESET)
        assert (reset.kind, reset.id, reset.revision, reset.reason) == ("reset", "t-4", 4, "a new reader")
        registry.send(
            "updated", 5, name="customer-service", instance_id="default", agent=MINIMAL | {"owner": "Ü\u2028"}
        )
        updated = await anext(events)
        assert updated.agent is not None
        assert (updated.kind, updated.name, updated.agent.owner) == ("updated", "customer-service", "Ü\u2028")
        registry.send("removed", 6, name="customer-service", agent=None)
        assert (await anext(events)).agent is None
        registry.send("guard", 7, active=True, until=None, silent=["a", "b"])
        guard = await anext(events)
        assert (guard.active, guard.silent) == (True, ["a", "b"])
        registry.send("foretold", 8, more="of a later registry")
        assert (await anext(events)).kind == "foretold"
    assert registry.readers == [None]


async def test_a_stream_that_breaks_off_goes_on_behind_the_last_event() -> None:
    async with reading() as (registry, events):
        await read(registry, events, RESET)
        for revision in (5, 6):
            registry.break_off()
            waiting = asyncio.ensure_future(anext(events))
            await eventually(lambda revision=revision: len(registry.readers) == revision - 3)
            registry.send("status", revision, name="x")
            assert (await waiting).revision == revision
    assert registry.readers == [None, "t-4", "t-5"]


async def test_a_reader_may_go_on_from_an_id_it_kept() -> None:
    async with reading(last_id="t-77") as (registry, events):
        await read(registry, events, RESET)
    assert registry.readers == ["t-77"]


async def test_a_comment_is_a_sign_of_life_and_no_event() -> None:
    async with reading() as (registry, events):
        waiting = asyncio.ensure_future(anext(events))
        await eventually(lambda: registry.readers)
        registry.send_raw(b": still here\n\n")
        registry.break_off()
        await eventually(lambda: len(registry.readers) == 2)
        registry.send_raw(b": still here\n\n" + RESET)
        assert (await waiting).kind == "reset"


async def test_an_event_may_come_in_pieces_and_with_the_line_ends_of_others() -> None:
    pieces = [bytes([byte]) for byte in RESET.replace(b"\n", b"\r\n")]
    two_lines = b'event: guard\ndata: {"revision": 5,\ndata:"active": false}\n\n'
    async with reading() as (registry, events):
        assert (await read(registry, events, *pieces)).revision == 4
        assert (await read(registry, events, two_lines)).active is False


async def test_a_silent_stream_is_taken_for_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("discovery.client.client.STREAM_READ_SECONDS", 0.1)
    async with reading() as (registry, events):
        await read(registry, events, RESET)
        with pytest.raises(DiscoveryError, match="closed before the first event"):
            await anext(events)
    assert registry.readers == [None, "t-4"]


@pytest.mark.parametrize("status", [401, 404, 405, 503])
async def test_a_registry_without_the_stream_says_so(status: int) -> None:
    async with reading() as (registry, events):
        registry.status = status
        with pytest.raises(DiscoveryError) as caught:
            await anext(events)
    assert caught.value.status == status


async def test_an_answer_that_is_no_stream_is_an_error_and_not_waited_for() -> None:
    async with reading() as (registry, events):
        registry.kind = b"text/html"
        with pytest.raises(DiscoveryError, match="not an event stream but text/html") as caught:
            await anext(events)
    assert caught.value.status == 200


async def test_a_registry_that_is_away_is_an_error() -> None:
    async with DiscoveryClient("http://127.0.0.1:9") as client, aclosing(client.events()) as events:
        with pytest.raises(DiscoveryError):
            await anext(events)


@pytest.mark.parametrize(
    "nonsense",
    [
        b"event: updated\ndata: {\n\n",
        b"event: updated\ndata: [1]\n\n",
        b"event: updated\ndata: {}\n\n",
        b'event: updated\ndata: {"revision": 1, "agent": {"name": 1}}\n\n',
        b"data: \xff\n\n",
        b"data: " + b"[" * 100_000 + b"\n\n",
        b"data: " + b"x" * 5_000_000,
    ],
)
async def test_nonsense_is_an_error_of_one_line(nonsense: bytes) -> None:
    async with reading() as (registry, events):
        with pytest.raises(DiscoveryError, match="not a registry's") as caught:
            await read(registry, events, nonsense)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


# ---- the registry itself ----


async def test_folded_events_of_the_registry_are_its_list_also_after_a_break(registry: RunRegistry) -> None:
    known: dict[str, Any] = {}
    last_id: str | None = None

    async def fold(client: DiscoveryClient, until: int) -> None:
        nonlocal last_id
        async with aclosing(client.events(last_id=last_id)) as events:
            async for event in events:
                last_id = event.id or last_id
                if event.kind == "reset":
                    known.clear()
                    known.update({agent.name: agent for agent in await client.agents()})
                elif event.agent is not None:
                    known[event.agent.name] = event.agent
                elif event.name is not None:
                    known.pop(event.name)
                if event.revision >= until:
                    return

    async with asyncio.timeout(10), registry() as http, DiscoveryClient(str(http.base_url)) as client:
        await client.register(registration(name="a"))
        first = asyncio.create_task(fold(client, until=2))
        await eventually(lambda: last_id)
        await client.register(registration(name="b"))
        await first
        assert list(known.values()) == await client.agents()
        await client.register(registration(name="b", version="2"))  # while nobody listens
        await client.remove("a")
        await fold(client, until=4)
        assert [(agent.name, agent.version) for agent in known.values()] == [("b", "2")]
        assert list(known.values()) == await client.agents()
