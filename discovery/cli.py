"""`myagent-discovery export`, `import` and `migrate`: a registry's table and history out of one store, into another."""

import argparse
import asyncio
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TextIO

from discovery.registry.store import Store, StoreError
from discovery.settings import Settings, SettingsError
from discovery.stores import open_store, sqlite_path
from discovery.transfer import Amount, TransferError, exported, imported, migrated

DESCRIPTION = "One JSON object a line: what the registry knows, and its history of 30 days. No secrets are in it."


def run(argv: Sequence[str]) -> int:
    """Run one of the commands. Exit status 2 for what the caller has to change, 1 for a storage in trouble."""
    arguments = _parser().parse_args(argv)
    try:
        return asyncio.run(arguments.run(arguments))
    except SettingsError as error:
        problems, status = error.problems, 2
    except (TransferError, OSError, ValueError) as error:
        problems, status = [_said(error)], 2
    except StoreError as error:
        problems, status = [str(error)], 1
    print(*(f"myagent-discovery {arguments.command}: {problem}" for problem in problems), sep="\n", file=sys.stderr)
    return status


async def _export(arguments: argparse.Namespace) -> int:
    target: Path | None = arguments.file
    async with _opened(_database(arguments), must_exist=True) as store:
        if target is None:
            count = await _write(store, sys.stdout)
        else:
            # Beside it first: a file of this name is always a whole one.
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
    async for line in exported(store):
        file.write(line + "\n")
        count += 1
    file.flush()
    return count


async def _import(arguments: argparse.Namespace) -> int:
    async with _opened(_database(arguments)) as store:
        if arguments.file is None:
            amount = await imported(store, sys.stdin)
        else:
            with arguments.file.open(encoding="utf-8") as file:
                amount = await imported(store, file)
    return _done("Imported", amount)


async def _migrate(arguments: argparse.Namespace) -> int:
    async with _opened(arguments.source, must_exist=True) as source, _opened(arguments.target) as target:
        amount = await migrated(source, target)
    return _done("Moved", amount)


def _done(what: str, amount: Amount) -> int:
    print(f"{what} {amount}.", file=sys.stderr)
    return 0


def _database(arguments: argparse.Namespace) -> str:
    return Settings.from_environment(database_url=arguments.database_url, host="127.0.0.1").database_url


@asynccontextmanager
async def _opened(url: str, *, must_exist: bool = False) -> AsyncGenerator[Store]:
    path = sqlite_path(url)
    if must_exist and path is not None and not _is_file(path):
        raise ValueError(f"there is no file {path}: name the registry's own with sqlite:///…")
    store = open_store(url)
    try:
        yield store
    finally:
        await store.aclose()


def _is_file(path: str) -> bool:
    return Path(path).is_file()


def _said(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="myagent-discovery")
    commands = parser.add_subparsers(dest="command", required=True)

    def add(name: str, work: Callable[[argparse.Namespace], Coroutine[Any, Any, int]], help: str) -> Any:
        command = commands.add_parser(name, help=help, description=f"{help}. {DESCRIPTION}")
        command.set_defaults(run=work)
        return command

    database = "sqlite:///registry.db or postgresql://… (DISCOVERY_DATABASE_URL)"
    command = add("export", _export, "Write a registry as lines of JSON; it may be running")
    command.add_argument("file", nargs="?", type=Path, help="where to; standard output without it")
    command.add_argument("--database-url", help=database)
    command = add("import", _import, "Fill an empty registry from such lines; stop it first")
    command.add_argument("file", nargs="?", type=Path, help="where from; standard input without it")
    command.add_argument("--database-url", help=database)
    command = add("migrate", _migrate, "Move a registry to another, empty database; stop it first")
    command.add_argument(
        "--from", dest="source", required=True, metavar="URL", help="sqlite:///registry.db, for example"
    )
    command.add_argument("--to", dest="target", required=True, metavar="URL", help="postgresql://host/database")
    return parser


COMMANDS = ("export", "import", "migrate")
