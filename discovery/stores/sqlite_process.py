"""The process that holds a SQLite file: executes what it reads from its input, and answers on its output.

    python sqlite_process.py FILE SECONDS-TO-WAIT-WHILE-IT-IS-LOCKED

It is one of its own because the steps of SQLite and those of the event loop would wait for one interpreter. It is
started by its path and imports nothing of the package, so that it is there at once; it ends when its input does.

Each message is MessagePack behind its length in four bytes: statements, as (SQL, rows of values), and which of them
has to change a row, if one has to. The answer is what each brought, as (columns, rows); nothing where the one that had
to changed none, and all was rolled back; or why it failed. After a failure, and when asked for no statement at all,
the connection is closed: a fresh one cannot be in a half state.
"""

import os
import signal
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import msgspec

Statement = tuple[str, Sequence[Sequence[Any]]]
Result = tuple[list[str], list[list[Any]]]
Request = tuple[Sequence[Statement], int | None]
Answer = tuple[list[Result] | None, str | None]
PROGRAM = __file__
HEAD_BYTES = 4


def framed(message: Any) -> bytes:
    """A message as it is sent."""
    body = msgspec.msgpack.encode(message)
    return len(body).to_bytes(HEAD_BYTES, "big") + body


class Holder:
    """Opens the file when it is asked for something."""

    def __init__(self, path: str, busy_seconds: float) -> None:
        self._path, self._busy_seconds = path, busy_seconds
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None

    def answer(self, request: Request) -> Answer:
        """What became of the statements, or why they failed."""
        statements, needed = request
        try:
            if statements:
                return self._executed(statements, needed), None
            self.close()
        except Exception as error:  # whatever it is, who asked is told, and may ask again
            self.close()
            return None, str(error)
        return [], None

    def close(self) -> None:
        """Let go of the file; what was not committed is rolled back."""
        connection, self._connection, self._identity = self._connection, None, None
        if connection is not None:
            connection.close()

    def _executed(self, statements: Sequence[Statement], needed: int | None) -> list[Result] | None:
        connection = self._opened()
        results: list[Result] = []
        for number, (sql, rows) in enumerate(statements):
            cursor = connection.execute(sql, rows[0]) if len(rows) == 1 else connection.executemany(sql, rows)
            if number == needed and cursor.rowcount == 0:
                connection.execute("ROLLBACK")
                return None
            results.append(([column[0] for column in cursor.description or ()], cursor.fetchall()))
        self._identity = self._identity or _identity(self._path)  # SQLite makes a file when it is first needed
        return results

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = sqlite3.connect(self._path, self._busy_seconds, isolation_level=None)
        elif self._identity != _identity(self._path):
            # SQLite would go on writing to the deleted file, and everything acknowledged would die with us.
            raise OSError("it was removed or replaced while in use")
        return self._connection


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _requests(source: BinaryIO) -> Iterator[Request]:
    decoder = msgspec.msgpack.Decoder(Request)
    while len(head := source.read(HEAD_BYTES)) == HEAD_BYTES:
        yield decoder.decode(source.read(int.from_bytes(head, "big")))


def main(path: str, busy_seconds: str) -> None:
    """Answer until nobody asks. Signals are for who started it; that it has ended is heard soon enough."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    holder = Holder(path, float(busy_seconds))
    for request in _requests(sys.stdin.buffer):
        sys.stdout.buffer.write(framed(holder.answer(request)))
        sys.stdout.buffer.flush()
    holder.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
