"""The client against a real registry, and against everything that is none."""

import asyncio
import inspect
import logging
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from discovery.app import create_app
from discovery.client import DiscoveryClient, DiscoveryError, RegistrationRefused, registered
from discovery.settings import Settings
from tests.discovery.conftest import MINIMAL, Clock, RunRegistry, eventually, registration
from tests.serving import serve

URL = "http://registry.test:9000"


class Pace:
    """Stands in for sleeping: notes how long it was asked to and lets a test say how many sleeps may end."""

    def __init__(self, sleeps: int = 0) -> None:
        self.asked: list[float] = []
        self._permits = asyncio.Semaphore(sleeps)

    async def __call__(self, seconds: float) -> None:
        self.asked.append(seconds)
        await self._permits.acquire()

    def go_on(self, sleeps: int = 1) -> None:
        for _ in range(sleeps):
            self._permits.release()

    async def slept(self, times: int) -> list[float]:
        """Wait until it was asked to sleep so often."""
        await eventually(lambda: len(self.asked) >= times)
        return self.asked


class Wire(httpx.AsyncBaseTransport):
    """Answers with what a test prepared, the last of it for ever, and keeps what was sent."""

    def __init__(self, *answers: httpx.Response | Exception | Callable[[], Awaitable[httpx.Response]]) -> None:
        self.answers = list(answers)
        self.sent: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        self.sent.append(request)
        if request.method == "DELETE":
            return httpx.Response(204)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, httpx.Response) else await answer()

    def methods(self) -> list[str]:
        return [request.method for request in self.sent]


def yes(**more: Any) -> httpx.Response:
    return httpx.Response(201, json={"name": "customer-service", **more})


def leased(interval: float = 10, ttl: float = 30) -> httpx.Response:
    return yes(lease={"ttl_seconds": ttl, "interval_seconds": interval})


# ---- one call ----


async def test_register_list_look_up_and_remove(registry: RunRegistry) -> None:
    async with registry() as http, DiscoveryClient(str(http.base_url)) as client:
        assert await client.agents() == []
        answer = await client.register(registration(name="a b/ü".replace("/", ""), ttl_seconds=30, boot_id="x"))
        assert answer.lease is not None
        assert [agent.name for agent in await client.agents()] == ["a bü"]
        found = await client.agent("a bü")
        assert found is not None
        assert found.status == "up"
        await client.remove("a bü", instance_id="default", boot_id="x")
        await client.remove("a bü")
        assert await client.agent("a bü") is None


async def test_a_filtered_list_is_the_registrys_own_choice(registry: RunRegistry) -> None:
    async with registry() as http, DiscoveryClient(str(http.base_url)) as client:
        for name, tags in {"a": ["x"], "b": ["y"], "c": ["ü & z"]}.items():
            await client.register(registration(name=name, tags=tags))
        assert [agent.name for agent in await client.agents(tag=["x", "ü & z"])] == ["a", "c"]
        assert [agent.name for agent in await client.agents(q="search", tag="y", status=["registered", "up"])] == ["b"]
        with pytest.raises(DiscoveryError, match="status: Input should be 'up'") as caught:
            await client.agents(status="upp")
        assert (caught.value.status, caught.value.code) == (400, "invalid_parameter")


@pytest.mark.parametrize("refusal", [None, 400, 422])
async def test_a_registry_without_filters_is_filtered_here(refusal: int | None) -> None:
    listed = [MINIMAL | {"name": "a", "tags": ["x"]}, MINIMAL | {"name": "b"}]
    everything = httpx.Response(200, json=listed)
    wire = Wire(*([] if refusal is None else [httpx.Response(refusal, json={"detail": "no"})]), everything)
    async with DiscoveryClient("http://registry", transport=wire) as client:
        assert [agent.name for agent in await client.agents(tag="x")] == ["a"]


