"""Streams that break and are picked up again, and runs that are stopped, over a real socket."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent_runtime import ModelError, Usage
from agent_runtime.models.scripted import ScriptedModel
from agent_runtime.server.api import sse
from tests.agent_runtime.server.served import events, is_problem, serving
from tests.agent_runtime.speaking import Gated, Speaker
from tests.agents import eventually

SAY = Speaker("native")
HI = {"message": "hi"}


async def until(pieces: AsyncIterator[str], text: str) -> str:
    """What was read when `text` came."""
    read = ""
    async for piece in pieces:
        read += piece
        if text in read:
            return read
    raise AssertionError(f"the stream ended with {read!r}")


async def hung_up_after(client: httpx.AsyncClient, text: str, body: dict[str, Any] | None = None) -> str:
    """The run whose stream was read up to `text` and then broken off."""
    async with client.stream("POST", "/chat/stream", json=body or HI) as answer:
        read = await until(answer.aiter_text(), text)
    return str(events(read[: read.rindex("\n\n")])[0][2]["run_id"])


async def test_a_finished_stream_is_resumed_exactly_behind_any_event(tmp_path: Path) -> None:
    model = ScriptedModel([SAY.calls("add", a=2, b=3), ["It is ", "5.", Usage(20, 3)]])
    async with serving(tmp_path, model) as client:
        whole = events((await client.post("/chat/stream", json=HI)).text)
        path = f"/runs/{whole[0][2]['run_id']}/events"
        assert events((await client.get(path)).text) == whole
        for number in range(len(whole) + 2):
            by_header = await client.get(path, headers={"last-event-id": str(number)})
            by_parameter = await client.get(path, params={"last_event_id": number})
            assert events(by_header.text) == events(by_parameter.text) == whole[number:]
            assert by_header.headers["content-type"].startswith("text/event-stream")


async def test_a_stream_that_broke_is_picked_up_while_the_run_goes_on(tmp_path: Path) -> None:
    model = Gated()
    async with serving(tmp_path, model) as client:
        run_id = await hung_up_after(client, "first")
        async with client.stream("GET", f"/runs/{run_id}/events", headers={"last-event-id": "2"}) as answer:
            model.gate.set()
            rest = events((await answer.aread()).decode())
    assert [(number, name) for number, name, _ in rest] == [("3", "text"), ("4", "finished")]
    assert (rest[0][2]["delta"], rest[1][2]["answer"]) == ("second", "first second")


async def test_a_failure_is_resumed_too(tmp_path: Path) -> None:
    async with serving(tmp_path, ScriptedModel([ModelError("the model is away", fault="unreachable")])) as client:
        whole = events((await client.post("/chat/stream", json=HI)).text)
        path = f"/runs/{whole[0][2]['run_id']}/events"
        assert events((await client.get(path, headers={"last-event-id": "1"})).text) == whole[1:]
        assert (await client.get(path, headers={"last-event-id": "2"})).text == ""
    assert (whole[1][1], whole[1][2]["message"]) == ("failed", "the model is away")


async def test_a_client_that_hangs_up_cancels_nothing(tmp_path: Path) -> None:
    model = Gated()
    async with serving(tmp_path, model, agent_type="stateful") as client:
        await hung_up_after(client, "first", {**HI, "session_id": "s"})
        with pytest.raises(httpx.ReadTimeout):  # a client of the plain route loses its patience
            await client.post("/chat", json={**HI, "session_id": "s"}, timeout=0.1)
        model.gate.set()

        async def both_are_kept() -> bool:
            return len((await client.get("/sessions/s")).json()) == 4

        await eventually(both_are_kept)


@pytest.mark.parametrize("path", ["/chat", "/chat/stream"])
async def test_a_client_that_hangs_up_cancels_where_the_file_says_so(tmp_path: Path, path: str) -> None:
    model = Gated()
    server = {"cancel_on_disconnect": True}
    async with serving(tmp_path, model, agent_type="stateful", server=server) as client:
        if path == "/chat":
            with pytest.raises(httpx.ReadTimeout):
                await client.post("/chat", json={**HI, "session_id": "s"}, timeout=0.2)
        else:
            await hung_up_after(client, "first", {**HI, "session_id": "s"})
        await asyncio.wait_for(model.closed.wait(), 5)
        assert (await client.get("/sessions/s")).json() == []


async def test_cancelling_a_run_ends_its_stream_with_the_text_so_far(tmp_path: Path) -> None:
    model = Gated()
    async with (
        serving(tmp_path, model, agent_type="stateful") as client,
        client.stream("POST", "/chat/stream", json={**HI, "session_id": "s"}) as answer,
    ):
        pieces = answer.aiter_text()
        read = await until(pieces, "first")
        run_id = events(read)[0][2]["run_id"]
        for _ in range(2):
            cancelled = await client.post(f"/runs/{run_id}/cancel")
            assert (cancelled.status_code, cancelled.json()) == (200, {"run_id": run_id, "stop_reason": "cancelled"})
        read += "".join([piece async for piece in pieces])
        number, name, last = events(read)[-1]
        assert (number, name, last["answer"], last["stop_reason"]) == ("3", "finished", "first ", "cancelled")
        assert (await client.get("/sessions/s")).json() == []


async def test_cancelling_what_is_over_says_how_it_ended(tmp_path: Path) -> None:
    async with serving(tmp_path, ScriptedModel(["ok"])) as client:
        run_id = (await client.post("/chat", json=HI)).json()["run_id"]
        assert (await client.post(f"/runs/{run_id}/cancel")).json()["stop_reason"] == "finished"


async def test_a_run_is_seen_with_the_key_and_for_the_user_it_was_started_with(tmp_path: Path) -> None:
    keys = {"server": {"api_keys": ["one", "two"]}}
    one, two = ({"authorization": f"Bearer {key}"} for key in ("one", "two"))
    async with serving(tmp_path, ScriptedModel(["ok"]), **keys) as client:
        run_id = (await client.post("/chat", json={**HI, "user_id": "ada"}, headers=one)).json()["run_id"]
        for method, path in (("GET", f"/runs/{run_id}/events"), ("POST", f"/runs/{run_id}/cancel")):
            assert (await client.request(method, f"{path}?user_id=ada", headers=one)).status_code == 200
            for headers, user in ((one, ""), (one, "?user_id=bob"), (two, "?user_id=ada"), (two, "")):
                is_problem(await client.request(method, path + user, headers=headers), 404, "run_not_found")
            is_problem(await client.request(method, path), 401, "unauthorized")


async def test_a_run_that_never_was_is_a_problem(tmp_path: Path) -> None:
    async with serving(tmp_path, ScriptedModel([])) as client:
        is_problem(await client.get("/runs/nobody/events"), 404, "run_not_found")
        problem = is_problem(await client.post("/runs/nobody/cancel"), 404, "run_not_found")
        assert "send the message again" in problem["hint"]
        is_problem(await client.get("/runs/nobody/events", headers={"last-event-id": "x"}), 422, "invalid_body")


async def test_a_silent_stream_is_kept_awake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "KEEP_ALIVE_SECONDS", 0.02)
    model = Gated()
    async with serving(tmp_path, model) as client, client.stream("POST", "/chat/stream", json=HI) as answer:
        pieces = answer.aiter_text()
        read = await until(pieces, ": ping\n\n")
        model.gate.set()
        read += "".join([piece async for piece in pieces])
    assert [name for _, name, _ in events(read)] == ["run_started", "text", "text", "finished"]


async def test_what_is_refused_is_refused_before_a_stream_begins(tmp_path: Path) -> None:
    async with serving(tmp_path, ScriptedModel([])) as client:
        answer = await client.post("/chat/stream", json={**HI, "session_id": "a\u2028b"})
    is_problem(answer, 400, "bad_request")


async def test_a_reader_who_reads_slowly_holds_up_nobody(tmp_path: Path) -> None:
    words = ["x" * 20_000] * 500  # far more than sockets buffer
    async with serving(tmp_path, ScriptedModel([words])) as client:
        async with client.stream("POST", "/chat/stream", json=HI) as slow:
            lines = slow.aiter_lines()
            started = [await anext(lines) for _ in range(3)]
            run_id = json.loads(started[1].removeprefix("data: "))["run_id"]
            other = await client.get(f"/runs/{run_id}/events", headers={"last-event-id": "1"})
            assert events(other.text)[-1][1] == "finished"
            rest = "\n".join([line async for line in lines])
        assert len(events(rest)[-1][2]["answer"]) == 10_000_000


async def test_half_a_surrogate_pair_and_no_number_reach_the_reader_as_json(tmp_path: Path) -> None:
    model = ScriptedModel([[SAY.calls_raw("shout", '{"text": "a", "x": NaN}')[0]], ["\ud83d", "\ude00"]])  # type: ignore[index]
    async with serving(tmp_path, model) as client:
        sent = events((await client.post("/chat/stream", json=HI)).text)
        assert (await client.get(f"/runs/{sent[0][2]['run_id']}/events")).status_code == 200
    assert sent[1][2]["arguments"] == {"text": "a", "x": None}
    assert [data["delta"] for _, name, data in sent if name == "text"] == ["\ud83d", "\ude00"]
