"""`Agent.stream` as its reader sees it: back-pressure, errors, cancellation and time limits."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from agent_runtime import Agent, Event, Finished, ModelError, Text
from agent_runtime.models.scripted import ScriptedModel
from tests.agents import write_agent


class Counting(ScriptedModel):
    """Streams numbers without end, or up to `until`, and knows how far it is."""

    def __init__(self, until: int = 1_000_000, error: Exception | None = None) -> None:
        super().__init__([])
        self.until = until
        self.error = error
        self.count = 0
        self.begun = asyncio.Event()
        self.closed = asyncio.Event()

    async def stream(self, messages: Any, tools: Any = (), *, stop: Any = ()) -> AsyncGenerator[str]:
        try:
            while self.count < self.until:
                await asyncio.sleep(0)
                self.count += 1
                yield f"{self.count} "
            if self.error:
                raise self.error
        finally:
            self.closed.set()


def counting(folder: Path, model: ScriptedModel, **sections: Any) -> Agent:
    return Agent(write_agent(folder, **sections), model=model, environment={})


async def first_text(events: AsyncGenerator[Event]) -> str:
    async for event in events:
        if isinstance(event, Text):
            return event.delta
    raise AssertionError("the run ended without a text")


async def some_time() -> None:
    for _ in range(1_000):
        await asyncio.sleep(0)


async def test_a_run_waits_for_a_slow_reader_and_no_event_is_lost(tmp_path: Path) -> None:
    model = Counting(until=500)
    async with asyncio.timeout(5), counting(tmp_path, model) as agent:
        events = agent.stream("Count.")
        texts = [await first_text(events)]
        await some_time()
        assert model.count < 100
        texts += [event.delta async for event in events if isinstance(event, Text)]
    assert texts == [f"{number} " for number in range(1, 501)]


async def test_a_run_begins_when_its_first_event_is_read(tmp_path: Path) -> None:
    model = Counting()
    async with counting(tmp_path, model) as agent:
        events = agent.stream("Count.")
        await some_time()
        assert model.count == 0
        await events.aclose()


async def test_closing_a_stream_cancels_a_run_that_waits_for_its_reader(tmp_path: Path) -> None:
    model = Counting()
    async with asyncio.timeout(5), counting(tmp_path, model) as agent:
        events = agent.stream("Count.")
        await first_text(events)
        await some_time()
        await events.aclose()
        assert model.closed.is_set()


async def test_cancelling_the_reader_cancels_the_run(tmp_path: Path) -> None:
    class Silent(Counting):
        async def stream(self, *_: Any, **options: Any) -> AsyncGenerator[str]:
            try:
                self.begun.set()
                await asyncio.Event().wait()
                yield ""
            finally:
                self.closed.set()

    model = Silent()
    async with asyncio.timeout(5), counting(tmp_path, model) as agent:
        reader = asyncio.create_task(first_text(agent.stream("Count.")))
        await model.begun.wait()
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        assert model.closed.is_set()


async def test_an_error_is_raised_once_all_events_before_it_are_read(tmp_path: Path) -> None:
    error = ModelError("the model is away")
    async with asyncio.timeout(5), counting(tmp_path, Counting(until=3, error=error)) as agent:
        events = agent.stream("Count.")
        texts = [await first_text(events) for _ in range(3)]
        with pytest.raises(ModelError) as caught:
            await first_text(events)
    assert caught.value is error
    assert texts == ["1 ", "2 ", "3 "]


async def test_an_error_behind_a_stream_that_was_closed_is_not_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with asyncio.timeout(5), counting(tmp_path, Counting(until=3, error=ModelError("away"))) as agent:
        events = agent.stream("Count.")
        await first_text(events)
        await some_time()
        await events.aclose()
    assert caplog.text == ""


async def test_a_timeout_error_of_the_model_is_not_the_time_limit_of_the_run(tmp_path: Path) -> None:
    error = TimeoutError("of the model")
    async with counting(tmp_path, Counting(until=1, error=error)) as agent:
        with pytest.raises(TimeoutError) as caught:
            await agent.run("Count.")
    assert caught.value is error


async def test_the_answer_is_what_a_reader_was_sent_when_time_runs_out_while_it_does_not_read(tmp_path: Path) -> None:
    model = Counting()
    async with asyncio.timeout(5), counting(tmp_path, model, limits={"timeout_seconds": 0.05}) as agent:
        events = agent.stream("Count.")
        texts = [await first_text(events)]
        await model.closed.wait()
        rest = [event async for event in events]
    texts += [event.delta for event in rest if isinstance(event, Text)]
    end = rest[-1]
    assert isinstance(end, Finished)
    assert (end.stop_reason, end.answer) == ("timeout", "".join(texts))


async def test_the_next_turn_of_a_session_may_begin_before_the_last_event_is_read(tmp_path: Path) -> None:
    async with asyncio.timeout(5), counting(tmp_path, ScriptedModel(["one", "two"]), agent_type="stateful") as agent:
        events = agent.stream("first", session_id="s")
        await first_text(events)
        assert (await agent.run("second", session_id="s")).answer == "two"
        await events.aclose()
        assert [message.content for message in await agent.history("s")] == ["first", "one", "second", "two"]
