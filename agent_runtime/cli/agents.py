"""What the registry knows, in the terminal: a line an agent, the last list with its age while the registry is away."""

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
from typing import Literal, TextIO
from unicodedata import east_asian_width

from agent_runtime.tls import environment_tls
from discovery.client.client import Chosen, DiscoveryClient, DiscoveryError, LastList
from discovery.contract.models import AgentRecord, utc_now

DEFAULT_URL = "http://127.0.0.1:9000"
WATCH_SECONDS = 2.0
FRESH_SECONDS = 10.0  # for SEEN: a heartbeat is no event
PAUSE_SECONDS = 0.2
WIDEST_CELL = 40
ORDER = ("up", "degraded", "draining", "registered", "stale", "down")
COLOURS = {"up": 32, "degraded": 33, "draining": 33, "stale": 33, "down": 31}
TITLES = ("NAME", "STATUS", "VERSION", "MODEL", "TOOLS", "OWNER", "ENDPOINT", "SEEN")

Mode = Literal["once", "json", "watch"]


def show_agents(url: str | None, chosen: Chosen, mode: Mode, environment: Mapping[str, str]) -> int:
    """Print what a registry lists; returns the exit status: 1 where it did not answer."""
    url = url or environment.get("MYAGENT_DISCOVERY_URL") or DEFAULT_URL
    token = environment.get("MYAGENT_DISCOVERY_TOKEN") or None
    tls = environment_tls(environment)
    screen = Screen(sys.stdout, sys.stderr, is_plain="NO_COLOR" in environment)

    async def show() -> int:
        async with DiscoveryClient(url, token=token, tls=tls, cache_folder=cache_folder(environment)) as client:
            return await (watch(client, chosen, screen) if mode == "watch" else once(client, chosen, screen, mode))

    try:
        return asyncio.run(show())
    except KeyboardInterrupt:
        if mode == "watch":
            return 0
        raise
    except BrokenPipeError:  # the reader has seen enough: `myagent agents | head -1`
        with open(os.devnull, "w", encoding="utf-8") as nowhere:  # for what the interpreter flushes at its end
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        return 0


def cache_folder(environment: Mapping[str, str]) -> Path | None:
    """The user's cache folder, None where the user has no home."""
    named = Path(environment.get("XDG_CACHE_HOME", ""))
    try:
        return (named if named.is_absolute() else Path.home() / ".cache") / "myagent"
    except RuntimeError:
        return None


class Screen:
    """Where lines go: colours on a terminal only, and nothing that could act on one."""

    def __init__(self, out: TextIO, errors: TextIO, *, is_plain: bool = False) -> None:
        self._out, self._errors = out, errors
        self._is_terminal = out.isatty()
        self._is_coloured = self._is_terminal and not is_plain

    def show(self, lines: Sequence[str]) -> None:
        """Print lines at once."""
        text = "".join(f"{line}\n" for line in lines)
        encoding = self._out.encoding or "utf-8"
        self._out.write(text.encode(encoding, "replace").decode(encoding))  # a terminal that knows no ü gets a ?
        self._out.flush()

    def replace(self, lines: Sequence[str]) -> None:
        """Print lines in the place of what is on the terminal; a pipe gets them one after the other."""
        if self._is_terminal:
            self._out.write("\x1b[H\x1b[2J")
        self.show(lines)

    def complain(self, message: str) -> None:
        """One sentence on standard error."""
        print(f"myagent: {message}", file=self._errors, flush=True)

    def colour(self, text: str, code: int | None) -> str:
        """Text in a colour, where colours are wanted."""
        return f"\x1b[{code}m{text}\x1b[0m" if code is not None and self._is_coloured else text


@dataclass(slots=True)
class _Heard:
    """The list to show; `trouble` is the reason where it is not the registry's of this moment."""

    last: LastList | None
    trouble: str | None = None
    is_refused: bool = False


async def once(client: DiscoveryClient, chosen: Chosen, screen: Screen, mode: Mode = "once") -> int:
    """Show the list once. The last one takes its place while the registry is away, with status 1 and the reason."""
    heard = await _hear(client, chosen)
    if heard.last is not None and mode == "json":
        found = [agent.model_dump(mode="json") for agent in heard.last.agents]
        screen.show([json.dumps(found, indent=2)])
    else:
        screen.show(_lines(client, chosen, heard, screen))
    if heard.trouble is not None:
        screen.complain(_trouble(client, heard))
    return 0 if heard.trouble is None else 1


async def watch(client: DiscoveryClient, chosen: Chosen, screen: Screen) -> int:
    """Show the list whenever it changes, until Ctrl-C or until the registry refuses to be asked.

    The registry says when there is news; one that cannot is asked again and again.
    """
    news = _News(client)
    listening = asyncio.create_task(news.listen(), name="registry-events")
    try:
        while True:
            heard = await _hear(client, chosen)
            if heard.is_refused:
                screen.complain(_trouble(client, heard))
                return 1
            lines = _lines(client, chosen, heard, screen)
            if heard.trouble is not None:
                lines.append(screen.colour(_trouble(client, heard), 33))
            screen.replace(lines)
            await news.wait()
    finally:
        listening.cancel()
        await asyncio.wait({listening})


