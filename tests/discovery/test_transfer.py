"""`export`, `import` and `migrate` as a shell sees them."""

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from discovery.registry.store import Store
from discovery.stores import open_store
from tests.discovery.conftest import registration
from tests.discovery.stores.test_stores import WHOLE, change, record, write
from tests.discovery.test_command import run


def fill(path: Path) -> str:
    async def work() -> None:
        store = open_store(f"sqlite:///{path}")
        first, second = change(record()), change(record(registration(name="b"), revision=2))
        await write(store, first._replace(at=WHOLE), second._replace(at=WHOLE))
        await store.aclose()

    asyncio.run(work())
    return f"sqlite:///{path}"


def contents(url: str) -> tuple[object, object]:
    async def read(store: Store) -> tuple[object, object]:
        snapshot, lines = await store.load(), list(await store.export())
        await store.aclose()
        return (sorted(one.key for one in snapshot.records), snapshot.revision, snapshot.lineage), lines

    return asyncio.run(read(open_store(url)))


def test_what_is_exported_is_lines_of_json_that_import_takes(tmp_path: Path) -> None:
    url, file, target = fill(tmp_path / "registry.db"), tmp_path / "out.ndjson", f"sqlite:///{tmp_path / 'new.db'}"
    exported = run("export", str(file), "--database-url", url)
    assert (exported.returncode, exported.stdout) == (0, "")
    assert f"Exported 5 lines to {file}." in exported.stderr
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["registry", "agent", "agent", "history", "history"]
    assert (lines[0]["agents"], lines[0]["history"], lines[0]["revision"]) == (2, 2, 2)
    imported = run("import", str(file), "--database-url", target)
    assert (imported.returncode, imported.stdout) == (0, "")
    assert imported.stderr == "Imported 2 instances and 2 changes, at revision 2.\n"
    assert contents(target) == contents(url)


def test_an_export_goes_to_standard_output_without_a_file(tmp_path: Path) -> None:
    exported = run("export", DISCOVERY_DATABASE_URL=fill(tmp_path / "registry.db"))
    assert len(exported.stdout.splitlines()) == 5


def test_migrate_moves_everything_to_postgres_and_back(tmp_path: Path, postgres_url: str) -> None:
    url, back = fill(tmp_path / "registry.db"), f"sqlite:///{tmp_path / 'back.db'}"
    for source, target in ((url, postgres_url), (postgres_url, back)):
        moved = run("migrate", "--from", source, "--to", target)
        assert (moved.returncode, moved.stderr) == (0, "Moved 2 instances and 2 changes, at revision 2.\n")
    assert contents(back) == contents(url)


def test_a_store_that_is_not_empty_is_never_overwritten(tmp_path: Path) -> None:
    url, file = fill(tmp_path / "registry.db"), tmp_path / "out.ndjson"
    run("export", str(file), "--database-url", url)
    for refused in (
        run("import", str(file), "--database-url", url),
        run("migrate", "--from", url, "--to", fill(tmp_path / "other.db")),
    ):
        assert refused.returncode == 1
        assert "is not empty: it is at revision 2" in refused.stderr
        assert len(refused.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda lines: lines[:-1], "incomplete: it has 2 of 2 instances and 1 of 2 changes"),
        (lambda lines: lines[1:], "line 1: not an export of a registry"),
        (lambda lines: [lines[0], "{nonsense", *lines[1:]], "line 2: "),
        (lambda lines: [], "the file is empty"),
        (lambda lines: [lines[0].replace('"format":1', '"format":2'), *lines[1:]], "newer version of discovery"),
    ],
)
def test_lines_that_are_no_whole_export_change_nothing(tmp_path: Path, spoil: object, said: str) -> None:
    file, target = tmp_path / "out.ndjson", tmp_path / "new.db"
    run("export", str(file), "--database-url", fill(tmp_path / "registry.db"))
    file.write_text("\n".join(spoil(file.read_text().splitlines())))  # type: ignore[operator]
    refused = run("import", str(file), "--database-url", f"sqlite:///{target}")
    assert refused.returncode == 2
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr
    if target.exists():
        with closing(sqlite3.connect(target)) as viewer:
            assert not viewer.execute("SELECT name FROM sqlite_master WHERE name = 'agents'").fetchall()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["export", "--database-url", "sqlite:///nowhere.db"], "the file nowhere.db does not exist"),
        (["migrate", "--from", "sqlite:///nowhere.db", "--to", "memory://"], "the file nowhere.db does not exist"),
        (["import", "nowhere.ndjson", "--database-url", "memory://"], "nowhere.ndjson: No such file"),
        (["export", "--database-url", "mysql://u:hush@h"], "use sqlite:///"),
        (["migrate", "--from", "memory://", "--to", "mysql://u:hush@h"], "use sqlite:///"),
        (["export", "--database-url", "postgresql://u:hush@127.0.0.1:1/d"], "Postgres at 127.0.0.1/d"),
    ],
)
def test_what_cannot_work_is_one_sentence_without_a_secret(arguments: list[str], said: str) -> None:
    refused = run(*arguments)
    assert refused.returncode in {1, 2}
    assert said in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert "hush" not in refused.stderr


def test_help_of_the_commands_helps() -> None:
    assert "migrate --from URL --to URL" in run("--help").stdout
    for command in ("export", "import", "migrate"):
        shown = run(command, "--help")
        assert shown.returncode == 0
        assert "It contains no secrets" in " ".join(shown.stdout.split())
