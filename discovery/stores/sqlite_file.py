"""A SQLite file, held by a process of its own: see `sqlite_process`, which says why and how it is spoken to."""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec

from discovery.registry.store import StoreError
from discovery.stores.sqlite_process import HEAD_BYTES, PROGRAM, Answer, Request, Statement, framed

BUSY_SECONDS = 1.0
CLOSING_SECONDS = 5.0

Row = dict[str, Any]

_answer = msgspec.msgpack.Decoder(Answer).decode


class SqliteFile:
    """Starts its process when it is needed, and again when that has ended. One may ask at a time."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._process: Process | None = None

    async def execute(self, statements: Sequence[Statement], *, needed: int | None = None) -> list[list[Row]]:
        """Execute in order, and say what each brought.

        Nothing at all is said where the `needed` one, by its number, changed no row: everything is rolled back then.

        Raises:
            StoreError: One failed. The connection is closed, and with it a transaction that was open.
        """
        results, failure = await self._ask((statements, needed))
        if failure is not None:
            raise StoreError(f"{self.path}: {failure}")
        return [[dict(zip(columns, row, strict=True)) for row in rows] for columns, rows in results or ()]

    async def let_go(self) -> None:
        """Close the connection, and with it a transaction that is open. The next to ask gets a fresh one."""
        if self._process is not None:
            with suppress(StoreError):
                await self._ask(((), None))

    async def aclose(self) -> None:
        """End the process once it has done what it was asked for; never fails."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSING_SECONDS):
                    await process.communicate(b"")  # and close its input
                return
            await _killed(process)

    async def _ask(self, request: Request) -> Answer:
        message = framed(request)
        try:
            self._process = process = self._process or await self._started()
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(message)
            head = await process.stdout.readexactly(HEAD_BYTES)
            return _answer(await process.stdout.readexactly(int.from_bytes(head, "big")))
        except (OSError, asyncio.IncompleteReadError) as error:
            await self._end()
            raise StoreError(f"{self.path}: the process that holds it has ended") from error
        except BaseException:  # nobody waits for the answer: it must not be taken for that of the next
            await self._end()
            raise

    async def _started(self) -> Process:
        program = (sys.executable, "-P", PROGRAM, self.path, str(BUSY_SECONDS))
        # In a session of its own: what is typed at the terminal is for the registry.
        return await asyncio.create_subprocess_exec(*program, stdin=PIPE, stdout=PIPE, start_new_session=True)

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            await _killed(process)


async def _killed(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()
    await process.communicate(b"")
