"""A registry's table and history as lines of JSON: out of one store, into another.

The first line says what follows and how much of it, so that a file that was cut short is noticed.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from discovery.contract.models import utc_now
from discovery.registry.history import HistoryEntry
from discovery.registry.leases import Record
from discovery.registry.store import Line, Snapshot, Store

FORMAT = 1


class _Head(BaseModel):
    kind: Literal["registry"] = "registry"
    format: int
    revision: int
    lineage: str
    exported_at: datetime
    agents: int
    history: int


class _Agent(BaseModel):
    kind: Literal["agent"] = "agent"
    record: Record


class _Change(BaseModel):
    kind: Literal["history"] = "history"
    name: str
    entry: HistoryEntry


_LINE: TypeAdapter[_Head | _Agent | _Change] = TypeAdapter(
    Annotated[_Head | _Agent | _Change, Field(discriminator="kind")]
)


class TransferError(Exception):
    """The lines cannot be read; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Amount:
    """What was moved."""

    agents: int
    history: int
    revision: int

    def __str__(self) -> str:
        return f"{self.agents:,} instances and {self.history:,} changes, at revision {self.revision:,}"


async def exported(store: Store) -> AsyncIterator[str]:
    """Everything a store holds, line by line, without line ends."""
    snapshot, history = await store.load(), await store.export()
    yield _Head(
        format=FORMAT,
        revision=snapshot.revision,
        lineage=snapshot.lineage,
        exported_at=utc_now(),
        agents=len(snapshot.records),
        history=len(history),
    ).model_dump_json()
    for record in snapshot.records:
        yield _Agent(record=record).model_dump_json()
    for line in history:
        yield _Change(name=line.name, entry=line.entry).model_dump_json()


async def imported(store: Store, lines: Iterable[str]) -> Amount:
    """Fill an empty store, all at once or not at all.

    Raises:
        TransferError: The lines are no whole export.
        StoreError: The store is not empty, or cannot be used.
    """
    head: _Head | None = None
    records: list[Record] = []
    history: list[Line] = []
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        line = _read(number, text)
        if head is None and not isinstance(line, _Head):
            raise TransferError("line 1: is no export of a registry: its first line has kind 'registry'")
        match line:
            case _Head():
                head = line
            case _Agent():
                records.append(line.record)
            case _Change():
                history.append(Line(line.name, line.entry))
    if head is None:
        raise TransferError("there is nothing in it")
    if head.format > FORMAT:
        raise TransferError(f"was written by a newer version of discovery (format {head.format}): upgrade this one")
    return await _fill(store, head, records, history)


async def migrated(source: Store, target: Store) -> Amount:
    """Move everything from one store to another, which is empty."""
    snapshot, history = await source.load(), await source.export()
    await target.fill(snapshot, history)
    return Amount(len(snapshot.records), len(history), snapshot.revision)


async def _fill(store: Store, head: _Head, records: Sequence[Record], history: Sequence[Line]) -> Amount:
    if (len(records), len(history)) != (head.agents, head.history):
        raise TransferError(
            f"is not whole: it has {len(records)} of {head.agents} instances "
            f"and {len(history)} of {head.history} changes"
        )
    await store.fill(Snapshot(records, head.revision, head.lineage), history)
    return Amount(len(records), len(history), head.revision)


def _read(number: int, text: str) -> _Head | _Agent | _Change:
    try:
        return _LINE.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"][:6])
        raise TransferError(f"line {number}: {where} {first['msg']}".replace(":  ", ": ")) from None
