"""`myagent register`: an entry in the registry for what is not Python, kept by a process beside it.

The entry is there while this process, or the command that it runs, lives. With a health address it says how the thing
is: a good answer is `up`, a bad one `degraded`, and while nothing answers nothing is said, so that the lease runs out
and the registry shows `stale` and then `down`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

import httpx
from pydantic import ValidationError

from agent_runtime.cli.child_process import run_child
from agent_runtime.config import (
    Fetched,
    Location,
    SecretNotAvailable,
    dotted,
    is_http_url,
    line_of,
    read_document,
    resolve,
)
from agent_runtime.errors import ConfigError, Problem, StartError
from discovery.client.client import DiscoveryClient, DiscoveryError, registered
from discovery.contract.models import Check, Registration

_log = logging.getLogger(__name__)

HEALTH_SECONDS = 5.0
HEARTBEAT_SECONDS = 30.0
NO_TYPE, NO_VERSION = "service", "unknown"  # what is said of a thing that nobody said it of
FLAGS = {  # of the fields that a flag gives
    "name": "--name",
    "endpoint": "--endpoint",
    "agent_type": "--type",
    "version": "--version",
    "tools": "--tool",
    "description": "--description",
    "owner": "--owner",
    "tags": "--tag",
    "instance_id": "--instance-id",
}
# How it is, and for how long that is believed, is not for a file to say.
FIELDS = sorted(set(Registration.model_fields) - {"boot_id", "ttl_seconds", "status", "checks"})
COMMAND_LINE = "myagent register"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What to register where, and how to keep it."""

    registration: Registration
    url: str
    token: str | None = field(default=None, repr=False)
    heartbeat_seconds: float = HEARTBEAT_SECONDS
    health: str | None = None


async def read_entry(
    flags: Mapping[str, Any],
    *,
    file: Path | None,
    url: str,
    token: str | None,
    token_file: Path | None,
    heartbeat_seconds: float | None,
    health: str | None,
    environment: Mapping[str, str],
) -> Entry:
    """The entry that a command line and its file describe; a flag wins over the file.

    Raises:
        ConfigError: with every problem of the command line, or else of the file.
    """
    problems = [
        Problem(f"must be an http:// or https:// address, not {address!r}", flag)
        for flag, address in (("--discovery-url", url), ("--health", health))
        if address is not None and not is_http_url(address)
    ]
    if heartbeat_seconds is not None and not 0 < heartbeat_seconds <= 86_400:
        problems.append(Problem("must be more than 0 and at most 86400", "--heartbeat-seconds"))
    if token_file is not None:
        token = await asyncio.to_thread(_read_token, token_file, problems)
    registration = await _read_registration(flags, file, environment, problems)
    return Entry(
        registration=registration,
        url=url,
        token=token,
        heartbeat_seconds=heartbeat_seconds or HEARTBEAT_SECONDS,
        health=health,
    )


async def register_once(entry: Entry) -> int:
    """Register without a lease: it stays until somebody removes it. Returns the exit status."""
    async with DiscoveryClient(entry.url, token=entry.token) as client:
        try:
            answer = await client.register(entry.registration)
        except DiscoveryError as error:
            raise StartError(f"{client.address} did not register {entry.registration.name}: {error}") from error
        for notice in answer.warnings:
            _log.warning("the registry warns: %s %s", notice.message, notice.hint or "")
        print(f"{answer.name}/{answer.instance_id} is registered at {client.address}", flush=True)
    return 0


async def keep_registered(entry: Entry, command: Sequence[str]) -> int:
    """Keep the entry while the command runs, or until SIGINT or SIGTERM. Returns the exit status, the command's own.

    Raises:
        ConfigError: the command cannot be started; then nothing was registered.
    """
    async with AsyncExitStack() as stack:
        if command:
            ended = await stack.enter_async_context(run_child(command))
        else:
            ended = asyncio.get_running_loop().create_future()
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, _end, ended)
        said: Any = entry.registration
        if entry.health is not None:
            said = (await stack.enter_async_context(_Health(entry.registration, entry.health))).look
        async with registered(
            said, url=entry.url, token=entry.token, heartbeat_seconds=entry.heartbeat_seconds, ready=entry.health
        ):
            return await ended


def _end(ended: asyncio.Future[int]) -> None:
    if not ended.done():
        ended.set_result(0)


