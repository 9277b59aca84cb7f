"""The last lists of a registry, kept on disk for when the registry is unavailable."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from tempfile import mkstemp

from pydantic import BaseModel, ValidationError

from discovery.contract import AgentRecord, Filters, Timestamp


@dataclass(frozen=True, slots=True)
class CachedList:
    """A list of agents, and when the registry returned it."""

    agents: list[AgentRecord]
    fetched_at: datetime


class _CacheFile(BaseModel):
    fetched_at: Timestamp
    agents: list[AgentRecord]


class ListCache:
    """The cached lists of one registry in one folder. Blocking: call it from a thread."""

    def __init__(self, folder: Path, registry: str) -> None:
        self._folder, self._registry = folder, registry

    def store(self, filters: Filters, agents: Iterable[AgentRecord], now: datetime) -> None:
        """Replace the cached list of these filters; a folder that is not writable is ignored."""
        text = _CacheFile(fetched_at=now, agents=list(agents)).model_dump_json(exclude_none=True)
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, draft = mkstemp(dir=self._folder, suffix=".draft")  # readable by its owner only
            try:
                with open(handle, "w", encoding="utf-8") as file:
                    file.write(text)
                os.replace(draft, self._path(filters))
            except BaseException:
                Path(draft).unlink(missing_ok=True)
                raise
        except OSError:
            return

    def load(self, filters: Filters) -> CachedList | None:
        """The cached list of these filters, or the cached list of all agents, filtered."""
        cached = self._read(filters)
        if cached is None and filters and (everything := self._read(Filters())) is not None:
            return CachedList(filters.apply(everything.agents), everything.fetched_at)
        return cached

    def _read(self, filters: Filters) -> CachedList | None:
        try:
            content = _CacheFile.model_validate_json(self._path(filters).read_bytes())
        except (OSError, ValidationError):
            return None
        return CachedList(content.agents, content.fetched_at)

    def _path(self, filters: Filters) -> Path:
        key = repr((self._registry, filters.parameters)).encode()
        return self._folder / f"agents-{blake2b(key, digest_size=12).hexdigest()}.json"
