"""The secrets of one agent file as they are now: fetched at its start, and again when one is refused or by the clock.

Whoever uses one holds a `Credential`, and asks it for the value at each use; so a secret is rotated without a restart.
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

from agent_runtime.background import Background
from agent_runtime.config.placeholders import Fetched, Path, Resolution, fetched, fill, secret_paths
from agent_runtime.errors import StartError
from agent_runtime.masking import LOG_MASK
from agent_runtime.secrets import source_for
from agent_runtime.secrets.credential import Credential

_log = logging.getLogger(__name__)

ASK_AGAIN_SECONDS = 30.0
"""A secret that is refused again so soon after it was fetched is not fetched again: its owner must act."""

Outcome = Literal["renewed", "unchanged", "failed"]
T = TypeVar("T")


class SecretBook:
    """What the placeholders of a tree stand for. `values` are all that ever were secret: they must never surface."""

    def __init__(
        self, tree: Any, environment: Mapping[str, str], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.values: frozenset[str] = frozenset()
        self.counted: Callable[[Outcome], object] = lambda outcome: None
        """Told of each time that secrets were fetched again."""
        self._tree = tree
        self._environment = environment
        self._clock = clock
        self._paths = secret_paths(tree)
        self._secrets: Fetched = {}
        self._fetched_again: dict[str, float] = {}
        self._one_at_a_time = asyncio.Lock()

    async def opened(self) -> Resolution:
        """Fetch everything, and fill the tree.

        Raises:
            StartError: the secret source that the environment names cannot be used at all.
        """
        self._secrets = await fetched(self._paths, self._read)
        resolution = fill(self._tree, self._environment, self._secrets)
        self.hide(resolution.secrets)
        return resolution

    def hide(self, values: Iterable[str]) -> None:
        """Take these for secrets too."""
        self.values |= frozenset(values)
        LOG_MASK.learn(self.values)

    def credential(self, location: Path, value: T) -> Credential[T]:
        """The value at a place of the file, to be asked for at each use. `value` is what it is now."""
        template = self._at(location)
        return _Followed(self, location, template, value) if secret_paths(template) else Credential(value)

    @property
    def edition(self) -> object:
        """Another one whenever a secret has changed."""
        return self._secrets

    def filled(self, location: Path) -> Any:
        """What stands at a place of the file now."""
        return fill(self._at(location), self._environment, self._secrets).tree

    async def renew(self, paths: Sequence[str], is_newer: Callable[[], bool]) -> None:
        """Fetch refused secrets again, once for all who were refused at the same time, and not again for a while."""
        async with self._one_at_a_time:
            now = self._clock()
            known = [path for path in paths if now - self._fetched_again.get(path, -math.inf) < ASK_AGAIN_SECONDS]
            if not is_newer() and len(known) < len(paths):
                await self._fetch_again(paths)

    async def refresh(self) -> None:
        """Fetch all secrets again."""
        async with self._one_at_a_time:
            await self._fetch_again(self._paths)

    async def _fetch_again(self, paths: Sequence[str]) -> None:
        try:
            secrets = {**self._secrets, **await fetched(paths, self._read)}
        except StartError as error:
            self._tell("failed", str(error))
            return
        finally:
            self._fetched_again |= dict.fromkeys(paths, self._clock())
        resolution = fill(self._tree, self._environment, secrets)
        self.hide(resolution.secrets)
        if resolution.problems:  # what was known may still be good
            self._tell("failed", "; ".join(problem.message for problem in resolution.problems))
        elif changed := [path for path in paths if secrets[path] != self._secrets.get(path)]:
            self._secrets = secrets
            self._tell("renewed", ", ".join(changed))
        else:
            self._tell("unchanged", ", ".join(paths))

    def _tell(self, outcome: Outcome, what: str) -> None:
        level = logging.WARNING if outcome == "failed" else logging.INFO
        _log.log(level, "secrets fetched again: %s: %s", outcome, what)
        self.counted(outcome)

    async def _read(self, paths: Sequence[str]) -> Fetched:
        # In a thread: the SDK behind a source takes most of a second to import.
        specification = self._environment.get("MYAGENT_SECRETS", "aws")
        source = await asyncio.to_thread(source_for, specification, self._environment)
        async with source:
            return await source.fetch(paths)

    def _at(self, location: Path) -> Any:
        found = self._tree
        for part in location:
            if isinstance(found, dict):
                found = cast("dict[Any, Any]", found).get(part)
            elif isinstance(found, list) and isinstance(part, int):
                found = cast("list[Any]", found)[part]
            else:
                return None
        return found


class _Followed(Credential[T]):
    """A credential that follows its secrets; as long as they stay, its value is the one that the file was read with."""

    def __init__(self, book: SecretBook, location: Path, template: Any, value: T) -> None:
        super().__init__(value)
        self._book = book
        self._location = location
        self._paths = secret_paths(template)
        self._edition = book.edition
        self._filled = book.filled(location)

    @property
    def value(self) -> T:
        if self._edition is not self._book.edition:
            self._edition = self._book.edition
            filled = self._book.filled(self._location)
            if filled != self._filled:
                self._filled, self._value = filled, filled
        return self._value

    async def renewed(self, refused: T) -> T | None:
        await self._book.renew(self._paths, lambda: self.value != refused)
        return None if self.value == refused else self.value


def key_of(book: SecretBook | None, location: Path, key: SecretStr | None) -> Credential[str | None]:
    """A key at a place of the file, to be asked for at each use; without a book it stays as it is."""
    plain = key.get_secret_value() if key else None
    return book.credential(location, plain) if book else Credential(plain)


def refreshing(book: SecretBook, seconds: float | None) -> Background:
    """Fetches an agent's secrets again every `seconds` until the block ends; without them it does nothing."""

    async def by_the_clock(seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await book.refresh()
            except Exception:  # a background loop: a source may raise anything, and the secrets that are known stay
                _log.warning("the secrets could not be fetched again", exc_info=True)

    return Background(None if seconds is None else partial(by_the_clock, seconds), name="secrets")