async def test_the_last_list_is_kept_on_disk_for_when_the_registry_is_away(
    registry: RunRegistry, tmp_path: Path, clock: Clock
) -> None:
    folder = tmp_path / "not" / "there yet"
    async with registry() as http:
        url = str(http.base_url)
        async with DiscoveryClient(url, cache_folder=folder, now=clock) as client:
            assert await client.cached_agents() is None
            for name, tags in {"a": ["x"], "b": ["y"]}.items():
                await client.register(registration(name=name, tags=tags))
            known = await client.agents()
    async with DiscoveryClient(url, cache_folder=folder) as later:
        with pytest.raises(DiscoveryError):
            await later.agents()
        last, chosen = await later.cached_agents(), await later.cached_agents(tag="y")
    assert last is not None
    assert chosen is not None
    assert (last.agents, last.fetched_at) == (known, clock.now)
    assert [agent.name for agent in chosen.agents] == ["b"]
    (file,) = folder.iterdir()
    assert file.stat().st_mode & 0o077 == 0
    async with DiscoveryClient("http://127.0.0.1:9/other", cache_folder=folder) as other:
        assert await other.cached_agents() is None
    file.write_text("{")
    async with DiscoveryClient(url, cache_folder=folder) as later:
        assert await later.cached_agents() is None


