"""`myagent register`: registers a service that is not written in Python, while this process or its command runs.

With a health address the status follows its answers: up or degraded. Without an answer no heartbeat is sent, so the
lease expires and the registry shows stale, then down.
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

from agent_runtime.cli.agents import DEFAULT_URL
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
from discovery.client import DiscoveryClient, DiscoveryError, registered
from discovery.contract import Check, Registration

_log = logging.getLogger(__name__)

HEALTH_SECONDS = 5.0
HEARTBEAT_SECONDS = 30.0
DEFAULTS: dict[str, Any] = {"agent_type": "service", "version": "unknown", "tools": []}
FLAGS = {  # the fields of a registration that have a flag
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
# Status and lease are set by the heartbeat, not by a file.
FIELDS = sorted(set(Registration.model_fields) - {"boot_id", "ttl_seconds", "status", "checks"})
COMMAND_LINE = "myagent register"


@dataclass(frozen=True, slots=True)
class Entry:
    """What to register, where, and how to renew it."""

    registration: Registration
    url: str
    token: str | None = field(repr=False)
    heartbeat_seconds: float
    health: str | None


def register_service(
    flags: Mapping[str, Any],
    command: Sequence[str],
    *,
    file: Path | None,
    url: str | None,
    token_file: Path | None,
    heartbeat_seconds: float | None,
    health: str | None,
    once: bool,
    environment: Mapping[str, str],
) -> int:
    """Register what the flags and the file describe, and stay registered unless `once`; returns the exit status.

    Raises:
        ConfigError: with every problem of the command line, or, if there is none, of the file.
    """
    if once and (health or heartbeat_seconds or command):
        message = "cannot be combined with --health, --heartbeat-seconds or a command: there is no lease to renew"
        raise ConfigError(COMMAND_LINE, [Problem(message, "--once")])
    url = url or environment.get("MYAGENT_DISCOVERY_URL") or DEFAULT_URL
    problems = [
        Problem(f"must be an http:// or https:// address, not {address!r}", flag)
        for flag, address in (("--discovery-url", url), ("--health", health))
        if address is not None and not is_http_url(address)
    ]
    if heartbeat_seconds is not None and not 0 < heartbeat_seconds <= 86_400:
        problems.append(Problem("must be more than 0 and at most 86400", "--heartbeat-seconds"))
    token = environment.get("MYAGENT_DISCOVERY_TOKEN") or None
    if token_file is not None:
        token = _read_token(token_file, problems)

    async def register() -> int:
        registration = await _read_registration(flags, file, environment, problems)
        entry = Entry(registration, url, token, heartbeat_seconds or HEARTBEAT_SECONDS, health)
        return await (_register_once(entry) if once else _keep_registered(entry, command))

    return asyncio.run(register())


async def _register_once(entry: Entry) -> int:
    """Register without a lease: the entry stays until it is removed. Returns the exit status."""
    async with DiscoveryClient(entry.url, token=entry.token) as client:
        try:
            response = await client.register(entry.registration)
        except DiscoveryError as error:
            raise StartError(f"{client.address} did not register {entry.registration.name}: {error}") from error
        for warning in response.warnings:
            _log.warning("warning of the registry: %s %s", warning.message, warning.hint or "")
        print(f"{response.name}/{response.instance_id} is registered at {client.address}", flush=True)
    return 0


async def _keep_registered(entry: Entry, command: Sequence[str]) -> int:
    """Stay registered while the command runs, or until SIGINT or SIGTERM. Returns the exit status of the command.

    Raises:
        ConfigError: the command cannot be started; nothing was registered.
    """
    async with AsyncExitStack() as stack:
        if command:
            exited = await stack.enter_async_context(run_child(command))
        else:
            exited = asyncio.get_running_loop().create_future()
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, _finish, exited)
        registration: Any = entry.registration
        if entry.health is not None:
            registration = (await stack.enter_async_context(_HealthCheck(entry.registration, entry.health))).check
        async with registered(
            registration,
            url=entry.url,
            token=entry.token,
            heartbeat_seconds=entry.heartbeat_seconds,
            ready=entry.health,
        ):
            return await exited


def _finish(exited: asyncio.Future[int]) -> None:
    if not exited.done():
        exited.set_result(0)


class _HealthCheck:
    """The registration with the status that a health address reports, checked before each heartbeat."""

    def __init__(self, registration: Registration, url: str) -> None:
        self._registration, self._url = registration, url
        self._is_silent = False
        # The service is the caller's own: its certificate is not verified and no proxy is used.
        self._http = httpx.AsyncClient(trust_env=False, verify=False, timeout=None)

    async def __aenter__(self) -> _HealthCheck:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._http.aclose()

    async def check(self) -> Registration | None:
        """The current registration, None if there is no answer."""
        try:
            async with asyncio.timeout(HEALTH_SECONDS), self._http.stream("GET", self._url) as response:
                status, phrase = response.status_code, response.reason_phrase
        except (httpx.HTTPError, OSError) as error:
            if not self._is_silent:
                timeout = f"no answer within {HEALTH_SECONDS:g} s" if isinstance(error, TimeoutError) else ""
                reason = timeout or str(error) or type(error).__name__
                _log.warning("%s does not answer (%s); heartbeats are paused until it does", self._url, reason)
            self._is_silent = True
            return None
        if self._is_silent:
            _log.info("%s answers again", self._url)
        self._is_silent = False
        ok = status < 400
        check = Check(name="health", ok=ok, reason=None if ok else f"{status} {phrase}".strip())
        return self._registration.model_copy(update={"status": "up" if ok else "degraded", "checks": [check]})


# --- the registration, from flags and a file


def _read_token(file: Path, problems: list[Problem]) -> str | None:
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        problems.append(Problem(f"{file} cannot be read: {reason}", "--token-file"))
        return None
    if not token or len(token.split()) > 1:
        problems.append(Problem(f"{file} must contain one token and nothing else", "--token-file"))
    return token


async def _read_registration(
    flags: Mapping[str, Any], file: Path | None, environment: Mapping[str, str], problems: list[Problem]
) -> Registration:
    """The registration; raises `ConfigError` for its problems and those in `problems`."""
    tree, lines = await asyncio.to_thread(_read_file, file) if file is not None else ({}, {})
    filled = await resolve(tree, environment=environment, fetch=_no_secret)
    unfilled = {problem.location for problem in filled.problems}
    file_problems = [
        Problem(one.message, dotted(one.location), line_of(one.location, lines)) for one in filled.problems
    ]
    file_problems += [Problem(_unknown(key), key, line_of((key,), lines)) for key in tree if key not in FIELDS]
    fields = DEFAULTS | filled.tree | flags
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
                file_problems.append(Problem(_sentence(details["msg"]), dotted(location), line_of(location, lines)))
    if problems:
        raise ConfigError(COMMAND_LINE, problems)
    if file_problems or registration is None:
        raise ConfigError(str(file), file_problems)
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
    raise SecretNotAvailable("a registration is public, so it cannot contain a secret")


def _unknown(key: str) -> str:
    similar = get_close_matches(key, FIELDS, n=1)
    return "unknown key" + (f"; did you mean `{similar[0]}`?" if similar else f"; known keys: {', '.join(FIELDS)}")


def _location(location: Location) -> Location:
    """The place in the file: without the union member that pydantic adds after the index of an item."""
    return (*location[:2], *location[3:]) if location[:1] in {("tools",), ("skills",)} else location


def _sentence(message: str) -> str:
    return message.removeprefix("Value error, ").removeprefix("Input ")
