"""The current secrets of one agent file: fetched at the start, and again periodically or when one is refused.

Users of a secret hold a `Credential` and read its value at each use, so a secret is rotated without a restart.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeVar, cast

from pydantic import SecretStr

from agent_runtime.background import BackgroundTask
from agent_runtime.config import Fetched, Location, Resolution, fetch_secrets, fill, secret_paths
from agent_runtime.errors import StartError
from agent_runtime.masking import LOG_MASK
from agent_runtime.secrets.credential import Credential
from agent_runtime.secrets.sources import source_for

_log = logging.getLogger(__name__)

MIN_RENEW_SECONDS = 30.0
"""A secret that is refused again sooner than this after it was fetched is not fetched again."""

Outcome = Literal["renewed", "unchanged", "failed"]
T = TypeVar("T")


class SecretResolver:
    """Fills the placeholders of a tree. `values` are all values that were ever secret: they must be masked."""

    def __init__(
        self, tree: Any, environment: Mapping[str, str], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.values: frozenset[str] = frozenset()
        self.on_refresh: Callable[[Outcome], object] = lambda outcome: None
        """Called each time that secrets were fetched again."""
        self._tree = tree
        self._environment = environment
        self._clock = clock
        self._paths = secret_paths(tree)
        self._secrets: Fetched = {}
        self._fetched_at: dict[str, float] = {}
        self._lock = asyncio.Lock()

    async def resolve(self) -> Resolution:
        """Fetch all secrets and fill the tree.

        Raises:
            StartError: the secret source that the environment names cannot be used at all.
        """
        self._secrets = await fetch_secrets(self._paths, self._read)
        resolution = fill(self._tree, self._environment, self._secrets)
        self.mask(resolution.secrets)
        return resolution

    def mask(self, values: Iterable[str]) -> None:
        """Treat these values as secrets too."""
        self.values |= frozenset(values)
        LOG_MASK.learn(self.values)

    def credential(self, location: Location, value: T) -> Credential[T]:
        """A credential for the value at a location of the tree; `value` is the current one."""
        template = self._at(location)
        return _SecretCredential(self, location, template, value) if secret_paths(template) else Credential(value)

    @property
    def version(self) -> object:
        """An object that is replaced whenever a secret has changed."""
        return self._secrets

    def value_at(self, location: Location) -> Any:
        """The current value at a location of the tree."""
        return fill(self._at(location), self._environment, self._secrets).tree

    async def renew(self, paths: Sequence[str], is_newer: Callable[[], bool]) -> None:
        """Fetch refused secrets again: once for concurrent callers, and at most every MIN_RENEW_SECONDS."""
        async with self._lock:
            now = self._clock()
            recent = [path for path in paths if now - self._fetched_at.get(path, -math.inf) < MIN_RENEW_SECONDS]
            if not is_newer() and len(recent) < len(paths):
                await self._fetch_again(paths)

    async def refresh(self) -> None:
        """Fetch all secrets again."""
        async with self._lock:
            await self._fetch_again(self._paths)

    async def _fetch_again(self, paths: Sequence[str]) -> None:
        try:
            secrets = {**self._secrets, **await fetch_secrets(paths, self._read)}
        except StartError as error:
            self._report("failed", str(error))
            return
        finally:
            self._fetched_at |= dict.fromkeys(paths, self._clock())
        resolution = fill(self._tree, self._environment, secrets)
        self.mask(resolution.secrets)
        if resolution.problems:  # keep the previous values: they may still be valid
            self._report("failed", "; ".join(problem.message for problem in resolution.problems))
        elif changed := [path for path in paths if secrets[path] != self._secrets.get(path)]:
            self._secrets = secrets
            self._report("renewed", ", ".join(changed))
        else:
            self._report("unchanged", ", ".join(paths))

    def _report(self, outcome: Outcome, details: str) -> None:
        level = logging.WARNING if outcome == "failed" else logging.INFO
        _log.log(level, "secrets fetched again: %s: %s", outcome, details)
        self.on_refresh(outcome)

    async def _read(self, paths: Sequence[str]) -> Fetched:
        # In a thread: the SDK behind a source takes most of a second to import.
        specification = self._environment.get("MYAGENT_SECRETS", "aws")
        source = await asyncio.to_thread(source_for, specification, self._environment)
        return await source.fetch(paths)

    def _at(self, location: Location) -> Any:
        node = self._tree
        for part in location:
            if isinstance(node, dict):
                node = cast("dict[Any, Any]", node).get(part)
            elif isinstance(node, list) and isinstance(part, int):
                node = cast("list[Any]", node)[part]
            else:
                return None
        return node


class _SecretCredential(Credential[T]):
    """A credential that follows its secrets; until one of them changes, it has the value that the file gave it."""

    def __init__(self, resolver: SecretResolver, location: Location, template: Any, value: T) -> None:
        super().__init__(value)
        self._resolver = resolver
        self._location = location
        self._paths = secret_paths(template)
        self._version = resolver.version
        self._filled = resolver.value_at(location)

    @property
    def value(self) -> T:
        if self._version is not self._resolver.version:
            self._version = self._resolver.version
            filled = self._resolver.value_at(self._location)
            if filled != self._filled:
                self._filled, self._value = filled, filled
        return self._value

    async def renewed(self, refused: T) -> T | None:
        await self._resolver.renew(self._paths, lambda: self.value != refused)
        return None if self.value == refused else self.value


def credential_for(
    resolver: SecretResolver | None, location: Location, key: SecretStr | None
) -> Credential[str | None]:
    """The credential for a key at a location of the file; without a resolver it never changes."""
    plain = key.get_secret_value() if key else None
    return resolver.credential(location, plain) if resolver else Credential(plain)


def periodic_refresh(resolver: SecretResolver, seconds: float | None) -> BackgroundTask:
    """Fetches all secrets of an agent again every `seconds` until the block ends; with None it does nothing."""

    async def refresh_forever(seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await resolver.refresh()
            except Exception:  # a source may raise anything; the background task goes on with the known secrets
                _log.warning("the secrets could not be fetched again", exc_info=True)

    return BackgroundTask(None if seconds is None else partial(refresh_forever, seconds), name="secrets")
