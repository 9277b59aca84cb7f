"""The two calls that a whole fleet repeats: the list, and registrations."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.api.agents import takes_gzip
from discovery.contract import Registration
from discovery.registry.leases import Record
from discovery.registry.listing import Listing, agent_record
from discovery.registry.table import Change, Table
from discovery.stores.memory import MemoryStore
from discovery.tokens import read_tokens
from tests.discovery.conftest import MINIMAL, Clock, RunRegistry

LONG = MINIMAL | {"description": "Answers questions. " * 100}
JSON = {"content-type": "application/json"}


async def raw(http: httpx.AsyncClient, accepted: str) -> tuple[httpx.Headers, bytes]:
    """The list as it comes over the wire."""
    async with http.stream("GET", "/agents", headers={"accept-encoding": accepted}) as response:
        assert response.status_code == 200
        return response.headers, b"".join([piece async for piece in response.aiter_raw()])


async def test_the_list_is_compressed_for_those_who_take_it_and_is_the_same(registry: RunRegistry) -> None:
    async with registry() as http:
        await http.post("/register", json=LONG)
        plain, body = await raw(http, "identity")
        packed, compressed = await raw(http, "br, gzip;q=0.5")
        assert "content-encoding" not in plain
        assert packed["content-encoding"] == "gzip"
        assert gzip.decompress(compressed) == body
        assert len(compressed) < len(body)
        assert plain["vary"] == packed["vary"] == "Accept-Encoding"
        assert plain["etag"] == packed["etag"]


async def test_every_version_of_the_list_is_compressed(registry: RunRegistry) -> None:
    async with registry() as http:
        for version in ("1", "2", "3"):
            await http.post("/register", json=LONG | {"version": version})
            headers, body = await raw(http, "gzip")
            assert headers["content-encoding"] == "gzip"
            (agent,) = json.loads(gzip.decompress(body))
            assert agent["version"] == version


async def test_a_short_list_is_not_worth_compressing(registry: RunRegistry) -> None:
    async with registry() as http:
        headers, body = await raw(http, "gzip")
        assert ("content-encoding" in headers, body) == (False, b"[]")


@pytest.mark.parametrize(
    ("accepted", "takes"),
    [
        ("gzip", True),
        ("deflate, GZIP ; q=0.1", True),
        ("*", True),
        ("gzip;q=0", False),
        ("gzip;q=0, *", False),
        ("gzip;q=none", False),
        ("br;q=1.0, identity", False),
        ("", False),
    ],
)
def test_gzip_is_sent_to_clients_that_accept_it(accepted: str, takes: bool) -> None:
    assert takes_gzip(accepted) is takes


async def in_pieces(content: bytes) -> AsyncIterator[bytes]:
    for place in range(0, len(content), 10):
        yield content[place : place + 10]


async def test_a_registration_is_answered_alike_whichever_way_it_is_sent(registry: RunRegistry) -> None:
    body = json.dumps(MINIMAL | {"ttl_seconds": 3600}).encode()
    async with registry() as http:
        await http.post("/register", content=body, headers=JSON)
        answers = [
            await http.post("/register", content=body, headers=JSON),
            await http.post("/register", content=body, headers={"content-type": "application/json; charset=utf-8"}),
            await http.post("/register", content=in_pieces(body), headers=JSON),
            await http.post("/register?", content=body, headers=JSON),
            await http.post("/register", content=body.decode().encode("utf-16"), headers=JSON),
        ]
        for answer in answers:
            assert answer.status_code == 200
            said = answer.json()
            said["lease"].pop("expires_at")
            assert said == {
                "name": "customer-service",
                "instance_id": "default",
                "revision": 1,
                "changed": False,
                "lease": {"ttl_seconds": 3600.0, "interval_seconds": 1200.0},
                "observed_address": "127.0.0.1",
                "warnings": [],
            }
            assert answer.headers["content-type"] == "application/json"
            assert answer.headers["x-request-id"]
        assert len({answer.headers["x-request-id"] for answer in answers}) == len(answers)


async def test_a_repeated_registration_is_held_to_the_token_that_sends_it(registry: RunRegistry) -> None:
    tokens = read_tokens("register:tok-a:team-a-*,register:tok-b:team-b-*")
    body = MINIMAL | {"name": "team-a-x"}
    async with registry(database_url="memory://", tokens=tokens) as http:
        for token, status in (("tok-a", 201), ("tok-b", 403), ("tok-a", 200), ("tok-b", 403)):
            answer = await http.post("/register", json=body, headers={"authorization": f"Bearer {token}"})
            assert answer.status_code == status


async def test_a_heartbeat_after_a_restart_of_the_registry_is_still_one(registry: RunRegistry, tmp_path: Path) -> None:
    settings = {"database_url": f"sqlite:///{tmp_path / 'registry.db'}"}
    body = MINIMAL | {"ttl_seconds": 3600}
    async with registry(**settings) as http:
        await http.post("/register", json=body)
        first = (await http.get("/agents/customer-service")).json()["last_seen"]
    async with registry(**settings) as http:
        for _ in range(3):
            answer = (await http.post("/register", json=body)).json()
            assert (answer["revision"], answer["changed"]) == (1, False)
        assert (await http.get("/agents/customer-service")).json()["last_seen"] > first


class Faulty(MemoryStore):
    """Fails as no store may."""

    async def append(self, changes: Sequence[Change]) -> None:
        raise ZeroDivisionError("a secret of the store")


async def test_an_unexpected_error_is_a_500_without_details_and_a_traceback_in_the_log(
    registry: RunRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    async with registry(Faulty()) as http:
        answer = await http.post("/register", json=MINIMAL)
        assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
        assert "secret" not in answer.text
        assert (await http.get("/agents")).json() == []
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(
    "metadata",
    [
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": "\\ud800"}',
        b'{"a": "\xff"}',
        b'{"a":' * 300 + b"1" + b"}" * 300,
    ],
)
async def test_a_registration_that_other_readers_could_not_parse_is_refused(
    registry: RunRegistry, metadata: bytes
) -> None:
    body = json.dumps(MINIMAL).encode()[:-1] + b', "metadata": ' + metadata + b"}"
    async with registry() as http:
        answer = await http.post("/register", content=body, headers=JSON)
        assert answer.status_code in {400, 422}
        assert (await http.get("/agents")).json() == []


async def test_a_sender_that_hangs_up_within_its_body_registers_nothing(registry: RunRegistry) -> None:
    body = json.dumps(MINIMAL).encode()
    async with registry() as http:
        host, port = http.base_url.host, http.base_url.port
        reader, writer = await asyncio.open_connection(host, port)
        head = f"POST /register HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        writer.write(head.encode() + b"\r\n\r\n" + body[:-1])
        writer.write_eof()
        await reader.read()
        writer.close()
        assert (await http.get("/agents")).json() == []


words = st.text('ab"\\{}[],:é\u2028', max_size=6)
plain: Any = st.recursive(
    st.none() | st.booleans() | words,
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["last_seen", "instances", "a"]), inner)
    ),
    max_leaves=4,
)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), plain, st.booleans()), max_size=8))
def test_the_list_equals_its_agents_one_by_one_also_when_only_times_moved(
    registrations: list[tuple[str, str, Any, bool]],
) -> None:
    clock, table, listing = Clock(), Table([], 1, "f00"), Listing()

    def shown() -> Any:
        return json.loads(listing.prepared(table, clock.now).body)

    def expected() -> Any:
        found = (agent_record(table, name) for name in sorted(table.names))
        return [json.loads(agent.model_dump_json()) for agent in found if agent]

    for name, instance_id, metadata, leased in registrations:
        more = {"name": name, "instance_id": instance_id, "metadata": {"last_seen": metadata}}
        registered = Registration(**MINIMAL | more, ttl_seconds=30 if leased else None)
        table.put(Record(registered, 1, clock.now, clock.now, clock.now, "up", "because", clock.now))
        table.revision += 1
        listing.changed(name)
        assert shown() == expected()
    for record in list(table):
        clock.turn(2)
        table.put(Record(record.registration, 1, record.since, clock.now, clock.now, "up", "because", record.since))
        listing.moved(record.registration.name)
        assert shown() == expected()
