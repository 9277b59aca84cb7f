"""What the routes share: the agent, its runs, and the owner of a session."""

from __future__ import annotations

import asyncio
from typing import Annotated, cast

from fastapi import Depends, Request

from agent_runtime.agent import Agent
from agent_runtime.events import RunResult
from agent_runtime.server.run import Run
from agent_runtime.server.runs import Runs


def agent_of(request: Request) -> Agent:
    """The agent that this application serves."""
    return cast("Agent", request.state.agent)


def runs_of(request: Request) -> Runs:
    """The runs of this application."""
    return cast("Runs", request.state.runs)


# FastAPI runs a dependency that is not asynchronous in a thread, which takes longer than both of these.


async def _agent(request: Request) -> Agent:
    return agent_of(request)


CurrentAgent = Annotated[Agent, Depends(_agent)]


async def _runs(request: Request) -> Runs:
    return runs_of(request)


CurrentRuns = Annotated[Runs, Depends(_runs)]


def session_owner(caller: str, user_id: str | None) -> str:
    """The owner of sessions and runs: the authenticated caller, and the user on whose behalf it calls."""
    return f"{caller}/{user_id or ''}"


async def wait_for_result(run: Run, request: Request) -> RunResult:
    """Wait for the end of a run; the client counts as a reader of it until it disconnects.

    Raises:
        MyAgentError: the error that ended the run.
    """
    if not run.cancels_on_disconnect:
        return await run.result()
    disconnect = asyncio.create_task(_read_until_disconnect(run, request))
    try:
        return await run.result()
    finally:
        disconnect.cancel()


async def _read_until_disconnect(run: Run, request: Request) -> None:
    with run.reading():
        while (await request.receive())["type"] != "http.disconnect":
            pass
