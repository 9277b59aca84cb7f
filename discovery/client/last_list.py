"""The list as a registry last told it, kept on disk for when that registry is away.

A cache: where anything is wrong with it, there is none.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from tempfile import mkstemp

from pydantic import BaseModel, ValidationError

from discovery.contract.fields import Moment
from discovery.contract.filters import Filters
from discovery.contract.models import AgentRecord


@dataclass(frozen=True, slots=True)
class LastList:
    """Agents, and when the registry said so."""

    agents: list[AgentRecord]
    heard_at: datetime


class _Kept(BaseModel):
    heard_at: Moment
    agents: list[AgentRecord]


class Shelf:
    """The last lists of one registry in one folder. Blocks on the disk: call it from a thread."""

    def __init__(self, folder: Path, registry: str) -> None:
        self._folder, self._registry = folder, registry

    def keep(self, filters: Filters, agents: Iterable[AgentRecord], now: datetime) -> None:
        """Write down an answer; a folder that cannot be written keeps nothing."""
        text = _Kept(heard_at=now, agents=list(agents)).model_dump_json(exclude_none=True)
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, draft = mkstemp(dir=self._folder, suffix=".draft")  # only its owner may read it
            try:
                with open(handle, "w", encoding="utf-8") as file:
                    file.write(text)
                os.replace(draft, self._file(filters))
            except BaseException:
                Path(draft).unlink(missing_ok=True)
                raise
        except OSError:
            return

    def find(self, filters: Filters) -> LastList | None:
        """The last answer to the same question; failing that, what these filters choose from the last whole list."""
        return self._read(filters) or (self._read(Filters(), filters) if filters else None)

    def _read(self, asked: Filters, then: Filters | None = None) -> LastList | None:
        try:
            kept = _Kept.model_validate_json(self._file(asked).read_bytes())
        except (OSError, ValidationError):
            return None
        return LastList(then.choose(kept.agents) if then else kept.agents, kept.heard_at)

    def _file(self, filters: Filters) -> Path:
        key = repr((self._registry, filters.parameters)).encode()
        return self._folder / f"agents-{blake2b(key, digest_size=12).hexdigest()}.json"
