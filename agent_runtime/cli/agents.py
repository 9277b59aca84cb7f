"""The agents of a registry in the terminal: once, as JSON, or again on every change."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import aclosing, suppress
from datetime import datetime
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.text import Text

from agent_runtime.cli.terminal import console, print_table
from agent_runtime.errors import StartError
from agent_runtime.tls import environment_tls
from discovery.client import DiscoveryClient, DiscoveryError
from discovery.contract import AgentRecord, FilterValues, utc_now

POLL_SECONDS = 5.0  # keeps SEEN current: a heartbeat is not an event
BATCH_SECONDS = 0.2
WIDEST_CELL = 40
STATUSES = {  # in the order of the summary, with their styles
    "up": "green",
    "degraded": "yellow",
    "draining": "yellow",
    "registered": "",
    "stale": "yellow",
    "down": "red",
}
TITLES = ("NAME", "STATUS", "VERSION", "MODEL", ">TOOLS", "OWNER", "ENDPOINT", "SEEN")


def show_agents(
    url: str, chosen: FilterValues, mode: Literal["once", "json", "watch"], environment: Mapping[str, str]
) -> None:
    """Print the agents of a registry.

    Raises:
        StartError: the registry is not available, also after its last list was printed, or it refuses the request.
    """
    token = environment.get("MYAGENT_DISCOVERY_TOKEN") or None
    tls = environment_tls(environment)
    out = console(sys.stdout)

    async def show() -> None:
        async with DiscoveryClient(url, token=token, tls=tls, cache_folder=cache_folder(environment)) as client:
            if mode == "watch":
                await watch(client, chosen, out)
                return
            agents, error = await _read(client, chosen)
            if mode == "once":
                _print_list(client, chosen, agents, error, out)
            elif agents is not None:
                print(json.dumps([agent.model_dump(mode="json") for agent in agents], indent=2), flush=True)
            if error:
                raise StartError(error)

    try:
        asyncio.run(show())
    except KeyboardInterrupt:
        if mode != "watch":
            raise
    except BrokenPipeError:  # the reader has closed the pipe: `myagent agents | head -1`
        with open(os.devnull, "w", encoding="utf-8") as null:  # for what the interpreter flushes at exit
            os.dup2(null.fileno(), sys.stdout.fileno())


def cache_folder(environment: Mapping[str, str]) -> Path | None:
    """The cache folder of the user, None if the user has no home."""
    named = Path(environment.get("XDG_CACHE_HOME", ""))
    try:
        return (named if named.is_absolute() else Path.home() / ".cache") / "myagent"
    except RuntimeError:
        return None


async def watch(client: DiscoveryClient, chosen: FilterValues, out: Console) -> None:
    """Print the list whenever it changes, until Ctrl-C or until the registry refuses the request.

    An event is only a hint to read the list again, as the registry applies the filters.
    """
    changed = asyncio.Event()
    following = asyncio.create_task(_follow(client, changed), name="registry-events")
    try:
        while True:
            agents, error = await _read(client, chosen)
            out.clear()  # on a terminal only
            _print_list(client, chosen, agents, error, out)
            if error:
                out.print(error, style="yellow")
            await asyncio.sleep(BATCH_SECONDS)  # a restart of many agents is many events
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await changed.wait()
            changed.clear()
    finally:
        following.cancel()
        await asyncio.wait({following})


async def _follow(client: DiscoveryClient, changed: asyncio.Event) -> None:
    """Report the events of the registry, and connect again when the stream ends."""
    while True:
        try:
            async with aclosing(client.events()) as events:
                async for _ in events:
                    changed.set()
        except DiscoveryError as error:
            if _is_refusal(error):
                return  # a registry without events, or a token that reading the list reports as well
        changed.set()
        await asyncio.sleep(POLL_SECONDS)


async def _read(client: DiscoveryClient, chosen: FilterValues) -> tuple[Sequence[AgentRecord] | None, str | None]:
    """The list, or the last one with the reason if the registry is not available.

    Raises:
        StartError: the registry refuses the request; an old list would hide that.
    """
    try:
        return await client.agents(**chosen), None
    except DiscoveryError as error:
        address, reason = _printable(client.address), _printable(str(error))
        if _is_refusal(error):
            hint = " Set MYAGENT_DISCOVERY_TOKEN to a token with the scope read." if error.status == 401 else ""
            raise StartError(f"{address} refuses the request: {reason.rstrip('.')}.{hint}") from error
        last = await client.cached_agents(**chosen)
        cached = "no earlier list is cached"
        if last is not None:
            age = ago(last.fetched_at, utc_now())
            cached = f"this is its list from {age}" if last.agents else f"its list from {age} is empty"
        message = f"{address} is not available ({reason}): {cached}. Start a registry with `myagent discovery`."
        return last.agents if last else None, message


def _is_refusal(error: DiscoveryError) -> bool:
    return error.status is not None and error.status < 500 and error.status not in {408, 429}


def _print_list(
    client: DiscoveryClient,
    chosen: FilterValues,
    agents: Sequence[AgentRecord] | None,
    error: str | None,
    out: Console,
) -> None:
    address = _printable(client.address)
    if agents:
        print_table(out, [_row(agent, utc_now()) for agent in agents], TITLES)
        counts = Counter(agent.status for agent in agents)
        statuses = [*STATUSES, *sorted(counts.keys() - STATUSES.keys())]
        summary = ", ".join(f"{counts[status]} {_short(status)}" for status in statuses if counts[status])
        total = "1 agent" if len(agents) == 1 else f"{len(agents)} agents"
        out.print(f"{total} at {address}{', filtered' if chosen else ''}: {summary}")
    elif not error and chosen:
        out.print(f"No agent at {address} matches. `myagent agents` without filters lists all agents.")
    elif not error:
        out.print(f"No agents at {address} yet. Start one:\n  myagent run agent.yaml --discovery-url {address}")


def _row(agent: AgentRecord, now: datetime) -> tuple[str | Text, ...]:
    model = agent.model
    return (
        _short(agent.name),
        Text(_short(agent.status), style=STATUSES.get(agent.status, "")),
        _short(agent.version),
        _short("/".join(part for part in (model.provider, model.name) if part) if model else "-"),
        str(len(agent.tools)),
        _short(agent.owner or "-"),
        _printable(agent.endpoint),  # in full, so that it can be copied
        "-" if agent.last_seen is None else ago(agent.last_seen, now),
    )


def ago(moment: datetime, now: datetime) -> str:
    """How long ago, in the largest useful unit."""
    seconds = (now - moment).total_seconds()
    if seconds < 3:  # the clock of the registry may be ahead
        return "just now"
    for unit, size, until in (("s", 1, 90), ("min", 60, 5400), ("h", 3600, 172_800)):
        if seconds < until:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds / 86_400:.0f} days ago"


def _short(text: str) -> str:
    text = _printable(text)
    return text if len(text) <= WIDEST_CELL else text[: WIDEST_CELL - 1] + "…"


def _printable(text: str) -> str:
    """Text from another service without control characters, which could change the terminal."""
    return "".join(character if character.isprintable() else "�" for character in text)