class _News:
    """Whether it is time to read the list again: the filters are the registry's to apply, so an event is a hint."""

    def __init__(self, client: DiscoveryClient) -> None:
        self._client = client
        self._came = asyncio.Event()
        self._is_told = False  # there is a stream, and it is open

    async def wait(self) -> None:
        """Return when something happened, or when the moments in the list have grown old."""
        await asyncio.sleep(PAUSE_SECONDS)  # a fleet that restarts is many events
        with suppress(TimeoutError):
            async with asyncio.timeout(FRESH_SECONDS if self._is_told else WATCH_SECONDS):
                await self._came.wait()
        self._came.clear()

    async def listen(self) -> None:
        """Follow the registry's events, for as long as it has any."""
        while True:
            try:
                async with aclosing(self._client.events()) as events:
                    async for _ in events:
                        self._is_told = True
                        self._came.set()
            except DiscoveryError as error:
                if _says_no(error):
                    return  # a registry without events; that the list is refused too, reading it will show
            self._is_told = False
            self._came.set()
            await asyncio.sleep(WATCH_SECONDS)


async def _hear(client: DiscoveryClient, chosen: Chosen) -> _Heard:
    try:
        return _Heard(LastList(await client.agents(**chosen), utc_now()))
    except DiscoveryError as error:
        if _says_no(error):
            return _Heard(None, str(error), is_refused=True)  # it is there and says no: an old list would hide that
        return _Heard(await client.last_agents(**chosen), str(error))


def _says_no(error: DiscoveryError) -> bool:
    return error.status is not None and error.status < 500 and error.status not in {408, 429}


def _trouble(client: DiscoveryClient, heard: _Heard) -> str:
    where = _printable(client.address)
    if heard.is_refused:
        hint = " Set MYAGENT_DISCOVERY_TOKEN to a token with the scope read." if "401" in (heard.trouble or "") else ""
        return f"{where} refuses: {_printable(heard.trouble or '').rstrip('.')}.{hint}"
    age = "nothing is kept from an earlier time"
    if heard.last is not None:
        then = ago(heard.last.heard_at, utc_now())
        age = f"this is its list from {then}" if heard.last.agents else f"it listed none {then}"
    return f"{where} is away ({_printable(heard.trouble or '')}): {age}. `myagent discovery` starts a registry."


def _lines(client: DiscoveryClient, chosen: Chosen, heard: _Heard, screen: Screen) -> list[str]:
    agents = [] if heard.last is None else heard.last.agents
    if not agents:  # an old list that was empty is no reason to start anything
        return _nothing(client, chosen) if heard.trouble is None else []
    return [*table(agents, utc_now(), screen), summary(client, chosen, agents)]


def table(agents: Sequence[AgentRecord], now: datetime, screen: Screen) -> list[str]:
    """The agents as aligned lines under a line of titles."""
    rows = [TITLES, *(_row(agent, now) for agent in agents)]
    widths = [max(_width(row[column]) for row in rows) for column in range(len(TITLES))]
    lines: list[str] = []
    for row, agent in zip(rows, [None, *agents], strict=True):
        cells = [cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)]
        cells[4] = row[4].rjust(widths[4])
        cells[1] = screen.colour(cells[1], COLOURS.get(agent.status) if agent else None)
        line = "  ".join(cells).rstrip()
        lines.append(line if agent else screen.colour(line, 2))
    return lines


def _row(agent: AgentRecord, now: datetime) -> tuple[str, ...]:
    model = "-"
    if agent.model is not None:
        model = f"{agent.model.provider}/{agent.model.name}" if agent.model.provider else agent.model.name
    return (
        _short(agent.name),
        _short(agent.status),
        _short(agent.version),
        _short(model),
        str(len(agent.tools)),
        _short(agent.owner or "-"),
        _printable(agent.endpoint),  # in full: it is there to be copied
        "-" if agent.last_seen is None else ago(agent.last_seen, now),
    )


def summary(client: DiscoveryClient, chosen: Chosen, listed: Sequence[AgentRecord]) -> str:
    """How many agents there are, and how they are."""
    statuses = [agent.status for agent in listed]
    known = [status for status in ORDER if status in statuses]
    counts = [f"{statuses.count(status)} {_short(status)}" for status in [*known, *sorted({*statuses} - {*ORDER})]]
    agents = "1 agent" if len(statuses) == 1 else f"{len(statuses)} agents"
    return f"{agents} at {_printable(client.address)}{', filtered' if chosen else ''}: {', '.join(counts)}"


def _nothing(client: DiscoveryClient, chosen: Chosen) -> list[str]:
    where = _printable(client.address)
    if chosen:
        return [f"No agent at {where} matches. Without filters, `myagent agents` lists all of them."]
    return [
        f"No agents at {where} yet. This starts one:",
        f"  myagent run --config agent.yaml --discovery-url {where}",
    ]


def ago(moment: datetime, now: datetime) -> str:
    """How long ago, in the largest unit that says something."""
    seconds = (now - moment).total_seconds()
    if seconds < 3:  # the registry's clock may be ahead of ours
        return "just now"
    for unit, size, until in (("s", 1, 90), ("min", 60, 5400), ("h", 3600, 172_800)):
        if seconds < until:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds / 86_400:.0f} days ago"


def _short(text: str) -> str:
    text = _printable(text)
    return text if len(text) <= WIDEST_CELL else text[: WIDEST_CELL - 1] + "…"


def _printable(text: str) -> str:
    """Text from elsewhere without what would move a cursor or turn the writing round."""
    return "".join(character if character.isprintable() else "�" for character in text)


def _width(text: str) -> int:
    return sum(2 if east_asian_width(character) in "WF" else 1 for character in text)
