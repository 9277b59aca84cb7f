"""One replica of an agent, as a process of its own: `python -m tests.agent_runtime.sessions.replica turns|hang …`."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Any

from agent_runtime import Agent
from agent_runtime.events import Message, ModelChunk, ToolCall, ToolSpec
from agent_runtime.models.scripted import ScriptedModel
from tests.agents import write_agent

HANG = '''
import asyncio


async def hang() -> str:
    """Never come back."""
    print("called", flush=True)
    await asyncio.Event().wait()
    return ""
'''


class Counting(ScriptedModel):
    """Says how many messages it was shown, after a while in which others could come between."""

    def __init__(self) -> None:
        super().__init__([])

    async def stream(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSpec] = (),
        *,
        stop: Sequence[str] = (),
        schema: Mapping[str, Any] | None = None,
    ) -> AsyncGenerator[ModelChunk]:
        await asyncio.sleep(0.002)
        yield str(len(messages))


def replica(folder: Path, store: str, model: ScriptedModel, **sections: Any) -> Agent:
    """An agent that remembers; the folder is shared by all replicas."""
    session = {"store": store, "history_messages": 1000, "history_tokens": 100_000}
    file = write_agent(folder, agent_type="stateful", session=session, **sections)
    return Agent(file, model=model, environment={})


async def turns(folder: Path, store: str, name: str, count: int) -> None:
    """Many turns of one session at once."""
    async with replica(folder, store, Counting()) as agent:
        print("ready", flush=True)
        await asyncio.gather(*(agent.run(f"{name} {number}", session_id="s") for number in range(count)))


async def hang(folder: Path, store: str) -> None:
    """A turn that hangs between a tool call and its result."""
    model = ScriptedModel([[ToolCall("c1", "hang", "{}")]])
    async with replica(folder, store, model, code=HANG, tools=["calculator:hang"]) as agent:
        await agent.run("lost", session_id="s")


if __name__ == "__main__":
    what, where, url, *rest = sys.argv[1:]
    if what == "turns":
        asyncio.run(turns(Path(where), url, rest[0], int(rest[1])))
    else:
        asyncio.run(hang(Path(where), url))
