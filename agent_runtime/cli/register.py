"""`myagent register`: registers a service that is not written in Python, while this process or its command runs.

With a health address the status follows its answers: up or degraded. Without an answer no heartbeat is sent, so the
lease expires and the registry shows stale, then down.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, cast

import httpx
from pydantic import ValidationError

from agent_runtime.cli.stack import stop_child
from agent_runtime.config import (
    Fetched,
    Location,
    SecretNotAvailable,
    dotted,
    error_message,
    is_http_url,
    line_of,
    read_document,
    resolve,
)
from agent_runtime.errors import ConfigError, Problem, StartError
from agent_runtime.tls import environment_tls
from discovery.client import DiscoveryClient, DiscoveryError, registered
from discovery.contract import Check, Registration

_log = logging.getLogger(__name__)

HEALTH_SECONDS = 5.0
HEARTBEAT_SECONDS = 30.0
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
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


def register_service(
    flags: Mapping[str, Any],
    command: Sequence[str],
    *,
    file: Path | None,
    url: str,
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
    problems = _invalid_flags(url, health, heartbeat_seconds)
    token = environment.get("MYAGENT_DISCOVERY_TOKEN") or None
    if token_file is not None:
        token = _read_token(token_file, problems)

    async def register() -> int:
        registration = await _read_registration(flags, file, environment, problems)
        tls = environment_tls(environment)
        if once:
            async with DiscoveryClient(url, token=token, tls=tls) as client:
                return await _register_once(client, registration)
        async with AsyncExitStack() as stack:
            exited = await stack.enter_async_context(_run(command)) if command else _interrupted()
            source = registration
            if health is not None:
                # The service is the caller's own: its certificate is not verified and no proxy is used.
                http = httpx.AsyncClient(trust_env=False, verify=False, timeout=None)
                source = _HealthCheck(registration, await stack.enter_async_context(http), health).check
            seconds = heartbeat_seconds or HEARTBEAT_SECONDS
            async with registered(source, url=url, token=token, heartbeat_seconds=seconds, ready=health, tls=tls):
                status = await exited
        return 128 - status if status < 0 else status

    return asyncio.run(register())


async def _register_once(client: DiscoveryClient, registration: Registration) -> int:
    """Register without a lease: the entry stays until it is removed. Returns the exit status."""
    try:
        response = await client.register(registration)
    except DiscoveryError as error:
        raise StartError(f"{client.address} did not register {registration.name}: {error}") from error
    for warning in response.warnings:
        _log.warning("warning of the registry: %s %s", warning.message, warning.hint or "")
    print(f"{response.name}/{response.instance_id} is registered at {client.address}", flush=True)
    return 0


def _interrupted() -> asyncio.Future[int]:
    """Done after SIGINT or SIGTERM."""
    loop = asyncio.get_running_loop()
    exited: asyncio.Future[int] = loop.create_future()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, lambda: exited.done() or exited.set_result(0))
    return exited


@asynccontextmanager
async def _run(command: Sequence[str]) -> AsyncGenerator[asyncio.Task[int]]:
    """Run a command on the standard streams of this process, whose signals it receives. The task returns its status.

    Raises:
        ConfigError: the command cannot be started.
    """
    starting = asyncio.create_task(asyncio.create_subprocess_exec(*command))
    for number in FORWARDED:  # before it has started: it may be quick to expect a signal
        asyncio.get_running_loop().add_signal_handler(number, starting.add_done_callback, partial(_forward, number))
    try:
        child = await starting
    except OSError as error:
        raise ConfigError(command[0], [Problem(f"cannot be run: {error.strerror}")]) from error
    try:
        yield asyncio.create_task(child.wait(), name="command")
    finally:
        await stop_child(child)


def _forward(number: signal.Signals, starting: asyncio.Task[asyncio.subprocess.Process]) -> None:
    if number in {signal.SIGINT, signal.SIGQUIT} and _is_foreground():
        return  # the terminal sends its Ctrl-C to the command as well
    with suppress(OSError):  # it has exited, or could not be started
        starting.result().send_signal(number)


def _is_foreground() -> bool:
    """Whether this process, and with it the command, is in the foreground of a terminal."""
    try:
        with open("/dev/tty", "rb") as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False


class _HealthCheck:
    """The registration with the status that a health address reports, checked before each heartbeat."""

    def __init__(self, registration: Registration, http: httpx.AsyncClient, url: str) -> None:
        self._registration, self._http, self._url = registration, http, url
        self._is_silent = False

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


def _invalid_flags(url: str, health: str | None, heartbeat_seconds: float | None) -> list[Problem]:
    problems = [
        Problem(f"must be an http:// or https:// address, not {address!r}", flag)
        for flag, address in (("--discovery-url", url), ("--health", health))
        if address is not None and not is_http_url(address)
    ]
    if heartbeat_seconds is not None and not 0 < heartbeat_seconds <= 86_400:
        problems.append(Problem("must be more than 0 and at most 86400", "--heartbeat-seconds"))
    return problems


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
            message = error_message(details["type"], details["msg"], details.get("ctx", {}))
            if details["type"] == "missing" and len(location) == 1:
                where = f"{FLAGS[str(location[0])]}" + (f", or `{location[0]}:` in {file}" if file else "")
                problems.append(Problem("is required", where))
            elif location and location[0] in flags:
                problems.append(Problem(message, FLAGS[str(location[0])]))
            elif location not in unfilled:
                file_problems.append(Problem(message, dotted(location), line_of(location, lines)))
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
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            str(file), [Problem(f"is not valid JSON: {error}", line=getattr(error, "lineno", None))]
        ) from None
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