class _Health:
    """The registration as a health address makes it, asked once a heartbeat."""

    def __init__(self, registration: Registration, url: str) -> None:
        self._registration, self._url = registration, url
        self._is_silent = False
        # The thing is our own, so its certificate says nothing, and no proxy is on the way.
        self._http = httpx.AsyncClient(trust_env=False, verify=False, timeout=None)

    async def __aenter__(self) -> _Health:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._http.aclose()

    async def look(self) -> Registration | None:
        """What to say now; None where nothing answers."""
        try:
            async with asyncio.timeout(HEALTH_SECONDS), self._http.stream("GET", self._url) as answer:
                status, phrase = answer.status_code, answer.reason_phrase
        except (httpx.HTTPError, OSError) as error:
            if not self._is_silent:
                late = f"no answer within {HEALTH_SECONDS:g} s" if isinstance(error, TimeoutError) else ""
                reason = late or str(error) or type(error).__name__
                _log.warning("%s does not answer (%s): no heartbeat is sent until it does", self._url, reason)
            self._is_silent = True
            return None
        if self._is_silent:
            _log.info("%s answers again", self._url)
        self._is_silent = False
        ok = status < 400
        check = Check(name="health", ok=ok, reason=None if ok else f"{status} {phrase}".strip())
        return self._registration.model_copy(update={"status": "up" if ok else "degraded", "checks": [check]})


# --- the command line and the file ---------------------------------------------------------------------------------


def _read_token(file: Path, problems: list[Problem]) -> str | None:
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        problems.append(Problem(f"{file} cannot be read: {reason}", "--token-file"))
        return None
    if not token or len(token.split()) > 1:
        problems.append(Problem(f"{file} must hold one token and nothing else", "--token-file"))
    return token


async def _read_registration(
    flags: Mapping[str, Any], file: Path | None, environment: Mapping[str, str], problems: list[Problem]
) -> Registration:
    """The registration; raises `ConfigError` for `problems` that are known already, too."""
    tree, lines = await asyncio.to_thread(_read_file, file) if file is not None else ({}, {})
    filled = await resolve(tree, environment=environment, fetch=_no_secret)
    unfilled = {problem.location for problem in filled.problems}
    of_file = [Problem(one.message, dotted(one.location), line_of(one.location, lines)) for one in filled.problems]
    of_file += [Problem(_unknown(key), key, line_of((key,), lines)) for key in tree if key not in FIELDS]
    fields = {"agent_type": NO_TYPE, "version": NO_VERSION, "tools": []} | filled.tree | flags
    registration: Registration | None = None
    try:
        registration = Registration.model_validate({key: fields[key] for key in fields if key in FIELDS})
    except ValidationError as error:
        for details in error.errors(include_url=False, include_input=False):
            location = _location(details["loc"])
            if details["type"] == "missing" and len(location) == 1:
                where = f"{FLAGS[str(location[0])]}" + (f", or `{location[0]}:` in {file}" if file else "")
                problems.append(Problem("is required", where))
            elif location and location[0] in flags:
                problems.append(Problem(_sentence(details["msg"]), FLAGS[str(location[0])]))
            elif location not in unfilled:
                of_file.append(Problem(_sentence(details["msg"]), dotted(location), line_of(location, lines)))
    if problems:
        raise ConfigError(COMMAND_LINE, problems)
    if of_file or registration is None:
        raise ConfigError(str(file), of_file)
    return registration


def _read_file(file: Path) -> tuple[dict[str, Any], dict[Location, int]]:
    if file.suffix != ".json":
        return read_document(file)
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(str(file), [Problem(f"cannot be read: {error.strerror}")]) from None
    except json.JSONDecodeError as error:
        raise ConfigError(str(file), [Problem(f"is not valid JSON: {error.msg}", line=error.lineno)]) from None
    except (ValueError, RecursionError):
        raise ConfigError(str(file), [Problem("is not valid JSON")]) from None
    if not isinstance(tree, dict):
        raise ConfigError(str(file), [Problem("must be an object with keys such as `name` and `endpoint`")])
    return cast("dict[str, Any]", tree), {}


async def _no_secret(_: Sequence[str]) -> Fetched:
    raise SecretNotAvailable("a registration is for everybody to read_document, so it holds no secret")


def _unknown(key: str) -> str:
    near = get_close_matches(key, FIELDS, n=1)
    return "unknown key" + (f"; did you mean `{near[0]}`?" if near else f"; known are {', '.join(FIELDS)}")


def _location(location: Location) -> Location:
    """Pydantic puts behind an item's index which of its two shapes it took it for; the file knows no such thing."""
    return (*location[:2], *location[3:]) if location[:1] in {("tools",), ("skills",)} else location


def _sentence(message: str) -> str:
    return message.removeprefix("Value error, ").removeprefix("Input ")
