"""`myagent-discovery export`, `import` and `migrate`: move the agents and their history between databases.

An export has one JSON object a line. The first says how many lines follow, so that a truncated file is detected.
"""

import argparse
import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TextIO

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from discovery.contract import utc_now
from discovery.registry.history import HistoryEntry
from discovery.registry.leases import Record
from discovery.registry.store import Line, Snapshot, Store, StoreError
from discovery.settings import Settings, SettingsError
from discovery.stores import open_store, sqlite_path

COMMANDS = ("export", "import", "migrate")
DESCRIPTION = "One JSON object a line: the registered agents and their history of 30 days. It contains no secrets."
FORMAT = 1


class _Header(BaseModel):
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


_LINE: TypeAdapter[_Header | _Agent | _Change] = TypeAdapter(
    Annotated[_Header | _Agent | _Change, Field(discriminator="kind")]
)


class ImportFailed(Exception):
    """The file is not a valid export; the message names the line and the reason."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What was imported or moved."""

    agents: int
    history: int
    revision: int

    def __str__(self) -> str:
        return f"{self.agents:,} instances and {self.history:,} changes, at revision {self.revision:,}"


def run(argv: Sequence[str]) -> int:
    """Run a command. The exit status is 2 for invalid arguments or input, 1 for an error of the storage."""
    arguments = _parser().parse_args(argv)
    try:
        return asyncio.run(arguments.run(arguments))
    except SettingsError as error:
        problems, status = error.problems, 2
    except OSError as error:
        problems, status = [f"{error.filename}: {error.strerror}" if error.filename else str(error)], 2
    except (ImportFailed, ValueError) as error:
        problems, status = [str(error)], 2
    except StoreError as error:
        problems, status = [str(error)], 1
    print(*(f"myagent-discovery {arguments.command}: {problem}" for problem in problems), sep="\n", file=sys.stderr)
    return status


async def export_lines(store: Store) -> AsyncIterator[str]:
    """The lines of an export, without line ends."""
    snapshot, history = await store.load(), await store.export()
    yield _Header(
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


async def import_lines(store: Store, lines: Iterable[str]) -> Counts:
    """Fill an empty store with an export, completely or not at all.

    Raises:
        ImportFailed: The lines are not a complete export.
        StoreError: The store is not empty, or failed.
    """
    header: _Header | None = None
    records: list[Record] = []
    history: list[Line] = []
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        line = _parse(number, text)
        if header is None and not isinstance(line, _Header):
            raise ImportFailed("line 1: not an export of a registry: the first line must have kind 'registry'")
        match line:
            case _Header():
                header = line
            case _Agent():
                records.append(line.record)
            case _Change():
                history.append(Line(line.name, line.entry))
    if header is None:
        raise ImportFailed("the file is empty")
    if header.format > FORMAT:
        raise ImportFailed(f"written by a newer version of discovery (format {header.format}): upgrade this one")
    if (len(records), len(history)) != (header.agents, header.history):
        raise ImportFailed(
            f"incomplete: it has {len(records)} of {header.agents} instances and {len(history)} of {header.history} "
            "changes"
        )
    await store.fill(Snapshot(records, header.revision, header.lineage), history)
    return Counts(len(records), len(history), header.revision)


def _parse(number: int, text: str) -> _Header | _Agent | _Change:
    try:
        return _LINE.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        path = ".".join(str(part) for part in first["loc"][:6])
        raise ImportFailed(f"line {number}: {path} {first['msg']}".replace(":  ", ": ")) from None


async def _export(arguments: argparse.Namespace) -> int:
    target: Path | None = arguments.file
    async with _opened(_database(arguments), must_exist=True) as store:
        if target is None:
            count = await _write(store, sys.stdout)
        else:
            # Written to a file beside it first, so that the target is never an incomplete export.
            part = target.with_name(target.name + ".part")
            try:
                with part.open("w", encoding="utf-8") as file:
                    count = await _write(store, file)
                part.replace(target)
            finally:
                part.unlink(missing_ok=True)
    print(f"Exported {count:,} lines" + (f" to {target}." if target else "."), file=sys.stderr)
    return 0


async def _write(store: Store, file: TextIO) -> int:
    count = 0
    async for line in export_lines(store):
        file.write(line + "\n")
        count += 1
    file.flush()
    return count


async def _import(arguments: argparse.Namespace) -> int:
    async with _opened(_database(arguments)) as store:
        if arguments.file is None:
            counts = await import_lines(store, sys.stdin)
        else:
            with arguments.file.open(encoding="utf-8") as file:
                counts = await import_lines(store, file)
    print(f"Imported {counts}.", file=sys.stderr)
    return 0


async def _migrate(arguments: argparse.Namespace) -> int:
    async with _opened(arguments.source, must_exist=True) as source, _opened(arguments.target) as target:
        snapshot, history = await source.load(), await source.export()
        await target.fill(snapshot, history)
    print(f"Moved {Counts(len(snapshot.records), len(history), snapshot.revision)}.", file=sys.stderr)
    return 0


def _database(arguments: argparse.Namespace) -> str:
    return Settings.from_environment(database_url=arguments.database_url, host="127.0.0.1").database_url


@asynccontextmanager
async def _opened(url: str, *, must_exist: bool = False) -> AsyncGenerator[Store]:
    if must_exist:
        _check_exists(url)
    store = open_store(url)
    try:
        yield store
    finally:
        await store.aclose()


def _check_exists(url: str) -> None:
    path = sqlite_path(url)
    if path is not None and not Path(path).is_file():
        raise ValueError(f"the file {path} does not exist: name the registry's database with sqlite:///…")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="myagent-discovery")
    commands = parser.add_subparsers(dest="command", required=True)

    def add(name: str, work: Callable[[argparse.Namespace], Coroutine[Any, Any, int]], help: str) -> Any:
        command = commands.add_parser(name, help=help, description=f"{help}. {DESCRIPTION}")
        command.set_defaults(run=work)
        return command

    database = "sqlite:///registry.db or postgresql://… (DISCOVERY_DATABASE_URL)"
    command = add("export", _export, "Export a registry as JSON lines; it may be running")
    command.add_argument("file", nargs="?", type=Path, help="the file to write (standard output)")
    command.add_argument("--database-url", help=database)
    command = add("import", _import, "Import an export into an empty registry; stop it first")
    command.add_argument("file", nargs="?", type=Path, help="the file to read (standard input)")
    command.add_argument("--database-url", help=database)
    command = add("migrate", _migrate, "Move a registry to another, empty database; stop it first")
    command.add_argument(
        "--from", dest="source", required=True, metavar="URL", help="sqlite:///registry.db, for example"
    )
    command.add_argument("--to", dest="target", required=True, metavar="URL", help="postgresql://host/database")
    return parser
