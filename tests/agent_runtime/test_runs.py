"""Runs that outlive their readers: followed from any event on, cancelled by their owner, forgotten in time."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent_runtime import Agent, CallerError, Finished, ModelError, RunStarted, Text, Usage
from agent_runtime.errors import UnknownRun
from agent_runtime.events import Message
from agent_runtime.models.scripted import ScriptedModel
from agent_runtime.server.run import MAX_SINGLE_EVENTS, Failed, Run
from agent_runtime.server.runs import Runs
from tests.agent_runtime.speaking import Gated, Speaker, scripted_agent

SAY = Speaker("native")


@asynccontextmanager
async def running(
    folder: Path, model: ScriptedModel, *, runs: Runs | None = None, **sections: Any
) -> AsyncGenerator[tuple[Agent, Runs]]:
    async with asyncio.timeout(10), scripted_agent(folder, "native", model, **sections) as agent, runs or Runs() as own:
        yield agent, own


async def said(run: Run, text: str) -> None:
    """Wait until the run has said so much."""
    so_far = ""
    async for _, event in run.follow():
        so_far += event.delta if isinstance(event, Text) else ""
        if text in so_far:
            return
    raise AssertionError(f"the run ended with {so_far!r}")


async def test_a_run_goes_on_without_a_reader_and_its_result_stays(tmp_path: Path) -> None:
    model = ScriptedModel([SAY.calls("add", a=2, b=3), SAY.answers("It is 5.", usage=Usage(20, 3))])
    async with running(tmp_path, model) as (agent, runs):
        run = await runs.start(agent, "2 + 3?", session_id="s")
        result = await run.result()
        assert (result.run_id, result.session_id, result.answer) == (run.run_id, "s", "It is 5.")
        assert (result.stop_reason, result.usage, len(result.steps)) == ("finished", Usage(20, 3), 1)
        assert runs.get(run.run_id) is run
        assert await run.result() == result


async def test_every_reader_gets_every_event_once_and_in_order(tmp_path: Path) -> None:
    model = Gated(*"abcdefgh")
    async with running(tmp_path, model) as (agent, runs):
        run = await runs.start(agent, "hi")

        async def read(after: int) -> list[Any]:
            return [event async for event in run.follow(after)]

        readers = [asyncio.create_task(read(after)) for after in (0, 0, 1, 3)]
        await said(run, "a")
        model.gate.set()
        everything, again, *later = await asyncio.gather(*readers)
        assert everything == again == await read(0)
        assert [number for number, _ in everything] == list(range(1, 11))
        assert isinstance(everything[0][1], RunStarted)
        assert isinstance(everything[-1][1], Finished)
        assert later == [everything[1:], everything[3:]]
        assert await read(10) == await read(11) == []


async def test_a_reader_who_goes_leaves_the_run_as_it_is(tmp_path: Path) -> None:
    model = Gated()
    async with running(tmp_path, model) as (agent, runs):
        run = await runs.start(agent, "hi")
        async with aclosing(run.follow()) as events:
            assert (await anext(events))[0] == 1
        model.gate.set()
        assert (await run.result()).answer == "first second"


async def test_a_file_can_ask_that_a_run_without_readers_is_cancelled(tmp_path: Path) -> None:
    model = Gated()
    async with running(tmp_path, model, server={"cancel_on_disconnect": True}) as (agent, runs):
        run = await runs.start(agent, "hi")
        with run.reading():
            await said(run, "first")  # one reader goes, and another stays
            assert not model.closed.is_set()
        result = await run.result()
    assert (result.answer, result.stop_reason) == ("first ", "cancelled")
    assert model.closed.is_set()


async def test_a_cancelled_run_ends_with_what_it_has_and_is_not_remembered(tmp_path: Path) -> None:
    class Slow(Gated):
        async def stream(self, messages: Any, tools: Any = (), *, stop: Any = ()) -> Any:
            if len(messages) == 1:
                yield "Let me see."
                for call in SAY.calls("add", a=2, b=3):
                    yield call
            else:
                async for chunk in super().stream(messages, tools, stop=stop):
                    yield chunk

    model = Slow()
    async with running(tmp_path, model, agent_type="stateful") as (agent, runs):
        run = await runs.start(agent, "hi", session_id="s")
        await said(run, "first")
        assert await run.cancel_and_wait() == "cancelled"
        assert await run.cancel_and_wait() == "cancelled"
        result = await run.result()
        assert (result.answer, result.stop_reason) == ("Let me see.\n\nfirst ", "cancelled")
        assert [(use.name, use.result) for step in result.steps for use in step.tool_calls] == [("add", "5")]
        assert await agent.history("s") == []
        assert model.closed.is_set()


async def test_a_turn_that_waits_for_another_of_its_session_can_be_cancelled(tmp_path: Path) -> None:
    model = Gated()
    async with running(tmp_path, model, agent_type="stateful") as (agent, runs):
        first = await runs.start(agent, "one", session_id="s")
        second = await runs.start(agent, "two", session_id="s")
        assert await second.cancel_and_wait() == "cancelled"
        model.gate.set()
        assert (await first.result()).answer == "first second"
        assert [message.content for message in await agent.history("s")] == ["one", "first second"]


async def test_a_run_that_is_over_stays_as_it_ended(tmp_path: Path) -> None:
    async with running(tmp_path, ScriptedModel(["ok", ModelError("away")])) as (agent, runs):
        run = await runs.start(agent, "hi")
        await run.result()
        assert await run.cancel_and_wait() == "finished"
        failing = await runs.start(agent, "hi")
        for _ in range(2):
            with pytest.raises(ModelError, match="away"):
                await failing.result()
        events = [event async for _, event in failing.follow()]
        assert isinstance(events[-1], Failed)
        assert await failing.cancel_and_wait() == "model_error"


async def test_what_is_refused_is_refused_at_the_start(tmp_path: Path) -> None:
    async with running(tmp_path, ScriptedModel([])) as (agent, runs):
        with pytest.raises(CallerError, match="empty"):
            await runs.start(agent, "  ")


async def test_a_defect_ends_the_run_and_its_readers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with running(tmp_path, ScriptedModel([RuntimeError("a defect of ours")])) as (agent, runs):
        run = await runs.start(agent, "hi")
        with pytest.raises(Exception, match="the agent failed; its log has the reason"):
            await run.result()
    assert "a defect of ours" in caplog.text


async def test_only_its_owner_may_see_a_run(tmp_path: Path) -> None:
    async with running(tmp_path, ScriptedModel(["ok"])) as (agent, runs):
        run = await runs.start(agent, "hi", owner="ada")
        assert runs.get(run.run_id, owner="ada") is run
        for run_id, owner in ((run.run_id, ""), (run.run_id, "bob"), ("none", "ada"), ("", "ada")):
            with pytest.raises(UnknownRun):
                runs.get(run_id, owner=owner)


async def test_runs_are_forgotten_after_a_while_and_the_oldest_first(tmp_path: Path) -> None:
    now = 0.0
    runs = Runs(retention_seconds=60, max_retained_runs=2, clock=lambda: now)
    async with running(tmp_path, ScriptedModel("abcd"), runs=runs) as (agent, _):
        ids: list[str] = []
        for at in (0.0, 10.0, 20.0):
            now = at
            run = await runs.start(agent, "hi")
            await run.result()
            ids.append(run.run_id)
            await asyncio.sleep(0)  # the task's own end follows its last event
        known = [run_id for run_id in ids if _is_known(runs, run_id)]
        assert known == ids[1:]
        now = 71.0
        assert [run_id for run_id in ids if _is_known(runs, run_id)] == ids[2:]


async def test_runs_that_said_too_much_together_are_forgotten_sooner(tmp_path: Path) -> None:
    runs = Runs(max_retained_characters=1500)
    async with running(tmp_path, ScriptedModel(["x" * 1000] * 2), runs=runs) as (agent, _):
        first = await runs.start(agent, "hi")
        await first.result()
        second = await runs.start(agent, "hi")
        await second.result()
        await asyncio.sleep(0)
        assert [_is_known(runs, run.run_id) for run in (first, second)] == [False, True]


def _is_known(runs: Runs, run_id: str) -> bool:
    try:
        return bool(runs.get(run_id))
    except UnknownRun:
        return False


async def test_a_very_long_answer_takes_fewer_events_and_loses_nothing(tmp_path: Path) -> None:
    words = [f"{number} " for number in range(MAX_SINGLE_EVENTS * 3)]
    async with running(tmp_path, ScriptedModel([words])) as (agent, runs):
        run = await runs.start(agent, "count")
        texts = [event.delta async for _, event in run.follow() if isinstance(event, Text)]
        assert "".join(texts) == "".join(words) == (await run.result()).answer
        assert len(texts) < MAX_SINGLE_EVENTS * 1.05


async def test_closing_cancels_what_runs_and_tells_its_readers(tmp_path: Path) -> None:
    model = Gated()
    async with running(tmp_path, model) as (agent, runs):
        run = await runs.start(agent, "hi")
        await said(run, "first")
    assert (await run.result()).stop_reason == "cancelled"
    assert model.closed.is_set()


async def test_a_history_of_the_caller_takes_the_place_of_the_session(tmp_path: Path) -> None:
    model = ScriptedModel(["Hello.", "You are Bob."])
    async with running(tmp_path, model, agent_type="stateful") as (agent, runs):
        await (await runs.start(agent, "I am Ada.", session_id="s")).result()
        history = [Message("user", "I am Bob."), Message("assistant", "Hello Bob.")]
        await (await runs.start(agent, "Who am I?", session_id="s", history=history)).result()
        assert [message.content for message in await agent.history("s")] == ["I am Ada.", "Hello."]
    assert [message.content for message in model.asked[1].messages] == ["I am Bob.", "Hello Bob.", "Who am I?"]
