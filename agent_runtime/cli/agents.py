"""The agents of a registry in the terminal: once, as JSON, or again on every change."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.text import Text

from agent_runtime.cli.terminal import console, print_table
from agent_runtime.tls import environment_tls
from discovery.client import CachedList, DiscoveryClient, DiscoveryError
from discovery.contract import AgentRecord, FilterValues, utc_now

DEFAULT_URL = "http://127.0.0.1:9000"
POLL_SECONDS = 2.0
REFRESH_SECONDS = 10.0  # keeps SEEN current: a heartbeat is not an event
BATCH_SECONDS = 0.2
WIDEST_CELL = 40
STATUSES = ("up", "degraded", "draining", "registered", "stale", "down")
STYLES = {"up": "green", "degraded": "yellow", "draining": "yellow", "stale": "yellow", "down": "red"}
TITLES = ("NAME", "STATUS", "VERSION", "MODEL", ">TOOLS", "OWNER", "ENDPOINT", "SEEN")

Mode = Literal["once", "json", "watch"]


def show_agents(url: str | None, chosen: FilterValues, mode: Mode, environment: Mapping[str, str]) -> int:
    """Print the agents of a registry; returns the exit status: 1 if the registry did not answer."""
    url = url or environment.get("MYAGENT_DISCOVERY_URL") or DEFAULT_URL
    token = environment.get("MYAGENT_DISCOVERY_TOKEN") or None
    tls = environment_tls(environment)
    out = console(sys.stdout)

    async def show() -> int:
        async with DiscoveryClient(url, token=token, tls=tls, cache_folder=cache_folder(environment)) as client:
            return await (watch(client, chosen, out) if mode == "watch" else show_once(client, chosen, out, mode))

    try:
        return asyncio.run(show())
    except KeyboardInterrupt:
        if mode == "watch":
            return 0
        raise
    except BrokenPipeError:  # the reader has closed the pipe: `myagent agents | head -1`
        with open(os.devnull, "w", encoding="utf-8") as null:  # for what the interpreter flushes at exit
            os.dup2(null.fileno(), sys.stdout.fileno())
        return 0


def cache_folder(environment: Mapping[str, str]) -> Path | None:
    """The cache folder of the user, None if the user has no home."""
    named = Path(environment.get("XDG_CACHE_HOME", ""))
    try:
        return (named if named.is_absolute() else Path.home() / ".cache") / "myagent"
    except RuntimeError:
        return None


@dataclass(frozen=True, slots=True)
class _Listing:
    """The list to show; with an `error` it is the last one that was received, if any."""

    last: CachedList | None
    error: str | None = None
    is_refused: bool = False


async def show_once(client: DiscoveryClient, chosen: FilterValues, out: Console, mode: Mode = "once") -> int:
    """Print the list; the last one, with the reason and status 1, if the registry is not available."""
    listing = await _read(client, chosen)
    if listing.last is not None and mode == "json":
        agents = [agent.model_dump(mode="json") for agent in listing.last.agents]
        print(json.dumps(agents, indent=2), flush=True)
    else:
        _print_listing(client, chosen, listing, out)
    if listing.error is None:
        return 0
    print(f"myagent: {_error_message(client, listing)}", file=sys.stderr, flush=True)
    return 1


async def watch(client: DiscoveryClient, chosen: FilterValues, out: Console) -> int:
    """Print the list whenever it changes, until Ctrl-C or until the registry refuses the request.

    A registry without an event stream is polled.
    """
    changes = _Changes(client)
    following = asyncio.create_task(changes.follow(), name="registry-events")
    try:
        while True:
            listing = await _read(client, chosen)
            if listing.is_refused:
                print(f"myagent: {_error_message(client, listing)}", file=sys.stderr, flush=True)
                return 1
            out.clear()  # on a terminal only
            _print_listing(client, chosen, listing, out)
            if listing.error is not None:
                out.print(_error_message(client, listing), style="yellow")
            await changes.wait()
    finally:
        following.cancel()
        await asyncio.wait({following})


class _Changes:
    """When to read the list again: an event is only a hint, as the registry applies the filters."""

    def __init__(self, client: DiscoveryClient) -> None:
        self._client = client
        self._changed = asyncio.Event()
        self._is_streaming = False

    async def wait(self) -> None:
        """Return after an event, or when the times in the list are out of date."""
        await asyncio.sleep(BATCH_SECONDS)  # a restart of many agents is many events
        with suppress(TimeoutError):
            async with asyncio.timeout(REFRESH_SECONDS if self._is_streaming else POLL_SECONDS):
                await self._changed.wait()
        self._changed.clear()

    async def follow(self) -> None:
        """Follow the events of the registry; connects again when the stream ends."""
        while True:
            try:
                async with aclosing(self._client.events()) as events:
                    async for _ in events:
                        self._is_streaming = True
                        self._changed.set()
            except DiscoveryError as error:
                if _is_refusal(error):
                    return  # a registry without events, or a token that reading the list reports as well
            self._is_streaming = False
            self._changed.set()
            await asyncio.sleep(POLL_SECONDS)


async def _read(client: DiscoveryClient, chosen: FilterValues) -> _Listing:
    try:
        return _Listing(CachedList(await client.agents(**chosen), utc_now()))
    except DiscoveryError as error:
        if _is_refusal(error):
            return _Listing(None, str(error), is_refused=True)  # an old list would hide the refusal
        return _Listing(await client.cached_agents(**chosen), str(error))


def _is_refusal(error: DiscoveryError) -> bool:
    return error.status is not None and error.status < 500 and error.status not in {408, 429}


def _error_message(client: DiscoveryClient, listing: _Listing) -> str:
    address, reason = _printable(client.address), _printable(listing.error or "")
    if listing.is_refused:
        hint = " Set MYAGENT_DISCOVERY_TOKEN to a token with the scope read." if "401" in reason else ""
        return f"{address} refuses the request: {reason.rstrip('.')}.{hint}"
    cached = "no earlier list is cached"
    if listing.last is not None:
        age = ago(listing.last.fetched_at, utc_now())
        cached = f"this is its list from {age}" if listing.last.agents else f"its list from {age} is empty"
    return f"{address} is not available ({reason}): {cached}. Start a registry with `myagent discovery`."


def _print_listing(client: DiscoveryClient, chosen: FilterValues, listing: _Listing, out: Console) -> None:
    agents = [] if listing.last is None else listing.last.agents
    if agents:
        print_table(out, [_row(agent, utc_now()) for agent in agents], TITLES)
        out.print(_summary(client, chosen, agents))
    elif listing.error is None and chosen:
        address = _printable(client.address)
        out.print(f"No agent at {address} matches. `myagent agents` without filters lists all agents.")
    elif listing.error is None:
        address = _printable(client.address)
        out.print(f"No agents at {address} yet. Start one:\n  myagent run agent.yaml --discovery-url {address}")


def _row(agent: AgentRecord, now: datetime) -> tuple[str | Text, ...]:
    model = "-"
    if agent.model is not None:
        model = f"{agent.model.provider}/{agent.model.name}" if agent.model.provider else agent.model.name
    return (
        _short(agent.name),
        Text(_short(agent.status), style=STYLES.get(agent.status, "")),
        _short(agent.version),
        _short(model),
        str(len(agent.tools)),
        _short(agent.owner or "-"),
        _printable(agent.endpoint),  # in full, so that it can be copied
        "-" if agent.last_seen is None else ago(agent.last_seen, now),
    )


def _summary(client: DiscoveryClient, chosen: FilterValues, agents: Sequence[AgentRecord]) -> str:
    statuses = [agent.status for agent in agents]
    known = [status for status in STATUSES if status in statuses]
    counts = [f"{statuses.count(status)} {_short(status)}" for status in [*known, *sorted({*statuses} - {*STATUSES})]]
    total = "1 agent" if len(statuses) == 1 else f"{len(statuses)} agents"
    return f"{total} at {_printable(client.address)}{', filtered' if chosen else ''}: {', '.join(counts)}"


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