async def test_a_folder_that_cannot_be_written_costs_the_cache_and_nothing_else(
    registry: RunRegistry, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    async with registry() as http, DiscoveryClient(str(http.base_url), cache_folder=tmp_path / "file") as client:
        assert await client.agents() == []
        assert await client.cached_agents() is None


async def test_a_refusal_says_what_the_registry_said(registry: RunRegistry) -> None:
    async with registry() as http, DiscoveryClient(str(http.base_url)) as client:
        bad = registration().model_copy(update={"endpoint": "nowhere"})
        with pytest.raises(RegistrationRefused, match="endpoint: must be an absolute") as caught:
            await client.register(bad)
        assert (caught.value.status, caught.value.code) == (422, "invalid_registration")


async def test_the_token_is_sent_and_never_shown() -> None:
    wire = Wire(yes())
    async with DiscoveryClient(URL, token="hush", transport=wire) as client:
        await client.register(registration())
    assert wire.sent[0].headers["authorization"] == "Bearer hush"
    async with DiscoveryClient("http://127.0.0.1:1", token="hush\nhush") as client:
        with pytest.raises(DiscoveryError) as caught:
            await client.register(registration())
    assert "hush" not in str(caught.value)


async def test_a_redirect_is_not_followed_with_the_token() -> None:
    wire = Wire(httpx.Response(307, headers={"location": "https://elsewhere.test/"}))
    async with DiscoveryClient(URL, token="hush", transport=wire) as client:
        with pytest.raises(DiscoveryError, match="307"):
            await client.register(registration())
    assert len(wire.sent) == 1


@pytest.mark.parametrize("answer", [httpx.Response(201), httpx.Response(200, json=None), httpx.Response(200, json={})])
async def test_a_registry_of_the_minimal_contract_may_say_yes_in_few_words(answer: httpx.Response) -> None:
    async with DiscoveryClient(URL, transport=Wire(answer)) as client:
        assert (await client.register(registration())).name == "customer-service"


async def test_one_agent_is_found_in_the_list_of_a_registry_that_has_only_the_list() -> None:
    wire = Wire(httpx.Response(404, json={"detail": "Not Found"}), httpx.Response(200, json=[MINIMAL]))
    async with DiscoveryClient(URL, transport=wire) as client:
        found = await client.agent("customer-service")
    assert found is not None
    assert found.endpoint == MINIMAL["endpoint"]


async def compressed() -> httpx.Response:
    return httpx.Response(200, headers={"content-encoding": "gzip"}, content=b"")


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, html="<html>Welcome to the guest network</html>"),
        httpx.Response(200, text="{"),
        httpx.Response(200, text="[" * 100_000),
        httpx.Response(200, json=[1]),
        httpx.Response(200, json={"lease": "soon"}),
        httpx.Response(200, json={"lease": {"ttl_seconds": -1, "interval_seconds": 0}}),
        httpx.Response(200, text='{"lease": {"ttl_seconds": NaN, "interval_seconds": Infinity}}'),
        httpx.Response(200, content=b"\xff\xfe\x00"),
        httpx.Response(200, json={"x": "y" * 300_000}),
        httpx.Response(302, headers={"location": "/login"}),
        httpx.Response(404, html="<h1>no such host</h1>"),
        httpx.Response(409, json={"code": 7, "detail": ["?"]}),
        httpx.Response(500, json=[1, 2]),
        httpx.Response(503, headers={"retry-after": "whenever"}),
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("slow"),
        httpx.RemoteProtocolError("garbage"),
        ssl.SSLCertVerificationError("self-signed"),
        ValueError("anything"),
        compressed,
    ],
    ids=lambda answer: type(answer).__name__ + str(getattr(answer, "status_code", "")),
)
async def test_whatever_answers_the_error_is_of_one_kind_and_one_line(answer: Any) -> None:
    async with DiscoveryClient(URL, transport=Wire(answer)) as client:
        with pytest.raises(DiscoveryError) as caught:
            await client.register(registration())
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@asynccontextmanager
async def raw_server(
    talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncGenerator[str]:
    """A server that speaks bytes, not HTTP."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            await talk(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        for writer in writers:
            writer.close()
        server.close()


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)


async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"\x00\x01 this is not HTTP\r\n\r\n")
    await writer.drain()


async def never_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n")
    while True:
        writer.write(b" " * 65536)
        await writer.drain()


async def lie_about_length(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{}")
    await writer.drain()


@pytest.mark.parametrize("talk", [hang_up, babble, never_end, lie_about_length])
async def test_servers_that_misbehave_on_the_wire_are_a_discovery_error(talk: Any) -> None:
    async with raw_server(talk) as url, DiscoveryClient(url) as client, asyncio.timeout(5):
        with pytest.raises(DiscoveryError):
            await client.register(registration())


async def test_a_server_that_never_answers_is_given_up_after_five_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("discovery.client.client.RESPONSE_SECONDS", 0.2)

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:  # every byte arrives in time, the answer never does
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with raw_server(drip) as url, DiscoveryClient(url) as client, asyncio.timeout(5):
        with pytest.raises(DiscoveryError, match="no response within"):
            await client.register(registration())


async def test_https_to_a_server_without_a_certificate_is_a_discovery_error(registry: RunRegistry) -> None:
    async with registry() as http, DiscoveryClient(f"https://127.0.0.1:{http.base_url.port}") as client:
        with pytest.raises(DiscoveryError):
            await client.agents()


@pytest.mark.parametrize("url", ["", "nonsense", "http://", "ftp://x", "http://[::1", "http://\u2603\ud800/"])
async def test_an_unusable_url_is_a_discovery_error_too(url: str) -> None:
    async with DiscoveryClient(url) as client:
        with pytest.raises(DiscoveryError):
            await client.agents()


# ---- for the lifetime of an agent ----


async def test_an_agent_is_listed_while_the_block_runs_and_gone_after_it(registry: RunRegistry) -> None:
    async with registry() as http:
        async with registered(registration(), url=str(http.base_url), heartbeat_seconds=10) as state:
            await eventually(lambda: state.registered)
            (agent,) = (await http.get("/agents")).json()
            assert agent["status"] == "up"
            assert agent["instances"][0]["ttl_seconds"] == 30
            assert agent["instances"][0]["boot_id"]
            assert state.last_success is not None
        assert (await http.get("/agents")).json() == []


async def test_without_heartbeats_it_registers_once_and_is_done() -> None:
    pace, wire = Pace(), Wire(yes())
    async with registered(registration(), url=URL, transport=wire, sleep=pace) as state:
        await eventually(lambda: state.registered)
    assert wire.methods() == ["POST", "DELETE"]
    assert b"ttl_seconds" not in wire.sent[0].content
    assert pace.asked == []


async def test_without_heartbeats_it_tries_until_it_is_registered_once() -> None:
    pace, wire = Pace(10), Wire(httpx.ConnectError("refused"), httpx.Response(500), yes())
    async with registered(registration(), url=URL, transport=wire, sleep=pace) as state:
        await eventually(lambda: state.registered)
    assert wire.methods() == ["POST", "POST", "POST", "DELETE"]


async def test_heartbeats_follow_the_interval_of_the_registry_with_a_tenth_of_jitter() -> None:
    pace, wire, dice = Pace(10), Wire(leased(interval=10)), iter([0.0, 0.5, 1.0] * 10)
    async with registered(
        registration(), url=URL, heartbeat_seconds=20, transport=wire, sleep=pace, random=lambda: next(dice)
    ):
        assert (await pace.slept(3))[:3] == pytest.approx([9.0, 10.0, 11.0])
    assert b'"ttl_seconds":60' in wire.sent[0].content


@pytest.mark.parametrize(
    ("answer", "least", "most"),
    [(leased(1e-9), 1, 1), (leased(1e9, 1e9), 3600, 3600), (leased(50, 30), 30, 30), (yes(), 20, 20)],
)
async def test_an_absurd_interval_makes_neither_a_storm_nor_silence(
    answer: httpx.Response, least: float, most: float
) -> None:
    pace = Pace()
    async with registered(
        registration(), url=URL, heartbeat_seconds=20, transport=Wire(answer), sleep=pace, random=lambda: 0.5
    ):
        (asked, *_) = await pace.slept(1)
    assert least <= asked <= most


async def test_failures_back_off_from_one_second_to_sixty_with_full_jitter() -> None:
    pace = Pace(100)
    wire = Wire(httpx.ConnectError("refused"))
    async with registered(registration(), url=URL, transport=wire, sleep=pace, random=lambda: 1.0):
        asked = await pace.slept(8)
    assert asked[:8] == [1, 2, 4, 8, 16, 32, 60, 60]


async def test_with_heartbeats_a_registry_that_is_back_is_told_within_one_of_them() -> None:
    pace = Pace(100)
    wire = Wire(httpx.ConnectError("refused"))
    async with registered(registration(), url=URL, heartbeat_seconds=5, transport=wire, sleep=pace, random=lambda: 1.0):
        asked = await pace.slept(6)
    assert max(asked) == 5


async def test_retry_after_is_obeyed_in_seconds_and_as_a_date(clock: Clock) -> None:
    date = (clock.now + timedelta(seconds=40)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    for value in ("40", date):
        pace = Pace()
        wire = Wire(httpx.Response(503, headers={"retry-after": value}))
        async with registered(registration(), url=URL, transport=wire, sleep=pace, random=lambda: 0.0, now=clock):
            assert (await pace.slept(1))[0] == pytest.approx(40, abs=1)


@pytest.mark.parametrize("status", [401, 403, 422])
async def test_a_refusal_is_an_error_once_and_tried_again_every_five_minutes(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "discovery.client.registration")
    pace, wire = Pace(3), Wire(httpx.Response(status, json={"detail": "no such token"}))
    async with registered(registration(), url=URL, transport=wire, sleep=pace) as state:
        assert (await pace.slept(3))[:3] == [300, 300, 300]
        assert state.last_error is not None
        assert "no such token" in state.last_error
    levels = [record.levelname for record in caplog.records if "refused" in record.message]
    assert levels[:3] == ["ERROR", "DEBUG", "DEBUG"]


async def test_the_first_failure_is_a_warning_the_next_are_quiet_and_recovery_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "discovery.client.registration")
    pace = Pace(6)
    down = httpx.ConnectError("refused")
    wire = Wire(down, down, yes(), yes(), down, yes())
    async with registered(registration(), url=URL, heartbeat_seconds=10, transport=wire, sleep=pace):
        await pace.slept(6)
    told = [record.levelname for record in caplog.records if "regist" in record.message]
    assert told[:6] == ["WARNING", "DEBUG", "INFO", "DEBUG", "WARNING", "INFO"]


def superseded() -> httpx.Response:
    return httpx.Response(409, json={"code": "superseded", "detail": "a newer process holds the entry"})


async def test_who_was_superseded_is_told_once_what_to_do_and_comes_back_when_the_other_is_gone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "discovery.client.registration")
    pace, wire = Pace(5), Wire(leased(), superseded(), superseded(), yes(), superseded())
    who = registration(instance_id="pod-1")
    async with registered(who, url=URL, heartbeat_seconds=10, transport=wire, sleep=pace, random=lambda: 0.5) as state:
        assert (await pace.slept(3))[:3] == pytest.approx([10, 10, 10])
        await pace.slept(5)
        assert state.last_error is not None
        assert "a newer process holds the entry" in state.last_error
    told = [record for record in caplog.records if "another process" in record.message]
    assert [record.levelname for record in told][:3] == ["WARNING", "DEBUG", "WARNING"]
    assert "registered as customer-service/pod-1" in told[0].message
    assert "stop one of them, or give each its own instance_id" in told[0].message
    assert [r.levelname for r in caplog.records if r.message.startswith("registered with")] == ["INFO", "INFO"]


async def test_the_older_of_two_processes_is_back_when_the_newer_has_gone(registry: RunRegistry) -> None:
    async with registry() as http:
        url, older, newer = str(http.base_url), Pace(), registration(version="2", boot_id="newer")

        async def version() -> str:
            return (await http.get("/agents/customer-service")).json()["version"]

        async with registered(registration(), url=url, heartbeat_seconds=10, sleep=older) as state:
            await older.slept(1)
            async with registered(newer, url=url, heartbeat_seconds=10) as other:
                await eventually(lambda: other.registered)
                older.go_on()
                await older.slept(2)
                assert not state.registered
                assert await version() == "2"
            older.go_on()
            await eventually(lambda: state.registered)
            assert await version() == "1.0.0"
        assert (await http.get("/agents")).json() == []


async def test_what_the_registry_warns_about_is_in_the_agents_log_once(caplog: pytest.LogCaptureFixture) -> None:
    notice = {"code": "loopback_endpoint", "message": "nobody can\nreach that", "hint": "Set server.service_url."}
    pace = Pace(3)
    async with registered(
        registration(), url=URL, heartbeat_seconds=10, transport=Wire(yes(warnings=[notice])), sleep=pace
    ):
        await pace.slept(3)
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "registry warning: nobody can reach that Set server.service_url."
    ]


async def test_a_registration_that_is_a_callable_is_asked_at_every_beat() -> None:
    ports = iter(range(8000, 9000))
    pace, wire = Pace(2), Wire(leased())
    async with registered(
        lambda: registration(endpoint=f"http://h:{next(ports)}"),
        url=URL,
        heartbeat_seconds=10,
        transport=wire,
        sleep=pace,
    ):
        await pace.slept(3)
    bodies = [request.content for request in wire.sent if request.method == "POST"]
    assert b"h:8000" in bodies[0]
    assert b"h:8001" in bodies[1]
    boots = {body.split(b'"boot_id":"')[1][:36] for body in bodies}
    assert len(boots) == 1


async def test_a_callable_may_wait_for_its_answer_and_leave_a_heartbeat_out() -> None:
    answers = iter([registration(), None, registration(status="degraded")])

    async def look() -> Any:
        return next(answers)

    pace, wire = Pace(2), Wire(leased())
    async with registered(look, url=URL, heartbeat_seconds=10, transport=wire, sleep=pace, random=lambda: 0.5) as state:
        assert await pace.slept(3) == pytest.approx([10, 10, 10])
        assert state.registered
    bodies = [request.content for request in wire.sent if request.method == "POST"]
    assert [b'"status":"degraded"' in body for body in bodies] == [False, True]


async def test_a_callable_that_fails_is_one_more_thing_that_does_not_reach_the_agent() -> None:
    pace = Pace()

    def broken() -> Any:
        raise RuntimeError("no endpoint yet")

    async with registered(broken, url=URL, transport=Wire(yes()), sleep=pace) as state:
        await pace.slept(1)
        assert state.last_error == "no endpoint yet"


async def test_it_waits_until_the_agent_itself_says_it_serves() -> None:
    answers = iter([False, RuntimeError("not bound"), True])

    async def ready() -> bool:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    pace, wire = Pace(10), Wire(yes())
    async with registered(registration(), url=URL, ready=ready, transport=wire, sleep=pace) as state:
        await eventually(lambda: state.registered)
    assert len(pace.asked) == 2


async def test_it_waits_until_the_agents_own_port_answers_whatever_it_answers() -> None:
    with closing(socket.socket()) as holder:
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
    pace, wire = Pace(), Wire(yes())
    own = f"http://127.0.0.1:{port}/livez"
    async with registered(registration(), url=URL, ready=own, transport=wire, sleep=pace) as state:
        await pace.slept(1)
        assert wire.sent == []

        async def teapot(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 418 Teapot\r\ncontent-length: 0\r\n\r\n")
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(teapot, "127.0.0.1", port)
        pace.go_on()
        await eventually(lambda: state.registered)
        server.close()


async def test_a_hanging_registry_delays_neither_the_start_nor_much_the_end() -> None:
    async def hang() -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    class Tarpit(Wire):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            self.sent.append(request)
            return await hang()

    wire = Tarpit(yes())
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with registered(registration(), url=URL, transport=wire):
        assert loop.time() - began < 0.5
        await eventually(lambda: wire.sent)
    assert wire.methods() == ["POST", "DELETE"]
    assert loop.time() - began < 3.5


async def test_goodbye_is_said_when_the_block_is_cancelled_and_the_cancellation_goes_on() -> None:
    wire = Wire(yes())
    inside = asyncio.Event()

    async def agent() -> None:
        async with registered(registration(), url=URL, transport=wire) as state:
            await eventually(lambda: state.registered)
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(agent())
    await asyncio.wait_for(inside.wait(), 5)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()  # an impatient runner
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)
    assert wire.methods() == ["POST", "DELETE"]
    assert "boot_id=" in str(wire.sent[1].url)


async def test_an_error_of_the_block_is_what_comes_out_of_it() -> None:
    with pytest.raises(ZeroDivisionError):
        async with registered(registration(), url="nonsense"):
            raise ZeroDivisionError


async def test_who_never_reached_the_registry_says_no_goodbye() -> None:
    wire = Wire(yes())

    async def never() -> bool:
        return False

    async with registered(registration(), url=URL, ready=never, transport=wire, sleep=Pace()):
        pass
    assert wire.sent == []


async def test_a_registry_that_comes_back_empty_is_whole_after_one_heartbeat(registry: RunRegistry) -> None:
    pace = Pace()
    async with registry() as http:
        port = http.base_url.port
        running = registered(registration(), url=str(http.base_url), heartbeat_seconds=10, sleep=pace)
        state = await running.__aenter__()
        await pace.slept(1)
        assert len((await http.get("/agents")).json()) == 1
    pace.go_on()
    await pace.slept(2)
    assert (state.registered, bool(state.last_error)) == (False, True)
    async with registry(port=port) as http:
        assert (await http.get("/agents")).json() == []
        pace.go_on()
        await eventually(lambda: state.registered)
        assert len((await http.get("/agents")).json()) == 1
        await running.__aexit__(None, None, None)
        assert (await http.get("/agents")).json() == []


async def test_heartbeats_share_one_connection() -> None:
    pace = Pace(sleeps=5)
    ports: set[int] = set()
    application = create_app(Settings(database_url="memory://"))

    async def counted(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            ports.add(scope["client"][1])
        await application(scope, receive, send)

    async with serve(counted) as url, registered(registration(), url=url, heartbeat_seconds=10, sleep=pace):
        await pace.slept(6)
    assert len(ports) == 1


async def test_a_kept_connection_that_the_server_closes_is_no_failed_heartbeat(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The server keeps each connection after a response, and closes it when the next request arrives."""
    requests: list[int] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number in range(2):
            head = await reader.readuntil(b"\r\n\r\n")
            length = next((line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), b":0")
            await reader.readexactly(int(length.partition(b":")[2]))
            requests.append(number)
            if number == 0:
                body = b'{"name": "customer-service"}'
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
                await writer.drain()
        writer.close()

    pace = Pace(sleeps=3)
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, registered(registration(), url=url, heartbeat_seconds=10, sleep=pace) as state:
        await pace.slept(4)
        assert state.registered
    assert requests[:7] == [0, 1, 0, 1, 0, 1, 0]
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_importing_the_client_is_cheap_and_needs_nothing_of_the_registry() -> None:
    program = (
        "import sys, discovery.client;"
        "print(sorted(m for m in sys.modules if m.split('.')[0] in "
        "{'httpx', 'fastapi', 'starlette', 'uvicorn', 'aiosqlite', 'discovery'}))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    contract = [f"discovery.contract{name}" for name in ("", ".fields", ".filters", ".models")]
    files = ("", ".cache", ".client", ".middleware", ".registration", ".responses")
    client = [f"discovery.client{name}" for name in files]
    assert found.stdout.strip() == str(["discovery", *client, *contract])


def test_the_signature_promises_seams_for_time_and_chance() -> None:
    assert {"transport", "sleep", "random", "now", "ready"} <= inspect.signature(registered).parameters.keys()
